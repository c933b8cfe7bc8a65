//! JSON tensors: nested arrays of scalars straight into little-endian bytes and back, with no tree in between.
//!
//! The envelope around them is serde's; it hands over each tensor as the raw text of one JSON value, whose
//! well-formedness serde has checked. What is decided here is what serde cannot know: the dtype that the model
//! or the request declares, that rows have equal lengths, and which element to name in an error.
//!
//! Numbers become `FP32` by way of `f64`, as Python's json and numpy do it, so that the same text gives the same
//! bits as on the other servers. `null` is NaN in both directions, as orjson and pandas write it: JSON has no NaN.

use bytes::BufMut;
use half::{bf16, f16};

use crate::error::{Error, Result};
use crate::tensor::{DType, Dims, Excerpt, MAX_RANK, Tensor, push_bytes_element};

/// Appends the elements of `text`, a JSON scalar or nested arrays of scalars, and returns the dimensions found:
/// none for a scalar.
///
/// # Errors
/// Ragged rows, an element of another type, a number that does not fit; the element is named by its indices.
pub fn parse(text: &str, dtype: DType, data: &mut Vec<u8>) -> Result<Vec<usize>> {
    match dtype {
        DType::Bool => walk(text, |scalar| match scalar {
            "true" => Ok(data.put_u8(1)),
            "false" => Ok(data.put_u8(0)),
            _ => Err(Misfit::Type),
        }),
        DType::Uint8 => walk(text, |scalar| integer(scalar).map(|value| data.put_u8(value))),
        DType::Uint16 => walk(text, |scalar| integer(scalar).map(|value| data.put_u16_le(value))),
        DType::Uint32 => walk(text, |scalar| integer(scalar).map(|value| data.put_u32_le(value))),
        DType::Uint64 => walk(text, |scalar| integer(scalar).map(|value| data.put_u64_le(value))),
        DType::Int8 => walk(text, |scalar| integer(scalar).map(|value| data.put_i8(value))),
        DType::Int16 => walk(text, |scalar| integer(scalar).map(|value| data.put_i16_le(value))),
        DType::Int32 => walk(text, |scalar| integer(scalar).map(|value| data.put_i32_le(value))),
        DType::Int64 => walk(text, |scalar| integer(scalar).map(|value| data.put_i64_le(value))),
        DType::Fp16 => walk(text, |scalar| {
            let wide = float(scalar)?;
            let value = f16::from_f64(wide);
            fits(wide, value.is_finite()).map(|()| data.put_u16_le(value.to_bits()))
        }),
        DType::Bf16 => walk(text, |scalar| {
            let wide = float(scalar)?;
            let value = bf16::from_f64(wide);
            fits(wide, value.is_finite()).map(|()| data.put_u16_le(value.to_bits()))
        }),
        DType::Fp32 => walk(text, |scalar| {
            let wide = float(scalar)?;
            #[allow(clippy::cast_possible_truncation)] // the rounding is what FP32 means
            let value = wide as f32;
            fits(wide, value.is_finite()).map(|()| data.put_f32_le(value))
        }),
        DType::Fp64 => walk(text, |scalar| float(scalar).map(|value| data.put_f64_le(value))),
        // Whoever reads the column later knows what it may hold.
        DType::Json => walk(text, |scalar| match scalar.as_bytes()[0] {
            b'{' => Err(Misfit::Type),
            _ => push_bytes_element(data, scalar.as_bytes()).map_err(|_| Misfit::Range),
        }),
        DType::Bytes => walk(text, |scalar| {
            if !scalar.starts_with('"') {
                return Err(Misfit::Type);
            }
            let element: String = serde_json::from_str(scalar).map_err(|_| Misfit::Type)?;
            push_bytes_element(data, element.as_bytes()).map_err(|_| Misfit::Range)
        }),
    }
    .map_err(|failure| match failure {
        Failure::Element { path, text, misfit: Misfit::Type } => {
            let place = if path.is_empty() { "the value".to_owned() } else { format!("element {path}") };
            Error::invalid(format!("{place}: expected {dtype}, got {}", describe(text)))
        }
        Failure::Element { path, text, misfit: Misfit::Range } => {
            Error::invalid(format!("element {path}: {} does not fit {dtype}", Excerpt(text)))
        }
        Failure::Layout(message) => Error::invalid(message),
    })
}

