//! The files that an archive unpacks to: only below their folder, and only so many.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use super::names::{entry, entry_path};
use super::{Limits, MAX_ENTRIES};
use crate::error::{Error, Result};
use crate::source::checksum::{Checksum, Sum, Sums};
use crate::source::reading::BUFFER_BYTES;
use crate::source::transfer::write_error;

/// Why an entry could not be unpacked.
pub enum Failed {
    /// Its content cannot be read.
    Read(io::Error),
    /// It is not wanted, or cannot be written.
    Refused(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Refused(error)
    }
}

/// A tree being filled. Its folder is empty before, and nobody else writes to it.
pub struct Tree<'a> {
    root: &'a Path,
    limits: Limits,
    /// Their paths and checksums.
    files: Vec<(String, Checksum)>,
    entries: usize,
    bytes: u64,
    buffer: Vec<u8>,
}

impl<'a> Tree<'a> {
    pub fn new(root: &'a Path, limits: Limits) -> Tree<'a> {
        Tree { root, limits, files: Vec::new(), entries: 0, bytes: 0, buffer: vec![0; BUFFER_BYTES] }
    }

    /// Makes room for one more entry.
    ///
    /// # Errors
    /// When there are too many.
    pub fn count(&mut self) -> Result<()> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(Error::load(format!("more than {MAX_ENTRIES} entries and folders: is this one model?")));
        }
        Ok(())
    }

    /// # Errors
    /// When the name is none below the folder, or is that of a file.
    pub fn directory(&mut self, name: &[u8]) -> Result<()> {
        match entry_path(name)? {
            Some(path) => self.make(name, &path),
            None => Ok(()),
        }
    }

    /// Writes a file of `size` bytes, which `content` has exactly.
    ///
    /// # Errors
    /// When the name is none below the folder or is there already, when this is too much, or when the content is
    /// shorter or longer.
    pub fn file(&mut self, name: &[u8], size: u64, mut content: impl Read) -> Result<(), Failed> {
        let path = entry_path(name)?.ok_or_else(|| Error::load(format!("{}: a file without a name", entry(name))))?;
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.limits.bytes() {
            return Err(self.limits.exceeded().context(entry(name)).into());
        }
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.make(name, folder)?;
        }
        let target = self.root.join(&path);
        let mut file = File::create_new(&target).map_err(|error| refused(name, &target, &error))?;
        let (mut sum, mut sums) = (Sum::begin(None, 0), Sums::default());
        let mut left = size;
        loop {
            let read = content.read(&mut self.buffer).map_err(Failed::Read)?;
            left = match left.checked_sub(read as u64) {
                Some(0) if read == 0 => break,
                Some(_) if read == 0 => return Err(Failed::Read(io::ErrorKind::UnexpectedEof.into())),
                Some(left) => left,
                None => return Err(Failed::Read(io::Error::other("an entry is longer than it says"))),
            };
            sum.update(&self.buffer[..read]);
            file.write_all(&self.buffer[..read]).map_err(|error| write_error(&target, &error))?;
        }
        sums.extend([sum]);
        Ok(self.files.push((path, sums.whole())))
    }

    /// Makes a folder and those above it; each counts as an entry does.
    fn make(&mut self, name: &[u8], path: &str) -> Result<()> {
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        for end in ends {
            let folder = self.root.join(&path[..end]);
            match std::fs::create_dir(&folder) {
                Ok(()) => self.count()?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
                Err(error) => return Err(refused(name, &folder, &error)),
            }
        }
        Ok(())
    }

    /// All files.
    ///
    /// # Errors
    /// When there is nothing.
    pub fn finish(self) -> Result<Vec<(String, Checksum)>> {
        if self.entries == 0 {
            return Err(Error::load("the archive is empty"));
        }
        Ok(self.files)
    }
}

fn refused(name: &[u8], path: &Path, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            Error::load(format!("{}: there is another entry of that name", entry(name)))
        }
        _ => write_error(path, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_count_although_they_need_no_entry() {
        let folder = tempfile::tempdir().unwrap();
        let mut tree = Tree::new(folder.path(), Limits { archive: 1, setting: 1 });
        tree.entries = MAX_ENTRIES - 2;
        tree.directory(b"a/b").unwrap();
        tree.directory(b"a/b").unwrap();
        assert!(tree.directory(b"a/c").is_err());
    }
}
