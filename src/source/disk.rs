//! Files of this machine's disk, read as those of other stores are.

use std::fs::{File, Metadata};
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
            let (bytes, tag) = (found.len(), tag(&found));
            Ok(RemoteFile { path: name, key: path.display().to_string(), bytes, tag, whole: false })
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
        let reading = Reading { disk: self, file: file.clone(), content: content.take(range.end - range.start) };
        reading.check()?;
        Ok(Box::new(reading))
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

impl Reading<'_> {
    /// The file is the one that was listed, and nobody has written to it since.
    fn check(&self) -> Result<(), Trouble> {
        let found = self.content.get_ref().metadata().map_err(|error| self.disk.trouble(&self.file, &error))?;
        if (found.len(), tag(&found)) == (self.file.bytes, self.file.tag.clone()) {
            return Ok(());
        }
        Err(self
            .disk
            .trouble(&self.file, &std::io::Error::other("it was replaced while it was being read: load again")))
    }
}

fn tag(found: &Metadata) -> String {
    format!("{} {}.{}", found.ino(), found.mtime(), found.mtime_nsec())
}

impl RangeReader for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Trouble> {
        let read = self.content.read(buffer).map_err(|error| self.disk.trouble(&self.file, &error))?;
        if read == 0 && self.content.limit() > 0 {
            return Err(self.disk.trouble(&self.file, &std::io::ErrorKind::UnexpectedEof.into()));
        }
        if self.content.limit() == 0 {
            self.check()?;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_in_its_place_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, disk) = (folder.path().join("m"), Disk(folder.path().to_owned()));
        std::fs::write(&path, "before").unwrap();
        let file = disk.manifest().unwrap().remove(0);
        let mut reader = disk.open(&file, 0..6).ok().unwrap();
        let mut buffer = [0; 6];
        assert_eq!(reader.read(&mut buffer[..3]).unwrap(), 3);
        std::fs::write(&path, "behind, and longer").unwrap();
        for outcome in [reader.read(&mut buffer).map(drop), disk.open(&file, 0..6).map(drop)] {
            assert!(outcome.unwrap_err().error.message().contains("replaced while it was being read"));
        }
    }
}
