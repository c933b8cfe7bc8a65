//! Birth and death of a server: ready, overload, deadline, cancel, drain, failed loads.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stoker::app::{App, Shutdown};
use stoker::config::Config;
use stoker::protocol::open_inference as pb;

use crate::support::{Connection, Running, config, futures_join, metric, repository, until};

const PREDICT: &str = "/v1/models/slow:predict";

/// About 20 ms of work on one core.
fn slow_body() -> Vec<u8> {
    json!({"instances": [vec![0.5; 64]]}).to_string().into_bytes()
}

#[tokio::test]
async fn a_ready_server_describes_itself_in_every_protocol() {
    let server = Running::serve("iris", &["--grpc_port=0", "--model_version=7"]).await;
    let get = async |path: &str| {
        let reply = server.get(path).await.unwrap();
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")), "{path}");
        reply.json()
    };
    assert_eq!(get("/").await, json!({"status": "alive"}));
    assert_eq!(get("/v1/models").await, json!({"models": ["iris"]}));
    assert_eq!(get("/v1/models/iris").await, json!({"name": "iris", "ready": true}));
    assert_eq!(get("/v2/health/live").await, json!({"live": true}));
    assert_eq!(get("/v2/health/ready").await, json!({"ready": true}));
    assert_eq!(get("/v2").await["name"], "stoker");
    assert_eq!(get("/v2/models/iris/versions/7/ready").await["ready"], true);
    let metadata = get("/v2/models/iris").await;
    assert_eq!(metadata["versions"], json!(["7"]));
    assert_eq!(metadata["inputs"], json!([{"name": "float_input", "datatype": "FP32", "shape": [-1, 4]}]));

    // The same over gRPC, on the same port and on the second one.
    for address in [Some(server.addresses.http), server.addresses.grpc] {
        let mut client = crate::support::grpc(address.unwrap());
        let live: pb::ServerLiveResponse = client.call("ServerLive", pb::ServerLiveRequest {}).await.unwrap();
        let ready: pb::ServerReadyResponse = client.call("ServerReady", pb::ServerReadyRequest {}).await.unwrap();
        assert!(live.live && ready.ready);
        let server: pb::ServerMetadataResponse =
            client.call("ServerMetadata", pb::ServerMetadataRequest {}).await.unwrap();
        assert_eq!(server.name, "stoker");
        let (name, version) = ("iris".to_owned(), "7".to_owned());
        let question = pb::ModelReadyRequest { name: name.clone(), version: version.clone() };
        let ready: pb::ModelReadyResponse = client.call("ModelReady", question).await.unwrap();
        assert!(ready.ready);
        let question = pb::ModelMetadataRequest { name, version };
        let metadata: pb::ModelMetadataResponse = client.call("ModelMetadata", question).await.unwrap();
        assert_eq!((metadata.platform.as_str(), &metadata.inputs[0].shape[..]), ("onnxruntime_onnx", &[-1, 4][..]));
        let unknown = pb::ModelReadyRequest { name: "rose".to_owned(), version: String::new() };
        let status = client.call::<_, pb::ModelReadyResponse>("ModelReady", unknown).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (tonic::Code::NotFound, "Model with name rose does not exist."));
        let status = client.call::<_, pb::ServerLiveResponse>("Nonsense", pb::ServerLiveRequest {}).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (tonic::Code::Unimplemented, "no such method: Nonsense"));
    }
    server.stop(Shutdown::Prompt).await.unwrap();
}

