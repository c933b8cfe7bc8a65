//! An archive that only comes whole: it is brought to the disk first, and read from there.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Take};
use std::ops::Range;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::source::{RangeReader, RemoteFile, Source, Trouble};

/// One file, at this path.
pub struct OnDisk(pub PathBuf);

impl OnDisk {
    fn trouble(&self, error: &std::io::Error) -> Trouble {
        Trouble { error: Error::load(format!("{}: cannot be read again: {error}", self.0.display())), retry: None }
    }
}

impl Source for OnDisk {
    fn manifest(&self) -> Result<Vec<RemoteFile>> {
        Ok(Vec::new()) // whoever made it has one
    }

    fn open(&self, _: &RemoteFile, range: Range<u64>) -> Result<Box<dyn RangeReader + '_>, Trouble> {
        let opened = File::open(&self.0).and_then(|mut file| file.seek(SeekFrom::Start(range.start)).map(|_| file));
        let file = opened.map_err(|error| self.trouble(&error))?;
        Ok(Box::new(Reading { source: self, file: file.take(range.end - range.start) }))
    }

    fn attempts(&self) -> u32 {
        1
    }

    fn stop(&self) {}
}

struct Reading<'s> {
    source: &'s OnDisk,
    file: Take<File>,
}

impl RangeReader for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Trouble> {
        let read = self.file.read(buffer).map_err(|error| self.source.trouble(&error))?;
        if read == 0 && self.file.limit() > 0 {
            return Err(self.source.trouble(&std::io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(read)
    }
}
