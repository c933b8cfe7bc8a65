//! Instances that share named resources take turns: a [`Pool`] behind a lock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::resources::{Claimant, Needs, Pool};

/// What all instances of a process share.
#[derive(Debug)]
pub struct Limiter {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    pool: Pool,
    waiting: BTreeMap<Claimant, Arc<Notify>>,
}

/// One instance's turns.
#[derive(Debug)]
pub struct Turn {
    limiter: Arc<Limiter>,
    claimant: Claimant,
    granted: Arc<Notify>,
}

impl Limiter {
    /// So much of each resource.
    pub fn new(total: BTreeMap<String, usize>) -> Arc<Limiter> {
        Arc::new(Limiter { state: Mutex::new(State { pool: Pool::new(total), waiting: BTreeMap::new() }) })
    }

    /// For an instance that is to run by turns with the others.
    pub fn turn(self: &Arc<Limiter>, needs: Needs) -> Turn {
        let (claimant, granted) = (self.lock().pool.join(needs), Arc::new(Notify::new()));
        self.lock().waiting.insert(claimant, granted.clone());
        Turn { limiter: self.clone(), claimant, granted }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let granted = state.pool.grant();
        granted.iter().filter_map(|claimant| state.waiting.get(claimant)).for_each(|waiting| waiting.notify_one());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Waits until it has what it needs, which is its own until [`Turn::over`].
    pub async fn wait(&self) {
        self.limiter.change(|state| state.pool.ask(self.claimant));
        self.granted.notified().await;
    }

    /// Needs nothing for now.
    pub fn over(&self) {
        self.limiter.change(|state| state.pool.rest(self.claimant));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.limiter.change(|state| {
            state.pool.leave(self.claimant);
            state.waiting.remove(&self.claimant);
        });
    }
}
