//! What devices are to placement.

use super::{Kind, Slot};
use crate::device::topology::Cpu;
use crate::device::visible::Device;

/// Bytes of a GPU that no model gets: CUDA's context and its libraries take about as much in each process.
const OF_A_GPU: u64 = 512 << 20;
/// Bytes of the CPU's memory that no model gets: as much as requests may hold by default (`--max_inflight_bytes`).
const OF_THE_CPU: u64 = 512 << 20;

/// The CPU and the devices that are ours, with the memory that is free before any model of ours is there.
pub fn slots(cpu: &Cpu, devices: &[Device]) -> Vec<Slot> {
    slots_with(cpu, devices, |device| device.memory.free())
}

/// Where it is known otherwise how much memory of a device is not others'.
pub fn slots_with(cpu: &Cpu, devices: &[Device], memory: impl Fn(&Device) -> u64) -> Vec<Slot> {
    let host = Slot {
        name: "cpu".to_owned(),
        kind: Kind::Cpu,
        board: "cpu".to_owned(),
        memory: cpu.memory.free().saturating_sub(OF_THE_CPU),
        units: u32::try_from(cpu.cpus).unwrap_or(u32::MAX),
        fault: None,
    };
    let slot = |device: &Device| Slot {
        name: device.name.clone(),
        kind: Kind::Gpu,
        board: device.pci_bus_id.clone(),
        memory: memory(device).saturating_sub(OF_A_GPU),
        units: device.multiprocessors.unwrap_or(1),
        fault: device.fault.clone(),
    };
    std::iter::once(host).chain(devices.iter().map(slot)).collect()
}
