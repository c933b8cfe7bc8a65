//! KServe's V1 protocol: `{"instances": [...]}` in, `{"predictions": [...]}` out.
//!
//! V1 names no dtypes, so the model's signature decides what the numbers become. As in TensorFlow Serving, whose
//! format V1 is, a model with several inputs takes one object per instance (or one array per input under
//! `inputs`), and a model with several outputs gives one object per prediction.
//! Source: KServe's `python/kserve/kserve/protocol/rest/v1_endpoints.py`.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{envelope, json, objects, rows};
use crate::error::{Error, Result};
use crate::infer::{InferRequest, InferResponse, Schedule, Signature};
use crate::tensor::{Shape, Tensor};

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Body<'a> {
    #[serde(borrow)]
    instances: Option<&'a RawValue>,
    #[serde(borrow)]
    inputs: Option<&'a RawValue>,
}

/// Decodes a `:predict` body for a model with this signature.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid), naming the field and the element.
pub fn decode(body: &[u8], signature: &Signature) -> Result<InferRequest> {
    let body: Body = envelope::object(body)?;
    // Both given: `inputs` wins, as in KServe's own server.
    let (field, value) = match (body.inputs, body.instances) {
        (Some(inputs), _) => ("inputs", inputs.get()),
        (None, Some(instances)) => ("instances", instances.get()),
        (None, None) => return Err(Error::invalid("Expected \"instances\" or \"inputs\" in the request body")),
    };
    let inputs = match value.as_bytes().first() {
        Some(b'[') if value[1..].trim_ascii_start().starts_with(']') => {
            return Err(Error::invalid(format!("\"{field}\" is empty")));
        }
        Some(b'[') if let Some(table) = &signature.table => rows::list(field, value, table)?,
        Some(b'{') if let Some(table) = &signature.table => rows::columns(field, value, table)?,
        Some(b'{') if field == "inputs" => objects::columns(field, value, signature)?,
        Some(b'[') => match value[1..].trim_ascii_start().as_bytes().first() {
            Some(b'{') => objects::rows(field, value, signature)?,
            _ => vec![single(value, signature).map_err(|error| error.context(field))?],
        },
        _ if field == "inputs" => return Err(Error::invalid("Expected \"inputs\" to be a list or an object")),
        _ => return Err(Error::invalid("Expected \"instances\" to be a list")),
    };
    Ok(InferRequest { id: None, inputs, outputs: Vec::new(), schedule: Schedule::default() })
}

/// The whole array is the model's one input.
fn single(array: &str, signature: &Signature) -> Result<Tensor> {
    let [spec] = signature.inputs.as_slice() else {
        return Err(Error::invalid(format!(
            "the model takes {} inputs: each instance must be an object with {}",
            signature.inputs.len(),
            objects::names(signature)
        )));
    };
    let mut data = Vec::new();
    let dims = json::parse(array, spec.dtype, &mut data)?;
    Tensor::new(spec.name.clone(), spec.dtype, Shape::new(dims)?, data.into())
}

/// Encodes the answer: bare values for one output, objects for several; when the outputs do not share a batch
/// axis, one object of whole arrays.
///
/// # Errors
/// When an output holds bytes that are not UTF-8.
pub fn encode(response: &InferResponse) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(br#"{"predictions":"#);
    let tensors = response.outputs.iter().map(json::Rows::of).collect::<Result<Vec<_>>>()?;
    let named = || response.outputs.iter().map(|output| &**output.name()).zip(&tensors);
    match (tensors.as_slice(), shared_rows(&response.outputs)) {
        ([tensor], _) => tensor.write_all(&mut out),
        (_, Some(rows)) => {
            out.push(b'[');
            for row in 0..rows {
                if row > 0 {
                    out.push(b',');
                }
                write_object(&mut out, named(), |out, tensor| tensor.write_row(out, row));
            }
            out.push(b']');
        }
        (_, None) => write_object(&mut out, named(), |out, tensor| tensor.write_all(out)),
    }
    out.push(b'}');
    Ok(out)
}

