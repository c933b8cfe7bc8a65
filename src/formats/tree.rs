//! The files of a model, on the disk or in memory.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::FileEntry;
use crate::content::{Content, Contents};
use crate::error::{Error, Result};

/// More files than any model we serve has; a bound on the walk below a mistaken `--model_dir /`.
const MAX_FILES: usize = 10_000;
const MAX_DEPTH: usize = 8;

#[derive(Clone, Debug)]
pub enum Tree {
    /// A directory, or a file.
    Disk(PathBuf),
    Memory(Arc<Contents>),
    Coming(Arc<Coming>),
}

/// Files on their way to a directory.
#[derive(Debug)]
pub struct Coming {
    pub directory: PathBuf,
    /// All that will be there.
    pub files: Vec<FileEntry>,
    /// Those that can be read while they come.
    pub contents: Arc<Contents>,
}

impl Tree {
    /// The one file that this is; `None` for a directory.
    ///
    /// # Errors
    /// When there is nothing.
    pub fn single(&self) -> Result<Option<FileEntry>> {
        let Tree::Disk(path) = self else { return Ok(None) };
        let metadata = std::fs::metadata(path).map_err(|error| self.failed(&error))?;
        let name = || path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((!metadata.is_dir()).then(|| FileEntry { path: name(), bytes: metadata.len() }))
    }

    /// All files, but those that are hidden.
    ///
    /// # Errors
    /// When they cannot be listed, or are too many.
    pub fn list(&self) -> Result<Vec<FileEntry>> {
        let mut files = Vec::new();
        match self {
            Tree::Disk(path) => list(path, "", 0, &mut files).map_err(|error| self.failed(&error))?,
            Tree::Memory(contents) => {
                let entry = |(path, content): (&String, &Content)| (path.clone(), content.len() as u64);
                files.extend(contents.iter().map(entry).map(|(path, bytes)| FileEntry { path, bytes }));
            }
            Tree::Coming(coming) => files.extend_from_slice(&coming.files),
        }
        files.retain(|file| !file.path.split('/').any(|name| name.starts_with('.')));
        Ok(files)
    }

    /// Where a listed file is, as messages call it.
    pub fn path(&self, file: &str) -> PathBuf {
        match self {
            Tree::Disk(path) if path.is_dir() => path.join(file),
            Tree::Disk(path) => path.clone(),
            Tree::Memory(_) => file.into(),
            Tree::Coming(coming) => coming.directory.join(file),
        }
    }

    /// So many bytes of a listed file, or fewer when it has no more.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn head(&self, file: &str, most: usize) -> Result<Vec<u8>> {
        if let Some(contents) = self.contents() {
            let content = contents.get(file).ok_or_else(|| Error::load(format!("{file} cannot be read yet")))?;
            let head = content.upto(most);
            return Ok(head[..most.min(head.len())].to_vec());
        }
        let (path, mut head) = (self.path(file), Vec::new());
        let opened = File::open(&path).and_then(|file| file.take(most as u64).read_to_end(&mut head));
        opened.map_err(|error| Error::load(format!("{}: {error}", path.display())))?;
        Ok(head)
    }

    /// Those that are in memory, or on their way there.
    pub fn contents(&self) -> Option<&Arc<Contents>> {
        match self {
            Tree::Disk(_) => None,
            Tree::Memory(contents) => Some(contents),
            Tree::Coming(coming) => Some(&coming.contents),
        }
    }

    /// Where all of it is, for what concerns no single file; nothing of what is in memory, whose name is its source's.
    pub fn place(&self) -> Option<&Path> {
        match self {
            Tree::Disk(path) => Some(path),
            Tree::Memory(_) => None,
            Tree::Coming(coming) => Some(&coming.directory),
        }
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        let place = self.place().map(|path| format!("{}: ", path.display())).unwrap_or_default();
        Error::load(format!("{place}{error}"))
    }
}

fn list(root: &Path, below: &str, depth: usize, files: &mut Vec<FileEntry>) -> std::io::Result<()> {
    let mut entries = std::fs::read_dir(root.join(below))?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Kubernetes mounts volumes with `..data` links, tools leave dot files: neither is part of a model.
        if name.starts_with('.') {
            continue;
        }
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        // Follows links, as mounts use them.
        let metadata = std::fs::metadata(root.join(&path))
            .map_err(|error| std::io::Error::new(error.kind(), format!("{path}: {error}")))?;
        if files.len() >= MAX_FILES {
            return Err(std::io::Error::other(format!("more than {MAX_FILES} files: is this a model directory?")));
        }
        if metadata.is_file() {
            files.push(FileEntry { path, bytes: metadata.len() });
        } else if metadata.is_dir() && depth < MAX_DEPTH {
            list(root, &path, depth + 1, files)?;
        }
    }
    Ok(())
}
