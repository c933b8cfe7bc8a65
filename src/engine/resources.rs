//! Named resources that instances of models share: who may run when not all can at once. Pure.
//!
//! An instance says how much of which it needs while it runs a batch (a part of a GPU's memory, a licence), and how often
//! it gets it: one of priority 2 half as often as one of priority 1. Source of the names and of what they mean: Triton's
//! `ModelRateLimiter` in `model_config.proto`, and its flag `--rate-limit-resource`. Unlike there, who is next gets what he
//! waits for before those behind him who need less, so that nobody starves.

use std::collections::BTreeMap;

/// What an instance needs while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// By name.
    pub resources: BTreeMap<String, usize>,
    /// From 1: it runs one part of that as often as one of priority 1.
    pub priority: u32,
}

/// Who asks: a member of a [`Pool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claimant(u64);

#[derive(Debug)]
pub struct Pool {
    free: BTreeMap<String, usize>,
    claimants: BTreeMap<Claimant, Account>,
    joined: u64,
    /// What those have had who were served last.
    level: f64,
}

#[derive(Debug)]
struct Account {
    needs: Needs,
    had: f64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Rests,
    Waits,
    Runs,
}

impl Pool {
    /// So much of each resource.
    pub fn new(total: BTreeMap<String, usize>) -> Pool {
        Pool { free: total, claimants: BTreeMap::new(), joined: 0, level: 0.0 }
    }

    /// Somebody who will ask, over and over.
    pub fn join(&mut self, needs: Needs) -> Claimant {
        self.joined += 1;
        let claimant = Claimant(self.joined);
        self.claimants.insert(claimant, Account { needs, had: self.level, state: State::Rests });
        claimant
    }

    /// Asks no more, and gives back what it has.
    pub fn leave(&mut self, claimant: Claimant) {
        self.rest(claimant);
        self.claimants.remove(&claimant);
    }

    /// Waits for what it needs; [`Pool::grant`] says when it has it.
    pub fn ask(&mut self, claimant: Claimant) {
        let level = self.level;
        if let Some(account) = self.claimants.get_mut(&claimant).filter(|account| account.state == State::Rests) {
            account.state = State::Waits;
            account.had = account.had.max(level); // nothing is saved up
        }
    }

    /// Needs nothing for now.
    pub fn rest(&mut self, claimant: Claimant) {
        let Some(account) = self.claimants.get_mut(&claimant) else { return };
        if std::mem::replace(&mut account.state, State::Rests) == State::Runs {
            for (name, count) in &account.needs.resources {
                self.free.entry(name.clone()).and_modify(|free| *free += count);
            }
        }
    }

    /// Who has what it needs now: whoever has had the least first, and nobody before him.
    pub fn grant(&mut self) -> Vec<Claimant> {
        let mut granted = Vec::new();
        loop {
            let waiting = self.claimants.iter_mut().filter(|(_, account)| account.state == State::Waits);
            let Some((claimant, next)) = waiting.min_by(|(_, one), (_, other)| one.had.total_cmp(&other.had)) else {
                return granted;
            };
            if next.needs.resources.iter().any(|(name, count)| self.free.get(name).is_none_or(|free| free < count)) {
                return granted;
            }
            next.state = State::Runs;
            self.level = next.had;
            next.had += f64::from(next.needs.priority.max(1));
            for (name, count) in &next.needs.resources {
                self.free.entry(name.clone()).and_modify(|free| *free -= count);
            }
            granted.push(*claimant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(resources: &[(&str, usize)]) -> BTreeMap<String, usize> {
        resources.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn needs(count: usize, priority: u32) -> Needs {
        Needs { resources: of(&[("memory", count)]), priority }
    }

    #[test]
    fn as_many_run_as_there_is_for() {
        let mut pool = Pool::new(of(&[("memory", 3)]));
        let claimants: Vec<Claimant> = (0..4).map(|_| pool.join(needs(1, 1))).collect();
        claimants.iter().for_each(|claimant| pool.ask(*claimant));
        assert_eq!(pool.grant(), claimants[..3]);
        assert_eq!(pool.grant(), []);
        pool.rest(claimants[1]);
        assert_eq!(pool.grant(), claimants[3..]);
        pool.leave(claimants[0]);
        assert_eq!(pool.grant(), [], "nobody waits");
    }

    #[test]
    fn who_needs_much_is_not_passed_by() {
        let mut pool = Pool::new(of(&[("memory", 2)]));
        let [small, large, other] = [1, 2, 1].map(|count| pool.join(needs(count, 1)));
        pool.ask(small);
        assert_eq!(pool.grant(), [small]);
        pool.ask(large);
        pool.ask(other);
        assert_eq!(pool.grant(), [], "the large one is first");
        pool.rest(small);
        assert_eq!(pool.grant(), [large]);
        pool.rest(other);
        pool.rest(large);
        assert_eq!(pool.grant(), []);
    }

    #[test]
    fn a_priority_says_how_often() {
        let mut pool = Pool::new(of(&[("memory", 1)]));
        let [often, seldom] = [1, 3].map(|priority| pool.join(needs(1, priority)));
        let mut runs = [0, 0];
        pool.ask(often);
        pool.ask(seldom);
        for _ in 0..400 {
            for granted in pool.grant() {
                runs[usize::from(granted == seldom)] += 1;
                pool.rest(granted);
                pool.ask(granted);
            }
        }
        assert_eq!(runs, [300, 100]);
    }
}
