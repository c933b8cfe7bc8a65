//! Drives one model through its states: fetch, recognise, load, warm up, serve.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::catalog::Entry;
use super::state::State;
use super::warmup::{WarmedUp, warm_up};
use crate::backend::{self, Model};
use crate::config::{BackendOptions, ModelConfig};
use crate::device::worker::Worker;
use crate::device::{DeviceId, host};
use crate::engine::Served;
use crate::engine::batch::Policy;
use crate::engine::instance::{Instance, Pending};
use crate::engine::queue::Queue;
use crate::error::{Error, Result};
use crate::formats::{self, ModelFiles};
use crate::source::cache::{Fetched, InUse};
use crate::source::uri::SourceUri;
use crate::source::{Opened, open};
use crate::telemetry::metrics::Metrics;

/// A model at work: its worker ends when its queue is closed and empty.
pub struct Running {
    pub queue: Arc<Queue<Pending>>,
    pub worker: Worker,
    /// The model's files in the cache.
    _in_use: Option<InUse>,
}

/// Loads the model and serves it. On failure the entry is left [`State::Failed`].
///
/// # Errors
/// [`Kind::Load`](crate::error::Kind::Load), with the step, the file and the reason.
pub async fn load(entry: &Arc<Entry>, config: &ModelConfig, metrics: &Metrics) -> Result<Running> {
    let loaded = drive(entry, config, metrics).await;
    if loaded.is_err() {
        entry.become_state(State::Failed);
    }
    loaded
}

async fn drive(entry: &Arc<Entry>, config: &ModelConfig, metrics: &Metrics) -> Result<Running> {
    let mut phases = Phases::start(entry.clone());

    entry.become_state(State::Fetching);
    let (path, in_use) = materialize(config, metrics, &mut phases).await?;
    phases.done("all_bytes");

    entry.become_state(State::Placing);
    let device = DeviceId::Cpu;
    // Errors of a local directory name the path themselves.
    let is_local = matches!(config.source, SourceUri::Local(_));
    let of_source = |error: Error| if is_local { error } else { error.context(&config.source) };
    let files = blocking(move || formats::open(&path)).await.map_err(of_source)?;
    let version = config.version.clone().or_else(|| files.version.clone()).unwrap_or_else(|| "1".to_owned());
    let model_metrics = entry.identify(&version);
    phases.done("place");

    entry.become_state(State::Loading);
    let (to_open, options) = (files.clone(), config.backend.clone());
    let (model, platform) = blocking(move || open_model(&to_open, &options, device)).await?;
    phases.done("parse");

    entry.become_state(State::Warming);
    let wanted_rows = config.batching.max_rows;
    let WarmedUp { model, max_rows, longest_batch, note } = blocking(move || Ok(warm_up(model, wanted_rows))).await?;
    phases.done("warmup");
    model_metrics.observe_bytes(files.bytes);

    for note in model.notes().iter().chain(&note) {
        tracing::warn!(model = %entry.name, "{note}");
    }
    let signature = model.signature().clone();
    let queue = Arc::new(Queue::new(Policy { max_rows, ..config.batching }));
    let instance = Instance { model, queue: queue.clone(), metrics: model_metrics };
    let worker = Worker::start(format!("model-{}", entry.name), instance, longest_batch)?;
    entry.serve(Served { version: version.into(), signature, platform, queue: queue.clone(), max_rows });
    phases.ready(&files);
    Ok(Running { queue, worker, _in_use: in_use })
}

