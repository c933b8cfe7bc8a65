//! Looks after the GPUs that models of this process compute on. One that fails is not used any more (it is in quarantine)
//! until this process begins anew: what it would compute could be wrong, and a driver that has lost it may hang.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use super::process::pulse::Pulse;
use super::topology::{Gpu, Topology};
use super::xid::Xid;
use super::{GpuId, wait_for_news};
use crate::telemetry::devices::{DeviceMetrics, Use};

/// How often the driver is asked how its GPUs are.
const PAUSE: Duration = Duration::from_secs(5);

/// What the driver tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    Xid(XidEvent),
    Seen(Seen),
}

/// How everything is by now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub topology: Topology,
    /// By UUID, what GPUs have taken since the driver was loaded, of those that tell.
    pub millijoules: Vec<(String, u64)>,
}

/// An error that the driver has reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XidEvent {
    /// The UUID of the GPU.
    pub gpu: String,
    /// GPU instance and compute instance of the MIG device, where the driver can tell which it concerns.
    pub slice: Option<(u32, u32)>,
    pub number: u64,
}

/// The GPUs that are used.
pub struct Watch {
    metrics: DeviceMetrics,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used: Vec<Used>,
    is_watching: bool,
}

struct Used {
    gpu: GpuId,
    fault: Option<String>,
    pulses: Vec<Weak<Pulse>>,
    /// By whom, each with how long he had kept it busy when it was last seen.
    by: Vec<(Use, f64)>,
    /// Of the whole GPU, when it was last seen.
    millijoules: Option<u64>,
}

impl Watch {
    pub fn new(metrics: DeviceMetrics) -> Arc<Watch> {
        Arc::new(Watch { metrics, state: Mutex::default() })
    }

    /// An instance of a model computes on a GPU from now on: its pulse stops when that fails, and its part of the energy is
    /// counted.
    pub fn looks_after(self: &Arc<Self>, gpu: &GpuId, pulse: &Arc<Pulse>, by: Option<Use>) {
        self.uses(gpu, pulse, by);
        if std::mem::replace(&mut self.state().is_watching, true) {
            return;
        }
        let watch = Arc::downgrade(self);
        let tell = move |news: &News| watch.upgrade().map(|watch| watch.hears(news)).is_some();
        let run = move || {
            if let Err(why) = wait_for_news(PAUSE, tell) {
                tracing::warn!(why, "failures of GPUs are not noticed");
            }
        };
        if let Err(error) = thread::Builder::new().name("gpu-watch".to_owned()).spawn(run) {
            tracing::warn!(%error, "failures of GPUs are not noticed: no thread");
        }
    }

