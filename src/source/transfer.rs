//! Moves the files of a manifest into a directory, into memory, or both: parts of files by several threads, each of which
//! reads a little and writes it. A file whose bytes do not have the checksum that the store keeps of it is asked for again
//! as a whole.

mod parts;
mod place;

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

pub(super) use self::parts::PART_BYTES;
use self::parts::{Part, count, parts, room, steps};
use self::place::{Place, create};
use super::checksum::{Algorithm, Checksum, Sum, Sums};
use super::crowd::crowd;
use super::journal::Journal;
use super::reading::{BUFFER_BYTES, read_into, read_range};
use super::{RangeReader, RemoteFile, Source, identity, total_bytes};
use crate::content::{Content, Contents};
use crate::device::host;
use crate::device::topology::Memory;
use crate::error::{Error, Result};

/// More than any model has; a bound on how many parts a wrong size makes.
const MAX_BYTES: u64 = 8 << 40;

/// A file while it comes.
#[derive(Default)]
struct Incoming {
    /// From the first part to the last.
    file: Option<Arc<File>>,
    content: Option<Content>,
    /// Parts that are still to come.
    left: usize,
    /// Whether the source has been asked what it should sum up to.
    is_asked: bool,
    expected: Option<Checksum>,
    sums: Sums,
    /// It was damaged on its way.
    is_begun_again: bool,
}

/// Files on their way.
pub struct Transfer<'a> {
    source: &'a dyn Source,
    manifest: &'a [RemoteFile],
    disk: Option<OnDisk<'a>>,
    parts: Vec<Part>,
    incoming: Vec<Mutex<Incoming>>,
    /// That have come so far.
    bytes: AtomicU64,
}

struct OnDisk<'a> {
    directory: &'a Path,
    journal_at: &'a Path,
    journal: Journal,
}

/// Files that have come.
pub struct Moved {
    /// Of each file, in the order of the manifest.
    pub sums: Vec<Checksum>,
    /// Of those that went to memory.
    pub contents: Contents,
    /// Whether what [`Transfer::contents`] gave before is still that: a file that was damaged on its way is not.
    pub is_as_begun: bool,
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
    Transfer::to_disk(source, manifest, directory, journal, &|_| false)?.run().map(|moved| moved.sums)
}

/// Reads all files of the manifest, and keeps nothing of them.
///
/// # Errors
/// What kept a file from coming.
pub fn throw_away(source: &dyn Source, manifest: &[RemoteFile]) -> Result<()> {
    let (parts, bytes) = (parts(manifest, &steps(manifest, &|_| false)), AtomicU64::new(0));
    crowd(&parts, BUFFER_BYTES, &bytes, &|| source.stop(), &|part, buffer, is_wanted| {
        let mut count = |_: &dyn RangeReader, _, some: &[u8]| {
            bytes.fetch_add(some.len() as u64, Ordering::Relaxed);
            Ok(())
        };
        read_range(source, &manifest[part.file], part.range.clone(), buffer, &mut count, is_wanted)
    })
}

