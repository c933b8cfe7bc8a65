//! What this machine, or this container, gives a server.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use super::Finding;
use crate::backend;
use crate::config::Config;
use crate::device::{self, host};
use crate::model::placement::choice::Choice;
use crate::source::Env;
use crate::text::size;

pub fn look(config: &Config, env: Env<'_>) -> Vec<Finding> {
    let Config { server, model, .. } = config;
    let mut findings = vec![limits(), files(server.max_connections)];
    findings.extend([Some(server.http), server.grpc].into_iter().flatten().map(port));
    findings.push(match &model.cache {
        Some(kept) => cache(&kept.directory),
        None => Finding::skipped("cache", "-", "there is none"),
    });
    findings.push(runtime(model.backend.onnxruntime_library.as_deref()));
    findings.extend(devices(&model.device, env));
    findings
}

fn limits() -> Finding {
    let memory = host::memory().map_or_else(
        || "unknown memory".to_owned(),
        |memory| format!("{} of memory, {} of it free", size(memory.total), size(memory.free())),
    );
    Finding::ok("limits", "this container", format!("{} CPUs, {memory}", host::cpus()))
}

fn files(max_connections: usize) -> Finding {
    /// Beside connections: models, libraries, logs.
    const OTHERS: u64 = 128;
    let (limit, needed) = (host::max_open_fds(), max_connections as u64 + OTHERS);
    match limit {
        Some(limit) if limit < needed => Finding::warning(
            "limits",
            "open files",
            format!("{limit}"),
            &format!(
                "--max_connections {max_connections} may need {needed}: raise the limit of the container runtime, or allow fewer"
            ),
        ),
        Some(limit) => Finding::ok("limits", "open files", format!("{limit}")),
        None => Finding::skipped("limits", "open files", "the system does not say"),
    }
}

fn port(address: SocketAddr) -> Finding {
    let of = address.to_string();
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok("port", of, "free"),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Finding::warning(
            "port",
            of,
            "in use",
            "by the server itself, if this is its pod; else by what has to give way, or --http_port and --grpc_port name others",
        ),
        Err(error) => Finding::failed(
            "port",
            of,
            error.to_string(),
            "ports below 1024 are root's, and an address has to be this machine's (--host)",
        ),
    }
}

fn cache(directory: &Path) -> Finding {
    let of = directory.display().to_string();
    let free = || host::free_disk(directory).map_or_else(String::new, |free| format!(", {} free", size(free)));
    let tried = std::fs::create_dir_all(directory).and_then(|()| tempfile::tempfile_in(directory));
    match tried {
        Ok(_) => Finding::ok("cache", of, format!("can be written{}", free())),
        Err(error) => Finding::failed(
            "cache",
            of,
            error.to_string(),
            "mount an emptyDir there, or a volume of the node (charts/stoker: cache.hostPath), which user 65532 may write; or --cache_dir=none",
        ),
    }
}

fn runtime(configured: Option<&Path>) -> Finding {
    match backend::onnx_runtime(configured) {
        Ok(version) => Finding::ok("runtime", "ONNX Runtime", version),
        Err(error) => Finding::warning("runtime", "ONNX Runtime", error.message(), "only ONNX models need it"),
    }
}

fn devices(choice: &Choice, env: Env<'_>) -> Vec<Finding> {
    let is_wanted = !matches!(choice, Choice::Auto | Choice::Cpu);
    let missing = |layer, seen: String, advice: &str| {
        if is_wanted { Finding::failed(layer, "GPU", seen, advice) } else { Finding::skipped(layer, "GPU", seen) }
    };
    let recording = match device::recorded_or_here(None, env) {
        Ok(recording) => recording,
        Err(error) => return vec![Finding::failed("driver", "GPU", error.message(), "stoker devices says more")],
    };
    let Some(driver) = &recording.topology.driver else {
        let advice = "the node needs NVIDIA's driver and container toolkit, the pod a runtimeClassName or a node whose default that is, and \
                      a limit of nvidia.com/gpu or nvidia.com/mig-PROFILE";
        return vec![missing("driver", "there is no NVIDIA driver".to_owned(), advice)];
    };
    let mut findings =
        vec![Finding::ok("driver", "GPU", format!("{}, for CUDA up to {}", driver.version, driver.cuda))];
    match recording.visible() {
        Ok(visible) => {
            let devices = visible.devices.iter().map(|device| match &device.fault {
                Some(fault) => Finding::failed("device", &device.name, fault, "drain the node, and have the GPU reset"),
                None => {
                    let profile = device.mig.as_ref().map_or_else(String::new, |mig| format!(" {}", mig.profile));
                    Finding::ok(
                        "device",
                        &device.name,
                        format!("{}{profile}, {} free", device.model, size(device.memory.free())),
                    )
                }
            });
            findings.extend(devices);
            if visible.devices.is_empty() {
                findings.push(missing(
                    "device",
                    "none is this container's".to_owned(),
                    "the pod has to ask for one: a limit of nvidia.com/gpu or nvidia.com/mig-PROFILE",
                ));
            }
            let problems = recording.topology.problems.iter().chain(&visible.problems);
            findings.extend(
                problems.map(|problem| Finding::warning("device", "GPU", problem, "stoker devices shows all of them")),
            );
        }
        Err(error) => findings.push(Finding::failed(
            "device",
            "GPU",
            error.message(),
            "CUDA_VISIBLE_DEVICES and NVIDIA_VISIBLE_DEVICES say what is this container's",
        )),
    }
    findings
}