    /// Why a device is not used any more.
    pub fn fault(&self, uuid: &str) -> Option<String> {
        self.state().used.iter().find(|used| used.gpu.uuid == uuid)?.fault.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn uses(&self, gpu: &GpuId, pulse: &Arc<Pulse>, by: Option<Use>) {
        let mut state = self.state();
        let place = state.used.iter().position(|used| used.gpu.uuid == gpu.uuid).unwrap_or_else(|| {
            let (pulses, by) = (Vec::new(), Vec::new());
            state.used.push(Used { gpu: gpu.clone(), fault: None, pulses, by, millijoules: None });
            state.used.len() - 1
        });
        let used = &mut state.used[place];
        used.pulses.retain(|pulse| pulse.strong_count() > 0);
        used.pulses.push(Arc::downgrade(pulse));
        let by = by.filter(|by| !used.by.iter().any(|(known, _)| known.is_of_same(by)));
        used.by.extend(by.map(|by| (by.clone(), by.busy())));
        used.fault.iter().for_each(|why| pulse.stops(why));
        self.metrics.observe(gpu, used.fault.is_none());
    }

    fn hears(&self, news: &News) {
        for used in &mut self.state().used {
            match news {
                News::Xid(event) if event.concerns(&used.gpu) => {
                    let (device, xid) = (&used.gpu.name, event.number);
                    match Xid::of(xid) {
                        Xid::OfProgram => tracing::warn!(device, xid, "a program did something wrong on this device"),
                        Xid::Warning(what) => tracing::warn!(device, xid, "{what}"),
                        Xid::Fault(what) => self.quarantine(used, &format!("XID {xid}: {what}")),
                    }
                }
                News::Seen(seen) => {
                    used.share_energy(seen);
                    fault(&used.gpu, &seen.topology).into_iter().for_each(|why| self.quarantine(used, &why));
                }
                News::Xid(_) => {}
            }
        }
    }

    fn quarantine(&self, used: &mut Used, what: &str) {
        if used.fault.is_some() {
            return; // it has been
        }
        let why = format!("{} is not used any more: {what}", used.gpu.name);
        tracing::error!(device = used.gpu.name, uuid = used.gpu.uuid, what, "a device is in quarantine");
        used.pulses.iter().filter_map(Weak::upgrade).for_each(|pulse| pulse.stops(&why));
        used.fault = Some(why);
        self.metrics.observe(&used.gpu, false);
    }
}

impl Used {
    /// Shares what the device has taken since it was last seen out to those who kept it busy meanwhile, by for how long; when
    /// nobody did, it is nobody's. A MIG device takes the part of its GPU's energy that it has of the multiprocessors.
    fn share_energy(&mut self, seen: &Seen) {
        let now = seen.millijoules.iter().find(|(uuid, _)| *uuid == self.gpu.gpu_uuid).map(|(_, energy)| *energy);
        let before = std::mem::replace(&mut self.millijoules, now);
        let busy: Vec<f64> = self
            .by
            .iter_mut()
            .map(|(by, before)| {
                let now = by.busy();
                now - std::mem::replace(before, now)
            })
            .collect();
        let all: f64 = busy.iter().sum();
        let (Some(now), Some(before), true) = (now, before, all > 0.0) else { return };
        #[allow(clippy::cast_precision_loss)] // of some seconds
        let joules = now.saturating_sub(before) as f64 / 1000.0 * self.part(&seen.topology);
        self.by.iter().zip(busy).for_each(|((by, _), busy)| by.took_joules(joules * busy / all));
    }

