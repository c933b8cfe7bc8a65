//! Which waiting jobs run together, and when; and whether a job that comes can be answered in time at all. Pure: time comes
//! in as an argument, nothing is locked or awaited.
//!
//! Jobs that can be joined share a shape and wait in one line, so mixed shapes do not cut each other's batches short. A
//! free worker takes the line whose first job is next ([`line`](super::line)), and of it the batch that gets most done in
//! time ([`choice`](super::choice)). It does not wait for company unless there is a `max_delay`: under load jobs wait for
//! a worker anyway, and without it waiting would only make them slower.

mod outlook;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use super::choice::{Candidate, Choice, choose};
use super::line::{Line, Waiting};
use super::policy::Policy;
use super::shares::{Shares, Tenant};
use super::times::{Expected, Times};

/// What the batcher must know of a job.
pub trait Job {
    /// Jobs of equal shape can be joined into one batch.
    type Shape: Clone + Eq + Hash;

    fn shape(&self) -> &Self::Shape;
    /// Rows this job adds to a batch, at least 1.
    fn rows(&self) -> usize;
    /// Elements of one row: what tells rows that take long from others. The same for all jobs of a shape.
    fn elements(&self) -> usize;
    fn bytes(&self) -> usize;
    /// When its answer stops being worth anything.
    fn deadline(&self) -> Instant;
    /// How many levels of others come before it, 0 for those that come first.
    fn level(&self) -> u32;
    /// Whose it is: tenants get equal parts of the model.
    fn tenant(&self) -> Tenant;
    /// Whether nobody waits for its answer any more.
    fn abandoned(&self) -> bool;
}

/// Jobs to run as one batch, and jobs that cannot be answered in time any more.
#[derive(Debug)]
pub struct Batch<J> {
    /// Same shape, at most `max_rows` rows together. Empty only when everything that was next is late.
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
    /// More rows than any batch may have: the caller should have cut it.
    TooManyRows,
}

struct Lane<J> {
    line: Line<J>,
    elements: usize,
    rows: usize,
    /// The sum of the jobs' work.
    work: f64,
    /// How long all workers together will take for it, which is more where batches are not full.
    seconds: f64,
}

struct Worker {
    kind: usize,
    running: Option<Running>,
}

struct Running {
    since: Instant,
    until: Instant,
    elements: usize,
    rows: usize,
}

/// The part of the most that can be done in a second which smaller batches still have to do.
const WORTH: f64 = 0.98;
/// As that, of what a batch is filled up to with jobs of a tenant who makes others wait: that it is short is worth more.
const WORTH_OF_FILLING: f64 = 0.7;

pub struct Batcher<J: Job> {
    policy: Policy,
    /// By the kind of device.
    times: Vec<Times>,
    workers: Vec<Worker>,
    /// No lane is empty.
    lanes: HashMap<J::Shape, Lane<J>>,
    shares: Shares,
    jobs: usize,
    rows: usize,
    bytes: usize,
    /// Sums of the lanes'.
    work: f64,
    seconds: f64,
    last_arrival: Option<Instant>,
    /// Between arrivals, in seconds, the last ones counting most.
    gap: Option<f64>,
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
            policy,
            lanes: HashMap::new(),
            shares: Shares::default(),
            jobs: 0,
            rows: 0,
            bytes: 0,
            work: 0.0,
            seconds: 0.0,
            last_arrival: None,
            gap: None,
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

    /// Takes a job in if it can be answered in time and there is room for it. Others give way only to a tenant who has
    /// fewer waiting.
    pub fn push(&mut self, job: J, now: Instant) -> Result<Pushed<J>, Refused> {
        let (rows, bytes, tenant) = (job.rows(), job.bytes(), job.tenant());
        if rows > self.policy.max_rows {
            return Err(Refused::TooManyRows);
        }
        self.arrived(now);
        let due = job.deadline().min(now + self.policy.ageing) + self.policy.ageing * job.level();
        let work = self.work_of(job.elements(), rows, job.deadline().saturating_duration_since(now), now);
        self.check_in_time(&job, due, now)?;
        let full = Refused::Full { retry_after: Duration::from_secs_f64(self.seconds / 2.0) };
        let evicted = self.make_room(rows, bytes, tenant, now).ok_or(full)?;
        let lane = match self.lanes.get_mut(job.shape()) {
            Some(lane) => lane,
            None => self.lanes.entry(job.shape().clone()).or_insert_with(|| Lane::new(job.elements())),
        };
        // A sleeping worker has to look again if this is to be run before it would: only then is its lane looked up again.
        let shape = self.alarm.map(|_| job.shape().clone());
        lane.rows += rows;
        lane.work += work;
        lane.line.push(Waiting { job, arrived: now, due, tenant, work });
        let seconds = outlook::seconds(lane, &self.times, self.workers.len(), now);
        self.seconds += seconds - std::mem::replace(&mut lane.seconds, seconds);
        self.shares.came(tenant, work, now);
        self.jobs += 1;
        self.rows += rows;
        self.bytes += bytes;
        self.work += work;
        let is_anybody_free = self.workers.iter().any(|worker| worker.running.is_none());
        let is_sooner = self.alarm.zip(shape).is_none_or(|(alarm, shape)| self.ripe_at(&shape, now) < alarm);
        Ok(Pushed { wakes: is_anybody_free && is_sooner, evicted })
    }

