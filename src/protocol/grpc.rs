//! The Open Inference Protocol's gRPC messages to and from [`crate::infer`].
//!
//! Raw contents are the same little-endian bytes as our tensors and are shared, not copied. Typed contents are
//! converted: 8- and 16-bit integers travel as 32-bit ones and are checked on the way in. As the protocol asks,
//! whoever sends raw gets raw; a dtype that has no typed field (FP16, BF16) makes the whole answer raw.

use std::collections::HashMap;

use bytes::{BufMut, Bytes};

use super::open_inference as pb;
use pb::infer_parameter::ParameterChoice;
use pb::model_infer_request::InferInputTensor;
use pb::model_infer_response::InferOutputTensor;

use crate::error::{Error, Result};
use crate::infer::{InferRequest, InferResponse, Schedule, Signature, TensorSpec};
use crate::tensor::{DType, Excerpt, Shape, Tensor, push_bytes_element};

/// Decodes a request; the flag says whether its tensors came raw, and so shall the answer's.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid), naming the input, what was expected and what came.
pub fn decode(request: pb::ModelInferRequest) -> Result<(InferRequest, bool)> {
    let raw = !request.raw_input_contents.is_empty();
    if raw && request.raw_input_contents.len() != request.inputs.len() {
        return Err(Error::invalid(format!(
            "raw_input_contents has {} entries for {} inputs",
            request.raw_input_contents.len(),
            request.inputs.len()
        )));
    }
    let mut raw_contents = request.raw_input_contents.into_iter();
    let inputs = request.inputs.into_iter().map(|input| {
        let name = input.name.clone();
        decode_input(input, raw_contents.next())
            .map_err(|error| error.context(format_args!("input \"{}\"", Excerpt(&name))))
    });
    let inputs = inputs.collect::<Result<_>>()?;
    let id = (!request.id.is_empty()).then_some(request.id);
    let outputs = request.outputs.into_iter().map(|output| output.name).collect();
    let schedule = Schedule::of(number(&request.parameters, "priority")?, number(&request.parameters, "timeout")?);
    Ok((InferRequest { id, inputs, outputs, schedule }, raw))
}

fn number(parameters: &HashMap<String, pb::InferParameter>, name: &str) -> Result<Option<u64>> {
    let Some(choice) = parameters.get(name).map(|parameter| &parameter.parameter_choice) else { return Ok(None) };
    match choice {
        Some(ParameterChoice::Uint64Param(number)) => Ok(Some(*number)),
        Some(ParameterChoice::Int64Param(number)) if *number >= 0 => Ok(Some(number.unsigned_abs())),
        _ => Err(Error::invalid(format!("parameter \"{name}\": expected a whole number of 0 or more"))),
    }
}

fn decode_input(input: InferInputTensor, raw: Option<Bytes>) -> Result<Tensor> {
    let dtype = DType::parse(&input.datatype)?;
    let dims = input.shape.iter().map(|&dim| {
        usize::try_from(dim).map_err(|_| Error::invalid(format!("shape holds {dim}, expected sizes of 0 or more")))
    });
    let shape = Shape::new(dims.collect::<Result<_>>()?)?;
    let data = match (raw, input.contents) {
        (Some(_), Some(contents)) if contents != pb::InferTensorContents::default() => {
            return Err(Error::invalid("both contents and raw_input_contents are given"));
        }
        (Some(raw), _) => raw,
        (None, contents) => contents_to_bytes(&contents.unwrap_or_default(), dtype, &shape)?,
    };
    Tensor::new(input.name, dtype, shape, data)
}