    /// Of its GPU's multiprocessors.
    fn part(&self, topology: &Topology) -> f64 {
        let slice = || {
            let gpu = topology.gpus.iter().find(|gpu| gpu.uuid == self.gpu.gpu_uuid)?;
            let slice = gpu.mig.as_ref()?.iter().find(|slice| slice.uuid == self.gpu.uuid)?;
            Some(f64::from(slice.multiprocessors?) / f64::from(gpu.multiprocessors?))
        };
        slice().unwrap_or(1.0)
    }
}

impl XidEvent {
    fn concerns(&self, device: &GpuId) -> bool {
        let is_slice = |slice| device.mig.as_ref().is_none_or(|mig| slice == (mig.gpu_instance, mig.compute_instance));
        self.gpu == device.gpu_uuid && self.slice.is_none_or(is_slice)
    }
}

/// What is wrong with a device that was there.
fn fault(device: &GpuId, topology: &Topology) -> Option<String> {
    let gpu = topology.gpus.iter().find(|gpu| gpu.uuid == device.gpu_uuid);
    let Some(gpu) = gpu else {
        let board = device.name.split('/').next().unwrap_or_default();
        let problem = topology.problems.iter().find_map(|problem| problem.strip_prefix(board)?.strip_prefix(": "));
        let problem = problem.map(|problem| format!(": {problem}")).unwrap_or_default();
        return Some(format!("the driver does not tell of it any more{problem}"));
    };
    if !has(gpu, device) {
        return Some("MIG was reconfigured under it: begin the pod anew".to_owned());
    }
    gpu.health.fault()
}

fn has(gpu: &Gpu, device: &GpuId) -> bool {
    match (&gpu.mig, &device.mig) {
        (Some(slices), Some(_)) => slices.iter().any(|slice| slice.uuid == device.uuid),
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::visible::Mig;
    use crate::telemetry::metrics::Metrics;

    fn slice_of(gpu_instance: u32) -> GpuId {
        GpuId {
            name: format!("gpu0/{gpu_instance}/0"),
            uuid: format!("MIG-{gpu_instance}"),
            gpu_uuid: "GPU-0".to_owned(),
            model: "NVIDIA A100".to_owned(),
            pci_bus_id: "00000000:07:00.0".to_owned(),
            mig: Some(Mig { gpu_instance, compute_instance: 0, profile: "1g.10gb".to_owned() }),
            is_only: false,
        }
    }

    fn xid(number: u64, slice: Option<(u32, u32)>) -> News {
        News::Xid(XidEvent { gpu: "GPU-0".to_owned(), slice, number })
    }

    #[test]
    fn what_computes_on_a_device_that_fails_stops_for_ever() {
        let metrics = Metrics::default();
        let watch = Watch::new(metrics.devices.clone());
        let pulses = [(); 3].map(|()| Arc::new(Pulse::of_one_that_is_up()));
        watch.uses(&slice_of(3), &pulses[0], None);
        watch.uses(&slice_of(4), &pulses[1], None);
        watch.hears(&xid(31, Some((3, 0))));
        watch.hears(&xid(48, Some((9, 0))));
        assert!(pulses.iter().all(|pulse| pulse.is_up()));
        watch.hears(&xid(48, Some((3, 0))));
        watch.hears(&xid(79, Some((3, 0))));
        assert_eq!([&pulses[0], &pulses[1]].map(|pulse| pulse.is_up()), [false, true]);
        let why = pulses[0].end().unwrap();
        assert!(why.starts_with("gpu0/3/0 is not used any more: XID 48: an uncorrected memory error"), "{why}");
        assert_eq!(watch.fault("MIG-3").as_deref(), Some(why));
        assert_eq!(watch.fault("MIG-4"), None);
        watch.uses(&slice_of(3), &pulses[2], None);
        assert!(!pulses[2].is_up(), "of a model that is loaded later, too");
        let text = metrics.prometheus_text();
        for sample in [
            r#"stoker_device_healthy{UUID="GPU-0",GPU_I_ID="3"} 0"#,
            r#"stoker_device_healthy{UUID="GPU-0",GPU_I_ID="4"} 1"#,
            r#"stoker_device_info{device="gpu0/4/0",UUID="GPU-0",GPU_I_ID="4",GPU_I_PROFILE="1g.10gb",modelName="NVIDIA A100""#,
        ] {
            assert!(text.contains(sample), "{text}");
        }
    }
    #[test]
    fn energy_is_shared_out_by_who_keeps_the_device_busy() {
        let recorded = include_str!("../../tests/topologies/a100-mig-balanced.json");
        let topology = crate::device::recording::Recording::parse(recorded).unwrap().topology;
        let gpu = &topology.gpus[0];
        let slice = &gpu.mig.as_ref().unwrap()[0];
        let device = GpuId { gpu_uuid: gpu.uuid.clone(), uuid: slice.uuid.clone(), ..slice_of(2) };
        let metrics = Metrics::default();
        let watch = Watch::new(metrics.devices.clone());
        let pulse = Arc::new(Pulse::of_one_that_is_up());
        let [one, other] = ["one", "other"].map(|model| metrics.devices.used(&device, model, "1"));
        for by in [&one, &other, &one] {
            watch.uses(&device, &pulse, Some(by.clone()));
        }
        let after = |joules: u64| {
            watch.hears(&News::Seen(Seen {
                topology: topology.clone(),
                millijoules: vec![(gpu.uuid.clone(), 1000 * joules)],
            }));
            let text = metrics.prometheus_text();
            ["one", "other"].map(|model| {
                let sample = text.lines().find(|line| {
                    line.starts_with("stoker_device_energy_joules_total") && line.contains(&format!("\"{model}\""))
                });
                sample.unwrap().rsplit(' ').next().unwrap().parse::<f64>().unwrap()
            })
        };
        one.was_busy(1.0);
        let is_close =
            |told: [f64; 2], expected: [f64; 2]| told.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(is_close(after(1000), [0.0, 0.0]), "what was before is not known");
        one.was_busy(3.0);
        other.was_busy(1.0);
        let part = f64::from(slice.multiprocessors.unwrap()) / f64::from(gpu.multiprocessors.unwrap());
        assert!(is_close(after(1400), [300.0 * part, 100.0 * part]));
        assert!(is_close(after(9000), [300.0 * part, 100.0 * part]), "nobody kept it busy");
    }
}
