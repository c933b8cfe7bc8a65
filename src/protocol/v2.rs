//! The Open Inference Protocol (V2) over REST: JSON tensors, and the binary tensor extension that puts raw
//! bytes after the JSON. Sources: kserve/open-inference-protocol `specification/protocol/inference_rest.md`
//! and Triton's `protocol/extension_binary_data.md`.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{envelope, json};
use crate::error::{Error, Result};
use crate::infer::{InferRequest, InferResponse, Schedule, Signature, TensorSpec};
use crate::tensor::{DType, Excerpt, MAX_RANK, Shape, Tensor};

/// In a request or response with binary tensors: how many bytes of the body are JSON.
pub const JSON_LENGTH_HEADER: &str = "inference-header-content-length";

// Clients that serialise their optional fields write null where they have nothing to say.

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Body<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    parameters: Option<RequestParameters>,
    #[serde(borrow)]
    inputs: envelope::Bounded<Input<'a>, MAX_TENSORS>,
    #[serde(borrow)]
    outputs: Option<envelope::Bounded<Output<'a>, MAX_TENSORS>>,
}

#[derive(Default, Deserialize)]
#[serde(expecting = "an object")]
struct RequestParameters {
    binary_data_output: Option<bool>,
    priority: Option<u64>,
    timeout: Option<u64>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object with name, shape and datatype")]
struct Input<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    shape: envelope::Bounded<usize, MAX_RANK>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    parameters: Option<InputParameters>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(expecting = "an object")]
struct InputParameters {
    binary_data_size: Option<usize>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object with a name")]
struct Output<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    parameters: Option<OutputParameters>,
}

#[derive(Default, Deserialize)]
#[serde(expecting = "an object")]
struct OutputParameters {
    binary_data: Option<bool>,
    classification: Option<serde::de::IgnoredAny>,
}

/// More inputs or outputs than any model has.
const MAX_TENSORS: usize = 1024;

/// Which outputs the caller wants as raw bytes behind the JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BinaryOutputs {
    all: bool,
    exceptions: Vec<String>,
}

impl BinaryOutputs {
    /// Whether nothing of the answer is text.
    pub fn are_all(&self) -> bool {
        self.all && self.exceptions.is_empty()
    }

    fn includes(&self, name: &str) -> bool {
        self.all != self.exceptions.iter().any(|exception| exception == name)
    }
}

/// Decodes an `infer` body. `json_length` is the value of [`JSON_LENGTH_HEADER`] when the request has it.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid), naming the field, what was expected and what came.
pub fn decode(body: &Bytes, json_length: Option<usize>) -> Result<(InferRequest, BinaryOutputs)> {
    let json_end = json_length.unwrap_or(body.len());
    if json_end == 0 && json_length.is_some() {
        return Err(Error::invalid("a body without JSON (Inference-Header-Content-Length: 0) is not supported"));
    }
    if json_end > body.len() {
        return Err(Error::invalid(format!(
            "Inference-Header-Content-Length is {json_end}, but the body has {} bytes",
            body.len()
        )));
    }
    let parsed: Body = envelope::object(&body[..json_end])?;
    let mut blobs = body.slice(json_end..);
    let inputs = parsed.inputs.0.iter().map(|input| {
        input.decode(&mut blobs).map_err(|error| error.context(format_args!("input \"{}\"", Excerpt(&input.name))))
    });
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    if !blobs.is_empty() {
        return Err(Error::invalid(format!("{} bytes of binary data are left after the last input", blobs.len())));
    }
    let RequestParameters { binary_data_output, priority, timeout } = parsed.parameters.unwrap_or_default();
    let all = binary_data_output.unwrap_or(false);
    let mut outputs = Vec::new();
    let mut exceptions = Vec::new();
    for Output { name, parameters } in parsed.outputs.into_iter().flat_map(|outputs| outputs.0) {
        let parameters = parameters.unwrap_or_default();
        if parameters.classification.is_some() {
            return Err(Error::invalid(format!("output \"{name}\": the classification extension is not supported")));
        }
        if parameters.binary_data.is_some_and(|binary| binary != all) {
            exceptions.push(name.clone().into_owned());
        }
        outputs.push(name.into_owned());
    }
    let schedule = Schedule::of(priority, timeout);
    let request = InferRequest { id: parsed.id.map(Cow::into_owned), inputs, outputs, schedule };
    Ok((request, BinaryOutputs { all, exceptions }))
}

