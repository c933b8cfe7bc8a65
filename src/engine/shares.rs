//! Who has had how much of the model: tenants that want more than it gives get equal parts of it, and what one does not
//! want is the others'. Start-time fair queueing (Goyal, Vin and Cheng, "Start-time Fair Queuing", SIGCOMM 1996): whoever
//! has had the least comes first. Unlike there, who wants little may save up a little, so that a few of his requests that
//! come at once do not wait for each other's turns. Pure.

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::as_f64;

/// Requests of one tenant have the same number. Nobody outside can choose it: maps by it are not protected.
pub type Tenant = u64;

/// What may be saved up, in seconds of the model's time, by one of two tenants. Of more each has less: those who come anew are
/// not to keep those who are there waiting for long.
const SAVINGS: f64 = 0.1;

/// What tenants have had, in seconds of work.
#[derive(Default)]
pub struct Shares {
    /// What those had who were served last. It rises with all that is served, so that nobody is ahead of it for ever who
    /// wants nothing any more.
    level: f64,
    /// Of those that have something waiting: as many as may wait at the most. They lie side by side, as each request that comes
    /// has them looked at.
    waiting: IndexMap<Tenant, Account, FxBuildHasher>,
    /// Of those that have not, but may be ahead of the level.
    idle: FxHashMap<Tenant, Account>,
    /// How many of these there were after those were forgotten that need not be known.
    kept: usize,
    /// Who has become idle lately, and when he last wanted something.
    gone: VecDeque<(Tenant, Instant)>,
    /// Backlogs as they were a moment ago: under overload most requests ask for them.
    backlogs: Cell<Option<Backlogs>>,
}

/// The largest backlog of those that have several jobs, and the smallest of all.
#[derive(Clone, Copy)]
struct Backlogs {
    found: Instant,
    most: f64,
    least: (f64, Tenant),
}

impl Backlogs {
    fn add(self, tenant: Tenant, account: &Account, now: Instant) -> Backlogs {
        let backlog = account.backlog(now);
        let most = if account.jobs > 1 { self.most.max(backlog) } else { self.most };
        let least = if backlog < self.least.0 { (backlog, tenant) } else { self.least };
        Backlogs { most, least, ..self }
    }
}

#[derive(Default)]
struct Account {
    had: f64,
    /// When he last wanted something.
    seen: Option<Instant>,
    /// Work of his that was taken in in a second, the last one counting most.
    rate: f64,
    jobs: usize,
    work: f64,
    /// What waited of his these days, as of `seen`.
    waited: f64,
    caution: Caution,
}

impl Account {
    /// What waited of his in the last quarter of a second, the newest counting most; or half of what waits now, if that is more.
    fn backlog(&self, now: Instant) -> f64 {
        self.waited(now).max(self.work / 2.0)
    }

    fn waited(&self, now: Instant) -> f64 {
        const WINDOW: f64 = 0.25;
        let silent = self.seen.map_or(Duration::ZERO, |seen| now.saturating_duration_since(seen));
        self.work + (self.waited - self.work) * (-silent.as_secs_f64() / WINDOW).exp()
    }

    fn came(&mut self, work: f64, now: Instant) {
        self.waited = self.waited(now);
        let silent = self.seen.replace(now).map_or(Duration::ZERO, |seen| now.duration_since(seen));
        self.rate = self.rate * (-silent.as_secs_f64()).exp() + work;
        self.jobs += 1;
        self.work += work;
    }
}

/// How much longer than the slow end of what batches take a tenant's job must have that is taken in, so that few of his
/// answers come too late whatever makes them late. Each that does raises it, each that does not lowers it a little, and more
/// the longer none did: it rests where as many are late as may be.
struct Caution {
    factor: f64,
    /// Answers in time since the last that was late.
    in_time: f64,
}

impl Default for Caution {
    fn default() -> Caution {
        Caution { factor: 1.0, in_time: 0.0 }
    }
}

impl Caution {
    /// The part of all answers that may be late.
    const MAY_BE_LATE: f64 = 0.002;
    /// More would not help: something else is wrong then.
    const MOST: f64 = 3.0;

    fn learn(&mut self, is_late: bool) {
        const STEP: f64 = 0.01;
        let down = Caution::MAY_BE_LATE * (self.in_time * Caution::MAY_BE_LATE / 10.0).max(1.0);
        let error = if is_late { 1.0 - Caution::MAY_BE_LATE } else { -down };
        self.in_time = if is_late { 0.0 } else { self.in_time + 1.0 };
        self.factor = (self.factor * (1.0 + STEP * error)).clamp(1.0, Caution::MOST);
    }
}

impl Shares {
    /// A job waits, of so much work.
    pub fn came(&mut self, tenant: Tenant, work: f64, now: Instant) {
        let known = self.waiting.entry(tenant);
        let account = known.or_insert_with(|| self.idle.remove(&tenant).unwrap_or_default());
        account.came(work, now);
        // Of whoever had the least it is not known any more who has it now.
        let known = self.backlogs.get().filter(|known| known.least.1 != tenant);
        self.backlogs.set(known.map(|known| known.add(tenant, account, now)));
    }

