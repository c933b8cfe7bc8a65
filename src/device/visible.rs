//! Which devices of a topology are ours, as the environment says.
//!
//! `NVIDIA_VISIBLE_DEVICES` is the device plugin's: UUIDs of GPUs or of MIG devices (both of its strategies), or with
//! `volume-mounts` a folder with such names. It says what a container was given, even to one that sees all of its node's
//! GPUs. Numbers in it are the node's; a container that was given some sees only those, numbered anew, so they say nothing
//! here. A GPU of which several replicas were given is one device, shared with others (time-slicing).
//!
//! `CUDA_VISIBLE_DEVICES` chooses among these by number, UUID or its beginning, or as `MIG-GPU-<uuid>/<gi>/<ci>`; numbers
//! count in the order of PCI addresses. Unlike CUDA, which ends the list at the first name that it does not know and shows a
//! process one MIG device at most, a name that does not exist is an error here, and all MIG devices that are named can be
//! used, each by a process of its own; a GPU that is cut into MIG devices stands for all of them.
//!
//! Source: CUDA C++ Programming Guide, "CUDA Environment Variables"; MIG User Guide, "CUDA Device Enumeration";
//! k8s-device-plugin, `internal/plugin/server.go`, `internal/rm/devices.go`.

use serde::{Deserialize, Serialize};

use super::topology::{CudaVersion, Gpu, Health, Memory, MigDevice, Process, Topology};
use crate::error::{Error, Result};

/// The variables that decide, as `stoker devices --json` writes them down.
pub const VARIABLES: &[&str] = &[CUDA, NVIDIA, MPS_PIPE];

const CUDA: &str = "CUDA_VISIBLE_DEVICES";
const NVIDIA: &str = "NVIDIA_VISIBLE_DEVICES";
/// Set by the device plugin in containers that share a GPU by the multi-process service.
const MPS_PIPE: &str = "CUDA_MPS_PIPE_DIRECTORY";
/// What the device plugin sets [`NVIDIA`] to when it mounts the names.
pub const MOUNTED_NAMES: &str = "/var/run/nvidia-container-devices";

/// A GPU, or a MIG device of one, that this process may compute on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    /// `gpu0`, or `gpu0/3/0`: MIG device of GPU instance 3 and compute instance 0 of it, as in CUDA's old names.
    pub name: String,
    pub uuid: String,
    /// Its own, or that of the GPU that it is a part of: DCGM's `UUID`.
    pub gpu_uuid: String,
    /// E.g. `NVIDIA H200`, DCGM's `modelName`.
    pub model: String,
    pub pci_bus_id: String,
    pub numa_node: Option<u32>,
    pub compute_capability: CudaVersion,
    pub multiprocessors: Option<u32>,
    pub memory: Memory,
    /// Of a MIG device.
    pub mig: Option<Mig>,
    /// How others use it too; `None` when it is ours alone, as far as one can see.
    pub shared: Option<Sharing>,
    /// Why it is not used.
    pub fault: Option<String>,
    pub processes: Vec<Process>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mig {
    /// DCGM's `GPU_I_ID`.
    pub gpu_instance: u32,
    pub compute_instance: u32,
    /// DCGM's `GPU_I_PROFILE`.
    pub profile: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    TimeSlicing,
    /// By the multi-process service.
    Mps,
}

/// What is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visible {
    /// In the order in which they are named, else of PCI addresses.
    pub devices: Vec<Device>,
    /// What should not be so, and what to do about it.
    pub problems: Vec<String>,
}

