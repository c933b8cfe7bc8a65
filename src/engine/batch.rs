//! Which waiting jobs run together, and when; and whether a job that comes can be answered in time at all. Pure: time comes
//! in as an argument, nothing is locked or awaited.
//!
//! Jobs that can be joined share a shape and wait in one line, so mixed shapes do not cut each other's batches short. A
//! free worker takes the line whose first job is next ([`line`](super::line)), fills up with other shapes that can be
//! padded to the same length where that takes less than a batch of their own, and runs the batch that gets most done in
//! time ([`choice`](super::choice)). It does not wait for company unless there is a `max_delay`: under load jobs wait for
//! a worker anyway, and without it waiting would only make them slower.

mod lanes;
mod outlook;
mod taking;
#[cfg(test)]
mod tests;
mod turn;

use std::hash::Hash;
use std::time::{Duration, Instant};

use self::lanes::{Arrivals, Lane, Lanes};
use self::outlook::Asked;
use super::as_f64;
use super::demand::Demands;
use super::line::Waiting;
use super::policy::Policy;
use super::shares::{Shares, Tenant};
use super::times::{Expected, Times};

/// What the batcher must know of a job. What has an answer here is so of most jobs.
pub trait Job {
    /// Jobs of equal shape can be joined into one batch.
    type Shape: Clone + Eq + Hash;

    fn shape(&self) -> &Self::Shape;
    /// Whether jobs of these shapes can be joined, too, if those with shorter rows are padded.
    fn can_be_padded(_one: &Self::Shape, _other: &Self::Shape) -> bool {
        false
    }
    /// Rows this job adds to a batch, at least 1.
    fn rows(&self) -> usize;
    /// Rows of the same request that are pushed right after it, which are of use only all together.
    fn rows_to_come(&self) -> usize {
        0
    }
    /// Elements of one row: what tells rows that take long from others. About the same for all jobs of a shape.
    fn elements(&self) -> usize;
    /// What one row counts of a batch's `max_tokens`, at least 1. About the same for all jobs of a shape.
    fn tokens(&self) -> usize {
        1
    }
    fn bytes(&self) -> usize;
    /// When its answer stops being worth anything.
    fn deadline(&self) -> Instant;
    /// From when on it comes after the others, until its deadline.
    fn put_off_at(&self) -> Option<Instant> {
        None
    }
    /// How many levels of others come before it, 0 for those that come first.
    fn level(&self) -> usize {
        0
    }
    /// Whose it is: tenants get equal parts of the model.
    fn tenant(&self) -> Tenant {
        0
    }
    /// Whether nobody waits for its answer any more.
    fn abandoned(&self) -> bool {
        false
    }
}

/// Jobs to run as one batch, and jobs that cannot be answered in time any more.
#[derive(Debug)]
pub struct Batch<J> {
    /// Of shapes that can be joined, at most `max_rows` rows together. Empty only when everything that was next is late.
    pub jobs: Vec<J>,
    pub late: Vec<J>,
}

/// What a free worker is to do.
#[derive(Debug)]
pub enum Next<J> {
    /// Run this, and say so when it is done.
    Run(Batch<J>),
    /// Nothing is to be done before then, unless more is pushed.
    SleepUntil(Instant),
    /// A worker on a faster device that is free, too, is to do it.
    Pass,
    /// Nothing waits.
    Idle,
}

/// A job has been taken in.
#[derive(Debug)]
pub struct Pushed<J> {
    /// Whether a sleeping worker has to look again.
    pub wakes: bool,
    /// Jobs of another tenant, who has the most waiting, that had to give way.
    pub evicted: Vec<J>,
    /// When half of what waits will be done: what those may be told.
    pub retry_after: Duration,
}

/// Why a job was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// As much waits as may; in so long half of it will be done.
    Full { retry_after: Duration },
    /// What waits before it takes too long for its deadline, by so much.
    Busy { retry_after: Duration },
    /// It takes so long that its deadline would pass even if nothing waited.
    Late { takes: Duration },
    /// More rows or tokens than any batch may have: the caller should have cut it.
    TooLarge,
}

struct Worker {
    kind: usize,
    running: Option<Running>,
}

/// Rows that the last batches did, and the time that they took, in seconds.
#[derive(Default)]
struct Achieved {
    rows: f64,
    seconds: f64,
}

impl Achieved {
    fn add(&mut self, rows: usize, took: Duration) {
        /// What is kept of those before.
        const KEPT: f64 = 0.95;
        (self.rows, self.seconds) = (self.rows * KEPT + as_f64(rows), self.seconds * KEPT + took.as_secs_f64());
    }

