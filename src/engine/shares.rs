//! Who has had how much of the model: tenants that want more than it gives get equal parts of it, and what one does not
//! want is the others'. Start-time fair queueing (Goyal, Vin and Cheng, "Start-time Fair Queuing", SIGCOMM 1996): whoever
//! has had the least comes first. Unlike there, who wants little may save up a little, so that a few of his requests that
//! come at once do not wait for each other's turns. Pure.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Requests of one tenant have the same number.
pub type Tenant = u64;

impl Account {
    fn place(&self, level: f64) -> f64 {
        self.had.max(level - SAVINGS)
    }

    fn is_present(&self, now: Instant) -> bool {
        const RECENTLY: Duration = Duration::from_secs(1);
        self.jobs > 0 || self.seen.is_some_and(|seen| now.duration_since(seen) <= RECENTLY)
    }
}

/// What may be saved up, in seconds of the model's time.
const SAVINGS: f64 = 0.1;

/// What tenants have had, in seconds of work.
#[derive(Default)]
pub struct Shares {
    /// What those had who were served last.
    level: f64,
    /// Of those that are ahead of the level, or that have something waiting.
    tenants: HashMap<Tenant, Account>,
    /// How many there were after those were forgotten that need not be known.
    kept: usize,
    /// What [`Shares::is_much`] has found since anything changed, infinite for nothing: under overload most requests ask,
    /// and few change it.
    much: Cell<Option<f64>>,
}

#[derive(Default)]
struct Account {
    had: f64,
    /// When he last wanted something.
    seen: Option<Instant>,
    jobs: usize,
    work: f64,
    caution: Caution,
}

/// How much longer than the slow end of what batches take a tenant's job must have that is taken in, so that few of his
/// answers come too late whatever makes them late. Each that does raises it, each that does not lowers it a little: it rests where as many are
/// late as may be.
struct Caution(f64);

impl Default for Caution {
    fn default() -> Caution {
        Caution(1.0)
    }
}

impl Caution {
    /// The part of all answers that may be late.
    const MAY_BE_LATE: f64 = 0.003;
    /// More would not help: something else is wrong then.
    const MOST: f64 = 3.0;

    fn learn(&mut self, is_late: bool) {
        const STEP: f64 = 0.01;
        let error = f64::from(u8::from(is_late)) - Caution::MAY_BE_LATE;
        self.0 = (self.0 * (1.0 + STEP * error)).clamp(1.0, Caution::MOST);
    }
}

impl Shares {
    /// A job waits, of so much work.
    pub fn came(&mut self, tenant: Tenant, work: f64, now: Instant) {
        self.much.set(None);
        let account = self.tenants.entry(tenant).or_default();
        account.seen = Some(now);
        account.jobs += 1;
        account.work += work;
    }

    /// A job waits no longer; `served` if it runs now.
    pub fn left(&mut self, tenant: Tenant, work: f64, served: bool, now: Instant) {
        self.much.set(None);
        let Some(account) = self.tenants.get_mut(&tenant) else { return };
        account.jobs = account.jobs.saturating_sub(1);
        account.work = if account.jobs == 0 { 0.0 } else { account.work - work };
        if served {
            let place = account.place(self.level);
            account.had = place + work;
            self.level = self.level.max(place);
        }
        self.forget(now);
    }

    /// From how much waiting work on a tenant makes others wait: half of what anybody has, if somebody who is there these
    /// days has less.
    pub fn is_much(&self, now: Instant) -> Option<f64> {
        let found = self.much.get().unwrap_or_else(|| {
            let much = self.tenants.values().map(|account| account.work).fold(0.0, f64::max) / 2.0;
            let has_less = |account: &Account| account.work < much && account.is_present(now);
            if self.tenants.values().any(has_less) { much } else { f64::INFINITY }
        });
        self.much.set(Some(found));
        Some(found).filter(|found| found.is_finite())
    }

