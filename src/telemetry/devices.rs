//! What devices are and how they do, with the label names of the DCGM exporter, so that its metrics can be joined.

use std::env;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::device::GpuId;

/// A GPU has no GPU instance, which then is empty: to Prometheus that is the same as none.
#[allow(non_snake_case)] // these are DCGM's names
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlaceLabels {
    UUID: String,
    GPU_I_ID: String,
}

#[allow(non_snake_case)]
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InfoLabels {
    device: String,
    UUID: String,
    GPU_I_ID: String,
    GPU_I_PROFILE: String,
    modelName: String,
    pci_bus_id: String,
    Hostname: String,
}

#[allow(non_snake_case)]
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UseLabels {
    model: String,
    version: String,
    UUID: String,
    GPU_I_ID: String,
}

type Sum = Counter<f64, AtomicU64>;

/// Of the devices that models compute on.
#[derive(Clone, Debug)]
pub struct DeviceMetrics {
    info: Family<InfoLabels, Gauge>,
    healthy: Family<PlaceLabels, Gauge>,
    busy: Family<UseLabels, Sum>,
    energy: Family<UseLabels, Sum>,
    memory: Family<UseLabels, Gauge>,
}

/// What a version of a model has of a device, all its instances there together.
#[derive(Clone, Debug)]
pub struct Use {
    labels: UseLabels,
    busy: Sum,
    energy: Sum,
    memory: Family<UseLabels, Gauge>,
}

impl Use {
    /// It has kept the device busy for so many seconds.
    pub fn was_busy(&self, seconds: f64) {
        self.busy.inc_by(seconds);
    }

    /// For how many seconds it has.
    pub fn busy(&self) -> f64 {
        self.busy.get()
    }

    /// Whether it is of the same version of the same model on the same device.
    pub fn is_of_same(&self, other: &Use) -> bool {
        self.labels == other.labels
    }

    pub fn took_joules(&self, joules: f64) {
        self.energy.inc_by(joules);
    }

    /// It has so many bytes of the device's memory; `None` when it has none any more.
    pub fn has_bytes(&self, bytes: Option<u64>) {
        match bytes {
            Some(bytes) => {
                self.memory.get_or_create(&self.labels).set(i64::try_from(bytes).unwrap_or(i64::MAX));
            }
            None => drop(self.memory.remove(&self.labels)),
        }
    }
}

impl DeviceMetrics {
    pub fn register(registry: &mut Registry) -> DeviceMetrics {
        let (info, healthy, memory) = (Family::default(), Family::default(), Family::default());
        let (busy, energy) = (Family::default(), Family::default());
        registry.register("stoker_device_info", "1 for each GPU or MIG device that a model computes on", info.clone());
        let help = "0 for a device that has failed and is not used any more";
        registry.register("stoker_device_healthy", help, healthy.clone());
        let help = "Seconds in which a device computed batches of a model";
        registry.register("stoker_device_busy_seconds", help, busy.clone());
        let help = "Energy of a device, shared out by the time that models keep it busy";
        registry.register("stoker_device_energy_joules", help, energy.clone());
        let help = "Memory of a device that a model has, measured when it was warm";
        registry.register("stoker_device_memory_bytes", help, memory.clone());
        DeviceMetrics { info, healthy, busy, energy, memory }
    }

    /// For a version of a model that computes on a device.
    pub fn used(&self, gpu: &GpuId, model: &str, version: &str) -> Use {
        let PlaceLabels { UUID, GPU_I_ID } = place(gpu);
        let labels = UseLabels { model: model.to_owned(), version: version.to_owned(), UUID, GPU_I_ID };
        let (busy, energy) = (self.busy.get_or_create_owned(&labels), self.energy.get_or_create_owned(&labels));
        Use { labels, busy, energy, memory: self.memory.clone() }
    }

    /// A device is used, or is not any more because it has failed.
    pub fn observe(&self, gpu: &GpuId, is_healthy: bool) {
        let place = place(gpu);
        self.healthy.get_or_create(&place).set(i64::from(is_healthy));
        let PlaceLabels { UUID, GPU_I_ID } = place;
        let info = InfoLabels {
            device: gpu.name.clone(),
            UUID,
            GPU_I_ID,
            GPU_I_PROFILE: gpu.mig.as_ref().map(|mig| mig.profile.clone()).unwrap_or_default(),
            modelName: gpu.model.clone(),
            pci_bus_id: gpu.pci_bus_id.clone(),
            Hostname: hostname(),
        };
        self.info.get_or_create(&info).set(1);
    }
}

fn place(gpu: &GpuId) -> PlaceLabels {
    let instance = gpu.mig.as_ref().map(|mig| mig.gpu_instance.to_string());
    PlaceLabels { UUID: gpu.gpu_uuid.clone(), GPU_I_ID: instance.unwrap_or_default() }
}

/// As the DCGM exporter has it: of the node, where a pod is told that.
fn hostname() -> String {
    let of_pod = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    env::var("NODE_NAME").unwrap_or_else(|_| of_pod())
}
