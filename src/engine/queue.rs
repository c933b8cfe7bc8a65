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
use super::limiter::Turn;
use super::policy::Policy;
use super::shares::Tenant;

pub struct Queue<J: Job> {
    state: Mutex<State<J>>,
    wake: Notify,
    /// By worker, where they share something with others.
    turns: Vec<Turn>,
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

/// Jobs that had to give way to one that came.
#[derive(Debug)]
pub struct Evicted<J> {
    pub jobs: Vec<J>,
    /// When they may come again.
    pub retry_after: Duration,
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
        Queue::limited(policy, Vec::new())
    }

    /// Whose workers wait for their turns before each batch.
    pub fn limited(policy: Policy, turns: Vec<Turn>) -> Self {
        let state = Mutex::new(State { batcher: Batcher::new(policy), closed: false });
        Queue { state, wake: Notify::new(), turns }
    }

    /// Says what a batch took at warm-up, on a device of this kind.
    pub fn learn(&self, kind: usize, elements: usize, rows: usize, took: Duration) {
        self.lock().batcher.learn(kind, elements, rows, took, Instant::now().into_std());
    }

    /// What a batch is expected to take, zero as long as nothing is known.
    pub fn expect(&self, elements: usize, rows: usize) -> Duration {
        self.lock().batcher.expect(elements, rows).map_or(Duration::ZERO, |expected| expected.middle)
    }

    /// As [`Batcher::most_at_once`].
    pub fn most_at_once(&self, tenant: Tenant, elements: usize, rows: usize) -> usize {
        self.lock().batcher.most_at_once(tenant, elements, rows, Instant::now().into_std())
    }

    /// As [`Batcher::turn_away`].
    ///
    /// # Errors
    /// When any job would be refused.
    pub fn turn_away(&self, tenant: Tenant, deadline: Option<std::time::Instant>) -> Result<(), PushError> {
        self.lock().batcher.turn_away(tenant, deadline, Instant::now().into_std()).map_err(PushError::Refused)
    }

    /// # Errors
    /// When the job is refused or the queue is closed; the job is dropped.
    pub fn push(&self, job: J) -> Result<Evicted<J>, PushError> {
        let mut state = self.lock();
        if state.closed {
            return Err(PushError::Closed);
        }
        let pushed = state.batcher.push(job, Instant::now().into_std());
        drop(state);
        let Pushed { wakes, evicted, retry_after } = pushed.map_err(PushError::Refused)?;
        if wakes {
            self.wake.notify_one();
        }
        Ok(Evicted { jobs: evicted, retry_after })
    }

    /// Waits for a worker's next batch; `None` once the queue is closed and empty.
    pub async fn next(&self, worker: usize) -> Option<Batch<J>> {
        let turn = self.turns.get(worker);
        loop {
            if let Some(turn) = turn
                && self.depth().jobs > 0
            {
                turn.wait().await;
            }
            let (next, more, closed) = {
                let mut state = self.lock();
                let next = state.batcher.next(worker, Instant::now().into_std());
                (next, state.batcher.jobs() > 0, state.closed)
            };
            if !matches!(&next, Next::Run(batch) if !batch.jobs.is_empty()) {
                turn.into_iter().for_each(Turn::over);
            }
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
        self.turns.get(worker).into_iter().for_each(Turn::over);
    }

    /// Takes no more jobs; those inside are still handed out.
    pub fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    pub fn is_closed(&self) -> bool {
        self.lock().closed
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
