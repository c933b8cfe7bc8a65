//! numpy's arrays as a file holds them: element type, shape, order, bytes.

use bytes::Bytes;
use half::f16;

use super::{Id, Value};
use crate::error::{Error, Result};

/// What `numpy.dtype` says of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElementType {
    /// numpy's `kind`: `b`ool, `i`nt, `u`nsigned, `f`loat, `c`omplex, `S` bytes, `U` text, `O`bject, `V` record,
    /// `M` and `m` for times.
    pub kind: u8,
    /// Bytes of one element.
    pub size: usize,
    pub big_endian: bool,
    /// Of a record, in order of declaration.
    pub fields: Vec<Field>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: Box<str>,
    pub offset: usize,
    pub element: ElementType,
}

impl ElementType {
    pub fn plain(kind: u8, size: usize) -> ElementType {
        ElementType { kind, size, big_endian: false, fields: Vec::new() }
    }

    /// Whether elements are references, not bytes.
    pub fn is_object(&self) -> bool {
        self.kind == b'O'
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// In memory order, of exactly the shape's size.
    Plain { element: ElementType, data: Bytes },
    /// Always row-major.
    Objects(Vec<Id>),
}

/// An array; empty shape for a scalar.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    /// Column-major, as numpy's `order="F"`.
    pub fortran: bool,
    pub elements: Elements,
}

/// Numbers in row-major order, whatever they were stored as. Integers beyond 2^53 are rounded, as by numpy's
/// `astype(float64)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Numbers {
    /// Rows of equal shape become one array of one more dimension.
    pub(super) fn stacked(rows: &[Numbers]) -> Result<Numbers> {
        let inner = rows.first().map(|row| row.shape.clone()).unwrap_or_default();
        if rows.iter().any(|row| row.shape != inner) {
            return Err(Error::load("expected rows of equal length"));
        }
        let shape = std::iter::once(rows.len()).chain(inner).collect();
        Ok(Numbers { shape, values: rows.iter().flat_map(|row| row.values.iter().copied()).collect() })
    }

    /// The values, which must be of one dimension (or of two with one of them 1), `length` of them when that is given.
    pub fn vector(self, length: Option<usize>) -> Result<Vec<f64>> {
        let flat = self.shape.iter().filter(|size| **size != 1).count() <= 1;
        match length {
            _ if !flat => Err(Error::load(format!("expected one dimension, got shape {:?}", self.shape))),
            Some(length) if length != self.values.len() => {
                Err(Error::load(format!("expected {length} values, got {}", self.values.len())))
            }
            _ => Ok(self.values),
        }
    }

    /// Rows, columns and values of a matrix; one dimension is one row, as in `coef_` of a model with one target.
    pub fn matrix(self) -> Result<(usize, usize, Vec<f64>)> {
        match *self.shape.as_slice() {
            [] => Ok((1, 1, self.values)),
            [columns] => Ok((1, columns, self.values)),
            [rows, columns] => Ok((rows, columns, self.values)),
            _ => Err(Error::load(format!("expected a matrix, got shape {:?}", self.shape))),
        }
    }
}

/// Elements, and other dimensions, of an array that has no bytes: a few bytes of file could claim any number of them.
const MAX_EMPTY: usize = 1 << 16;
const MAX_EMPTY_SIDE: usize = 1 << 24;

impl Array {
    /// # Errors
    /// When the data is not of the shape's size.
    pub fn plain(shape: Vec<usize>, fortran: bool, element: ElementType, data: Bytes) -> Result<Array> {
        let expected = shape.iter().try_fold(element.size, |product, size| product.checked_mul(*size));
        if expected != Some(data.len()) {
            return Err(Error::load(format!(
                "an array of shape {shape:?} with {} bytes an element has {} bytes of data",
                element.size,
                data.len()
            )));
        }
        let elements = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        let claims = if element.size == 0 {
            elements.is_none_or(|elements| elements > MAX_EMPTY)
        } else {
            data.is_empty() && shape.iter().any(|size| *size > MAX_EMPTY_SIDE)
        };
        if claims {
            return Err(Error::load(format!("an array of shape {shape:?} has no data")));
        }
        Ok(Array { shape, fortran, elements: Elements::Plain { element, data } })
    }

