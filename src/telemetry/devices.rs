//! What devices are and how they do, with the label names of the DCGM exporter, so that its metrics can be joined.

use std::env;

use prometheus_client::encoding::EncodeLabelSet;
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

/// Of the devices that models compute on.
#[derive(Clone, Debug)]
pub struct DeviceMetrics {
    info: Family<InfoLabels, Gauge>,
    healthy: Family<PlaceLabels, Gauge>,
}

impl DeviceMetrics {
    pub fn register(registry: &mut Registry) -> DeviceMetrics {
        let (info, healthy) = (Family::default(), Family::default());
        registry.register("stoker_device_info", "1 for each GPU or MIG device that a model computes on", info.clone());
        let help = "0 for a device that has failed and is not used any more";
        registry.register("stoker_device_healthy", help, healthy.clone());
        DeviceMetrics { info, healthy }
    }

    /// A device is used, or is not any more because it has failed.
    pub fn observe(&self, gpu: &GpuId, is_healthy: bool) {
        let (uuid, instance) = (gpu.gpu_uuid.clone(), gpu.mig.as_ref().map(|mig| mig.gpu_instance.to_string()));
        let place = PlaceLabels { UUID: uuid, GPU_I_ID: instance.unwrap_or_default() };
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

/// As the DCGM exporter has it: of the node, where a pod is told that.
fn hostname() -> String {
    let of_pod = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    env::var("NODE_NAME").unwrap_or_else(|_| of_pod())
}
