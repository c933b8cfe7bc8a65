//! Moves the files of a manifest into a directory: parts of files by several threads, each of which reads a little and
//! writes it. What breaks is asked for again from where it broke, with the same tag, or from its start where it only comes
//! whole; a file whose bytes do not have the checksum that the store keeps of it is asked for again as a whole.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::checksum::{Algorithm, Checksum, Sum, Sums};
use super::crowd::crowd;
use super::journal::Journal;
use super::width::Width;
use super::{RangeReader, RemoteFile, Source, Trouble, identity, total_bytes};
use crate::error::{Error, Result};

/// One request's worth: large enough that a round trip does not matter, small enough that all threads have some of a
/// file.
pub(super) const PART_BYTES: u64 = 8 << 20;
/// What has to come before a connection breaks, or else it is as if nothing had.
const PROGRESS_BYTES: u64 = 64 << 10;
/// What a thread reads before it writes: it stays in the processor's cache.
pub(super) const BUFFER_BYTES: usize = 256 << 10;

/// More than any model has; a bound on how many parts a wrong size makes.
const MAX_BYTES: u64 = 8 << 40;

/// What a thread fetches at once.
struct Part {
    number: usize,
    /// Its place in the manifest.
    file: usize,
    range: Range<u64>,
}

/// The parts of all files, in order; of an empty file one that is empty.
fn parts(manifest: &[RemoteFile]) -> Vec<Part> {
    let of_file = |(file, remote): (usize, &RemoteFile)| {
        let bytes = remote.bytes;
        let step = if remote.whole { bytes.max(1) } else { PART_BYTES };
        let count = bytes.div_ceil(step).max(1);
        (0..count).map(move |number| {
            let start = number * step;
            (file, start..bytes.min(start.saturating_add(step)))
        })
    };
    let ranges = manifest.iter().enumerate().flat_map(of_file).enumerate();
    ranges.map(|(number, (file, range))| Part { number, file, range }).collect()
}

/// A file while it is being written.
#[derive(Default)]
struct Incoming {
    /// From the first part to the last.
    file: Option<Arc<File>>,
    /// Parts that are still to come.
    left: usize,
    expected: Option<Checksum>,
    sums: Sums,
}

struct Download<'a> {
    source: &'a dyn Source,
    manifest: &'a [RemoteFile],
    directory: &'a Path,
    parts: Vec<Part>,
    journal: Journal,
    next: AtomicUsize,
    incoming: Vec<Mutex<Incoming>>,
    failure: Mutex<Option<Error>>,
    /// That have come so far.
    bytes: AtomicU64,
}

/// Brings all files of the manifest below the directory, in place of those that are there. Goes on with a transfer of
/// the same that was interrupted, whose [`Journal`] is at the path, and goes with it. Gives the checksum of each file.
///
/// # Errors
/// What kept a file from coming; the directory is then left half-filled, and the journal stays.
pub fn transfer(
    source: &dyn Source,
    manifest: &[RemoteFile],
    directory: &Path,
    journal: &Path,
) -> Result<Vec<Checksum>> {
    let bytes = total_bytes(manifest);
    if bytes > MAX_BYTES {
        return Err(Error::load(format!("the model's size is said to be {bytes} bytes, which no model has")));
    }
    let parts = parts(manifest);
    let kept = Journal::open(journal, &identity("", manifest), parts.len());
    let kept = kept.map_err(|error| write_error(journal, &error))?;
    if kept.count() > 0 {
        tracing::info!(parts = kept.count(), of = parts.len(), "going on with an interrupted download");
    }
    let mut incoming: Vec<Incoming> = manifest.iter().map(|_| Incoming::default()).collect();
    parts.iter().for_each(|part| incoming[part.file].left += 1);
    let incoming = incoming.into_iter().map(Mutex::new).collect();
    let width = Width::new(parts.len());
    let download = Download {
        source,
        manifest,
        directory,
        parts,
        journal: kept,
        next: AtomicUsize::new(0),
        incoming,
        failure: Mutex::new(None),
        bytes: AtomicU64::new(0),
    };
    crowd(width, BUFFER_BYTES, &download.bytes, &|buffer| download.work(buffer));
    match download.failure.into_inner().expect("no thread panics with it") {
        Some(error) => Err(error),
        None => {
            std::fs::remove_file(journal).map_err(|error| write_error(journal, &error))?;
            Ok(download.incoming.into_iter().map(whole).collect())
        }
    }
}

