//! The one tensor type: what every protocol decodes to, every batch joins and every backend runs.
//!
//! Data is little-endian and row-major, and shared, not copied ([`Bytes`]). `BYTES` elements lie as the Open
//! Inference binary extension writes them: a little-endian `u32` length, then that many bytes, per element.

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// More dimensions than any real model has; a bound on recursion and on work per declared shape.
pub const MAX_RANK: usize = 16;

/// Element types of the Open Inference Protocol, and BF16 as Triton adds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DType {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    Bytes,
    /// One JSON scalar per element, laid out as `BYTES`: a column of a table whose values differ in type or may be
    /// missing. No client declares it; to clients it is `BYTES`.
    Json,
}

impl DType {
    /// What clients can declare.
    pub const ALL: [DType; 14] = [
        DType::Bool,
        DType::Uint8,
        DType::Uint16,
        DType::Uint32,
        DType::Uint64,
        DType::Int8,
        DType::Int16,
        DType::Int32,
        DType::Int64,
        DType::Fp16,
        DType::Bf16,
        DType::Fp32,
        DType::Fp64,
        DType::Bytes,
    ];

    /// The protocol's spelling, e.g. `FP32`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::Bool => "BOOL",
            DType::Uint8 => "UINT8",
            DType::Uint16 => "UINT16",
            DType::Uint32 => "UINT32",
            DType::Uint64 => "UINT64",
            DType::Int8 => "INT8",
            DType::Int16 => "INT16",
            DType::Int32 => "INT32",
            DType::Int64 => "INT64",
            DType::Fp16 => "FP16",
            DType::Bf16 => "BF16",
            DType::Fp32 => "FP32",
            DType::Fp64 => "FP64",
            DType::Bytes | DType::Json => "BYTES",
        }
    }

    /// Parses the protocol's spelling.
    pub fn parse(name: &str) -> Result<DType> {
        DType::ALL.into_iter().find(|dtype| dtype.name() == name).ok_or_else(|| {
            let known = DType::ALL.map(DType::name).join(", ");
            Error::invalid(format!("unknown datatype \"{}\", expected one of {known}", Excerpt(name)))
        })
    }

    /// Bytes per element; `None` where elements differ in length.
    pub const fn size(self) -> Option<usize> {
        match self {
            DType::Bool | DType::Uint8 | DType::Int8 => Some(1),
            DType::Uint16 | DType::Int16 | DType::Fp16 | DType::Bf16 => Some(2),
            DType::Uint32 | DType::Int32 | DType::Fp32 => Some(4),
            DType::Uint64 | DType::Int64 | DType::Fp64 => Some(8),
            DType::Bytes | DType::Json => None,
        }
    }

    pub const fn is_integer(self) -> bool {
        matches!(
            self,
            DType::Uint8
                | DType::Uint16
                | DType::Uint32
                | DType::Uint64
                | DType::Int8
                | DType::Int16
                | DType::Int32
                | DType::Int64
        )
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The sizes of a tensor's dimensions, outermost first. Its product is known not to overflow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: Vec<usize>,
    elements: usize,
}

impl Shape {
    /// # Errors
    /// When there are more than [`MAX_RANK`] dimensions or their product does not fit in memory's address range.
    pub fn new(dims: Vec<usize>) -> Result<Shape> {
        if dims.len() > MAX_RANK {
            return Err(Error::invalid(format!(
                "shape has {} dimensions, at most {MAX_RANK} are supported",
                dims.len()
            )));
        }
        // Zero anywhere makes the product zero, but [0, 2^63, 2^63] is still nonsense: multiply what is not zero.
        let overflow = dims.iter().filter(|dim| **dim > 0).try_fold(1_usize, |product, dim| product.checked_mul(*dim));
        match overflow {
            Some(product) if isize::try_from(product).is_ok() => {
                let elements = if dims.contains(&0) { 0 } else { product };
                Ok(Shape { dims, elements })
            }
            _ => Err(Error::invalid(format!("shape {} has more elements than can be counted", Dims(&dims)))),
        }
    }

    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Number of elements: the product of the dimensions, 1 for a scalar.
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// The same shape with another outermost dimension. The caller has checked that there is one.
    #[must_use]
    pub fn with_rows(&self, rows: usize) -> Shape {
        let mut dims = self.dims.clone();
        dims[0] = rows;
        let elements = dims.iter().product();
        Shape { dims, elements }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Dims(&self.dims).fmt(f)
    }
}

/// Writes dimensions as `[3, 4]`.
pub struct Dims<'a>(pub &'a [usize]);

impl fmt::Display for Dims<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0).finish()
    }
}

/// At most the first 64 characters of what a client sent: an error never repeats a whole body.
pub struct Excerpt<'a>(pub &'a str);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CHARS: usize = 64;
        match self.0.char_indices().nth(CHARS) {
            Some((end, _)) => write!(f, "{}...", &self.0[..end]),
            None => f.write_str(self.0),
        }
    }
}

