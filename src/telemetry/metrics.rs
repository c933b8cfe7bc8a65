//! Prometheus metrics. Labels are bounded: model names that are served, never what a client typed.
//!
//! A model's handles are looked up once, when it is loaded, so that a request costs a few atomic additions and no
//! lookup by label.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::devices::DeviceMetrics;
use super::exposition::classic;
use super::loads::Loads;
use super::process::Process;
use crate::engine::queue::Depth;
use crate::error::Kind;
use crate::model::state::State;

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    V1,
    V2,
    Grpc,
}

impl Protocol {
    /// The `protocol` label.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::V1 => "v1",
            Protocol::V2 => "v2",
            Protocol::Grpc => "grpc",
        }
    }
}

/// A duration histogram from 100 us to 60 s, in seconds.
#[derive(Clone)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        const BOUNDS: [f64; 19] = [
            0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
            20.0, 30.0, 60.0,
        ];
        Histogram::new(BOUNDS)
    }
}

/// A histogram of sizes in powers of two.
#[derive(Clone)]
struct Sizes;

impl MetricConstructor<Histogram> for Sizes {
    fn new_metric(&self) -> Histogram {
        Histogram::new((0..=12).map(|power| f64::from(1_u32 << power)))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
    version: String,
}

/// The labels of a model and one more.
macro_rules! model_labels {
    ($name:ident, $($label:ident: $type:ty),+) => {
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name {
            model: String,
            version: String,
            $($label: $type),+
        }
    };
}

model_labels!(RequestLabels, protocol: &'static str, code: u16);
model_labels!(ProtocolLabels, protocol: &'static str);
model_labels!(DeviceLabels, device: String);
model_labels!(DirectionLabels, direction: &'static str);
model_labels!(ReasonLabels, reason: &'static str);
model_labels!(StateLabels, state: &'static str);
model_labels!(PhaseLabels, phase: &'static str);
model_labels!(RestartLabels, device: String, reason: &'static str);
model_labels!(KindLabels, kind: &'static str);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KServeLabels {
    model_name: String,
}

type SecondsOf<L> = Family<L, Histogram, Seconds>;
type SizesOf<L> = Family<L, Histogram, Sizes>;

/// Every metric of the process.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_seconds: SecondsOf<ProtocolLabels>,
    queue_seconds: SecondsOf<ModelLabels>,
    compute_seconds: SecondsOf<DeviceLabels>,
    codec_seconds: SecondsOf<DirectionLabels>,
    batch_rows: SizesOf<ModelLabels>,
    batch_requests: SizesOf<ModelLabels>,
    padding: Family<ModelLabels, Counter>,
    queue_requests: Family<ModelLabels, Gauge>,
    queue_rows: Family<ModelLabels, Gauge>,
    queue_bytes: Family<ModelLabels, Gauge>,
    inflight: Gauge,
    rejected: Family<ReasonLabels, Counter>,
    goodput: Family<ModelLabels, Counter>,
    model_state: Family<StateLabels, Gauge>,
    load_seconds: Family<PhaseLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    model_bytes: Family<KindLabels, Gauge>,
    restarts: Family<RestartLabels, Counter>,
    pub loads: Loads,
    pub devices: DeviceMetrics,
    kserve_preprocess: SecondsOf<KServeLabels>,
    kserve_predict: SecondsOf<KServeLabels>,
    kserve_postprocess: SecondsOf<KServeLabels>,
}

impl Default for Metrics {
    fn default() -> Self {
        fn add<M: prometheus_client::registry::Metric + Clone>(
            registry: &mut Registry,
            name: &str,
            help: &str,
            metric: M,
        ) -> M {
            registry.register(name, help, metric.clone());
            metric
        }
        let build = vec![
            ("version", env!("CARGO_PKG_VERSION")),
            ("commit", option_env!("STOKER_COMMIT").unwrap_or("unknown")),
            ("features", if cfg!(feature = "onnx") { "onnx" } else { "" }),
        ];
        let mut registry = Registry::default();
        registry.register("stoker_build", "What this binary is", Info::new(build));
        registry.register_collector(Box::new(Process));
        let r = &mut registry;
        Metrics {
            requests: add(r, "stoker_requests", "Finished requests", Family::default()),
            request_seconds: add(
                r,
                "stoker_request_duration_seconds",
                "From a request's head to its answer",
                Family::new_with_constructor(Seconds),
            ),
            queue_seconds: add(
                r,
                "stoker_queue_duration_seconds",
                "Time a request waited for the model",
                Family::new_with_constructor(Seconds),
            ),
            compute_seconds: add(
                r,
                "stoker_compute_duration_seconds",
                "Time the model took for one batch",
                Family::new_with_constructor(Seconds),
            ),
            codec_seconds: add(
                r,
                "stoker_codec_duration_seconds",
                "Time to decode a request or encode its answer",
                Family::new_with_constructor(Seconds),
            ),
            batch_rows: add(r, "stoker_batch_rows", "Rows of dispatched batches", Family::new_with_constructor(Sizes)),
            batch_requests: add(
                r,
                "stoker_batch_requests",
                "Requests in dispatched batches",
                Family::new_with_constructor(Sizes),
            ),
            padding: add(
                r,
                "stoker_batch_padding_elements",
                "Elements computed only to fill rows up to the longest of their batch",
                Family::default(),
            ),
            queue_requests: add(r, "stoker_queue_requests", "Requests waiting for the model", Family::default()),
            queue_rows: add(r, "stoker_queue_rows", "Rows waiting for the model", Family::default()),
            queue_bytes: add(r, "stoker_queue_bytes", "Bytes of inputs waiting for the model", Family::default()),
            inflight: add(r, "stoker_inflight_requests", "Requests being read, waiting or running", Gauge::default()),
            rejected: add(r, "stoker_rejected", "Requests answered without running", Family::default()),
            goodput: add(r, "stoker_goodput", "Answers within their deadline", Family::default()),
            model_state: add(r, "stoker_model_state", "1 for the state the model is in", Family::default()),
            load_seconds: add(r, "stoker_model_load_seconds", "Phases of the last load", Family::default()),
            model_bytes: add(r, "stoker_model_bytes", "Size of the model", Family::default()),
            restarts: add(r, "stoker_worker_restarts", "Times a model's process was begun anew", Family::default()),
            loads: Loads::register(r),
            devices: DeviceMetrics::register(r),
            kserve_preprocess: add(
                r,
                "request_preprocess_seconds",
                "pre-process request latency",
                Family::new_with_constructor(Seconds),
            ),
            kserve_predict: add(
                r,
                "request_predict_seconds",
                "predict request latency",
                Family::new_with_constructor(Seconds),
            ),
            kserve_postprocess: add(
                r,
                "request_postprocess_seconds",
                "post-process request latency",
                Family::new_with_constructor(Seconds),
            ),
            registry,
        }
    }
}

impl Metrics {
    /// The handles of one model.
    pub fn model(&self, model: &str, version: &str) -> ModelMetrics {
        let (name, version) = (model.to_owned(), version.to_owned());
        let labels = ModelLabels { model: name.clone(), version: version.clone() };
        let direction = |direction| {
            let labels = DirectionLabels { model: name.clone(), version: version.clone(), direction };
            self.codec_seconds.get_or_create_owned(&labels)
        };
        let kserve = KServeLabels { model_name: name.clone() };
        let protocols = [Protocol::V1, Protocol::V2, Protocol::Grpc].map(|protocol| {
            let protocol = protocol.name();
            let ok = RequestLabels { model: name.clone(), version: version.clone(), protocol, code: 200 };
            let all = ProtocolLabels { model: name.clone(), version: version.clone(), protocol };
            PerProtocol {
                ok: self.requests.get_or_create_owned(&ok),
                seconds: self.request_seconds.get_or_create_owned(&all),
            }
        });
        ModelMetrics {
            protocols,
            requests: self.requests.clone(),
            rejected: self.rejected.clone(),
            load_seconds: self.load_seconds.clone(),
            model_bytes: self.model_bytes.clone(),
            restarts: self.restarts.clone(),
            queue: self.queue_seconds.get_or_create_owned(&labels),
            compute: self.compute_seconds.clone(),
            decode: direction("decode"),
            encode: direction("encode"),
            batch_rows: self.batch_rows.get_or_create_owned(&labels),
            batch_requests: self.batch_requests.get_or_create_owned(&labels),
            padding: self.padding.get_or_create_owned(&labels),
            queue_requests: self.queue_requests.get_or_create_owned(&labels),
            queue_rows: self.queue_rows.get_or_create_owned(&labels),
            queue_bytes: self.queue_bytes.get_or_create_owned(&labels),
            goodput: self.goodput.get_or_create_owned(&labels),
            kserve_preprocess: self.kserve_preprocess.get_or_create_owned(&kserve),
            kserve_predict: self.kserve_predict.get_or_create_owned(&kserve),
            kserve_postprocess: self.kserve_postprocess.get_or_create_owned(&kserve),
            labels,
        }
    }

    /// Counts a request that names no model that we have, or that was refused before it could name one.
    pub fn observe_stray(&self, protocol: Protocol, kind: Kind) {
        let (model, version) = (String::new(), String::new());
        let labels = RequestLabels { model, version, protocol: protocol.name(), code: kind.http() };
        self.requests.get_or_create(&labels).inc();
        if let Some(reason) = kind.rejection() {
            self.observe_stray_rejection(reason);
        }
    }

    /// Counts a request whose caller went away before it had named a model.
    pub fn observe_stray_cancelled(&self) {
        self.observe_stray_rejection("cancelled");
    }

    fn observe_stray_rejection(&self, reason: &'static str) {
        let (model, version) = (String::new(), String::new());
        self.rejected.get_or_create(&ReasonLabels { model, version, reason }).inc();
    }

    /// Sets the one state that a model is in.
    pub fn observe_state(&self, model: &str, version: &str, current: State) {
        for state in State::ALL {
            let labels = StateLabels { model: model.to_owned(), version: version.to_owned(), state: state.name() };
            self.model_state.get_or_create(&labels).set(i64::from(state == current));
        }
    }

    /// Takes the series of [`Metrics::observe_state`] away, when the model turns out to have another version.
    pub fn forget_state(&self, model: &str, version: &str) {
        for state in State::ALL {
            let labels = StateLabels { model: model.to_owned(), version: version.to_owned(), state: state.name() };
            self.model_state.remove(&labels);
        }
    }

    pub fn observe_inflight(&self, requests: usize) {
        self.inflight.set(gauge(requests as u64));
    }

    /// Everything as OpenMetrics text.
    pub fn openmetrics(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("writing to a string cannot fail");
        out
    }

    /// Everything in Prometheus's classic text format 0.0.4, the only one that KServe's qpext reads.
    pub fn prometheus_text(&self) -> String {
        classic(&self.openmetrics())
    }
}

struct PerProtocol {
    ok: Counter,
    seconds: Histogram,
}

/// One model's metrics, ready to be counted up.
pub struct ModelMetrics {
    labels: ModelLabels,
    protocols: [PerProtocol; 3],
    requests: Family<RequestLabels, Counter>,
    rejected: Family<ReasonLabels, Counter>,
    load_seconds: Family<PhaseLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    model_bytes: Family<KindLabels, Gauge>,
    restarts: Family<RestartLabels, Counter>,
    /// Seconds a request waited.
    pub queue: Histogram,
    compute: SecondsOf<DeviceLabels>,
    decode: Histogram,
    encode: Histogram,
    batch_rows: Histogram,
    batch_requests: Histogram,
    padding: Counter,
    queue_requests: Gauge,
    queue_rows: Gauge,
    queue_bytes: Gauge,
    goodput: Counter,
    kserve_preprocess: Histogram,
    kserve_predict: Histogram,
    kserve_postprocess: Histogram,
}

/// Where the time of one answered request went.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    pub decode: Duration,
    pub infer: Duration,
    pub encode: Duration,
}

impl ModelMetrics {
    pub fn name(&self) -> &str {
        &self.labels.model
    }

    /// Counts an answered request.
    pub fn observe_answer(&self, protocol: Protocol, total: Duration, spent: Spent) {
        let per_protocol = &self.protocols[protocol as usize];
        per_protocol.ok.inc();
        per_protocol.seconds.observe(total.as_secs_f64());
        self.goodput.inc();
        let [decode, infer, encode] = [spent.decode, spent.infer, spent.encode].map(|time| time.as_secs_f64());
        self.decode.observe(decode);
        self.encode.observe(encode);
        self.kserve_preprocess.observe(decode);
        self.kserve_predict.observe(infer);
        self.kserve_postprocess.observe(encode);
    }

    /// Counts a request that failed.
    pub fn observe_failure(&self, protocol: Protocol, total: Duration, kind: Kind) {
        self.protocols[protocol as usize].seconds.observe(total.as_secs_f64());
        let ModelLabels { model, version } = self.labels.clone();
        let labels = RequestLabels { model, version, protocol: protocol.name(), code: kind.http() };
        self.requests.get_or_create(&labels).inc();
        if let Some(reason) = kind.rejection() {
            self.observe_rejection(reason);
        }
    }

    /// Counts a request whose caller went away before the answer.
    pub fn observe_cancelled(&self) {
        self.observe_rejection("cancelled");
    }

    fn observe_rejection(&self, reason: &'static str) {
        let ModelLabels { model, version } = self.labels.clone();
        self.rejected.get_or_create(&ReasonLabels { model, version, reason }).inc();
    }

    /// The model's process is begun anew.
    pub fn observe_restart(&self, device: &str, reason: &'static str) {
        let (ModelLabels { model, version }, device) = (self.labels.clone(), device.to_owned());
        self.restarts.get_or_create(&RestartLabels { model, version, device, reason }).inc();
    }

    /// Of batches on a device, in seconds.
    pub fn compute(&self, device: &str) -> Histogram {
        let ModelLabels { model, version } = self.labels.clone();
        self.compute.get_or_create_owned(&DeviceLabels { model, version, device: device.to_owned() })
    }

    /// A batch of requests of so many rows each, with so many elements that only fill rows up.
    pub fn observe_batch(&self, rows: &[usize], padding: usize) {
        self.padding.inc_by(padding as u64);
        #[allow(clippy::cast_precision_loss)] // batches are small
        let size = |count: usize| count as f64;
        self.batch_rows.observe(size(rows.iter().sum()));
        self.batch_requests.observe(size(rows.len()));
    }

    pub fn observe_queue(&self, Depth { jobs, rows, bytes }: Depth) {
        self.queue_requests.set(gauge(jobs as u64));
        self.queue_rows.set(gauge(rows as u64));
        self.queue_bytes.set(gauge(bytes as u64));
    }

    /// Forgets the phases of the load before.
    pub fn forget_load(&self) {
        self.load_seconds.clear();
    }

    /// How many seconds a phase of the load took.
    pub fn observe_load(&self, phase: &'static str, seconds: f64) {
        let ModelLabels { model, version } = self.labels.clone();
        self.load_seconds.get_or_create(&PhaseLabels { model, version, phase }).set(seconds);
    }

    /// Size of the model's files.
    pub fn observe_bytes(&self, bytes: u64) {
        let ModelLabels { model, version } = self.labels.clone();
        self.model_bytes.get_or_create(&KindLabels { model, version, kind: "weights" }).set(gauge(bytes));
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classic_format_names_samples_as_they_are() {
        let metrics = Metrics::default();
        let model = metrics.model("m", "1");
        metrics.observe_state("m", "1", State::Ready);
        let spent = Spent { decode: Duration::ZERO, infer: Duration::from_millis(2), encode: Duration::ZERO };
        model.observe_answer(Protocol::V1, Duration::from_millis(3), spent);
        model.observe_failure(Protocol::Grpc, Duration::ZERO, Kind::Overloaded);
        let text = metrics.prometheus_text();
        for line in [
            "# TYPE stoker_requests_total counter",
            "stoker_requests_total{model=\"m\",version=\"1\",protocol=\"v1\",code=\"200\"} 1",
            "stoker_requests_total{model=\"m\",version=\"1\",protocol=\"grpc\",code=\"429\"} 1",
            "stoker_rejected_total{model=\"m\",version=\"1\",reason=\"queue_full\"} 1",
            "stoker_model_state{model=\"m\",version=\"1\",state=\"ready\"} 1",
            "stoker_request_duration_seconds_bucket{le=\"0.005\",model=\"m\",version=\"1\",protocol=\"v1\"} 1",
            "request_predict_seconds_count{model_name=\"m\"} 1",
            "# TYPE stoker_build_info gauge",
            "# TYPE process_cpu_seconds_total counter",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("# EOF"));
        assert!(metrics.openmetrics().ends_with("# EOF\n"));
    }
}