fn contents_to_bytes(contents: &pb::InferTensorContents, dtype: DType, shape: &Shape) -> Result<Bytes> {
    let mut data = Vec::new();
    /// Narrows each 32-bit value of the wire, or says which one does not fit.
    fn narrow<W: Copy + std::fmt::Display, T: TryFrom<W>>(
        values: &[W],
        dtype: DType,
        mut put: impl FnMut(T),
    ) -> Result<usize> {
        for (index, &value) in values.iter().enumerate() {
            let narrowed = T::try_from(value)
                .map_err(|_| Error::invalid(format!("element [{index}]: {value} does not fit {dtype}")))?;
            put(narrowed);
        }
        Ok(values.len())
    }
    fn each<T: Copy>(values: &[T], put: impl FnMut(T)) -> usize {
        values.iter().copied().for_each(put);
        values.len()
    }
    let (field, count) = match dtype {
        DType::Bool => ("bool_contents", each(&contents.bool_contents, |value| data.put_u8(u8::from(value)))),
        DType::Int8 => ("int_contents", narrow(&contents.int_contents, dtype, |value| data.put_i8(value))?),
        DType::Int16 => ("int_contents", narrow(&contents.int_contents, dtype, |value| data.put_i16_le(value))?),
        DType::Int32 => ("int_contents", each(&contents.int_contents, |value| data.put_i32_le(value))),
        DType::Int64 => ("int64_contents", each(&contents.int64_contents, |value| data.put_i64_le(value))),
        DType::Uint8 => ("uint_contents", narrow(&contents.uint_contents, dtype, |value| data.put_u8(value))?),
        DType::Uint16 => ("uint_contents", narrow(&contents.uint_contents, dtype, |value| data.put_u16_le(value))?),
        DType::Uint32 => ("uint_contents", each(&contents.uint_contents, |value| data.put_u32_le(value))),
        DType::Uint64 => ("uint64_contents", each(&contents.uint64_contents, |value| data.put_u64_le(value))),
        DType::Fp32 => ("fp32_contents", each(&contents.fp32_contents, |value| data.put_f32_le(value))),
        DType::Fp64 => ("fp64_contents", each(&contents.fp64_contents, |value| data.put_f64_le(value))),
        DType::Bytes | DType::Json => {
            for element in &contents.bytes_contents {
                push_bytes_element(&mut data, element)?;
            }
            ("bytes_contents", contents.bytes_contents.len())
        }
        DType::Fp16 | DType::Bf16 => {
            return Err(Error::invalid(format!("{dtype} has no typed contents: send raw_input_contents")));
        }
    };
    if count != shape.elements() {
        return Err(Error::invalid(format!(
            "shape {shape} of {dtype} takes {} elements in {field}, got {count}",
            shape.elements()
        )));
    }
    Ok(data.into())
}

/// Encodes an answer, raw when the request was raw or when a dtype leaves no other way.
pub fn encode(response: InferResponse, raw: bool) -> pb::ModelInferResponse {
    let raw = raw || response.outputs.iter().any(|output| matches!(output.dtype(), DType::Fp16 | DType::Bf16));
    let outputs = response.outputs.iter().map(|output| InferOutputTensor {
        name: output.name().to_string(),
        datatype: output.dtype().name().to_owned(),
        shape: output.shape().dims().iter().map(|&dim| i64::try_from(dim).unwrap_or(i64::MAX)).collect(),
        contents: (!raw).then(|| bytes_to_contents(output)),
        ..Default::default()
    });
    let outputs = outputs.collect();
    let raw_output_contents =
        if raw { response.outputs.iter().map(|output| output.data().clone()).collect() } else { Vec::new() };
    pb::ModelInferResponse {
        model_name: response.model.to_string(),
        model_version: response.version.to_string(),
        id: response.id.unwrap_or_default(),
        outputs,
        raw_output_contents,
        ..Default::default()
    }
}

fn bytes_to_contents(tensor: &Tensor) -> pb::InferTensorContents {
    let mut contents = pb::InferTensorContents::default();
    macro_rules! fill {
        ($field:ident, $type:ty) => {{
            let (chunks, _) = tensor.data().as_chunks::<{ size_of::<$type>() }>();
            contents.$field = chunks.iter().map(|chunk| <$type>::from_le_bytes(*chunk).into()).collect();
        }};
    }
    match tensor.dtype() {
        DType::Bool => contents.bool_contents = tensor.data().iter().map(|byte| *byte != 0).collect(),
        DType::Int8 => fill!(int_contents, i8),
        DType::Int16 => fill!(int_contents, i16),
        DType::Int32 => fill!(int_contents, i32),
        DType::Int64 => fill!(int64_contents, i64),
        DType::Uint8 => fill!(uint_contents, u8),
        DType::Uint16 => fill!(uint_contents, u16),
        DType::Uint32 => fill!(uint_contents, u32),
        DType::Uint64 => fill!(uint64_contents, u64),
        DType::Fp32 => fill!(fp32_contents, f32),
        DType::Fp64 => fill!(fp64_contents, f64),
        DType::Bytes | DType::Json => {
            let elements = tensor.bytes_elements();
            contents.bytes_contents = elements.map(|element| tensor.data().slice_ref(element)).collect();
        }
        DType::Fp16 | DType::Bf16 => unreachable!("encode sends these raw"),
    }
    contents
}

