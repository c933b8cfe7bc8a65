//! Drives one model through its states: fetch, recognise, load, warm up, serve; or another version of it beside the one
//! that is served, which then takes its place.

use std::sync::Arc;
use std::time::Duration;

use super::catalog::Entry;
use super::early::Early;
use super::fetch::{Look, blocking, fetch};
use super::phases::{Phases, Summary};
use super::site::{Gpus, Site, sites};
use super::state::State;
use super::warmup::{Timed, WarmedUp, warm_up};
use crate::backend::{self, Model};
use crate::config::batching::{Batching, RateLimits};
use crate::config::{BackendOptions, Isolation, ModelConfig};
use crate::device::process::keeper::{Kept, Reason};
use crate::device::process::pulse::{Health, Pulse};
use crate::device::process::remote::Remote;
use crate::device::watch::Watch;
use crate::device::worker::Worker;
use crate::device::{DeviceId, GpuId, host};
use crate::engine::Served;
use crate::engine::instance::{Instance, Pending};
use crate::engine::limiter::Limiter;
use crate::engine::policy::Policy;
use crate::engine::queue::Queue;
use crate::error::{Error, Result};
use crate::formats::tree::Tree;
use crate::formats::{self, ModelFiles};
use crate::source::cache::{Cache, InUse};
use crate::source::uri::SourceUri;
use crate::telemetry::devices::Use;
use crate::telemetry::metrics::{Metrics, ModelMetrics};

/// What all models of a process share.
pub struct Common {
    pub metrics: Arc<Metrics>,
    /// Of the resources that instances take turns with.
    pub limiter: Arc<Limiter>,
    pub gpus: Gpus,
}

/// A model at work: its workers end when its queue is closed and empty.
pub struct Running {
    queue: Arc<Queue<Pending>>,
    workers: Vec<Worker>,
    /// What the source had when it was loaded; `None` when it was not asked.
    pub fingerprint: Option<String>,
    /// The model's files in the cache.
    _in_use: Option<InUse>,
    _held: Vec<Held>,
}

impl Running {
    /// Answers what waits, and ends. Bounded: a model that hangs must not hold anything up.
    pub async fn stop(self, name: &str) {
        self.queue.close();
        let all = async {
            for worker in self.workers {
                worker.join().await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(2), all).await.is_err() {
            tracing::warn!(model = name, "the model did not stop in time");
        }
    }
}

/// Loads the model and serves it. On failure the entry is left [`State::Failed`].
///
/// # Errors
/// [`Kind::Load`](crate::error::Kind::Load), with the step, the file and the reason.
pub async fn load(entry: &Arc<Entry>, config: &ModelConfig, common: &Common, phases: Phases) -> Result<Running> {
    let mut first = First(entry);
    match prepare(config, None, common, phases, &mut first).await {
        Ok(Prepared { served, running, metrics, summary }) => {
            entry.serve(served);
            summary.tell(&metrics);
            Ok(running)
        }
        Err(error) => {
            entry.fails(&error);
            Err(error)
        }
    }
}

/// Loads what the source has now beside the model that is served, and lets it take over. Requests that have reached the
/// one before are answered by it; it ends after the last of them.
///
/// # Errors
/// As [`load`]; the model from before is then served on.
pub async fn replace(
    entry: &Arc<Entry>,
    config: &ModelConfig,
    look: Look,
    common: &Common,
    before: &mut Running,
) -> Result<()> {
    let phases = Phases::since(look.begun());
    let Prepared { served, running, metrics, summary } =
        prepare(config, Some(look), common, phases, &mut Beside).await?;
    let old = std::mem::replace(before, running);
    let (name, last) = (entry.name.clone(), entry.replace(served, metrics.clone()));
    summary.tell(&metrics);
    let cache = config.cache.clone();
    tokio::spawn(async move {
        if let Some(last) = last {
            unused(&last).await;
        }
        old.stop(&name).await;
        let _ = blocking(move || Ok(cache.iter().for_each(Cache::tidy))).await; // the next one does it
        tracing::info!(model = %name, "the version from before has left");
    });
    Ok(())
}

/// Waits until no request holds what it runs against.
async fn unused(served: &Arc<Served>) {
    const STEP: Duration = Duration::from_millis(20);
    while Arc::strong_count(served) > 1 {
        tokio::time::sleep(STEP).await;
    }
}

/// A model that is warm, to be served.
struct Prepared {
    served: Served,
    running: Running,
    metrics: Arc<ModelMetrics>,
    summary: Summary,
}

/// Who is told how a load goes.
trait Watcher {
    fn becomes(&mut self, state: State);

    /// The version is known; gives its metrics.
    fn identified(&mut self, name: &str, version: &str, metrics: &Metrics) -> Arc<ModelMetrics>;
}

/// A load that nothing is served before.
struct First<'a>(&'a Arc<Entry>);

impl Watcher for First<'_> {
    fn becomes(&mut self, state: State) {
        self.0.become_state(state);
    }

    fn identified(&mut self, _: &str, version: &str, _: &Metrics) -> Arc<ModelMetrics> {
        self.0.identify(version)
    }
}