    fn per_second(&self) -> f64 {
        self.rows / self.seconds.max(1e-9)
    }
}

struct Running {
    since: Instant,
    until: Instant,
    elements: usize,
    rows: usize,
    deadlines: Vec<(Tenant, Instant)>,
}

/// The part of the most that can be done in a second which smaller batches still have to do.
const WORTH: f64 = 0.99;

pub struct Batcher<J: Job> {
    policy: Policy,
    /// By the kind of device.
    times: Vec<Times>,
    workers: Vec<Worker>,
    lanes: Lanes<J>,
    /// In all lanes.
    arrivals: Arrivals,
    demands: Demands,
    shares: Shares,
    jobs: usize,
    /// By level, of those levels that have a limit.
    jobs_of_level: Vec<usize>,
    rows: usize,
    bytes: usize,
    /// Sums of the lanes'.
    work: f64,
    seconds: f64,
    achieved: Achieved,
    /// Until when free workers sleep; `None`: until a job comes.
    alarm: Option<Instant>,
}

impl<J: Job> Batcher<J> {
    pub fn new(policy: Policy) -> Self {
        let kinds = policy.workers.iter().max().map_or(1, |last| last + 1);
        let worker = |kind: &usize| Worker { kind: *kind, running: None };
        Batcher {
            times: (0..kinds).map(|_| Times::new(policy.max_rows)).collect(),
            workers: policy.workers.iter().map(worker).collect(),
            jobs_of_level: vec![0; policy.max_jobs_of_level.len()],
            policy,
            lanes: Lanes::new(),
            arrivals: Arrivals::default(),
            demands: Demands::default(),
            shares: Shares::default(),
            jobs: 0,
            rows: 0,
            bytes: 0,
            work: 0.0,
            seconds: 0.0,
            achieved: Achieved::default(),
            alarm: None,
        }
    }

    /// Jobs waiting.
    pub fn jobs(&self) -> usize {
        self.jobs
    }

    /// Rows waiting.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes that the waiting jobs hold.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Learns what a batch took that was not one of these jobs': at warm-up.
    pub fn learn(&mut self, kind: usize, elements: usize, rows: usize, took: Duration, now: Instant) {
        self.times[kind].observe(elements, rows, took, now);
    }

    /// What a batch is expected to take on the fastest device.
    pub fn expect(&self, elements: usize, rows: usize) -> Option<Expected> {
        outlook::fastest(&self.times, elements, rows)
    }

    /// How many rows a job of a tenant may have at most, so that others need not wait long for their turns: all of so many, or,
    /// when others are there who want less than that, few.
    pub fn most_at_once(&self, tenant: Tenant, elements: usize, rows: usize, now: Instant) -> usize {
        let short = self.times[0].short_rows(elements);
        let more = |work: f64| self.shares.has_anybody_less(self.shares.work(tenant) + work, Some(tenant), now);
        if rows > short && more(self.work_of(elements, rows, Duration::MAX, now)) { short } else { rows }
    }

    /// Takes a job in if it can be answered in time and there is room for it. Others give way only to a tenant who has
    /// fewer waiting.
    pub fn push(&mut self, job: J, now: Instant) -> Result<Pushed<J>, Refused> {
        let (rows, bytes, level, tenant) = (job.rows(), job.bytes(), job.level(), job.tenant());
        if rows > self.policy.max_rows || rows.saturating_mul(job.tokens()) > self.policy.max_tokens {
            return Err(Refused::TooLarge);
        }
        let (elements, deadline) = (job.elements(), job.deadline());
        let due = self.due(deadline, level, now);
        let number = self.lanes.number(&job);
        let work = self.work_of(elements, rows, deadline.saturating_duration_since(now), now);
        self.came(number, rows, (tenant, work), now);
        let all_rows = rows + job.rows_to_come();
        let asked = Asked { rows: all_rows, elements, deadline, due, tenant };
        let is_probe = self.check_in_time(&asked, self.lanes.get(number), now)?;
        let retry_after = self.half_done_in();
        if self.policy.max_jobs_of_level.get(level).is_some_and(|max| self.jobs_of_level[level] >= *max) {
            return Err(Refused::Full { retry_after });
        }
        let evicted = self.make_room(all_rows, bytes, tenant, now).ok_or(Refused::Full { retry_after })?;
        self.take_in(number, Waiting { job, arrived: now, due, tenant, work, is_put_off: false }, now);
        self.weigh(number, now);
        self.lanes.get_mut(number).has_probe |= is_probe;
        // A sleeping worker has to look again if this is to be run before it would.
        let is_anybody_free = self.workers.iter().any(|worker| worker.running.is_none());
        let wakes = is_anybody_free && self.alarm.is_none_or(|alarm| self.ripe_at(self.lanes.get(number), now) < alarm);
        Ok(Pushed { wakes, evicted, retry_after })
    }

