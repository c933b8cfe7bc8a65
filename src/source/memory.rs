//! A source in memory: the double for tests, with a plan of what goes wrong.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;

use super::{RemoteFile, Source};
use crate::error::{Error, Result};

#[derive(Default)]
pub struct Memory {
    files: BTreeMap<String, Bytes>,
    reads: AtomicUsize,
    /// The read with this number (from 0) fails.
    pub fail_read: Option<usize>,
}

impl Memory {
    pub fn new(files: impl IntoIterator<Item = (&'static str, Bytes)>) -> Memory {
        let files = files.into_iter().map(|(path, content)| (path.to_owned(), content)).collect();
        Memory { files, ..Memory::default() }
    }

    /// Reads so far.
    pub fn reads(&self) -> usize {
        self.reads.load(Relaxed)
    }
}

impl Source for Memory {
    async fn manifest(&self) -> Result<Vec<RemoteFile>> {
        let file = |(path, content): (&String, &Bytes)| RemoteFile {
            path: path.clone(),
            key: path.clone(),
            bytes: content.len() as u64,
            tag: format!("{:x}", content.iter().fold(0_u64, |hash, byte| hash.wrapping_mul(31) + u64::from(*byte))),
        };
        Ok(self.files.iter().map(file).collect())
    }

    async fn read(&self, file: &RemoteFile, range: Range<u64>) -> Result<Bytes> {
        let number = self.reads.fetch_add(1, Relaxed);
        if self.fail_read == Some(number) {
            return Err(Error::load(format!("{}: scripted failure", file.key)));
        }
        let content = &self.files[&file.key];
        #[allow(clippy::cast_possible_truncation)] // what is in memory has a length that fits
        Ok(content.slice(range.start as usize..range.end as usize))
    }
}
