//! The GPUs of a machine, as their driver tells it: probed (`nvml`), written down (`stoker devices --json`), read back.
//!
//! Source: NVML API Reference Guide, `nvmlDeviceGet*`; MIG User Guide, "MIG Device Names".

use std::fmt;

use serde::{Deserialize, Serialize};

/// What can be seen from here. In a container that is what it was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// `None` where there is no driver.
    pub driver: Option<Driver>,
    pub gpus: Vec<Gpu>,
    /// What could not be found out, and what to do about it.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// What a container may use of its machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    pub cpus: usize,
    pub memory: Memory,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driver {
    /// E.g. `580.95.05`.
    pub version: String,
    /// The newest CUDA that it can run.
    pub cuda: CudaVersion,
}

/// E.g. 13.0, written as text; compute capabilities are numbered like that too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CudaVersion {
    pub major: u32,
    pub minor: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// NVML's, which is the order of PCI addresses.
    pub index: u32,
    /// `GPU-...`
    pub uuid: String,
    /// E.g. `NVIDIA H200`.
    pub name: String,
    /// E.g. `00000000:17:00.0`, DCGM's `pci_bus_id`.
    pub pci_bus_id: String,
    /// `None` where the machine has one.
    pub numa_node: Option<u32>,
    pub compute_capability: CudaVersion,
    /// `None` where the driver does not tell.
    pub multiprocessors: Option<u32>,
    pub memory: Memory,
    /// The compute instances that it is cut into; `None` without MIG.
    pub mig: Option<Vec<MigDevice>>,
    pub health: Health,
    pub processes: Vec<Process>,
}

/// A compute instance of a GPU instance: what CUDA calls a MIG device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigDevice {
    /// `MIG-...`
    pub uuid: String,
    /// DCGM's `GPU_I_ID`.
    pub gpu_instance: u32,
    pub compute_instance: u32,
    /// DCGM's `GPU_I_PROFILE`, e.g. `1g.18gb`.
    pub profile: String,
    pub multiprocessors: Option<u32>,
    pub memory: Memory,
    pub processes: Vec<Process>,
}

/// In bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    pub total: u64,
    /// By everybody, and by the driver itself.
    pub used: u64,
}

impl Memory {
    pub fn free(self) -> u64 {
        self.total.saturating_sub(self.used)
    }
}

/// What says whether a GPU can be trusted. `None` where it does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Since the driver was loaded.
    pub uncorrected_ecc_errors: Option<u64>,
    pub row_remap: Option<RowRemap>,
}

/// How the replacing of bad rows of memory goes. Source: GPU Memory Error Management, "Row-Remapping".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowRemap {
    pub uncorrectable: u32,
    /// Rows are to be replaced when the GPU is reset.
    pub pending: bool,
    /// There was none left to replace one by.
    pub failed: bool,
}

impl Health {
    /// Why nothing is to be computed there; `None` when there is no reason.
    pub fn fault(&self) -> Option<String> {
        let errors = self.uncorrected_ecc_errors.unwrap_or_default();
        if self.row_remap.is_some_and(|rows| rows.failed) {
            return Some("a bad row of its memory could not be replaced: the GPU has to be".to_owned());
        }
        (errors > 0).then(|| {
            let noun = if errors == 1 { "error" } else { "errors" };
            format!(
                "{errors} uncorrected memory {noun}: reset the GPU (nvidia-smi --gpu-reset), or restart the machine"
            )
        })
    }

    /// What should be done about it some day.
    pub fn warning(&self) -> Option<&'static str> {
        self.row_remap.filter(|rows| rows.pending).map(|_| "a row of its memory is to be replaced: reset it when idle")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// `None` where the driver does not tell.
    pub memory_bytes: Option<u64>,
}

impl fmt::Display for CudaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl From<CudaVersion> for String {
    fn from(version: CudaVersion) -> String {
        version.to_string()
    }
}

impl TryFrom<String> for CudaVersion {
    type Error = String;

    fn try_from(text: String) -> Result<CudaVersion, String> {
        let parts = text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let (major, minor) = parts.ok_or_else(|| format!("\"{text}\" is no version such as 13.0"))?;
        Ok(CudaVersion { major, minor })
    }
}

/// The multiprocessors of a whole GPU, whose driver counts its lanes for single precision.
/// Source: CUDA C++ Programming Guide, "Compute Capabilities".
pub fn multiprocessors(cores: u32, capability: CudaVersion) -> Option<u32> {
    let lanes = match (capability.major, capability.minor) {
        (7, _) | (8, 0) => 64,
        (8..=12, _) => 128,
        _ => return None,
    };
    Some(cores / lanes)
}

/// The profile of a MIG device: the end of its name, or for drivers that leave it out, what its parts make of it.
/// `slices` are those of its GPU instance and of itself. Sizes are said in eighths of the GPU's memory, as the MIG manager
/// does it.
pub fn profile(name: &str, slices: (u32, u32), memory: u64, of: u64) -> String {
    if let Some((_, profile)) = name.rsplit_once("MIG ") {
        return profile.to_owned();
    }
    let (instance, compute) = slices;
    let total_gb = (of + (1 << 29)) >> 30;
    let eighths = if of == 0 { 0 } else { (memory * 8).div_ceil(of) };
    let gb = (eighths * total_gb + 4) / 8;
    if compute == instance { format!("{instance}g.{gb}gb") } else { format!("{compute}c.{instance}g.{gb}gb") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_named_or_made_up_as_the_mig_manager_does() {
        assert_eq!(profile("NVIDIA H100 80GB HBM3 MIG 1g.10gb", (1, 1), 0, 0), "1g.10gb");
        assert_eq!(profile("NVIDIA H200 MIG 1c.3g.71gb", (3, 1), 0, 0), "1c.3g.71gb");
        let gib = 1 << 30;
        assert_eq!(profile("NVIDIA A100-SXM4-40GB", (1, 1), 5 * gib - (256 << 20), 40 * gib), "1g.5gb");
        assert_eq!(profile("NVIDIA A100-SXM4-40GB", (3, 1), 20 * gib - (300 << 20), 40 * gib), "1c.3g.20gb");
    }

    #[test]
    fn multiprocessors_are_those_of_the_data_sheets() {
        let at = |major, minor| CudaVersion { major, minor };
        assert_eq!(multiprocessors(16_896, at(9, 0)), Some(132)); // H200
        assert_eq!(multiprocessors(6_912, at(8, 0)), Some(108)); // A100
        assert_eq!(multiprocessors(7_424, at(8, 9)), Some(58)); // L4
        assert_eq!(multiprocessors(2_560, at(6, 1)), None);
    }

    #[test]
    fn errors_that_nothing_has_put_right_are_a_fault() {
        let mut health = Health::default();
        assert_eq!((health.fault(), health.warning()), (None, None));
        health.row_remap = Some(RowRemap { pending: true, ..RowRemap::default() });
        assert!(health.fault().is_none() && health.warning().unwrap().contains("when idle"));
        health.uncorrected_ecc_errors = Some(2);
        assert!(health.fault().unwrap().starts_with("2 uncorrected memory errors: reset the GPU"));
        health.row_remap = Some(RowRemap { failed: true, ..RowRemap::default() });
        assert!(health.fault().unwrap().contains("could not be replaced"));
    }
}
