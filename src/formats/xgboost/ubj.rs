//! Universal Binary JSON, of which xgboost writes a part: names and texts have 64-bit lengths, arrays of numbers give
//! their type and count in front. All numbers are big-endian.

use super::document::{Input, MAX_DEPTH, Number, wrong};
use crate::content::Content;
use crate::error::{Error, Result};

pub(super) struct Ubj<'a> {
    content: &'a Content,
    /// What is known to have come.
    bytes: &'a [u8],
    at: usize,
}

/// Bytes of a number.
fn width(marker: u8) -> Option<usize> {
    match marker {
        b'i' | b'U' | b'C' => Some(1),
        b'I' => Some(2),
        b'l' | b'd' => Some(4),
        b'L' | b'D' => Some(8),
        _ => None,
    }
}

/// What is known of an array's elements before the first.
#[derive(Clone, Copy)]
struct Head {
    /// All elements are of this type and come without it.
    marker: Option<u8>,
    /// Otherwise the array ends with `]`.
    count: Option<usize>,
}

impl<'a> Ubj<'a> {
    pub fn new(content: &'a Content, at: usize) -> Self {
        Ubj { content, bytes: &[], at }
    }

    /// How much of the file is still to be read.
    fn left(&self) -> usize {
        self.content.len() - self.at
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.saturating_add(length);
        if end > self.bytes.len() {
            self.bytes = self.content.upto(end);
        }
        let taken = self.bytes.get(self.at..end).ok_or_else(|| {
            let left = self.left();
            wrong(self.at, format_args!("{length} bytes should follow, but only {left} do: was the file cut short?"))
        })?;
        self.at = end;
        Ok(taken)
    }

    fn exact<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn marker(&mut self) -> Result<u8> {
        self.exact().map(|[marker]| marker)
    }

    fn peek(&mut self) -> Option<u8> {
        if self.at >= self.bytes.len() {
            self.bytes = self.content.upto(self.at + 1);
        }
        self.bytes.get(self.at).copied()
    }

    fn unexpected(&self, what: &str, marker: u8) -> Error {
        wrong(self.at - 1, format_args!("expected {what}, got type {:?}", char::from(marker)))
    }

    fn expect(&mut self, marker: u8, what: &str) -> Result<()> {
        let got = self.marker()?;
        if got == marker { Ok(()) } else { Err(self.unexpected(what, got)) }
    }

    fn integer_of(&mut self, marker: u8) -> Result<Option<i64>> {
        Ok(Some(match marker {
            b'i' => i64::from(i8::from_be_bytes(self.exact()?)),
            b'U' | b'C' => i64::from(self.exact::<1>()?[0]),
            b'I' => i64::from(i16::from_be_bytes(self.exact()?)),
            b'l' => i64::from(i32::from_be_bytes(self.exact()?)),
            b'L' => i64::from_be_bytes(self.exact()?),
            b'T' => 1,
            b'F' => 0,
            _ => return Ok(None),
        }))
    }

    /// A length is at most what the file has left, whatever its elements are.
    fn length(&mut self) -> Result<usize> {
        let marker = self.marker()?;
        let at = self.at;
        let length = self.integer_of(marker)?.ok_or_else(|| self.unexpected("a length", marker))?;
        let left = self.left();
        let fits = usize::try_from(length).ok().filter(|length| *length <= left);
        fits.ok_or_else(|| wrong(at, format_args!("a length of {length}, but only {left} bytes follow")))
    }