/// A model's metadata; free dimensions are -1.
pub fn metadata(name: &str, version: &str, platform: &str, signature: &Signature) -> pb::ModelMetadataResponse {
    use pb::model_metadata_response::TensorMetadata;
    let list = |specs: &[TensorSpec]| {
        let tensors = specs.iter().map(|spec| TensorMetadata {
            name: spec.name.to_string(),
            datatype: spec.dtype.name().to_owned(),
            shape: spec.protocol_shape().collect(),
        });
        tensors.collect()
    };
    pb::ModelMetadataResponse {
        name: name.to_owned(),
        versions: vec![version.to_owned()],
        platform: platform.to_owned(),
        inputs: list(&signature.inputs),
        outputs: list(&signature.outputs),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(datatype: &str, shape: &[i64], contents: pb::InferTensorContents) -> pb::ModelInferRequest {
        let input = InferInputTensor {
            name: "x".into(),
            datatype: datatype.into(),
            shape: shape.to_vec(),
            contents: Some(contents),
            ..Default::default()
        };
        pb::ModelInferRequest { inputs: vec![input], ..Default::default() }
    }

    fn ints(values: &[i32]) -> pb::InferTensorContents {
        pb::InferTensorContents { int_contents: values.to_vec(), ..Default::default() }
    }

    #[test]
    fn typed_contents_survive_the_round_trip() {
        let (decoded, raw) = decode(request("INT8", &[2], ints(&[-128, 127]))).unwrap();
        assert!(!raw);
        assert_eq!(decoded.inputs[0].data().as_ref(), [0x80, 0x7f]);
        let response = InferResponse { model: "m".into(), version: "1".into(), id: None, outputs: decoded.inputs };
        let encoded = encode(response, raw);
        assert_eq!(encoded.outputs[0].contents.as_ref().unwrap().int_contents, [-128, 127]);
        assert!(encoded.raw_output_contents.is_empty());
    }

    #[test]
    fn raw_contents_are_shared_and_answered_raw() {
        let mut request = request("FP16", &[1], pb::InferTensorContents::default());
        request.raw_input_contents = vec![Bytes::from_static(&[0, 0x3c])];
        let (decoded, raw) = decode(request).unwrap();
        assert!(raw);
        let response = InferResponse { model: "m".into(), version: "1".into(), id: None, outputs: decoded.inputs };
        assert_eq!(encode(response, false).raw_output_contents, [Bytes::from_static(&[0, 0x3c])]);
    }

    #[test]
    fn each_mistake_is_named() {
        let mut too_many_raw = request("INT8", &[1], pb::InferTensorContents::default());
        too_many_raw.raw_input_contents = vec![Bytes::new(); 2];
        let mut both = request("INT8", &[1], ints(&[1]));
        both.raw_input_contents = vec![Bytes::from_static(&[1])];
        let cases = [
            (request("INT8", &[1], ints(&[128])), "input \"x\": element [0]: 128 does not fit INT8"),
            (request("INT32", &[-1], ints(&[1])), "input \"x\": shape holds -1, expected sizes of 0 or more"),
            (
                request("INT32", &[2], ints(&[1])),
                "input \"x\": shape [2] of INT32 takes 2 elements in int_contents, got 1",
            ),
            (request("FP16", &[1], ints(&[1])), "input \"x\": FP16 has no typed contents: send raw_input_contents"),
            (too_many_raw, "raw_input_contents has 2 entries for 1 inputs"),
            (both, "input \"x\": both contents and raw_input_contents are given"),
        ];
        for (request, message) in cases {
            assert_eq!(decode(request).unwrap_err().message(), message);
        }
    }
}