impl Input<'_> {
    fn decode(&self, blobs: &mut Bytes) -> Result<Tensor> {
        let dtype = DType::parse(&self.datatype)?;
        let shape = Shape::new(self.shape.0.clone())?;
        let size = self.parameters.as_ref().and_then(|parameters| parameters.binary_data_size);
        let data = match (self.data, size) {
            (Some(_), Some(_)) => return Err(Error::invalid("both \"data\" and \"binary_data_size\" are given")),
            (None, None) => return Err(Error::invalid("neither \"data\" nor \"binary_data_size\" is given")),
            (Some(text), None) if dtype == DType::Bytes => match parse_data(text.get(), dtype, &shape) {
                Ok(data) => data,
                Err(error) => return self.nullable(text.get(), shape).ok_or(error),
            },
            (Some(text), None) => parse_data(text.get(), dtype, &shape)?,
            (None, Some(size)) if size > blobs.len() => {
                return Err(Error::invalid(format!("binary_data_size is {size}, but {} bytes are left", blobs.len())));
            }
            (None, Some(size)) => blobs.split_to(size),
        };
        Tensor::new(&*self.name, dtype, shape, data)
    }

    /// Text of which some is missing: the specification has no word for that, a table's column does.
    fn nullable(&self, text: &str, shape: Shape) -> Option<Tensor> {
        let data = parse_data(text, DType::Json, &shape).ok()?;
        let tensor = Tensor::new(&*self.name, DType::Json, shape, data).ok()?;
        let is_text_or_null = tensor.bytes_elements().all(|scalar| matches!(scalar[0], b'"' | b'n'));
        is_text_or_null.then_some(tensor)
    }
}

fn parse_data(text: &str, dtype: DType, shape: &Shape) -> Result<Bytes> {
    if matches!(dtype, DType::Fp16 | DType::Bf16) {
        return Err(Error::invalid(format!("{dtype} cannot be sent as JSON: use the binary tensor extension or gRPC")));
    }
    // Every element takes at least a digit and a comma, so a shape beyond this is wrong and gets no memory.
    let plausible = shape.elements() <= text.len();
    let mut data = Vec::with_capacity(if plausible { shape.elements() * dtype.size().unwrap_or(8) } else { 0 });
    let dims = json::parse(text, dtype, &mut data)?;
    match dims.as_slice() {
        [] => return Err(Error::invalid("\"data\" is not an array")),
        [count] if *count == shape.elements() => {}
        [count] => {
            return Err(Error::invalid(format!(
                "shape {shape} takes {} elements, \"data\" has {count}",
                shape.elements()
            )));
        }
        nested if nested == shape.dims() => {}
        nested => return Err(json::shape_mismatch(shape.dims(), nested)),
    }
    Ok(data.into())
}

/// An encoded answer: the body, and how much of it is JSON when binary tensors follow.
pub struct Encoded {
    pub body: Vec<u8>,
    pub json_length: Option<usize>,
}

impl Encoded {
    /// A body that is all JSON.
    pub fn text(body: Vec<u8>) -> Encoded {
        Encoded { body, json_length: None }
    }
}

