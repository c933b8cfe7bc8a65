//! Brings a source's files to a local directory, whole or not at all.
//!
//! Files are written into a private folder that is renamed when the last byte is on disk, under a name made of what the
//! manifest says, so an unchanged source is not read twice. A folder found there is used when all files have the
//! manifest's sizes, and fetched again otherwise. What a killed process has left behind is removed by the next one.

use std::fs::File;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::transfer::{transfer, write_error};
use super::{RemoteFile, Source, hex};
use crate::error::{Error, Result};

/// What was fetched.
pub struct Fetched {
    pub directory: PathBuf,
    pub files: usize,
    pub bytes: u64,
    /// Whether it was all there from before.
    pub cached: bool,
}

/// # Errors
/// When the source is empty or fails, or when the cache directory cannot be written.
pub fn fetch(source: &dyn Source, name: &str, cache: &Path) -> Result<Fetched> {
    let manifest = source.manifest()?;
    if manifest.is_empty() {
        return Err(Error::load(format!("{name}: there is no object below it")));
    }
    let target = cache.join(cache_key(name, &manifest));
    let bytes = manifest.iter().map(|file| file.bytes).sum();
    let fetched = |cached| Fetched { directory: target.clone(), files: manifest.len(), bytes, cached };
    if holds(&target, &manifest) {
        return Ok(fetched(true));
    }
    let failed = |error: std::io::Error| Error::load(format!("cache directory {}: {error}", cache.display()));
    std::fs::create_dir_all(cache).map_err(failed)?;
    remove_leftovers(cache);
    let partial = Partial::new(cache).map_err(failed)?;
    transfer(source, &manifest, &partial.folder)?;
    // The rename must not reach the disk before the bytes do.
    sync(&partial.folder).map_err(|error| write_error(&partial.folder, &error))?;
    publish(&partial.folder, &target, &manifest).map_err(failed)?;
    Ok(fetched(false))
}

/// Moves the folder to its place, unless another process has been faster with the same content.
fn publish(folder: &Path, target: &Path, manifest: &[RemoteFile]) -> std::io::Result<()> {
    let cache = File::open(folder.parent().unwrap_or(target))?;
    cache.lock()?; // the directory itself, until this goes out of scope
    if holds(target, manifest) {
        return Ok(());
    }
    if target.exists() {
        std::fs::remove_dir_all(target)?;
    }
    std::fs::rename(folder, target)
}

/// Whether the folder has every file of the manifest in its full size.
fn holds(folder: &Path, manifest: &[RemoteFile]) -> bool {
    let size = |file: &RemoteFile| std::fs::metadata(folder.join(&file.path)).map(|found| found.len()).ok();
    manifest.iter().all(|file| size(file) == Some(file.bytes))
}

const PARTIAL: &str = "partial-";
const LOCK: &str = ".lock";

/// A folder being filled, and the lock that says that somebody is still at it. Both go when it is dropped.
struct Partial {
    folder: PathBuf,
    _lock: tempfile::NamedTempFile,
}

impl Partial {
    /// The lock comes first and the folder goes first, so that there is never a folder without a lock.
    fn new(cache: &Path) -> std::io::Result<Partial> {
        let lock = tempfile::Builder::new().prefix(PARTIAL).suffix(LOCK).tempfile_in(cache)?;
        lock.as_file().lock()?;
        let folder = lock.path().with_extension("");
        std::fs::create_dir(&folder)?;
        Ok(Partial { folder, _lock: lock })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder); // gone when published; what stays is the next one's to remove
    }
}