enum Misfit {
    Type,
    Range,
}

enum Failure<'a> {
    Element { path: String, text: &'a str, misfit: Misfit },
    Layout(String),
}

/// Visits every scalar in order, keeping only one counter per nesting level.
fn walk<'a>(text: &'a str, mut visit: impl FnMut(&'a str) -> Result<(), Misfit>) -> Result<Vec<usize>, Failure<'a>> {
    let bytes = text.as_bytes();
    let mut counts = [0_usize; MAX_RANK]; // elements seen so far in the open array of each level
    let mut sizes = [None; MAX_RANK]; // size of the arrays of each level, known from the first that closed
    let mut leaf_depth = None;
    let mut depth = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | b',' => {
                at += 1;
                continue;
            }
            b'[' => {
                if depth == MAX_RANK {
                    return Err(Failure::Layout(format!("arrays are nested deeper than {MAX_RANK}")));
                }
                if leaf_depth.is_some_and(|leaves| depth >= leaves) {
                    return Err(ragged(&counts[..depth], "an array", "a value"));
                }
                counts[depth] = 0;
                depth += 1;
                at += 1;
                continue;
            }
            b']' => {
                if depth == 0 {
                    return Err(Failure::Layout("unexpected \"]\"".to_owned()));
                }
                depth -= 1;
                let count = counts[depth];
                match sizes[depth] {
                    None => sizes[depth] = Some(count),
                    Some(size) if size != count => {
                        let [expected, got] = [size, count].map(|count| format!("{count} elements"));
                        return Err(ragged(&counts[..depth], &got, &expected));
                    }
                    Some(_) => {}
                }
                at += 1;
            }
            _ => {
                let scalar = &text[at..scalar_end(bytes, at)];
                let misplaced =
                    *leaf_depth.get_or_insert(depth) != depth || sizes.get(depth).is_some_and(Option::is_some);
                if misplaced {
                    return Err(ragged(&counts[..depth], "a value", "an array"));
                }
                visit(scalar).map_err(|misfit| Failure::Element {
                    path: path(&counts[..depth]),
                    text: scalar,
                    misfit,
                })?;
                at += scalar.len();
            }
        }
        // A value, scalar or array, is complete.
        match depth.checked_sub(1) {
            Some(level) => counts[level] += 1,
            None => return Ok(sizes.into_iter().map_while(|size| size).collect()),
        }
    }
    Err(Failure::Layout("the array is not closed".to_owned()))
}

/// The end of the scalar (or of the misplaced object) that begins at `start`; always past `start`.
fn scalar_end(bytes: &[u8], start: usize) -> usize {
    let rest = &bytes[start..];
    let length = if rest[0] == b'"' {
        let mut escaped = false;
        rest.iter()
            .skip(1)
            .position(|&byte| {
                let closes = byte == b'"' && !escaped;
                escaped = byte == b'\\' && !escaped;
                closes
            })
            .map(|quote| quote + 2)
    } else {
        rest.iter().position(|byte| matches!(byte, b',' | b']' | b' ' | b'\t' | b'\n' | b'\r')).map(|end| end.max(1))
    };
    length.map_or(bytes.len(), |length| start + length)
}

fn ragged<'a>(indices: &[usize], got: &str, expected: &str) -> Failure<'a> {
    Failure::Layout(format!("element {} has {got} where its siblings have {expected}", path(indices)))
}

fn path(indices: &[usize]) -> String {
    indices.iter().fold(String::new(), |path, index| path + &format!("[{index}]"))
}

fn describe(text: &str) -> String {
    let kind = match text.as_bytes().first() {
        Some(b'"') => "string ",
        Some(b'{') => return "an object".to_owned(),
        Some(b'-' | b'0'..=b'9') => "number ",
        _ => "",
    };
    format!("{kind}{}", Excerpt(text))
}

/// Integers may be written as `3`, `3.0` or `3e0`, because not every client's JSON writer tells them apart.
fn integer<T: std::str::FromStr + TryFrom<i64>>(text: &str) -> Result<T, Misfit> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53: beyond it an f64 no longer holds every integer
    if let Ok(value) = text.parse() {
        return Ok(value);
    }
    let value: f64 = number(text)?;
    if value.fract() != 0.0 {
        return Err(Misfit::Type);
    }
    #[allow(clippy::cast_possible_truncation)] // bounded by EXACT
    let whole = if value.abs() <= EXACT { value as i64 } else { return Err(Misfit::Range) };
    T::try_from(whole).map_err(|_| Misfit::Range)
}