    fn string(&mut self) -> Result<&'a str> {
        let length = self.length()?;
        let at = self.at;
        str::from_utf8(self.take(length)?).map_err(|_| wrong(at, "the text is not UTF-8"))
    }

    fn head(&mut self) -> Result<Head> {
        let marker = if self.peek() == Some(b'$') {
            self.at += 1;
            let marker = self.marker()?;
            // Elements without bytes would let a small file claim any number of them.
            width(marker).ok_or_else(|| self.unexpected("a type of numbers", marker))?;
            Some(marker)
        } else {
            None
        };
        if self.peek() == Some(b'#') {
            self.at += 1;
            return self.length().map(|count| Head { marker, count: Some(count) });
        }
        if marker.is_some() {
            Err(wrong(self.at, "a typed array needs a count"))
        } else {
            Ok(Head { marker, count: None })
        }
    }

    /// Whether an element follows; takes the `]` that says there is none.
    fn another(&mut self, head: Head, index: usize) -> bool {
        let ends = head.count.map_or(self.peek() == Some(b']'), |count| index >= count);
        if ends && head.count.is_none() {
            self.at += 1;
        }
        !ends
    }

    fn number<N: Number>(&mut self, marker: u8) -> Result<N> {
        let number = match marker {
            b'd' => N::from_f32(f32::from_be_bytes(self.exact()?)),
            b'D' => N::from_f64(f64::from_be_bytes(self.exact()?)),
            _ => self.integer_of(marker)?.and_then(N::from_integer),
        };
        number.ok_or_else(|| wrong(self.at, format_args!("expected {}, got type {:?}", N::NAME, char::from(marker))))
    }

    /// Moves past a scalar's payload; `false` when the marker is that of an object or array.
    fn skip_scalar(&mut self, marker: u8) -> Result<bool> {
        let length = match marker {
            b'Z' | b'N' | b'T' | b'F' => 0,
            b'S' | b'H' => self.length()?,
            b'{' | b'[' => return Ok(false),
            _ => width(marker).ok_or_else(|| self.unexpected("a value", marker))?,
        };
        self.take(length).map(|_| true)
    }

    fn skip_marked(&mut self, marker: u8, depth: usize) -> Result<()> {
        if self.skip_scalar(marker)? {
            return Ok(());
        }
        if depth == MAX_DEPTH {
            return Err(wrong(self.at, format_args!("values are nested deeper than {MAX_DEPTH}")));
        }
        if marker == b'{' {
            while self.peek() != Some(b'}') {
                self.string()?;
                let marker = self.marker()?;
                self.skip_marked(marker, depth + 1)?;
            }
            self.at += 1;
            return Ok(());
        }
        let head = self.head()?;
        if let (Some(width), Some(count)) = (head.marker.and_then(width), head.count) {
            return self.take(count.saturating_mul(width)).map(drop);
        }
        let mut index = 0;
        while self.another(head, index) {
            let marker = self.marker()?;
            self.skip_marked(marker, depth + 1)?;
            index += 1;
        }
        Ok(())
    }
}

impl Input for Ubj<'_> {
    fn object(&mut self, mut field: impl FnMut(&str, &mut Self) -> Result<()>) -> Result<()> {
        self.expect(b'{', "an object")?;
        while self.peek() != Some(b'}') {
            let name = self.string()?;
            field(name, self)?;
        }
        self.at += 1;
        Ok(())
    }

    fn array(&mut self, mut element: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.expect(b'[', "an array")?;
        let head = self.head()?;
        if head.marker.is_some() {
            return Err(wrong(self.at, "expected an array of texts or objects, got one of numbers"));
        }
        let mut index = 0;
        while self.another(head, index) {
            element(self).map_err(|error| error.context(index))?;
            index += 1;
        }
        Ok(())
    }

    fn numbers<N: Number>(&mut self) -> Result<Vec<N>> {
        self.expect(b'[', "an array")?;
        let head = self.head()?;
        // At most as many as bytes are left, which the length was checked against.
        let mut numbers = Vec::with_capacity(head.count.unwrap_or(0));
        if let (Some(b'd'), Some(count)) = (head.marker, head.count) {
            let bytes = self.take(count.saturating_mul(4))?;
            let (values, _) = bytes.as_chunks::<4>();
            numbers.extend(values.iter().filter_map(|value| N::from_f32(f32::from_be_bytes(*value))));
            return if numbers.len() == count { Ok(numbers) } else { Err(wrong(self.at, "expected integers")) };
        }
        while self.another(head, numbers.len()) {
            let marker = head.marker.map_or_else(|| self.marker(), Ok)?;
            let number = self.number(marker)?;
            numbers.push(number);
        }
        Ok(numbers)
    }

    fn integer(&mut self) -> Result<i64> {
        let marker = self.marker()?;
        self.number(marker)
    }

    fn text(&mut self) -> Result<String> {
        self.expect(b'S', "a text")?;
        self.string().map(str::to_owned)
    }

    fn skip(&mut self) -> Result<()> {
        let marker = self.marker()?;
        self.skip_marked(marker, 0)
    }
}