#[tokio::test]
async fn request_ids_and_ids_are_given_back() {
    let server = Running::serve("iris", &[]).await;
    let mut connection = Connection::open(server.addresses.http).await.unwrap();
    let body = json!({"id": "abc", "inputs": [{"name": "float_input", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]});
    let headers = [("x-request-id", "r-1"), ("content-type", "application/json; charset=utf-8")];
    let reply = connection.send("POST", "/v2/models/iris/infer", &headers, body.to_string().as_bytes()).await.unwrap();
    assert_eq!((reply.status, reply.header("x-request-id")), (200, Some("r-1")));
    assert_eq!((reply.json()["id"].as_str(), reply.header("x-model-version")), (Some("abc"), Some("1")));
}

#[tokio::test]
async fn before_the_model_is_ready_the_server_is_live_and_says_what_it_waits_for() {
    // A named pipe: reading it blocks until somebody writes, so the load lasts as long as the test likes.
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("model.onnx");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let args = ["--host=127.0.0.1", "--http_port=0", "--model_name=m"].map(str::to_owned).to_vec();
    let args = [args, vec![format!("--model_dir={}", pipe.display())]].concat();
    let server = Running::start(Config::parse(&args, &|_| None).unwrap());
    let live = async {
        while server.get("/v2/health/live").await.ok().is_none_or(|reply| reply.status != 200) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), live).await.unwrap();
    assert_eq!(server.get("/v2/health/ready").await.unwrap().status, 503);
    for path in ["/v1/models/m", "/v2/models/m/ready", "/v2/models/m"] {
        let reply = server.get(path).await.unwrap();
        assert_eq!(reply.status, 503, "{path}");
        assert!(reply.error().starts_with("Model with name m is not ready. It is "), "{}", reply.error());
    }
    let reply = server.post("/v1/models/m:predict", b"{}").await;
    assert_eq!(reply.status, 503);
    // Asked to stop while loading: it does not wait for the load.
    let begun = Instant::now();
    let (_, done) = server.ask_to_stop(Shutdown::Gradual);
    tokio::time::timeout(Duration::from_secs(5), done).await.unwrap().unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    // Let the blocked reader go, so that the test's runtime can end.
    std::fs::write(&pipe, b"").unwrap();
}

#[tokio::test]
async fn a_port_that_waits_for_the_model_refuses_connections_until_then() {
    let app = App::bind(config("iris", &["--listen_when_ready"])).unwrap();
    let address = app.addresses().http;
    assert!(Connection::open(address).await.is_err());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let done = tokio::spawn(app.run(async {
        let _ = stopped.await;
        Shutdown::Prompt
    }));
    let first = loop {
        if let Ok(mut connection) = Connection::open(address).await {
            break connection.send("GET", "/v2/health/ready", &[], b"").await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    assert_eq!(first.status, 200);
    stop.send(()).unwrap();
    done.await.unwrap().unwrap();
}

#[tokio::test]
async fn overload_is_refused_at_once_and_what_was_accepted_is_answered() {
    let server = Running::serve("slow", &["--max_batch_size=1", "--max_queue_size=2"]).await;
    let asks: Vec<_> = (0..12).map(|_| async { server.post(PREDICT, &slow_body()).await }).collect();
    let replies = futures_join(asks).await;
    let count = |status: u16| replies.iter().filter(|reply| reply.status == status).count();
    // At least the queue's two; more when the model takes one before the last has come.
    assert!(count(200) >= 2 && count(429) >= 1 && count(200) + count(429) == 12, "{replies:?}");
    let refused = replies.iter().find(|reply| reply.status == 429).unwrap();
    assert!(refused.error().contains("--max_queue_size"), "{}", refused.error());
    let rejected = metric(&server, "stoker_rejected_total{model=\"slow\",version=\"1\",reason=\"queue_full\"}").await;
    assert_eq!(rejected as usize, count(429));
    assert_eq!(metric(&server, "stoker_goodput_total{model=\"slow\",version=\"1\"}").await as usize, count(200));
}

#[tokio::test]
async fn too_many_requests_or_bytes_in_flight_are_refused() {
    let server = Running::serve("slow", &["--max_inflight_requests=1"]).await;
    let replies = futures_join((0..4).map(|_| async { server.post(PREDICT, &slow_body()).await }).collect()).await;
    assert!(replies.iter().any(|reply| reply.status == 429 && reply.error().contains("--max_inflight_requests")));
    assert!(replies.iter().any(|reply| reply.status == 200));

    let server = Running::serve("iris", &["--max_body_bytes=64Ki", "--max_inflight_bytes=64Ki"]).await;
    let mut holder = Connection::open(server.addresses.http).await.unwrap();
    holder.write(b"POST /v1/models/iris:predict HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\n\r\n").await.unwrap();
    holder.write(&[b' '; 50_000]).await.unwrap();
    let full = async {
        loop {
            let reply = server.post("/v1/models/iris:predict", &[b' '; 30_000]).await;
            if reply.status == 429 {
                break reply;
            }
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(10), full).await.unwrap();
    assert!(refused.error().contains("--max_inflight_bytes"), "{}", refused.error());
}

#[tokio::test]
async fn deadlines_come_by_header_and_are_kept() {
    let server = Running::serve("slow", &["--max_batch_size=1"]).await;
    let busy = async {
        let statuses =
            futures_join((0..8).map(|_| async { server.post(PREDICT, &slow_body()).await.status }).collect());
        (statuses.await, Instant::now())
    };
    let hurried = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let mut connection = Connection::open(server.addresses.http).await.unwrap();
        let reply = connection.send("POST", PREDICT, &[("x-request-timeout-ms", "25")], &slow_body()).await.unwrap();
        (reply, Instant::now())
    };
    let ((statuses, idle), (reply, answered)) = tokio::join!(busy, hurried);
    assert!(statuses.iter().all(|status| *status == 200));
    assert_eq!(reply.status, 504, "{}", reply.text());
    assert!(answered < idle, "it was told before the model had a moment for it");

    let mut request = tonic::Request::new(pb::ModelInferRequest {
        model_name: "slow".into(),
        inputs: vec![pb::model_infer_request::InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 64],
            ..Default::default()
        }],
        raw_input_contents: vec![vec![0; 256].into()],
        ..Default::default()
    });
    request.set_timeout(Duration::from_millis(1));
    let status = server.grpc().infer(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "{status}");
}

