//! What a model can be placed on: the CPU, GPUs, and MIG devices, which are parts of GPUs.
//!
//! The driver is asked what there is ([`topology`]), the environment which of it is ours ([`visible`]).

pub mod host;
#[cfg(feature = "cuda")]
mod nvml;
pub mod process;
pub mod recording;
pub mod topology;
pub mod visible;
pub mod watch;
pub mod worker;
pub mod xid;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::recording::Recording;
use self::topology::{Cpu, Topology};
use self::visible::{Device, Mig};
use self::watch::News;
use crate::error::{Error, Result};

/// Names one device of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeviceId {
    Cpu,
    Gpu(GpuId),
}

/// A GPU, or a MIG device. To CUDA it is the first device of the process that computes on it: either there is no other, or
/// that process was begun with this one alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GpuId {
    /// As `stoker devices` shows it.
    pub name: String,
    pub uuid: String,
    /// Its own, or that of the GPU that it is a part of: DCGM's `UUID`.
    pub gpu_uuid: String,
    /// DCGM's `modelName`.
    pub model: String,
    pub pci_bus_id: String,
    pub mig: Option<Mig>,
    /// Whether this process sees no other.
    pub is_only: bool,
}

impl GpuId {
    pub fn of(device: &Device, is_only: bool) -> GpuId {
        GpuId {
            name: device.name.clone(),
            uuid: device.uuid.clone(),
            gpu_uuid: device.gpu_uuid.clone(),
            model: device.model.clone(),
            pci_bus_id: device.pci_bus_id.clone(),
            mig: device.mig.clone(),
            is_only,
        }
    }

    /// What it is: devices that are alike take about as long for the same.
    pub fn kind(&self) -> String {
        self.mig.as_ref().map_or_else(|| self.model.clone(), |mig| format!("{} {}", self.model, mig.profile))
    }
}

impl DeviceId {
    /// Whether only a process of its own can compute there.
    pub fn needs_process(&self) -> bool {
        matches!(self, DeviceId::Gpu(gpu) if !gpu.is_only)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceId::Cpu => f.write_str("cpu"),
            DeviceId::Gpu(gpu) => f.write_str(&gpu.name),
        }
    }
}

/// What `stoker devices --json` wrote into a file, or else what is here now.
///
/// # Errors
/// When the file cannot be read.
pub fn recorded_or_here(file: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> Result<Recording> {
    let Some(path) = file else { return Ok(record(env)) };
    let place = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| Error::load(format!("{place}: {error}")))?;
    Recording::parse(&text).map_err(|error| error.context(place))
}

/// This machine's CPU, for whom no GPU would do.
pub fn without_gpus() -> Recording {
    Recording { cpu: cpu(), ..Recording::default() }
}

fn cpu() -> Cpu {
    Cpu { cpus: host::cpus(), memory: host::memory().unwrap_or_default() }
}

/// What this machine has, and what of it the environment says is ours.
pub fn record(env: &dyn Fn(&str) -> Option<String>) -> Recording {
    let names = std::fs::read_dir(visible::MOUNTED_NAMES).into_iter().flatten().flatten();
    let mut mounted: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    mounted.sort();
    let set = |name: &&str| Some(((*name).to_owned(), env(name)?));
    let environment = visible::VARIABLES.iter().filter_map(set).collect();
    Recording { environment, mounted, cpu: cpu(), topology: probe() }
}

/// Tells of failures of GPUs as they happen, and after each pause how they all are, until `tell` wants no more.
///
/// # Errors
/// Why nothing can be told.
pub fn wait_for_news(pause: Duration, tell: impl FnMut(&News) -> bool) -> std::result::Result<(), String> {
    #[cfg(feature = "cuda")]
    return nvml::watch(pause, tell);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = (pause, tell);
        Err("this program was built without CUDA".to_owned())
    }
}

/// The GPUs that the driver tells of. A build without CUDA sees none.
fn probe() -> Topology {
    #[cfg(feature = "cuda")]
    return nvml::topology();
    #[cfg(not(feature = "cuda"))]
    Topology::default()
}