    /// Whether a tenant's job with that deadline, if it is known, would be refused now whatever it were, among all that have
    /// come so far: so he can be told before it is read. When he is, it counts as one that came.
    ///
    /// # Errors
    /// [`Refused::Busy`], [`Refused::Full`].
    pub fn turn_away(&mut self, tenant: Tenant, deadline: Option<Instant>, now: Instant) -> Result<(), Refused> {
        if self.is_full_for(tenant) {
            self.came_unread(tenant, now);
            return Err(Refused::Full { retry_after: self.half_done_in() });
        }
        let Some(deadline) = deadline else { return Ok(()) };
        if self.overload(now).is_none() {
            return Ok(()); // few are refused: they can be told when they have been read
        }
        let due = self.due(deadline, 0, now);
        let mut least: Option<(Duration, usize)> = None;
        for (number, lane) in self.lanes.all() {
            let asked = Asked { rows: 1, elements: lane.elements, deadline, due, tenant };
            match self.check_in_time(&asked, lane, now) {
                Err(Refused::Busy { retry_after }) => {
                    least = Some(least.map_or((retry_after, number), |known| known.min((retry_after, number))));
                }
                _ => return Ok(()),
            }
        }
        let Some((retry_after, number)) = least else { return Ok(()) };
        self.came_like_last(number, tenant, now);
        Err(Refused::Busy { retry_after })
    }

    /// When half of what waits will be done.
    fn half_done_in(&self) -> Duration {
        Duration::from_secs_f64(self.seconds / 2.0)
    }

    /// Whether there is no room for a job of his, however small, and nobody gives way to him.
    fn is_full_for(&self, tenant: Tenant) -> bool {
        let is_full = self.policy.max_queue.is_less_than(self.jobs + 1, self.rows + 1, self.bytes + 1);
        is_full && self.gives_way_to(tenant).is_none_or(|(_, surplus)| surplus == 0)
    }

    /// Who has the most waiting, and how many of his jobs may go for one of this tenant: so many that he is left with no
    /// fewer.
    fn gives_way_to(&self, tenant: Tenant) -> Option<(Tenant, usize)> {
        let (other, has) = self.shares.greediest()?;
        Some((other, has.saturating_sub(self.shares.jobs(tenant) + 1)))
    }

    /// A job has come that is like those that wait.
    fn came_unread(&mut self, tenant: Tenant, now: Instant) {
        let like = self.lanes.waiting().next().map(|(number, _)| number);
        like.into_iter().for_each(|number| self.came_like_last(number, tenant, now));
    }

    /// A job has come that is taken to be like the lane's last.
    fn came_like_last(&mut self, number: usize, tenant: Tenant, now: Instant) {
        let (rows, work) = self.lanes.get(number).last;
        self.came(number, rows, (tenant, work), now);
    }

    /// Rows of a tenant have come to a lane, of so much work, that are to be taken in or refused.
    fn came(&mut self, number: usize, rows: usize, (tenant, work): (Tenant, f64), now: Instant) {
        self.demands.asked(tenant, work, now);
        self.arrivals.came(rows, now);
        let lane = self.lanes.get_mut(number);
        lane.arrivals.came(rows, now);
        lane.last = (rows, work);
    }

    /// What a worker that is free is to do now. Jobs handed out are gone from the batcher.
    pub fn next(&mut self, worker: usize, now: Instant) -> Next<J> {
        loop {
            let ripe = |lane: &Lane<J>| (self.ripe_at(lane, now).max(now), lane.line.turn(&self.shares));
            let lanes = self.lanes.waiting().map(|(number, lane)| (ripe(lane), number));
            let first = lanes.min_by_key(|(when, _)| *when);
            self.alarm = first.map(|((at, _), _)| at).filter(|at| *at > now);
            let Some((_, number)) = first else { return Next::Idle };
            if let Some(at) = self.alarm {
                return Next::SleepUntil(at);
            }
            if let Some(other) = self.better_done_elsewhere(worker, number, now) {
                return other;
            }
            let batch = self.take_batch(worker, number, now);
            // Abandoned jobs vanish here without a batch, and others are put off; then the next lane is looked at.
            if !batch.jobs.is_empty() || !batch.late.is_empty() {
                return Next::Run(batch);
            }
        }
    }

