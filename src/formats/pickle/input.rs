//! The bytes of a pickle, read front to back. Every length is checked against what is left before it is used.
//! Since protocol 4 instructions come in frames that say their length: one that does not fit shows that bytes are lost.

use bytes::Bytes;

use crate::content::Content;
use crate::error::{Error, Result};

pub struct Input {
    content: Content,
    bytes: usize,
    at: usize,
    /// Where the last frame ends.
    frame_end: usize,
    /// How far the instruction at hand may read: no further than its frame goes.
    limit: usize,
}

impl Input {
    pub fn new(content: Content) -> Input {
        let bytes = content.len();
        Input { content, bytes, at: 0, frame_end: 0, limit: bytes }
    }

    /// The first byte of an instruction.
    pub fn opcode(&mut self) -> Result<u8> {
        self.limit = if self.at < self.frame_end { self.frame_end } else { self.bytes };
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
        self.limit = self.bytes;
        Ok(())
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The next bytes, without copying them.
    pub fn take(&mut self, count: usize) -> Result<Bytes> {
        let end = self.end(count)?;
        let taken = self.content.slice(self.at..end).ok_or_else(|| self.cut())?;
        self.at = end;
        Ok(taken)
    }

    /// The next bytes as text.
    pub fn text(&mut self, count: usize) -> Result<&str> {
        let (at, end) = (self.at, self.end(count)?);
        self.at = end;
        let taken = self.content.upto(end).get(at..end).ok_or_else(|| self.cut())?;
        std::str::from_utf8(taken).map_err(|_| Error::load("text that is not UTF-8"))
    }

    /// Up to the next line feed, without it.
    pub fn line(&mut self) -> Result<&[u8]> {
        let (begun, mut seen) = (self.at, self.at);
        loop {
            let come = self.content.upto(seen + 1);
            let come = &come[..self.limit.min(come.len())];
            let Some(more) = come.get(seen..).filter(|more| !more.is_empty()) else { return Err(self.cut()) };
            if let Some(end) = memchr::memchr(b'\n', more) {
                self.at = seen + end + 1;
                return Ok(&self.content.upto(self.at)[begun..seen + end]);
            }
            seen = come.len();
        }
    }

    pub fn line_text(&mut self) -> Result<&str> {
        let line = self.line()?;
        std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).map_err(|_| Error::load("text that is not UTF-8"))
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let end = self.end(N)?;
        let bytes = self.content.upto(end).get(self.at..end).and_then(<[u8]>::first_chunk);
        let bytes = *bytes.ok_or_else(|| self.cut())?;
        self.at = end;
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
        Error::load(if self.limit < self.bytes {
            "a frame ends in the middle of an instruction: is the file damaged?"
        } else {
            "the file ends in the middle of a value: is it complete?"
        })
    }
}
