//! A file's bytes in memory, all here or on their way. Whoever reads them goes from the front to the back and says how far
//! next; whoever brings them fills windows, in any order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use bytes::Bytes;

use crate::device::host;

/// A model's files by their paths.
pub type Contents = BTreeMap<String, Content>;

/// The bytes of one file. Clones share them.
#[derive(Clone, Debug)]
pub struct Content(Inner);

#[derive(Clone, Debug)]
enum Inner {
    Here(Bytes),
    Coming(Arc<Coming>),
}

impl Content {
    /// Room for a file of so many bytes, and the windows through which it is filled, each of which is so long; the last
    /// one may be shorter. `None` when there is no such room.
    pub fn coming(bytes: u64, window: usize) -> Option<(Content, Vec<Window>)> {
        let bytes = usize::try_from(bytes).ok().filter(|bytes| isize::try_from(*bytes).is_ok())?;
        if bytes == 0 {
            return Some((Bytes::new().into(), Vec::new()));
        }
        // Memory that the system has not given yet: its pages come when they are written to.
        // SAFETY: a `u8` of zero bits is one.
        let mut memory = unsafe { Arc::<[u8]>::new_zeroed_slice(bytes).assume_init() };
        host::want_large_pages(&memory);
        let start = Arc::get_mut(&mut memory)?.as_mut_ptr();
        let arrived = Arrived { windows: vec![false; bytes.div_ceil(window)], in_order: 0, is_broken: false };
        let arrived = Mutex::new(arrived);
        let coming =
            Arc::new(Coming { memory, start, window, ready: AtomicUsize::new(0), arrived, change: Condvar::new() });
        let ranges = (0..bytes).step_by(window).map(|start| start..bytes.min(start + window));
        let windows = ranges.map(|range| Window { coming: coming.clone(), range, is_done: false }).collect();
        Some((Content(Inner::Coming(coming)), windows))
    }

