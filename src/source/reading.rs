//! Asks a source until it answers, or in vain: what breaks is asked for again from where it broke, with the same tag, or
//! from its start where it only comes whole.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::{RangeReader, RemoteFile, Source, Trouble};
use crate::error::Result;

/// What has to come before a connection breaks, or else it is as if nothing had.
const PROGRESS_BYTES: u64 = 64 << 10;
/// What a thread reads before it writes: it stays in the processor's cache.
pub const BUFFER_BYTES: usize = 256 << 10;

/// Where what is read goes.
pub trait Sink {
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
pub fn read_range<'b>(
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
pub fn read_into(
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
