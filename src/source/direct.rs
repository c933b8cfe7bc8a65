//! Reads all files of a source straight into memory: no file is written, and each byte is received where it stays.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::checksum::{Checksum, Sum, Sums};
use super::crowd::crowd;
use super::transfer::{PART_BYTES, Sink, checksum_error, read_into};
use super::width::Width;
use super::{RangeReader, RemoteFile, Source, total_bytes};
use crate::device::host;
use crate::error::{Error, Result};

/// A model's files by their paths.
pub type Contents = BTreeMap<String, Arc<[u8]>>;

/// Reads all files of a manifest.
///
/// # Errors
/// What kept a file from coming, or that there is no room for it.
pub fn read_all(source: &dyn Source, manifest: &[RemoteFile]) -> Result<Contents> {
    let bytes = total_bytes(manifest);
    if let Some(free) = host::free_memory().filter(|free| *free < bytes) {
        return Err(Error::load(format!(
            "the model has {bytes} bytes, and only {free} bytes of memory are free: serve it from the disk (--cache_dir)"
        )));
    }
    let mut contents: Vec<Arc<[u8]>> = manifest.iter().map(|file| zeros(file.bytes)).collect::<Result<_>>()?;
    let mut wanted: Vec<usize> = (0..manifest.len()).collect();
    for attempt in 1.. {
        let damaged = read(source, manifest, &wanted, &mut contents)?;
        match damaged.first() {
            None => break,
            Some((file, expected)) if attempt >= source.attempts() => {
                return Err(checksum_error(&manifest[*file], expected));
            }
            Some((file, expected)) => {
                let error = checksum_error(&manifest[*file], expected);
                tracing::warn!(file = manifest[*file].path, "{error}: fetching it again");
            }
        }
        wanted = damaged.into_iter().map(|(file, _)| file).collect();
    }
    Ok(manifest.iter().map(|file| file.path.clone()).zip(contents).collect())
}

/// Memory that the system has not given yet: its pages come when they are written to.
fn zeros(bytes: u64) -> Result<Arc<[u8]>> {
    let bytes = usize::try_from(bytes).map_err(|_| Error::load(format!("a file of {bytes} bytes")))?;
    // SAFETY: a `u8` of zero bits is one.
    let zeros = unsafe { Arc::<[u8]>::new_zeroed_slice(bytes).assume_init() };
    host::want_large_pages(&zeros);
    Ok(zeros)
}

const PART: usize = 8 << 20;
const _: () = assert!(PART as u64 == PART_BYTES);

/// What a thread reads at once.
struct Part<'c> {
    file: usize,
    start: u64,
    window: &'c mut [u8],
}

/// What is known of a file while it comes.
#[derive(Default)]
struct Incoming {
    /// Whether the source has been asked what it should sum up to.
    is_asked: bool,
    expected: Option<Checksum>,
    sums: Sums,
}

struct Reading<'a> {
    source: &'a dyn Source,
    manifest: &'a [RemoteFile],
    parts: Vec<Mutex<Option<Part<'a>>>>,
    next: AtomicUsize,
    incoming: Vec<Mutex<Incoming>>,
    failure: Mutex<Option<Error>>,
    bytes: AtomicU64,
}

/// Reads some of the files; which of them do not have their checksum, and what that is.
fn read(
    source: &dyn Source,
    manifest: &[RemoteFile],
    wanted: &[usize],
    contents: &mut [Arc<[u8]>],
) -> Result<Vec<(usize, Checksum)>> {
    let mut parts = Vec::new();
    for (file, content) in contents.iter_mut().enumerate().filter(|(file, _)| wanted.contains(file)) {
        let content = Arc::get_mut(content).ok_or_else(|| Error::internal("memory that somebody reads already"))?;
        let step = if manifest[file].whole { content.len().max(1) } else { PART };
        let windows = content.chunks_mut(step).enumerate();
        parts.extend(windows.map(|(number, window)| Part { file, start: (number * step) as u64, window }));
    }
    let reading = Reading {
        source,
        manifest,
        parts: parts.into_iter().map(|part| Mutex::new(Some(part))).collect(),
        next: AtomicUsize::new(0),
        incoming: manifest.iter().map(|_| Mutex::default()).collect(),
        failure: Mutex::new(None),
        bytes: AtomicU64::new(0),
    };
    crowd(Width::new(reading.parts.len()), 0, &reading.bytes, &|_| reading.work());
    let Reading { incoming, failure, .. } = reading;
    if let Some(error) = failure.into_inner().expect("no thread panics with it") {
        return Err(error);
    }
    let mut damaged = Vec::new();
    for (file, incoming) in incoming.into_iter().enumerate() {
        let Incoming { expected, mut sums, .. } = incoming.into_inner().expect("no thread panics with it");
        let Some(expected) = expected else { continue };
        let is_right = match sums.like(&expected) {
            Some(sum) => sum == expected,
            None => expected.is_of(&contents[file][..]).map_err(|error| Error::internal(error.to_string()))?,
        };
        if !is_right {
            damaged.push((file, expected));
        }
    }
    Ok(damaged)
}