    /// How many bytes the file has, wherever they are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Inner::Here(bytes) => bytes.len(),
            Inner::Coming(coming) => coming.memory_bytes(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The file from its first byte to this end, or farther. Waits for what is on its way; what will not come is missing,
    /// as if the file were cut short.
    pub fn upto(&self, end: usize) -> &[u8] {
        match &self.0 {
            Inner::Here(bytes) => bytes,
            Inner::Coming(coming) => coming.upto(end),
        }
    }

    /// All bytes, as [`Content::upto`].
    pub fn all(&self) -> &[u8] {
        self.upto(self.len())
    }

    /// A range of the bytes without copying them, as [`Content::upto`]; `None` when they are missing.
    pub fn slice(&self, range: Range<usize>) -> Option<Bytes> {
        match &self.0 {
            Inner::Here(bytes) => (range.start <= range.end && range.end <= bytes.len()).then(|| bytes.slice(range)),
            Inner::Coming(coming) => {
                coming.upto(range.end).get(range.clone())?;
                Some(Bytes::from_owner(Piece { coming: coming.clone(), range }))
            }
        }
    }

    /// All bytes, for whoever keeps them; `None` when some are missing.
    pub fn shared(&self) -> Option<Arc<[u8]>> {
        match &self.0 {
            Inner::Here(bytes) => Some(Arc::from(&bytes[..])),
            Inner::Coming(coming) => (coming.upto(self.len()).len() == self.len()).then(|| coming.memory.clone()),
        }
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Content {
        Content(Inner::Here(bytes))
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Content {
        Bytes::from(bytes).into()
    }
}

impl<T: AsRef<[u8]> + ?Sized> From<&T> for Content {
    /// A copy.
    fn from(bytes: &T) -> Content {
        Bytes::copy_from_slice(bytes.as_ref()).into()
    }
}

#[derive(Debug)]
struct Coming {
    /// Looked at only through `start`, and only as far as `ready`, until all of it is.
    memory: Arc<[u8]>,
    start: *mut u8,
    /// Bytes of each but the last.
    window: usize,
    /// So many bytes from the front are there, and are not written to any more.
    ready: AtomicUsize,
    arrived: Mutex<Arrived>,
    change: Condvar,
}

// SAFETY: bytes are written through a window, of which there is one for each, and are read only after it is done.
unsafe impl Send for Coming {}
// SAFETY: as above.
unsafe impl Sync for Coming {}

#[derive(Debug)]
struct Arrived {
    windows: Vec<bool>,
    /// How many from the front on.
    in_order: usize,
    /// A window was given up.
    is_broken: bool,
}

impl Coming {
    /// Without looking at them.
    fn memory_bytes(&self) -> usize {
        Arc::as_ptr(&self.memory).len()
    }

    fn arrived(&self) -> MutexGuard<'_, Arrived> {
        self.arrived.lock().expect("no thread panics with it")
    }

    fn upto(&self, end: usize) -> &[u8] {
        let end = end.min(self.memory_bytes());
        let mut ready = self.ready.load(Ordering::Acquire);
        if ready < end {
            let is_missing = |arrived: &mut Arrived| self.ready.load(Ordering::Acquire) < end && !arrived.is_broken;
            drop(self.change.wait_while(self.arrived(), is_missing).expect("no thread panics with it"));
            ready = self.ready.load(Ordering::Acquire);
        }
        // SAFETY: the windows of these bytes are done, so that nobody writes to them.
        unsafe { std::slice::from_raw_parts(self.start, ready) }
    }
}

/// The only way to write to a stretch of a file. Dropped before it is done, it leaves the file without these bytes.
#[derive(Debug)]
pub struct Window {
    coming: Arc<Coming>,
    range: Range<usize>,
    is_done: bool,
}

impl Window {
    /// Which of the file's bytes it is for.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: within the memory, of this window alone, and nobody reads it before it is done.
        unsafe { std::slice::from_raw_parts_mut(self.coming.start.add(self.range.start), self.range.len()) }
    }

    /// All bytes of it are there.
    pub fn done(mut self) {
        self.is_done = true;
        let Coming { window, ready, change, .. } = &*self.coming;
        let mut arrived = self.coming.arrived();
        arrived.windows[self.range.start / window] = true;
        while arrived.windows.get(arrived.in_order) == Some(&true) {
            arrived.in_order += 1;
        }
        ready.store((arrived.in_order * window).min(self.coming.memory_bytes()), Ordering::Release);
        change.notify_all();
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if !self.is_done {
            self.coming.arrived().is_broken = true;
            self.coming.change.notify_all();
        }
    }
}

/// Bytes that are there.
struct Piece {
    coming: Arc<Coming>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.coming.upto(self.range.end)[self.range.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn byte(at: usize) -> u8 {
        u8::try_from(at % 251).unwrap()
    }

    fn fill(mut window: Window) {
        let start = window.range.start;
        window.bytes().iter_mut().zip(start..).for_each(|(to, at)| *to = byte(at));
        window.done();
    }

    #[test]
    fn readers_get_what_has_come_in_whatever_order() {
        for (bytes, window) in [(1, 1), (10, 3), (100_000, 1000), (9, 10), (12, 4)] {
            let (content, mut windows) = Content::coming(bytes as u64, window).unwrap();
            assert_eq!((content.len(), content.upto(0).len()), (bytes, 0));
            windows.sort_by_key(|window| window.range.start * 7919 % 101);
            std::thread::scope(|scope| {
                scope.spawn(|| windows.into_iter().for_each(fill));
                let mut at = 0;
                while at < bytes {
                    let end = (at + 1 + at % 777).min(bytes);
                    assert!(content.upto(end)[at..].iter().zip(at..).all(|(found, at)| *found == byte(at)));
                    assert_eq!(content.slice(at..end).unwrap(), content.upto(end)[at..end]);
                    at = end;
                }
            });
            assert_eq!(content.all(), &content.shared().unwrap()[..]);
            assert!(content.slice(0..bytes + 1).is_none());
        }
    }

    #[test]
    fn what_does_not_come_is_missing() {
        let (content, windows) = Content::coming(10, 4).unwrap();
        let [first, broken, last] = <[Window; 3]>::try_from(windows).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| drop(broken));
            scope.spawn(|| fill(first));
            assert!([0, 4].contains(&content.upto(5).len()));
        });
        fill(last);
        assert_eq!(content.upto(3), [0, 1, 2, 3]);
        assert_eq!((content.slice(2..4).unwrap().len(), content.slice(2..5), content.shared()), (2, None, None));
    }

    #[test]
    fn nothing_is_all_there() {
        let (content, windows) = Content::coming(0, 4).unwrap();
        assert!(content.is_empty() && windows.is_empty());
        assert_eq!(content.shared().unwrap().len(), 0);
        assert!(Content::coming(u64::MAX, 4).is_none());
    }
}
