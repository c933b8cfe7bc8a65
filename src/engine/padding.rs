//! Rows of different lengths in one batch: shorter ones are filled up to the longest, and what the model makes of the
//! filling is cut off again. Pure.
//!
//! A model has to say which of its inputs may be filled up with what, and [`warm_up`](crate::model::warmup) looks whether
//! that is true. A row's length is the size of the one free inner dimension that all those inputs share.

use bytes::{Bytes, BytesMut};

use crate::error::{Error, Result};
use crate::infer::{Signature, TensorSpec};
use crate::tensor::{DType, Shape, Tensor};

/// How a model's rows are filled up.
#[derive(Clone, Debug, PartialEq)]
pub struct Padding {
    /// By input.
    inputs: Vec<Option<Filling>>,
    /// By output: the axis that has the row's length, if any has.
    outputs: Vec<Option<usize>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Filling {
    /// That has the row's length.
    axis: usize,
    /// One element, little-endian.
    value: Bytes,
}

impl Padding {
    /// Of inputs named with the value that fills them up. Of outputs is known only what their free dimensions allow: those
    /// with one free inner dimension are taken to have the row's length there.
    ///
    /// # Errors
    /// When an input is unknown, of text, or has not just one free inner dimension, or the value does not fit its type.
    pub fn of(signature: &Signature, fillings: &[(String, f64)]) -> Result<Padding> {
        let mut inputs = vec![None; signature.inputs.len()];
        for (name, value) in fillings {
            let wrong = |why: &str| Error::load(format!("--pad_variable_length_inputs: input \"{name}\" {why}"));
            let found = signature.inputs.iter().position(|spec| *spec.name == **name);
            let index = found.ok_or_else(|| wrong("is none of the model's"))?;
            let spec = &signature.inputs[index];
            let axis = length_axis(spec).ok_or_else(|| wrong("has not just one dimension of any length in a row"))?;
            let value =
                element(spec.dtype, *value).ok_or_else(|| wrong(&format!("of {} cannot hold {value}", spec.dtype)))?;
            inputs[index] = Some(Filling { axis, value });
        }
        Ok(Padding { inputs, outputs: signature.outputs.iter().map(length_axis).collect() })
    }

    /// The axis of an input that has the row's length.
    pub fn axis(&self, input: usize) -> Option<usize> {
        self.inputs.get(input)?.as_ref().map(|filling| filling.axis)
    }

    /// The length of these inputs' rows; `None` when they do not agree.
    pub fn length(&self, inputs: &[Tensor]) -> Option<usize> {
        let sizes = inputs.iter().zip(&self.inputs);
        let mut sizes = sizes.filter_map(|(input, filling)| Some(input.shape().dims()[filling.as_ref()?.axis]));
        let first = sizes.next()?;
        sizes.all(|size| size == first).then_some(first)
    }

    /// Fills rows up to a length.
    ///
    /// # Errors
    /// When that is more than a tensor can hold.
    pub fn fill(&self, inputs: &[Tensor], length: usize) -> Result<Vec<Tensor>> {
        let fill = |(input, filling): (&Tensor, &Option<Filling>)| match filling {
            Some(Filling { axis, value }) => resized(input, *axis, length, value),
            None => Ok(input.clone()),
        };
        inputs.iter().zip(&self.inputs).map(fill).collect()
    }

