//! The same files over every protocol: reference predictions computed by onnxruntime's Python, and wrong requests
//! with the errors they must get.

use bytes::Bytes;
use serde_json::{Value, json};
use stoker::infer::InferRequest;
use stoker::protocol::open_inference as pb;
use stoker::protocol::{json as json_tensor, v2};
use stoker::tensor::{DType, Shape, Tensor};

use crate::support::{Connection, Reply, Running, reference, repository};

/// Models whose arithmetic is the same on every machine, so that answers can be compared bit for bit.
const MODELS: [&str; 11] = [
    "iris",
    "identity",
    "two_inputs",
    "beside",
    "variable",
    "fixed_batch",
    "gather",
    "free_width",
    "time_first",
    "nonzero",
    "one_hot",
];

fn tensors(list: &Value) -> Vec<Tensor> {
    let tensor = |value: &Value| {
        let dtype = DType::parse(value["datatype"].as_str().unwrap()).unwrap();
        let mut data = Vec::new();
        json_tensor::parse(&value["data"].to_string(), dtype, &mut data).unwrap();
        let dims = value["shape"].as_array().unwrap().iter().map(|dim| dim.as_u64().unwrap() as usize);
        Tensor::new(value["name"].as_str().unwrap(), dtype, Shape::new(dims.collect()).unwrap(), data.into()).unwrap()
    };
    list.as_array().unwrap().iter().map(tensor).collect()
}

/// Decodes a V2 answer by the decoder for requests: `outputs` are written like `inputs`.
fn answer(reply: &Reply) -> Vec<Tensor> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let length = reply.header(v2::JSON_LENGTH_HEADER).map(|length| length.parse::<usize>().unwrap());
    let (json, blobs) = reply.body.split_at(length.unwrap_or(reply.body.len()));
    let mut json: Value = serde_json::from_slice(json).unwrap();
    json["inputs"] = json["outputs"].take();
    json["outputs"] = json!([]);
    let json = json.to_string();
    // JSON answers may hold FP16, which requests may not: those are compared by the binary replays.
    let body: Bytes = [json.as_bytes(), blobs].concat().into();
    let (InferRequest { inputs, .. }, _) = v2::decode(&body, Some(json.len())).unwrap();
    inputs
}

#[tokio::test]
async fn v2_json_answers_are_the_reference() {
    for model in MODELS.into_iter().filter(|model| *model != "identity") {
        let server = Running::serve(model, &[]).await;
        for case in reference(model) {
            let reply = server
                .post(&format!("/v2/models/{model}/infer"), json!({"inputs": case["inputs"]}).to_string().as_bytes())
                .await;
            assert_eq!(answer(&reply), tensors(&case["outputs"]), "{model}");
        }
    }
}

#[tokio::test]
async fn v2_binary_answers_are_the_reference() {
    for model in MODELS {
        let server = Running::serve(model, &[]).await;
        let mut connection = Connection::open(server.addresses.http).await.unwrap();
        for case in reference(model) {
            let inputs = tensors(&case["inputs"]);
            let headers: Vec<Value> = inputs
                .iter()
                .map(|tensor| {
                    json!({
                        "name": **tensor.name(), "shape": tensor.shape().dims(), "datatype": tensor.dtype().name(),
                        "parameters": {"binary_data_size": tensor.data().len()},
                    })
                })
                .collect();
            let json = json!({"inputs": headers, "parameters": {"binary_data_output": true}, "id": "b"}).to_string();
            let body =
                inputs.iter().fold(json.clone().into_bytes(), |body, tensor| [&body, &tensor.data()[..]].concat());
            let length = json.len().to_string();
            let headers = [("content-type", "application/octet-stream"), (v2::JSON_LENGTH_HEADER, length.as_str())];
            let reply = connection.send("POST", &format!("/v2/models/{model}/infer"), &headers, &body).await.unwrap();
            assert_eq!(answer(&reply), tensors(&case["outputs"]), "{model}");
        }
    }
}

#[tokio::test]
async fn v1_answers_are_the_reference() {
    for model in MODELS.into_iter().filter(|model| *model != "identity") {
        let server = Running::serve(model, &[]).await;
        for case in reference(model) {
            let inputs = case["inputs"].as_array().unwrap();
            // Objects work for every model; bare rows for those with one input.
            let rows = inputs[0]["shape"][0].as_u64().unwrap() as usize;
            let row = |tensor: &Value, row: usize| {
                let data = tensor["data"].as_array().unwrap();
                let width = data.len() / rows;
                match tensor["shape"].as_array().unwrap().len() {
                    1 => data[row].clone(),
                    _ => Value::from(&data[row * width..(row + 1) * width]),
                }
            };
            let objects: Vec<Value> = (0..rows)
                .map(|index| {
                    inputs
                        .iter()
                        .map(|tensor| (tensor["name"].as_str().unwrap().to_owned(), row(tensor, index)))
                        .collect()
                })
                .collect();
            let mut bodies = vec![json!({"instances": objects})];
            if let [input] = inputs.as_slice() {
                bodies.push(json!({"instances": (0..rows).map(|index| row(input, index)).collect::<Vec<_>>()}));
            }
            for body in bodies {
                let reply = server.post(&format!("/v1/models/{model}:predict"), body.to_string().as_bytes()).await;
                assert_eq!(reply.status, 200, "{}", reply.text());
                assert_eq!(reply.header("content-type"), Some("application/json"));
                let predictions = reply.json()["predictions"].take();
                for output in tensors(&case["outputs"]) {
                    let values: Vec<Value> = predictions
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|prediction| {
                            if prediction.is_object() {
                                prediction[&**output.name()].clone()
                            } else {
                                prediction.clone()
                            }
                        })
                        .collect();
                    let mut data = Vec::new();
                    json_tensor::parse(&Value::from(values).to_string(), output.dtype(), &mut data).unwrap();
                    assert_eq!(data, output.data()[..], "{model} {}", output.name());
                }
            }
        }
    }
}

