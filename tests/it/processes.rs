//! Models in processes of their own, which are killed, hang, and are begun anew.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use stoker::app::Shutdown;
use stoker::config::Config;

use crate::support::{Connection, Reply, Running, config, metric, reference, repository, until};

/// A server whose model's processes can be told from those of other tests.
struct Isolated {
    server: Running,
    /// stoker, under a name of this test's own.
    program: PathBuf,
    _directory: tempfile::TempDir,
}

impl Isolated {
    async fn serve(model: &str, flags: &[&str]) -> Isolated {
        let flags: Vec<&str> = ["--worker=process"].iter().chain(flags).copied().collect();
        Isolated::of(config(model, &flags)).await
    }

    async fn of(mut config: Config) -> Isolated {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("stoker");
        symlink(env!("CARGO_BIN_EXE_stoker"), &program).unwrap();
        config.model.isolation.program.clone_from(&program);
        let server = Running::start(config);
        server.wait_until_ready().await;
        Isolated { server, program, _directory: directory }
    }

    /// Of its processes that have not ended.
    fn pids(&self) -> Vec<Pid> {
        processes(&self.program)
    }

    fn signal(&self, signal: Signal) {
        for pid in self.pids() {
            let _ = kill_process(pid, signal); // it may just have ended
        }
    }

    async fn infer(&self, model: &str, body: &Value) -> Reply {
        self.server.post(&format!("/v2/models/{model}/infer"), body.to_string().as_bytes()).await
    }

    async fn is_ready(&self) -> bool {
        self.server.get("/v2/health/ready").await.unwrap().status == 200
    }

    async fn restarts(&self, model: &str, reason: &str) -> f64 {
        let labels = format!("model=\"{model}\",version=\"1\",device=\"cpu\",reason=\"{reason}\"");
        metric(&self.server, &format!("stoker_worker_restarts_total{{{labels}}}")).await
    }
}

fn processes(program: &std::path::Path) -> Vec<Pid> {
    let names = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let is_ours = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(program.as_os_str().as_encoded_bytes())
    };
    names.filter_map(|name| name.parse().ok()).filter(is_ours).filter_map(Pid::from_raw).collect()
}

