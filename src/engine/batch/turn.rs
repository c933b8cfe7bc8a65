//! Whose turn it is: when a lane is to be run, and whether by this worker.

use std::time::{Duration, Instant};

use super::{Batcher, Job, Lane, Next, WORTH};
use crate::engine::line::Waiting;
use crate::engine::policy::Policy;

impl<J: Job> Batcher<J> {
    /// From when on a lane is to be run: when there is a whole batch, when waiting any longer would make somebody late or
    /// takes longer than allowed, or when nobody can be expected to come before that.
    pub(super) fn ripe_at(&self, lane: &Lane<J>, now: Instant) -> Instant {
        let Policy { max_delay, preferred_rows, .. } = &self.policy;
        if max_delay.is_zero() {
            return now;
        }
        let enough = preferred_rows.first().copied();
        if lane.rows >= enough.unwrap_or_else(|| self.times[0].best_rows(lane.elements, WORTH, now)) {
            return now;
        }
        let takes = self.expect(lane.elements, lane.rows + 1).map_or(Duration::ZERO, |expected| expected.slow);
        let latest = |waiting: &Waiting<J>| {
            let start = waiting.job.deadline().checked_sub(takes).unwrap_or(now);
            start.min(waiting.arrived + *max_delay)
        };
        let until = lane.line.all().map(latest).min().unwrap_or(now);
        let is_lonely =
            lane.arrivals.gap(now).is_some_and(|gap| until.saturating_duration_since(now).as_secs_f64() < gap);
        if is_lonely { now } else { until }
    }

    /// Whether a worker should leave a lane to those on faster devices: they would be done with all of it before this one
    /// with its first batch.
    pub(super) fn better_done_elsewhere(&self, worker: usize, number: usize, now: Instant) -> Option<Next<J>> {
        if self.times.len() == 1 {
            return None;
        }
        let lane = self.lanes.get(number);
        let (own, rows) = (self.workers[worker].kind, lane.rows.min(self.policy.max_rows));
        let takes = |kind: usize| self.times[kind].expect(lane.elements, rows).map(|expected| expected.middle);
        let (mut done, mut soonest, end) = (0, None, now + takes(own)?);
        for other in self.workers.iter().filter(|other| other.kind != own) {
            let free = other.running.as_ref().map_or(now, |running| running.until.max(now));
            let takes = takes(other.kind)?.max(Duration::from_nanos(1));
            if now + takes == end && own < other.kind {
                continue; // two that are equally fast must not leave it to each other
            }
            let batches = end.saturating_duration_since(free).as_nanos() / takes.as_nanos();
            if batches > 0 {
                done += usize::try_from(batches).unwrap_or(usize::MAX).saturating_mul(rows);
                soonest = Some(soonest.map_or(free, |known: Instant| known.min(free)));
            }
        }
        let soonest = soonest.filter(|_| done >= self.rows)?;
        Some(if soonest <= now { Next::Pass } else { Next::SleepUntil(soonest) })
    }
}