    /// # Errors
    /// When there are not as many objects as the shape says.
    pub fn objects(shape: Vec<usize>, items: Vec<Id>) -> Result<Array> {
        let expected = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        if expected != Some(items.len()) {
            return Err(Error::load(format!("an array of shape {shape:?} has {} objects", items.len())));
        }
        Ok(Array { shape, fortran: false, elements: Elements::Objects(items) })
    }

    /// The array as a value: text when it is one scalar of text, which is a `str` in Python too.
    pub fn into_value(self) -> Value {
        let text = match &self.elements {
            Elements::Plain { element, .. } if element.kind == b'U' && self.is_scalar() => self.texts().ok(),
            _ => None,
        };
        match text.and_then(|mut texts| texts.pop()) {
            Some(text) => Value::Text(text.into()),
            None => Value::Array(Box::new(self)),
        }
    }

    /// One element without dimensions, as numpy's scalars are.
    pub fn is_scalar(&self) -> bool {
        self.shape.is_empty()
    }

    fn plain_elements(&self) -> Result<(&ElementType, &Bytes)> {
        match &self.elements {
            Elements::Plain { element, data } => Ok((element, data)),
            Elements::Objects(_) => Err(Error::load("expected an array of numbers, got one of objects")),
        }
    }

    /// The values as `f64`, row-major.
    ///
    /// # Errors
    /// When they are not numbers.
    pub fn numbers(&self) -> Result<Numbers> {
        let (element, data) = self.plain_elements()?;
        let values = decode_numbers(element, data, element.size, 0)?;
        Ok(Numbers { shape: self.shape.clone(), values: self.row_major(values) })
    }

    /// The values as `i64`, row-major.
    ///
    /// # Errors
    /// When they are not integers (or bools), or do not fit.
    pub fn integers(&self) -> Result<Vec<i64>> {
        let (element, data) = self.plain_elements()?;
        let values: Option<Vec<i64>> =
            data.chunks_exact(element.size.max(1)).map(|bytes| integer(element, bytes)).collect();
        let values = values.ok_or_else(|| Error::load("expected an array of integers"))?;
        Ok(self.row_major(values))
    }

    /// The texts of an array of `U` or `S` elements, row-major.
    ///
    /// # Errors
    /// When they are not text.
    pub fn texts(&self) -> Result<Vec<String>> {
        let (element, data) = self.plain_elements()?;
        let one = |bytes: &[u8]| match element.kind {
            b'U' => bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|unit| if element.big_endian { u32::from_be_bytes(*unit) } else { u32::from_le_bytes(*unit) })
                .take_while(|unit| *unit != 0)
                .map(char::from_u32)
                .collect::<Option<String>>(),
            b'S' => String::from_utf8(bytes.iter().copied().take_while(|byte| *byte != 0).collect()).ok(),
            _ => None,
        };
        let texts: Option<Vec<String>> = match element.size {
            0 => Some(vec![String::new(); self.shape.iter().product()]),
            size => data.chunks_exact(size).map(one).collect(),
        };
        let texts = texts.ok_or_else(|| Error::load("expected an array of text"))?;
        Ok(self.row_major(texts))
    }

    /// One field of a one-dimensional array of records, as `f64`; `None` when there is no such field.
    ///
    /// # Errors
    /// When it does not hold numbers.
    pub fn field(&self, name: &str) -> Result<Option<Vec<f64>>> {
        let (record, data) = self.plain_elements()?;
        let Some(field) = record.fields.iter().find(|field| *field.name == *name) else { return Ok(None) };
        if field.offset.checked_add(field.element.size).is_none_or(|end| end > record.size) {
            return Err(Error::load(format!("field \"{name}\" lies outside its record")));
        }
        decode_numbers(&field.element, data, record.size, field.offset).map(Some)
    }

    fn row_major<T>(&self, values: Vec<T>) -> Vec<T> {
        if !self.fortran || self.shape.len() < 2 {
            return values;
        }
        let mut slots: Vec<Option<T>> = values.into_iter().map(Some).collect();
        let mut strides = vec![1; self.shape.len()];
        for axis in 1..self.shape.len() {
            strides[axis] = strides[axis - 1] * self.shape[axis - 1];
        }
        let mut index = vec![0; self.shape.len()];
        let mut ordered = Vec::with_capacity(slots.len());
        for _ in 0..slots.len() {
            let at: usize = index.iter().zip(&strides).map(|(index, stride)| index * stride).sum();
            ordered.extend(slots[at].take());
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < self.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        ordered
    }
}

