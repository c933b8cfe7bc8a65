//! How much memory a gRPC message will take, found out before it is decoded. A few bytes on the wire can become a
//! hundred in memory (an empty input takes two bytes and a struct of many fields), so the size of a message alone
//! says little. Source: the protocol buffers encoding, <https://protobuf.dev/programming-guides/encoding/>.

use crate::error::{Error, Result};

/// What a nested message or a map entry takes at most, whatever is in it.
const MESSAGE_BYTES: usize = 320;
/// A `bytes` or `string` field's handle; the bytes of raw contents are shared.
const HANDLE_BYTES: usize = 32;

/// More inputs, outputs or raw contents than any model has.
const MAX_ENTRIES: usize = 1024;
/// A list grows by doubling, and while it moves the old half is still there: three times what it holds in the end.
const GROWTH: usize = 3;

/// An upper bound for the memory that decoding a `ModelInferRequest` and making tensors of it takes.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) when it is no well-formed message, or one with too many entries.
pub fn infer_request_bytes(message: &[u8]) -> Result<usize> {
    const INPUTS: u32 = 5;
    const OUTPUTS: u32 = 6;
    const RAW_INPUT_CONTENTS: u32 = 7;
    let mut total = 0;
    let mut entries = 0;
    each_field(message, |number, value| {
        if matches!(number, INPUTS | OUTPUTS | RAW_INPUT_CONTENTS) {
            entries += 1;
            if entries > MAX_ENTRIES {
                let text = format!("the message has more than {MAX_ENTRIES} inputs, outputs and raw contents");
                return Err(Error::invalid(text));
            }
        }
        total += match (number, value) {
            (INPUTS, Value::Bytes(input)) => MESSAGE_BYTES + input_bytes(input)?,
            (RAW_INPUT_CONTENTS, Value::Bytes(_)) => HANDLE_BYTES,
            (_, value) => opaque(value),
        };
        Ok(())
    })?;
    Ok(total)
}

fn input_bytes(input: &[u8]) -> Result<usize> {
    const SHAPE: u32 = 3;
    const CONTENTS: u32 = 5;
    let mut total = 0;
    each_field(input, |number, value| {
        total += match (number, value) {
            (SHAPE, Value::Bytes(packed)) => GROWTH * packed_varints(packed, 8),
            (CONTENTS, Value::Bytes(contents)) => MESSAGE_BYTES + contents_bytes(contents)?,
            (_, value) => opaque(value),
        };
        Ok(())
    })?;
    Ok(total)
}

/// Typed contents are there twice for a moment: as decoded, and as the tensor made of them, both lists that grow.
fn contents_bytes(contents: &[u8]) -> Result<usize> {
    let mut total = 0;
    each_field(contents, |number, value| {
        total += 2
            * GROWTH
            * match (number, value) {
                (1..=5, Value::Bytes(packed)) => packed_varints(packed, 8), // bool, int, int64, uint, uint64
                (6 | 7, Value::Bytes(packed)) => packed.len(),              // fp32, fp64: fixed width
                (8, Value::Bytes(element)) => HANDLE_BYTES + element.len(),
                (_, value) => opaque(value),
            };
        Ok(())
    })?;
    Ok(total)
}

fn packed_varints(packed: &[u8], size: usize) -> usize {
    packed.iter().filter(|byte| **byte < 0x80).count() * size
}

fn opaque(value: Value) -> usize {
    match value {
        Value::Number => 8,
        // A text, or a message of which we know no more: an entry of a map takes five bytes and becomes a hundred.
        Value::Bytes(bytes) => MESSAGE_BYTES + bytes.len() * 32,
    }
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Number,
    Bytes(&'a [u8]),
}

fn each_field<'a>(mut message: &'a [u8], mut visit: impl FnMut(u32, Value<'a>) -> Result<()>) -> Result<()> {
    let malformed =
        || Error::invalid("the message is no ModelInferRequest: it breaks off or has a field of no known kind");
    while !message.is_empty() {
        let key = varint(&mut message).ok_or_else(malformed)?;
        let number = u32::try_from(key >> 3).map_err(|_| malformed())?;
        let skip = |message: &mut &'a [u8], count| message.split_off(..count);
        let value = match key & 7 {
            0 => varint(&mut message).map(|_| Value::Number),
            1 => skip(&mut message, 8).map(|_| Value::Number),
            5 => skip(&mut message, 4).map(|_| Value::Number),
            2 => varint(&mut message)
                .and_then(|length| usize::try_from(length).ok())
                .and_then(|length| skip(&mut message, length))
                .map(Value::Bytes),
            _ => None, // groups ended with proto2
        };
        visit(number, value.ok_or_else(malformed)?)?;
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::protocol::open_inference as pb;

    fn request(contents: pb::InferTensorContents) -> Vec<u8> {
        let input = pb::model_infer_request::InferInputTensor {
            name: "x".into(),
            shape: vec![1, 2],
            contents: Some(contents),
            ..Default::default()
        };
        pb::ModelInferRequest { model_name: "m".into(), inputs: vec![input], ..Default::default() }.encode_to_vec()
    }

    #[test]
    fn small_wires_that_become_large_are_seen_as_large() {
        let zeros = request(pb::InferTensorContents { int64_contents: vec![0; 10_000], ..Default::default() });
        assert!(zeros.len() < 10_100);
        assert!(infer_request_bytes(&zeros).unwrap() >= 6 * 80_000);

        let empty_inputs = [0x2a, 0x00].repeat(1000);
        let needed = infer_request_bytes(&empty_inputs).unwrap();
        assert!(needed >= 1000 * size_of::<pb::model_infer_request::InferInputTensor>(), "{needed}");
        assert!(infer_request_bytes(&[0x2a, 0x00].repeat(2000)).unwrap_err().message().contains("more than 1024"));
    }

    #[test]
    fn raw_contents_cost_their_handle_only() {
        let raw = pb::ModelInferRequest { raw_input_contents: vec![vec![0; 100_000].into()], ..Default::default() };
        assert!(infer_request_bytes(&raw.encode_to_vec()).unwrap() < 100);
    }

    #[test]
    fn what_breaks_off_is_refused() {
        let whole = request(pb::InferTensorContents { fp32_contents: vec![1.0; 10], ..Default::default() });
        for end in 1..whole.len() {
            // Cut between two fields it is a message; elsewhere it is none, and neither may panic.
            let _ = infer_request_bytes(&whole[..end]);
        }
        assert!(infer_request_bytes(&whole[..whole.len() - 1]).is_err());
        assert!(infer_request_bytes(&[0xff; 20]).is_err());
    }
}
