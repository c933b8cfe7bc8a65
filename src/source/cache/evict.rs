//! What goes from the cache, and when.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::index::{FILES, Index, NAME};
use super::{Cache, LOCK, PARTIAL};
use crate::device::host;
use crate::source::digest;

const DISCARDED: &str = "discarded";

/// Removes a model from its place at once, and then from the disk.
///
/// # Errors
/// When it stays in its place.
pub fn discard(folder: &Path) -> io::Result<()> {
    let away = folder.with_extension(DISCARDED);
    let _ = std::fs::remove_dir_all(&away); // of somebody who was killed at it
    match std::fs::rename(folder, &away) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        moved => moved?,
    }
    let _ = std::fs::remove_dir_all(&away); // or else the next one
    Ok(())
}

/// The models in the cache.
pub fn models(cache: &Path) -> Vec<(PathBuf, Index)> {
    let indexed = |folder: PathBuf| Index::open(&folder).map(|(_, index)| (folder, index));
    entries(cache).filter(|folder| folder.extension().is_none()).filter_map(indexed).collect()
}

fn entries(cache: &Path) -> impl Iterator<Item = PathBuf> {
    cache.read_dir().into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Makes room for so many bytes, and removes what killed processes have left behind. Errors only mean that it stays.
pub fn make_room(cache: &Cache, bytes: u64, target: &Path) {
    let is_needed = host::free_disk(&cache.directory).is_some_and(|free| free < bytes);
    remove_leftovers(&cache.directory, target, if is_needed { Duration::ZERO } else { ABANDONED });
    let Some(most) = cache.max_bytes else { return };
    let mut present = models(&cache.directory);
    present.sort_by_key(|(folder, _)| last_used(folder));
    let coming = bytes_coming(&cache.directory, target);
    let mut used = bytes_of(&present) + coming;
    for (folder, _) in present {
        if used + bytes <= most {
            return;
        }
        if discard_unused(&folder) {
            tracing::info!(directory = %folder.display(), "removed from the cache to make room");
            used = bytes_of(&models(&cache.directory)) + coming;
        }
    }
    if bytes > 0 && used + bytes > most {
        tracing::warn!(
            cache_max_bytes = most,
            used,
            needed = bytes,
            "the cache grows beyond its limit: nothing in it is unused"
        );
    }
}

fn last_used(folder: &Path) -> Option<SystemTime> {
    std::fs::metadata(folder.join(NAME)).and_then(|found| found.modified()).ok()
}

/// What the models' files take on the disk: one that several models have counts once.
fn bytes_of(models: &[(PathBuf, Index)]) -> u64 {
    let files =
        models.iter().flat_map(|(folder, index)| index.files.iter().map(|file| folder.join(FILES).join(&file.path)));
    let found = files.filter_map(|path| std::fs::metadata(path).ok());
    let once: HashMap<(u64, u64), u64> = found.map(|found| ((found.dev(), found.ino()), found.len())).collect();
    once.values().sum()
}

/// What others have brought so far of models on their way.
fn bytes_coming(cache: &Path, target: &Path) -> u64 {
    const BLOCK: u64 = 512;
    let partial =
        |folder: &PathBuf| folder.extension() == Some(OsStr::new(PARTIAL)) && folder.file_stem() != target.file_stem();
    let bytes = |folder: PathBuf| {
        let (root, names) = digest::names(&folder).ok()?;
        let blocks = |name: &String| std::fs::metadata(root.join(name)).map_or(0, |found| found.blocks() * BLOCK);
        Some(names.iter().map(blocks).sum::<u64>())
    };
    entries(cache).filter(partial).filter_map(bytes).sum()
}

/// Whether nobody uses the model, which is then gone.
fn discard_unused(folder: &Path) -> bool {
    let Ok(index) = File::open(folder.join(NAME)) else { return false };
    index.try_lock().is_ok() && discard(folder).is_ok()
}

/// Whoever was killed while bringing a model may come again soon, and goes on then, unless the room is needed.
const ABANDONED: Duration = Duration::from_hours(1);

/// Those of killed processes once they are so old; nothing that somebody is at.
fn remove_leftovers(cache: &Path, target: &Path, abandoned: Duration) {
    for path in entries(cache).filter(|path| path.file_stem() != target.file_stem()) {
        let age = std::fs::metadata(&path).and_then(|found| found.modified()).ok().and_then(|at| at.elapsed().ok());
        match path.extension().and_then(OsStr::to_str) {
            Some(DISCARDED) => drop(std::fs::remove_dir_all(path)),
            Some(PARTIAL) if age.is_some_and(|age| age > abandoned) => remove_abandoned(&path),
            _ => {}
        }
    }
}

fn remove_abandoned(partial: &Path) {
    let path = partial.with_extension(LOCK);
    let lock = File::options().write(true).create(true).truncate(false).open(&path);
    if lock.is_ok_and(|lock| lock.try_lock().is_ok() && std::fs::remove_dir_all(partial).is_ok()) {
        let _ = std::fs::remove_file(path);
    }
}
