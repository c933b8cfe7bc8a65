//! Where a model's instance does its work.
//!
//! A model that takes long computes on a thread of its own, so that the runtime goes on reading and answering. For
//! one that is done in microseconds the hand-over would cost more than the work (two thread switches a batch, and a
//! wake-up a reply): it computes inside the runtime, as a task among the connections' tasks, until it turns out to
//! be slower than its warm-up was.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};

/// The longest that a batch may keep one of the runtime's threads from its other tasks.
const LONGEST_IN_RUNTIME: Duration = Duration::from_millis(1);
/// How much longer than that its batches may take, all together, before it gets a thread of its own.
const PATIENCE: Duration = Duration::from_millis(50);

/// Something that works until it is done, or until it has overstayed.
pub trait Work: Send + Sized + 'static {
    /// Works; asks `overstayed` after each batch, and comes back with itself if the answer is yes.
    fn work(self, overstayed: impl FnMut(Duration) -> bool + Send) -> impl Future<Output = Option<Self>> + Send;
}

/// Work that has been started; it ends by itself.
pub struct Worker(JoinHandle<()>);

impl Worker {
    /// Puts `work` where it belongs, given the time its longest batch has taken. Must be called in a runtime.
    ///
    /// # Errors
    /// When the OS has no thread left.
    pub fn start(name: String, work: impl Work, longest_batch: Duration) -> Result<Worker> {
        if longest_batch > LONGEST_IN_RUNTIME {
            return on_thread(name, work).map(Worker);
        }
        let task = async move {
            let mut debt = Debt::default();
            let Some(work) = work.work(move |took| debt.overstayed(took)).await else { return };
            tracing::info!(worker = %name, "batches take longer than at warm-up: moving to a thread");
            match on_thread(name, work) {
                Ok(thread) => drop(thread.await),
                Err(error) => tracing::error!(%error, "the model stops"),
            }
        };
        Ok(Worker(tokio::spawn(task)))
    }

    /// Waits until the work is done.
    pub async fn join(self) {
        let _ = self.0.await; // an error is a panic, which has been logged where it happened
    }
}

fn on_thread(name: String, work: impl Work) -> Result<JoinHandle<()>> {
    let (done, ended) = tokio::sync::oneshot::channel::<()>();
    let runtime = Handle::current();
    let run = move || {
        runtime.block_on(work.work(|_| false));
        drop(done);
    };
    std::thread::Builder::new()
        .name(name)
        .spawn(run)
        .map_err(|error| Error::load(format!("cannot start the model's thread: {error}")))?;
    Ok(tokio::spawn(async { drop(ended.await) }))
}

/// How far the batches have gone beyond what the runtime can spare. One very long batch is enough, a slightly long
/// one now and then (a noisy neighbour on the core) is forgiven.
#[derive(Default)]
struct Debt(Duration);

impl Debt {
    fn overstayed(&mut self, took: Duration) -> bool {
        match took.checked_sub(LONGEST_IN_RUNTIME) {
            Some(over) => self.0 += over,
            None => self.0 /= 2,
        }
        self.0 > PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_long_batch_or_many_longish_ones_are_too_much() {
        assert!(Debt::default().overstayed(Duration::from_millis(60)));
        let mut debt = Debt::default();
        assert!(!(0..49).any(|_| debt.overstayed(Duration::from_millis(2))));
        assert!((0..2).any(|_| debt.overstayed(Duration::from_millis(2))));
        let mut noisy = Debt::default();
        let quick = Duration::from_micros(20);
        assert!(!(0..1000).any(|_| noisy.overstayed(Duration::from_millis(20)) || noisy.overstayed(quick)));
    }
}
