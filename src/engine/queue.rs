//! One model's queue: a [`Batcher`] behind a lock. Callers push, free workers pull.
//!
//! Workers pull instead of being sent batches, so a batch is put together at the last moment, when its worker is
//! free, and no batch waits half-full in a channel. The same `next` serves a thread, a task of the runtime, and a
//! task under tokio's paused clock, which is how the simulation drives it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::batch::{Batch, Batcher, Job, Next, Policy, Refused, Wake};

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
    Full,
    TooManyRows,
    Closed,
}

impl<J: Job> Queue<J> {
    pub fn new(policy: Policy) -> Self {
        Queue { state: Mutex::new(State { batcher: Batcher::new(policy), closed: false }), wake: Notify::new() }
    }

    /// # Errors
    /// When the queue is full or closed; the job is dropped.
    pub fn push(&self, job: J) -> Result<(), PushError> {
        let mut state = self.lock();
        if state.closed {
            return Err(PushError::Closed);
        }
        let pushed = state.batcher.push(job, Instant::now().into_std());
        drop(state);
        match pushed {
            Ok(Wake::Worker) => self.wake.notify_one(),
            Ok(Wake::Nobody) => {}
            Err(Refused::QueueFull(_)) => return Err(PushError::Full),
            Err(Refused::TooManyRows(_)) => return Err(PushError::TooManyRows),
        }
        Ok(())
    }

    /// Waits for the next batch; `None` once the queue is closed and empty.
    pub async fn next(&self) -> Option<Batch<J>> {
        loop {
            let (next, more, closed) = {
                let mut state = self.lock();
                let next = state.batcher.next(Instant::now().into_std());
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
                Next::SleepUntil(due) => {
                    tokio::select! {
                        () = self.wake.notified() => {}
                        () = sleep_until(due.into()) => {}
                    }
                }
            }
        }
    }

    /// Takes no more jobs; those inside are still handed out.
    pub fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// Jobs and rows waiting.
    pub fn depth(&self) -> (usize, usize) {
        let state = self.lock();
        (state.batcher.jobs(), state.batcher.rows())
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
