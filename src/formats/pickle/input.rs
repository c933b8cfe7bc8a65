//! The bytes of a pickle, read front to back. Every length is checked against what is left before it is used.
//! Since protocol 4 instructions come in frames that say their length: one that does not fit shows that bytes are lost.

use bytes::Bytes;

use crate::error::{Error, Result};

pub struct Input {
    bytes: Bytes,
    at: usize,
    /// Where the last frame ends.
    frame_end: usize,
    /// How far the instruction at hand may read: no further than its frame goes.
    limit: usize,
}

impl Input {
    pub fn new(bytes: Bytes) -> Input {
        let limit = bytes.len();
        Input { bytes, at: 0, frame_end: 0, limit }
    }

    /// The first byte of an instruction.
    pub fn opcode(&mut self) -> Result<u8> {
        self.limit = if self.at < self.frame_end { self.frame_end } else { self.bytes.len() };
        self.byte()
    }

    /// Begins a frame, whose length comes first.
    pub fn frame(&mut self) -> Result<()> {
        let length = self.length::<8>()?;
        self.leave_frame()?;
        self.frame_end = self.end(length)?;
        Ok(())
    }

    /// For what lies outside of frames.
    pub fn leave_frame(&mut self) -> Result<()> {
        if self.at < self.frame_end {
            return Err(Error::load("a frame is longer than its instructions: is the file damaged?"));
        }
        self.limit = self.bytes.len();
        Ok(())
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
        let rest = &self.bytes[self.at..self.limit];
        let length = memchr::memchr(b'\n', rest).ok_or_else(|| self.cut())?;
        self.at += length + 1;
        Ok(&rest[..length])
    }

    pub fn line_text(&mut self) -> Result<&str> {
        let line = self.line()?;
        std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).map_err(|_| Error::load("text that is not UTF-8"))
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = *self.bytes[self.at..self.limit].first_chunk().ok_or_else(|| self.cut())?;
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
        usize::try_from(u64::from_le_bytes(wide)).map_err(|_| self.cut())
    }

    fn end(&self, count: usize) -> Result<usize> {
        self.at.checked_add(count).filter(|end| *end <= self.limit).ok_or_else(|| self.cut())
    }

    fn cut(&self) -> Error {
        Error::load(if self.limit < self.bytes.len() {
            "a frame ends in the middle of an instruction: is the file damaged?"
        } else {
            "the file ends in the middle of a value: is it complete?"
        })
    }
}
