//! What tenants ask for, whether or not they get it, and so who asks for far more than his part while others ask for less than
//! theirs: for those his batches are kept short. Pure.

use std::cell::Cell;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::as_f64;
use super::shares::Tenant;

#[derive(Default)]
pub struct Demands {
    of: FxHashMap<Tenant, Demand>,
    /// What [`Demands::greedy_from`] found last, and when.
    greedy_from: Cell<Option<(Instant, f64)>>,
}

/// Of about the last [`Demand::LAST`] requests, so that whoever asks for much is known soon, and whoever asks for little not
/// taken for somebody else by chance.
struct Demand {
    /// What one takes, and how long it came after the one before, in seconds.
    work: f64,
    gap: f64,
    seen: Instant,
    requests: usize,
}

impl Demand {
    const LAST: usize = 64;
    /// Fewer say nothing yet.
    const ENOUGH: usize = 16;

    /// As of somebody who has not asked yet.
    fn new(now: Instant) -> Demand {
        Demand { work: 0.0, gap: 0.0, seen: now, requests: 0 }
    }

    fn add(&mut self, work: f64, now: Instant) {
        if self.requests >= Demand::ENOUGH && self.is_gone(now) {
            *self = Demand::new(now); // what he asked for then says little of now
        }
        let gap = self.silent(now);
        self.requests = (self.requests + 1).min(Demand::LAST);
        let weight = 1.0 / as_f64(self.requests);
        self.work += (work - self.work) * weight;
        self.gap += (gap - self.gap) * weight;
        self.seen = now;
    }

    /// So many times the gap that is usual is not chance: he asks for less than he did.
    const SILENCE: f64 = 8.0;

    fn silent(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.seen).as_secs_f64()
    }

    fn is_gone(&self, now: Instant) -> bool {
        self.silent(now) > (Demand::SILENCE * self.gap).max(1.0)
    }

    /// Seconds of the model's time asked for in a second.
    fn rate(&self, now: Instant) -> f64 {
        if self.requests < Demand::ENOUGH || self.is_gone(now) {
            return 0.0;
        }
        self.work / self.gap.max(self.silent(now) / Demand::SILENCE).max(1e-9)
    }
}

impl Demands {
    /// A tenant asks for so many seconds of the model's time.
    pub fn asked(&mut self, tenant: Tenant, work: f64, now: Instant) {
        /// Of more tenants those who ask for the least are forgotten.
        const MOST: usize = 4096;
        self.of.entry(tenant).or_insert_with(|| Demand::new(now)).add(work, now);
        if self.of.len() > MOST {
            let mut rates: Vec<f64> = self.of.values().map(|demand| demand.rate(now)).collect();
            let middle = *rates.select_nth_unstable_by(MOST / 2, f64::total_cmp).1;
            self.of.retain(|_, demand| demand.rate(now) > middle);
        }
    }

    /// Whether a tenant asks for that much.
    pub fn is_from(&self, tenant: Tenant, greedy_from: f64, now: Instant) -> bool {
        self.of.get(&tenant).is_some_and(|demand| demand.rate(now) >= greedy_from)
    }

    /// From what demand on a tenant makes others wait: twice the part that everybody gets who wants more than that, when all
    /// together want more than there is, somebody wants so much, and somebody who is there these days wants no more than that
    /// part. Between them is room for chance: tenants who want about the same are never told apart.
    pub fn greedy_from(&self, now: Instant) -> Option<f64> {
        /// It changes little in so short a time.
        const KNOWN_FOR: Duration = Duration::from_millis(10);
        let known = self.greedy_from.get().filter(|(found, _)| now.saturating_duration_since(*found) < KNOWN_FOR);
        let from = known.map_or_else(|| self.find_greedy_from(now), |(_, from)| from);
        if known.is_none() {
            self.greedy_from.set(Some((now, from)));
        }
        Some(from).filter(|from| from.is_finite())
    }

    fn find_greedy_from(&self, now: Instant) -> f64 {
        const RECENTLY: Duration = Duration::from_secs(1);
        let rates: Vec<f64> = self.of.values().map(|demand| demand.rate(now)).collect();
        let Some(part) = fair_part(&rates) else { return f64::INFINITY };
        let is_modest = |demand: &Demand| demand.rate(now) <= part && now.duration_since(demand.seen) <= RECENTLY;
        let is_anybody = rates.iter().any(|rate| *rate >= 2.0 * part) && self.of.values().any(is_modest);
        if is_anybody { 2.0 * part } else { f64::INFINITY }
    }
}

