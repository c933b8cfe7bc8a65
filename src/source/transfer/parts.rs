//! What is fetched at once.

use std::ops::Range;
use std::sync::Mutex;

use crate::content::{Content, Window};
use crate::error::{Error, Result};
use crate::source::RemoteFile;

/// One request's worth: large enough that a round trip does not matter, small enough that all threads have some of a
/// file.
pub const PART_BYTES: u64 = 8 << 20;
/// Of a file that is read while it comes there are at least so many parts, so that its front comes before its end.
const EARLY_PARTS: u64 = 256;
const EARLY_PART_BYTES: Range<u64> = 512 << 10..PART_BYTES;

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

/// How many bytes each part of a file has, and how many parts there are: of an empty file one that is empty.
#[allow(clippy::cast_possible_truncation)] // bounded
pub fn step_and_count(remote: &RemoteFile, early: &dyn Fn(&str) -> bool) -> (u64, usize) {
    let step = match remote {
        RemoteFile { whole: true, bytes, .. } => (*bytes).max(1),
        RemoteFile { path, bytes, .. } if early(path) => {
            (bytes / EARLY_PARTS).clamp(EARLY_PART_BYTES.start, EARLY_PART_BYTES.end)
        }
        _ => PART_BYTES,
    };
    (step, remote.bytes.div_ceil(step).max(1) as usize)
}

/// The parts of all files, in order.
pub fn parts(manifest: &[RemoteFile], early: &dyn Fn(&str) -> bool) -> Vec<Part> {
    let of_file = |(file, remote): (usize, &RemoteFile)| {
        let (bytes, (step, count)) = (remote.bytes, step_and_count(remote, early));
        (0..count as u64).map(move |number| {
            let start = number * step;
            (file, start..bytes.min(start.saturating_add(step)))
        })
    };
    let ranges = manifest.iter().enumerate().flat_map(of_file).enumerate();
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
