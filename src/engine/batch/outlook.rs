//! When what waits will be done, and so whether a job that comes can be answered in time.

use std::time::{Duration, Instant};

use super::{Batcher, Job, Refused, WORTH, Worker, as_f64};
use crate::engine::shares::Tenant;
use crate::engine::times::{Expected, Times};

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
    /// other tenants whose turn it is.
    pub(super) fn check_in_time(&self, job: &J, number: usize, due: Instant, now: Instant) -> Result<(), Refused> {
        /// What is older does not refuse anybody: there would never be news again.
        const NEWS: Duration = Duration::from_secs(1);
        let residual = |worker: &Worker| {
            worker.running.as_ref().map_or(Duration::ZERO, |running| running.until.saturating_duration_since(now))
        };
        let residuals = self.workers.iter().map(residual);
        let is_idle = self.jobs == 0 && self.workers.iter().all(|worker| worker.running.is_none());
        let newest = self.times.iter().filter_map(Times::newest).max();
        if newest.is_none_or(|newest| is_idle && now.duration_since(newest) > NEWS) {
            return Ok(());
        }
        let waiting = self.lanes.get(number).rows;
        let best = self.times[0].best_rows(job.elements(), WORTH, now).max(job.rows());
        let together = (waiting + job.rows()).min(best);
        let Some(own) = self.expect(job.elements(), together) else { return Ok(()) };
        let ahead = self.ahead(job.tenant(), due);
        let wait = if ahead > 0.0 {
            residuals.sum::<Duration>() / u32::try_from(self.workers.len()).unwrap_or(1)
                + Duration::from_secs_f64(ahead)
        } else {
            residuals.min().unwrap_or_default()
        };
        let time = job.deadline().saturating_duration_since(now);
        let alone = self.expect(job.elements(), job.rows()).map_or(own.middle, |alone| alone.middle);
        if alone > time {
            return Err(Refused::Late { takes: alone });
        }
        match (wait + own.slow).checked_sub(time) {
            Some(over) if !over.is_zero() && !wait.is_zero() => Err(Refused::Busy { retry_after: over }),
            _ => Ok(()),
        }
    }

    /// Seconds of work before a job of this tenant that is due then.
    fn ahead(&self, tenant: Tenant, due: Instant) -> f64 {
        if self.work <= 0.0 {
            return 0.0;
        }
        let own: f64 = self.lanes.waiting().map(|(_, lane)| lane.line.work_before(tenant, due)).sum();
        (self.shares.ahead(tenant, own).min(self.work)) * (self.seconds / self.work).max(1.0)
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
