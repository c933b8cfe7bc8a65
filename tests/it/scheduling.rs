//! What an operator says of batches, seen from outside: lengths that run together, levels, instances.

use serde_json::{Value, json};
use stoker::tensor::DType;

use crate::support::{Connection, Reply, Running, config, futures_join, metric};

const PADDED: &str = "--pad_variable_length_inputs=input_ids=0,attention_mask=0";

/// Texts of so many words each, all of one length.
fn texts(rows: usize, length: usize) -> Vec<u8> {
    let ids: Vec<usize> = (0..rows * length).map(|index| (index * 7 + length) % 100).collect();
    let tensor =
        |name: &str, data: Value| json!({"name": name, "shape": [rows, length], "datatype": "INT64", "data": data});
    let mask = vec![1; rows * length];
    json!({"inputs": [tensor("input_ids", json!(ids)), tensor("attention_mask", json!(mask))]}).to_string().into_bytes()
}

async fn encode(server: &Running, body: &[u8]) -> Reply {
    server.post("/v2/models/encoder/infer", body).await
}

/// Shapes and values, to be compared up to what another order of summation changes.
fn outputs(reply: &Reply) -> Vec<(Value, Vec<f64>)> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let answer = reply.json();
    let values =
        |output: &Value| output["data"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
    answer["outputs"].as_array().unwrap().iter().map(|output| (output["shape"].clone(), values(output))).collect()
}

#[tokio::test]
async fn texts_of_different_lengths_run_together_and_get_what_they_get_alone() {
    let alone = Running::serve("encoder", &[]).await;
    let together = Running::serve("encoder", &[PADDED, "--max_queue_delay_microseconds=200000"]).await;
    let lengths = [3, 9, 5, 4, 17, 3, 8, 30];
    let mut expected = Vec::new();
    for length in lengths {
        expected.push(outputs(&encode(&alone, &texts(2, length)).await));
    }
    // Several times: what comes first may run before the others have come.
    for _ in 0..4 {
        let bodies: Vec<Vec<u8>> = lengths.iter().map(|length| texts(2, *length)).collect();
        let replies = futures_join(bodies.iter().map(|body| encode(&together, body)).collect()).await;
        for ((reply, expected), length) in replies.iter().zip(&expected).zip(lengths) {
            for ((shape, values), (expected_shape, expected)) in outputs(reply).iter().zip(expected) {
                assert_eq!(shape, expected_shape, "{length}");
                assert!(values.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4 * (1.0 + b.abs())), "{length}");
            }
        }
    }
    let labels = "{model=\"encoder\",version=\"1\"}";
    assert!(metric(&together, &format!("stoker_batch_padding_elements_total{labels}")).await > 0.0);
    let batches = metric(&together, &format!("stoker_batch_rows_count{labels}")).await;
    assert!(batches < 4.0 * lengths.len() as f64, "{batches} batches");
    assert!(metric(&alone, &format!("stoker_batch_padding_elements_total{labels}")).await == 0.0);
}

#[tokio::test]
async fn rows_that_must_not_be_filled_up_are_found_out() {
    for (wrong, reason) in [
        ("--pad_variable_length_inputs=input_ids=0,attention_mask=1", "something else for rows that are filled up"),
        ("--pad_variable_length_inputs=input_ids=0", "--pad_variable_length_inputs"),
        ("--pad_variable_length_inputs=words=0", "input \"words\" is none of the model's"),
    ] {
        let server = Running::start(config("encoder", &[wrong]));
        let error = server.done.await.unwrap().unwrap_err();
        assert!(error.to_string().contains(reason), "{wrong}: {error}");
    }
}

const RAGGED: [&str; 3] = [
    "--allow_ragged_batch=values",
    "--batch_input=[{\"kind\": \"BATCH_ACCUMULATED_ELEMENT_COUNT\", \"target_name\": [\"ends\"], \"data_type\": \
     \"TYPE_INT64\", \"source_input\": [\"values\"]}]",
    "--batch_output=[{\"kind\": \"BATCH_SCATTER_WITH_INPUT_SHAPE\", \"target_name\": [\"rest\"], \"source_input\": \
     [\"values\"]}]",
];

#[tokio::test]
async fn rows_that_lie_one_behind_the_other_come_back_to_whom_they_belong() {
    let server = Running::serve("ragged", &[&RAGGED[..], &["--max_queue_delay_microseconds=100000"]].concat()).await;
    let metadata = server.get("/v2/models/ragged").await.unwrap().json();
    assert_eq!(metadata["inputs"], json!([{"name": "values", "datatype": "FP32", "shape": [-1, -1]}]));
    let body = |rows: usize, length: usize| {
        let data: Vec<usize> = (0..rows * length).map(|index| index + length).collect();
        json!({"inputs": [{"name": "values", "shape": [rows, length], "datatype": "FP32", "data": data}]}).to_string()
    };
    let asked = [(1, 3), (2, 5), (1, 1), (3, 2), (1, 9), (2, 4)];
    let ask = async |rows, length| server.post("/v2/models/ragged/infer", body(rows, length).as_bytes()).await;
    let replies = futures_join(asked.iter().map(|(rows, length)| ask(*rows, *length)).collect()).await;
    for ((rows, length), reply) in asked.into_iter().zip(replies) {
        let sum = |row: usize| (0..length).map(|at| (row * length + at + length) as f64).sum::<f64>();
        let totals: Vec<f64> = (0..rows).map(sum).collect();
        let rests: Vec<f64> = (0..rows * length).map(|at| (at + length) as f64 - sum(at / length)).collect();
        let [(_, total), (shape, rest)] = &outputs(&reply)[..] else { panic!("{}", reply.text()) };
        assert_eq!((total, shape, rest), (&totals, &json!([rows, length]), &rests));
    }
    let server = Running::start(config("ragged", &RAGGED[..1]));
    let error = server.done.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("--allow_ragged_batch: rows of different lengths"), "{error}");
}