/// Reads all files of the manifest, and keeps nothing of them.
///
/// # Errors
/// What kept a file from coming.
pub fn throw_away(source: &dyn Source, manifest: &[RemoteFile]) -> Result<()> {
    let (parts, next, bytes) = (parts(manifest), AtomicUsize::new(0), AtomicU64::new(0));
    let failure = Mutex::new(None);
    crowd(Width::new(parts.len()), BUFFER_BYTES, &bytes, &|buffer| {
        while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut count = |_: &dyn RangeReader, _, some: &[u8]| {
                bytes.fetch_add(some.len() as u64, Ordering::Relaxed);
                Ok(())
            };
            let read = read_range(source, &manifest[part.file], part.range.clone(), &mut *buffer, &mut count, &|| true);
            if let Err(error) = read {
                next.store(parts.len(), Ordering::Relaxed);
                failure.lock().expect("no thread panics with it").get_or_insert(error);
            }
        }
    });
    failure.into_inner().expect("no thread panics with it").map_or(Ok(()), Err)
}

fn whole(incoming: Mutex<Incoming>) -> Checksum {
    incoming.into_inner().expect("no thread panics with it").sums.whole()
}

impl Download<'_> {
    /// Fetches parts until there are none left, or one could not be had.
    fn work(&self, buffer: &mut [u8]) {
        while let Some(part) = self.parts.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let fetched = self.fetch(part, self.journal.has(part.number), buffer);
            let checked = fetched.and_then(|is_last| if is_last { self.check(part.file, buffer) } else { Ok(()) });
            if let Err(error) = checked {
                self.next.store(self.parts.len(), Ordering::Relaxed);
                let mut failure = self.failure.lock().expect("no thread panics with it");
                // What follows the first is its consequence.
                failure.get_or_insert(error);
                drop(failure);
                self.source.stop();
            }
        }
    }

    /// Whether it was the last part of the file to come.
    fn fetch(&self, part: &Part, is_there: bool, buffer: &mut [u8]) -> Result<bool> {
        let remote = &self.manifest[part.file];
        let path = self.directory.join(&remote.path);
        let failed = |error: std::io::Error| write_error(&path, &error);
        let (file, mut expected) = self.begin(part, &path)?;
        if is_there {
            let sum = sum_again(&file, part, expected.as_ref(), buffer).map_err(failed)?;
            return Ok(self.finish(part.file, expected, Some(sum)));
        }
        let mut sum = None; // once something has come
        let mut write = |reader: &dyn RangeReader, at, bytes: &[u8]| {
            if at == part.range.start {
                sum = None; // what only comes whole begins again
            }
            if sum.is_none() {
                expected = reader.checksum().cloned().or(expected.take());
            }
            self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            sum.get_or_insert_with(|| Sum::begin(expected.as_ref(), at)).update(bytes);
            file.write_all_at(bytes, at).map_err(failed)
        };
        let is_wanted = || self.failure.lock().expect("no thread panics with it").is_none();
        read_range(self.source, remote, part.range.clone(), buffer, &mut write, &is_wanted)?;
        // A file of one part costs as much to compare as to fetch.
        if part.range != (0..remote.bytes) {
            self.journal.add(part.number).map_err(failed)?;
        }
        Ok(self.finish(part.file, expected, sum))
    }

    /// The file to write to, made by whoever comes first, and what it should sum up to.
    fn begin(&self, part: &Part, path: &Path) -> Result<(Arc<File>, Option<Checksum>)> {
        let remote = &self.manifest[part.file];
        let mut incoming = self.incoming[part.file].lock().expect("no thread panics with it");
        let file = match &incoming.file {
            Some(file) => file.clone(),
            None => {
                let in_parts = part.range != (0..remote.bytes);
                if in_parts && incoming.expected.is_none() {
                    incoming.expected = self.source.checksum(remote)?;
                }
                let file = create(path, remote.bytes, in_parts).map_err(|error| write_error(path, &error))?;
                let file = Arc::new(file);
                incoming.file.insert(file).clone()
            }
        };
        Ok((file, incoming.expected.clone()))
    }

    /// Whether all parts of the file are there now; it is closed then, for a model may have more files than a process
    /// may have open.
    fn finish(&self, number: usize, expected: Option<Checksum>, sum: Option<Sum>) -> bool {
        let mut incoming = self.incoming[number].lock().expect("no thread panics with it");
        incoming.expected = expected;
        incoming.sums.extend(sum);
        incoming.left -= 1;
        if incoming.left == 0 {
            incoming.file = None;
        }
        incoming.left == 0
    }

    /// Compares a file that is all there with its checksum, and fetches it again when it has another.
    fn check(&self, number: usize, buffer: &mut [u8]) -> Result<()> {
        let remote = &self.manifest[number];
        for attempt in 1.. {
            let Some(error) = self.mismatch(number)? else { break };
            if attempt >= self.source.attempts() {
                return Err(error);
            }
            tracing::warn!(file = remote.path, "{error}: fetching it again");
            let parts: Vec<&Part> = self.parts.iter().filter(|part| part.file == number).collect();
            let mut incoming = self.incoming[number].lock().expect("no thread panics with it");
            *incoming = Incoming { left: parts.len(), ..Incoming::default() };
            drop(incoming);
            for part in parts {
                self.fetch(part, false, buffer)?;
            }
        }
        Ok(())
    }

    fn mismatch(&self, number: usize) -> Result<Option<Error>> {
        let remote = &self.manifest[number];
        let mut incoming = self.incoming[number].lock().expect("no thread panics with it");
        let Incoming { expected: Some(expected), sums, .. } = &mut *incoming else { return Ok(None) };
        let is_right = match sums.like(expected) {
            Some(sum) => sum == *expected,
            None => {
                let path = self.directory.join(&remote.path);
                let is_right = File::open(&path).and_then(|file| expected.is_of(file));
                is_right.map_err(|error| Error::load(format!("{}: cannot be read again: {error}", path.display())))?
            }
        };
        Ok((!is_right).then(|| checksum_error(remote, expected)))
    }
}

