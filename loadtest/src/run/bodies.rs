//! Requests as bytes, made once for each kind of traffic: several of each, so that no cache of answers helps.

use std::path::Path;

use anyhow::{Context, Result};
use bytes::Bytes;
use prost::Message;
use serde_json::{Value, json};
use stoker::protocol::open_inference as pb;

use super::arrivals::Random;
use super::scenario::{Input, Protocol, Traffic};
use super::tensors;

/// How many different requests there are of each kind.
pub const VARIANTS: usize = 16;

/// What is sent for one kind of traffic.
pub struct Prepared {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub bodies: Vec<Body>,
}

pub struct Body {
    pub bytes: Bytes,
    /// How much of it is JSON, where tensors follow.
    pub json_length: Option<usize>,
}

impl Body {
    fn whole(bytes: Vec<u8>) -> Body {
        Body { bytes: bytes.into(), json_length: None }
    }
}

pub fn prepare(traffic: &Traffic, folder: &Path, random: &mut Random) -> Result<Prepared> {
    let Traffic { model, protocol, .. } = traffic;
    let (path, content_type) = match protocol {
        Protocol::V1 => (format!("/v1/models/{model}:predict"), "application/json"),
        Protocol::V2 => (format!("/v2/models/{model}/infer"), "application/json"),
        Protocol::V2Binary => (format!("/v2/models/{model}/infer"), "application/octet-stream"),
        Protocol::Grpc => ("/inference.GRPCInferenceService/ModelInfer".to_owned(), "application/grpc"),
    };
    let bodies = match &traffic.body {
        Some(file) => {
            let file = folder.join(file);
            vec![Body::whole(std::fs::read(&file).with_context(|| format!("body {}", file.display()))?)]
        }
        None => (0..VARIANTS).map(|_| body(traffic, random)).collect::<Result<_>>()?,
    };
    let mut headers = vec![("content-type".to_owned(), content_type.to_owned())];
    headers.extend((*protocol == Protocol::Grpc).then(|| ("te".to_owned(), "trailers".to_owned())));
    headers.extend(traffic.headers.clone());
    Ok(Prepared { path, headers, bodies })
}

fn body(traffic: &Traffic, random: &mut Random) -> Result<Body> {
    let tensors = traffic.inputs.iter().map(|input| tensors::made_up(input, random));
    let tensors = tensors.collect::<Result<Vec<_>>>()?;
    Ok(match traffic.protocol {
        Protocol::V1 => Body::whole(serde_json::to_vec(&v1(&traffic.inputs, &tensors)?)?),
        Protocol::V2 => Body::whole(serde_json::to_vec(&v2(&traffic.inputs, &tensors)?)?),
        Protocol::V2Binary => binary(&traffic.inputs, &tensors),
        Protocol::Grpc => Body::whole(framed(traffic, tensors)),
    })
}

/// Rows of the one input, or each input by its name.
fn v1(inputs: &[Input], tensors: &[Vec<u8>]) -> Result<Value> {
    let mut nested = Vec::new();
    for (input, data) in inputs.iter().zip(tensors) {
        nested.push((input.name.clone(), nest(&mut tensors::values(input, data)?.into_iter(), &input.shape)));
    }
    Ok(match nested.len() {
        1 => json!({"instances": nested.remove(0).1}),
        _ => json!({"inputs": nested.into_iter().collect::<serde_json::Map<_, _>>()}),
    })
}

fn nest(values: &mut impl Iterator<Item = Value>, shape: &[usize]) -> Value {
    match shape {
        [] => values.next().unwrap_or_default(),
        [size, inner @ ..] => (0..*size).map(|_| nest(values, inner)).collect(),
    }
}

fn v2(inputs: &[Input], tensors: &[Vec<u8>]) -> Result<Value> {
    let input = |(input, data): (&Input, &Vec<u8>)| {
        let Input { name, datatype, shape, .. } = input;
        anyhow::Ok(json!({"name": name, "datatype": datatype, "shape": shape, "data": tensors::values(input, data)?}))
    };
    Ok(json!({"inputs": inputs.iter().zip(tensors).map(input).collect::<Result<Vec<_>>>()?}))
}