#[tokio::test]
async fn callers_that_go_away_are_not_computed_for() {
    const LEAVERS: usize = 20;
    let server = Running::serve("slow", &["--max_batch_size=1"]).await;
    let body = slow_body();
    let head = format!("POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut leavers = Vec::new();
    for _ in 0..LEAVERS {
        let mut connection = Connection::open(server.addresses.http).await.unwrap();
        connection.write(&[head.as_bytes(), &body].concat()).await.unwrap();
        leavers.push(connection);
    }
    // They wait in the queue, twenty milliseconds each; then they all leave without an answer.
    until(async || metric(&server, "stoker_queue_requests{model=\"slow\",version=\"1\"}").await >= 15.0).await;
    drop(leavers);
    until(async || metric(&server, "stoker_inflight_requests").await == 0.0).await;
    let answered = metric(&server, "stoker_goodput_total{model=\"slow\",version=\"1\"}").await;
    let cancelled = metric(&server, "stoker_rejected_total{model=\"slow\",version=\"1\",reason=\"cancelled\"}").await;
    assert_eq!(answered + cancelled, LEAVERS as f64);
    assert_eq!(server.post(PREDICT, &body).await.status, 200);
    // What had been answered, what was running when its caller left, and the last one.
    let batches = metric(&server, "stoker_batch_requests_count{model=\"slow\",version=\"1\"}").await;
    assert!(batches <= answered + 2.0, "{batches} batches ran, {answered} callers got an answer");
}

#[tokio::test]
async fn draining_flips_readiness_at_once_and_finishes_what_is_in_flight() {
    let server = Running::serve("slow", &["--shutdown_delay_seconds=0.5", "--max_batch_size=1"]).await;
    let address = server.addresses.http;
    let asks: Vec<_> = (0..10)
        .map(|_| {
            tokio::spawn(async move {
                let mut connection = Connection::open(address).await.unwrap();
                connection.send("POST", PREDICT, &[], &slow_body()).await.unwrap().status
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let begun = Instant::now();
    let (_, done) = server.ask_to_stop(Shutdown::Gradual);
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Unready, yet still taking new connections and new predictions.
    let mut late = Connection::open(address).await.unwrap();
    assert_eq!(late.send("GET", "/v2/health/ready", &[], b"").await.unwrap().status, 503);
    assert_eq!(late.send("GET", "/v2/models/slow/ready", &[], b"").await.unwrap().status, 503);
    assert_eq!(late.send("GET", "/v2/health/live", &[], b"").await.unwrap().status, 200);
    assert_eq!(late.send("POST", PREDICT, &[], &slow_body()).await.unwrap().status, 200);
    for ask in asks {
        assert_eq!(ask.await.unwrap(), 200);
    }
    done.await.unwrap().unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(500));
    assert!(Connection::open(address).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn a_connection_that_never_finishes_its_request_does_not_hold_up_the_exit() {
    let server = Running::serve("iris", &["--drain_timeout_seconds=20"]).await;
    let mut staller = Connection::open(server.addresses.http).await.unwrap();
    staller.write(b"POST /v1/models/iris:predict HTTP/1.1\r\nhost:").await.unwrap();
    let mut idle = Connection::open(server.addresses.http).await.unwrap();
    assert_eq!(idle.send("GET", "/v2", &[], b"").await.unwrap().status, 200);
    let begun = Instant::now();
    server.stop(Shutdown::Gradual).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn the_version_folder_is_the_version() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("3")).unwrap();
    std::fs::copy(repository().join("tests/models/iris/model.onnx"), folder.path().join("3/model.onnx")).unwrap();
    let args = ["--host=127.0.0.1", "--http_port=0", "--model_name=iris", "--model_dir"].map(str::to_owned);
    let args = [args.to_vec(), vec![folder.path().display().to_string()]].concat();
    let server = Running::start(Config::parse(&args, &|_| None).unwrap());
    server.wait_until_ready().await;
    assert_eq!(server.get("/v2/models/iris/versions/3").await.unwrap().json()["versions"], json!(["3"]));
    assert_eq!(server.get("/v2/models/iris/versions/1").await.unwrap().status, 404);
    assert_eq!(metric(&server, "stoker_model_state{model=\"iris\",version=\"3\",state=\"ready\"}").await, 1.0);
    let text = server.get("/metrics").await.unwrap().text();
    assert!(!text.contains("stoker_model_state{model=\"iris\",version=\"\""), "the series from before are gone");
}

/// Runs the binary, which must fail, and gives its last words.
fn last_words(directory: &Path, flags: &[&str]) -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_stoker"))
        .args(["serve", "--host=127.0.0.1", "--http_port=0", "--model_dir"])
        .arg(directory)
        .args(flags)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let last: Value = serde_json::from_str(stderr.lines().last().unwrap()).unwrap();
    assert_eq!((last["level"].as_str(), last["message"].as_str()), (Some("ERROR"), Some("cannot serve")));
    last["error"].as_str().unwrap().to_owned()
}

#[test]
fn a_model_that_cannot_be_loaded_names_its_file_and_leaves_its_reason() {
    let good = std::fs::read(repository().join("tests/models/iris/model.onnx")).unwrap();
    let contents: [(&str, &[u8]); 4] =
        [("empty", b""), ("text", b"this is no model"), ("truncated", &good[..good.len() / 2]), ("zeros", &[0; 1000])];
    for (name, content) in contents {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.onnx"), content).unwrap();
        let reason = folder.path().join("termination-log");
        std::fs::write(&reason, "").unwrap();
        let error = last_words(folder.path(), &[&format!("--termination_log={}", reason.display())]);
        assert!(error.contains(&folder.path().join("model.onnx").display().to_string()), "{name}: {error}");
        let left = std::fs::read_to_string(&reason).unwrap();
        assert_eq!(left, format!("{error}\n"), "{name}");
        assert_eq!(left.lines().count(), 1, "{name}");
    }
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent");
    let error = last_words(&absent, &[&format!("--termination_log={}", folder.path().join("none").display())]);
    assert!(error.contains("absent: No such file"), "{error}");
    assert!(!folder.path().join("none").exists(), "the termination log is only written where it exists");
    let error = last_words(folder.path(), &[]);
    assert!(error.contains("no model file found") && error.contains("holds nothing"), "{error}");
}

#[tokio::test]
async fn outputs_that_are_no_tensors_are_left_out_and_the_rest_is_served() {
    let server = Running::serve("zipmap", &[]).await;
    let reply = server.post("/v1/models/zipmap:predict", br#"{"instances": [[5.1, 3.5, 1.4, 0.2]]}"#).await;
    assert_eq!(reply.json(), json!({"predictions": [0]}));
}

#[tokio::test]
async fn a_value_the_model_cannot_compute_is_the_callers_mistake() {
    let server = Running::serve("gather", &[]).await;
    let reply = server.post("/v1/models/gather:predict", br#"{"instances": [[99]]}"#).await;
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert!(reply.error().contains("idx=99"), "{}", reply.error());
    let good: Value = server.post("/v1/models/gather:predict", br#"{"instances": [[1]]}"#).await.json();
    assert!(good["predictions"][0][0].is_number());
}