/// Where what is read goes.
pub(super) trait Sink {
    /// Where to put what comes from this place on.
    fn room(&mut self, at: u64) -> &mut [u8];

    /// So many bytes have been put there, by this reader.
    ///
    /// # Errors
    /// When they cannot be kept.
    fn took(&mut self, reader: &dyn RangeReader, at: u64, bytes: usize) -> Result<()>;
}

/// Hands over what comes through a buffer.
struct Through<'b> {
    buffer: &'b mut [u8],
    take: &'b mut Take<'b>,
}

type Take<'a> = dyn FnMut(&dyn RangeReader, u64, &[u8]) -> Result<()> + 'a;

impl Sink for Through<'_> {
    fn room(&mut self, _: u64) -> &mut [u8] {
        self.buffer
    }

    fn took(&mut self, reader: &dyn RangeReader, at: u64, bytes: usize) -> Result<()> {
        (self.take)(reader, at, &self.buffer[..bytes])
    }
}

/// As [`read_into`], through the buffer.
pub(super) fn read_range<'b>(
    source: &dyn Source,
    remote: &RemoteFile,
    range: Range<u64>,
    buffer: &'b mut [u8],
    take: &'b mut Take<'b>,
    is_wanted: &dyn Fn() -> bool,
) -> Result<()> {
    read_into(source, remote, range, &mut Through { buffer, take }, is_wanted)
}