/// A load that nobody sees before it is done.
struct Beside;

impl Watcher for Beside {
    fn becomes(&mut self, _: State) {}

    fn identified(&mut self, name: &str, version: &str, metrics: &Metrics) -> Arc<ModelMetrics> {
        Arc::new(metrics.model(name, version))
    }
}

async fn prepare(
    config: &ModelConfig,
    look: Option<Look>,
    common: &Common,
    mut phases: Phases,
    watcher: &mut impl Watcher,
) -> Result<Prepared> {
    let _turn = common.gpus.turn(&config.device).await;
    watcher.becomes(State::Fetching);
    let early = Early::new(config, &common.gpus);
    let local = fetch(config, look, &common.metrics, &mut phases, early.beginner()).await?;
    phases.done("all_bytes");

    watcher.becomes(State::Placing);
    // Errors of a local directory name the path themselves.
    let is_local = matches!(config.source, SourceUri::Local(_));
    let of_source = |error: Error| if is_local { error } else { error.context(&config.source) };
    let (files, sites, loaded) = match early.finish(local.is_as_begun).await {
        Some((files, sites, model)) => {
            phases.done("parse"); // what was left of it
            (files, sites, Some(model))
        }
        None => {
            let (tree, config, gpus) = (local.tree.clone(), config.clone(), common.gpus.clone());
            let files = blocking(move || formats::open_tree(&tree)).await.map_err(of_source)?;
            let placed = files.clone();
            (files, blocking(move || sites(&config, &placed, &gpus)).await?, None)
        }
    };
    let placed = sites.iter().map(|site| site.why.as_str()).collect::<Vec<_>>().join("; ");
    tracing::info!(model = %config.name, placed, "model placed");
    let version = config.version.clone().or_else(|| files.version.clone()).unwrap_or_else(|| "1".to_owned());
    let metrics = watcher.identified(&config.name, &version, &common.metrics);
    phases.done("place");

    watcher.becomes(State::Loading);
    let loading = Loading { files: &files, tree: &local.tree, config, metrics: &metrics };
    let model = match loaded {
        Some(model) => model,
        None => {
            let model = loading.load(&sites[0].device).await?;
            phases.done("parse");
            model
        }
    };

    watcher.becomes(State::Warming);
    let devices = sites.iter().flat_map(|site| std::iter::repeat_n(&site.device, config.backend.instances));
    let mut instances = vec![(sites[0].device.clone(), warm(model, config).await?)];
    for device in devices.skip(1) {
        instances.push((device.clone(), warm(loading.load(device).await?, config).await?));
    }
    phases.done("warmup");
    let held = {
        let (devices, name, version) = (common.metrics.devices.clone(), config.name.clone(), version.clone());
        let measured = move |site| Held::new(site, |gpu| devices.used(gpu, &name, &version));
        blocking(move || Ok(sites.into_iter().map(measured).collect())).await?
    };
    let (_, first) = &instances[0];
    for note in files.note.iter().chain(first.model.notes()).chain(&first.note) {
        tracing::warn!(model = %config.name, "{note}");
    }

    let about = About { version: version.as_str().into(), platform: files.format.platform(), placed };
    let (served, workers) = start(instances, config, about, common, &metrics)?;
    let queue = served.queue.clone();
    let running = Running { queue, workers, fingerprint: local.fingerprint, _in_use: local.in_use, _held: held };
    let summary = Summary { phases, version, files };
    Ok(Prepared { served, running, metrics, summary })
}

/// What a model that is warm has of a device, until it is dropped.
struct Held {
    _site: Site,
    used: Option<Use>,
}

impl Held {
    fn new(site: Site, used: impl FnOnce(&GpuId) -> Use) -> Held {
        let DeviceId::Gpu(gpu) = &site.device else { return Held { _site: site, used: None } };
        let (used, bytes) = (used(gpu), site.measure());
        if let Some(bytes) = bytes {
            used.has_bytes(Some(bytes));
            tracing::info!(device = %site.device, bytes, "the model's memory on its device");
        }
        Held { _site: site, used: Some(used) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.used.iter().for_each(|used| used.has_bytes(None));
    }
}

/// What an instance is loaded from.
struct Loading<'a> {
    files: &'a ModelFiles,
    tree: &'a Tree,
    config: &'a ModelConfig,
    metrics: &'a Arc<ModelMetrics>,
}

impl Loading<'_> {
    /// Loads an instance, here or in a process of its own.
    async fn load(&self, device: &DeviceId) -> Result<Box<dyn Model>> {
        let (options, device) = (self.config.backend.clone(), device.clone());
        if !self.config.isolation.is_for(&device)? {
            let files = self.files.clone();
            return blocking(move || open_model(&files, &options, &device)).await;
        }
        let Isolation { program, limit, log, .. } = self.config.isolation.clone();
        let (name, tree, metrics, on) =
            (self.config.name.clone(), self.tree.clone(), self.metrics.clone(), device.to_string());
        let begins_anew = Box::new(move |reason: Reason| metrics.observe_restart(&on, reason.name()));
        let kept = Kept { name, program, tree, options, device, log, limit, begins_anew };
        blocking(move || Ok(Box::new(Remote::begin(kept)?) as Box<dyn Model>)).await
    }
}

