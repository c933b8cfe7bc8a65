//! The GPUs of this machine, as NVIDIA's management library tells them. It comes with the driver and is loaded when it is
//! asked; without one there are no GPUs.
//!
//! Source: NVML API Reference Guide.

use std::ffi::OsStr;
use std::mem;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::{NvmlError, nvml_try};
use nvml_wrapper::{Device, EventSet, Nvml, cuda_driver_version_major, cuda_driver_version_minor};

use super::topology::{
    CudaVersion, Driver, Gpu, Health, Memory, MigDevice, Process, RowRemap, Topology, multiprocessors, profile,
};
use super::watch::{News, Seen, XidEvent};

type Result<T> = std::result::Result<T, NvmlError>;

const LIBRARY: &str = "libnvidia-ml.so.1";
/// Where the driver's other half, in the kernel, shows itself.
const KERNEL_DRIVER: &str = "/proc/driver/nvidia/version";

/// What there is, and why it is not more.
pub fn topology() -> Topology {
    match init() {
        Ok(nvml) => topology_of(&nvml),
        Err(error) => {
            let problems = why_none(&error, Path::new(KERNEL_DRIVER).exists()).into_iter().collect();
            Topology { problems, ..Topology::default() }
        }
    }
}

/// Tells of errors as they happen, and after each pause how everything is, until `tell` wants no more.
///
/// # Errors
/// Why nothing can be told.
pub fn watch(pause: Duration, mut tell: impl FnMut(&News) -> bool) -> std::result::Result<(), String> {
    let text = |error: NvmlError| format!("{LIBRARY}: {error}{}", what_to_do(&error));
    let nvml = init().map_err(text)?;
    let events = events(&nvml).map_err(text)?;
    loop {
        let until = Instant::now() + pause;
        while let Some(rest) = until.checked_duration_since(Instant::now()) {
            match event(&nvml, &events, rest) {
                Ok(Some(news)) if !tell(&news) => return Ok(()),
                Ok(_) => {}
                // Which one is seen when they are looked at; none of the others says anything from now on.
                Err(NvmlError::GpuLost) if tell(&News::Seen(seen(&nvml))) => thread::sleep(rest),
                Err(NvmlError::GpuLost) => return Ok(()),
                Err(error) => return Err(text(error)),
            }
        }
        if !tell(&News::Seen(seen(&nvml))) {
            return Ok(());
        }
    }
}

fn seen(nvml: &Nvml) -> Seen {
    let energy = |index| {
        let device = nvml.device_by_index(index).ok()?;
        Some((device.uuid().ok()?, device.total_energy_consumption().ok()?))
    };
    let millijoules = (0..nvml.device_count().unwrap_or_default()).filter_map(energy).collect();
    Seen { topology: topology_of(nvml), millijoules }
}

fn init() -> Result<Nvml> {
    Nvml::builder().lib_path(OsStr::new(LIBRARY)).init()
}

fn topology_of(nvml: &Nvml) -> Topology {
    let mut problems = Vec::new();
    let mut noted = |what: String, error: &NvmlError| problems.push(format!("{what}: {error}{}", what_to_do(error)));
    let driver = driver(nvml).inspect_err(|error| noted("the driver's version".to_owned(), error)).ok();
    let count = nvml.device_count().inspect_err(|error| noted("the GPUs".to_owned(), error)).unwrap_or_default();
    let gpus = (0..count).filter_map(|index| {
        let gpu = nvml.device_by_index(index).and_then(|device| gpu(index, &device));
        gpu.inspect_err(|error| noted(format!("gpu{index}"), error)).ok()
    });
    let gpus = gpus.collect();
    Topology { driver, gpus, problems }
}

/// Those that say that a GPU has failed, of all that can tell of them.
fn events(nvml: &Nvml) -> Result<EventSet<'_>> {
    let mut set = nvml.create_event_set()?;
    for index in 0..nvml.device_count()? {
        let Ok(device) = nvml.device_by_index(index) else { continue };
        set = match device.register_events(EventTypes::CRITICAL_XID_ERROR, set) {
            Ok(set) => set,
            Err(error) => return Err(error.error),
        };
    }
    Ok(set)
}