    /// A job waits no longer; `served` if it runs now.
    pub fn left(&mut self, tenant: Tenant, work: f64, served: bool) {
        /// Of what is served is added to the level, shared by who waits: little, lest it overtakes those who get their part.
        const AGES: f64 = 0.1;
        let floor = self.floor();
        let active = as_f64(self.waiting.len());
        let Some(account) = self.waiting.get_mut(&tenant) else { return };
        account.jobs = account.jobs.saturating_sub(1);
        account.work = if account.jobs == 0 { 0.0 } else { account.work - work };
        if served {
            let place = account.had.max(floor);
            account.had = place + work;
            self.level = (self.level + AGES * work / active).max(place);
        }
        if account.jobs == 0 {
            self.becomes_idle(tenant);
        }
    }

    /// A tenant is to count as one who has had so much more.
    pub fn pays(&mut self, tenant: Tenant, work: f64) {
        let account = self.waiting.get_mut(&tenant).or_else(|| self.idle.get_mut(&tenant));
        account.into_iter().for_each(|account| account.had += work);
    }

    fn becomes_idle(&mut self, tenant: Tenant) {
        /// One of them is enough to say that somebody is there.
        const LATELY: usize = 8;
        let Some(account) = self.waiting.swap_remove(&tenant) else { return };
        if let Some(seen) = account.seen {
            self.gone.retain(|(other, _)| *other != tenant);
            self.gone.push_back((tenant, seen));
            if self.gone.len() > LATELY {
                self.gone.pop_front();
            }
        }
        self.idle.insert(tenant, account);
        self.forget();
    }

    /// Whoever has had less counts as one who has had that: less than those who are served by what may be saved up.
    fn floor(&self) -> f64 {
        self.level - SAVINGS * (2.0 / as_f64(self.waiting.len())).min(1.0)
    }

    /// The largest backlog of anybody who has several jobs, if somebody who is there these days has less than half of it.
    pub fn most(&self, now: Instant) -> Option<f64> {
        /// They sink no faster than that matters.
        const KNOWN_FOR: Duration = Duration::from_millis(1);
        let known = self.backlogs.get().filter(|known| now.saturating_duration_since(known.found) < KNOWN_FOR);
        let backlogs = known.unwrap_or_else(|| {
            let none = Backlogs { found: now, most: 0.0, least: (f64::INFINITY, Tenant::MAX) };
            self.waiting.iter().fold(none, |known, (tenant, account)| known.add(*tenant, account, now))
        });
        self.backlogs.set(Some(backlogs));
        let Backlogs { most, least, .. } = backlogs;
        Some(most).filter(|most| *most > 0.0 && (least.0 < most / 2.0 || self.is_anybody_about(None, now)))
    }

    /// Whether a tenant has so large a backlog.
    pub fn has(&self, tenant: Tenant, backlog: f64, now: Instant) -> bool {
        self.waiting.get(&tenant).is_some_and(|account| account.backlog(now) >= backlog)
    }

    /// Whether somebody who has nothing waiting wanted something a moment ago, but for one.
    fn is_anybody_about(&self, but: Option<Tenant>, now: Instant) -> bool {
        const RECENTLY: Duration = Duration::from_secs(1);
        let is_about = |(tenant, seen): &(Tenant, Instant)| {
            but != Some(*tenant) && !self.waiting.contains_key(tenant) && now.duration_since(*seen) <= RECENTLY
        };
        self.gone.iter().any(is_about)
    }

    /// Whether anybody has less work waiting than that, but for one: of those who wanted something a moment ago.
    pub fn has_anybody_less(&self, work: f64, but: Option<Tenant>, now: Instant) -> bool {
        let has_less = |(tenant, account): (&Tenant, &Account)| but != Some(*tenant) && account.work < work;
        self.is_anybody_about(but, now) || self.waiting.iter().any(has_less)
    }

    /// How much longer than expected what comes before a tenant's job, and its own batch, are taken to take.
    pub fn caution(&self, tenant: Tenant) -> f64 {
        self.account(tenant).map_or(1.0, |account| account.caution.factor)
    }

    /// Whether an answer of a tenant's, who was to have it in time, came too late.
    pub fn learn(&mut self, tenant: Tenant, is_late: bool) {
        let account = self.waiting.get_mut(&tenant).or_else(|| self.idle.get_mut(&tenant));
        if let Some(account) = account {
            account.caution.learn(is_late);
        }
    }

    /// Batches take another time from now on: what made answers late before says nothing any more.
    pub fn relax(&mut self) {
        let accounts = self.waiting.values_mut().chain(self.idle.values_mut());
        accounts.for_each(|account| account.caution = Caution::default());
    }

    /// Work of a tenant that waits.
    pub fn work(&self, tenant: Tenant) -> f64 {
        self.waiting.get(&tenant).map_or(0.0, |account| account.work)
    }

