//! When what waits will be done, and so whether a job that comes can be answered in time.

use std::time::{Duration, Instant};

use super::{Batcher, Job, Lane, Refused, Running, WORTH, Worker, as_f64};
use crate::engine::shares::Tenant;
use crate::engine::times::{Expected, Times, size_class};

/// What is known of a job when it comes.
pub(super) struct Asked {
    pub rows: usize,
    pub elements: usize,
    pub deadline: Instant,
    pub due: Instant,
    pub tenant: Tenant,
}

/// From what demand, or what backlog, on a tenant makes others wait.
#[derive(Clone, Copy)]
pub(super) struct Filling {
    demand: Option<f64>,
    backlog: Option<f64>,
}

impl<J: Job> Batcher<J> {
    /// How long all workers together take for rows among others, when batches are as large as is best and as those allow
    /// who have so much time: one to wait for, one of their own.
    pub(super) fn work_of(&self, elements: usize, rows: usize, time: Duration, now: Instant) -> f64 {
        let rate = |worker: &Worker| {
            let times = &self.times[worker.kind];
            let best = times.best_rows(elements, WORTH, now);
            let sizes = std::iter::successors(Some(best), |size| (*size > 1).then_some(size / 2));
            let takes = |size: usize| times.expect(elements, size).map_or(Duration::ZERO, |expected| expected.middle);
            let size = sizes.clone().find(|size| takes(*size) * 2 <= time).unwrap_or(1);
            as_f64(size) / takes(size).as_secs_f64().max(1e-9)
        };
        as_f64(rows) / self.workers.iter().map(rate).sum::<f64>()
    }

    /// Whether a job will have its answer in time when it comes after those that are due before it, and after those of
    /// other tenants whose turn it is. Gives whether it is let in as a probe.
    pub(super) fn check_in_time(&self, asked: &Asked, lane: &Lane<J>, now: Instant) -> Result<bool, Refused> {
        let is_probe = self.is_probe(asked.elements, lane, now);
        let (wait, together) = self.wait(asked, lane, now);
        let known = self.expect(asked.elements, together).filter(|_| !is_probe);
        let own = known.unwrap_or(Expected::UNKNOWN);
        let time = asked.deadline.saturating_duration_since(now);
        let alone = known.and_then(|_| self.expect(asked.elements, asked.rows)).unwrap_or(own).middle;
        if alone > time {
            return Err(Refused::Late { takes: alone });
        }
        match (wait + own.slow.mul_f64(self.shares.caution(asked.tenant))).checked_sub(time) {
            Some(over) if !over.is_zero() && !wait.is_zero() => Err(Refused::Busy { retry_after: over }),
            _ => Ok(is_probe),
        }
    }

    /// Whether a job of a lane would tell what such jobs take these days: what is known of them is old or in doubt, and none
    /// of them waits or runs that would tell it sooner. Nobody is refused by what is known then.
    fn is_probe(&self, elements: usize, lane: &Lane<J>, now: Instant) -> bool {
        let class = size_class(elements);
        let is_like_it = |running: &Running| size_class(running.elements) == class;
        lane.line.is_empty()
            && !self.times.iter().any(|times| times.has_news(elements, now))
            && !self.workers.iter().filter_map(|worker| worker.running.as_ref()).any(is_like_it)
    }

    /// How long it takes until the batch of a job begins, and how many rows will be in it.
    fn wait(&self, asked: &Asked, lane: &Lane<J>, now: Instant) -> (Duration, usize) {
        let Asked { rows, elements, tenant, due, .. } = *asked;
        let residual = |worker: &Worker| {
            worker.running.as_ref().map_or(Duration::ZERO, |running| running.until.saturating_duration_since(now))
        };
        let residuals = self.workers.iter().map(residual);
        let first_free = residuals.clone().min().unwrap_or_default();
        let full = self.times[0].best_rows(elements, WORTH, now);
        let fits = self.fitting(lane, now + first_free, full.max(rows));
        let short = self.keep_short(elements, fits, now).map(|_| self.times[0].short_rows(elements));
        let best = short.unwrap_or(full).max(rows);
        let room = fits.min(best).saturating_sub(rows);
        let (ahead, before) = self.ahead(lane, tenant, due, room);
        // What waits was taken to run in full batches: in short ones at least half as much gets done.
        let rate = |rows| Some(as_f64(rows) / self.expect(elements, rows)?.middle.as_secs_f64().max(1e-9));
        let slower = short.and_then(|short| Some((rate(full)? / rate(short)?).clamp(1.0, 2.0)));
        let ahead = ahead * slower.unwrap_or(1.0);
        let wait = if ahead > 0.0 {
            residuals.sum::<Duration>() / u32::try_from(self.workers.len()).unwrap_or(1)
                + Duration::from_secs_f64(ahead * self.shares.caution(tenant))
        } else {
            first_free
        };
        // Until its batch begins others may come to it.
        let gap = lane.arrivals.gap(now).filter(|_| self.overload(now).is_some());
        let coming = gap.map_or(0.0, |gap| wait.as_secs_f64() / gap).min(as_f64(best));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it is few
        let together = (rows + before + coming as usize).min(best);
        (wait, together)
    }

