//! Which parts of a download are there, kept beside the files, so that whoever comes after a killed process goes on.
//!
//! A journal is a line that says what is being downloaded, and four bytes for each part that is there. A part is written
//! down when all its bytes have been given to the kernel, which keeps them when the process dies. It may lose them when
//! the machine does: the line has the machine's boot id, and what another boot has left behind is not gone on with.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Mutex;

/// What has been downloaded since the machine started is what the kernel says.
///
/// # Errors
/// When there is no `/proc`.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

pub struct Journal {
    file: Mutex<File>,
    /// By number.
    done: Vec<bool>,
}

impl Journal {
    /// Goes on with the journal at the path when it is of the same download, and begins a new one otherwise.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn open(path: &Path, download: &str, parts: usize) -> io::Result<Journal> {
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let line = format!("{} {download}\n", boot_id()?);
        let mut kept = Vec::new();
        file.read_to_end(&mut kept)?;
        let mut done = vec![false; parts];
        if let Some(records) = kept.strip_prefix(line.as_bytes()) {
            let (whole, torn) = records.as_chunks::<4>();
            whole.iter().for_each(|number| {
                if let Some(part) = done.get_mut(u32::from_le_bytes(*number) as usize) {
                    *part = true;
                }
            });
            file.seek(SeekFrom::Start((kept.len() - torn.len()) as u64))?;
        } else {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(line.as_bytes())?;
        }
        Ok(Journal { file: Mutex::new(file), done })
    }

    /// Whether the part was there from before.
    pub fn has(&self, part: usize) -> bool {
        self.done[part]
    }

    /// How many parts were.
    pub fn count(&self) -> usize {
        self.done.iter().filter(|done| **done).count()
    }

    /// # Errors
    /// When it cannot be written.
    pub fn add(&self, part: usize) -> io::Result<()> {
        let number = u32::try_from(part).map_err(io::Error::other)?;
        self.file.lock().expect("no thread panics with it").write_all(&number.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(path: &Path, download: &str) -> Vec<usize> {
        let journal = Journal::open(path, download, 4).unwrap();
        (0..4).filter(|part| journal.has(*part)).collect()
    }

    #[test]
    fn parts_are_remembered_for_the_same_download() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("parts");
        let journal = Journal::open(&path, "a", 4).unwrap();
        [2, 0].iter().for_each(|part| journal.add(*part).unwrap());
        assert_eq!(done(&path, "a"), [0, 2]);
        // What a killed process did not finish, and numbers that are none.
        File::options().append(true).open(&path).unwrap().write_all(&[9, 0, 0, 0, 1]).unwrap();
        Journal::open(&path, "a", 4).unwrap().add(3).unwrap();
        assert_eq!(done(&path, "a"), [0, 2, 3]);
        assert_eq!(done(&path, "b"), [0; 0]);
        assert_eq!(done(&path, "a"), [0; 0]);
    }
}