fn iris() -> Value {
    json!({"inputs": reference("iris")[0]["inputs"]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_its_own_answers_as_the_server_does() {
    for model in ["iris", "identity", "two_inputs", "variable"] {
        let here = Running::serve(model, &[]).await;
        let isolated = Isolated::serve(model, &[]).await;
        assert_eq!(isolated.pids().len(), 1);
        for case in reference(model) {
            let inputs = case["inputs"].clone();
            let body = json!({ "inputs": inputs });
            let (ours, theirs) = (
                here.post(&format!("/v2/models/{model}/infer"), body.to_string().as_bytes()).await,
                isolated.infer(model, &body).await,
            );
            assert_eq!((ours.status, ours.json()), (theirs.status, theirs.json()), "{model}");
        }
        let path = format!("/v2/models/{model}");
        let metadata = [here.get(&path).await.unwrap().json(), isolated.server.get(&path).await.unwrap().json()];
        assert_eq!(metadata[0], metadata[1]);
        let wrong = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": ["a"]}]});
        assert_eq!(isolated.infer(model, &wrong).await.status, 400);
        here.stop(Shutdown::Prompt).await.unwrap();
        isolated.server.stop(Shutdown::Prompt).await.unwrap();
        until(async || processes(&isolated.program).is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_model_says_of_an_input_is_told() {
    let isolated = Isolated::serve("gather", &[]).await;
    let here = Running::serve("gather", &[]).await;
    for case in reference("gather") {
        let mut body = json!({ "inputs": case["inputs"] });
        let integers =
            body["inputs"].as_array_mut().unwrap().iter_mut().find(|input| input["datatype"] == "INT64").unwrap();
        integers["data"][0] = json!(1_000_000);
        let theirs = isolated.infer("gather", &body).await;
        let ours = here.post("/v2/models/gather/infer", body.to_string().as_bytes()).await;
        assert_eq!((theirs.status, theirs.error()), (400, ours.error()));
    }
    assert_eq!(isolated.restarts("gather", "killed").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_whose_process_is_killed_is_back_and_nothing_is_lost() {
    const CLIENTS: usize = 4;
    const KILLS: usize = 40;
    /// Between two kills: each request may be lost once, not twice.
    const ANSWERS: usize = 50;
    let isolated = Arc::new(Isolated::serve("variable", &["--instances=2"]).await);
    let is_over = Arc::new(AtomicBool::new(false));
    let answers = Arc::new(AtomicUsize::new(0));
    let client = |number: usize| {
        let (isolated, is_over, answers) = (isolated.clone(), is_over.clone(), answers.clone());
        tokio::spawn(async move {
            let mut asked = 0;
            let mut connection = Connection::open(isolated.server.addresses.http).await.unwrap();
            while !is_over.load(Ordering::Relaxed) {
                let own = (number * 1_000_000 + asked) as f32;
                let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [own, 0.5]}]});
                let path = "/v2/models/variable/infer";
                let reply = connection.send("POST", path, &[], body.to_string().as_bytes()).await.unwrap();
                assert_eq!(reply.status, 200, "{reply:?}");
                assert_eq!(reply.json()["outputs"][0]["data"], json!([2.0 * own, 1.0]));
                asked += 1;
                answers.fetch_add(1, Ordering::Relaxed);
            }
            asked
        })
    };
    let clients: Vec<_> = (0..CLIENTS).map(client).collect();
    for _ in 0..KILLS {
        let answered = answers.load(Ordering::Relaxed);
        until(async || isolated.pids().len() == 2 && answers.load(Ordering::Relaxed) >= answered + ANSWERS).await;
        let victim = isolated.pids()[0];
        kill_process(victim, Signal::KILL).unwrap();
        until(async || !isolated.pids().contains(&victim)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.await.unwrap() > KILLS);
    }
    assert_eq!(isolated.restarts("variable", "killed").await, KILLS as f64);
    Arc::into_inner(isolated).unwrap().server.stop(Shutdown::Prompt).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_tells_of_a_process_that_is_away() {
    let isolated = Isolated::serve("iris", &[]).await;
    let before = isolated.pids();
    isolated.signal(Signal::KILL);
    until(async || isolated.pids() != before).await;
    // What comes meanwhile waits for it.
    assert_eq!(isolated.infer("iris", &iris()).await.status, 200);
    assert!(isolated.is_ready().await);
    // When it cannot begin anew, that is said.
    std::fs::remove_file(&isolated.program).unwrap();
    isolated.signal(Signal::KILL);
    until(async || !isolated.is_ready().await).await;
    let refused = async || {
        let reply = isolated.infer("iris", &iris()).await;
        reply.status == 503
            && reply.error().contains("cannot begin anew: cannot begin a process for the model: No such file")
    };
    until(refused).await;
    symlink(env!("CARGO_BIN_EXE_stoker"), &isolated.program).unwrap();
    until(async || isolated.is_ready().await).await;
    assert_eq!(isolated.infer("iris", &iris()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_hangs_is_begun_anew_and_the_request_is_tried_again() {
    let isolated = Isolated::serve("iris", &["--worker_timeout_seconds=0.5"]).await;
    isolated.signal(Signal::STOP);
    let began = Instant::now();
    assert_eq!(isolated.infer("iris", &iris()).await.status, 200);
    assert!(began.elapsed() >= Duration::from_millis(500));
    assert_eq!(isolated.restarts("iris", "hung").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_ends_its_process_twice_is_answered_and_others_are_not_harmed() {
    let isolated = Isolated::serve("slow", &["--max_batch_size=4"]).await;
    let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 64], "data": vec![0.5; 64]}]});
    let asked = async || {
        let reply = isolated.infer("slow", &body).await;
        (reply.status, if reply.status == 200 { String::new() } else { reply.error() })
    };
    let kill_twice = async {
        for _ in 0..2 {
            until(async || isolated.is_ready().await).await;
            tokio::time::sleep(Duration::from_millis(20)).await; // into the batch
            isolated.signal(Signal::KILL);
            until(async || !isolated.is_ready().await).await;
        }
    };
    let ((status, error), ()) = tokio::join!(asked(), kill_twice);
    assert_eq!((status, error.as_str()), (503, "the model's process ended while it computed this"));
    assert_eq!(asked().await.0, 200);
    assert_eq!(isolated.restarts("slow", "killed").await, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_files_than_those_that_were_loaded_are_not_served_unasked() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("model.onnx");
    let model = |name: &str| repository().join("tests/models").join(name).join("model.onnx");
    std::fs::copy(model("iris"), &file).unwrap();
    let mut config = config("iris", &["--worker=process"]);
    config.model.source = stoker::source::uri::SourceUri::Local(directory.path().to_owned());
    let isolated = Isolated::of(config).await;
    std::fs::copy(model("identity"), &file).unwrap();
    isolated.signal(Signal::KILL);
    let refused = async || {
        let reply = isolated.infer("iris", &iris()).await;
        reply.status == 503 && reply.error().contains("are others than those that were loaded")
    };
    until(refused).await;
    std::fs::copy(model("iris"), &file).unwrap();
    until(async || isolated.is_ready().await).await;
    assert_eq!(isolated.infer("iris", &iris()).await.status, 200);
}