/// Encodes an answer, outputs as JSON or as raw bytes as the caller asked.
///
/// # Errors
/// When a JSON output holds bytes that are not UTF-8.
pub fn encode(response: &InferResponse, binary: &BinaryOutputs) -> Result<Encoded> {
    let mut body = Vec::with_capacity(256);
    body.extend_from_slice(br#"{"model_name":"#);
    json::string(&mut body, &response.model);
    body.extend_from_slice(br#","model_version":"#);
    json::string(&mut body, &response.version);
    if let Some(id) = &response.id {
        body.extend_from_slice(br#","id":"#);
        json::string(&mut body, id);
    }
    body.extend_from_slice(br#","outputs":["#);
    for (index, output) in response.outputs.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(br#"{"name":"#);
        json::string(&mut body, output.name());
        body.extend_from_slice(br#","datatype":""#);
        body.extend_from_slice(output.dtype().name().as_bytes());
        body.extend_from_slice(br#"","shape":"#);
        json::write_dims(&mut body, output.shape().dims());
        if binary.includes(output.name()) {
            let parameters = format!(r#","parameters":{{"binary_data_size":{}}}"#, output.data().len());
            body.extend_from_slice(parameters.as_bytes());
        } else {
            body.extend_from_slice(br#","data":"#);
            json::write_flat(&mut body, output)?;
        }
        body.push(b'}');
    }
    body.extend_from_slice(b"]}");
    let json_length = body.len();
    let mut blobs = response.outputs.iter().filter(|output| binary.includes(output.name())).peekable();
    let json_length = blobs.peek().is_some().then_some(json_length);
    blobs.for_each(|output| body.extend_from_slice(output.data()));
    Ok(Encoded { body, json_length })
}

/// `GET /v2/models/m`.
#[derive(Serialize)]
struct ModelMetadata<'a> {
    name: &'a str,
    versions: [&'a str; 1],
    platform: &'a str,
    inputs: Vec<TensorMetadata<'a>>,
    outputs: Vec<TensorMetadata<'a>>,
}

#[derive(Serialize)]
struct TensorMetadata<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: Vec<i64>,
}

/// Encodes a model's metadata; free dimensions are -1.
pub fn encode_metadata(name: &str, version: &str, platform: &str, signature: &Signature) -> Vec<u8> {
    fn list(specs: &[TensorSpec]) -> Vec<TensorMetadata<'_>> {
        specs
            .iter()
            .map(|spec| TensorMetadata {
                name: &spec.name,
                datatype: spec.dtype.name(),
                shape: spec.protocol_shape().collect(),
            })
            .collect()
    }
    let metadata = ModelMetadata {
        name,
        versions: [version],
        platform,
        inputs: list(&signature.inputs),
        outputs: list(&signature.outputs),
    };
    serde_json::to_vec(&metadata).expect("metadata is plain data")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(body: &str) -> String {
        decode(&Bytes::copy_from_slice(body.as_bytes()), None).unwrap_err().message().to_owned()
    }

    fn input(fields: &str) -> String {
        format!(r#"{{"inputs":[{{"name":"x",{fields}}}]}}"#)
    }

    #[test]
    fn flat_and_nested_data_are_the_same_tensor() {
        let flat = input(r#""data":[1,2,3,4],"datatype":"INT32","shape":[2,2]"#);
        let nested = input(r#""shape":[2,2],"datatype":"INT32","data":[[1,2],[3,4]]"#);
        let [flat, nested] = [flat, nested].map(|body| decode(&body.into(), None).unwrap().0);
        assert_eq!(flat, nested);
        assert_eq!(flat.inputs[0].data().len(), 16);
    }

    #[test]
    fn each_mistake_is_named() {
        let cases = [
            ("{}".to_owned(), "Unrecognized request format: missing field `inputs` at line 1 column 2"),
            (input(r#""shape":[1],"data":[1]"#), "field \"inputs[0]\": missing field `datatype` at line 1 column 46"),
            (
                input(r#""datatype":"INT8","shape":[-1],"data":[1]"#),
                "field \"inputs[0].shape[0]\": invalid value: integer `-1`, expected a size of 0 or more at line 1 column 52",
            ),
            (
                input(r#""datatype":"INT8","shape":[2],"data":[1]"#),
                "input \"x\": shape [2] takes 2 elements, \"data\" has 1",
            ),
            (
                input(r#""datatype":"INT8","shape":[1],"data":[1,2]"#),
                "input \"x\": shape [1] takes 1 elements, \"data\" has 2",
            ),
            (
                input(r#""datatype":"INT8","shape":[1,2],"data":[[1],[2]]"#),
                "input \"x\": shape is [1, 2], but data is nested as [2, 1]",
            ),
            (
                input(r#""datatype":"INT8","shape":[1]"#),
                "input \"x\": neither \"data\" nor \"binary_data_size\" is given",
            ),
            (input(r#""datatype":"INT8","shape":[1],"data":3"#), "input \"x\": \"data\" is not an array"),
            (
                input(r#""datatype":"FP16","shape":[1],"data":[1]"#),
                "input \"x\": FP16 cannot be sent as JSON: use the binary tensor extension or gRPC",
            ),
        ];
        for (body, message) in cases {
            assert_eq!(fails(&body), message, "{body}");
        }
        assert!(fails(&input(r#""datatype":"FLOAT","shape":[1],"data":[1]"#)).contains("unknown datatype \"FLOAT\""));
        assert!(
            fails(&input(r#""datatype":"INT8","shape":[4294967296,4294967296],"data":[1]"#))
                .contains("than can be counted")
        );
    }

    #[test]
    fn text_may_be_missing() {
        let text = input(r#""datatype":"BYTES","shape":[2],"data":["a",null]"#);
        let (request, _) = decode(&Bytes::from(text), None).unwrap();
        assert_eq!(request.inputs[0].dtype(), DType::Json);
        assert_eq!(request.inputs[0].bytes_elements().collect::<Vec<_>>(), [&b"\"a\""[..], b"null"]);
        let number = input(r#""datatype":"BYTES","shape":[2],"data":["a",7]"#);
        assert_eq!(fails(&number), "input \"x\": element [1]: expected BYTES, got number 7");
    }

    #[test]
    fn binary_inputs_share_the_body_and_must_fit_it() {
        let json = input(r#""shape":[2],"datatype":"INT16","parameters":{"binary_data_size":4}"#);
        let decode = |blob: &[u8]| decode(&[json.as_bytes(), blob].concat().into(), Some(json.len()));
        let (request, _) = decode(&[1, 0, 2, 0]).unwrap();
        assert_eq!(request.inputs[0].data().as_ref(), [1, 0, 2, 0]);
        assert!(decode(&[1, 0]).unwrap_err().message().contains("binary_data_size is 4, but 2 bytes are left"));
        assert!(decode(&[0; 5]).unwrap_err().message().contains("1 bytes of binary data are left"));
        assert!(super::decode(&Bytes::from_static(b"{}"), Some(3)).is_err());
    }

    #[test]
    fn a_per_output_wish_for_binary_beats_the_requests() {
        let body = r#"{"inputs":[],"parameters":{"binary_data_output":true},
            "outputs":[{"name":"a"},{"name":"b","parameters":{"binary_data":false}}]}"#;
        let (request, binary) = decode(&Bytes::from(body), None).unwrap();
        assert_eq!(request.outputs, ["a", "b"]);
        assert!(binary.includes("a") && !binary.includes("b"));
    }

    #[test]
    fn an_answer_has_its_json_first_and_its_blobs_after() {
        let tensor =
            |name: &str| Tensor::new(name, DType::Uint8, Shape::new(vec![2]).unwrap(), Bytes::from_static(&[7, 8]));
        let outputs = vec![tensor("a").unwrap(), tensor("b").unwrap()];
        let response = InferResponse { model: "m".into(), version: "1".into(), id: Some("q".into()), outputs };
        let binary = BinaryOutputs { all: false, exceptions: vec!["b".to_owned()] };
        let Encoded { body, json_length } = encode(&response, &binary).unwrap();
        let (json, blob) = body.split_at(json_length.unwrap());
        assert_eq!(blob, [7, 8]);
        assert_eq!(
            std::str::from_utf8(json).unwrap(),
            r#"{"model_name":"m","model_version":"1","id":"q","outputs":[{"name":"a","datatype":"UINT8","shape":[2],"data":[7,8]},{"name":"b","datatype":"UINT8","shape":[2],"parameters":{"binary_data_size":2}}]}"#
        );
    }
}