impl Reading<'_> {
    fn work(&self) {
        while let Some(part) = self.parts.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let mut part = part.lock().expect("no thread panics with it");
            let Some(Err(error)) = part.as_mut().map(|part| self.fetch(part)) else { continue };
            self.next.store(self.parts.len(), Ordering::Relaxed);
            // What follows the first is its consequence.
            self.failure.lock().expect("no thread panics with it").get_or_insert(error);
            self.source.stop();
        }
    }

    fn fetch(&self, part: &mut Part<'_>) -> Result<()> {
        let remote = &self.manifest[part.file];
        let range = part.start..part.start + part.window.len() as u64;
        let in_parts = range != (0..remote.bytes);
        let mut window =
            Window { expected: None, sum: None, range: range.clone(), room: &mut *part.window, bytes: &self.bytes };
        if in_parts {
            let mut incoming = self.incoming[part.file].lock().expect("no thread panics with it");
            if !std::mem::replace(&mut incoming.is_asked, true) {
                incoming.expected = self.source.checksum(remote)?;
            }
            window.expected.clone_from(&incoming.expected);
        }
        let is_wanted = || self.failure.lock().expect("no thread panics with it").is_none();
        read_into(self.source, remote, range, &mut window, &is_wanted)?;
        let mut incoming = self.incoming[part.file].lock().expect("no thread panics with it");
        incoming.expected = window.expected;
        incoming.sums.extend(window.sum);
        Ok(())
    }
}

/// Where a part goes.
struct Window<'c> {
    expected: Option<Checksum>,
    sum: Option<Sum>,
    range: Range<u64>,
    room: &'c mut [u8],
    bytes: &'c AtomicU64,
}

impl Window<'_> {
    #[allow(clippy::cast_possible_truncation)] // no farther than the room is long
    fn place(&self, at: u64) -> usize {
        (at - self.range.start) as usize
    }
}

impl Sink for Window<'_> {
    fn room(&mut self, at: u64) -> &mut [u8] {
        let place = self.place(at);
        &mut self.room[place..]
    }

    fn took(&mut self, reader: &dyn RangeReader, at: u64, bytes: usize) -> Result<()> {
        if at == self.range.start {
            self.sum = None; // what only comes whole begins again
        }
        if self.sum.is_none() {
            self.expected = reader.checksum().cloned().or(self.expected.take());
        }
        let place = self.place(at);
        let sum = self.sum.get_or_insert_with(|| Sum::begin(self.expected.as_ref(), at));
        sum.update(&self.room[place..][..bytes]);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::source::memory::Memory;
    use crate::source::transfer::BUFFER_BYTES;

    fn content() -> Bytes {
        (0..=250).cycle().take(PART * 2 + 12_345).collect()
    }

    fn source(plan: impl FnOnce(&mut Memory)) -> Memory {
        let mut source =
            Memory::new([("1/model.onnx", content()), ("empty", Bytes::new()), ("small", Bytes::from_static(b"x"))]);
        plan(&mut source);
        source
    }

    fn assert_read(source: &Memory) {
        let read = read_all(source, &source.manifest().unwrap()).unwrap();
        assert_eq!(&read["1/model.onnx"][..], content());
        assert_eq!((&read["empty"][..], &read["small"][..]), (&b""[..], &b"x"[..]));
    }

    #[test]
    fn all_files_arrive_whole() {
        assert_read(&source(|_| {}));
        assert_read(&source(|source| source.whole = true));
    }

    #[test]
    fn what_breaks_or_is_damaged_is_read_again() {
        assert_read(&source(|source| source.break_after = Some(3 * BUFFER_BYTES)));
        assert_read(&source(|source| source.damaged = 1));
    }

    #[test]
    fn what_fails_for_good_fails() {
        let failing = source(|source| source.fail_from = Some(2));
        let error = read_all(&failing, &failing.manifest().unwrap()).unwrap_err();
        assert!(error.message().contains("scripted failure"), "{error}");
        let damaged = source(|source| source.damaged = usize::MAX);
        let error = read_all(&damaged, &damaged.manifest().unwrap()).unwrap_err();
        assert!(error.message().contains("do not have its checksum"), "{error}");
        let huge = vec![RemoteFile { bytes: 1 << 50, ..source(|_| {}).manifest().unwrap().remove(0) }];
        assert!(read_all(&source(|_| {}), &huge).unwrap_err().message().contains("of memory are free"));
    }
}