impl<'a> Transfer<'a> {
    /// To a directory as [`transfer`], and those files whose paths are wanted `early` to memory as well, when there is
    /// room.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn to_disk(
        source: &'a dyn Source,
        manifest: &'a [RemoteFile],
        directory: &'a Path,
        journal_at: &'a Path,
        early: &dyn Fn(&str) -> bool,
    ) -> Result<Transfer<'a>> {
        let wanted = manifest.iter().filter(|file| early(&file.path));
        let early_bytes = wanted.fold(0_u64, |bytes, file| bytes.saturating_add(file.bytes));
        let has_room = early_bytes > 0 && host::memory().is_none_or(|memory| early_bytes < memory.free() / 2);
        let in_memory = |path: &str| has_room && early(path);
        let mut transfer = Transfer::begin(source, manifest, &in_memory, &in_memory)?;
        // Whoever goes on with it has to cut the files alike.
        let layout = format!("{:?}", transfer.parts.iter().map(|part| part.range.start).collect::<Vec<_>>());
        let journal = Journal::open(journal_at, &identity(&layout, manifest), transfer.parts.len());
        let journal = journal.map_err(|error| write_error(journal_at, &error))?;
        if journal.count() > 0 {
            tracing::info!(parts = journal.count(), of = transfer.parts.len(), "going on with an interrupted download");
        }
        transfer.disk = Some(OnDisk { directory, journal_at, journal });
        Ok(transfer)
    }

    /// Straight into memory; no file is written, and each byte is received where it stays.
    ///
    /// # Errors
    /// When there is no room for them.
    pub fn to_memory(
        source: &'a dyn Source,
        manifest: &'a [RemoteFile],
        early: &dyn Fn(&str) -> bool,
    ) -> Result<Transfer<'a>> {
        let bytes = total_bytes(manifest);
        if let Some(free) = host::memory().map(Memory::free).filter(|free| *free < bytes) {
            return Err(Error::load(format!(
                "the model has {bytes} bytes, and only {free} bytes of memory are free: serve it from the disk \
                 (--cache_dir)"
            )));
        }
        Transfer::begin(source, manifest, early, &|_| true)
    }

    fn begin(
        source: &'a dyn Source,
        manifest: &'a [RemoteFile],
        early: &dyn Fn(&str) -> bool,
        in_memory: &dyn Fn(&str) -> bool,
    ) -> Result<Transfer<'a>> {
        let bytes = total_bytes(manifest);
        if bytes > MAX_BYTES {
            return Err(Error::load(format!("the model's size is said to be {bytes} bytes, which no model has")));
        }
        let steps = steps(manifest, early);
        let mut parts = parts(manifest, &steps);
        let mut incoming: Vec<Incoming> = manifest.iter().map(|_| Incoming::default()).collect();
        let mut rest = parts.as_mut_slice();
        for ((remote, incoming), step) in manifest.iter().zip(&mut incoming).zip(steps) {
            let count = count(remote, step);
            let (own, others) = rest.split_at_mut(count);
            rest = others;
            incoming.left = count;
            if in_memory(&remote.path) {
                incoming.content = Some(room(remote, own)?);
            }
        }
        let incoming = incoming.into_iter().map(Mutex::new).collect();
        Ok(Transfer { source, manifest, disk: None, parts, incoming, bytes: AtomicU64::new(0) })
    }

    /// Those files that go to memory, for whoever reads them while they come. They are not known to be right before the
    /// transfer has come to its end.
    pub fn contents(&self) -> Contents {
        let content = |file: &Mutex<Incoming>| file.lock().expect("no thread panics with it").content.clone();
        let contents = self.manifest.iter().zip(&self.incoming);
        contents.filter_map(|(remote, file)| Some((remote.path.clone(), content(file)?))).collect()
    }

    /// # Errors
    /// What kept a file from coming.
    pub fn run(self) -> Result<Moved> {
        let buffer_bytes = if self.disk.is_some() { BUFFER_BYTES } else { 0 };
        crowd(&self.parts, buffer_bytes, &self.bytes, &|| self.source.stop(), &|part, buffer, is_wanted| {
            let is_there = self.disk.as_ref().is_some_and(|disk| disk.journal.has(part.number));
            let is_last = self.fetch(part, is_there, buffer, is_wanted)?;
            if is_last { self.check(part.file, buffer, is_wanted) } else { Ok(()) }
        })?;
        if let Some(OnDisk { journal_at, .. }) = &self.disk {
            std::fs::remove_file(journal_at).map_err(|error| write_error(journal_at, &error))?;
        }
        let manifest = self.manifest;
        let (mut sums, mut contents, mut is_as_begun) = (Vec::new(), Contents::new(), true);
        for (remote, incoming) in manifest.iter().zip(self.incoming) {
            let mut incoming = incoming.into_inner().expect("no thread panics with it");
            sums.push(incoming.sums.whole());
            is_as_begun &= incoming.content.is_none() || !incoming.is_begun_again;
            contents.extend(incoming.content.map(|content| (remote.path.clone(), content)));
        }
        Ok(Moved { sums, contents, is_as_begun })
    }

    /// Whether it was the last part of the file to come.
    fn fetch(&self, part: &Part, is_there: bool, buffer: &mut [u8], is_wanted: &dyn Fn() -> bool) -> Result<bool> {
        let remote = &self.manifest[part.file];
        let (file, expected) = self.begin_file(part)?;
        let path = self.disk.as_ref().map(|disk| disk.directory.join(&remote.path)).unwrap_or_default();
        let failed = |error: std::io::Error| write_error(&path, &error);
        let mut window = part.window.lock().expect("no thread panics with it").take();
        let mut place = Place {
            range: part.range.clone(),
            buffer,
            window: window.as_mut(),
            file: file.as_deref(),
            path: &path,
            sum: None,
            expected,
            bytes: &self.bytes,
        };
        if let Some(file) = file.as_ref().filter(|_| is_there) {
            place.read_again(file).map_err(failed)?;
        } else {
            read_into(self.source, remote, part.range.clone(), &mut place, is_wanted)?;
        }
        let Place { sum, expected, .. } = place;
        // A file of one part costs as much to compare as to fetch.
        if let Some(disk) = self.disk.as_ref().filter(|_| !is_there && part.range != (0..remote.bytes)) {
            disk.journal.add(part.number).map_err(failed)?;
        }
        if let Some(window) = window {
            window.done();
        }
        Ok(self.finish(part.file, expected, sum))
    }

    /// The file to write to, made by whoever comes first, and what it should sum up to.
    fn begin_file(&self, part: &Part) -> Result<(Option<Arc<File>>, Option<Checksum>)> {
        let remote = &self.manifest[part.file];
        let mut incoming = self.incoming(part.file);
        let in_parts = part.range != (0..remote.bytes);
        if in_parts && !std::mem::replace(&mut incoming.is_asked, true) {
            incoming.expected = self.source.checksum(remote)?;
        }
        if let Some(disk) = self.disk.as_ref().filter(|_| incoming.file.is_none()) {
            let path = disk.directory.join(&remote.path);
            let file = create(&path, remote.bytes, in_parts).map_err(|error| write_error(&path, &error))?;
            incoming.file = Some(Arc::new(file));
        }
        Ok((incoming.file.clone(), incoming.expected.clone()))
    }

    fn incoming(&self, file: usize) -> MutexGuard<'_, Incoming> {
        self.incoming[file].lock().expect("no thread panics with it")
    }

    /// Whether all parts of the file are there now; it is closed then, for a model may have more files than a process
    /// may have open.
    fn finish(&self, file: usize, expected: Option<Checksum>, sum: Option<Sum>) -> bool {
        let mut incoming = self.incoming(file);
        incoming.expected = expected;
        incoming.sums.extend(sum);
        incoming.left -= 1;
        if incoming.left == 0 {
            incoming.file = None;
        }
        incoming.left == 0
    }

    /// Compares a file that is all there with its checksum, and fetches it again when it has another.
    fn check(&self, file: usize, buffer: &mut [u8], is_wanted: &dyn Fn() -> bool) -> Result<()> {
        let remote = &self.manifest[file];
        for attempt in 1.. {
            let Some(error) = self.mismatch(file)? else { break };
            if attempt >= self.source.attempts() {
                return Err(error);
            }
            tracing::warn!(file = remote.path, "{error}: fetching it again");
            let first = self.parts.partition_point(|part| part.file < file);
            let count = self.parts[first..].partition_point(|part| part.file == file);
            let parts = &self.parts[first..first + count];
            let mut incoming = self.incoming(file);
            let is_in_memory = incoming.content.is_some();
            *incoming = Incoming { left: count, is_begun_again: true, ..Incoming::default() };
            if is_in_memory {
                incoming.content = Some(room(remote, parts)?);
            }
            drop(incoming);
            for part in parts {
                self.fetch(part, false, buffer, is_wanted)?;
            }
        }
        Ok(())
    }

    fn mismatch(&self, file: usize) -> Result<Option<Error>> {
        let remote = &self.manifest[file];
        let mut incoming = self.incoming(file);
        let Incoming { expected: Some(expected), sums, content, .. } = &mut *incoming else { return Ok(None) };
        let is_right = match (sums.like(expected), content, &self.disk) {
            (Some(sum), _, _) => sum == *expected,
            (None, Some(content), _) => {
                expected.is_of(content.all()).map_err(|error| Error::load(error.to_string()))?
            }
            (None, None, Some(disk)) => {
                let path = disk.directory.join(&remote.path);
                let is_right = File::open(&path).and_then(|file| expected.is_of(file));
                is_right.map_err(|error| Error::load(format!("{}: cannot be read again: {error}", path.display())))?
            }
            (None, None, None) => true, // it is nowhere
        };
        Ok((!is_right).then(|| checksum_error(remote, expected)))
    }
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

#[cfg(test)]
mod tests;
