//! Tensors that are made up for requests, as the binary extension and gRPC have them and as JSON.

use anyhow::{Result, anyhow};
use half::{bf16, f16};
use serde_json::Value;
use stoker::tensor::{DType, Shape, Tensor, push_bytes_element};

use super::arrivals::Random;
use super::scenario::Input;

/// Little-endian elements; of text each behind its length.
pub fn made_up(input: &Input, random: &mut Random) -> Result<Vec<u8>> {
    let dtype = dtype(input)?;
    let mut data = Vec::new();
    for _ in 0..input.shape.iter().product::<usize>() {
        let float = random.unit() * f64::from(input.below);
        let whole = float.ceil() as i64 - 1;
        match dtype {
            DType::Bool => data.push((random.next() & 1) as u8),
            DType::Uint8 | DType::Int8 => data.push(whole as u8),
            DType::Uint16 | DType::Int16 => data.extend((whole as u16).to_le_bytes()),
            DType::Uint32 | DType::Int32 => data.extend((whole as u32).to_le_bytes()),
            DType::Uint64 | DType::Int64 => data.extend(whole.to_le_bytes()),
            DType::Fp16 => data.extend(f16::from_f64(float).to_le_bytes()),
            DType::Bf16 => data.extend(bf16::from_f64(float).to_le_bytes()),
            DType::Fp32 => data.extend((float as f32).to_le_bytes()),
            DType::Fp64 => data.extend(float.to_le_bytes()),
            DType::Bytes | DType::Json => {
                let text = &input.text[random.next() as usize % input.text.len()];
                push_bytes_element(&mut data, text.as_bytes()).map_err(|error| anyhow!("{error}"))?;
            }
        }
    }
    Ok(data)
}

/// The elements of what was made up, for JSON.
pub fn values(input: &Input, data: &[u8]) -> Result<Vec<Value>> {
    Ok(match dtype(input)? {
        DType::Bool => data.iter().map(|byte| (*byte != 0).into()).collect(),
        DType::Uint8 => data.iter().map(|byte| (*byte).into()).collect(),
        DType::Int8 => each(data, i8::from_le_bytes),
        DType::Uint16 => each(data, u16::from_le_bytes),
        DType::Int16 => each(data, i16::from_le_bytes),
        DType::Uint32 => each(data, u32::from_le_bytes),
        DType::Int32 => each(data, i32::from_le_bytes),
        DType::Uint64 => each(data, u64::from_le_bytes),
        DType::Int64 => each(data, i64::from_le_bytes),
        DType::Fp16 => each(data, |bytes| f16::from_le_bytes(bytes).to_f32()),
        DType::Bf16 => each(data, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        DType::Fp32 => each(data, f32::from_le_bytes),
        DType::Fp64 => each(data, f64::from_le_bytes),
        DType::Bytes | DType::Json => {
            let shape = Shape::new(input.shape.clone()).map_err(|error| anyhow!("{error}"))?;
            let tensor = Tensor::new(&*input.name, DType::Bytes, shape, data.to_vec().into());
            let tensor = tensor.map_err(|error| anyhow!("{error}"))?;
            tensor.bytes_elements().map(|text| String::from_utf8_lossy(text).into()).collect()
        }
    })
}

fn each<const SIZE: usize, Number: Into<Value>>(data: &[u8], read: impl Fn([u8; SIZE]) -> Number) -> Vec<Value> {
    data.as_chunks().0.iter().map(|bytes| read(*bytes).into()).collect()
}

fn dtype(input: &Input) -> Result<DType> {
    DType::parse(&input.datatype).map_err(|error| anyhow!("input \"{}\": {error}", input.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_datatypes_are_made_up_within_their_range() {
        for dtype in DType::ALL {
            let text = vec!["a".to_owned(), "bc".to_owned()];
            let input = Input { name: "x".into(), datatype: dtype.name().into(), shape: vec![4, 50], below: 9, text };
            let data = made_up(&input, &mut Random(3)).unwrap();
            let values = values(&input, &data).unwrap();
            assert_eq!(values.len(), 200, "{dtype}");
            let is_right = |value: &Value| match dtype {
                DType::Bool => value.is_boolean(),
                DType::Bytes => value == "a" || value == "bc",
                dtype if dtype.is_integer() => value.as_u64().is_some_and(|value| value < 9),
                _ => value.as_f64().is_some_and(|value| (0.0..=9.0).contains(&value)),
            };
            assert!(values.iter().all(is_right), "{dtype}: {values:?}");
            assert!(values.iter().any(|value| *value != values[0]), "{dtype}");
        }
    }
}
