//! A source of which only some files are wanted.

use std::ops::Range;

use super::checksum::Checksum;
use super::digest::ModelDigest;
use super::patterns::Patterns;
use super::uri::SourceUri;
use super::{RangeReader, RemoteFile, Source, Trouble};
use crate::error::{Error, Result};

pub struct Filtered {
    pub source: Box<dyn Source>,
    /// One file that this names is wanted whatever the patterns say.
    pub uri: SourceUri,
    pub wanted: Patterns,
}

impl Source for Filtered {
    fn manifest(&self) -> Result<Vec<RemoteFile>> {
        let mut manifest = self.source.manifest()?;
        let is_named = matches!(manifest.as_slice(), [only] if self.uri.is_key(&only.key));
        if is_named || manifest.is_empty() {
            return Ok(manifest);
        }
        manifest.retain(|file| self.wanted.want(&file.path));
        if manifest.is_empty() {
            let uri = &self.uri;
            return Err(Error::load(format!(
                "{uri}: there is no object below it that is wanted (STORAGE_ALLOW_PATTERNS, STORAGE_IGNORE_PATTERNS)"
            )));
        }
        Ok(manifest)
    }

    fn open(&self, file: &RemoteFile, range: Range<u64>) -> Result<Box<dyn RangeReader + '_>, Trouble> {
        self.source.open(file, range)
    }

    fn checksum(&self, file: &RemoteFile) -> Result<Option<Checksum>> {
        self.source.checksum(file)
    }

    fn version(&self, file: &RemoteFile) -> Result<Option<String>> {
        self.source.version(file)
    }

    fn place(&self) -> Option<SourceUri> {
        self.source.place()
    }

    fn pinned(&self) -> Option<ModelDigest> {
        self.source.pinned()
    }

    fn attempts(&self) -> u32 {
        self.source.attempts()
    }

    fn stop(&self) {
        self.source.stop();
    }
}