    /// What a worker that is free is to do now. Jobs handed out are gone from the batcher.
    pub fn next(&mut self, worker: usize, now: Instant) -> Next<J> {
        loop {
            let ripe =
                |shape: &J::Shape| (self.ripe_at(shape, now).max(now), self.lanes[shape].line.turn(&self.shares));
            let first = self.lanes.keys().map(|shape| (ripe(shape), shape)).min_by_key(|(when, _)| *when);
            self.alarm = first.map(|((at, _), _)| at).filter(|at| *at > now);
            let Some((_, shape)) = first else { return Next::Idle };
            if let Some(at) = self.alarm {
                return Next::SleepUntil(at);
            }
            let shape = shape.clone();
            if let Some(other) = self.better_done_elsewhere(worker, &shape, now) {
                return other;
            }
            let batch = self.take_batch(worker, &shape, now);
            // Abandoned jobs vanish here without a batch; then the next lane is looked at.
            if !batch.jobs.is_empty() || !batch.late.is_empty() {
                return Next::Run(batch);
            }
        }
    }

    /// A worker is free again; what it did says something about the next time only if it went well.
    pub fn done(&mut self, worker: usize, went_well: bool, now: Instant) {
        let Worker { kind, running } = &mut self.workers[worker];
        if let Some(Running { since, elements, rows, .. }) = running.take()
            && went_well
        {
            self.times[*kind].observe(elements, rows, now.duration_since(since), now);
        }
    }

    fn arrived(&mut self, now: Instant) {
        /// Of the newest gap.
        const WEIGHT: f64 = 0.2;
        if let Some(last) = self.last_arrival.replace(now) {
            let gap = now.duration_since(last).as_secs_f64();
            self.gap = Some(self.gap.map_or(gap, |known| known + (gap - known) * WEIGHT));
        }
    }

    /// Takes out so many jobs of whoever has the most waiting that there is room for one more, as long as he is left with
    /// no fewer than `tenant` will have. `None`, and nothing is done, when that is not enough.
    fn make_room(&mut self, rows: usize, bytes: usize, tenant: Tenant, now: Instant) -> Option<Vec<J>> {
        let max = self.policy.max_queue;
        let (mut jobs, mut rows, mut bytes) =
            (self.jobs + 1, self.rows.saturating_add(rows), self.bytes.saturating_add(bytes));
        let over = |jobs: usize, rows: usize, bytes: usize| jobs > max.jobs || rows > max.rows || bytes > max.bytes;
        if !over(jobs, rows, bytes) {
            return Some(Vec::new());
        }
        let (other, has) = self.shares.greediest()?;
        let surplus = has.saturating_sub(self.shares.jobs(tenant) + 1);
        let (shape, lane) = self.lanes.iter().find(|(_, lane)| lane.line.last_first(other).next().is_some())?;
        let mut places = Vec::new();
        for (place, Waiting { job, .. }) in lane.line.last_first(other).take(surplus) {
            (jobs, rows, bytes) = (jobs - 1, rows - job.rows(), bytes - job.bytes());
            places.push(place);
            if !over(jobs, rows, bytes) {
                break;
            }
        }
        if over(jobs, rows, bytes) {
            return None;
        }
        let shape = shape.clone();
        let gone = self.lanes.get_mut(&shape)?.line.take(&places);
        self.forget(&shape, &gone, false, now);
        self.weigh(&shape, now);
        Some(gone.into_iter().map(|waiting| waiting.job).collect())
    }

    /// These have left a lane.
    fn forget(&mut self, shape: &J::Shape, gone: &[Waiting<J>], served: bool, now: Instant) {
        let Some(lane) = self.lanes.get_mut(shape) else { return };
        for Waiting { job, tenant, work, .. } in gone {
            lane.rows -= job.rows();
            lane.work -= work;
            self.jobs -= 1;
            self.rows -= job.rows();
            self.bytes -= job.bytes();
            self.work -= work;
            self.shares.left(*tenant, *work, served, now);
        }
    }