fn float(text: &str) -> Result<f64, Misfit> {
    if text == "null" {
        return Ok(f64::NAN);
    }
    let value = number(text)?;
    if value.is_finite() { Ok(value) } else { Err(Misfit::Range) }
}

/// Only the rounded value tells: the shortest text of the largest FP32 lies above it.
fn fits(wide: f64, rounded_is_finite: bool) -> Result<(), Misfit> {
    if rounded_is_finite || wide.is_nan() { Ok(()) } else { Err(Misfit::Range) }
}

fn number(text: &str) -> Result<f64, Misfit> {
    // Rust also parses "inf" and "NaN"; JSON has neither.
    match text.as_bytes().first() {
        Some(b'-' | b'0'..=b'9') => text.parse().map_err(|_| Misfit::Type),
        _ => Err(Misfit::Type),
    }
}

/// Writes all elements as one flat array, as V2 wants it.
///
/// # Errors
/// When a `BYTES` element is not UTF-8, which JSON cannot carry.
pub fn write_flat(out: &mut Vec<u8>, tensor: &Tensor) -> Result<()> {
    let elements = Elements::of(tensor)?;
    out.push(b'[');
    elements.write(out, 0, tensor.shape().elements());
    out.push(b']');
    Ok(())
}

/// A tensor that can be written row by row as nested arrays, as V1 wants it.
pub struct Rows<'a> {
    elements: Elements<'a>,
    dims: &'a [usize],
}

