//! One model's queue: a [`Batcher`] behind a lock. Callers push, free workers pull.
//!
//! Workers pull instead of being sent batches, so a batch is put together at the last moment, when its worker is
//! free, and no batch waits half-full in a channel. The same `next` serves a thread, a task of the runtime, and a
//! task under tokio's paused clock, which is how the simulation drives it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::batch::{Batch, Batcher, Job, Next, Pushed, Refused};
use super::policy::Policy;

pub struct Queue<J: Job> {
    state: Mutex<State<J>>,
    wake: Notify,
}

struct State<J: Job> {
    batcher: Batcher<J>,
    closed: bool,
}

/// Why a push failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    Refused(Refused),
    Closed,
}

/// What waits.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    pub jobs: usize,
    pub rows: usize,
    pub bytes: usize,
}

impl<J: Job> Queue<J> {
    pub fn new(policy: Policy) -> Self {
        Queue { state: Mutex::new(State { batcher: Batcher::new(policy), closed: false }), wake: Notify::new() }
    }

    /// Says what a batch took at warm-up, on a device of this kind.
    pub fn learn(&self, kind: usize, elements: usize, rows: usize, took: Duration) {
        self.lock().batcher.learn(kind, elements, rows, took, Instant::now().into_std());
    }

    /// Gives back the jobs that had to give way.
    ///
    /// # Errors
    /// When the job is refused or the queue is closed; the job is dropped.
    pub fn push(&self, job: J) -> Result<Vec<J>, PushError> {
        let mut state = self.lock();
        if state.closed {
            return Err(PushError::Closed);
        }
        let pushed = state.batcher.push(job, Instant::now().into_std());
        drop(state);
        let Pushed { wakes, evicted } = pushed.map_err(PushError::Refused)?;
        if wakes {
            self.wake.notify_one();
        }
        Ok(evicted)
    }

    /// Waits for a worker's next batch; `None` once the queue is closed and empty.
    pub async fn next(&self, worker: usize) -> Option<Batch<J>> {
        loop {
            let (next, more, closed) = {
                let mut state = self.lock();
                let next = state.batcher.next(worker, Instant::now().into_std());
                (next, state.batcher.jobs() > 0, state.closed)
            };
            match next {
                Next::Run(batch) => {
                    if more {
                        self.wake.notify_one(); // another worker may be free
                    }
                    return Some(batch);
                }
                Next::Idle if closed => {
                    self.wake.notify_one(); // let the other workers see it too
                    return None;
                }
                Next::Idle => self.wake.notified().await,
                Next::Pass => {
                    self.wake.notify_one();
                    sleep(Duration::from_millis(1)).await; // unless that one is gone
                }
                Next::SleepUntil(due) => {
                    tokio::select! {
                        () = self.wake.notified() => {}
                        () = sleep_until(due.into()) => {}
                    }
                }
            }
        }
    }

    /// A worker has finished its batch; what it took is learned if it went well.
    pub fn done(&self, worker: usize, went_well: bool) {
        self.lock().batcher.done(worker, went_well, Instant::now().into_std());
    }

    /// Takes no more jobs; those inside are still handed out.
    pub fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    pub fn depth(&self) -> Depth {
        let State { batcher, .. } = &*self.lock();
        Depth { jobs: batcher.jobs(), rows: batcher.rows(), bytes: batcher.bytes() }
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
