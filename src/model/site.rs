//! On which devices the instances of a model are to compute: asks the driver what there is, and decides with
//! [`placement::choice`](super::placement::choice).

use std::sync::{Arc, OnceLock};

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::ledger::{Entry, Held, Ledger, Place, State};
use super::placement::choice::{Asked, Choice, Other, choose};
use super::placement::slots::slots_with;
use crate::config::ModelConfig;
use crate::device::recording::Recording;
use crate::device::visible::{Device, Visible};
use crate::device::watch::Watch;
use crate::device::{self, DeviceId, GpuId};
use crate::error::{Error, Result};
use crate::formats::{Format, ModelFiles};
use crate::text::size;

/// The GPUs that models of this process compute on.
#[derive(Clone)]
pub struct Gpus {
    pub watch: Arc<Watch>,
    ledger: Arc<Ledger>,
    loading: Arc<Mutex<()>>,
    /// `None` where there is one model only, which nobody waits for.
    are_there: Option<Arc<OnceLock<bool>>>,
}

impl Gpus {
    pub fn new(watch: Arc<Watch>, has_several_models: bool) -> Gpus {
        let are_there = has_several_models.then(Arc::default);
        Gpus { watch, ledger: Arc::default(), loading: Arc::default(), are_there }
    }

    /// Waits until no other model is being loaded that may get a GPU: only what is used of its memory before and after says
    /// what a model has of it, and so what is left for the next.
    pub async fn turn(&self, choice: &Choice) -> Option<OwnedMutexGuard<()>> {
        let has_any = || device::record(&env).visible().is_ok_and(|visible| !visible.devices.is_empty());
        if choice.may_be_gpu() && self.are_there.as_ref().is_some_and(|known| *known.get_or_init(has_any)) {
            Some(self.loading.clone().lock_owned().await)
        } else {
            None
        }
    }
}

/// A model that is to be placed.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub choice: &'a Choice,
    pub model: &'a str,
    /// On each device.
    pub instances: usize,
    /// Bytes of a GPU that an instance may take at most.
    pub memory_limit: Option<u64>,
}

impl<'a> From<&'a ModelConfig> for Wanted<'a> {
    fn from(config: &'a ModelConfig) -> Wanted<'a> {
        let memory_limit = config.backend.gpu.memory_limit.map(|bytes| bytes as u64);
        Wanted { choice: &config.device, model: &config.name, instances: config.backend.instances, memory_limit }
    }
}

/// A device for a model, and why it is that one.
#[derive(Debug)]
pub struct Site {
    pub device: DeviceId,
    pub why: String,
    /// Of a GPU, the memory that is held for it there.
    place: Option<Place>,
}

/// May take some milliseconds where there are GPUs.
///
/// # Errors
/// As [`choose`], and when the environment names devices that are not there.
pub fn sites<'a>(wanted: impl Into<Wanted<'a>>, files: &ModelFiles, gpus: &Gpus) -> Result<Vec<Site>> {
    let Wanted { choice, model, instances, memory_limit } = wanted.into();
    let prefers_gpus = files.format == Format::Onnx;
    let may_be_gpu = choice.may_be_gpu() && (prefers_gpus || *choice != Choice::Auto);
    // The weights of other models are not stored as they lie in memory: they count where memory is scarce.
    let weights = if prefers_gpus || may_be_gpu { files.bytes.saturating_mul(instances as u64) } else { 0 };
    let decide = |ledger: &mut State| {
        let here = if may_be_gpu { device::record(&env) } else { device::without_gpus() };
        let devices = devices(&here, model, &gpus.watch)?;
        ledger.see(&devices);
        let limit = memory_limit.filter(|_| prefers_gpus && !devices.is_empty());
        let held = Held { bytes: weights, limit: limit.unwrap_or(0).saturating_mul(instances as u64) };
        let bytes = if limit.is_some() { held.limit } else { weights };
        let mut slots = slots_with(&here.cpu, &devices, |device| ledger.memory(device));
        // What else is there may go; beyond all of it there is nothing.
        slots[0].memory = here.cpu.memory.total;
        let uuids: Vec<String> =
            std::iter::once(String::new()).chain(devices.iter().map(|device| device.uuid.clone())).collect();
        let other = |entry: &Entry| {
            let slot = uuids.iter().position(|known| *known == entry.uuid)?;
            Some(Other { model: entry.model.clone(), bytes: entry.held(), slot })
        };
        let others: Vec<Other> = ledger.entries().iter().filter_map(other).collect();
        let chosen = choose(Asked { choice, model, bytes, prefers_gpus }, &slots, &uuids, &others)?;
        let is_on_gpu = chosen.iter().any(|chosen| chosen.slot > 0);
        if let Some(limit) = limit.filter(|limit| is_on_gpu && files.bytes > *limit) {
            return Err(Error::load(format!(
                "--gpu_mem_limit is {}, and the model's files take {} already: allow it more",
                size(limit),
                size(files.bytes)
            )));
        }
        let there = chosen.iter().filter(|chosen| chosen.slot > 0).map(|chosen| uuids[chosen.slot].clone()).collect();
        Ok(((chosen, devices), there, held))
    };
    let ((chosen, devices), places) = gpus.ledger.place(model, decide)?;
    let mut places = places.into_iter();
    let sites = chosen.into_iter().map(|chosen| {
        let (device, place) = match chosen.slot.checked_sub(1).map(|place| &devices[place]) {
            None => (DeviceId::Cpu, None),
            Some(device) => (DeviceId::Gpu(GpuId::of(device, devices.len() == 1)), places.next()),
        };
        Site { device, why: chosen.why, place }
    });
    Ok(sites.collect())
}

impl Site {
    /// Says that what is here is warm, and gives the bytes of the device that it has: what is used of the GPU by now and was
    /// not before. `None` on the CPU, and where it cannot be told apart from others'.
    pub fn measure(&self) -> Option<u64> {
        let place = self.place.as_ref()?;
        place.measure(&device::record(&env).visible().ok()?.devices)
    }
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Those that are ours, with what is known to be wrong with them.
fn devices(here: &Recording, model: &str, watch: &Watch) -> Result<Vec<Device>> {
    let Visible { mut devices, problems } = here.visible()?;
    for problem in here.topology.problems.iter().chain(&problems) {
        tracing::debug!(model, "{problem}");
    }
    for device in &mut devices {
        device.fault = watch.fault(&device.uuid).or_else(|| device.fault.take());
    }
    Ok(devices)
}
