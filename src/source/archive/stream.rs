//! A range of a file as one stream of bytes, in order, while several threads fetch what comes next.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::error::{Error, Result};
use crate::source::checksum::{Checksum, InOrder};
use crate::source::reading::{BUFFER_BYTES, read_range};
use crate::source::transfer::checksum_error;
use crate::source::{RangeReader, RemoteFile, Source};

/// One request's worth.
pub(super) const PART_BYTES: u64 = 4 << 20;
/// Most that is fetched, or being fetched, and not yet read.
const WINDOW_BYTES: u64 = 64 << 20;
/// Parts that have been read and wait to be summed up.
const PARTS_TO_SUM: usize = 2;

/// Gives `read` the bytes of the range. What breaks is asked for again from where it broke. All that it reads is
/// summed up beside it, and compared with the expected sum when it is done.
///
/// # Errors
/// Those of the source, and those of `read`: then nothing more is read from the source.
pub fn stream<T>(
    source: &dyn Source,
    file: &RemoteFile,
    range: Range<u64>,
    expected: Option<&Checksum>,
    read: impl FnOnce(&mut Stream<'_>) -> Result<T>,
) -> Result<T> {
    let state = State { next: range.start, at: range.start, ..State::default() };
    let ahead = Ahead { source, file, end: range.end, state: Mutex::new(state), changed: Condvar::new() };
    let parts = (range.end - range.start).div_ceil(PART_BYTES);
    let done = std::thread::scope(|scope| {
        for _ in 0..parts.min(WINDOW_BYTES / PART_BYTES) {
            scope.spawn(|| ahead.work());
        }
        let (to_sum, parts) = sync_channel(PARTS_TO_SUM);
        let sum = expected.map(|expected| scope.spawn(move || sum_up(&parts, file, expected)));
        let closing = Closing(&ahead);
        let to_sum = sum.is_some().then_some(to_sum);
        let mut stream = Stream { ahead: &ahead, next: range.start, part: Arc::default(), at: 0, to_sum };
        let done = read(&mut stream).and_then(|done| {
            let rest = io::copy(&mut stream, &mut io::sink());
            rest.map(|_| done).map_err(|error| Error::load(format!("{}: {error}", file.key)))
        });
        drop((stream, closing));
        if done.is_err() {
            source.stop();
        }
        let is_right = sum.map(|sum| sum.join().expect("sums do not panic")).transpose();
        done.and_then(|done| is_right.map(|_| done))
    });
    let failure = ahead.state.into_inner().expect("no thread panics with it").failure;
    // What is said of a stream that broke is a consequence.
    done.map_err(|error| failure.unwrap_or(error))
}

fn sum_up(parts: &Receiver<Arc<Vec<u8>>>, file: &RemoteFile, expected: &Checksum) -> Result<()> {
    let mut sum = InOrder::begin(expected);
    parts.iter().for_each(|part| sum.update(&part));
    if sum.is_right() { Ok(()) } else { Err(checksum_error(file, expected)) }
}

struct Ahead<'a> {
    source: &'a dyn Source,
    file: &'a RemoteFile,
    end: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Where the first part begins that nobody fetches yet.
    next: u64,
    /// Where the part begins that is being read.
    at: u64,
    ready: BTreeMap<u64, Vec<u8>>,
    failure: Option<Error>,
    /// Nobody reads any more.
    closed: bool,
}

impl State {
    fn is_wanted(&self) -> bool {
        self.failure.is_none() && !self.closed
    }
}

impl Ahead<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with it")
    }

    /// Changes the state and tells everybody.
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// Fetches parts until there are none left, or one could not be had.
    fn work(&self) {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Some(part) = self.claim() {
            let start = part.start;
            match self.fetch(part, &mut buffer) {
                Ok(bytes) => self.change(|state| drop(state.ready.insert(start, bytes))),
                // A download that is not wanted any more fails, too.
                Err(error) => self.change(|state| {
                    if state.is_wanted() {
                        state.failure = Some(error);
                    }
                }),
            }
        }
    }

    /// The next part, once there is room for it.
    fn claim(&self) -> Option<Range<u64>> {
        let is_full = |state: &mut State| state.is_wanted() && state.next >= state.at + WINDOW_BYTES;
        let mut state = self.changed.wait_while(self.state(), is_full).expect("no thread panics with it");
        let start = state.next;
        if !state.is_wanted() || start >= self.end {
            return None;
        }
        state.next = self.end.min(start + PART_BYTES);
        Some(start..state.next)
    }

    fn fetch(&self, part: Range<u64>, buffer: &mut [u8]) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(PART_BYTES.min(part.end - part.start)).unwrap_or_default());
        let mut take = |_: &dyn RangeReader, _, read: &[u8]| Ok(bytes.extend_from_slice(read));
        read_range(self.source, self.file, part, buffer, &mut take, &|| self.state().is_wanted())?;
        Ok(bytes)
    }

    /// The part that begins there, awaited; what was before is not needed any more. `None` after a failure.
    fn take(&self, at: u64) -> Option<Vec<u8>> {
        self.change(|state| state.at = at);
        let is_missing = |state: &mut State| state.failure.is_none() && !state.ready.contains_key(&at);
        let mut state = self.changed.wait_while(self.state(), is_missing).expect("no thread panics with it");
        state.ready.remove(&at)
    }
}

/// Sends the threads home, also when the reader panics.
struct Closing<'a>(&'a Ahead<'a>);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.change(|state| state.closed = true);
    }
}

pub struct Stream<'a> {
    ahead: &'a Ahead<'a>,
    /// Where the next part begins.
    next: u64,
    part: Arc<Vec<u8>>,
    /// How much of the part has been read.
    at: usize,
    to_sum: Option<SyncSender<Arc<Vec<u8>>>>,
}

impl BufRead for Stream<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.part.len() && self.next < self.ahead.end {
            (self.part, self.at) = (Arc::default(), 0); // before there is another
            self.part = Arc::new(self.ahead.take(self.next).ok_or_else(|| io::Error::other("the download failed"))?);
            self.next += self.part.len() as u64;
            if let Some(to_sum) = &self.to_sum {
                to_sum.send(self.part.clone()).map_err(io::Error::other)?;
            }
        }
        Ok(&self.part[self.at..])
    }

    fn consume(&mut self, bytes: usize) {
        self.at += bytes;
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut ready = self.fill_buf()?;
        let read = ready.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