/// The devices that are ours, of all that can be seen. `mounted` are the names below [`MOUNTED_NAMES`].
///
/// # Errors
/// When `CUDA_VISIBLE_DEVICES` names what is not there, several devices at once, or one twice.
pub fn visible(topology: &Topology, env: &dyn Fn(&str) -> Option<String>, mounted: &[String]) -> Result<Visible> {
    let seen: Vec<Found> = topology.gpus.iter().flat_map(parts).collect();
    let given = Given::read(env(NVIDIA), mounted);
    let mut problems: Vec<String> = given.missing(&seen).map(gone).collect();
    let ours: Vec<Found> = seen.into_iter().filter(|found| given.has(found)).collect();
    let chosen = match env(CUDA) {
        Some(names) => chosen(&names, &ours)?,
        None => ours,
    };
    let is_mps = env(MPS_PIPE).is_some_and(|path| !path.is_empty());
    let shared = |found: &Found| {
        if is_mps { Some(Sharing::Mps) } else { given.is_replica(found).then_some(Sharing::TimeSlicing) }
    };
    let devices: Vec<Device> = chosen.iter().map(|found| found.device(shared(found))).collect();
    let told = |health: &Health| health.warning().map(str::to_owned);
    problems.extend(topology.gpus.iter().filter_map(|gpu| Some(format!("gpu{}: {}", gpu.index, told(&gpu.health)?))));
    Ok(Visible { devices, problems })
}

fn gone(name: &str) -> String {
    format!(
        "{NVIDIA} names {name}, which is not there (any more): was MIG reconfigured, or did the GPU fail? A new pod gets \
         another"
    )
}

#[derive(Clone, Copy)]
struct Found<'a> {
    gpu: &'a Gpu,
    slice: Option<&'a MigDevice>,
}

fn parts(gpu: &Gpu) -> Vec<Found<'_>> {
    match &gpu.mig {
        Some(slices) => slices.iter().map(|slice| Found { gpu, slice: Some(slice) }).collect(),
        None => vec![Found { gpu, slice: None }],
    }
}

impl Found<'_> {
    fn uuid(&self) -> &str {
        self.slice.map_or(&self.gpu.uuid, |slice| &slice.uuid)
    }

    /// Whether a UUID means it: its own, or that of the GPU that it is a part of.
    fn is(&self, uuid: &str) -> bool {
        uuid == self.uuid() || uuid == self.gpu.uuid
    }

    fn name(&self) -> String {
        let gpu = self.gpu.index;
        match self.slice {
            Some(slice) => format!("gpu{gpu}/{}/{}", slice.gpu_instance, slice.compute_instance),
            None => format!("gpu{gpu}"),
        }
    }

    fn device(&self, shared: Option<Sharing>) -> Device {
        let Found { gpu, slice } = *self;
        Device {
            name: self.name(),
            uuid: self.uuid().to_owned(),
            gpu_uuid: gpu.uuid.clone(),
            model: gpu.name.clone(),
            pci_bus_id: gpu.pci_bus_id.clone(),
            numa_node: gpu.numa_node,
            compute_capability: gpu.compute_capability,
            multiprocessors: slice.map_or(gpu.multiprocessors, |slice| slice.multiprocessors),
            memory: slice.map_or(gpu.memory, |slice| slice.memory),
            mig: slice.map(|slice| Mig {
                gpu_instance: slice.gpu_instance,
                compute_instance: slice.compute_instance,
                profile: slice.profile.clone(),
            }),
            shared,
            fault: gpu.health.fault(),
            processes: slice.map_or(&gpu.processes, |slice| &slice.processes).clone(),
        }
    }
}

/// What the container was given.
enum Given {
    /// It was not said, or not in words that mean something in here.
    Everything,
    Nothing,
    /// UUIDs, of replicas with their number (`GPU-...::1`).
    Named(Vec<String>),
}

impl Given {
    fn read(variable: Option<String>, mounted: &[String]) -> Given {
        let Some(text) = variable else { return Given::Everything };
        let names: Vec<String> = match text.trim() {
            // "void" tells the runtime to do nothing: the devices have come another way, if at all (CDI).
            "" | "void" | "all" => return Given::Everything,
            "none" => return Given::Nothing,
            path if path.starts_with(MOUNTED_NAMES) => mounted.to_vec(),
            list => list.split(',').map(|name| name.trim().to_owned()).collect(),
        };
        let is_uuid = |name: &String| name.starts_with("GPU-") || name.starts_with("MIG-");
        if names.iter().any(is_uuid) { Given::Named(names) } else { Given::Everything }
    }

