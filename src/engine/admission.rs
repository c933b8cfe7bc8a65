//! May this request enter? Counts requests and the bytes they hold, so that no traffic can take more memory than
//! the limits say. Lock-free, and whatever was taken is given back when the guard drops.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most requests between their first byte and their answer.
    pub max_requests: usize,
    /// Most request bytes held at once, over all requests.
    pub max_bytes: usize,
}

#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    requests: AtomicUsize,
    bytes: AtomicUsize,
    /// That a request stays, on average, the last ones counting most.
    microseconds: AtomicU64,
}

impl Admission {
    pub fn new(limits: Limits) -> Arc<Self> {
        let (requests, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Admission { limits, requests, bytes, microseconds: AtomicU64::new(0) })
    }

    /// Too much is inside; it will have left when a request has stayed as long as they do.
    fn full(&self, text: String) -> Error {
        Error::new(Kind::Overloaded, text).with_retry_after(Duration::from_micros(self.microseconds.load(Relaxed)))
    }

    /// What a request that stayed so long says of the others. Of two that leave at once one may not be counted.
    fn learn(&self, stayed: Duration) {
        const PART: u64 = 16;
        let (mean, stayed) = (self.microseconds.load(Relaxed), u64::try_from(stayed.as_micros()).unwrap_or(u64::MAX));
        self.microseconds.store(mean - mean / PART + stayed / PART, Relaxed);
    }

    /// Requests inside.
    pub fn requests(&self) -> usize {
        self.requests.load(Relaxed)
    }

    /// # Errors
    /// [`Kind::Overloaded`] when as many requests as allowed are inside.
    pub fn enter(self: &Arc<Self>, now: Instant) -> Result<Guard> {
        /// One of so many is timed.
        const SAMPLED: usize = 16;
        let Limits { max_requests, .. } = self.limits;
        let before = take(&self.requests, 1, max_requests)
            .map_err(|()| self.full(format!("{max_requests} requests are in flight (--max_inflight_requests)")))?;
        let entered = before.is_multiple_of(SAMPLED).then_some(now);
        Ok(Guard { admission: self.clone(), bytes: AtomicUsize::new(0), entered })
    }
}

/// One request's place; dropping it frees the place and its bytes.
#[derive(Debug)]
pub struct Guard {
    admission: Arc<Admission>,
    bytes: AtomicUsize,
    entered: Option<Instant>,
}

impl Guard {
    /// Bytes accounted for so far.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Accounts for more bytes that this request takes: of its body, its tensors, its answer.
    ///
    /// # Errors
    /// [`Kind::TooLarge`] when it alone would take more than allowed, [`Kind::Overloaded`] when all requests together
    /// would.
    pub fn grow(&self, bytes: usize) -> Result<()> {
        let Limits { max_bytes, .. } = self.admission.limits;
        if self.bytes().saturating_add(bytes) > max_bytes {
            let text = format!("this request alone takes more than {max_bytes} bytes (--max_inflight_bytes)");
            return Err(Error::new(Kind::TooLarge, text)); // trying again would not help
        }
        take(&self.admission.bytes, bytes, max_bytes).map_err(|()| {
            let text = format!("the requests in flight hold all of {max_bytes} bytes (--max_inflight_bytes)");
            self.admission.full(text)
        })?;
        self.bytes.fetch_add(bytes, Relaxed);
        Ok(())
    }

    /// Gives the bytes back, and keeps the place: what they were taken for is gone.
    pub fn release_bytes(&self) {
        self.admission.bytes.fetch_sub(self.bytes.swap(0, Relaxed), Relaxed);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.release_bytes();
        self.admission.requests.fetch_sub(1, Relaxed);
        self.entered.iter().for_each(|entered| self.admission.learn(entered.elapsed()));
    }
}

/// Adds `amount` unless the sum would pass `limit`; what it was before.
fn take(counter: &AtomicUsize, amount: usize, limit: usize) -> Result<usize, ()> {
    let within = |held: usize| held.checked_add(amount).filter(|sum| *sum <= limit);
    counter.fetch_update(Relaxed, Relaxed, within).map_err(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_may_come_when_the_others_have_left() {
        let admission = Admission::new(Limits { max_requests: 1, max_bytes: 10 });
        (0..100).for_each(|_| admission.learn(Duration::from_secs(3)));
        let _inside = admission.enter(Instant::now()).unwrap();
        let time = admission.enter(Instant::now()).unwrap_err().retry_after().unwrap();
        assert!((2.9..=3.0).contains(&time.as_secs_f64()), "{time:?}");
    }

    #[test]
    fn places_and_bytes_are_bounded_and_come_back() {
        let admission = Admission::new(Limits { max_requests: 2, max_bytes: 10 });
        let first = admission.enter(Instant::now()).unwrap();
        let second = admission.enter(Instant::now()).unwrap();
        assert_eq!(admission.enter(Instant::now()).unwrap_err().kind(), Kind::Overloaded);
        first.grow(6).unwrap();
        assert!(second.grow(5).unwrap_err().message().contains("10 bytes"));
        assert_eq!(second.grow(11).unwrap_err().kind(), Kind::TooLarge);
        assert_eq!(second.grow(usize::MAX).unwrap_err().kind(), Kind::TooLarge);
        drop(first);
        second.grow(10).unwrap();
        second.release_bytes();
        assert_eq!((second.bytes(), admission.requests()), (0, 1));
        second.grow(10).unwrap();
        assert_eq!(admission.requests(), 1);
        drop(second);
        assert_eq!((admission.requests(), admission.bytes.load(Relaxed)), (0, 0));
    }
}