impl<'a> Rows<'a> {
    /// # Errors
    /// As [`write_flat`].
    pub fn of(tensor: &'a Tensor) -> Result<Rows<'a>> {
        Ok(Rows { elements: Elements::of(tensor)?, dims: tensor.shape().dims() })
    }

    /// Writes the whole tensor.
    pub fn write_all(&self, out: &mut Vec<u8>) {
        self.write(out, self.dims, 0);
    }

    /// Writes row `row` of the outermost dimension.
    pub fn write_row(&self, out: &mut Vec<u8>, row: usize) {
        let inner = self.dims.get(1..).unwrap_or_default();
        self.write(out, inner, row * inner.iter().product::<usize>());
    }

    fn write(&self, out: &mut Vec<u8>, dims: &[usize], start: usize) {
        match dims {
            [] => self.elements.write(out, start, 1),
            [count] => {
                out.push(b'[');
                self.elements.write(out, start, *count);
                out.push(b']');
            }
            [count, inner @ ..] => {
                let stride: usize = inner.iter().product();
                out.push(b'[');
                for index in 0..*count {
                    if index > 0 {
                        out.push(b',');
                    }
                    self.write(out, inner, start + index * stride);
                }
                out.push(b']');
            }
        }
    }
}

enum Elements<'a> {
    Fixed { dtype: DType, data: &'a [u8] },
    Text(Vec<&'a str>),
}

impl<'a> Elements<'a> {
    fn of(tensor: &'a Tensor) -> Result<Elements<'a>> {
        if tensor.dtype().size().is_some() {
            return Ok(Elements::Fixed { dtype: tensor.dtype(), data: tensor.data() });
        }
        let texts = tensor.bytes_elements().map(std::str::from_utf8).collect::<Result<_, _>>().map_err(|_| {
            Error::invalid(format!(
                "output \"{}\" holds bytes that are not UTF-8, which JSON cannot carry: ask for it in binary",
                tensor.name()
            ))
        })?;
        Ok(Elements::Text(texts))
    }

    /// Writes `count` elements from `start`, separated by commas. The dtype is looked at once per run.
    fn write(&self, out: &mut Vec<u8>, start: usize, count: usize) {
        let (dtype, data) = match self {
            Elements::Fixed { dtype, data } => (*dtype, *data),
            Elements::Text(texts) => {
                return separated(out, &texts[start..start + count], |out, text| string(out, text));
            }
        };
        macro_rules! run {
            ($type:ty, $write:expr) => {{
                const SIZE: usize = size_of::<$type>();
                let (chunks, _) = data[start * SIZE..(start + count) * SIZE].as_chunks::<SIZE>();
                separated(out, chunks, |out, chunk| $write(out, <$type>::from_le_bytes(*chunk)))
            }};
        }
        match dtype {
            DType::Bool => run!(u8, |out: &mut Vec<u8>, value| {
                out.extend_from_slice(if value == 0 { b"false" } else { b"true" });
            }),
            DType::Uint8 => run!(u8, write_integer),
            DType::Uint16 => run!(u16, write_integer),
            DType::Uint32 => run!(u32, write_integer),
            DType::Uint64 => run!(u64, write_integer),
            DType::Int8 => run!(i8, write_integer),
            DType::Int16 => run!(i16, write_integer),
            DType::Int32 => run!(i32, write_integer),
            DType::Int64 => run!(i64, write_integer),
            DType::Fp16 => run!(f16, |out, value: f16| write_float(out, value.to_f32())),
            DType::Bf16 => run!(bf16, |out, value: bf16| write_float(out, value.to_f32())),
            DType::Fp32 => run!(f32, write_float),
            DType::Fp64 => run!(f64, write_float),
            DType::Bytes | DType::Json => unreachable!("these are Elements::Text"),
        }
    }
}

fn separated<T>(out: &mut Vec<u8>, items: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
}

fn write_integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// The shortest text that reads back as the same float; `null` for NaN and the infinities.
pub fn write_float(out: &mut Vec<u8>, value: impl zmij::Float + Into<f64> + Copy) {
    if value.into().is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        out.extend_from_slice(b"null");
    }
}

/// Writes numbers as an array.
pub fn write_floats(out: &mut Vec<u8>, values: &[f64]) {
    one_or_list(out, false, values.iter(), |out, value| write_float(out, *value));
}

/// Writes items as an array or, when there is just one to be written alone, bare.
pub fn one_or_list<T>(
    out: &mut Vec<u8>,
    is_one: bool,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    if !is_one {
        out.push(b'[');
    }
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    if !is_one {
        out.push(b']');
    }
}

/// Writes a JSON string with its quotes and escapes.
pub fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing a string to memory cannot fail");
}

/// `{"error": "..."}`, the body of every failed REST request.
pub fn error_body(message: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 16);
    out.extend_from_slice(br#"{"error":"#);
    string(&mut out, message);
    out.push(b'}');
    out
}

/// Appends the dimensions as a JSON array.
pub fn write_dims(out: &mut Vec<u8>, dims: &[usize]) {
    out.push(b'[');
    separated(out, dims, |out, dim| write_integer(out, *dim));
    out.push(b']');
}

/// Says how the dimensions found differ from those declared.
pub fn shape_mismatch(declared: &[usize], found: &[usize]) -> Error {
    Error::invalid(format!("shape is {}, but data is nested as {}", Dims(declared), Dims(found)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Shape;

    fn floats(text: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let mut data = Vec::new();
        let dims = parse(text, DType::Fp32, &mut data)?;
        let (chunks, _) = data.as_chunks::<4>();
        Ok((dims, chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()))
    }

    #[test]
    fn nested_arrays_give_data_and_dimensions() {
        assert_eq!(floats("[[1, 2.5],\n[ -3e2 ,4]]").unwrap(), (vec![2, 2], vec![1.0, 2.5, -300.0, 4.0]));
        assert_eq!(floats("7").unwrap(), (vec![], vec![7.0]));
        assert_eq!(floats("[]").unwrap(), (vec![0], vec![]));
        assert_eq!(floats("[[],[]]").unwrap(), (vec![2, 0], vec![]));
        assert!(floats("[null]").unwrap().1[0].is_nan());
    }

    #[test]
    fn ragged_and_misplaced_values_are_named() {
        let cases = [
            ("[[1,2],[3]]", "element [1] has 1 elements where its siblings have 2 elements"),
            ("[1,[2]]", "element [1] has an array where its siblings have a value"),
            ("[[1],2]", "element [1] has a value where its siblings have an array"),
            ("[[],1]", "element [1] has a value where its siblings have an array"),
            ("[[],[1]]", "element [1] has 1 elements where its siblings have 0 elements"),
            ("[[[1]],[2]]", "element [1][0] has a value where its siblings have an array"),
            ("[1", "the array is not closed"),
            ("]", "unexpected \"]\""),
        ];
        for (text, message) in cases {
            assert_eq!(floats(text).unwrap_err().message(), message, "{text}");
        }
        assert!(floats(&"[".repeat(100_000)).unwrap_err().message().contains("nested deeper than 16"));
    }

    #[test]
    fn elements_of_another_type_or_range_are_named() {
        let fails = |text: &str, dtype| parse(text, dtype, &mut Vec::new()).unwrap_err().message().to_owned();
        assert_eq!(fails(r#"[[1,"NaN"]]"#, DType::Fp32), "element [0][1]: expected FP32, got string \"NaN\"");
        assert_eq!(fails("[true]", DType::Fp32), "element [0]: expected FP32, got true");
        assert_eq!(fails(r#"[{"a":1}]"#, DType::Fp32), "element [0]: expected FP32, got an object");
        assert_eq!(fails("[1e39]", DType::Fp32), "element [0]: 1e39 does not fit FP32");
        assert_eq!(fails("[1e400]", DType::Fp64), "element [0]: 1e400 does not fit FP64");
        assert_eq!(fails("[256]", DType::Uint8), "element [0]: 256 does not fit UINT8");
        assert_eq!(fails("[-1]", DType::Uint64), "element [0]: -1 does not fit UINT64");
        assert_eq!(
            fails("[18446744073709551616]", DType::Uint64),
            "element [0]: 18446744073709551616 does not fit UINT64"
        );
        assert_eq!(fails("[1.5]", DType::Int32), "element [0]: expected INT32, got number 1.5");
        assert_eq!(fails("[null]", DType::Int32), "element [0]: expected INT32, got null");
        assert_eq!(fails("[1]", DType::Bool), "element [0]: expected BOOL, got number 1");
        assert_eq!(fails("[1]", DType::Bytes), "element [0]: expected BYTES, got number 1");
        assert_eq!(fails("[inf]", DType::Fp64), "element [0]: expected FP64, got inf");
    }

    #[test]
    fn integers_are_exact_to_the_last_bit_and_may_look_like_floats() {
        let mut data = Vec::new();
        parse("[9223372036854775807, -9223372036854775808, 3.0, 1e3]", DType::Int64, &mut data).unwrap();
        let values: Vec<i64> = data.as_chunks::<8>().0.iter().map(|chunk| i64::from_le_bytes(*chunk)).collect();
        assert_eq!(values, [i64::MAX, i64::MIN, 3, 1000]);
    }

    #[test]
    fn what_is_written_reads_back_bit_for_bit() {
        let values = [0.1_f32, f32::MIN_POSITIVE, f32::MAX, -0.0, 1e-45, 16_777_217.0, 0.333_333_34];
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor = Tensor::new("x", DType::Fp32, Shape::new(vec![7]).unwrap(), data.clone().into()).unwrap();
        let mut text = Vec::new();
        write_flat(&mut text, &tensor).unwrap();
        let mut back = Vec::new();
        parse(std::str::from_utf8(&text).unwrap(), DType::Fp32, &mut back).unwrap();
        assert_eq!(back, data);
    }

    #[test]
    fn strings_are_unescaped_and_escaped() {
        let mut data = Vec::new();
        let dims = parse(r#"["a\"]\\", "\u00e9,"]"#, DType::Bytes, &mut data).unwrap();
        let tensor = Tensor::new("x", DType::Bytes, Shape::new(dims).unwrap(), data.into()).unwrap();
        assert_eq!(tensor.bytes_elements().collect::<Vec<_>>(), [&b"a\"]\\"[..], "é,".as_bytes()]);
        let mut text = Vec::new();
        Rows::of(&tensor).unwrap().write_all(&mut text);
        assert_eq!(std::str::from_utf8(&text).unwrap(), r#"["a\"]\\","é,"]"#);
    }

    #[test]
    fn rows_are_written_with_their_inner_dimensions() {
        let tensor = Tensor::new("x", DType::Uint8, Shape::new(vec![2, 1, 3]).unwrap(), vec![1, 2, 3, 4, 5, 6].into());
        let tensor = tensor.unwrap();
        let rows = Rows::of(&tensor).unwrap();
        let mut text = Vec::new();
        rows.write_all(&mut text);
        rows.write_row(&mut text, 1);
        assert_eq!(std::str::from_utf8(&text).unwrap(), "[[[1,2,3]],[[4,5,6]]][[4,5,6]]");
    }
}
