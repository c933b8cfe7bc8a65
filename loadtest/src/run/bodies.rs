//! Requests as bytes, made once for each kind of traffic: several of each, so that no cache of answers helps.

use std::path::Path;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use prost::Message;
use stoker::protocol::open_inference as pb;
use stoker::tensor::DType;

use super::arrivals::Random;
use super::scenario::{Input, Protocol, Traffic};

/// How many different requests there are of each kind.
pub const VARIANTS: usize = 16;

/// What is sent for one kind of traffic.
pub struct Prepared {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub bodies: Vec<Bytes>,
}

pub fn prepare(traffic: &Traffic, folder: &Path, random: &mut Random) -> Result<Prepared> {
    let Traffic { model, protocol, .. } = traffic;
    let (path, mut headers) = match protocol {
        Protocol::V1 => (format!("/v1/models/{model}:predict"), vec![("content-type", "application/json".to_owned())]),
        Protocol::V2 | Protocol::V2Binary => {
            (format!("/v2/models/{model}/infer"), vec![("content-type", "application/json".to_owned())])
        }
        Protocol::Grpc => (
            "/inference.GRPCInferenceService/ModelInfer".to_owned(),
            vec![("content-type", "application/grpc".to_owned()), ("te", "trailers".to_owned())],
        ),
    };
    let mut bodies = Vec::new();
    for _ in 0..VARIANTS {
        let tensors: Vec<Vec<u8>> = traffic.inputs.iter().map(|input| made_up(input, random)).collect::<Result<_>>()?;
        bodies.push(match protocol {
            Protocol::V1 => {
                let file = traffic.body.as_ref().context("V1 traffic needs a body")?;
                std::fs::read(folder.join(file)).with_context(|| file.display().to_string())?
            }
            Protocol::V2 => json(traffic, &tensors)?,
            Protocol::V2Binary => {
                let (head, body) = binary(traffic, &tensors);
                headers.retain(|(name, _)| *name == "te");
                headers.push(("content-type", "application/octet-stream".to_owned()));
                headers.push(("inference-header-content-length", head.to_string()));
                body
            }
            Protocol::Grpc => framed(traffic, tensors),
        });
    }
    let own = headers.into_iter().map(|(name, value)| (name.to_owned(), value));
    let more = traffic.headers.iter().map(|(name, value)| (name.clone(), value.clone()));
    Ok(Prepared { path, headers: own.chain(more).collect(), bodies: bodies.into_iter().map(Bytes::from).collect() })
}

/// Little-endian elements.
fn made_up(input: &Input, random: &mut Random) -> Result<Vec<u8>> {
    let dtype = DType::parse(&input.datatype).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut data = Vec::new();
    for _ in 0..input.shape.iter().product::<usize>() {
        let float = random.unit() * f64::from(input.below);
        let whole = float.ceil() as i64 - 1;
        match dtype {
            DType::Fp32 => data.extend((float as f32).to_le_bytes()),
            DType::Fp64 => data.extend(float.to_le_bytes()),
            DType::Int32 => data.extend((whole as i32).to_le_bytes()),
            DType::Int64 => data.extend(whole.to_le_bytes()),
            DType::Uint8 => data.push(whole as u8),
            other => bail!("input \"{}\": no {other} is made up here", input.name),
        }
    }
    Ok(data)
}

fn json(traffic: &Traffic, tensors: &[Vec<u8>]) -> Result<Vec<u8>> {
    let inputs = traffic.inputs.iter().zip(tensors).map(|(input, data)| {
        let values: Vec<serde_json::Value> = match input.datatype.as_str() {
            "FP32" => data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes).into()).collect(),
            "FP64" => data.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes).into()).collect(),
            "INT32" => data.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes).into()).collect(),
            "INT64" => data.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes).into()).collect(),
            _ => data.iter().map(|byte| (*byte).into()).collect(),
        };
        serde_json::json!({"name": input.name, "datatype": input.datatype, "shape": input.shape, "data": values})
    });
    Ok(serde_json::to_vec(&serde_json::json!({"inputs": inputs.collect::<Vec<_>>()}))?)
}

/// The length of the JSON, and the body.
fn binary(traffic: &Traffic, tensors: &[Vec<u8>]) -> (usize, Vec<u8>) {
    let inputs = traffic.inputs.iter().zip(tensors).map(|(Input { name, datatype, shape, .. }, data)| {
        let parameters = serde_json::json!({"binary_data_size": data.len()});
        serde_json::json!({"name": name, "datatype": datatype, "shape": shape, "parameters": parameters})
    });
    let inputs: Vec<_> = inputs.collect();
    let head = serde_json::json!({"inputs": inputs, "parameters": {"binary_data_output": true}});
    let mut body = head.to_string().into_bytes();
    let length = body.len();
    tensors.iter().for_each(|data| body.extend(data));
    (length, body)
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
