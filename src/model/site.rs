//! On which devices the instances of a model are to compute: asks the driver what there is, and decides with
//! [`placement::choice`](super::placement::choice).

use super::placement::choice::{Choice, choose};
use super::placement::slots::slots;
use crate::device::visible::Visible;
use crate::device::watch::Watch;
use crate::device::{self, DeviceId, GpuId};
use crate::error::Result;
use crate::formats::{Format, ModelFiles};

/// A device for a model, and why it is that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    pub device: DeviceId,
    pub why: String,
}

/// May take some milliseconds where there are GPUs.
///
/// # Errors
/// As [`choose`], and when the environment names devices that are not there.
pub fn sites(choice: &Choice, model: &str, files: &ModelFiles, watch: &Watch) -> Result<Vec<Site>> {
    let runs_on_gpus = files.format == Format::Onnx;
    let env = |name: &str| std::env::var(name).ok();
    let here = if choice.may_be_gpu() && (runs_on_gpus || *choice != Choice::Auto) {
        device::record(&env)
    } else {
        device::without_gpus()
    };
    let Visible { mut devices, problems } = here.visible()?;
    for device in &mut devices {
        device.fault = watch.fault(&device.uuid).or_else(|| device.fault.take());
    }
    for problem in here.topology.problems.iter().chain(&problems) {
        tracing::debug!(model, "{problem}");
    }
    let mut slots = slots(&here.cpu, &devices);
    // What else is there may go; beyond all of it there is nothing.
    slots[0].memory = here.cpu.memory.total;
    let uuids: Vec<String> =
        std::iter::once(String::new()).chain(devices.iter().map(|device| device.uuid.clone())).collect();
    // The weights of other models are not stored as they lie in memory.
    let bytes = if runs_on_gpus { files.bytes } else { 0 };
    let chosen = choose(choice, model, bytes, runs_on_gpus, &slots, &uuids)?;
    let site = |slot: usize| match slot.checked_sub(1).map(|place| &devices[place]) {
        None => DeviceId::Cpu,
        Some(device) => DeviceId::Gpu(GpuId::of(device, devices.len() == 1)),
    };
    Ok(chosen.into_iter().map(|chosen| Site { device: site(chosen.slot), why: chosen.why }).collect())
}
