//! Columns of a table as tensors, and tensors of any type as such columns.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use half::{bf16, f16};

use super::TensorSpec;
use crate::error::{Error, Result};
use crate::tensor::{DType, Excerpt, Shape, Tensor, push_bytes_element};

/// One column from the texts of JSON scalars.
///
/// # Errors
/// When a number is asked for and a cell is none.
pub fn column<'a>(spec: &TensorSpec, rows: usize, cells: impl Iterator<Item = &'a [u8]>) -> Result<Tensor> {
    let mut data = Vec::with_capacity(rows * 8);
    for cell in cells {
        match spec.dtype {
            DType::Json => push_bytes_element(&mut data, cell)?,
            _ => {
                let number = number(cell).map_err(|error| error.context(format_args!("column \"{}\"", spec.name)))?;
                data.put_f64_le(number);
            }
        }
    }
    Tensor::new(spec.name.clone(), spec.dtype, Shape::new(vec![rows])?, data.into())
}

/// A column of numbers from a tensor of any type.
pub(super) fn numeric(name: Arc<str>, tensor: &Tensor) -> Result<Tensor> {
    let data = numbers(tensor).map_err(|error| error.context(format_args!("column \"{name}\"")))?;
    Tensor::new(name, DType::Fp64, Shape::new(vec![tensor.rows()])?, data.into())
}

/// `FP64` that have no fractions as `INT64` or `BOOL`.
///
/// # Errors
/// Never, as long as a shape fits both.
#[allow(clippy::cast_possible_truncation)] // they were integers
pub fn from_numbers(tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    let mut data = Vec::with_capacity(tensor.data().len());
    let values = tensor.data().as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
    match dtype {
        DType::Bool => values.for_each(|value| data.put_u8(u8::from(value != 0.0))),
        _ => values.for_each(|value| data.put_i64_le(value as i64)),
    }
    let dtype = if dtype == DType::Bool { dtype } else { DType::Int64 };
    Tensor::new(tensor.name().clone(), dtype, tensor.shape().clone(), data.into())
}

/// A column of missing values.
pub(super) fn nothing(spec: &TensorSpec, rows: usize) -> Result<Tensor> {
    column(spec, rows, std::iter::repeat_n(&b"null"[..], rows))
}

/// A JSON scalar as a number, as Python's `float()` sees it; null is NaN.
///
/// # Errors
/// In Python's words.
pub fn number(cell: &[u8]) -> Result<f64> {
    let text = std::str::from_utf8(cell).unwrap_or_default();
    match cell.first() {
        Some(b'n') => Ok(f64::NAN),
        Some(b't') => Ok(1.0),
        Some(b'f') => Ok(0.0),
        Some(b'"') => {
            let text: String = serde_json::from_str(text).unwrap_or_default();
            let parsed = text.trim().parse();
            parsed.map_err(|_| Error::invalid(format!("could not convert string to float: '{}'", Excerpt(&text))))
        }
        _ => text.parse().map_err(|_| Error::invalid(format!("expected a number, got {}", Excerpt(text)))),
    }
}

/// A matrix from columns of `FP64` and `FP32`: in `FP32` when all of them are.
pub(super) fn beside(spec: &TensorSpec, columns: &[Tensor]) -> Result<Tensor> {
    let rows = columns.iter().map(Tensor::rows).max().unwrap_or(0);
    if let Some(short) = columns.iter().find(|column| column.rows() != rows) {
        return Err(Error::invalid(format!(
            "inputs disagree on the number of rows: \"{}\" has {}, others {rows}",
            short.name(),
            short.rows()
        )));
    }
    let are_singles = columns.iter().all(|column| column.dtype() == DType::Fp32);
    let (dtype, size) = if are_singles { (DType::Fp32, 4) } else { (DType::Fp64, 8) };
    let of_size = |column: &Tensor| {
        if column.dtype() == dtype { Ok(column.data().clone()) } else { numbers(column).map(Bytes::from) }
    };
    let columns = columns.iter().map(of_size).collect::<Result<Vec<_>>>()?;
    let mut data = Vec::with_capacity(rows * columns.len() * size);
    for row in 0..rows {
        columns.iter().for_each(|column| data.extend_from_slice(&column[row * size..][..size]));
    }
    Tensor::new(spec.name.clone(), dtype, Shape::new(vec![rows, columns.len()])?, data.into())
}

/// Any tensor's elements as `FP64`.
///
/// # Errors
/// When some are text that is no number, in Python's words.
pub fn numbers(tensor: &Tensor) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(tensor.shape().elements() * 8);
    macro_rules! run {
        ($type:ty, $to:expr) => {{
            let (chunks, _) = tensor.data().as_chunks::<{ size_of::<$type>() }>();
            chunks.iter().for_each(|bytes| out.put_f64_le($to(<$type>::from_le_bytes(*bytes))));
        }};
    }
    #[allow(clippy::cast_precision_loss)] // as numpy's astype(float64)
    match tensor.dtype() {
        DType::Bool => tensor.data().iter().for_each(|byte| out.put_f64_le(f64::from(u8::from(*byte != 0)))),
        DType::Uint8 => run!(u8, f64::from),
        DType::Uint16 => run!(u16, f64::from),
        DType::Uint32 => run!(u32, f64::from),
        DType::Uint64 => run!(u64, |value| value as f64),
        DType::Int8 => run!(i8, f64::from),
        DType::Int16 => run!(i16, f64::from),
        DType::Int32 => run!(i32, f64::from),
        DType::Int64 => run!(i64, |value| value as f64),
        DType::Fp16 => run!(f16, f64::from),
        DType::Bf16 => run!(bf16, f64::from),
        DType::Fp32 => run!(f32, f64::from),
        DType::Fp64 => out.extend_from_slice(tensor.data()),
        DType::Json => {
            for cell in tensor.bytes_elements() {
                out.put_f64_le(number(cell)?);
            }
        }
        DType::Bytes => {
            for element in tensor.bytes_elements() {
                let text = String::from_utf8_lossy(element);
                let parsed = text.trim().parse();
                out.put_f64_le(
                    parsed.map_err(|_| {
                        Error::invalid(format!("could not convert string to float: '{}'", Excerpt(&text)))
                    })?,
                );
            }
        }
    }
    Ok(out)
}

/// Any tensor's elements as JSON scalars.
pub(super) fn cells(tensor: &Tensor) -> Result<Vec<Bytes>> {
    match tensor.dtype() {
        DType::Json => Ok(tensor.bytes_elements().map(|cell| tensor.data().slice_ref(cell)).collect()),
        DType::Bytes => {
            let quoted = tensor.bytes_elements().map(|element| {
                let text = std::str::from_utf8(element).map_err(|_| Error::invalid("text that is not UTF-8"))?;
                Ok(Bytes::from(serde_json::to_vec(text).expect("text is plain data")))
            });
            quoted.collect()
        }
        DType::Bool => {
            let word = |byte: &u8| Bytes::from_static(if *byte == 0 { b"false" } else { b"true" });
            Ok(tensor.data().iter().map(word).collect())
        }
        _ => {
            let numbers = numbers(tensor)?;
            let text = |bytes: &[u8; 8]| {
                let value = f64::from_le_bytes(*bytes);
                if value.is_finite() {
                    Bytes::copy_from_slice(zmij::Buffer::new().format_finite(value).as_bytes())
                } else {
                    Bytes::from_static(b"null")
                }
            };
            Ok(numbers.as_chunks::<8>().0.iter().map(text).collect())
        }
    }
}