fn grpc_request(model: &str, inputs: &[Tensor]) -> pb::ModelInferRequest {
    let metadata = inputs.iter().map(|tensor| pb::model_infer_request::InferInputTensor {
        name: tensor.name().to_string(),
        datatype: tensor.dtype().name().to_owned(),
        shape: tensor.shape().dims().iter().map(|dim| *dim as i64).collect(),
        ..Default::default()
    });
    pb::ModelInferRequest {
        model_name: model.to_owned(),
        id: "g".to_owned(),
        inputs: metadata.collect(),
        ..Default::default()
    }
}

#[tokio::test]
async fn grpc_raw_answers_are_the_reference() {
    for model in MODELS {
        let server = Running::serve(model, &[]).await;
        for case in reference(model) {
            let inputs = tensors(&case["inputs"]);
            let mut request = grpc_request(model, &inputs);
            request.raw_input_contents = inputs.iter().map(|tensor| tensor.data().clone()).collect();
            let response = server.grpc().infer(request).await.unwrap();
            assert_eq!(response.id, "g");
            let expected = tensors(&case["outputs"]);
            let raw: Vec<Bytes> = expected.iter().map(|tensor| tensor.data().clone()).collect();
            assert_eq!(response.raw_output_contents, raw, "{model}");
            let names: Vec<_> = response.outputs.iter().map(|output| output.name.as_str()).collect();
            assert_eq!(names, expected.iter().map(|tensor| &**tensor.name()).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn grpc_typed_answers_are_the_reference() {
    let server = Running::serve("iris", &[]).await;
    for case in reference("iris") {
        let inputs = tensors(&case["inputs"]);
        let mut request = grpc_request("iris", &inputs);
        let floats =
            |tensor: &Tensor| tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        request.inputs[0].contents =
            Some(pb::InferTensorContents { fp32_contents: floats(&inputs[0]), ..Default::default() });
        let response = server.grpc().infer(request).await.unwrap();
        let expected = tensors(&case["outputs"]);
        let labels = expected[0].data().as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes));
        let contents = |index: usize| response.outputs[index].contents.clone().unwrap();
        assert_eq!(contents(0).int64_contents, labels.collect::<Vec<_>>());
        assert_eq!(contents(1).fp32_contents, floats(&expected[1]));
        assert!(response.raw_output_contents.is_empty());
    }
}

/// `tests/golden/errors.json`: wrong requests for iris and what each is answered, word for word. Those that a gRPC
/// message can express are sent over gRPC too and must get the same words and the matching code.
#[tokio::test]
async fn every_wrong_request_gets_its_error() {
    let server = Running::serve("iris", &["--max_body_bytes=64Ki"]).await;
    let text = std::fs::read_to_string(repository().join("tests/golden/errors.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    // All on one connection: no error may cost the client its connection.
    let mut connection = Connection::open(server.addresses.http).await.unwrap();
    for case in &cases {
        let field = |name: &str| case[name].as_str();
        let path = field("path").unwrap_or("/v2/models/iris/infer");
        let body = match &case["body"] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            json => json.to_string(),
        };
        let headers: Vec<(&str, &str)> = match case["headers"].as_object() {
            Some(headers) => headers.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect(),
            None => vec![("content-type", "application/json")],
        };
        let reply = connection.send(field("method").unwrap_or("POST"), path, &headers, body.as_bytes()).await;
        let reply = reply.unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(reply.error(), field("error").unwrap(), "{case}");
        assert_eq!(u64::from(reply.status), case["status"].as_u64().unwrap(), "{case}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert!(reply.header("x-request-id").is_some());
        if let Some(code) = case["grpc"].as_i64() {
            let mut request = grpc_request("iris", &tensors(&case["body"]["inputs"]));
            if let Some(model) = path.strip_prefix("/v2/models/") {
                request.model_name = model.split('/').next().unwrap().to_owned();
            }
            request.raw_input_contents =
                tensors(&case["body"]["inputs"]).iter().map(|tensor| tensor.data().clone()).collect();
            let names = case["body"]["outputs"].as_array().cloned().unwrap_or_default();
            request.outputs = names
                .iter()
                .map(|output| pb::model_infer_request::InferRequestedOutputTensor {
                    name: output["name"].as_str().unwrap().to_owned(),
                    ..Default::default()
                })
                .collect();
            let status = server.grpc().infer(request).await.unwrap_err();
            assert_eq!((status.code() as i64, status.message()), (code, field("error").unwrap()), "{case}");
        }
    }
    assert!(cases.len() >= 30);
}
