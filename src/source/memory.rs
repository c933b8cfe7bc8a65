//! A source in memory: the double for tests, with a plan of what goes wrong.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;

use super::checksum::{Checksum, Sum, Sums};
use super::{RangeReader, RemoteFile, Source, Trouble};
use crate::error::{Error, Result};

#[derive(Default)]
pub struct Memory {
    files: BTreeMap<String, Bytes>,
    opened: AtomicUsize,
    /// From this many on (from 0), what is opened fails.
    pub fail_from: Option<usize>,
    /// Readers fail after so many bytes, and may be tried again.
    pub break_after: Option<usize>,
    /// What so many readers give, from the first on, has a wrong bit.
    pub damaged: usize,
    /// Whether files only come whole.
    pub whole: bool,
}

impl Memory {
    pub fn new(files: impl IntoIterator<Item = (&'static str, Bytes)>) -> Memory {
        let files = files.into_iter().map(|(path, content)| (path.to_owned(), content)).collect();
        Memory { files, ..Memory::default() }
    }

    /// How often something was opened so far.
    pub fn opened(&self) -> usize {
        self.opened.load(Relaxed)
    }
}

impl Source for Memory {
    fn manifest(&self) -> Result<Vec<RemoteFile>> {
        let file = |(path, content): (&String, &Bytes)| RemoteFile {
            path: path.clone(),
            key: path.clone(),
            bytes: content.len() as u64,
            tag: format!(
                "\"{:032x}\"",
                content.iter().fold(0_u64, |hash, byte| hash.wrapping_mul(31) + u64::from(*byte))
            ),
            whole: self.whole,
        };
        Ok(self.files.iter().map(file).collect())
    }

    fn open(&self, file: &RemoteFile, range: Range<u64>) -> Result<Box<dyn RangeReader + '_>, Trouble> {
        let number = self.opened.fetch_add(1, Relaxed);
        if self.fail_from.is_some_and(|first| number >= first) {
            let error = Error::load(format!("{}: scripted failure", file.key));
            return Err(Trouble { error, retry: None });
        }
        #[allow(clippy::cast_possible_truncation)] // what is in memory has a length that fits
        let mut content = self.files[&file.key].slice(range.start as usize..range.end as usize);
        if number < self.damaged && !content.is_empty() {
            let mut damaged = content.to_vec();
            damaged[content.len() / 2] ^= 1;
            content = damaged.into();
        }
        let checksum = if range == (0..file.bytes) { self.checksum(file).ok().flatten() } else { None };
        Ok(Box::new(Reading { content, left: self.break_after.unwrap_or(usize::MAX), checksum }))
    }

    fn checksum(&self, file: &RemoteFile) -> Result<Option<Checksum>> {
        let (mut sum, mut sums) = (Sum::begin(None, 0), Sums::default());
        sum.update(&self.files[&file.key]);
        sums.extend([sum]);
        Ok(Some(sums.whole()))
    }

    fn attempts(&self) -> u32 {
        3
    }

    fn stop(&self) {}
}

struct Reading {
    content: Bytes,
    left: usize,
    checksum: Option<Checksum>,
}

impl RangeReader for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Trouble> {
        let count = buffer.len().min(self.content.len());
        if count > self.left {
            let error = Error::load("a scripted break");
            return Err(Trouble { error, retry: Some(Duration::ZERO) });
        }
        self.left -= count;
        buffer[..count].copy_from_slice(&self.content.split_to(count));
        Ok(count)
    }

    fn checksum(&self) -> Option<&Checksum> {
        self.checksum.as_ref()
    }
}