/// Reads the number at `offset` of every record of `stride` bytes.
fn decode_numbers(element: &ElementType, data: &[u8], stride: usize, offset: usize) -> Result<Vec<f64>> {
    let unsupported =
        || Error::load(format!("expected numbers, got elements of type {}{}", element.kind as char, element.size));
    macro_rules! run {
        ($type:ty, $to:expr) => {{
            const SIZE: usize = size_of::<$type>();
            let values = data.chunks_exact(stride).map(|record| {
                let bytes: [u8; SIZE] = *record[offset..].first_chunk().expect("the field lies within its record");
                $to(if element.big_endian { <$type>::from_be_bytes(bytes) } else { <$type>::from_le_bytes(bytes) })
            });
            Ok(values.collect())
        }};
    }
    #[allow(clippy::cast_precision_loss)] // said in the docs of `Numbers`
    match (element.kind, element.size) {
        (b'f', 8) => run!(f64, |value| value),
        (b'f', 4) => run!(f32, f64::from),
        (b'f', 2) => run!(f16, f64::from),
        (b'i', 8) => run!(i64, |value| value as f64),
        (b'i', 4) => run!(i32, f64::from),
        (b'i', 2) => run!(i16, f64::from),
        (b'i', 1) => run!(i8, f64::from),
        (b'u', 8) => run!(u64, |value| value as f64),
        (b'u', 4) => run!(u32, f64::from),
        (b'u', 2) => run!(u16, f64::from),
        (b'u' | b'b', 1) => run!(u8, f64::from),
        _ => Err(unsupported()),
    }
}

fn integer(element: &ElementType, bytes: &[u8]) -> Option<i64> {
    macro_rules! read {
        ($type:ty) => {{
            let bytes = *bytes.first_chunk()?;
            i64::try_from(if element.big_endian {
                <$type>::from_be_bytes(bytes)
            } else {
                <$type>::from_le_bytes(bytes)
            })
            .ok()
        }};
    }
    match (element.kind, element.size) {
        (b'i', 8) => read!(i64),
        (b'i', 4) => read!(i32),
        (b'i', 2) => read!(i16),
        (b'i', 1) => read!(i8),
        (b'u', 8) => read!(u64),
        (b'u', 4) => read!(u32),
        (b'u', 2) => read!(u16),
        (b'u' | b'b', 1) => read!(u8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_orders_and_both_byte_orders_are_the_same_numbers() {
        let little: Vec<u8> = [1_i16, 2, 3, 4, 5, 6].iter().flat_map(|value| value.to_le_bytes()).collect();
        let big: Vec<u8> = [1_i16, 4, 2, 5, 3, 6].iter().flat_map(|value| value.to_be_bytes()).collect();
        let row_major = Array::plain(vec![2, 3], false, ElementType::plain(b'i', 2), little.into()).unwrap();
        let element = ElementType { big_endian: true, ..ElementType::plain(b'i', 2) };
        let column_major = Array::plain(vec![2, 3], true, element, big.into()).unwrap();
        assert_eq!(row_major.numbers().unwrap(), column_major.numbers().unwrap());
        assert_eq!(column_major.integers().unwrap(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn data_that_does_not_fit_the_shape_is_refused() {
        let element = || ElementType::plain(b'f', 8);
        assert!(Array::plain(vec![2], false, element(), Bytes::from_static(&[0; 8])).is_err());
        assert!(Array::plain(vec![usize::MAX, 2], false, element(), Bytes::new()).is_err());
        assert!(Array::plain(vec![1 << 40], false, ElementType::plain(b'U', 0), Bytes::new()).is_err());
        assert!(Array::plain(vec![1 << 40, 0], false, element(), Bytes::new()).is_err());
    }
}