/// The next one within this time. The wrapper's own `wait` does not tell of which MIG device it is.
fn event(nvml: &Nvml, events: &EventSet, within: Duration) -> Result<Option<News>> {
    /// What the driver says where it does not tell.
    const UNKNOWN: u32 = u32::MAX;
    let Ok(call) = &nvml.lib().nvmlEventSetWait_v2 else { return Err(NvmlError::FunctionNotFound) };
    let milliseconds = u32::try_from(within.as_millis()).unwrap_or(u32::MAX).max(1);
    // SAFETY: numbers and a pointer, which may all be zero; NVML's own function, on a set that it has given us, fills them in,
    // and the device is one that was registered.
    let (data, device) = unsafe {
        let mut data = mem::zeroed();
        match nvml_try(call(events.handle(), &raw mut data, milliseconds)) {
            Err(NvmlError::Timeout) => return Ok(None),
            told => told?,
        }
        (data, Device::new(data.device, nvml))
    };
    let slice = (data.gpuInstanceId, data.computeInstanceId);
    let slice = Some(slice).filter(|(gpu, compute)| *gpu != UNKNOWN && *compute != UNKNOWN);
    Ok(Some(News::Xid(XidEvent { gpu: device.uuid()?, slice, number: data.eventData })))
}

/// Why there are no GPUs; `None` where nobody expects any.
fn why_none(error: &NvmlError, is_driver_in_kernel: bool) -> Option<String> {
    match error {
        NvmlError::LibloadingError(_) if !is_driver_in_kernel => None,
        NvmlError::LibloadingError(error) => Some(format!(
            "the NVIDIA driver is loaded ({KERNEL_DRIVER}), but {LIBRARY} cannot be ({error}): a container needs \
             NVIDIA's runtime (runtimeClassName: nvidia) and NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        )),
        error => Some(format!("{LIBRARY}: {error}{}", what_to_do(error))),
    }
}

fn what_to_do(error: &NvmlError) -> &'static str {
    match error {
        NvmlError::DriverNotLoaded => ": load it (modprobe nvidia), or in a container ask for nvidia.com/gpu",
        NvmlError::LibRmVersionMismatch => {
            ": the driver was updated under a running system: restart the machine, or in a container the pod"
        }
        NvmlError::GpuLost | NvmlError::ResetRequired => ": drain the node, and restart it",
        NvmlError::NoPermission | NvmlError::OperatingSystem => ": let this user open /dev/nvidia*",
        NvmlError::FailedToLoadSymbol(_) => ": the driver is older than this program expects: update it",
        _ => "",
    }
}

fn driver(nvml: &Nvml) -> Result<Driver> {
    let cuda = nvml.sys_cuda_driver_version()?;
    let part = |part: i32| u32::try_from(part).unwrap_or_default();
    let (major, minor) = (part(cuda_driver_version_major(cuda)), part(cuda_driver_version_minor(cuda)));
    Ok(Driver { version: nvml.sys_driver_version()?, cuda: CudaVersion { major, minor } })
}

fn gpu(index: u32, device: &Device) -> Result<Gpu> {
    let capability = device.cuda_compute_capability()?;
    let part = |part: i32| u32::try_from(part).unwrap_or_default();
    let compute_capability = CudaVersion { major: part(capability.major), minor: part(capability.minor) };
    let cores = told(device.num_cores())?;
    let memory = memory(device)?;
    Ok(Gpu {
        index,
        uuid: device.uuid()?,
        name: device.name()?,
        pci_bus_id: device.pci_info()?.bus_id,
        numa_node: numa_node(device),
        compute_capability,
        multiprocessors: cores.and_then(|cores| multiprocessors(cores, compute_capability)),
        memory,
        mig: slices(device, memory.total)?,
        health: health(device)?,
        processes: processes(device)?,
    })
}

/// `None` for what this GPU or this driver does not tell, or not to us.
fn told<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(
            NvmlError::NotSupported
            | NvmlError::NoPermission
            | NvmlError::NotFound
            | NvmlError::FunctionNotFound
            | NvmlError::FailedToLoadSymbol(_),
        ) => Ok(None),
        Err(error) => Err(error),
    }
}

fn memory(device: &Device) -> Result<Memory> {
    let memory = device.memory_info()?;
    // What the driver keeps for itself is not free either.
    Ok(Memory { total: memory.total, used: memory.total.saturating_sub(memory.free) })
}