fn binary(inputs: &[Input], tensors: &[Vec<u8>]) -> Body {
    let inputs = inputs.iter().zip(tensors).map(|(Input { name, datatype, shape, .. }, data)| {
        let parameters = json!({"binary_data_size": data.len()});
        json!({"name": name, "datatype": datatype, "shape": shape, "parameters": parameters})
    });
    let inputs: Vec<_> = inputs.collect();
    let head = json!({"inputs": inputs, "parameters": {"binary_data_output": true}});
    let mut body = head.to_string().into_bytes();
    let json_length = Some(body.len());
    tensors.iter().for_each(|data| body.extend(data));
    Body { bytes: body.into(), json_length }
}

fn framed(traffic: &Traffic, tensors: Vec<Vec<u8>>) -> Vec<u8> {
    let input = |input: &Input| pb::model_infer_request::InferInputTensor {
        name: input.name.clone(),
        datatype: input.datatype.clone(),
        shape: input.shape.iter().map(|size| *size as i64).collect(),
        ..Default::default()
    };
    let message = pb::ModelInferRequest {
        model_name: traffic.model.clone(),
        inputs: traffic.inputs.iter().map(input).collect(),
        raw_input_contents: tensors.into_iter().map(Bytes::from).collect(),
        ..Default::default()
    }
    .encode_to_vec();
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    framed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(protocol: &str, inputs: &str) -> Vec<Body> {
        let text = format!("name = \"a\"\nprotocol = \"{protocol}\"\nmodel = \"m\"\ninputs = [{inputs}]\n");
        prepare(&toml::from_str(&text).unwrap(), Path::new(""), &mut Random(1)).unwrap().bodies
    }

    const TEXT: &str = r#"{ name = "s", datatype = "BYTES", shape = [2, 1], text = ["good", "not so ü"] }"#;
    const HALF: &str = r#"{ name = "h", datatype = "FP16", shape = [2, 2], below = 3 }"#;

    fn json_of(body: &Body) -> Value {
        serde_json::from_slice(&body.bytes[..body.json_length.unwrap_or(body.bytes.len())]).unwrap()
    }

    #[test]
    fn text_is_sent_over_each_protocol() {
        let is_text = |value: &Value| ["good", "not so ü"].contains(&value.as_str().unwrap());
        for body in bodies("v1", TEXT) {
            let rows = json_of(&body)["instances"].as_array().unwrap().clone();
            assert!(rows.len() == 2 && rows.iter().all(|row| row.as_array().unwrap().len() == 1 && is_text(&row[0])));
        }
        for body in bodies("v2", TEXT) {
            let data = json_of(&body)["inputs"][0]["data"].as_array().unwrap().clone();
            assert!(data.len() == 2 && data.iter().all(is_text));
        }
        // Texts of different lengths make heads of different lengths.
        for body in bodies("v2-binary", TEXT) {
            let size = json_of(&body)["inputs"][0]["parameters"]["binary_data_size"].as_u64().unwrap();
            assert_eq!(size as usize, body.bytes.len() - body.json_length.unwrap());
        }
        for body in bodies("grpc", TEXT) {
            let message = pb::ModelInferRequest::decode(&body.bytes[5..]).unwrap();
            let raw = &message.raw_input_contents[0];
            let length = u32::from_le_bytes(raw[..4].try_into().unwrap()) as usize;
            assert!([4, 9].contains(&length) && raw.len() > 4 + length);
        }
    }

    #[test]
    fn bodies_differ() {
        for protocol in ["v1", "v2-binary", "grpc"] {
            let bodies = bodies(protocol, HALF);
            assert_eq!(bodies.len(), VARIANTS);
            assert!(bodies.windows(2).all(|pair| pair[0].bytes != pair[1].bytes), "{protocol}");
        }
    }

    #[test]
    fn several_inputs_of_v1_have_their_names() {
        let body = json_of(&bodies("v1", &format!("{HALF}, {TEXT}"))[0]);
        let row = body["inputs"]["h"][1].as_array().unwrap().clone();
        assert!(row.iter().all(|value| (0.0..=3.0).contains(&value.as_f64().unwrap())), "{body}");
        assert_eq!(body["inputs"]["s"].as_array().unwrap().len(), 2);
    }
}
