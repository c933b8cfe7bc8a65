//! What cannot be answered in time is refused when it comes, and with it is said when to come again.

use std::time::{Duration, Instant, SystemTime};

use stoker::protocol::open_inference as pb;

use crate::support::{Connection, Reply, Running, futures_join, metric};

const PREDICT: &str = "/v2/models/slow/infer";
const REFUSED: &str = "stoker_rejected_total{model=\"slow\",version=\"1\",reason=\"deadline\"}";

fn body(parameters: &str) -> Vec<u8> {
    let data = vec!["0.5"; 64].join(",");
    let input = format!(r#"{{"name":"x","shape":[1,64],"datatype":"FP32","data":[{data}]}}"#);
    format!(r#"{{"parameters":{{{parameters}}},"inputs":[{input}]}}"#).into_bytes()
}

async fn ask(server: &Running, headers: &[(&str, &str)], body: &[u8]) -> (Reply, Duration) {
    let mut connection = Connection::open(server.addresses.http).await.unwrap();
    let asked = Instant::now();
    let reply = connection.send("POST", PREDICT, headers, body).await.unwrap();
    (reply, asked.elapsed())
}

/// How long the model takes for one: the shortest of three, as others may be busy beside it.
async fn model_takes(server: &Running) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..3 {
        let (reply, took) = ask(server, &[], &body("")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        shortest = shortest.min(took);
    }
    shortest
}

#[tokio::test]
async fn a_deadline_that_cannot_be_met_is_refused_at_once_however_it_is_told() {
    let server = Running::serve("slow", &["--max_batch_size=1"]).await;
    let takes = model_takes(&server).await;
    let soon = humantime::format_rfc3339_millis(SystemTime::now() + Duration::from_millis(3)).to_string();
    let told: [(&[(&str, &str)], &str); 4] = [
        (&[("x-request-timeout-ms", "3")], ""),
        (&[("x-request-deadline", &soon)], ""),
        (&[], r#""timeout":3000"#),
        (&[("x-request-timeout-ms", "5000")], r#""timeout":3000,"priority":1"#),
    ];
    for (headers, parameters) in told {
        let (reply, took) = ask(&server, headers, &body(parameters)).await;
        assert_eq!(reply.status, 504, "{headers:?} {parameters}: {}", reply.text());
        assert!(took < takes, "{headers:?} {parameters}: {took:?}");
    }
    assert_eq!(ask(&server, &[], &body(r#""timeout":0"#)).await.0.status, 200);
    let (reply, _) = ask(&server, &[], &body(r#""timeout":"soon""#)).await;
    assert_eq!(reply.status, 400, "{}", reply.text());
}

#[tokio::test]
async fn the_models_objective_holds_for_those_who_say_nothing() {
    let server = Running::serve("slow", &["--max_batch_size=1", "--slo_milliseconds=3"]).await;
    let (reply, _) = ask(&server, &[], &body("")).await;
    assert_eq!(reply.status, 504, "{}", reply.text());
    let (reply, _) = ask(&server, &[("x-request-timeout-ms", "5000")], &body("")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[tokio::test]
async fn who_has_no_chance_is_refused_before_his_request_is_read() {
    let server = Running::serve("slow", &["--max_batch_size=1"]).await;
    let takes = model_takes(&server).await;
    let body = body("");
    let asked = Instant::now();
    let deadline = humantime::format_rfc3339_micros(SystemTime::now() + takes * 8).to_string();
    let headers = [("x-request-deadline", deadline.as_str())];
    let waiting = async { futures_join((0..20).map(|_| ask(&server, &headers, &body)).collect()).await };
    let refused = async {
        while metric(&server, REFUSED).await == 0.0 {
            assert!(asked.elapsed() < takes * 8, "none of the twenty was refused");
        }
        let mut connection = Connection::open(server.addresses.http).await.unwrap();
        let head = format!("POST {PREDICT} HTTP/1.1\r\nhost: x\r\nx-request-deadline: {deadline}\r\n");
        let head = format!("{head}content-length: 1000\r\nexpect: 100-continue\r\n\r\n");
        connection.write(head.as_bytes()).await.unwrap();
        let asked = Instant::now();
        (connection.read().await.unwrap(), asked.elapsed())
    };
    let (replies, (reply, took)) = tokio::join!(waiting, refused);
    assert_eq!(reply.status, 429, "{}", reply.text());
    assert!(reply.error().contains("too much waits") && reply.header("retry-after").is_some(), "{reply:?}");
    assert!(took < takes * 4, "{took:?}: it was told late");
    assert!(replies.iter().any(|(reply, _)| reply.status == 200), "{replies:?}");
}

#[tokio::test]
async fn who_is_refused_is_told_when_to_come_again() {
    let server = Running::serve("slow", &["--max_batch_size=1"]).await;
    let takes = model_takes(&server).await;
    let patience = (4 * takes).as_millis().to_string();
    let headers = [("x-request-timeout-ms", patience.as_str())];
    let replies = futures_join((0..20).map(|_| async { ask(&server, &headers, &body("")).await.0 }).collect()).await;
    let refused: Vec<_> = replies.iter().filter(|reply| reply.status == 429).collect();
    assert!(refused.len() >= 10, "{replies:?}");
    assert!(refused.iter().all(|reply| reply.header("retry-after") == Some("1")), "{refused:?}");
    assert!(refused.iter().all(|reply| reply.error().contains("too much waits")), "{refused:?}");
    // On a busy machine one that was let in may still turn out to be late; in virtual time it may not (overload.rs).
    assert!(replies.iter().filter(|reply| reply.status == 200).count() >= 1, "{replies:?}");
    assert!(replies.iter().all(|reply| matches!(reply.status, 200 | 429 | 504)), "{replies:?}");
    assert!(metric(&server, REFUSED).await >= refused.len() as f64);
    assert!(replies.iter().all(|reply| reply.header("x-model-version") == Some("1")), "{replies:?}");
}

#[tokio::test]
async fn over_grpc_refusals_have_a_retry_delay() {
    let server = Running::serve("slow", &["--max_batch_size=1", "--max_queue_size=1"]).await;
    let asks = (0..8).map(|_| async {
        let input = pb::model_infer_request::InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 64],
            ..Default::default()
        };
        let raw_input_contents = vec![vec![0; 256].into()];
        let request = pb::ModelInferRequest {
            model_name: "slow".into(),
            inputs: vec![input],
            raw_input_contents,
            ..Default::default()
        };
        server.grpc().infer(request).await
    });
    let answers = futures_join(asks.collect()).await;
    let refused: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    assert!(!refused.is_empty());
    for status in refused {
        assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
        assert_eq!(status.metadata().get("x-model-version").unwrap(), "1");
        let details = String::from_utf8_lossy(status.details()).into_owned();
        assert!(details.contains("type.googleapis.com/google.rpc.RetryInfo"), "{details}");
        assert!(details.contains("queue is full"), "{details}");
    }
}
