//! What a model in the cache consists of, and whether it is still so.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::source::checksum::Checksum;
use crate::source::journal::boot_id;

/// `index.json` of a model.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Index {
    pub files: Vec<Entry>,
}

/// A file as it was when the model was complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Below the model's directory.
    pub path: PathBuf,
    pub bytes: u64,
    /// Nanoseconds since 1970.
    modified: i128,
    /// Its checksum.
    sum: String,
    /// What the store called its content, where that is a hash of it.
    pub content: Option<String>,
}

impl Entry {
    /// # Errors
    /// When the file is not there.
    pub fn of(files: &Path, path: &str, sum: &Checksum, content: Option<String>) -> io::Result<Entry> {
        let found = std::fs::metadata(files.join(path))?;
        let modified = modified(&found);
        Ok(Entry { path: path.into(), bytes: found.len(), modified, sum: sum.to_string(), content })
    }

    /// The same file in another model as well; `None` when it is not as it was, or the disk knows no hard links.
    pub fn link(&self, files: &Path, others: &Path, path: &str) -> Option<Entry> {
        let target = others.join(path);
        if !self.is_untouched(files) {
            return None;
        }
        std::fs::create_dir_all(target.parent()?).ok()?;
        let _ = std::fs::remove_file(&target); // of an attempt that did not get to its end
        std::fs::hard_link(files.join(&self.path), &target).ok()?;
        Some(Entry { path: path.into(), ..self.clone() })
    }

    /// Whether the file is there, and nobody has written to it since.
    fn is_untouched(&self, files: &Path) -> bool {
        let found = std::fs::metadata(files.join(&self.path));
        found.is_ok_and(|found| found.is_file() && found.len() == self.bytes && modified(&found) == self.modified)
    }

    /// Whether the file's bytes are what they were.
    fn is_whole(&self, files: &Path) -> io::Result<bool> {
        let Some(sum) = Checksum::parse(&self.sum) else { return Ok(false) };
        sum.is_of(File::open(files.join(&self.path))?)
    }
}

fn modified(found: &Metadata) -> i128 {
    i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec())
}

pub const NAME: &str = "index.json";
/// Holds the boot id under which the model was last known to be whole.
const BOOT: &str = "boot";
/// Holds the model.
pub const FILES: &str = "files";

impl Index {
    /// Writes it into a model's folder, and gives the open file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, folder: &Path) -> io::Result<File> {
        let path = folder.join(NAME);
        std::fs::write(&path, serde_json::to_vec(self)?)?;
        std::fs::write(folder.join(BOOT), boot_id()?)?;
        File::open(path)
    }

    /// Opens and reads that of a model's folder; `None` when there is none that makes sense.
    pub fn open(folder: &Path) -> Option<(File, Index)> {
        let mut file = File::open(folder.join(NAME)).ok()?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).ok()?;
        Some((file, serde_json::from_slice(&text).ok()?))
    }

    /// Whether `folder` has all files as they were. Files that have not been written to since are believed to be so, but
    /// not after the machine was started anew: it may have lost what had not reached the disk.
    pub fn holds(&self, folder: &Path) -> bool {
        let files = folder.join(FILES);
        if !self.files.iter().all(|entry| entry.is_untouched(&files)) {
            return false;
        }
        let Ok(boot) = boot_id() else { return false };
        if std::fs::read_to_string(folder.join(BOOT)).is_ok_and(|known| known == boot) {
            return true;
        }
        let whole = self.files.iter().all(|entry| entry.is_whole(&files).unwrap_or(false));
        if whole {
            let _ = std::fs::write(folder.join(BOOT), boot); // else the next one looks again
        }
        whole
    }
}