    fn has(&self, found: &Found) -> bool {
        match self {
            Given::Everything => true,
            Given::Nothing => false,
            Given::Named(names) => names.iter().any(|name| found.is(without_replica(name))),
        }
    }

    fn is_replica(&self, found: &Found) -> bool {
        let Given::Named(names) = self else { return false };
        let mut ours = names.iter().filter(|name| found.is(without_replica(name)));
        ours.clone().any(|name| name.contains("::")) || ours.nth(1).is_some()
    }

    fn missing<'a>(&'a self, seen: &'a [Found]) -> impl Iterator<Item = &'a str> {
        let names = match self {
            Given::Named(names) => names.as_slice(),
            Given::Everything | Given::Nothing => &[],
        };
        let names = names.iter().map(|name| without_replica(name));
        names.filter(|name| !seen.iter().any(|found| found.is(name)))
    }
}

fn without_replica(name: &str) -> &str {
    name.split_once("::").map_or(name, |(name, _)| name)
}

/// Those that `CUDA_VISIBLE_DEVICES` names.
fn chosen<'a>(names: &str, ours: &[Found<'a>]) -> Result<Vec<Found<'a>>> {
    let mut chosen: Vec<Found> = Vec::new();
    for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if name == "-1" || name == "NoDevFiles" {
            break; // which is how CUDA is told to show none
        }
        for found in named(name, ours)? {
            if chosen.iter().any(|other| other.uuid() == found.uuid()) {
                return Err(Error::load(format!("{CUDA} names {} twice, here as \"{name}\"", found.name())));
            }
            chosen.push(found);
        }
    }
    Ok(chosen)
}

/// The device that a name means; all parts of a GPU that has any.
fn named<'a>(name: &str, ours: &[Found<'a>]) -> Result<Vec<Found<'a>>> {
    let wrong = |what: &str| {
        let there: Vec<String> = ours.iter().map(|found| format!("{} {}", found.name(), found.uuid())).collect();
        let there =
            if there.is_empty() { "there is none".to_owned() } else { format!("there is {}", there.join(", ")) };
        Error::load(format!("{CUDA} names \"{name}\", which {what}: {there}"))
    };
    let mut gpus: Vec<&str> = ours.iter().map(|found| &*found.gpu.uuid).collect();
    gpus.dedup();
    let matching = |is_meant: &dyn Fn(&Found) -> bool| ours.iter().copied().filter(|found| is_meant(found)).collect();
    let found: Vec<Found> = if let Ok(number) = name.parse::<usize>() {
        let gpu = gpus.get(number).copied();
        matching(&|found| Some(&*found.gpu.uuid) == gpu)
    } else if let Some(path) = name.strip_prefix("MIG-GPU-") {
        matching(&|found| {
            let place = |slice: &MigDevice| format!("/{}/{}", slice.gpu_instance, slice.compute_instance);
            let gpu = found.gpu.uuid.strip_prefix("GPU-").unwrap_or_default();
            found.slice.is_some_and(|slice| path.strip_prefix(gpu) == Some(&*place(slice)))
        })
    } else if name.starts_with("MIG-") {
        matching(&|found| found.slice.is_some_and(|slice| slice.uuid.starts_with(name)))
    } else if name.starts_with("GPU-") {
        gpus.retain(|uuid| uuid.starts_with(name));
        if gpus.len() > 1 {
            return Err(wrong("begins several UUIDs"));
        }
        matching(&|found| gpus.contains(&&*found.gpu.uuid))
    } else {
        return Err(wrong("is no number, no GPU-UUID and no MIG-UUID"));
    };
    if found.len() > 1 && name.starts_with("MIG-") {
        return Err(wrong("begins several UUIDs"));
    }
    if found.is_empty() { Err(wrong("is not there")) } else { Ok(found) }
}