/// The node whose memory is nearest; `None` when several are, or it is not told.
fn numa_node(device: &Device) -> Option<u32> {
    const WORDS: usize = 16;
    const SCOPE_NODE: u32 = 0;
    let words = device.memory_affinity(WORDS, SCOPE_NODE).ok()?;
    let nodes: u32 = words.iter().map(|word| word.count_ones()).sum();
    let first = words.iter().zip(0u32..).find(|(word, _)| **word != 0)?;
    (nodes == 1).then(|| first.1 * std::ffi::c_ulong::BITS + first.0.trailing_zeros())
}

/// The MIG devices, those that this container was given; `None` without MIG.
fn slices(gpu: &Device, total: u64) -> Result<Option<Vec<MigDevice>>> {
    if told(gpu.mig_mode())?.is_none_or(|mode| mode.current != 1) {
        return Ok(None);
    }
    let places = 0..gpu.mig_device_count()?;
    let devices = places.filter_map(|place| told(gpu.mig_device_by_index(place)).transpose());
    devices.map(|device| slice(&device?, total)).collect::<Result<_>>().map(Some)
}

fn slice(device: &Device, of: u64) -> Result<MigDevice> {
    let memory = memory(device)?;
    let attributes = told(device.attributes())?;
    let slices = attributes
        .as_ref()
        .map_or((0, 0), |attributes| (attributes.gpu_instance_slice_count, attributes.compute_instance_slice_count));
    let lib = device.nvml().lib();
    let id = |call: &std::result::Result<unsafe extern "C" fn(_, _) -> _, _>| -> Result<u32> {
        let Ok(call) = call else { return Err(NvmlError::FunctionNotFound) };
        let mut id = 0;
        // SAFETY: NVML's own function, on a device that it has given us; it writes one number.
        nvml_try(unsafe { call(device.handle(), &raw mut id) })?;
        Ok(id)
    };
    Ok(MigDevice {
        uuid: device.uuid()?,
        gpu_instance: id(&lib.nvmlDeviceGetGpuInstanceId)?,
        compute_instance: id(&lib.nvmlDeviceGetComputeInstanceId)?,
        profile: profile(&device.name()?, slices, memory.total, of),
        multiprocessors: attributes.map(|attributes| attributes.multiprocessor_count),
        memory,
        processes: processes(device)?,
    })
}

fn health(device: &Device) -> Result<Health> {
    let errors = told(device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile))?;
    Ok(Health { uncorrected_ecc_errors: errors, row_remap: told(row_remap(device))? })
}

fn row_remap(device: &Device) -> Result<RowRemap> {
    let Ok(call) = &device.nvml().lib().nvmlDeviceGetRemappedRows else { return Err(NvmlError::FunctionNotFound) };
    let (mut correctable, mut uncorrectable, mut pending, mut failed) = (0, 0, 0, 0);
    // SAFETY: NVML's own function, on a device that it has given us; it writes four numbers.
    let code = unsafe {
        call(device.handle(), &raw mut correctable, &raw mut uncorrectable, &raw mut pending, &raw mut failed)
    };
    nvml_try(code)?;
    Ok(RowRemap { uncorrectable, pending: pending != 0, failed: failed != 0 })
}

fn processes(device: &Device) -> Result<Vec<Process>> {
    let running = told(device.running_compute_processes())?.unwrap_or_default();
    let process = |process: &nvml_wrapper::struct_wrappers::device::ProcessInfo| {
        let memory_bytes = match process.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        };
        Process { pid: process.pid, memory_bytes }
    };
    Ok(running.iter().map(process).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_only_where_somebody_expects_it() {
        let missing = Nvml::builder().lib_path(OsStr::new("/nowhere/libnvidia-ml.so")).init();
        let error = missing.err().unwrap();
        assert_eq!(why_none(&error, false), None);
        assert!(why_none(&error, true).unwrap().contains("NVIDIA_DRIVER_CAPABILITIES=compute,utility"));
        assert!(why_none(&NvmlError::DriverNotLoaded, true).unwrap().contains("ask for nvidia.com/gpu"));
        assert!(why_none(&NvmlError::LibRmVersionMismatch, true).unwrap().contains("restart the machine"));
    }
}
