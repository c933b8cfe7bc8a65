//! How many requests are in flight: more, for as long as more of them bring more. One connection over a network carries
//! what the network gives to one; on loopback a few fill the processor.

use std::time::Duration;

/// Half of it fills a 10 Gbit/s link where connections are fast; many small files want more.
const FIRST: usize = 32;
/// Servers and proxies begin to mind more.
const MOST: usize = 64;
/// Percent that twice the requests have to bring.
const WORTH: u128 = 120;

pub struct Width {
    requests: usize,
    most: usize,
    /// Bytes a second with half of them.
    before: u128,
}

impl Width {
    /// For so many parts.
    pub fn new(parts: usize) -> Width {
        Width { requests: parts.min(FIRST), most: parts.min(MOST), before: 0 }
    }

    /// How many to begin with.
    pub fn first(&self) -> usize {
        self.requests
    }

    /// How many there will ever be.
    pub fn most(&self) -> usize {
        self.most
    }

    /// How many to add when all of those that there are have brought so many bytes in this time.
    pub fn more(&mut self, bytes: u64, time: Duration) -> usize {
        let rate = u128::from(bytes) * 1000 / time.as_millis().max(1);
        if rate * 100 < self.before * WORTH {
            self.most = self.requests; // for good: the last ones brought nothing
        }
        self.before = rate;
        let more = (self.most - self.requests).min(self.requests);
        self.requests += more;
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is added at each look, at these rates.
    fn added(parts: usize, rates: &[u64]) -> Vec<usize> {
        let mut width = Width::new(parts);
        let more = rates.iter().map(|rate| width.more(rate / 2, Duration::from_millis(500)));
        [Width::new(parts).first()].into_iter().chain(more).collect()
    }

    #[test]
    fn what_brings_more_is_followed_by_more() {
        assert_eq!(added(1000, &[800, 1600, 3200, 6400]), [32, 32, 0, 0, 0], "each connection is slow");
        assert_eq!(added(1000, &[1200, 1210, 2500]), [32, 32, 0, 0], "the machine is full");
        assert_eq!(added(40, &[10, 20]), [32, 8, 0]);
        assert_eq!(added(1000, &[800, 0, 1600]), [32, 32, 0, 0]);
        assert_eq!(added(3, &[10, 20]), [3, 0, 0]);
    }
}
