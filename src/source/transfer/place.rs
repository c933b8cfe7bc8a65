//! Where what comes goes: to a file, to memory, or to both.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::write_error;
use crate::content::Window;
use crate::error::Result;
use crate::source::RangeReader;
use crate::source::checksum::{Checksum, Sum};
use crate::source::reading::{BUFFER_BYTES, Sink};

/// Where the bytes of a part go.
pub struct Place<'p> {
    pub range: Range<u64>,
    /// For what does not stay in memory.
    pub buffer: &'p mut [u8],
    pub window: Option<&'p mut Window>,
    pub file: Option<&'p File>,
    pub path: &'p Path,
    /// Once something has come.
    pub sum: Option<Sum>,
    pub expected: Option<Checksum>,
    pub bytes: &'p AtomicU64,
}

impl Place<'_> {
    /// A part that is on the disk from before.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_again(&mut self, file: &File) -> std::io::Result<()> {
        let mut sum = Sum::begin(self.expected.as_ref(), self.range.start);
        let mut at = self.range.start;
        while at < self.range.end {
            let left = usize::try_from(self.range.end - at).unwrap_or(usize::MAX);
            let room = self.room(at);
            let most = room.len().min(left).min(BUFFER_BYTES);
            file.read_exact_at(&mut room[..most], at)?;
            sum.update(&room[..most]);
            at += most as u64;
        }
        self.sum = Some(sum);
        Ok(())
    }
}

impl Sink for Place<'_> {
    #[allow(clippy::cast_possible_truncation)] // no farther than the window is long
    fn room(&mut self, at: u64) -> &mut [u8] {
        match &mut self.window {
            Some(window) => &mut window.bytes()[(at - self.range.start) as usize..],
            None => self.buffer,
        }
    }

    fn took(&mut self, reader: &dyn RangeReader, at: u64, bytes: usize) -> Result<()> {
        if at == self.range.start {
            self.sum = None; // what only comes whole begins again
        }
        if self.sum.is_none() {
            self.expected = reader.checksum().cloned().or(self.expected.take());
        }
        let mut sum = self.sum.take().unwrap_or_else(|| Sum::begin(self.expected.as_ref(), at));
        let (file, path) = (self.file, self.path);
        let taken = &self.room(at)[..bytes];
        sum.update(taken);
        file.map_or(Ok(()), |file| file.write_all_at(taken, at)).map_err(|error| write_error(path, &error))?;
        self.sum = Some(sum);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// Makes the file, of its full size when it comes in parts, which are written in any order.
///
/// # Errors
/// When it cannot be made.
pub fn create(path: &Path, bytes: u64, in_parts: bool) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(!in_parts);
    let file = match options.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            options.open(path)?
        }
        opened => opened?,
    };
    if in_parts {
        file.set_len(bytes)?;
    }
    Ok(file)
}