    /// Whose jobs may not fill batches of so many rows, for the sake of others: of those who ask for far more than their parts,
    /// or have so much waiting that it fills half a batch while others have much less.
    pub(super) fn keep_short(&self, elements: usize, rows: usize, now: Instant) -> Option<Filling> {
        let batch = self.expect(elements, rows).map_or(0.0, |expected| expected.middle.as_secs_f64());
        let enough = batch / 2.0 / as_f64(self.workers.len());
        let filling = Filling {
            demand: self.demands.greedy_from(now),
            backlog: self.shares.most(now).filter(|most| *most >= enough).map(|most| most / 2.0),
        };
        Some(filling).filter(|filling| filling.demand.is_some() || filling.backlog.is_some())
    }

    /// Whether a tenant is one of those.
    pub(super) fn fills(&self, tenant: Tenant, filling: Filling, now: Instant) -> bool {
        filling.demand.is_some_and(|from| self.demands.is_from(tenant, from, now))
            || filling.backlog.is_some_and(|from| self.shares.has(tenant, from, now))
    }

    /// How many rows a lane's next batch may have, of at most `best`, for whoever is first to have his answer in time.
    fn fitting(&self, lane: &Lane<J>, begins: Instant, best: usize) -> usize {
        let Some(time) = lane.line.first_deadline().map(|first| first.saturating_duration_since(begins)) else {
            return best;
        };
        let is_in_time = |rows: usize| self.expect(lane.elements, rows).is_none_or(|own| own.slow <= time);
        if is_in_time(best) {
            return best;
        }
        let (mut fits, mut not) = (0, best);
        while not - fits > 1 {
            let middle = fits.midpoint(not);
            if is_in_time(middle) { fits = middle } else { not = middle }
        }
        fits
    }

    /// When more rows come than are done: how many a worker does in a second.
    pub(super) fn overload(&self, now: Instant) -> Option<f64> {
        let done = Some(self.achieved.per_second()).filter(|done| *done > 0.0)?;
        let gap = self.arrivals.gap(now)?;
        (1.0 / gap > done * as_f64(self.workers.len())).then_some(done)
    }

    /// Seconds of work before the batch of a job of this tenant that is due then, and how many rows will be in it that come
    /// before the job, when there is room for so many.
    fn ahead(&self, lane: &Lane<J>, tenant: Tenant, due: Instant, room: usize) -> (f64, usize) {
        if self.work <= 0.0 {
            return (0.0, 0);
        }
        let own: f64 = self.lanes.waiting().map(|(_, lane)| lane.line.work_before(tenant, due)).sum();
        let all = self.shares.ahead(tenant, own, self.work);
        let here = lane.line.work_before(tenant, due);
        let part = if lane.work > 0.0 { here / lane.work } else { 0.0 };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // queues are short
        let rows = (as_f64(lane.rows) * part).round() as usize;
        let before = rows % (room + 1);
        let along = if rows > 0 { here * as_f64(before) / as_f64(rows) } else { 0.0 };
        ((all - along).max(0.0) * (self.seconds / self.work).max(1.0), before)
    }

    /// Works out anew how long a lane will take: as long as its jobs' work, or as one batch at least.
    pub(super) fn weigh(&mut self, number: usize, now: Instant) {
        let lane = self.lanes.get(number);
        let together = lane.rows.min(self.times[0].best_rows(lane.elements, WORTH, now));
        let one = self.expect(lane.elements, together).map_or(0.0, |expected| expected.middle.as_secs_f64());
        let is_empty = lane.line.is_empty();
        let workers = as_f64(self.workers.len());
        let lane = self.lanes.get_mut(number);
        if is_empty {
            lane.work = 0.0; // sums of rounded numbers drift
        }
        let seconds = if is_empty { 0.0 } else { lane.work.max(one / workers) };
        self.seconds += seconds - std::mem::replace(&mut lane.seconds, seconds);
        if self.jobs == 0 {
            (self.work, self.seconds) = (0.0, 0.0);
        }
    }
}

/// What a batch takes on the fastest of several kinds of devices.
pub(super) fn fastest(times: &[Times], elements: usize, rows: usize) -> Option<Expected> {
    times.iter().filter_map(|times| times.expect(elements, rows)).min_by_key(|expected| expected.slow)
}
