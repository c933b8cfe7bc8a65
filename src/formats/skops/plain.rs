//! Plain values that a skops file has as JSON, or as text of JSON within JSON.

use super::Reader;
use super::json::Json;
use crate::error::{Error, Result};
use crate::formats::graph::{Id, Value};
use crate::formats::pickle::literal::decimal;
use crate::tensor::Excerpt;

/// A value as Python's json module wrote it: with NaN and infinities, and integers of any size.
pub fn from_text(reader: &mut Reader, text: &str) -> Result<Id> {
    let value = match text {
        "NaN" => Value::Float(f64::NAN),
        "Infinity" => Value::Float(f64::INFINITY),
        "-Infinity" => Value::Float(f64::NEG_INFINITY),
        // Keys of dicts are text of Python's str(), not of JSON.
        "nan" => Value::Float(f64::NAN),
        "None" => Value::None,
        "True" => Value::Bool(true),
        "False" => Value::Bool(false),
        _ if text.bytes().skip(usize::from(text.starts_with('-'))).all(|byte| byte.is_ascii_digit()) => decimal(text)?,
        _ => {
            let parsed = Json::parse(text.as_bytes(), &mut reader.budget);
            let parsed = parsed.map_err(|_| Error::load(format!("\"{}\" is not JSON", Excerpt(text))))?;
            return value(reader, &parsed);
        }
    };
    reader.push(value)
}

pub fn value(reader: &mut Reader, json: &Json<'_>) -> Result<Id> {
    let value = match json {
        Json::Null => Value::None,
        Json::Bool(value) => Value::Bool(*value),
        Json::Int(value) => Value::Int(*value),
        Json::Float(value) => Value::Float(*value),
        Json::Text(text) => Value::Text(text.as_ref().into()),
        Json::List(items) => Value::List(items.iter().map(|item| self::value(reader, item)).collect::<Result<_>>()?),
        Json::Map(members) => {
            let mut entries = Vec::with_capacity(members.len());
            for (key, member) in members {
                entries.push((reader.text(key)?, self::value(reader, member)?));
            }
            Value::Dict(entries)
        }
    };
    reader.push(value)
}