/// Runs a model for the first time.
async fn warm(model: Box<dyn Model>, config: &ModelConfig) -> Result<WarmedUp> {
    let (max_rows, said) = (config.batching.policy.max_rows, config.batching.joining.clone());
    blocking(move || warm_up(model, max_rows, &said)).await
}

/// An instance, and where it is.
type Warm = (DeviceId, WarmedUp);

/// What callers are told of it, as [`Served`] has it.
struct About {
    version: Arc<str>,
    platform: &'static str,
    placed: String,
}

/// Puts instances of a model to work on a queue of their own. There is at least one, and all are alike but for their devices.
fn start(
    instances: Vec<Warm>,
    config: &ModelConfig,
    about: About,
    common: &Common,
    metrics: &Arc<ModelMetrics>,
) -> Result<(Served, Vec<Worker>)> {
    let Batching { policy, levels, slo, limits, .. } = config.batching.clone();
    let (_, first) = &instances[0];
    let (max_rows, max_tokens) = (first.max_rows, policy.max_tokens);
    let (signature, joining) = (first.signature.clone(), Arc::new(first.joining.clone()));
    let kinds = kinds(instances.iter().map(|(device, _)| device));
    let turns =
        limits.iter().flat_map(|RateLimits { needs, .. }| instances.iter().map(|_| common.limiter.turn(needs.clone())));
    let queue = Arc::new(Queue::limited(Policy { max_rows, workers: kinds.clone(), ..policy }, turns.collect()));
    for (kind, (_, instance)) in kinds.iter().zip(&instances) {
        instance.timed.iter().for_each(|Timed { elements, rows, took }| queue.learn(*kind, *elements, *rows, *took));
    }
    let used = |device: &DeviceId| match device {
        DeviceId::Cpu => None,
        DeviceId::Gpu(gpu) => Some(common.metrics.devices.used(gpu, &config.name, &about.version)),
    };
    let pulse = |(device, warm): &Warm| pulse(device, &*warm.model, used(device), &common.gpus.watch);
    let pulses: Vec<_> = instances.iter().map(pulse).collect();
    let health = Health::of(pulses.iter().flatten().cloned().collect());
    let instances = instances.into_iter().zip(pulses).enumerate();
    let start = |(worker, ((device, warm), pulse)): (usize, (Warm, Option<Arc<Pulse>>))| {
        let used = used(&device);
        let WarmedUp { model, longest_batch, .. } = warm;
        let (queue, joining, health) = (queue.clone(), joining.clone(), health.clone());
        let (metrics, compute) = (metrics.clone(), metrics.compute(&device.to_string()));
        // Waiting for another process or a GPU must not keep the runtime from its tasks.
        let longest = if pulse.is_some() { Duration::MAX } else { longest_batch };
        let instance = Instance { model, queue, worker, joining, metrics, compute, used, pulse, health };
        Worker::start(format!("model-{}", config.name), instance, longest)
    };
    let workers = instances.map(start).collect::<Result<Vec<_>>>()?;
    let About { version, platform, placed } = about;
    let served =
        Served { version, signature, platform, queue, max_rows, max_tokens, joining, levels, slo, health, placed };
    Ok((served, workers))
}

/// What says whether an instance is there: its process, and its GPU, which is looked after from now on.
fn pulse(device: &DeviceId, model: &dyn Model, by: Option<Use>, watch: &Arc<Watch>) -> Option<Arc<Pulse>> {
    let DeviceId::Gpu(gpu) = device else { return model.pulse() };
    let pulse = model.pulse().unwrap_or_else(|| Arc::new(Pulse::of_one_that_is_up()));
    watch.looks_after(gpu, &pulse, by);
    Some(pulse)
}

/// Instances on devices that are alike get the same number.
fn kinds<'a>(devices: impl Iterator<Item = &'a DeviceId>) -> Vec<usize> {
    let mut known = Vec::new();
    let kind = |device: &DeviceId| {
        let kind = match device {
            DeviceId::Cpu => "cpu".to_owned(),
            DeviceId::Gpu(gpu) => gpu.kind(),
        };
        known.iter().position(|other| *other == kind).unwrap_or_else(|| {
            known.push(kind);
            known.len() - 1
        })
    };
    devices.map(kind).collect()
}

/// Picks the backend and loads; shared with `stoker inspect`.
///
/// # Errors
/// As [`backend::for_files`] and [`backend::Backend::load`].
pub fn open_model(files: &ModelFiles, options: &BackendOptions, device: &DeviceId) -> Result<Box<dyn Model>> {
    let model = backend::for_files(files, options)?.load(files, device)?;
    host::give_back_memory();
    Ok(model)
}
