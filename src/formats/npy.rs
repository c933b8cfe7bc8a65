//! numpy's element types as text, `<f8`, and its `.npy` files: a short header, which is a Python literal, then bytes.

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::formats::graph::{Array, ElementType, Field};
use crate::tensor::Excerpt;

/// Records within records; each level is copied with its parent.
pub const MAX_RECORD_DEPTH: usize = 8;
/// As numpy's.
pub const MAX_DIMENSIONS: usize = 64;
/// numpy itself reads ten thousand bytes unless told that the file is to be trusted.
const MAX_HEADER_BYTES: usize = 1 << 16;

/// Reads `<f8`, `|b1`, `>U5`, `O`.
///
/// # Errors
/// When it is none of numpy's element types.
pub fn element_type(text: &str) -> Result<ElementType> {
    let unknown = || Error::load(format!("\"{}\" is not an element type of numpy", Excerpt(text)));
    let (big_endian, rest) = match text.as_bytes() {
        [b'>', ..] => (true, &text[1..]),
        [b'<' | b'|' | b'=', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    if !rest.is_ascii() {
        return Err(unknown());
    }
    let kind = *rest.as_bytes().first().ok_or_else(unknown)?;
    // Times carry their unit: M8[ns].
    let digits = rest[1..].split('[').next().unwrap_or_default();
    let number: usize = if digits.is_empty() { 0 } else { digits.parse().map_err(|_| unknown())? };
    let size = match (kind, number) {
        (b'?', 0) => return Ok(ElementType::plain(b'b', 1)),
        (b'b', 1) => 1,
        (b'i' | b'u', 1 | 2 | 4 | 8) => number,
        (b'f', 2 | 4 | 8 | 12 | 16) => number,
        (b'c', 8 | 16 | 24 | 32) => number,
        (b'M' | b'm', 8) => 8,
        (b'O', 0 | 4 | 8) => 8,
        (b'U', _) => number.checked_mul(4).ok_or_else(unknown)?,
        (b'S' | b'V' | b'a', _) => number,
        _ => return Err(unknown()),
    };
    let kind = if kind == b'a' { b'S' } else { kind };
    Ok(ElementType { kind, size, big_endian, fields: Vec::new() })
}

/// How deep records lie within records.
pub fn record_depth(element: &ElementType) -> usize {
    element.fields.iter().map(|field| 1 + record_depth(&field.element)).max().unwrap_or_default()
}

/// A record's element type.
///
/// # Errors
/// When records are nested deeper than [`MAX_RECORD_DEPTH`] or a field lies outside.
pub fn record(size: usize, fields: Vec<Field>) -> Result<ElementType> {
    let outside = fields.iter().find(|field| field.offset.checked_add(field.element.size).is_none_or(|end| end > size));
    if let Some(field) = outside {
        return Err(Error::load(format!("field \"{}\" lies outside its record", Excerpt(&field.name))));
    }
    let element = ElementType { kind: b'V', size, big_endian: false, fields };
    if record_depth(&element) > MAX_RECORD_DEPTH {
        return Err(Error::load(format!("records are nested deeper than {MAX_RECORD_DEPTH}")));
    }
    Ok(element)
}

/// Reads an `.npy` file of version 1 to 3.
///
/// # Errors
/// When it is damaged, or holds Python objects.
pub fn read(file: &Bytes) -> Result<Array> {
    let damaged = || Error::load("not an .npy file, or a damaged one");
    let (length, start) = match **file {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, ..] => (usize::from(u16::from_le_bytes([a, b])), 10),
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d, ..] => {
            (u32::from_le_bytes([a, b, c, d]) as usize, 12)
        }
        _ => return Err(damaged()),
    };
    if length > MAX_HEADER_BYTES {
        return Err(Error::load(format!("the .npy file's header has more than {MAX_HEADER_BYTES} bytes")));
    }
    let header = file.get(start..start + length).and_then(|text| std::str::from_utf8(text).ok()).ok_or_else(damaged)?;
    let Some(Literal::Dict(entries)) = Literal::parse(header) else { return Err(damaged()) };
    let find = |name: &str| entries.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    let (Some(descr), Some(Literal::Bool(fortran)), Some(Literal::Sequence(shape))) =
        (find("descr"), find("fortran_order"), find("shape"))
    else {
        return Err(damaged());
    };
    let element = described(descr)?;
    if has_objects(&element) {
        return Err(Error::load("the array holds Python objects, which an .npy file has as a pickle"));
    }
    let shape = shape.iter().map(|size| match size {
        Literal::Int(size) => usize::try_from(*size).map_err(|_| damaged()),
        _ => Err(damaged()),
    });
    let shape = shape.collect::<Result<Vec<usize>>>()?;
    if shape.len() > MAX_DIMENSIONS {
        return Err(damaged());
    }
    Array::plain(shape, *fortran, element, file.slice(start + length..))
}

/// Whether elements, or fields of them, are references.
pub fn has_objects(element: &ElementType) -> bool {
    element.is_object() || element.fields.iter().any(|field| has_objects(&field.element))
}