/// Encodes what explains the answer, `{"explanations": [{"shap_values": [..], "base_values": ..}, ..],
/// "feature_names": [..]}`: one value for each feature, in lists of their own where the model has several outputs, and
/// names where it knows some.
///
/// # Errors
/// When the answer is none of a model that explains itself.
pub fn encode_explanations(response: &InferResponse, signature: &Signature) -> Result<Vec<u8>> {
    let [tensor] = response.outputs.as_slice() else { return Err(Error::internal("an explanation is one tensor")) };
    let values: Vec<f64> = tensor.data().as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
    let (columns, is_one) = match *tensor.shape().dims() {
        [_, columns] => (columns, true),
        [_, _, columns] => (columns, false),
        _ => return Err(Error::internal("an explanation has two or three dimensions")),
    };
    let outputs = tensor.shape().elements() / columns.max(1) / tensor.rows().max(1);
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(br#"{"explanations":["#);
    for (number, row) in values.chunks_exact((columns * outputs).max(1)).enumerate() {
        out.extend_from_slice(if number == 0 { b"{" } else { b",{" });
        let parts = row.chunks_exact(columns);
        out.extend_from_slice(br#""shap_values":"#);
        json::one_or_list(&mut out, is_one, parts.clone(), |out, part| json::write_floats(out, &part[..columns - 1]));
        out.extend_from_slice(br#","base_values":"#);
        json::one_or_list(&mut out, is_one, parts, |out, part| json::write_float(out, part[columns - 1]));
        out.push(b'}');
    }
    out.push(b']');
    let names = signature.table.as_ref().map_or(&[][..], |table| &table.explained);
    if names.len() + 1 == columns {
        out.extend_from_slice(br#","feature_names":"#);
        json::one_or_list(&mut out, false, names.iter(), |out, name| json::string(out, name));
    }
    out.push(b'}');
    Ok(out)
}

fn write_object<'a, T>(
    out: &mut Vec<u8>,
    fields: impl Iterator<Item = (&'a str, T)>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    for (index, (name, value)) in fields.enumerate() {
        out.push(if index == 0 { b'{' } else { b',' });
        json::string(out, name);
        out.push(b':');
        write(out, value);
    }
    out.push(b'}');
}

fn shared_rows(outputs: &[Tensor]) -> Option<usize> {
    let rows = outputs.first()?.rows();
    outputs.iter().all(|output| !output.shape().dims().is_empty() && output.rows() == rows).then_some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::TensorSpec;
    use crate::tensor::DType;

    fn spec(name: &str, dtype: DType, dims: &[Option<usize>]) -> TensorSpec {
        TensorSpec { name: name.into(), dtype, dims: dims.to_vec() }
    }

    fn one_input() -> Signature {
        Signature::new(vec![spec("x", DType::Fp32, &[None, Some(2)])], Vec::new())
    }

    fn two_inputs() -> Signature {
        Signature::new(
            vec![spec("a", DType::Int64, &[None, Some(1)]), spec("b", DType::Fp32, &[None, Some(2)])],
            Vec::new(),
        )
    }

    fn shapes(body: &str, signature: &Signature) -> Vec<String> {
        let request = decode(body.as_bytes(), signature).unwrap();
        request.inputs.iter().map(|input| format!("{} {}", input.name(), input.shape())).collect()
    }

    #[test]
    fn lists_objects_and_columns_are_understood() {
        assert_eq!(shapes(r#"{"instances": [[1,2],[3,4]]}"#, &one_input()), ["x [2, 2]"]);
        assert_eq!(shapes(r#"{"inputs": [[1,2]], "instances": 3}"#, &one_input()), ["x [1, 2]"]);
        assert_eq!(shapes(r#"{"instances": [{"x": [1,2]}]}"#, &one_input()), ["x [1, 2]"]);
        assert_eq!(
            shapes(
                r#"{"instances": [{"b":[1,2],"a":7},{"a":[8],"b":[3,4]}]}"#.replace("[8]", "8").as_str(),
                &two_inputs()
            ),
            ["a [2, 1]", "b [2, 2]"]
        );
        let mut columns = shapes(r#"{"inputs": {"a": [[1]], "b": [[1,2]]}}"#, &two_inputs());
        columns.sort();
        assert_eq!(columns, ["a [1, 1]", "b [1, 2]"]);
    }

    #[test]
    fn each_mistake_is_named() {
        let cases = [
            ("{", "Unrecognized request format: EOF while parsing an object at line 1 column 1"),
            ("{}", "Expected \"instances\" or \"inputs\" in the request body"),
            (r#"{"instances": 3}"#, "Expected \"instances\" to be a list"),
            (r#"{"inputs": "x"}"#, "Expected \"inputs\" to be a list or an object"),
            (r#"{"instances": [ ]}"#, "\"instances\" is empty"),
            (r#"{"instances": [[1,"a"]]}"#, "instances: element [0][1]: expected FP32, got string \"a\""),
            (r#"{"instances": [{"y": 1}]}"#, "instances[0]: unknown input \"y\", the model takes \"x\""),
            (
                r#"{"instances": [{"x": [1]}, {"x": [1,2]}]}"#,
                "instances[1]: \"x\": shape is [1], but data is nested as [2]",
            ),
            (r#"{"instances": [{"x": [1,2]}, {}]}"#, "instances[1]: \"x\" is missing"),
            (r#"{"instances": [{"x": [1,2], "x": [3]}]}"#, "instances[0]: \"x\": is given more than once"),
            (
                r#"{"instances": [{"x": [1,2]}, 7]}"#,
                "instances[1]: invalid type: integer `7`, expected an object with \"x\" at line 1 column 16",
            ),
            (r#"{"inputs": {"x": [[true]]}}"#, "inputs: \"x\": element [0][0]: expected FP32, got true"),
            (r#"{"inputs": {}}"#, "inputs: \"x\" is missing"),
            (r#"{"inputs": {"y": [[1]]}}"#, "inputs: unknown input \"y\", the model takes \"x\""),
        ];
        for (body, message) in cases {
            assert_eq!(decode(body.as_bytes(), &one_input()).unwrap_err().message(), message, "{body}");
        }
        let error = decode(br#"{"instances": [[1]]}"#, &two_inputs()).unwrap_err();
        assert!(error.message().contains("each instance must be an object with \"a\", \"b\""), "{error}");
    }

    fn response(outputs: &[(&str, &[usize])]) -> String {
        let outputs = outputs.iter().map(|(name, dims)| {
            let shape = Shape::new(dims.to_vec()).unwrap();
            let data: Vec<u8> = (1..).take(shape.elements()).collect();
            Tensor::new(*name, DType::Uint8, shape, data.into()).unwrap()
        });
        let outputs = outputs.collect();
        let encoded = encode(&InferResponse { model: "m".into(), version: "1".into(), id: None, outputs }).unwrap();
        String::from_utf8(encoded).unwrap()
    }

    #[test]
    fn predictions_follow_the_number_of_outputs() {
        assert_eq!(response(&[("y", &[2, 2])]), r#"{"predictions":[[1,2],[3,4]]}"#);
        assert_eq!(
            response(&[("y", &[2]), ("z", &[2, 2])]),
            r#"{"predictions":[{"y":1,"z":[1,2]},{"y":2,"z":[3,4]}]}"#
        );
        assert_eq!(response(&[("y", &[2]), ("z", &[3])]), r#"{"predictions":{"y":[1,2],"z":[1,2,3]}}"#);
    }
}
