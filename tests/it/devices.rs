//! What there is to compute on: recorded machines, read back and probed through a management library that tells of them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use stoker::device::recording::Recording;
use stoker::device::visible::{Sharing, Visible};

const RECORDED: [&str; 7] =
    ["none", "h200", "a100-mig-balanced", "h100-mig-7x1g", "l4-time-sliced", "dual-socket-8", "ecc-errors"];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/topologies").join(format!("{name}.json"))
}

fn recorded(name: &str) -> Recording {
    Recording::parse(&std::fs::read_to_string(path(name)).unwrap()).unwrap()
}

/// What is ours of a recorded machine, were its environment another.
fn visible(name: &str, environment: &[(&str, &str)]) -> stoker::error::Result<Visible> {
    let mut recording = recorded(name);
    recording.environment.extend(environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    recording.visible()
}

fn names(visible: &Visible) -> Vec<&str> {
    visible.devices.iter().map(|device| device.name.as_str()).collect()
}

#[test]
fn recorded_machines_have_the_devices_that_their_pods_were_given() {
    let of = |name| visible(name, &[]).unwrap();
    assert_eq!(names(&of("none")), [""; 0]);
    assert_eq!(names(&of("h200")), ["gpu0"]);
    assert_eq!(names(&of("a100-mig-balanced")), ["gpu0/2/0", "gpu0/3/0", "gpu0/9/0", "gpu0/10/0"]);
    assert_eq!(names(&of("h100-mig-7x1g")).len(), 7);
    assert_eq!(names(&of("dual-socket-8")).len(), 8);
    let slices = of("a100-mig-balanced").devices;
    let mig = |place: usize| slices[place].mig.as_ref().unwrap();
    assert_eq!((mig(0).profile.as_str(), mig(0).gpu_instance), ("3g.40gb", 2));
    assert_eq!((slices[0].multiprocessors, slices[0].numa_node), (Some(42), Some(1)));
    assert!(slices[2].memory.total < slices[0].memory.total / 4);
}

#[test]
fn a_pod_uses_what_the_device_plugin_gave_it() {
    let slices: Vec<String> =
        visible("a100-mig-balanced", &[]).unwrap().devices.iter().map(|device| device.uuid.clone()).collect();
    let given = |names: &str| visible("a100-mig-balanced", &[("NVIDIA_VISIBLE_DEVICES", names)]).unwrap();
    // Mixed strategy, two slices of one GPU.
    assert_eq!(names(&given(&format!("{},{}", slices[2], slices[0]))), ["gpu0/2/0", "gpu0/9/0"]);
    assert_eq!(names(&given("all")).len(), 4);
    assert_eq!(names(&given("none")), [""; 0]);
    // Not said here: by CDI, by numbers of the node, or not at all.
    assert_eq!([names(&given("void")).len(), names(&given("0:1")).len(), names(&given("")).len()], [4; 3]);
    // MIG was reconfigured under the pod.
    let lost = given("MIG-00000000-0000-4000-8000-000000000000");
    assert_eq!(names(&lost), [""; 0]);
    assert!(lost.problems[0].contains("MIG-00000000-0000-4000-8000-000000000000, which is not there"), "{lost:?}");
    // By mounts.
    let mut mounted = recorded("a100-mig-balanced");
    mounted.environment.insert("NVIDIA_VISIBLE_DEVICES".into(), "/var/run/nvidia-container-devices".into());
    mounted.mounted = vec![slices[1].clone()];
    assert_eq!(names(&mounted.visible().unwrap()), ["gpu0/3/0"]);
}

#[test]
fn a_share_of_a_gpu_is_known_as_one() {
    let sliced = visible("l4-time-sliced", &[]).unwrap();
    assert_eq!((names(&sliced), sliced.devices[0].shared), (vec!["gpu0"], Some(Sharing::TimeSlicing)));
    let uuid = &sliced.devices[0].uuid;
    let shared = |names: &str, more: (&str, &str)| {
        let visible = visible("l4-time-sliced", &[("NVIDIA_VISIBLE_DEVICES", names), more]).unwrap();
        assert_eq!(visible.devices.len(), 1);
        visible.devices[0].shared
    };
    assert_eq!(shared(uuid, ("", "")), None);
    assert_eq!(shared(&format!("{uuid},{uuid}"), ("", "")), Some(Sharing::TimeSlicing)); // two replicas of one GPU
    assert_eq!(shared(uuid, ("CUDA_MPS_PIPE_DIRECTORY", "/mps/nvidia.com/gpu/pipe")), Some(Sharing::Mps));
}

#[test]
fn cuda_visible_devices_chooses_as_in_cuda_or_is_an_error() {
    let eight = recorded("dual-socket-8").topology.gpus;
    let chosen = |machine: &str, list: &str| visible(machine, &[("CUDA_VISIBLE_DEVICES", list)]);
    let of = |machine: &str, list: &str| {
        chosen(machine, list).unwrap().devices.iter().map(|device| device.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("dual-socket-8", "3, 1"), ["gpu3", "gpu1"]);
    assert_eq!(of("dual-socket-8", &format!("{},0", &eight[5].uuid[..12])), ["gpu5", "gpu0"]);
    assert_eq!([of("dual-socket-8", ""), of("dual-socket-8", "-1"), of("dual-socket-8", "NoDevFiles")], [[""; 0]; 3]);
    assert_eq!(of("dual-socket-8", "2,-1,3"), ["gpu2"]);
    let gpu = &recorded("a100-mig-balanced").topology.gpus[0];
    let slice = &gpu.mig.as_ref().unwrap()[3].uuid;
    assert_eq!(of("a100-mig-balanced", &format!("{slice},MIG-{}/3/0", gpu.uuid)), ["gpu0/10/0", "gpu0/3/0"]);
    assert_eq!(of("a100-mig-balanced", "0").len(), 4);
    assert_eq!(of("a100-mig-balanced", &gpu.uuid).len(), 4);

    let wrong = |machine: &str, list: &str| chosen(machine, list).unwrap_err().message().to_owned();
    let message = wrong("h200", "1");
    assert!(message.contains("CUDA_VISIBLE_DEVICES names \"1\", which is not there: there is gpu0 GPU-"), "{message}");
    assert!(wrong("none", "0").ends_with("which is not there: there is none"));
    assert!(wrong("dual-socket-8", "GPU-").contains("begins several UUIDs"));
    assert!(wrong("dual-socket-8", "cuda:0").contains("is no number, no GPU-UUID and no MIG-UUID"));
    assert!(wrong("dual-socket-8", "0,1,0").contains("names gpu0 twice"));
    assert!(wrong("a100-mig-balanced", "MIG-GPU-nonsense/1/0").contains("is not there"));
}

#[test]
fn a_gpu_with_errors_that_were_not_put_right_is_not_used() {
    let Visible { devices, problems } = visible("ecc-errors", &[]).unwrap();
    let faults: Vec<Option<&str>> = devices.iter().map(|device| device.fault.as_deref()).collect();
    assert!(matches!(faults[..], [None, Some(_), Some(_), None]), "{faults:?}");
    assert!(faults[1].unwrap().starts_with("3 uncorrected memory errors: reset the GPU"));
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[1].starts_with("gpu3: a row of its memory is to be replaced"));
}

#[test]
fn devices_are_shown_as_a_table_and_as_data_that_can_be_read_back() {
    let table = stoker(&[], &["devices", &format!("--recording={}", path("a100-mig-balanced").display())]);
    let text = String::from_utf8(table.stdout).unwrap();
    assert!(text.starts_with("NVIDIA driver 580.95.05, for CUDA up to 13.0\n"), "{text}");
    let line = text.lines().find(|line| line.starts_with("gpu0/9/0")).unwrap();
    for word in ["NVIDIA A100-SXM4-80GB 1g.10gb", " 14 ", "9.5 GiB", "8.0", "00000000:07:00.0", "MIG-", "ok"] {
        assert!(line.contains(word), "{word} in {line}");
    }
    for name in RECORDED {
        let json = stoker(&[], &["devices", "--json", &format!("--recording={}", path(name).display())]);
        assert_eq!(Recording::parse(&String::from_utf8(json.stdout).unwrap()).unwrap(), recorded(name), "{name}");
    }
    let wrong = stoker(&[], &["devices", &format!("--recording={}/Cargo.toml", env!("CARGO_MANIFEST_DIR"))]);
    let message = String::from_utf8(wrong.stderr).unwrap();
    assert!(!wrong.status.success() && message.contains("is not what stoker devices --json writes"), "{message}");
}

fn stoker(environment: &[(&str, &str)], args: &[&str]) -> Output {
    command(environment, args).output().unwrap()
}

fn command(environment: &[(&str, &str)], args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stoker"));
    for name in ["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CUDA_MPS_PIPE_DIRECTORY"] {
        command.env_remove(name);
    }
    command.args(args).envs(environment.iter().copied());
    command
}

#[cfg(feature = "cuda")]
mod probed {
    use std::fmt::Write as _;
    use std::fs::File;
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Child, Stdio};
    use std::sync::mpsc;

    use stoker::device::topology::{Gpu, Health, Memory, Process, Topology};

    use super::*;
    use crate::support::PATIENCE;

    #[test]
    fn machines_are_probed_as_they_are() {
        for name in &RECORDED[1..] {
            let recording = recorded(name);
            let library = library(&recording.topology, &[]);
            let environment: Vec<(&str, &str)> =
                recording.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let probed = probe(&library, &environment);
            assert_eq!(probed, Recording { cpu: probed.cpu, ..recording }, "{name}");
        }
    }

    #[test]
    fn what_a_gpu_does_not_tell_is_left_open() {
        let mut recording = recorded("l4-time-sliced");
        let gpu = &mut recording.topology.gpus[0];
        (gpu.health, gpu.numa_node) = (Health::default(), None);
        recording.environment.clear();
        let probed = probe(&library(&recording.topology, &[]), &[]);
        assert_eq!(probed, Recording { cpu: probed.cpu, ..recording });
    }

    #[test]
    fn a_gpu_that_is_lost_does_not_hide_the_others() {
        let recording = recorded("dual-socket-8");
        let probed = probe(&library(&recording.topology, &[2]), &[]).topology;
        let left: Vec<u32> = probed.gpus.iter().map(|gpu| gpu.index).collect();
        assert_eq!(left, [0, 1, 3, 4, 5, 6, 7]);
        assert!(probed.problems[0].starts_with("gpu2: device fell off the bus"), "{:?}", probed.problems);
        assert!(probed.problems[0].ends_with("drain the node, and restart it"), "{:?}", probed.problems);
    }

    #[test]
    fn a_driver_that_does_not_work_is_told_with_what_to_do() {
        let library = library(&recorded("h200").topology, &[]);
        let said = |code: &str| {
            let Topology { driver, gpus, problems } = probe(&library, &[("FAKE_NVML_INIT", code)]).topology;
            assert!(driver.is_none() && gpus.is_empty());
            problems.join("\n")
        };
        assert!(said("9").contains("driver is not loaded: load it (modprobe nvidia)"), "{}", said("9"));
        assert!(said("18").contains("the driver was updated under a running system"), "{}", said("18"));
    }

    #[test]
    fn without_a_driver_there_is_the_cpu() {
        // What cannot be loaded stands for what is not there, so that a real driver is not found behind it.
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("libnvidia-ml.so.1"), "no library").unwrap();
        let text = stoker(&[("LD_LIBRARY_PATH", folder.path().to_str().unwrap())], &["devices"]).stdout;
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with("no NVIDIA driver\n"), "{text}");
        assert!(text.lines().any(|line| line.starts_with("cpu ") && line.ends_with(" ok")), "{text}");
        let is_expected = Path::new("/proc/driver/nvidia/version").exists();
        assert_eq!(text.contains("NVIDIA_DRIVER_CAPABILITIES=compute,utility"), is_expected, "{text}");
    }

    /// What `stoker serve` ends with.
    fn refusal(library: &tempfile::TempDir, model: &str, flags: &[&str]) -> String {
        let directory = format!("--model_dir={}/tests/models/{model}", env!("CARGO_MANIFEST_DIR"));
        let args = [&["serve", "--host=127.0.0.1", "--http_port=0", "--log_format=json", &directory], flags].concat();
        let output = stoker(&[("LD_LIBRARY_PATH", library.path().to_str().unwrap())], &args);
        assert!(!output.status.success());
        let log = String::from_utf8(output.stderr).unwrap();
        let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        last["error"].as_str().unwrap().to_owned()
    }

    /// This ONNX Runtime knows no GPU: a model that is to run on one is not quietly served by the CPU.
    #[test]
    fn a_model_runs_on_the_gpu_that_is_there_or_not_at_all() {
        let of = |name: &str| library(&recorded(name).topology, &[]);
        let h200 = of("h200");
        for flags in [&[][..], &["--device=gpu"], &["--device=gpu0"], &["--worker=process"]] {
            let why = refusal(&h200, "iris", flags);
            assert!(why.contains("gpu0 cannot be used: ") && why.contains("--device cpu"), "{why}");
        }
        let why = refusal(&h200, "iris", &["--device=gpu1"]);
        assert_eq!(why, "--device names gpu1, which is not there: there is cpu, gpu0");
        let why = refusal(&h200, "iris", &["--gpu_execution_accelerator=tensorrt", "--precision_mode=FP16"]);
        assert!(why.contains("gpu0 cannot be used: ") && why.contains("TensorRT"), "{why}");
        let why = refusal(&h200, "iris", &["--gpu_mem_limit=200Gi"]);
        assert!(why.contains("it needs 200.0 GiB, for which there is no room: ") && why.contains("gpu0: "), "{why}");
        let why = refusal(&h200, "iris", &["--gpu_mem_limit=1Ki"]);
        assert!(why.contains("--gpu_mem_limit is 1.0 KiB, and the model's files take "), "{why}");
        // It says nothing of the CPU.
        let iris = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/iris");
        let output = stoker(&[], &["inspect", iris, "--device=cpu", "--gpu_mem_limit=60000Gi"]);
        assert!(output.status.success(), "{output:?}");
        // Of several devices each needs a process of its own.
        let slices = of("a100-mig-balanced");
        let why = refusal(&slices, "iris", &["--worker=thread"]);
        assert!(
            why.contains("a process computes on one GPU or MIG device, and there are others beside gpu0/"),
            "{why}"
        );
        let why = refusal(&slices, "iris", &["--device=all"]);
        assert!(why.contains("gpu0/") && why.contains("cannot be used"), "{why}");
        let broken = of("ecc-errors");
        let why = refusal(&broken, "iris", &["--device=gpu1"]);
        assert!(why.contains("gpu1: not used: 3 uncorrected memory errors"), "{why}");
    }

    /// `stoker devices --watch` on a machine, and the file in which stands what happens to that.
    struct Watching {
        child: Child,
        log: mpsc::Receiver<serde_json::Value>,
        events: PathBuf,
        _library: tempfile::TempDir,
    }

    impl Watching {
        fn new(name: &str) -> Watching {
            let library = library(&recorded(name).topology, &[]);
            let events = library.path().join("events");
            let folder = library.path().to_str().unwrap();
            let environment = [("LD_LIBRARY_PATH", folder), ("FAKE_NVML_EVENTS", events.to_str().unwrap())];
            let mut command = command(&environment, &["devices", "--watch"]);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            let (tell, log) = mpsc::channel::<serde_json::Value>();
            let lines = BufReader::new(child.stderr.take().unwrap()).lines();
            std::thread::spawn(move || {
                lines.for_each(|line| drop(tell.send(serde_json::from_str(&line.unwrap()).unwrap())));
            });
            let gpus = recorded(name).topology.gpus;
            let devices = gpus.iter().map(|gpu| gpu.mig.as_ref().map_or(1, Vec::len)).sum();
            for line in log.iter().take(devices) {
                assert_eq!(line["message"], "watching");
            }
            Watching { child, log, events, _library: library }
        }

        fn happens(&self, what: &str) {
            let mut events = File::options().create(true).append(true).open(&self.events).unwrap();
            writeln!(events, "{what}").unwrap();
        }

        /// The device, and what is told of it next.
        fn told(&self) -> (String, String) {
            let line = self.log.recv_timeout(PATIENCE).unwrap();
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            (text("device"), text("message") + ": " + &text("what"))
        }
    }

    impl Drop for Watching {
        fn drop(&mut self) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }

    #[test]
    fn what_goes_wrong_with_a_gpu_is_told_when_it_happens() {
        let watching = Watching::new("dual-socket-8");
        let gpus = recorded("dual-socket-8").topology.gpus;
        let uuid = |gpu: usize| &gpus[gpu].uuid;
        let is = |(device, what): (String, String), expected: &str, text: &str| {
            assert_eq!(device, expected);
            assert!(what.contains(text), "{what}");
        };
        watching.happens(&format!("xid {} -1 -1 31", uuid(1)));
        is(watching.told(), "gpu1", "a program did something wrong");
        watching.happens(&format!("xid {} -1 -1 79", uuid(2)));
        is(watching.told(), "gpu2", "a device is in quarantine: XID 79: it fell off the bus: drain the node");
        watching.happens(&format!("errors {} 2", uuid(3)));
        is(watching.told(), "gpu3", "a device is in quarantine: 2 uncorrected memory errors: reset the GPU");
        watching.happens(&format!("lost {}", uuid(4)));
        is(watching.told(), "gpu4", "the driver does not tell of it any more: device fell off the bus");
    }

    #[test]
    fn one_mig_device_may_fail_and_not_the_others() {
        let watching = Watching::new("a100-mig-balanced");
        let gpu = &recorded("a100-mig-balanced").topology.gpus[0];
        watching.happens(&format!("xid {} 3 0 94", gpu.uuid));
        let (device, what) = watching.told();
        assert_eq!(device, "gpu0/3/0");
        assert!(what.contains("XID 94: an uncorrected memory error"), "{what}");
        watching.happens(&format!("gone {}", gpu.mig.as_ref().unwrap()[0].uuid));
        let (device, what) = watching.told();
        assert_eq!(device, "gpu0/2/0");
        assert!(what.contains("MIG was reconfigured under it"), "{what}");
        watching.happens(&format!("xid {} -1 -1 48", gpu.uuid));
        let mut left = [watching.told().0, watching.told().0];
        left.sort();
        assert_eq!(left, ["gpu0/10/0", "gpu0/9/0"], "of which it is was not told: it may be any of them");
    }

    fn probe(library: &tempfile::TempDir, environment: &[(&str, &str)]) -> Recording {
        let folder = library.path().to_str().unwrap();
        let environment: Vec<_> = environment.iter().copied().chain([("LD_LIBRARY_PATH", folder)]).collect();
        let output = stoker(&environment, &["devices", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Recording::parse(&String::from_utf8(output.stdout).unwrap()).unwrap()
    }

    /// A folder with a management library that tells of this topology; of the lost GPUs only that there are such.
    fn library(topology: &Topology, lost: &[u32]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let header = folder.path().join("topology.h");
        std::fs::write(&header, table(topology, lost)).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_nvml/nvml.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"])
            .arg(format!("-DTOPOLOGY=\"{}\"", header.display()))
            .arg("-o")
            .arg(folder.path().join("libnvidia-ml.so.1"))
            .arg(source)
            .output()
            .unwrap();
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        folder
    }

    fn table(topology: &Topology, lost: &[u32]) -> String {
        let driver = topology.driver.as_ref().unwrap();
        let mut text = String::new();
        let cuda = driver.cuda.major * 1000 + driver.cuda.minor * 10;
        writeln!(text, "static const char *driver_version = \"{}\";", driver.version).unwrap();
        writeln!(text, "static const int cuda_version = {cuda};\nstatic struct device devices[] = {{").unwrap();
        let mut count = 0;
        for gpu in &topology.gpus {
            let parent = count;
            text.push_str(&whole(gpu, lost.contains(&gpu.index)));
            for slice in gpu.mig.iter().flatten() {
                let place =
                    format!(".gpu_instance = {}, .compute_instance = {}", slice.gpu_instance, slice.compute_instance);
                let name = format!("{} MIG {}", gpu.name, slice.profile);
                let count = slice.multiprocessors.unwrap();
                writeln!(text, "  {{ .parent = {parent}, .multiprocessors = {count}, {place},").unwrap();
                text.push_str(&common(&slice.uuid, &name, slice.memory, &slice.processes));
            }
            count += 1 + gpu.mig.iter().flatten().count();
        }
        writeln!(text, "}};\nstatic const uint device_count = {count};").unwrap();
        text
    }

    fn whole(gpu: &Gpu, lost: bool) -> String {
        let lanes = if (gpu.compute_capability.major, gpu.compute_capability.minor) == (8, 0) { 64 } else { 128 };
        let rows = gpu.health.row_remap.unwrap_or_default();
        format!(
            "  {{ .parent = -1, .lost = {}, .bus_id = \"{}\", .numa_node = {}, .major = {}, .minor = {}, .cores = {}, \
             .mig = {}, .ecc = {}, .errors = {}, .rows = {}, .pending = {}, .failed = {},\n{}",
            u8::from(lost),
            gpu.pci_bus_id,
            gpu.numa_node.map_or(-1, i64::from),
            gpu.compute_capability.major,
            gpu.compute_capability.minor,
            gpu.multiprocessors.unwrap() * lanes,
            u8::from(gpu.mig.is_some()),
            u8::from(gpu.health.uncorrected_ecc_errors.is_some()),
            gpu.health.uncorrected_ecc_errors.unwrap_or_default(),
            rows.uncorrectable,
            u8::from(rows.pending),
            u8::from(rows.failed),
            common(&gpu.uuid, &gpu.name, gpu.memory, &gpu.processes),
        )
    }

    fn common(uuid: &str, name: &str, memory: Memory, processes: &[Process]) -> String {
        let process = |process: &Process| {
            format!("{{ {}, {}ull, -1u, -1u }}", process.pid, process.memory_bytes.map_or(u64::MAX, |bytes| bytes))
        };
        let processes: Vec<String> = processes.iter().map(process).collect();
        format!(
            "    .uuid = \"{uuid}\", .name = \"{name}\", .total = {}ull, .used = {}ull, .process_count = {}, .processes = {{ {} }} }},\n",
            memory.total,
            memory.used,
            processes.len(),
            processes.join(", "),
        )
    }
}