    /// From when on a lane is to be run: when there is a whole batch, when waiting any longer would make somebody late or
    /// takes longer than allowed, or when nobody can be expected to come before that.
    fn ripe_at(&self, shape: &J::Shape, now: Instant) -> Instant {
        let Policy { max_delay, preferred_rows, .. } = &self.policy;
        let lane = &self.lanes[shape];
        if max_delay.is_zero() {
            return now;
        }
        let enough = preferred_rows.first().copied();
        if lane.rows >= enough.unwrap_or_else(|| self.times[0].best_rows(lane.elements, WORTH, now)) {
            return now;
        }
        let takes = self.fastest(lane.elements, lane.rows + 1).map_or(Duration::ZERO, |expected| expected.slow);
        let latest = |waiting: &Waiting<J>| {
            let start = waiting.job.deadline().checked_sub(takes).unwrap_or(now);
            start.min(waiting.arrived + *max_delay)
        };
        let until = lane.line.all().map(latest).min().unwrap_or(now);
        let is_lonely = self.gap.is_some_and(|gap| until.saturating_duration_since(now).as_secs_f64() < gap);
        if is_lonely { now } else { until }
    }

    /// Whether a worker should leave a lane to those on faster devices: they would be done with all of it before this one
    /// with its first batch.
    fn better_done_elsewhere(&self, worker: usize, shape: &J::Shape, now: Instant) -> Option<Next<J>> {
        if self.times.len() == 1 {
            return None;
        }
        let lane = &self.lanes[shape];
        let (own, rows) = (self.workers[worker].kind, lane.rows.min(self.policy.max_rows));
        let takes = |kind: usize| self.times[kind].expect(lane.elements, rows).map(|expected| expected.middle);
        let (mut done, mut soonest, end) = (0, None, now + takes(own)?);
        for other in self.workers.iter().filter(|other| other.kind != own) {
            let free = other.running.as_ref().map_or(now, |running| running.until.max(now));
            let takes = takes(other.kind)?.max(Duration::from_nanos(1));
            let batches = end.saturating_duration_since(free).as_nanos() / takes.as_nanos();
            if batches > 0 {
                done += usize::try_from(batches).unwrap_or(usize::MAX).saturating_mul(rows);
                soonest = Some(soonest.map_or(free, |known: Instant| known.min(free)));
            }
        }
        let soonest = soonest.filter(|_| done >= self.rows)?;
        Some(if soonest <= now { Next::Pass } else { Next::SleepUntil(soonest) })
    }

    fn take_batch(&mut self, worker: usize, shape: &J::Shape, now: Instant) -> Batch<J> {
        let kind = self.workers[worker].kind;
        let lane = &self.lanes[shape];
        let elements = lane.elements;
        let most = self.most_rows(lane, kind, now);
        let much = self.shares.is_much(now);
        let filled = much.map_or(most, |_| self.times[kind].best_rows(elements, WORTH_OF_FILLING, now).min(most));
        let (mut gone, mut places, mut candidates, mut rows) = (Vec::new(), Vec::new(), Vec::new(), 0);
        lane.line.visit(&self.shares, |place, Waiting { job, tenant, .. }| {
            let fills = much.is_some_and(|much| self.shares.work(*tenant) >= much);
            if job.abandoned() {
                gone.push(place);
            } else if !fills || rows < filled {
                places.push(place);
                candidates.push(Candidate { rows: job.rows(), deadline: job.deadline() });
                rows += if job.deadline() > now { job.rows() } else { 0 };
            }
            rows < 2 * most // more than fit, to choose from
        });
        let most = most.max(candidates.first().map_or(1, |first| first.rows));
        let expect = |rows| self.times[kind].expect(elements, rows).unwrap_or(Expected::UNKNOWN);
        let Choice { run, late } = choose(&candidates, most, now, expect);
        let until = now + expect(run.iter().map(|place| candidates[*place].rows).sum()).middle;
        let [run, late] = [run, late].map(|chosen| chosen.into_iter().map(|place| places[place]).collect::<Vec<_>>());
        let mut taken =
            self.lanes.get_mut(shape).expect("just found").line.take(&[run.clone(), late.clone(), gone].concat());
        self.forget(shape, &taken[run.len()..], false, now);
        self.forget(shape, &taken[..run.len()], true, now);
        self.weigh(shape, now);
        taken.truncate(run.len() + late.len());
        let late = taken.split_off(run.len()).into_iter().map(|waiting| waiting.job).collect();
        let jobs: Vec<J> = taken.into_iter().map(|waiting| waiting.job).collect();
        if !jobs.is_empty() {
            let rows = jobs.iter().map(Job::rows).sum();
            self.workers[worker].running = Some(Running { since: now, until, elements, rows });
        }
        Batch { jobs, late }
    }

    /// Rows of a lane's next batch at most.
    fn most_rows(&self, lane: &Lane<J>, kind: usize, now: Instant) -> usize {
        let preferred = self.policy.preferred_rows.iter().rev().find(|size| **size <= lane.rows);
        preferred
            .copied()
            .unwrap_or_else(|| self.times[kind].best_rows(lane.elements, WORTH, now))
            .min(self.policy.max_rows)
    }
}

impl<J> Lane<J> {
    fn new(elements: usize) -> Lane<J> {
        Lane { line: Line::default(), elements, rows: 0, work: 0.0, seconds: 0.0 }
    }
}

#[allow(clippy::cast_precision_loss)] // rows are few
fn as_f64(rows: usize) -> f64 {
    rows as f64
}
