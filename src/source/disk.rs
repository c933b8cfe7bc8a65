//! Files of this machine's disk, read as those of other stores are.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Take};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::s3::handover;
use super::{RangeReader, RemoteFile, Source, Trouble, digest};
use crate::error::{Error, Result};

/// The files below a directory, or the one at a path.
pub struct Disk(pub PathBuf);

impl Disk {
    /// The directory that names are below.
    fn root(&self) -> &Path {
        if self.0.is_dir() { &self.0 } else { self.0.parent().unwrap_or(Path::new("/")) }
    }

    fn trouble(&self, file: &RemoteFile, error: &std::io::Error) -> Trouble {
        let path = self.root().join(&file.path);
        Trouble { error: Error::load(format!("{}: {error}", path.display())), retry: None }
    }
}

impl Source for Disk {
    fn manifest(&self) -> Result<Vec<RemoteFile>> {
        let (root, names) = digest::names(&self.0)?;
        let file = |name: String| {
            let path = root.join(&name);
            let found = path.metadata().map_err(|error| Error::load(format!("{}: {error}", path.display())))?;
            let tag = format!("{} {}.{}", found.ino(), found.mtime(), found.mtime_nsec());
            Ok(RemoteFile { path: name, key: path.display().to_string(), bytes: found.len(), tag, whole: false })
        };
        // What says where files are is none of them.
        let is_file = |name: &String| name.rsplit('/').next() != Some(handover::NAME);
        names.into_iter().filter(is_file).map(file).collect()
    }

    fn open(&self, file: &RemoteFile, range: Range<u64>) -> Result<Box<dyn RangeReader + '_>, Trouble> {
        let opened = File::open(self.root().join(&file.path)).and_then(|mut opened| {
            opened.seek(SeekFrom::Start(range.start))?;
            Ok(opened)
        });
        let content = opened.map_err(|error| self.trouble(file, &error))?;
        Ok(Box::new(Reading { disk: self, file: file.clone(), content: content.take(range.end - range.start) }))
    }

    fn attempts(&self) -> u32 {
        1
    }

    fn stop(&self) {}
}

struct Reading<'s> {
    disk: &'s Disk,
    file: RemoteFile,
    content: Take<File>,
}

impl RangeReader for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Trouble> {
        let read = self.content.read(buffer).map_err(|error| self.disk.trouble(&self.file, &error))?;
        if read == 0 && self.content.limit() > 0 {
            return Err(self.disk.trouble(&self.file, &std::io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(read)
    }
}
