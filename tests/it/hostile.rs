//! Hostile bytes: whatever comes in, the answer is a 4xx or nothing is lost, in bounded time.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use stoker::error::Kind;
use stoker::infer::{Signature, TensorSpec};
use stoker::protocol::{grpc, open_inference as pb, v1, v2};
use stoker::tensor::DType;

use crate::support::{Connection, Random, Running, reference};

const PREDICT: &str = "/v1/models/iris:predict";
const GOOD: &[u8] = br#"{"instances": [[5.1, 3.5, 1.4, 0.2]]}"#;

#[tokio::test]
async fn a_body_over_the_cap_is_refused_and_the_refusal_can_be_read() {
    let server = Running::serve("iris", &["--max_body_bytes=1Mi"]).await;
    // With its length declared, without, and asking first.
    let big = vec![b' '; 8 << 20];
    let reply = server.post(PREDICT, &big).await;
    assert_eq!(reply.status, 413);
    assert!(reply.error().contains("1048576 bytes"), "{}", reply.error());

    let mut chunked = Connection::open(server.addresses.http).await.unwrap();
    let head = format!("POST {PREDICT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n800000\r\n");
    chunked.write(head.as_bytes()).await.unwrap();
    chunked.write(&big).await.unwrap();
    chunked.write(b"\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(chunked.read().await.unwrap().status, 413);

    let mut polite = Connection::open(server.addresses.http).await.unwrap();
    let head =
        format!("POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n", big.len());
    polite.write(head.as_bytes()).await.unwrap();
    assert_eq!(polite.read().await.unwrap().status, 413, "refused before the body was sent");

    assert_eq!(server.post(PREDICT, GOOD).await.status, 200);
}

#[tokio::test]
async fn a_grpc_message_over_the_cap_is_refused() {
    let server = Running::serve("iris", &["--max_body_bytes=1Mi"]).await;
    let request = pb::ModelInferRequest { raw_input_contents: vec![vec![0; 2 << 20].into()], ..Default::default() };
    let status = server.grpc().infer(request).await.unwrap_err();
    assert!(matches!(status.code(), tonic::Code::ResourceExhausted | tonic::Code::OutOfRange), "{status}");
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up_and_says_so() {
    let server = Running::serve("iris", &["--body_timeout_seconds=0.2"]).await;
    let mut staller = Connection::open(server.addresses.http).await.unwrap();
    let head = format!("POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{\"inst");
    let begun = Instant::now();
    staller.write(head.as_bytes()).await.unwrap();
    let reply = staller.read().await.unwrap();
    assert_eq!(reply.status, 408);
    assert!(reply.error().contains("no progress for 0.2 s"), "{}", reply.error());
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn heads_that_stall_and_idle_connections_are_closed() {
    let server = Running::serve("iris", &["--timeout_keep_alive=0.2"]).await;
    let mut staller = Connection::open(server.addresses.http).await.unwrap();
    staller.write(b"GET /v2 HTTP/1.1\r\nhost").await.unwrap();
    let begun = Instant::now();
    let _closed = staller.read().await; // an answer or a close: either way it ends
    assert!(begun.elapsed() < Duration::from_secs(5));

    let mut idle = Connection::open(server.addresses.http).await.unwrap();
    assert_eq!(idle.send("GET", "/v2", &[], b"").await.unwrap().status, 200);
    assert!(idle.read().await.is_err(), "closed after the keep-alive timeout");
}

#[tokio::test]
async fn deep_nesting_costs_nothing() {
    let server = Running::serve("iris", &[]).await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for field in ["instances", "inputs", "parameters"] {
            let deep = format!("{{\"{field}\": {}{}}}", open.repeat(1_000_000), close.repeat(1_000_000));
            for path in [PREDICT, "/v2/models/iris/infer"] {
                let begun = Instant::now();
                let reply = server.post(path, deep.as_bytes()).await;
                assert_eq!(reply.status, 400, "{path} {field} {open}");
                assert!(reply.error().len() < 400, "an error repeats at most a part of the body");
                assert!(begun.elapsed() < Duration::from_secs(5));
            }
        }
    }
    assert_eq!(server.post(PREDICT, GOOD).await.status, 200);
}

#[tokio::test]
async fn bytes_that_are_no_http_do_not_disturb_others() {
    let server = Running::serve("iris", &[]).await;
    let rubbish: [&[u8]; 4] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrubbish....",
        b"GET \r\n\r\n",
    ];
    for bytes in rubbish {
        let mut connection = Connection::open(server.addresses.http).await.unwrap();
        connection.write(bytes).await.unwrap();
    }
    assert_eq!(server.post(PREDICT, GOOD).await.status, 200);
}

/// A seeded mutator: flips, cuts, doubles and splices bytes of good requests.
fn mutate(seed: u64, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut random = Random(seed);
    let mut below = |limit: usize| random.below(limit.max(1) as u64) as usize;
    let mut bytes = corpus[below(corpus.len())].clone();
    for _ in 0..=below(4) {
        let at = below(bytes.len());
        match below(6) {
            0 => bytes.truncate(at),
            1 if !bytes.is_empty() => bytes[at] ^= 1 << below(8),
            2 => bytes.insert(at, *b"[]{}\",:0-e.\0\xff".get(below(13)).unwrap()),
            3 => {
                let other = &corpus[below(corpus.len())];
                bytes.splice(at.., other[below(other.len())..].iter().copied());
            }
            4 => {
                let piece = bytes[at..bytes.len().min(at + below(20))].repeat(below(5));
                bytes.splice(at..at, piece);
            }
            _ => {
                let number: &[u8] =
                    [&b"18446744073709551616"[..], b"-1", b"1e999", b"null", b"9223372036854775807"][below(5)];
                bytes.splice(at..at, number.iter().copied());
            }
        }
    }
    bytes
}

/// Mutated requests never panic and are only ever the client's mistake. `FUZZ_CASES` asks for more.
#[test]
fn mutated_requests_are_decoded_or_refused() {
    let cases = std::env::var("FUZZ_CASES").map_or(20_000, |count| count.parse().unwrap());
    let dtypes = [DType::Fp32, DType::Int64, DType::Bool, DType::Bytes, DType::Uint8];
    let mut corpus: Vec<Vec<u8>> =
        vec![GOOD.to_vec(), br#"{"inputs": {"a": [[1], [2]], "b": ["x", "\u00e9"]}}"#.to_vec()];
    for model in ["iris", "two_inputs", "identity"] {
        corpus.extend(
            reference(model)
                .iter()
                .take(2)
                .map(|case| serde_json::json!({"id": "1", "inputs": case["inputs"]}).to_string().into_bytes()),
        );
    }
    let mut binary =
        br#"{"inputs":[{"name":"x","shape":[2],"datatype":"INT16","parameters":{"binary_data_size":4}}]}"#.to_vec();
    let json_length = binary.len();
    binary.extend([1, 0, 2, 0]);
    corpus.push(binary);
    let contents = pb::InferTensorContents { int_contents: vec![1, 300, -5], ..Default::default() };
    let input = pb::model_infer_request::InferInputTensor {
        name: "x".into(),
        datatype: "INT8".into(),
        shape: vec![3],
        contents: Some(contents),
        ..Default::default()
    };
    let typed = pb::ModelInferRequest { model_name: "m".into(), inputs: vec![input.clone()], ..Default::default() };
    let raw = pb::ModelInferRequest {
        inputs: vec![input],
        raw_input_contents: vec![vec![1, 2, 3].into()],
        ..Default::default()
    };
    let messages = [typed.encode_to_vec(), raw.encode_to_vec()];
    for seed in 0..cases {
        let bytes = Bytes::from(mutate(seed, &corpus));
        let spec = |name: &str, dtype| TensorSpec { name: name.into(), dtype, dims: vec![None, None] };
        let dtype = dtypes[seed as usize % dtypes.len()];
        let signature = Signature::new(vec![spec("a", dtype), spec("b", DType::Bytes)], Vec::new());
        let one = Signature::new(vec![spec("a", dtype)], Vec::new());
        let length = (seed % 3 == 0).then_some(json_length);
        let results = [
            v2::decode(&bytes, length).map(|(request, _)| request),
            v1::decode(&bytes, &signature),
            v1::decode(&bytes, &one),
        ];
        if let Ok(message) = pb::ModelInferRequest::decode(mutate(seed, &messages).as_slice()) {
            let _ =
                grpc::decode(message).map_err(|error| assert_eq!(error.kind(), Kind::Invalid, "seed {seed}: {error}"));
        }
        for error in results.into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), Kind::Invalid, "seed {seed}: {error}");
            assert!(error.message().len() < 1000, "seed {seed}: {error}");
        }
    }
}