/// What everybody gets of a whole who wants no less, when those who want less get all that they want. `None` when there is
/// enough for all.
fn fair_part(wants: &[f64]) -> Option<f64> {
    if wants.iter().sum::<f64>() <= 1.0 {
        return None;
    }
    let mut part = 0.0;
    loop {
        let less = wants.iter().filter(|wants| **wants <= part);
        let (number, sum) = less.fold((0_usize, 0.0), |(number, sum), wants| (number + 1, sum + wants));
        let more = (1.0 - sum) / as_f64(wants.len().saturating_sub(number));
        // It rises until nobody is left who wants less.
        if more <= part * (1.0 + 1e-9) || !more.is_finite() {
            return Some(part);
        }
        part = more;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is found after tenants have asked for so much in each second.
    fn greedy_from(rates: &[f64]) -> Option<f64> {
        let (mut demands, start) = (Demands::default(), Instant::now());
        let mut now = start;
        for _ in 0..1000 {
            now += Duration::from_millis(20);
            for (tenant, rate) in rates.iter().enumerate() {
                demands.asked(tenant as Tenant, rate * 0.02, now);
            }
        }
        demands.greedy_from(now)
    }

    #[test]
    fn greedy_is_who_asks_for_twice_his_part_while_another_asks_for_less_than_his() {
        assert!(greedy_from(&[5.0, 0.3]).is_some_and(|from| (1.3..1.5).contains(&from)));
        assert_eq!(greedy_from(&[0.6, 0.3]), None, "there is enough");
        assert_eq!(greedy_from(&[0.8, 0.8]), None, "nobody asks for less");
        assert_eq!(greedy_from(&[5.0, 2.0]), None, "nobody asks for less than half");
        assert_eq!(greedy_from(&[0.9, 0.3]), None, "nobody asks for far more");
        assert!(greedy_from(&[5.0, 5.0, 0.3]).is_some_and(|from| (0.6..0.8).contains(&from)));
        assert_eq!(greedy_from(&[5.0]), None);
        assert_eq!(greedy_from(&[]), None);
    }

    #[test]
    fn nobody_is_protected_who_is_gone() {
        let (mut demands, start) = (Demands::default(), Instant::now());
        let mut ask = |tenant, work, from, until| {
            (from..until).for_each(|ms| demands.asked(tenant, work, start + Duration::from_millis(ms)));
            let now = start + Duration::from_millis(until);
            (demands.greedy_from(now).is_some(), [1, 2, 3].map(|tenant| demands.is_from(tenant, 1.4, now)))
        };
        ask(1, 0.0001, 0, 500);
        assert_eq!(ask(2, 0.01, 500, 550), (true, [false, true, false]));
        assert_eq!(ask(2, 0.01, 550, 1600), (false, [false, true, false]));
        // Whoever comes back is known at once by what he asks for then.
        assert_eq!(ask(1, 0.0001, 1600, 1620), (true, [false, true, false]));
        assert_eq!(ask(1, 0.01, 60_000, 60_020), (false, [true, false, false]));
    }

    #[test]
    fn whoever_asks_for_much_is_known_also_if_he_asks_seldom() {
        let (mut demands, start) = (Demands::default(), Instant::now());
        let mut now = start;
        for _ in 0..20 {
            now += Duration::from_millis(1500);
            demands.asked(1, 10.0, now);
        }
        assert!(demands.is_from(1, 6.0, now));
    }

    #[test]
    fn of_very_many_tenants_those_who_ask_for_much_are_remembered() {
        let (mut demands, now) = (Demands::default(), Instant::now());
        (0..20).for_each(|_| demands.asked(0, 10.0, now));
        (1..100_000).for_each(|tenant| demands.asked(tenant, 0.001, now));
        assert!(demands.of.len() <= 4097 && demands.is_from(0, 1.0, now));
    }

    proptest! {
        #[test]
        fn parts_add_up_to_the_whole(wants in proptest::collection::vec(0.0..3.0_f64, 1..50)) {
            let given = |part: f64| wants.iter().map(|wants| wants.min(part)).sum::<f64>();
            match fair_part(&wants) {
                Some(part) => prop_assert!((given(part) - 1.0).abs() < 1e-6, "{part}"),
                None => prop_assert!(given(f64::INFINITY) <= 1.0),
            }
        }
    }
}
