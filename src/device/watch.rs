//! Looks after the GPUs that models of this process compute on. One that fails is not used any more (it is in quarantine)
//! until this process begins anew: what it would compute could be wrong, and a driver that has lost it may hang.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use super::process::pulse::Pulse;
use super::topology::{Gpu, Topology};
use super::xid::Xid;
use super::{GpuId, wait_for_news};
use crate::telemetry::devices::DeviceMetrics;

/// How often the driver is asked how its GPUs are.
const PAUSE: Duration = Duration::from_secs(5);

/// What the driver tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    Xid(XidEvent),
    /// How everything is by now.
    Seen(Topology),
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
}

impl Watch {
    pub fn new(metrics: DeviceMetrics) -> Arc<Watch> {
        Arc::new(Watch { metrics, state: Mutex::default() })
    }

    /// An instance of a model computes on a GPU from now on: its pulse stops when that fails.
    pub fn looks_after(self: &Arc<Self>, gpu: &GpuId, pulse: &Arc<Pulse>) {
        self.uses(gpu, pulse);
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

    fn uses(&self, gpu: &GpuId, pulse: &Arc<Pulse>) {
        let mut state = self.state();
        let place = state.used.iter().position(|used| used.gpu.uuid == gpu.uuid).unwrap_or_else(|| {
            state.used.push(Used { gpu: gpu.clone(), fault: None, pulses: Vec::new() });
            state.used.len() - 1
        });
        let used = &mut state.used[place];
        used.pulses.retain(|pulse| pulse.strong_count() > 0);
        used.pulses.push(Arc::downgrade(pulse));
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
                News::Seen(topology) => {
                    fault(&used.gpu, topology).into_iter().for_each(|why| self.quarantine(used, &why));
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

    fn slice(gpu_instance: u32) -> GpuId {
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
        watch.uses(&slice(3), &pulses[0]);
        watch.uses(&slice(4), &pulses[1]);
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
        watch.uses(&slice(3), &pulses[2]);
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
}
