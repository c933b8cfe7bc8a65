//! `stoker devices`: what there is to compute on, and what of it is ours.

use serde::Serialize;

use crate::config::DevicesConfig;
use crate::device;
use crate::device::recording::Recording;
use crate::device::topology::Cpu;
use crate::device::visible::{Device, Sharing, Visible};
use crate::error::Result;
use crate::text::{size, table};

/// Describes the devices of this machine, or of one that was written down.
///
/// # Errors
/// When the recording cannot be read, or `CUDA_VISIBLE_DEVICES` names what is not there.
pub fn devices(config: &DevicesConfig, env: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let recording = device::recorded_or_here(config.recording.as_deref(), env)?;
    let visible = recording.visible()?;
    if config.json { Ok(json(&recording, &visible)) } else { Ok(text(&recording, &visible)) }
}

fn json(recording: &Recording, visible: &Visible) -> String {
    #[derive(Serialize)]
    struct All<'a> {
        #[serde(flatten)]
        recording: &'a Recording,
        devices: &'a [Device],
        problems: &'a [String],
    }
    let all = All { recording, devices: &visible.devices, problems: &visible.problems };
    serde_json::to_string_pretty(&all).expect("maps with text for keys")
}

fn text(recording: &Recording, visible: &Visible) -> String {
    let Recording { cpu, topology, .. } = recording;
    let mut text = match &topology.driver {
        Some(driver) => format!("NVIDIA driver {}, for CUDA up to {}\n\n", driver.version, driver.cuda),
        None => "no NVIDIA driver\n\n".to_owned(),
    };
    let heads = ["DEVICE", "WHAT", "SMS", "MEMORY", "FREE", "CC", "NUMA", "PCI", "UUID", "STATE"];
    let mut rows = vec![cpu_row(cpu)];
    rows.extend(visible.devices.iter().map(row));
    text.push_str(&table(&heads, &rows));
    for problem in topology.problems.iter().chain(&visible.problems) {
        text.push_str(&format!("\n{problem}"));
    }
    text
}

fn cpu_row(cpu: &Cpu) -> [String; 10] {
    let (total, free) = (size(cpu.memory.total), size(cpu.memory.free()));
    let (what, ok) = (format!("{} CPUs", cpu.cpus), "ok".to_owned());
    ["cpu".to_owned(), what, none(), total, free, none(), none(), none(), none(), ok]
}

fn row(device: &Device) -> [String; 10] {
    let what = match &device.mig {
        Some(mig) => format!("{} {}", device.model, mig.profile),
        None => device.model.clone(),
    };
    let state = match (&device.fault, device.shared) {
        (Some(fault), _) => format!("not used: {fault}"),
        (None, Some(Sharing::TimeSlicing)) => "ok, shared with others by time-slicing".to_owned(),
        (None, Some(Sharing::Mps)) => "ok, shared with others by MPS".to_owned(),
        (None, None) => "ok".to_owned(),
    };
    [
        device.name.clone(),
        what,
        device.multiprocessors.map_or_else(none, |count| count.to_string()),
        size(device.memory.total),
        size(device.memory.free()),
        device.compute_capability.to_string(),
        device.numa_node.map_or_else(none, |node| node.to_string()),
        device.pci_bus_id.clone(),
        device.uuid.clone(),
        state,
    ]
}

fn none() -> String {
    "-".to_owned()
}