/// Removes folders whose process has died. Errors only mean that rubbish stays.
fn remove_leftovers(cache: &Path) {
    for entry in cache.read_dir().into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(folder) = name.strip_suffix(LOCK).filter(|folder| folder.starts_with(PARTIAL)) else { continue };
        if File::open(entry.path()).is_ok_and(|lock| lock.try_lock().is_ok()) {
            let _ = std::fs::remove_dir_all(cache.join(folder));
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The same for the same content of the same place, and safe as a file name.
fn cache_key(name: &str, manifest: &[RemoteFile]) -> String {
    let mut hash = Sha256::new();
    hash.update(name);
    for file in manifest {
        hash.update(format!("\0{}\0{}\0{}", file.path, file.bytes, file.tag));
    }
    hex(&hash.finalize()[..16])
}

fn sync(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        path.read_dir()?.try_for_each(|entry| sync(&entry?.path()))?;
    }
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::source::memory::Memory;
    use crate::source::transfer::{BUFFER_BYTES, PART_BYTES};

    fn content() -> Bytes {
        let length = usize::try_from(PART_BYTES).unwrap() * 2 + 12_345;
        (0..=250).cycle().take(length).collect()
    }

    #[test]
    fn all_files_arrive_whole_and_are_not_read_twice() {
        let cache = tempfile::tempdir().unwrap();
        let files = [("1/model.onnx", content()), ("empty", Bytes::new()), ("small", Bytes::from_static(b"x"))];
        let source = Memory::new(files);
        let first = fetch(&source, "memory://a", cache.path()).unwrap();
        assert!(!first.cached);
        assert_eq!(std::fs::read(first.directory.join("1/model.onnx")).unwrap(), content());
        assert_eq!(std::fs::read(first.directory.join("empty")).unwrap(), b"");
        let opened = source.opened();
        let second = fetch(&source, "memory://a", cache.path()).unwrap();
        assert!(second.cached && second.directory == first.directory);
        assert_eq!(source.opened(), opened);
    }

    #[test]
    fn a_failed_read_leaves_nothing_behind() {
        let cache = tempfile::tempdir().unwrap();
        let mut source = Memory::new([("model.onnx", content())]);
        source.fail_from = Some(2);
        let error = fetch(&source, "memory://a", cache.path()).err().unwrap();
        assert!(error.message().contains("scripted failure"), "{error}");
        assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_breaks_goes_on_where_it_was() {
        let cache = tempfile::tempdir().unwrap();
        let mut source = Memory::new([("model.onnx", content())]);
        source.break_after = Some(3 * BUFFER_BYTES);
        let fetched = fetch(&source, "memory://a", cache.path()).unwrap();
        assert_eq!(std::fs::read(fetched.directory.join("model.onnx")).unwrap(), content());
        // Nothing of it gets anywhere.
        source.break_after = Some(BUFFER_BYTES - 1);
        let error = fetch(&source, "memory://b", cache.path()).err().unwrap();
        assert_eq!(error.message(), "a scripted break");
    }

    #[test]
    fn what_was_damaged_on_the_way_is_fetched_again() {
        for file in [content(), Bytes::from_static(b"small")] {
            let cache = tempfile::tempdir().unwrap();
            let mut source = Memory::new([("model.onnx", file.clone())]);
            source.damaged = 1;
            let fetched = fetch(&source, "memory://a", cache.path()).unwrap();
            assert_eq!(std::fs::read(fetched.directory.join("model.onnx")).unwrap(), file);
            source.damaged = usize::MAX;
            let error = fetch(&source, "memory://b", cache.path()).err().unwrap();
            assert!(error.message().starts_with("model.onnx: damaged in the store or on the way here"), "{error}");
            assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 1, "only the first");
        }
    }

    #[test]
    fn a_damaged_copy_is_fetched_again_and_leftovers_are_removed() {
        let cache = tempfile::tempdir().unwrap();
        let source = Memory::new([("model.onnx", content())]);
        let first = fetch(&source, "memory://a", cache.path()).unwrap();
        File::options().write(true).open(first.directory.join("model.onnx")).unwrap().set_len(10).unwrap();
        // As a killed process leaves them: a folder, and a lock that nobody holds.
        std::fs::create_dir(cache.path().join("partial-dead")).unwrap();
        std::fs::write(cache.path().join("partial-dead.lock"), "").unwrap();
        let alive = Partial::new(cache.path()).unwrap();
        let again = fetch(&source, "memory://a", cache.path()).unwrap();
        assert!(!again.cached);
        assert_eq!(std::fs::read(again.directory.join("model.onnx")).unwrap(), content());
        assert!(alive.folder.is_dir(), "somebody is still at it");
        drop(alive);
        let left = std::fs::read_dir(cache.path()).unwrap();
        let mut left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(left.find(|name| name.starts_with("partial-")), None);
    }

    #[test]
    fn an_empty_source_is_an_error() {
        let cache = tempfile::tempdir().unwrap();
        let error = fetch(&Memory::default(), "memory://a", cache.path()).err().unwrap();
        assert_eq!(error.message(), "memory://a: there is no object below it");
    }
}
