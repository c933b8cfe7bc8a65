//! One way to read both of xgboost's document formats, JSON text and Universal Binary JSON: the reader of the model
//! says what it expects next, and the format hands it over without a tree of values in between. Models of hundreds of
//! megabytes are mostly arrays of numbers, which go straight into vectors.

use crate::error::{Error, Result};
use crate::tensor::Excerpt;

/// Nesting of what nobody asked for; models nest eight deep.
pub(super) const MAX_DEPTH: usize = 64;

/// A cursor that stands before a value; every method but [`Input::is_array`] consumes it.
pub(super) trait Input: Sized {
    /// Calls `field` for each field, which must consume the field's value.
    fn object(&mut self, field: impl FnMut(&str, &mut Self) -> Result<()>) -> Result<()>;

    /// Calls `element` for each element, which must consume it.
    fn array(&mut self, element: impl FnMut(&mut Self) -> Result<()>) -> Result<()>;

    fn numbers<N: Number>(&mut self) -> Result<Vec<N>>;

    fn integer(&mut self) -> Result<i64>;

    fn text(&mut self) -> Result<String>;

    fn skip(&mut self) -> Result<()>;

    /// Fields whose errors then name them.
    fn fields(&mut self, mut field: impl FnMut(&str, &mut Self) -> Result<()>) -> Result<()> {
        self.object(|name, input| field(name, input).map_err(|error| error.context(Excerpt(name))))
    }

    fn texts(&mut self) -> Result<Vec<String>> {
        let mut texts = Vec::new();
        self.array(|input| input.text().map(|text| texts.push(text)))?;
        Ok(texts)
    }

    /// xgboost keeps its parameters as text: `{"num_feature": "4"}`.
    fn parameters(&mut self) -> Result<std::collections::BTreeMap<String, String>> {
        let mut parameters = std::collections::BTreeMap::new();
        self.fields(|name, input| input.text().map(|text| drop(parameters.insert(name.to_owned(), text))))?;
        Ok(parameters)
    }
}

/// Numbers that arrays hold. xgboost writes whole numbers into arrays of floats, and at times true and false (1 and 0)
/// where it means integers.
pub(super) trait Number: Copy {
    const NAME: &'static str;
    fn from_integer(value: i64) -> Option<Self>;
    fn from_f32(value: f32) -> Option<Self>;
    fn from_f64(value: f64) -> Option<Self>;
    /// A number as JSON text, and as xgboost extends it: `NaN`, `Infinity`, `-Infinity`.
    fn from_text(text: &str) -> Option<Self>;
}

impl Number for f32 {
    const NAME: &'static str = "a number";

    #[allow(clippy::cast_precision_loss)] // the rounding is the library's
    fn from_integer(value: i64) -> Option<Self> {
        Some(value as f32)
    }

    fn from_f32(value: f32) -> Option<Self> {
        Some(value)
    }

    #[allow(clippy::cast_possible_truncation)] // the rounding is the library's
    fn from_f64(value: f64) -> Option<Self> {
        Some(value as f32)
    }

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "NaN" => Some(f32::NAN),
            "Infinity" => Some(f32::INFINITY),
            "-Infinity" => Some(f32::NEG_INFINITY),
            _ if text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => text.parse().ok(),
            _ => None,
        }
    }
}

impl Number for i64 {
    const NAME: &'static str = "an integer";

    fn from_integer(value: i64) -> Option<Self> {
        Some(value)
    }

    fn from_f32(value: f32) -> Option<Self> {
        Self::from_f64(f64::from(value))
    }

    #[allow(clippy::cast_possible_truncation)] // bounded
    fn from_f64(value: f64) -> Option<Self> {
        (value.fract() == 0.0 && value.abs() < 9e15).then_some(value as i64)
    }

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "true" => Some(1),
            "false" => Some(0),
            _ => text.parse().ok(),
        }
    }
}

pub(super) fn wrong(at: usize, what: impl std::fmt::Display) -> Error {
    Error::load(format!("at byte {at}: {what}"))
}
