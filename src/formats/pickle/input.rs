//! The bytes of a pickle, read front to back. Every length is checked against what is left before it is used.

use bytes::Bytes;

use crate::error::{Error, Result};

pub struct Input {
    bytes: Bytes,
    at: usize,
}

impl Input {
    pub fn new(bytes: Bytes) -> Input {
        Input { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The next bytes, without copying them.
    pub fn take(&mut self, count: usize) -> Result<Bytes> {
        let end = self.end(count)?;
        let taken = self.bytes.slice(self.at..end);
        self.at = end;
        Ok(taken)
    }

    /// The next bytes as text.
    pub fn text(&mut self, count: usize) -> Result<&str> {
        let end = self.end(count)?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        std::str::from_utf8(taken).map_err(|_| Error::load("text that is not UTF-8"))
    }

    /// Up to the next line feed, without it.
    pub fn line(&mut self) -> Result<&[u8]> {
        let rest = &self.bytes[self.at..];
        let length = memchr::memchr(b'\n', rest).ok_or_else(cut)?;
        self.at += length + 1;
        Ok(&rest[..length])
    }

    pub fn line_text(&mut self) -> Result<&str> {
        let line = self.line()?;
        std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).map_err(|_| Error::load("text that is not UTF-8"))
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = *self.bytes[self.at..].first_chunk().ok_or_else(cut)?;
        self.at += N;
        Ok(bytes)
    }

    pub fn byte(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A length of one, four or eight bytes, as most opcodes have it.
    pub fn length<const N: usize>(&mut self) -> Result<usize> {
        let bytes = self.array::<N>()?;
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&bytes);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|_| cut())
    }

    fn end(&self, count: usize) -> Result<usize> {
        self.at.checked_add(count).filter(|end| *end <= self.bytes.len()).ok_or_else(cut)
    }
}

fn cut() -> Error {
    Error::load("the file ends in the middle of a value: is it complete?")
}
