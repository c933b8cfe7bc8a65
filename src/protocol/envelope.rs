//! The JSON objects around the tensors, read by serde; each tensor is left as the raw text of one value for
//! [`super::json`]. Errors name the field's path.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::error::{Error, Result};

/// Parses the object around the tensors.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid): what is no JSON object, with the place; a field of another type or
/// a missing one, with its path.
pub fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T> {
    match body.trim_ascii_start().first() {
        // serde would take an array for a struct, field by field.
        Some(b'[' | b'"') => Err(Error::invalid("Unrecognized request format: expected a JSON object")),
        _ => value(body),
    }
}

/// As [`object`], for any JSON value. The fast way knows a line and a column; only when it fails, a second pass
/// finds out the field's path.
pub fn value<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|error| {
        let reader = &mut serde_json::Deserializer::from_slice(text);
        match serde_path_to_error::deserialize::<_, T>(reader) {
            Err(located) if error.is_data() && located.path().iter().next().is_some() => {
                // A size is all we ever read as usize, and clients need not know what that is.
                let inner = located.inner().to_string().replace("expected usize", "expected a size of 0 or more");
                Error::invalid(format!("field \"{}\": {inner}", located.path()))
            }
            _ => Error::invalid(format!("Unrecognized request format: {error}{}", near(text, &error))),
        }
    })
}

/// A list of at most `MAX` elements: what follows the last one is not even read.
pub struct Bounded<T, const MAX: usize>(pub Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Elements<T, MAX> {
            type Value = Bounded<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX} elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
                let mut taken = Vec::new();
                while let Some(element) = elements.next_element()? {
                    if taken.len() == MAX {
                        return Err(serde::de::Error::invalid_length(MAX + 1, &self));
                    }
                    taken.push(element);
                }
                Ok(Bounded(taken))
            }
        }

        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

/// What stands where the syntax goes wrong: ` near "NaN, 4]"`.
fn near(text: &[u8], error: &serde_json::Error) -> String {
    if !error.is_syntax() {
        return String::new();
    }
    let line = text.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let rest = &line[error.column().saturating_sub(1).min(line.len())..];
    let shown = String::from_utf8_lossy(&rest[..rest.len().min(20)]);
    let hint =
        if ["N", "I", "-I"].iter().any(|word| shown.starts_with(word)) { " (JSON has no NaN: send null)" } else { "" };
    format!(" near {shown:?}{hint}")
}
