//! How far a download has come, and saying so: on a terminal in one line that changes, elsewhere now and then in the log.

use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::checksum::Checksum;
use super::digest::ModelDigest;
use super::uri::SourceUri;
use super::{RangeReader, RemoteFile, Source, Trouble};
use crate::error::Result;

pub struct Progress {
    begun: Instant,
    total: u64,
    bytes: AtomicU64,
    first: OnceLock<Duration>,
    watch: Option<Watch>,
}

/// Told how many bytes have just come, and how many are left at most: some may be here from before.
pub type Watch = Box<dyn Fn(u64, u64) + Send + Sync>;

impl Progress {
    /// Of a download that begins now, of so many bytes.
    pub fn begin(total: u64) -> Progress {
        Progress { begun: Instant::now(), total, bytes: AtomicU64::new(0), first: OnceLock::new(), watch: None }
    }

    /// As [`begin`](Self::begin), while somebody watches.
    pub fn watched(total: u64, watch: Watch) -> Progress {
        Progress { watch: Some(watch), ..Progress::begin(total) }
    }

    /// The same source, whose bytes are counted.
    pub fn of<'a>(&'a self, source: &'a dyn Source) -> Counted<'a> {
        Counted { source, progress: self }
    }

    fn add(&self, bytes: usize) {
        self.first.get_or_init(|| self.begun.elapsed());
        let bytes = bytes as u64;
        let came = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(watch) = &self.watch {
            watch(bytes, self.total.saturating_sub(came));
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// From the beginning to the first byte, if there was one.
    pub fn first_byte(&self) -> Option<Duration> {
        self.first.get().copied()
    }

    /// Does the work, and tells of it meanwhile.
    pub fn tell<T>(&self, what: &str, work: impl FnOnce() -> T) -> T {
        let (done, is_done) = channel::<()>();
        let terminal = std::io::stderr().is_terminal();
        let every = if terminal { Duration::from_millis(200) } else { Duration::from_secs(10) };
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while is_done.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                    if terminal {
                        let _ = write!(std::io::stderr(), "\r\x1b[K{}", self.line(what, self.begun.elapsed()));
                    } else {
                        let seconds = self.begun.elapsed().as_secs_f64();
                        tracing::info!(uri = what, bytes = self.bytes(), of = self.total, seconds, "model on its way");
                    }
                }
                if terminal {
                    let _ = write!(std::io::stderr(), "\r\x1b[K");
                }
            });
            let worked = work();
            drop(done);
            worked
        })
    }

    fn line(&self, what: &str, since: Duration) -> String {
        let megabytes = |bytes: u64| bytes / 1_000_000;
        let rate = u128::from(self.bytes()) / since.as_millis().max(1) / 1000;
        format!("{what}: {} of {} MB, {rate} MB/s", megabytes(self.bytes()), megabytes(self.total))
    }
}

pub struct Counted<'a> {
    source: &'a dyn Source,
    progress: &'a Progress,
}

impl Source for Counted<'_> {
    fn manifest(&self) -> Result<Vec<RemoteFile>> {
        self.source.manifest()
    }

    fn open(&self, file: &RemoteFile, range: Range<u64>) -> Result<Box<dyn RangeReader + '_>, Trouble> {
        Ok(Box::new(Reading { reader: self.source.open(file, range)?, progress: self.progress }))
    }

    fn checksum(&self, file: &RemoteFile) -> Result<Option<Checksum>> {
        self.source.checksum(file)
    }

    fn version(&self, file: &RemoteFile) -> Result<Option<String>> {
        self.source.version(file)
    }

    fn place(&self) -> Option<SourceUri> {
        self.source.place()
    }

    fn pinned(&self) -> Option<ModelDigest> {
        self.source.pinned()
    }

    fn attempts(&self) -> u32 {
        self.source.attempts()
    }

    fn stop(&self) {
        self.source.stop();
    }
}

struct Reading<'a> {
    reader: Box<dyn RangeReader + 'a>,
    progress: &'a Progress,
}

impl RangeReader for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Trouble> {
        let read = self.reader.read(buffer)?;
        self.progress.add(read);
        Ok(read)
    }

    fn checksum(&self) -> Option<&Checksum> {
        self.reader.checksum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_much_and_how_fast() {
        let progress = Progress::begin(14_000_000_000);
        assert_eq!(progress.first_byte(), None);
        progress.add(3_000_000_000);
        assert!(progress.first_byte().is_some());
        let line = progress.line("s3://b/m", Duration::from_secs(2));
        assert_eq!(line, "s3://b/m: 3000 of 14000 MB, 1500 MB/s");
    }

    #[test]
    fn work_is_not_held_up() {
        let begun = Instant::now();
        assert_eq!(Progress::begin(1).tell("x", || 7), 7);
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