/// Reads a range and hands over what has come, with its place and its reader. What breaks is asked for again from where
/// it broke, or from its start where it only comes whole.
///
/// # Errors
/// When the source fails for good, or the sink does.
pub(super) fn read_into(
    source: &dyn Source,
    remote: &RemoteFile,
    range: Range<u64>,
    sink: &mut dyn Sink,
    is_wanted: &dyn Fn() -> bool,
) -> Result<()> {
    let mut at = range.start;
    let mut failures = 0; // in a row, without progress
    while at < range.end {
        let begun = at;
        if let Err(Trouble { error, retry }) = attempt(source, remote, &mut at, range.end, sink) {
            if remote.whole {
                at = range.start;
            }
            failures = if at >= begun + PROGRESS_BYTES { 1 } else { failures + 1 };
            match retry {
                Some(wait) if failures < source.attempts() => pause(wait.max(backoff(failures)), is_wanted),
                _ => return Err(error),
            }
        }
    }
    Ok(())
}

/// Reads from `at` on, which goes along.
fn attempt(
    source: &dyn Source,
    remote: &RemoteFile,
    at: &mut u64,
    end: u64,
    sink: &mut dyn Sink,
) -> Result<(), Trouble> {
    let mut reader = source.open(remote, *at..end)?;
    while *at < end {
        let room = sink.room(*at);
        let most = room.len().min(usize::try_from(end - *at).unwrap_or(usize::MAX)).min(BUFFER_BYTES);
        let read = reader.read(&mut room[..most])?;
        sink.took(&*reader, *at, read).map_err(|error| Trouble { error, retry: None })?;
        *at += read as u64;
    }
    Ok(())
}

/// Waits, unless nobody wants that any more.
fn pause(wait: Duration, is_wanted: &dyn Fn() -> bool) {
    const GLANCE: Duration = Duration::from_millis(50);
    let until = Instant::now() + wait;
    while Instant::now() < until && is_wanted() {
        std::thread::sleep(GLANCE.min(until.saturating_duration_since(Instant::now())));
    }
}

/// Asks until there is an answer, or in vain.
///
/// # Errors
/// Of the last attempt.
pub fn ask<T>(attempts: u32, attempt: impl Fn() -> Result<T, Trouble>) -> Result<T> {
    let mut failures = 0;
    loop {
        match attempt() {
            Ok(answer) => return Ok(answer),
            Err(Trouble { error, retry }) => {
                failures += 1;
                match retry {
                    Some(wait) if failures < attempts => std::thread::sleep(wait.max(backoff(failures))),
                    _ => return Err(error),
                }
            }
        }
    }
}

/// How long to wait after so many failures in a row: twice as long each time, and not all at once.
fn backoff(failures: u32) -> Duration {
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

/// The sum of a part that is there from before.
fn sum_again(file: &File, part: &Part, expected: Option<&Checksum>, buffer: &mut [u8]) -> std::io::Result<Sum> {
    let mut sum = Sum::begin(expected, part.range.start);
    let mut at = part.range.start;
    while at < part.range.end {
        let most = buffer.len().min(usize::try_from(part.range.end - at).unwrap_or(usize::MAX));
        file.read_exact_at(&mut buffer[..most], at)?;
        sum.update(&buffer[..most]);
        at += most as u64;
    }
    Ok(sum)
}

/// Makes the file, of its full size when it comes in parts, which are written in any order.
fn create(path: &Path, bytes: u64, in_parts: bool) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(!in_parts);
    let file = match options.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            options.open(path)?
        }
        opened => opened?,
    };
    if in_parts {
        file.set_len(bytes)?;
    }
    Ok(file)
}

pub(super) fn checksum_error(remote: &RemoteFile, expected: &Checksum) -> Error {
    let hint = match expected.algorithm {
        Algorithm::Md5 => "; if this server's ETags are no MD5 sums, set S3_VERIFY_ETAG=false",
        _ => "",
    };
    Error::load(format!(
        "{}: damaged in the store or on the way here: its bytes do not have its checksum, {expected}{hint}",
        remote.key
    ))
}

pub fn write_error(path: &Path, error: &std::io::Error) -> Error {
    Error::load(format!("{}: cannot be written: {error}", path.display()))
}