    /// A worker is free again; what it did says something about the next time only if it went well.
    pub fn done(&mut self, worker: usize, went_well: bool, now: Instant) {
        let Worker { kind, running } = &mut self.workers[worker];
        if let Some(Running { since, elements, rows, deadlines, .. }) = running.take()
            && went_well
        {
            deadlines.into_iter().for_each(|(tenant, deadline)| self.shares.learn(tenant, deadline < now));
            if self.times[*kind].observe(elements, rows, now.duration_since(since), now) {
                self.shares.relax();
            }
            self.achieved.add(rows, now.duration_since(since));
        }
    }

    /// When a job's turn is among those of its tenant: by its deadline, and if it has much time no later than others that come
    /// a part of that later, so that it is not put off until the last moment.
    fn due(&self, deadline: Instant, level: usize, now: Instant) -> Instant {
        let ageing = self.policy.ageing;
        let level = ageing.saturating_mul(u32::try_from(level).unwrap_or(u32::MAX));
        const PART: u32 = 8;
        // With several levels nobody of one is put off as far as the next level is behind it.
        let has_levels = self.policy.max_jobs_of_level.len() > 1;
        let soon = if has_levels { ageing / 2 } else { ageing };
        let beyond = deadline.saturating_duration_since(now).saturating_sub(soon) / PART;
        let most = soon.as_secs_f64();
        let beyond = if has_levels { beyond.mul_f64(most / (most + beyond.as_secs_f64()).max(1e-9)) } else { beyond };
        let due = deadline.min(now + soon + beyond);
        due.checked_add(level).unwrap_or(due)
    }

    /// Takes out so many jobs of whoever has the most waiting that there is room for one more, as long as he is left with
    /// no fewer than `tenant` will have. `None`, and nothing is done, when that is not enough.
    fn make_room(&mut self, rows: usize, bytes: usize, tenant: Tenant, now: Instant) -> Option<Vec<J>> {
        let max = self.policy.max_queue;
        let (mut jobs, mut rows, mut bytes) =
            (self.jobs + 1, self.rows.saturating_add(rows), self.bytes.saturating_add(bytes));
        if !max.is_less_than(jobs, rows, bytes) {
            return Some(Vec::new());
        }
        let (other, surplus) = self.gives_way_to(tenant)?;
        let has_any = |lane: &Lane<J>| lane.line.last_first(other).next().is_some();
        let (number, lane) = self.lanes.waiting().find(|(_, lane)| has_any(lane))?;
        let mut places = Vec::new();
        for (place, Waiting { job, .. }) in lane.line.last_first(other).take(surplus) {
            (jobs, rows, bytes) = (jobs - 1, rows - job.rows(), bytes - job.bytes());
            places.push(place);
            if !max.is_less_than(jobs, rows, bytes) {
                break;
            }
        }
        if max.is_less_than(jobs, rows, bytes) {
            return None;
        }
        let gone = self.lanes.get_mut(number).line.take(&places);
        gone.iter().for_each(|waiting| self.forget(number, waiting, false));
        self.weigh(number, now);
        Some(gone.into_iter().map(|waiting| waiting.job).collect())
    }

    /// A job waits in a lane, which is then to be weighed.
    fn take_in(&mut self, number: usize, waiting: Waiting<J>, now: Instant) {
        let Waiting { ref job, tenant, work, .. } = waiting;
        self.shares.came(tenant, work, now);
        self.jobs += 1;
        self.jobs_of_level.get_mut(job.level()).into_iter().for_each(|jobs| *jobs += 1);
        self.rows += job.rows();
        self.bytes += job.bytes();
        self.work += work;
        self.lanes.get_mut(number).push(waiting);
    }

    /// A job has left a lane, which is then to be weighed.
    fn forget(&mut self, number: usize, Waiting { job, tenant, work, .. }: &Waiting<J>, served: bool) {
        let lane = self.lanes.get_mut(number);
        lane.rows -= job.rows();
        lane.work -= work;
        self.jobs -= 1;
        self.jobs_of_level.get_mut(job.level()).into_iter().for_each(|jobs| *jobs -= 1);
        self.rows -= job.rows();
        self.bytes -= job.bytes();
        self.work -= work;
        self.shares.left(*tenant, *work, served);
    }
}