/// A named tensor whose data is known to fit its shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    name: Arc<str>,
    dtype: DType,
    shape: Shape,
    data: Bytes,
}

impl Tensor {
    /// # Errors
    /// When `data` is not exactly what `shape` and `dtype` ask for; the message says both sizes.
    pub fn new(name: impl Into<Arc<str>>, dtype: DType, shape: Shape, data: Bytes) -> Result<Tensor> {
        match dtype.size() {
            Some(size) => {
                let expected = shape.elements().checked_mul(size);
                if expected != Some(data.len()) {
                    return Err(Error::invalid(format!(
                        "shape {shape} of {dtype} takes {} bytes, got {}",
                        expected.map_or("too many".to_owned(), |bytes| bytes.to_string()),
                        data.len()
                    )));
                }
            }
            None => check_bytes_elements(&data, &shape)?,
        }
        Ok(Tensor { name: name.into(), dtype, shape, data })
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Size of the outermost dimension; 1 for a scalar.
    pub fn rows(&self) -> usize {
        self.shape.dims().first().copied().unwrap_or(1)
    }

    #[must_use]
    pub fn renamed(self, name: Arc<str>) -> Tensor {
        Tensor { name, ..self }
    }

    /// The elements of a `BYTES` (or JSON) tensor in order; for another dtype, nothing.
    pub fn bytes_elements(&self) -> BytesElements<'_> {
        BytesElements { rest: if self.dtype.size().is_none() { &self.data } else { &[] } }
    }
}

/// Iterator over length-prefixed elements.
pub struct BytesElements<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for BytesElements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.rest.split_first_chunk::<4>()?;
        let (element, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        self.rest = rest;
        Some(element)
    }
}

/// Appends one element in the layout of a `BYTES` tensor.
///
/// # Errors
/// When the element is longer than its 32-bit length prefix can say.
pub fn push_bytes_element(data: &mut Vec<u8>, element: &[u8]) -> Result<()> {
    let length = u32::try_from(element.len())
        .map_err(|_| Error::invalid(format!("a BYTES element of {} bytes is over 4 GiB", element.len())))?;
    data.put_u32_le(length);
    data.extend_from_slice(element);
    Ok(())
}

fn check_bytes_elements(data: &[u8], shape: &Shape) -> Result<()> {
    let mut elements = BytesElements { rest: data };
    let count = elements.by_ref().count();
    if !elements.rest.is_empty() {
        return Err(Error::invalid(format!(
            "BYTES data is cut off in element {count}: {} bytes are left where a 4-byte length and that many bytes should be",
            elements.rest.len()
        )));
    }
    if count != shape.elements() {
        return Err(Error::invalid(format!("shape {shape} takes {} BYTES elements, got {count}", shape.elements())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(dims: &[usize]) -> Shape {
        Shape::new(dims.to_vec()).unwrap()
    }

    #[test]
    fn a_shape_that_overflows_is_refused_even_beside_a_zero() {
        for dims in [vec![1 << 40, 1 << 40], vec![0, usize::MAX, 2], vec![usize::MAX]] {
            assert!(Shape::new(dims.clone()).is_err(), "{dims:?}");
        }
        assert_eq!(shape(&[]).elements(), 1);
        assert_eq!(shape(&[3, 0, 2]).elements(), 0);
        assert!(Shape::new(vec![1; MAX_RANK + 1]).is_err());
    }

    #[test]
    fn data_must_be_exactly_what_the_shape_takes() {
        let four = Bytes::from_static(&[0; 4]);
        assert!(Tensor::new("x", DType::Fp32, shape(&[1]), four.clone()).is_ok());
        let error = Tensor::new("x", DType::Fp32, shape(&[2]), four.clone()).unwrap_err();
        assert_eq!(error.message(), "shape [2] of FP32 takes 8 bytes, got 4");
        assert!(Tensor::new("x", DType::Fp64, shape(&[isize::MAX as usize]), four).is_err());
    }

    #[test]
    fn bytes_elements_are_counted_and_bounded() {
        let mut data = Vec::new();
        push_bytes_element(&mut data, b"one").unwrap();
        push_bytes_element(&mut data, b"").unwrap();
        let tensor = Tensor::new("x", DType::Bytes, shape(&[2]), data.clone().into()).unwrap();
        assert_eq!(tensor.bytes_elements().collect::<Vec<_>>(), [&b"one"[..], b""]);

        assert!(Tensor::new("x", DType::Bytes, shape(&[3]), data.clone().into()).is_err());
        data.put_u32_le(u32::MAX);
        let error = Tensor::new("x", DType::Bytes, shape(&[2]), data.into()).unwrap_err();
        assert!(error.message().contains("cut off in element 2"), "{error}");
    }
}
