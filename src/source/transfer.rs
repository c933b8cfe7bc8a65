//! Moves the files of a manifest into a directory: parts of files by several threads, each of which reads a little and
//! writes it. What breaks is asked for again from where it broke, with the same tag.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{RemoteFile, Source, Trouble};
use crate::error::{Error, Result};

/// One request's worth: large enough that a round trip does not matter, small enough that all threads have some of a
/// file.
pub(super) const PART_BYTES: u64 = 8 << 20;
/// Threads, each with a request in flight. Half of it already fills a 10 Gbit/s link against MinIO.
const PARALLEL_READS: usize = 16;
/// What a thread reads before it writes: it stays in the processor's cache.
pub(super) const BUFFER_BYTES: usize = 256 << 10;

/// What a thread fetches at once.
struct Part {
    /// Its place in the manifest.
    file: usize,
    range: Range<u64>,
}

/// The parts of all files, in order; of an empty file one that is empty.
fn parts(manifest: &[RemoteFile]) -> Vec<Part> {
    let of_file = |(file, remote): (usize, &RemoteFile)| {
        let bytes = remote.bytes;
        let count = bytes.div_ceil(PART_BYTES).max(1);
        (0..count).map(move |number| {
            let start = number * PART_BYTES;
            Part { file, range: start..bytes.min(start + PART_BYTES) }
        })
    };
    manifest.iter().enumerate().flat_map(of_file).collect()
}

/// A file of several parts while it is being written, and how many are still to come.
type Written = Mutex<(Option<Arc<File>>, usize)>;

struct Download<'a> {
    source: &'a dyn Source,
    manifest: &'a [RemoteFile],
    directory: &'a Path,
    parts: Vec<Part>,
    next: AtomicUsize,
    written: Vec<Written>,
    failure: Mutex<Option<Error>>,
}

/// Brings all files of the manifest below the directory, in place of those that are there.
///
/// # Errors
/// What kept a file from coming; the directory is then left half-filled.
pub fn transfer(source: &dyn Source, manifest: &[RemoteFile], directory: &Path) -> Result<()> {
    let parts = parts(manifest);
    let mut counts = vec![0; manifest.len()];
    parts.iter().for_each(|part| counts[part.file] += 1);
    let written = counts.into_iter().map(|count| Mutex::new((None, count))).collect();
    let threads = parts.len().min(PARALLEL_READS);
    let download =
        Download { source, manifest, directory, parts, next: AtomicUsize::new(0), written, failure: Mutex::new(None) };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| download.work());
        }
    });
    match download.failure.into_inner().expect("no thread panics with it") {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

impl Download<'_> {
    /// Fetches parts until there are none left, or one could not be had.
    fn work(&self) {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Some(part) = self.parts.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = self.fetch(part, &mut buffer) {
                self.next.store(self.parts.len(), Ordering::Relaxed);
                let mut failure = self.failure.lock().expect("no thread panics with it");
                // What follows the first is its consequence.
                failure.get_or_insert(error);
                drop(failure);
                self.source.stop();
            }
        }
    }

    fn fetch(&self, part: &Part, buffer: &mut [u8]) -> Result<()> {
        let remote = &self.manifest[part.file];
        let path = self.directory.join(&remote.path);
        let failed = |error: std::io::Error| write_error(&path, &error);
        let file = self.file(part.file, &path, remote.bytes).map_err(failed)?;
        let mut at = part.range.start;
        let mut failures = 0; // in a row, without a byte of progress
        while at < part.range.end {
            let begun = at;
            match self.attempt(remote, part, &file, &mut at, buffer) {
                Ok(()) => {}
                Err(Interrupted::Disk(error)) => return Err(failed(error)),
                Err(Interrupted::Source(Trouble { error, retry })) => {
                    failures = if at > begun { 1 } else { failures + 1 };
                    match retry {
                        Some(wait) if failures < self.source.attempts() => self.pause(wait.max(backoff(failures))),
                        _ => return Err(error),
                    }
                }
            }
        }
        self.finish(part.file);
        Ok(())
    }

    /// Reads from `at` on, which goes along.
    fn attempt(
        &self,
        remote: &RemoteFile,
        part: &Part,
        file: &File,
        at: &mut u64,
        buffer: &mut [u8],
    ) -> Result<(), Interrupted> {
        let mut reader = self.source.open(remote, *at..part.range.end)?;
        while *at < part.range.end {
            let left = usize::try_from(part.range.end - *at).unwrap_or(usize::MAX);
            let most = buffer.len().min(left);
            let read = reader.read(&mut buffer[..most])?;
            file.write_all_at(&buffer[..read], *at).map_err(Interrupted::Disk)?;
            *at += read as u64;
        }
        Ok(())
    }

    /// The file to write to, made by whoever comes first.
    fn file(&self, number: usize, path: &Path, bytes: u64) -> std::io::Result<Arc<File>> {
        let mut written = self.written[number].lock().expect("no thread panics with it");
        if let Some(file) = &written.0 {
            return Ok(file.clone());
        }
        let file = Arc::new(create(path, bytes)?);
        written.0 = Some(file.clone());
        Ok(file)
    }

    /// Closes a file whose last part is there: a model may have more files than a process may have open.
    fn finish(&self, number: usize) {
        let mut written = self.written[number].lock().expect("no thread panics with it");
        written.1 -= 1;
        if written.1 == 0 {
            written.0 = None;
        }
    }

    /// Waits, unless another part has failed for good.
    fn pause(&self, wait: Duration) {
        const GLANCE: Duration = Duration::from_millis(50);
        let until = Instant::now() + wait;
        let is_wanted = || self.failure.lock().expect("no thread panics with it").is_none();
        while Instant::now() < until && is_wanted() {
            std::thread::sleep(GLANCE.min(until.saturating_duration_since(Instant::now())));
        }
    }
}

enum Interrupted {
    Source(Trouble),
    Disk(std::io::Error),
}

impl From<Trouble> for Interrupted {
    fn from(trouble: Trouble) -> Interrupted {
        Interrupted::Source(trouble)
    }
}

/// How long to wait after so many failures in a row: twice as long each time, and not all at once.
pub fn backoff(failures: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);
    let whole = FIRST.saturating_mul(1 << failures.min(10)).min(LONGEST);
    whole.mul_f64(0.5 + 0.5 * random())
}

/// From 0 to 1: where the standard library's hash maps get their randomness from.
fn random() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let [low, high, ..] = RandomState::new().hash_one(()).to_le_bytes();
    f64::from(u16::from_le_bytes([low, high])) / f64::from(u16::MAX)
}

fn create(path: &Path, bytes: u64) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let file = File::options().write(true).create(true).truncate(true).open(path)?;
    file.set_len(bytes)?;
    Ok(file)
}

pub(super) fn write_error(path: &Path, error: &std::io::Error) -> Error {
    Error::load(format!("{}: cannot be written: {error}", path.display()))
}
