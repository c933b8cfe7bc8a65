//! Opcodes that stand for one plain value each, and numbers and strings as text, as protocol 0 has them.

use bytes::Bytes;

use super::store::Store;
use crate::error::{Error, Result};
use crate::formats::graph::{Id, Value};
use crate::tensor::Excerpt;

/// The value of an opcode that pushes one; `None` when it is another opcode.
pub fn read(store: &mut Store, opcode: u8) -> Result<Option<Id>> {
    let input = &mut store.input;
    let value = match opcode {
        b'N' => return Ok(Some(store.none)),
        0x88 => return Ok(Some(store.bool(true))),
        0x89 => return Ok(Some(store.bool(false))),
        b'K' => Value::Int(input.byte()?.into()),
        b'M' => Value::Int(u16::from_le_bytes(input.array()?).into()),
        b'J' => Value::Int(i32::from_le_bytes(input.array()?).into()),
        b'I' => match input.line_text()? {
            "00" => return Ok(Some(store.bool(false))),
            "01" => return Ok(Some(store.bool(true))),
            digits => decimal(digits)?,
        },
        b'L' => {
            let digits = input.line_text()?;
            decimal(digits.strip_suffix('L').unwrap_or(digits))?
        }
        0x8a => {
            let length = input.length::<1>()?;
            long(input.take(length)?)
        }
        0x8b => {
            let length = input.length::<4>()?;
            long(input.take(length)?)
        }
        b'G' => Value::Float(f64::from_be_bytes(input.array()?)),
        b'F' => {
            let digits = input.line_text()?;
            let value = digits.trim().parse();
            Value::Float(value.map_err(|_| Error::load(format!("\"{}\" is not a number", Excerpt(digits))))?)
        }
        b'X' => text::<4>(store)?,
        0x8c => text::<1>(store)?,
        0x8d => text::<8>(store)?,
        b'V' => Value::Text(raw_unicode(input.line()?)?.into()),
        b'B' => bytes::<4>(store)?,
        b'C' => bytes::<1>(store)?,
        0x8e | 0x96 => bytes::<8>(store)?,
        b'U' => string(bytes::<1>(store)?),
        b'T' => string(bytes::<4>(store)?),
        b'S' => string(Value::Bytes(quoted(input.line()?)?.into())),
        b']' => Value::List(Vec::new()),
        b'}' => Value::Dict(Vec::new()),
        0x8f => Value::Set(Vec::new()),
        b')' => return store.tuple(Vec::new()).map(Some),
        _ => return Ok(None),
    };
    let id = if let Value::Int(value) = value { store.int(value) } else { store.push(value) };
    id.map(Some)
}

fn text<const N: usize>(store: &mut Store) -> Result<Value> {
    let length = store.input.length::<N>()?;
    let text: Box<str> = store.input.text(length)?.into();
    Ok(Value::Text(text))
}

fn bytes<const N: usize>(store: &mut Store) -> Result<Value> {
    let length = store.input.length::<N>()?;
    store.input.take(length).map(Value::Bytes)
}

/// Python 2's `str` is text or bytes, as it happens to be used.
fn string(value: Value) -> Value {
    match value {
        Value::Bytes(bytes) if bytes.is_ascii() => Value::Text(std::str::from_utf8(&bytes).unwrap_or_default().into()),
        value => value,
    }
}

fn long(bytes: Bytes) -> Value {
    if bytes.len() > 8 {
        return Value::BigInt(bytes);
    }
    let negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(&bytes);
    Value::Int(i64::from_le_bytes(wide))
}

/// As Python bounds the digits that it converts.
const MAX_DIGITS: usize = 4300;

/// An integer of any size from its decimal digits.
pub fn decimal(text: &str) -> Result<Value> {
    let failed = || Error::load(format!("\"{}\" is not an integer", Excerpt(text)));
    let text = text.trim();
    if let Ok(value) = text.parse() {
        return Ok(Value::Int(value));
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(failed());
    }
    let mut words = vec![0_u64]; // little-endian
    for digit in digits.bytes() {
        let mut carry = u128::from(digit - b'0');
        for word in &mut words {
            let wide = u128::from(*word) * 10 + carry;
            #[allow(clippy::cast_possible_truncation)] // the lower half is meant
            let low = wide as u64;
            (*word, carry) = (low, wide >> 64);
        }
        if carry > 0 {
            words.push(u64::try_from(carry).map_err(|_| failed())?);
        }
    }
    words.push(0); // room for the sign
    if negative {
        let mut carry = true;
        for word in &mut words {
            (*word, carry) = (!*word).overflowing_add(u64::from(carry));
        }
    }
    Ok(Value::BigInt(words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>().into()))
}

/// Python's raw-unicode-escape: bytes are latin1, `\uXXXX` and `\UXXXXXXXX` are code points.
fn raw_unicode(line: &[u8]) -> Result<String> {
    let failed = || Error::load("text with a damaged escape");
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((&first, after)) = rest.split_first() {
        let digits = match (first, after.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                text.push(char::from(first));
                rest = after;
                continue;
            }
        };
        let code = after.get(1..=digits).and_then(|code| std::str::from_utf8(code).ok()).ok_or_else(failed)?;
        let code = u32::from_str_radix(code, 16).map_err(|_| failed())?;
        text.push(char::from_u32(code).ok_or_else(failed)?);
        rest = &after[1 + digits..];
    }
    Ok(text)
}

/// A string as Python 2's `repr` wrote it.
fn quoted(line: &[u8]) -> Result<Vec<u8>> {
    let failed = || Error::load("a string with damaged quotes or escapes");
    let line = line.trim_ascii();
    let ([b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"']) = line else { return Err(failed()) };
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'\\' {
            bytes.push(first);
            continue;
        }
        let (&escape, after) = rest.split_first().ok_or_else(failed)?;
        rest = after;
        bytes.push(match escape {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'\\' | b'\'' | b'"' => escape,
            b'x' => {
                let code = rest.get(..2).and_then(|code| std::str::from_utf8(code).ok()).ok_or_else(failed)?;
                rest = &rest[2..];
                u8::from_str_radix(code, 16).map_err(|_| failed())?
            }
            _ => return Err(failed()),
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_any_size() {
        assert_eq!(decimal("-12").unwrap(), Value::Int(-12));
        let Value::BigInt(bytes) = decimal("18446744073709551616").unwrap() else { panic!() };
        assert_eq!(bytes.iter().position(|byte| *byte == 1), Some(8));
        let Value::BigInt(bytes) = decimal("-18446744073709551617").unwrap() else { panic!() };
        assert_eq!(bytes[..9], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]);
        assert!(decimal(&"9".repeat(5000)).is_err());
        assert!(decimal("").is_err() && decimal("-").is_err() && decimal("1x").is_err());
        assert_eq!(long(Bytes::from_static(&[0xff])), Value::Int(-1));
        assert_eq!(long(Bytes::new()), Value::Int(0));
    }

    #[test]
    fn strings_of_protocol_0() {
        assert_eq!(quoted(b"'a\\x00\\n\\\\\\''").unwrap(), b"a\0\n\\'");
        assert!(quoted(b"'").is_err() && quoted(b"'\\x0'").is_err() && quoted(b"'\\'").is_err());
        assert_eq!(raw_unicode(b"\xe9\\u20ac\\U0001f600").unwrap(), "\u{e9}\u{20ac}\u{1f600}");
        assert!(raw_unicode(b"\\ud800").is_err() && raw_unicode(b"\\u12").is_err());
    }
}