#[tokio::test]
async fn a_batch_has_no_more_tokens_than_allowed() {
    let server = Running::serve("encoder", &["--max_batch_tokens=8"]).await;
    let reply = encode(&server, &texts(1, 9)).await;
    assert_eq!(reply.status, 413, "{}", reply.text());
    assert!(reply.error().contains("a row of 9 tokens"), "{}", reply.text());
    // Two rows at a time.
    let free = Running::serve("encoder", &[]).await;
    let (cut, whole) = (encode(&server, &texts(5, 4)).await, encode(&free, &texts(5, 4)).await);
    assert_eq!(outputs(&cut)[1].0, json!([5, 32]));
    let pairs = [outputs(&cut), outputs(&whole)].map(|outputs| outputs.into_iter().flat_map(|(_, values)| values));
    let [cut, whole] = pairs;
    assert!(cut.zip(whole).all(|(a, b)| (a - b).abs() < 1e-4 * (1.0 + b.abs())));
    assert_eq!(metric(&server, "stoker_batch_rows_count{model=\"encoder\",version=\"1\"}").await, 3.0);
}

#[tokio::test]
async fn a_higher_priority_comes_first_and_an_unknown_one_is_a_mistake() {
    let server = Running::serve("slow", &["--max_batch_size=1", "--priority_levels=3"]).await;
    let body = |priority: usize| {
        let input = json!({"name": "x", "shape": [1, 64], "datatype": "FP32", "data": vec![0.5; 64]});
        json!({"parameters": {"priority": priority}, "inputs": [input]}).to_string().into_bytes()
    };
    let reply = server.post("/v2/models/slow/infer", &body(4)).await;
    assert_eq!((reply.status, reply.error()), (400, "priority 4: the model has levels 1 (first) to 3".to_owned()));
    let order = std::sync::Mutex::new(Vec::new());
    let ask = async |priority: usize| {
        let mut connection = Connection::open(server.addresses.http).await.unwrap();
        if priority == 1 {
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        }
        let reply = connection.send("POST", "/v2/models/slow/infer", &[], &body(priority)).await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        order.lock().unwrap().push(priority);
    };
    futures_join([[3; 10], [1; 10]].concat()[..12].iter().map(|priority| ask(*priority)).collect()).await;
    let order = order.into_inner().unwrap();
    assert_eq!(order.last(), Some(&3), "{order:?}");
    assert!(order[..8].iter().filter(|priority| **priority == 1).count() == 2, "{order:?}");
}

#[tokio::test]
async fn a_level_may_have_room_for_few() {
    let policy = "--priority_queue_policy={\"2\": {\"max_queue_size\": 1}}";
    let server = Running::serve("slow", &["--max_batch_size=1", "--priority_levels=2", policy]).await;
    let input = json!({"name": "x", "shape": [1, 64], "datatype": "FP32", "data": vec![0.5; 64]});
    let body =
        |priority: usize| json!({"parameters": {"priority": priority}, "inputs": [input]}).to_string().into_bytes();
    let bodies: Vec<Vec<u8>> = (0..16).map(|index| body(1 + index % 2)).collect();
    let replies = futures_join(bodies.iter().map(|body| server.post("/v2/models/slow/infer", body)).collect()).await;
    let refused = replies.iter().zip(0..).filter(|(reply, _)| reply.status == 429).map(|(_, index)| index % 2);
    let refused: Vec<usize> = refused.collect();
    assert!(!refused.is_empty() && refused.iter().all(|level| *level == 1), "{refused:?}");
}

#[tokio::test]
async fn instances_share_the_work_and_what_they_need() {
    let needs = "--rate_limiter={\"resources\": [{\"name\": \"R\", \"count\": 1}]}";
    let server = Running::serve("iris", &["--instances=3", needs, "--rate_limit_resource=R:2"]).await;
    let body = |index: usize| {
        let data = [5.0 + index as f64 / 100.0, 3.4, 1.5, 0.2];
        json!({"inputs": [{"name": "float_input", "shape": [1, 4], "datatype": DType::Fp32.name(), "data": data}]})
    };
    let bodies: Vec<Vec<u8>> = (0..100).map(|index| body(index).to_string().into_bytes()).collect();
    let replies = futures_join(bodies.iter().map(|body| server.post("/v2/models/iris/infer", body)).collect()).await;
    assert!(replies.iter().all(|reply| reply.status == 200 && reply.json()["outputs"][0]["data"] == json!([0])));
}