    fn account(&self, tenant: Tenant) -> Option<&Account> {
        self.waiting.get(&tenant).or_else(|| self.idle.get(&tenant))
    }

    /// Who has the smallest number is next.
    pub fn place(&self, tenant: Tenant) -> f64 {
        self.account(tenant).map_or(self.floor(), |account| account.had.max(self.floor()))
    }

    /// How much work comes before a job of a tenant that has so much of his own before it, when so much waits of all: of each
    /// other's as much, and more or less by what one has had less or more than he, at most; of what waits and of what will have
    /// come by then. Of very many some stand for all: which ones is as good as chance.
    pub fn ahead(&self, tenant: Tenant, own: f64, waits: f64) -> f64 {
        const MANY: usize = 128;
        let (floor, until) = (self.floor(), self.place(tenant) + own);
        let before = |account: &Account| {
            let turns = (until - account.had.max(floor)).max(0.0);
            turns.min(account.work + account.rate * waits)
        };
        let step = self.waiting.len().div_ceil(MANY).max(1);
        #[allow(clippy::cast_possible_truncation)] // any of them will do
        let first = tenant as usize % step;
        let (mut number, mut some) = (0, 0.0);
        for (other, account) in self.waiting.iter().skip(first).step_by(step) {
            if *other != tenant {
                (number, some) = (number + 1, some + before(account));
            }
        }
        let others = self.waiting.len() - usize::from(self.waiting.contains_key(&tenant));
        own + some * as_f64(others) / as_f64(number.max(1))
    }

    /// Who has the most waiting, and how many jobs that are.
    pub fn greediest(&self) -> Option<(Tenant, usize)> {
        let most = self.waiting.iter().max_by_key(|(_, account)| account.jobs)?;
        Some((*most.0, most.1.jobs))
    }

    /// Jobs of a tenant that wait.
    pub fn jobs(&self, tenant: Tenant) -> usize {
        self.waiting.get(&tenant).map_or(0, |account| account.jobs)
    }

    /// Whoever waits for nothing and is not ahead is as anybody who comes anew; and when too many are ahead, they all are.
    fn forget(&mut self) {
        const FEW: usize = 64;
        const MOST: usize = 4096;
        if self.idle.len() > FEW + 2 * self.kept {
            let level = self.level;
            self.idle.retain(|_, account| account.had > level - SAVINGS);
            if self.idle.len() > MOST {
                self.idle.clear();
            }
            self.kept = self.idle.len();
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
            shares.left(next, WORK, true);
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
        assert_eq!((shares.ahead(2, 2.0, 12.0), shares.ahead(3, 0.0, 12.0)), (4.0, 0.0));
        // Whoever asks for 2 a second has his part in the next seconds, too.
        assert_eq!((shares.ahead(1, 10.0, 12.0), shares.ahead(1, 10.0, 2.0)), (20.0, 16.0));
        assert_eq!((shares.ahead(1, 0.5, 12.0), shares.ahead(1, 0.0, 12.0)), (1.0, 0.0));
        assert_eq!((shares.greediest(), shares.jobs(2)), (Some((1, 10)), 2));
        // Who has had more waits for the others to have as much.
        shares.pays(1, 3.0);
        assert_eq!((shares.ahead(1, 0.5, 12.0), shares.ahead(2, 2.0, 12.0)), (4.0, 2.0));
    }

    #[test]
    fn of_many_some_stand_for_all_but_for_who_asks() {
        let (mut shares, now) = (Shares::default(), Instant::now());
        (0..300).for_each(|tenant| shares.came(tenant, if tenant == 0 { 1.0 } else { 0.001 }, now));
        assert!((shares.ahead(0, 1.0, 0.0) - 1.299).abs() < 1e-6);
    }

    #[test]
    fn whoever_comes_once_is_not_known_for_ever() {
        let (mut shares, now) = (Shares::default(), Instant::now());
        for tenant in 0..100_000 {
            shares.came(tenant, 0.001, now);
            shares.left(tenant, 0.001, true);
            assert!(shares.idle.len() <= 4096, "{} after {tenant}", shares.idle.len());
        }
        assert!(shares.idle.len() <= 256, "{}", shares.idle.len());
        assert!(shares.waiting.is_empty() && shares.gone.len() <= 16);
    }

    #[test]
    fn caution_that_is_not_needed_any_more_goes() {
        let mut caution = Caution::default();
        (0..200).for_each(|_| caution.learn(true));
        assert!((caution.factor - Caution::MOST).abs() < 1e-9);
        let needed = (0..100_000).find(|_| {
            caution.learn(false);
            caution.factor <= 1.0
        });
        assert!((1000..25_000).contains(&needed.unwrap()), "{needed:?}");
        // At the part that may be late it rests.
        let mut caution = Caution { factor: 1.5, in_time: 0.0 };
        (0..100_000).for_each(|answer| caution.learn(answer % 500 == 0));
        assert!((1.2..1.8).contains(&caution.factor), "{}", caution.factor);
    }
}