/// Brings the model's files to this machine.
async fn materialize(config: &ModelConfig, metrics: &Metrics, phases: &mut Phases) -> Result<(PathBuf, Option<InUse>)> {
    let started = Instant::now();
    let (uri, wanted, cache) = (&config.source, config.source.clone(), config.cache.clone());
    if let (Some(digest), false) = (config.digest, matches!(uri, SourceUri::Local(_))) {
        let cache = cache.clone();
        if let Some(found) = blocking(move || Ok(cache.find(&digest))).await? {
            return Ok(tell(uri, found, started));
        }
    }
    let opened = blocking(move || open(&wanted, &|name| std::env::var(name).ok())).await?;
    phases.done("resolve");
    let source = match opened {
        Opened::Here(path) => {
            if let Some(digest) = config.digest {
                let (checked, of) = (path.clone(), uri.to_string());
                blocking(move || digest.check(&checked).map_err(|error| error.context(of))).await?;
                phases.done("verified");
            }
            return Ok((path, None));
        }
        Opened::Elsewhere(source) => source,
    };
    let name = uri.to_string();
    let digest = config.digest;
    let fetched = blocking(move || cache.fetch(&*source, &name, digest.as_ref())).await?;
    if let Some(listed) = fetched.listed {
        phases.took("list", listed);
    }
    if let Some(first_byte) = fetched.first_byte {
        phases.took("first_byte", first_byte);
    }
    if let Some(verified) = fetched.verified {
        phases.took("verified", verified);
    }
    metrics.source_bytes(uri.scheme(), fetched.came);
    Ok(tell(uri, fetched, started))
}

/// Says what has been fetched.
fn tell(uri: &SourceUri, fetched: Fetched, started: Instant) -> (PathBuf, Option<InUse>) {
    let directory = fetched.directory;
    tracing::info!(
        uri = %uri,
        files = fetched.files,
        bytes = fetched.bytes,
        cached = fetched.cached,
        seconds = started.elapsed().as_secs_f64(),
        directory = %directory.display(),
        "model fetched"
    );
    (directory, Some(fetched.in_use))
}

/// Picks the backend and loads; shared with `stoker inspect`.
///
/// # Errors
/// As [`backend::for_files`] and [`backend::Backend::load`].
pub fn open_model(
    files: &ModelFiles,
    options: &BackendOptions,
    device: DeviceId,
) -> Result<(Box<dyn Model>, &'static str)> {
    let backend = backend::for_files(files, options)?;
    let model = backend.load(files, &device)?;
    host::give_back_memory();
    Ok((model, backend.platform()))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::load(format!("loading stopped half-way: {error}"))))
}

/// Times the steps of a load, for `stoker_model_load_seconds` and one summary line.
struct Phases {
    entry: Arc<Entry>,
    begun: Instant,
    step: Instant,
    resident_before: u64,
    seconds: Vec<(&'static str, f64)>,
}

impl Phases {
    fn start(entry: Arc<Entry>) -> Phases {
        let now = Instant::now();
        let resident_before = host::process_memory().unwrap_or_default().resident_bytes;
        Phases { entry, begun: now, step: now, resident_before, seconds: Vec::new() }
    }

    fn done(&mut self, phase: &'static str) {
        self.seconds.push((phase, self.step.elapsed().as_secs_f64()));
        self.step = Instant::now();
    }

    /// What was timed elsewhere, and belongs to the step that is going on.
    fn took(&mut self, phase: &'static str, time: Duration) {
        self.seconds.push((phase, time.as_secs_f64()));
        self.step += time;
    }

    fn ready(mut self, files: &ModelFiles) {
        let total = self.begun.elapsed().as_secs_f64();
        self.seconds.push(("ready", total));
        if let Some(metrics) = self.entry.metrics() {
            self.seconds.iter().for_each(|(phase, seconds)| metrics.observe_load(phase, *seconds));
        }
        let resident = host::process_memory().unwrap_or_default().resident_bytes;
        tracing::info!(
            model = %self.entry.name,
            version = %self.entry.version(),
            format = files.format.name(),
            file = %files.model.display(),
            bytes = files.bytes,
            resident_bytes = resident.saturating_sub(self.resident_before),
            seconds = total,
            phases = ?self.seconds,
            "model ready"
        );
    }
}
