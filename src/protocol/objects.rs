//! JSON objects of named values straight into one tensor per input: V1's `[{"a": 1, "b": [2, 3]}, ...]` row by row,
//! and `{"a": [...], "b": [...]}` column by column. Nothing is kept but the tensors, so a body of a million tiny
//! objects costs no more memory than the numbers in it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json;
use crate::error::{Error, Result};
use crate::infer::{Signature, TensorSpec};
use crate::tensor::{Excerpt, Shape, Tensor};

/// Reads an array of objects, one per row, each with every input. `field` is what errors call the array.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid), naming the row, the input and the element.
pub fn rows(field: &str, text: &str, signature: &Signature) -> Result<Vec<Tensor>> {
    let mut reader = Reader::new(signature);
    let read = serde_json::Deserializer::from_str(text).deserialize_seq(&mut reader);
    let row = reader.rows;
    reader.finish(read).map_err(|error| error.context(format_args!("{field}[{row}]")))
}

/// Reads one object with an array for each input.
///
/// # Errors
/// As [`rows`].
pub fn columns(field: &str, text: &str, signature: &Signature) -> Result<Vec<Tensor>> {
    let mut reader = Reader::new(signature);
    let read = Row(&mut reader).deserialize(&mut serde_json::Deserializer::from_str(text));
    let complete = if read.is_ok() { reader.end_row() } else { Ok(()) };
    complete.and_then(|()| reader.finish(read)).map_err(|error| error.context(field))
}

/// The names of a model's inputs, for error messages.
pub fn names(signature: &Signature) -> String {
    let names: Vec<_> = signature.inputs.iter().map(|spec| format!("\"{}\"", spec.name)).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

struct Reader<'a> {
    signature: &'a Signature,
    columns: Vec<Column>,
    /// Rows completed.
    rows: usize,
    /// Our own error, which serde's cannot carry.
    failure: Option<Error>,
}

#[derive(Default)]
struct Column {
    data: Vec<u8>,
    /// Of each row, when there are rows; else of the whole.
    dims: Vec<usize>,
    /// Whether the current row has given a value.
    given: bool,
}

impl<'a> Reader<'a> {
    fn new(signature: &'a Signature) -> Self {
        let columns = signature.inputs.iter().map(|_| Column::default()).collect();
        Reader { signature, columns, rows: 0, failure: None }
    }

    /// Takes the value of one input in the current row.
    fn put(&mut self, name: &str, text: &str) -> Result<()> {
        let found = self.signature.inputs.iter().position(|spec| *spec.name == *name).ok_or_else(|| {
            let known = names(self.signature);
            Error::invalid(format!("unknown input \"{}\", the model takes {known}", Excerpt(name)))
        })?;
        let (spec, column) = (&self.signature.inputs[found], &mut self.columns[found]);
        let place = |error: Error| error.context(format_args!("\"{name}\""));
        if std::mem::replace(&mut column.given, true) {
            return Err(place(Error::invalid("is given more than once")));
        }
        let mut dims = json::parse(text, spec.dtype, &mut column.data).map_err(place)?;
        if dims.is_empty() && holds_one_element(spec) {
            dims.push(1);
        }
        if self.rows > 0 && dims != column.dims {
            return Err(place(json::shape_mismatch(&column.dims, &dims)));
        }
        column.dims = dims;
        Ok(())
    }

    fn end_row(&mut self) -> Result<()> {
        for (spec, column) in self.signature.inputs.iter().zip(&mut self.columns) {
            if !std::mem::replace(&mut column.given, false) {
                return Err(Error::invalid(format!("\"{}\" is missing", spec.name)));
            }
        }
        self.rows += 1;
        Ok(())
    }

    fn finish(mut self, read: Result<Shaped, serde_json::Error>) -> Result<Vec<Tensor>> {
        let shaped = read.map_err(|error| {
            // Only the words: a place within this one value would mislead.
            self.failure.take().unwrap_or_else(|| Error::invalid(error.to_string()))
        })?;
        let tensors = self.signature.inputs.iter().zip(self.columns).map(|(spec, column)| {
            let dims = match shaped {
                Shaped::Rows => [vec![self.rows], column.dims].concat(),
                Shaped::Whole => column.dims,
            };
            Tensor::new(spec.name.clone(), spec.dtype, Shape::new(dims)?, column.data.into())
        });
        tensors.collect()
    }

    fn fail<E: serde::de::Error>(&mut self, error: Error) -> E {
        let told = E::custom(error.message());
        self.failure = Some(error);
        told
    }
}

/// A scalar is welcome where a row holds one element, as data frames converted to ONNX have it (`[-1, 1]`).
fn holds_one_element(spec: &TensorSpec) -> bool {
    matches!(spec.dims.as_slice(), [_, None | Some(1)])
}

/// What the columns' dimensions are of.
#[derive(Clone, Copy)]
enum Shaped {
    Rows,
    Whole,
}

impl<'de> Visitor<'de> for &mut Reader<'_> {
    type Value = Shaped;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Shaped, A::Error> {
        while rows.next_element_seed(Row(self))?.is_some() {
            self.end_row().map_err(|error| self.fail(error))?;
        }
        Ok(Shaped::Rows)
    }
}

/// One object.
struct Row<'r, 'a>(&'r mut Reader<'a>);

/// A key, borrowed from the text unless it has escapes.
#[derive(serde::Deserialize)]
struct Key<'k>(#[serde(borrow)] Cow<'k, str>);

impl<'de> DeserializeSeed<'de> for Row<'_, '_> {
    type Value = Shaped;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Shaped, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Row<'_, '_> {
    type Value = Shaped;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with {}", names(self.0.signature))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Shaped, A::Error> {
        while let Some(Key(name)) = fields.next_key()? {
            let value: &RawValue = fields.next_value()?;
            self.0.put(&name, value.get()).map_err(|error| self.0.fail::<A::Error>(error))?;
        }
        Ok(Shaped::Whole)
    }
}
