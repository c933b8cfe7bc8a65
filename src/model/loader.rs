//! Drives one model through its states: fetch, recognise, load, warm up, serve.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::catalog::Entry;
use super::state::State;
use crate::backend::{self, Model};
use crate::config::{BackendOptions, ModelConfig};
use crate::device::worker::Worker;
use crate::device::{DeviceId, host};
use crate::engine::batch::Policy;
use crate::engine::instance::{Instance, Pending};
use crate::engine::queue::Queue;
use crate::engine::{Served, stack};
use crate::error::{Error, Result};
use crate::formats::{self, ModelFiles};
use crate::infer::TensorSpec;
use crate::source::fetch::fetch;
use crate::source::s3::{S3, settings};
use crate::source::uri::SourceUri;
use crate::telemetry::metrics::Metrics;
use crate::tensor::{Shape, Tensor, push_bytes_element};

/// A model at work: its worker ends when its queue is closed and empty.
pub struct Running {
    pub queue: Arc<Queue<Pending>>,
    pub worker: Worker,
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
    let path = materialize(&config.source, &config.cache_dir, metrics).await?;
    phases.done("all_bytes");

    entry.become_state(State::Placing);
    let device = DeviceId::Cpu;
    let files = blocking(move || formats::open(&path)).await.map_err(|error| match &config.source {
        SourceUri::Local(_) => error, // it names the path itself
        remote @ SourceUri::S3 { .. } => error.context(remote),
    })?;
    let version = config.version.clone().or_else(|| files.version.clone()).unwrap_or_else(|| "1".to_owned());
    entry.identify(&version, metrics);
    phases.done("place");

    entry.become_state(State::Loading);
    let (to_open, options) = (files.clone(), config.backend.clone());
    let (model, platform) = blocking(move || open_model(&to_open, &options, device)).await?;
    phases.done("parse");

    entry.become_state(State::Warming);
    let max_rows = if model.signature().batches() { config.batching.max_rows } else { 1 };
    let WarmedUp { model, longest_batch, note } = blocking(move || warm_up(model, max_rows)).await?;
    phases.done("warmup");
    entry.metrics().observe_bytes(files.bytes);

    for note in model.notes().iter().chain(&note) {
        tracing::warn!(model = %entry.name, "{note}");
    }
    let signature = model.signature().clone();
    let queue = Arc::new(Queue::new(Policy { max_rows, ..config.batching }));
    let instance = Instance { model, queue: queue.clone(), metrics: entry.metrics() };
    let worker = Worker::start(format!("model-{}", entry.name), instance, longest_batch)?;
    entry.serve(Served { version: version.into(), signature, platform, queue: queue.clone(), max_rows });
    phases.ready(&files);
    Ok(Running { queue, worker })
}

/// Brings the model's files to this machine.
async fn materialize(uri: &SourceUri, cache: &Path, metrics: &Metrics) -> Result<PathBuf> {
    let (bucket, prefix) = match uri {
        SourceUri::Local(path) => return Ok(path.clone()),
        SourceUri::S3 { bucket, prefix } => (bucket, prefix),
    };
    let settings = settings::from_env(&|name| std::env::var(name).ok())?;
    let source = Arc::new(S3::new(&settings, bucket, prefix)?);
    let started = Instant::now();
    let fetched = fetch(source, &uri.to_string(), cache).await?;
    if !fetched.cached {
        metrics.source_bytes(fetched.bytes);
    }
    tracing::info!(
        uri = %uri,
        files = fetched.files,
        bytes = fetched.bytes,
        cached = fetched.cached,
        seconds = started.elapsed().as_secs_f64(),
        directory = %fetched.directory.display(),
        "model fetched"
    );
    Ok(fetched.directory)
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
    Ok((backend.load(files, &device)?, backend.platform()))
}

/// A model that has run.
pub struct WarmedUp {
    pub model: Box<dyn Model>,
    /// What its largest batch took once everything was initialised; very long when that could not be found out.
    pub longest_batch: Duration,
    /// What could not be checked.
    pub note: Option<String>,
}

/// Runs the smallest and the largest batch on zeros, so that allocations and lazy initialisation are paid before the
/// first caller comes.
///
/// # Errors
/// When the model fails on an input whose shape its signature fully determines, or gives outputs that cannot be
/// shared out among the requests of a batch.
pub fn warm_up(mut model: Box<dyn Model>, max_rows: usize) -> Result<WarmedUp> {
    let signature = model.signature().clone();
    let batches = signature.batches();
    let mut longest_batch = Duration::MAX;
    // The largest twice: the first time still pays for what comes later.
    for rows in if batches { [1, max_rows, max_rows] } else { [1; 3] } {
        let inputs = signature.inputs.iter().map(|spec| zeros(spec, rows)).collect::<Result<Vec<_>>>()?;
        let began = Instant::now();
        match model.run(&inputs) {
            // Two unequal pieces tell a batch axis from an axis that merely happens to be free.
            Ok(outputs) if batches => {
                let pieces = if rows > 1 { vec![1, rows - 1] } else { vec![1] };
                stack::split(&outputs, &pieces).map_err(|error| Error::load(error.message()))?;
            }
            Ok(_) => {}
            Err(error) if signature.has_free_inner_dims() => {
                // Ones for the free dimensions were only a guess.
                let note = Some(format!("warm-up left out, as the inputs have free dimensions: {error}"));
                return Ok(WarmedUp { model, longest_batch: Duration::MAX, note });
            }
            Err(error) => return Err(Error::load(format!("warm-up with {rows} rows of zeros failed: {error}"))),
        }
        longest_batch = began.elapsed();
    }
    // With free inner dimensions a caller may send far more than the ones that were tried.
    let longest_batch = if signature.has_free_inner_dims() { Duration::MAX } else { longest_batch };
    Ok(WarmedUp { model, longest_batch, note: None })
}

/// An input of zeros (empty strings for `BYTES`), 1 for every free dimension but the batch's.
fn zeros(spec: &TensorSpec, rows: usize) -> Result<Tensor> {
    let mut dims: Vec<usize> = spec.dims.iter().map(|dim| dim.unwrap_or(1)).collect();
    if let (Some(first), Some(None)) = (dims.first_mut(), spec.dims.first()) {
        *first = rows;
    }
    let shape = Shape::new(dims)?;
    let data: Bytes = match spec.dtype.size() {
        Some(size) => vec![0; shape.elements() * size].into(),
        None => {
            let mut data = Vec::new();
            (0..shape.elements()).try_for_each(|_| push_bytes_element(&mut data, b""))?;
            data.into()
        }
    };
    Tensor::new(spec.name.clone(), spec.dtype, shape, data)
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
        let took: Duration = self.step.elapsed();
        self.step = Instant::now();
        self.record(phase, took);
    }

    fn record(&mut self, phase: &'static str, took: Duration) {
        self.entry.metrics().observe_load(phase, took);
        self.seconds.push((phase, took.as_secs_f64()));
    }

    fn ready(mut self, files: &ModelFiles) {
        let total = self.begun.elapsed();
        self.record("ready", total);
        let resident = host::process_memory().unwrap_or_default().resident_bytes;
        tracing::info!(
            model = %self.entry.name,
            version = %self.entry.identity().version,
            format = files.format.name(),
            file = %files.model.display(),
            bytes = files.bytes,
            resident_bytes = resident.saturating_sub(self.resident_before),
            seconds = total.as_secs_f64(),
            phases = ?self.seconds,
            "model ready"
        );
    }
}