    /// Cuts what `wanted` outputs have of rows that were filled up to `filled` back to their own length.
    ///
    /// # Errors
    /// When an output has no such length.
    pub fn cut(&self, outputs: &[Tensor], wanted: &[usize], filled: usize, length: usize) -> Result<Vec<Tensor>> {
        let cut = |(output, index): (&Tensor, &usize)| match self.outputs.get(*index).copied().flatten() {
            Some(axis) if output.shape().dims().get(axis) == Some(&filled) => resized(output, axis, length, &[]),
            Some(_) => Err(Error::internal(format!(
                "output \"{}\" has shape {} for rows of length {filled}: serve this model without \
                 --pad_variable_length_inputs",
                output.name(),
                output.shape()
            ))),
            None => Ok(output.clone()),
        };
        outputs.iter().zip(wanted).map(cut).collect()
    }
}

/// The only free dimension behind the batch axis of a tensor whose elements all have one size.
fn length_axis(spec: &TensorSpec) -> Option<usize> {
    spec.dtype.size()?;
    let mut free = spec.dims.iter().enumerate().skip(1).filter(|(_, dim)| dim.is_none());
    let (axis, _) = free.next()?;
    free.next().is_none().then_some(axis)
}

/// A tensor with another size along an axis: cut off, or filled up with a value.
fn resized(tensor: &Tensor, axis: usize, size: usize, value: &[u8]) -> Result<Tensor> {
    let mut dims = tensor.shape().dims().to_vec();
    let before = std::mem::replace(&mut dims[axis], size);
    if before == size {
        return Ok(tensor.clone());
    }
    let inner = dims[axis + 1..].iter().product::<usize>() * tensor.dtype().size().unwrap_or(1);
    let shape = Shape::new(dims)?;
    let mut data = BytesMut::with_capacity(shape.elements() * tensor.dtype().size().unwrap_or(1));
    for block in tensor.data().chunks_exact((before * inner).max(1)) {
        data.extend_from_slice(&block[..before.min(size) * inner]);
        for _ in 0..size.saturating_sub(before) * inner / value.len().max(1) {
            data.extend_from_slice(value);
        }
    }
    Tensor::new(tensor.name().clone(), tensor.dtype(), shape, data.freeze())
}

/// A number as one element of a type, if it is one of its numbers.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::float_cmp)] // what is lost is looked for
fn element(dtype: DType, value: f64) -> Option<Bytes> {
    macro_rules! integer {
        ($type:ty) => {{
            let number = value as $type;
            (number as f64 == value).then(|| number.to_le_bytes().to_vec())
        }};
    }
    #[allow(clippy::cast_precision_loss, clippy::cast_lossless)]
    let bytes = match dtype {
        DType::Bool | DType::Uint8 => integer!(u8).filter(|byte| dtype != DType::Bool || byte[0] < 2),
        DType::Uint16 => integer!(u16),
        DType::Uint32 => integer!(u32),
        DType::Uint64 => integer!(u64),
        DType::Int8 => integer!(i8),
        DType::Int16 => integer!(i16),
        DType::Int32 => integer!(i32),
        DType::Int64 => integer!(i64),
        DType::Fp16 => Some(half::f16::from_f64(value).to_le_bytes().to_vec()),
        DType::Bf16 => Some(half::bf16::from_f64(value).to_le_bytes().to_vec()),
        DType::Fp32 => Some((value as f32).to_le_bytes().to_vec()),
        DType::Fp64 => Some(value.to_le_bytes().to_vec()),
        DType::Bytes | DType::Json => None,
    };
    bytes.map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(name: &str, dtype: DType, dims: &[Option<usize>]) -> TensorSpec {
        TensorSpec { name: name.into(), dtype, dims: dims.to_vec() }
    }

    fn signature() -> Signature {
        let inputs = vec![
            spec("ids", DType::Int64, &[None, None]),
            spec("image", DType::Uint8, &[None, Some(2), None, Some(3)]),
            spec("both", DType::Fp32, &[None, None, None]),
        ];
        Signature::new(inputs, vec![spec("y", DType::Int64, &[None, None]), spec("z", DType::Int64, &[None])])
    }

    fn counted(name: &str, dtype: DType, dims: &[usize]) -> Tensor {
        let shape = Shape::new(dims.to_vec()).unwrap();
        let data: Vec<u8> = (0..=u8::MAX).cycle().take(shape.elements() * dtype.size().unwrap()).collect();
        Tensor::new(name, dtype, shape, data.into()).unwrap()
    }

    #[test]
    fn what_cannot_be_filled_up_is_named() {
        let wrong = |name: &str, value| Padding::of(&signature(), &[(name.to_owned(), value)]).unwrap_err().to_string();
        assert!(wrong("tokens", 0.0).contains("\"tokens\" is none of the model's"));
        assert!(wrong("both", 0.0).contains("has not just one dimension of any length"));
        assert!(wrong("ids", 0.5).contains("of INT64 cannot hold 0.5"));
        assert!(wrong("image", 256.0).contains("of UINT8 cannot hold 256"));
    }

    #[test]
    fn rows_of_inputs_that_do_not_agree_have_no_length() {
        let fillings = [("ids".to_owned(), -1.0), ("image".to_owned(), 7.0)];
        let padding = Padding::of(&signature(), &fillings).unwrap();
        let [ids, image] = [counted("ids", DType::Int64, &[1, 4]), counted("image", DType::Uint8, &[1, 2, 5, 3])];
        assert_eq!(padding.length(&[ids.clone(), image]), None);
        let image = counted("image", DType::Uint8, &[1, 2, 4, 3]);
        assert_eq!(padding.length(&[ids.clone(), image.clone()]), Some(4));
        let filled = padding.fill(&[ids, image], 5).unwrap();
        assert_eq!(filled[0].data()[32..], [0xff; 8]);
        assert_eq!((filled[1].data()[11], &filled[1].data()[12..15], filled[1].data()[15]), (11, &[7, 7, 7][..], 12));
    }

    proptest! {
        #[test]
        fn cutting_what_was_filled_up_gives_it_back(rows in 1..4_usize, length in 1..6_usize, more in 0..6_usize) {
            let padding = Padding::of(&signature(), &[("ids".to_owned(), 0.0)]).unwrap();
            let ids = counted("ids", DType::Int64, &[rows, length]);
            let filled = padding.fill(std::slice::from_ref(&ids), length + more).unwrap();
            prop_assert_eq!(filled[0].shape().dims(), [rows, length + more]);
            prop_assert_eq!(padding.cut(&filled, &[0], length + more, length).unwrap(), [ids]);
        }
    }
}
