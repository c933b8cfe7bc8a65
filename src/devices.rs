//! `stoker devices`: what there is to compute on, and what of it is ours; and how that does.

use std::sync::Arc;
use std::thread;

use serde::Serialize;

use crate::config::DevicesConfig;
use crate::device::process::pulse::Pulse;
use crate::device::recording::Recording;
use crate::device::topology::Cpu;
use crate::device::visible::{Device, Sharing, Visible};
use crate::device::watch::Watch;
use crate::device::{self, GpuId};
use crate::error::{Error, Result};
use crate::telemetry::metrics::Metrics;
use crate::text::{size, table};

/// Describes the devices of this machine, or of one that was written down; or watches them, and does not end.
///
/// # Errors
/// When the recording cannot be read, `CUDA_VISIBLE_DEVICES` names what is not there, or there is nothing to watch.
pub fn devices(config: &DevicesConfig, env: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let recording = device::recorded_or_here(config.recording.as_deref(), env)?;
    let visible = recording.visible()?;
    if config.watch {
        return watch(&visible.devices);
    }
    if config.json { Ok(json(&recording, &visible)) } else { Ok(text(&recording, &visible)) }
}

/// As a server watches those that its models compute on: what goes wrong stands in the log.
fn watch(devices: &[Device]) -> Result<String> {
    if devices.is_empty() {
        return Err(Error::load("there is no GPU to watch: stoker devices says what there is"));
    }
    let watch = Watch::new(Metrics::default().devices);
    for device in devices {
        watch.looks_after(&GpuId::of(device, devices.len() == 1), &Arc::new(Pulse::of_one_that_is_up()), None);
        tracing::info!(device = device.name, uuid = device.uuid, "watching");
    }
    loop {
        thread::park();
    }
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
