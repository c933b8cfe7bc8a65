//! Limits that hold against callers who do not mean well, or do not read what they asked for.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use stoker::app::Shutdown;
use stoker::protocol::open_inference as pb;

use crate::support::{Connection, Running, framed, grpc_bytes, metric, until};

const PREDICT: &str = "/v1/models/iris:predict";
const GOOD: &[u8] = br#"{"instances": [[5.1, 3.5, 1.4, 0.2]]}"#;

#[tokio::test]
async fn a_width_that_only_the_weights_know_is_the_callers_mistake() {
    let server = Running::serve("free_width", &[]).await;
    let reply = server.post("/v1/models/free_width:predict", br#"{"instances": [[1, 2]]}"#).await;
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert!(!reply.error().contains("onnxruntime_src"), "{}", reply.error());
    let input = pb::model_infer_request::InferInputTensor {
        name: "x".into(),
        datatype: "FP32".into(),
        shape: vec![1, 2],
        ..Default::default()
    };
    let request = pb::ModelInferRequest {
        model_name: "free_width".into(),
        inputs: vec![input],
        raw_input_contents: vec![vec![0; 8].into()],
        ..Default::default()
    };
    assert_eq!(server.grpc().infer(request).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn callers_are_not_joined_where_that_would_change_their_answers() {
    let server = Running::serve("time_first", &[]).await;
    let body = json!({"instances": [[1, 1], [1, 1]]}).to_string();
    let ask = async || server.post("/v1/models/time_first:predict", body.as_bytes()).await.json();
    let together = tokio::join!(ask(), ask(), ask(), ask());
    let alone = json!({"predictions": [[1.0, 1.0], [2.0, 2.0]]});
    assert_eq!(together, (alone.clone(), alone.clone(), alone.clone(), alone));
    let sample = "stoker_batch_requests_bucket{le=\"1.0\",model=\"time_first\",version=\"1\"}";
    assert_eq!(metric(&server, sample).await, 4.0);
}

#[tokio::test]
async fn a_message_that_is_none_is_the_callers_mistake_and_counted() {
    let server = Running::serve("iris", &[]).await;
    let address = server.addresses.http;
    let bad_name = framed(b"\x0a\x02\xff\xfe");
    let cases = [
        (b"".to_vec(), 3, "the request has no message"),
        (
            framed(b"\xff\xff\xff"),
            3,
            "the message is no ModelInferRequest: it breaks off or has a field of no known kind",
        ),
        (b"\0\xff\xff\xff\xff".to_vec(), 3, "the message is declared with 4294967295 bytes and has 0"),
        (b"\x01\0\0\0\0".to_vec(), 12, "grpc-encoding unnamed is not supported: send messages uncompressed"),
    ];
    for (body, code, message) in cases.clone() {
        assert_eq!(grpc_bytes(address, "ModelInfer", body).await, (code, message.to_owned()));
    }
    let (code, message) = grpc_bytes(address, "ModelInfer", bad_name).await;
    assert!(code == 3 && message.starts_with("the message cannot be decoded: "), "{code} {message}");
    let counted = "stoker_requests_total{model=\"\",version=\"\",protocol=\"grpc\",code=\"400\"}";
    assert_eq!(metric(&server, counted).await, 4.0);
}

#[tokio::test]
async fn a_message_is_refused_for_what_it_would_become() {
    let server = Running::serve("iris", &["--max_inflight_bytes=64Mi"]).await;
    // Every byte of packed zeros becomes an integer of eight, twice, in lists that grow.
    let contents = pb::InferTensorContents { int64_contents: vec![0; 4 << 20], ..Default::default() };
    let input = pb::model_infer_request::InferInputTensor { contents: Some(contents), ..Default::default() };
    let zeros = pb::ModelInferRequest { model_name: "iris".into(), inputs: vec![input], ..Default::default() };
    let status = server.grpc().infer(zeros).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert!(status.message().contains("--max_inflight_bytes"), "{status}");
    // A MiB of empty inputs would take 160 times that.
    let body = framed(&[0x2a, 0x00].repeat(512 << 10));
    let (code, message) = grpc_bytes(server.addresses.http, "ModelInfer", body).await;
    assert!(code == 3 && message.contains("more than 1024 inputs"), "{code} {message}");
    // The same in JSON: a digit and a comma become eight bytes.
    let body = format!("{{\"instances\": [[{}0]]}}", "0,".repeat(9 << 20));
    let reply = server.post(PREDICT, body.as_bytes()).await;
    assert_eq!(reply.status, 413, "trying again would not help: {}", reply.text());
    assert_eq!(server.post(PREDICT, GOOD).await.status, 200);
    assert_eq!(metric(&server, "stoker_inflight_requests").await, 0.0);
}

#[tokio::test]
async fn connections_that_say_nothing_do_not_lock_others_out() {
    let server = Running::serve("iris", &["--max_connections=3", "--timeout_keep_alive=0.3"]).await;
    let mut silent = Vec::new();
    for first_words in [&b""[..], b"P", b"PRI * HT"] {
        let mut connection = Connection::open(server.addresses.http).await.unwrap();
        connection.write(first_words).await.unwrap();
        silent.push(connection);
    }
    assert_eq!(server.get("/v2/health/live").await.unwrap().status, 200);
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let server = Running::serve("iris", &["--max_connections=2"]).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut connection = Connection::open(server.addresses.http).await.unwrap();
        connection.write(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert_eq!(connection.read().await.unwrap().status, 200);
        held.push(connection);
    }
    let reply = server.get("/v2/health/live").await.unwrap();
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("1")));
    assert!(reply.error().contains("--max_connections"), "{}", reply.error());
    drop(held);
    until(async || server.get("/v2/health/live").await.is_ok_and(|reply| reply.status == 200)).await;
}

#[tokio::test]
async fn a_body_that_trickles_is_given_up_at_the_requests_deadline() {
    let server = Running::serve("iris", &["--request_timeout_seconds=0.4"]).await;
    let mut trickler = Connection::open(server.addresses.http).await.unwrap();
    let head = format!("POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n");
    trickler.write(head.as_bytes()).await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(300) {
        trickler.write(b" ").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let reply = trickler.read().await.unwrap();
    assert_eq!(reply.status, 504);
    assert!(reply.error().contains("deadline"), "{}", reply.error());
}

#[tokio::test]
async fn health_is_answered_under_overload() {
    let server = Running::serve("iris", &["--max_inflight_requests=1"]).await;
    let mut holder = Connection::open(server.addresses.http).await.unwrap();
    holder.write(format!("POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n").as_bytes()).await.unwrap();
    until(async || metric(&server, "stoker_inflight_requests").await == 1.0).await;
    assert_eq!(server.post(PREDICT, GOOD).await.status, 429);
    let live: pb::ServerLiveResponse = server.grpc().call("ServerLive", pb::ServerLiveRequest {}).await.unwrap();
    assert!(live.live);
}

/// Half a million numbers, a few MiB of answer.
fn large_body() -> Vec<u8> {
    let row = vec![0.123_456_7; 1000];
    json!({"instances": vec![row; 500]}).to_string().into_bytes()
}

async fn ask_without_reading(server: &Running) -> Connection {
    let body = large_body();
    let mut connection = Connection::open(server.addresses.http).await.unwrap();
    let head =
        format!("POST /v1/models/variable:predict HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    connection.write(&[head.as_bytes(), &body].concat()).await.unwrap();
    until(async || metric(server, "stoker_goodput_total{model=\"variable\",version=\"1\"}").await == 1.0).await;
    connection
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_counted_and_then_dropped() {
    let server = Running::serve("variable", &["--body_timeout_seconds=0.5"]).await;
    let mut lazy = ask_without_reading(&server).await;
    assert_eq!(metric(&server, "stoker_inflight_requests").await, 1.0, "it is held, so it counts");
    until(async || metric(&server, "stoker_inflight_requests").await == 0.0).await;
    assert!(lazy.read().await.is_err(), "the connection was closed in the middle of the answer");
}

/// The same over HTTP/2, where the connection goes on while one answer is stuck behind its flow control.
#[tokio::test]
async fn an_answer_that_nobody_reads_over_http2_is_dropped_too() {
    let server = Running::serve("variable", &["--body_timeout_seconds=0.5"]).await;
    let mut builder = Client::builder(TokioExecutor::new());
    let client: Client<_, Full<Bytes>> =
        builder.http2_only(true).http2_initial_stream_window_size(16 << 10).build_http();
    let url = format!("http://{}/v1/models/variable:predict", server.addresses.http);
    let request = http::Request::post(url).body(large_body().into()).unwrap();
    let unread = client.request(request).await.unwrap();
    assert_eq!(unread.status(), 200);
    assert_eq!(metric(&server, "stoker_inflight_requests").await, 1.0);
    until(async || metric(&server, "stoker_inflight_requests").await == 0.0).await;
    assert!(unread.into_body().collect().await.is_err(), "it was cut off");
}

#[tokio::test]
async fn draining_waits_for_answers_that_are_still_being_read() {
    let server = Running::serve("variable", &[]).await;
    let mut slow_reader = ask_without_reading(&server).await;
    let (_, done) = server.ask_to_stop(Shutdown::Prompt);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let reply = slow_reader.read().await.unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["predictions"].as_array().unwrap().len(), 500);
    done.await.unwrap().unwrap();
}

#[tokio::test]
async fn fields_that_say_null_are_as_good_as_absent() {
    let server = Running::serve("iris", &[]).await;
    let input =
        json!({"name": "float_input", "shape": [1, 4], "datatype": "FP32", "parameters": null, "data": [1, 2, 3, 4]});
    let body = json!({"id": null, "parameters": null, "inputs": [input], "outputs": null});
    let reply = server.post("/v2/models/iris/infer", body.to_string().as_bytes()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json().get("id"), None::<&Value>);
}

#[tokio::test]
async fn a_trace_is_given_back_with_our_span() {
    let server = Running::serve("iris", &[]).await;
    let mut connection = Connection::open(server.addresses.http).await.unwrap();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let reply = connection.send("POST", PREDICT, &[("traceparent", parent)], GOOD).await.unwrap();
    let ours = reply.header("traceparent").unwrap();
    assert!(ours.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && ours != parent, "{ours}");
    assert_eq!(connection.send("POST", PREDICT, &[], GOOD).await.unwrap().header("traceparent"), None);
}

#[tokio::test]
async fn metrics_have_no_series_of_a_version_that_was_only_guessed() {
    let server = Running::serve("iris", &[]).await;
    assert_eq!(server.post(PREDICT, GOOD).await.status, 200);
    let text = server.get("/metrics").await.unwrap().text();
    assert!(!text.contains("version=\"\""), "{text}");
    assert_eq!(metric(&server, "stoker_model_state{model=\"iris\",version=\"1\",state=\"ready\"}").await, 1.0);
}
