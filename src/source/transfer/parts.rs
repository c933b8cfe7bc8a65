//! What is fetched at once.

use std::ops::Range;
use std::sync::Mutex;

use crate::content::{Content, Window};
use crate::error::{Error, Result};
use crate::source::{RemoteFile, total_bytes};

/// Most of one request: so much that a round trip does not matter. A file that has no more comes in one.
pub const PART_BYTES: u64 = 8 << 20;
/// Of a model there are at least so many parts, so that all threads have some of it until the end.
const PARTS: u64 = 128;
const LEAST_BYTES: u64 = 1 << 20;
/// Of a file that is read while it comes there are more, so that its front comes well before its end.
const EARLY_PARTS: u64 = 256;
const LEAST_EARLY_BYTES: u64 = 512 << 10;

/// What a thread fetches at once.
pub struct Part {
    /// Among the parts of all files.
    pub number: usize,
    /// Its place in the manifest.
    pub file: usize,
    pub range: Range<u64>,
    /// Where it goes in memory.
    pub window: Mutex<Option<Window>>,
}

/// How many bytes each part of a file has, for each file.
pub fn steps(manifest: &[RemoteFile], early: &dyn Fn(&str) -> bool) -> Vec<u64> {
    let of_all = (total_bytes(manifest) / PARTS).clamp(LEAST_BYTES, PART_BYTES);
    let of_file = |remote: &RemoteFile| match remote.bytes {
        bytes if remote.whole => bytes.max(1),
        ..=PART_BYTES => PART_BYTES,
        bytes if early(&remote.path) => (bytes / EARLY_PARTS).clamp(LEAST_EARLY_BYTES, of_all),
        _ => of_all,
    };
    manifest.iter().map(of_file).collect()
}

/// How many parts a file has: one that is empty, when it is.
#[allow(clippy::cast_possible_truncation)] // bounded
pub fn count(remote: &RemoteFile, step: u64) -> usize {
    remote.bytes.div_ceil(step).max(1) as usize
}

/// The parts of all files, in order.
pub fn parts(manifest: &[RemoteFile], steps: &[u64]) -> Vec<Part> {
    let of_file = |(file, (remote, step)): (usize, (&RemoteFile, &u64))| {
        let (bytes, step) = (remote.bytes, *step);
        (0..count(remote, step) as u64).map(move |number| {
            let start = number * step;
            (file, start..bytes.min(start.saturating_add(step)))
        })
    };
    let ranges = manifest.iter().zip(steps).enumerate().flat_map(of_file).enumerate();
    ranges.map(|(number, (file, range))| Part { number, file, range, window: Mutex::default() }).collect()
}

/// Room in memory for a file, of which each part gets its own.
pub fn room(remote: &RemoteFile, parts: &[Part]) -> Result<Content> {
    let none = || Error::load(format!("{}: there is no room for {} bytes", remote.path, remote.bytes));
    let window = parts.first().map_or(1, |part| part.range.end - part.range.start);
    let window = usize::try_from(window).map_err(|_| none())?;
    let (content, windows) = Content::coming(remote.bytes, window.max(1)).ok_or_else(none)?;
    for (part, window) in parts.iter().zip(windows) {
        *part.window.lock().expect("no thread panics with it") = Some(window);
    }
    Ok(content)
}