/// `'<f8'`, or for records `[('left', '<i8'), ('', '|V7'), ('box', '<f4', (2, 2))]`.
fn described(descr: &Literal) -> Result<ElementType> {
    let damaged = || Error::load("the .npy file's element type is damaged");
    let parts = match descr {
        Literal::Text(text) => return element_type(text),
        Literal::Sequence(parts) => parts,
        _ => return Err(damaged()),
    };
    let mut fields = Vec::with_capacity(parts.len());
    let mut offset: usize = 0;
    for part in parts {
        let Literal::Sequence(part) = part else { return Err(damaged()) };
        let (name, element, shape) = match part.as_slice() {
            [name, element] => (name, element, None),
            [name, element, Literal::Sequence(shape)] => (name, element, Some(shape)),
            _ => return Err(damaged()),
        };
        // A name may come with a title.
        let name = match name {
            Literal::Text(name) => name,
            Literal::Sequence(names) => match names.as_slice() {
                [_, Literal::Text(name)] => name,
                _ => return Err(damaged()),
            },
            _ => return Err(damaged()),
        };
        let mut element = described(element)?;
        if let Some(shape) = shape {
            let count = shape.iter().try_fold(1_usize, |count, size| match size {
                Literal::Int(size) => count.checked_mul(usize::try_from(*size).ok()?),
                _ => None,
            });
            let size = count.and_then(|count| count.checked_mul(element.size)).ok_or_else(damaged)?;
            element = ElementType::plain(b'V', size);
        }
        let size = element.size;
        // Padding has no name.
        if !name.is_empty() {
            fields.push(Field { name: name.as_str().into(), offset, element });
        }
        offset = offset.checked_add(size).ok_or_else(damaged)?;
    }
    record(offset, fields)
}

/// As much of Python's literals as numpy writes.
#[derive(Debug, PartialEq)]
enum Literal {
    Text(String),
    Int(i64),
    Bool(bool),
    Sequence(Vec<Literal>),
    Dict(Vec<(String, Literal)>),
}

impl Literal {
    fn parse(text: &str) -> Option<Literal> {
        let mut rest = text;
        let value = Literal::next(&mut rest, 0)?;
        rest.trim().is_empty().then_some(value)
    }

    fn next(rest: &mut &str, depth: usize) -> Option<Literal> {
        if depth > 4 * MAX_RECORD_DEPTH {
            return None;
        }
        *rest = rest.trim_start();
        let first = rest.chars().next()?;
        match first {
            '\'' | '"' => {
                let (text, after) = rest[1..].split_once(first)?;
                *rest = after;
                (!text.contains('\\')).then(|| Literal::Text(text.to_owned()))
            }
            '{' => {
                let mut entries = Vec::new();
                *rest = &rest[1..];
                while !closes(rest, '}') {
                    let Literal::Text(key) = Literal::next(rest, depth + 1)? else { return None };
                    *rest = rest.trim_start().strip_prefix(':')?;
                    entries.push((key, Literal::next(rest, depth + 1)?));
                    comma(rest, '}')?;
                }
                Some(Literal::Dict(entries))
            }
            '(' | '[' => {
                let close = if first == '(' { ')' } else { ']' };
                let mut items = Vec::new();
                *rest = &rest[1..];
                while !closes(rest, close) {
                    items.push(Literal::next(rest, depth + 1)?);
                    comma(rest, close)?;
                }
                Some(Literal::Sequence(items))
            }
            _ => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                *rest = after;
                match word {
                    "True" => Some(Literal::Bool(true)),
                    "False" => Some(Literal::Bool(false)),
                    // Python 2 wrote long integers as 3L.
                    _ => word.strip_suffix('L').unwrap_or(word).parse().ok().map(Literal::Int),
                }
            }
        }
    }
}

fn closes(rest: &mut &str, close: char) -> bool {
    *rest = rest.trim_start();
    rest.strip_prefix(close).inspect(|after| *rest = after).is_some()
}

/// After an element: a comma, or the end, which stays.
fn comma(rest: &mut &str, close: char) -> Option<()> {
    *rest = rest.trim_start();
    match rest.strip_prefix(',') {
        Some(after) => *rest = after,
        None => return rest.starts_with(close).then_some(()),
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(header: &str, data: &[u8]) -> Bytes {
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(data);
        file.into()
    }

    #[test]
    fn headers_of_plain_arrays_and_records() {
        let array = read(&npy("{'descr': '>i2', 'fortran_order': True, 'shape': (2, 1), }\n", &[0, 1, 0, 2])).unwrap();
        assert_eq!((array.shape.as_slice(), array.fortran), (&[2, 1][..], true));
        assert_eq!(array.integers().unwrap(), [1, 2]);
        let header = "{'descr': [('a', '|u1'), ('', '|V1'), ('b', '<u2')], 'fortran_order': False, 'shape': (1,)}";
        let array = read(&npy(header, &[7, 0, 1, 1])).unwrap();
        assert_eq!(array.field("b").unwrap(), Some(vec![257.0]));
        assert_eq!(read(&npy("{'descr': '<U0', 'fortran_order': False, 'shape': ()}", b"")).unwrap().shape.len(), 0);
    }

    #[test]
    fn damaged_headers_are_refused() {
        for header in [
            "",
            "{",
            "{'descr': '<f8'}",
            "{'descr': '<f9', 'fortran_order': False, 'shape': (0,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '|O', 'fortran_order': False, 'shape': (0,)}",
            "{'descr': [('a', [('b'", // and so on
        ] {
            assert!(read(&npy(header, b"")).is_err(), "{header}");
        }
        assert!(read(&npy(&"[".repeat(60_000), b"")).is_err());
        let wide =
            |length: u32| [&b"\x93NUMPY\x02\x00"[..], &length.to_le_bytes(), &vec![b' '; 1 << 17]].concat().into();
        assert!(read(&wide(1 << 16)).unwrap_err().message().contains("damaged"));
        assert!(read(&wide((1 << 16) + 1)).unwrap_err().message().contains("more than 65536"));
    }
}