    /// How much longer than expected what comes before a tenant's job, and its own batch, are taken to take.
    pub fn caution(&self, tenant: Tenant) -> f64 {
        self.tenants.get(&tenant).map_or(1.0, |account| account.caution.0)
    }

    /// Whether an answer of a tenant's, who was to have it in time, came too late.
    pub fn learn(&mut self, tenant: Tenant, is_late: bool) {
        if let Some(account) = self.tenants.get_mut(&tenant) {
            account.caution.learn(is_late);
        }
    }

    /// Work of a tenant that waits.
    pub fn work(&self, tenant: Tenant) -> f64 {
        self.tenants.get(&tenant).map_or(0.0, |account| account.work)
    }

    /// Who has the smallest number is next.
    pub fn place(&self, tenant: Tenant) -> f64 {
        self.tenants.get(&tenant).map_or(self.level - SAVINGS, |account| account.place(self.level))
    }

    /// How much of the work that waits comes before a job of a tenant that has so much of his own before it: as much of each
    /// other's, at most.
    pub fn ahead(&self, tenant: Tenant, own: f64) -> f64 {
        let others = self.tenants.iter().filter(|(other, _)| **other != tenant);
        own + others.map(|(_, account)| account.work.min(own)).sum::<f64>()
    }

    /// Who has the most waiting, and how many jobs that are.
    pub fn greediest(&self) -> Option<(Tenant, usize)> {
        let most = self.tenants.iter().max_by_key(|(_, account)| account.jobs)?;
        Some((*most.0, most.1.jobs))
    }

    /// Jobs of a tenant that wait.
    pub fn jobs(&self, tenant: Tenant) -> usize {
        self.tenants.get(&tenant).map_or(0, |account| account.jobs)
    }

    /// Whoever waits for nothing and is not ahead is as anybody who comes anew.
    fn forget(&mut self, now: Instant) {
        const FEW: usize = 64;
        if self.tenants.len() > FEW + 2 * self.kept {
            let level = self.level;
            self.tenants.retain(|_, account| account.is_present(now) || account.had > level - SAVINGS);
            self.kept = self.tenants.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who is served, one job of equal work after the other, while these want as much as they can have.
    fn served(shares: &mut Shares, tenants: &[Tenant], jobs: usize, now: Instant) -> Vec<Tenant> {
        const WORK: f64 = 0.02;
        let serve = |_| {
            let next = tenants.iter().copied().min_by(|a, b| shares.place(*a).total_cmp(&shares.place(*b))).unwrap();
            shares.came(next, WORK, now);
            shares.left(next, WORK, true, now);
            next
        };
        (0..jobs).map(serve).collect()
    }

    #[test]
    fn equal_parts_but_a_little_is_saved_up() {
        let (mut shares, now) = (Shares::default(), Instant::now());
        served(&mut shares, &[1], 100, now);
        let both = served(&mut shares, &[1, 2], 40, now);
        assert!(both[..5].iter().all(|tenant| *tenant == 2), "{both:?}");
        let second = both[6..].iter().filter(|tenant| **tenant == 2).count();
        assert!((16..=18).contains(&second), "{both:?}");
    }

    #[test]
    fn only_what_is_not_more_than_ones_own_comes_before_it() {
        let (mut shares, now) = (Shares::default(), Instant::now());
        (0..10).for_each(|_| shares.came(1, 1.0, now));
        (0..2).for_each(|_| shares.came(2, 1.0, now));
        assert_eq!((shares.ahead(2, 2.0), shares.ahead(1, 10.0), shares.ahead(3, 0.0)), (4.0, 12.0, 0.0));
        assert_eq!((shares.greediest(), shares.jobs(2)), (Some((1, 10)), 2));
        assert_eq!(shares.is_much(now), Some(5.0));
        assert_eq!(shares.is_much(now + Duration::from_secs(9)), Some(5.0), "two jobs still wait");
    }
}
