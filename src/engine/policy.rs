//! What an operator may decide about the order and the size of batches. Pure.

use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Most rows in one batch.
    pub max_rows: usize,
    /// Sizes that batches should have, ascending; none: whatever gets most done.
    pub preferred_rows: Vec<usize>,
    /// How long a job may wait for company while a worker is free. Zero never waits.
    pub max_delay: Duration,
    pub max_queue: MaxQueue,
    /// How much longer a job of the next level waits than one of the level before it, however many of these come.
    pub ageing: Duration,
    /// Workers, each by the kind of its device: those of a kind take equally long.
    pub workers: Vec<usize>,
}

/// The most that may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxQueue {
    pub jobs: usize,
    pub rows: usize,
    pub bytes: usize,
}

impl Policy {
    /// With one worker, batches as large as is best, and no more than `jobs` that wait.
    pub fn new(max_rows: usize, jobs: usize) -> Policy {
        Policy {
            max_rows,
            preferred_rows: Vec::new(),
            max_delay: Duration::ZERO,
            max_queue: MaxQueue { jobs, rows: usize::MAX, bytes: usize::MAX },
            ageing: Duration::from_secs(1),
            workers: vec![0],
        }
    }
}
