//! Which of the jobs of a lane, and of lanes that can be padded to the same length, run together.

use std::time::{Duration, Instant};

use super::outlook::Filling;
use super::{Batch, Batcher, Job, Running, WORTH, as_f64};
use crate::engine::choice::{Candidate, Choice, choose};
use crate::engine::line::{Place, Waiting};
use crate::engine::shares::Tenant;
use crate::engine::times::Expected;

/// So much later those are due who come after all others: nobody waits that long.
const BEHIND_ALL: Duration = Duration::from_hours(24);

/// Lanes whose jobs run together.
struct Joined {
    /// The first has its turn.
    numbers: Vec<usize>,
    /// Of the longest row.
    elements: usize,
    /// Rows of a batch at most.
    most: usize,
}

/// What becomes of a job.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Runs,
    Late,
    /// Nobody waits for it.
    Gone,
    /// It waits on, behind the others.
    PutOff,
}

/// A job's lane, and where it is in that.
type Found = (usize, Place);

impl<J: Job> Batcher<J> {
    /// The next batch of a lane for a worker.
    pub(super) fn take_batch(&mut self, worker: usize, number: usize, now: Instant) -> Batch<J> {
        let kind = self.workers[worker].kind;
        let joined = self.joined(number, kind, now);
        let filling = self.keep_short(joined.elements, joined.most, now);
        let (found, candidates, mut fates) = self.look_over(&joined, kind, filling, now);
        let most = joined.most.max(candidates.first().map_or(1, |first| first.rows));
        let has_probe = std::mem::take(&mut self.lanes.get_mut(number).has_probe);
        let known = |rows| self.times[kind].expect(joined.elements, rows).unwrap_or(Expected::UNKNOWN);
        let expect = |rows| if has_probe { Expected::UNKNOWN } else { known(rows) };
        let Choice { run, late } = choose(&candidates, most, self.overload(now).unwrap_or(0.0), now, expect);
        let rows = run.iter().map(|place| candidates[*place].rows).sum();
        let until = now + known(rows).middle;
        let fated = |places: &[usize], fate| places.iter().map(|place| (found[*place], fate)).collect::<Vec<_>>();
        fates.splice(0..0, [fated(&run, Fate::Runs), fated(&late, Fate::Late)].concat());
        let (batch, work) = self.carry_out(&joined.numbers, &fates, now);
        if let Some(filling) = filling {
            let fills = |tenant: &Tenant| self.fills(*tenant, filling, now);
            let greedy = batch.jobs.iter().map(Job::tenant).filter(fills).collect();
            self.charge(greedy, until.duration_since(now).as_secs_f64() / as_f64(self.workers.len()) - work);
        }
        if !batch.jobs.is_empty() {
            let (elements, deadlines) =
                (joined.elements, batch.jobs.iter().map(|job| (job.tenant(), job.deadline())).collect());
            self.workers[worker].running = Some(Running { since: now, until, elements, rows, deadlines });
        }
        batch.late.iter().for_each(|job| self.shares.learn(job.tenant(), true));
        batch
    }

    /// A lane, and others whose rows take less when they are padded to the same length and run with its own than when
    /// they run apart. Those of the nearest length come first.
    fn joined(&self, number: usize, kind: usize, now: Instant) -> Joined {
        let first = self.lanes.get(number);
        let mut most = self.most_rows(first.rows, first.elements, first.tokens, kind, now);
        let (mut numbers, mut elements, mut tokens, mut rows) =
            (vec![number], first.elements, first.tokens, first.rows);
        let others = self.lanes.waiting().filter(|(other, _)| rows < most && *other != number);
        let mut others: Vec<_> = others.filter(|(_, other)| J::can_be_padded(&first.shape, &other.shape)).collect();
        others.sort_unstable_by_key(|(_, other)| other.elements.abs_diff(first.elements));
        let takes = |elements, rows| self.times[kind].expect(elements, rows).unwrap_or(Expected::UNKNOWN).middle;
        for (other_number, other) in others {
            let longest = (elements.max(other.elements), tokens.max(other.tokens));
            let most_together = self.most_rows(rows + other.rows, longest.0, longest.1, kind, now);
            let added = other.rows.min(most_together.saturating_sub(rows));
            let is_less = takes(longest.0, rows + added) <= takes(elements, rows) + takes(other.elements, added);
            if added > 0 && is_less {
                (numbers, rows, most) = ([numbers, vec![other_number]].concat(), rows + added, most_together);
                (elements, tokens) = longest;
            }
        }
        Joined { numbers, elements, most }
    }

    /// Who could run, in the order of their turns, and what is clear already of others on the way.
    fn look_over(
        &self,
        joined: &Joined,
        kind: usize,
        filling: Option<Filling>,
        now: Instant,
    ) -> (Vec<Found>, Vec<Candidate>, Vec<(Found, Fate)>) {
        let short = filling.map(|_| self.times[kind].short_rows(joined.elements));
        let filled = short.map_or(joined.most, |short| short.min(joined.most));
        let (mut found, mut candidates, mut fates, mut rows) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for number in &joined.numbers {
            self.lanes.get(*number).line.visit(&self.shares, |place, Waiting { job, tenant, is_put_off, .. }| {
                let fills = filling.is_some_and(|filling| self.fills(*tenant, filling, now));
                if job.abandoned() {
                    fates.push(((*number, place), Fate::Gone));
                } else if job.put_off_at().is_some_and(|at| at <= now) && !is_put_off {
                    fates.push(((*number, place), Fate::PutOff));
                } else if !fills || rows == 0 || rows + job.rows() <= filled {
                    found.push((*number, place));
                    candidates.push(Candidate { rows: job.rows(), deadline: job.deadline() });
                    rows += if job.deadline() > now { job.rows() } else { 0 };
                }
                rows < 2 * joined.most // more than fit, to choose from
            });
        }
        (found, candidates, fates)
    }

    /// Whoever makes batches short pays for the time in which more could have been done: others are to have their parts of
    /// what there is without that.
    fn charge(&mut self, greedy: Vec<Tenant>, lost: f64) {
        let each = lost.max(0.0) / as_f64(greedy.len());
        greedy.into_iter().for_each(|tenant| self.shares.pays(tenant, each));
    }

    /// Takes jobs out of their lanes. Gives how much work runs.
    fn carry_out(&mut self, numbers: &[usize], fates: &[(Found, Fate)], now: Instant) -> (Batch<J>, f64) {
        let (mut jobs, mut late, mut work) = (Vec::new(), Vec::new(), 0.0);
        for number in numbers {
            let here = fates.iter().filter(|((lane, _), _)| lane == number);
            let (places, fates): (Vec<Place>, Vec<Fate>) = here.map(|((_, place), fate)| (*place, *fate)).unzip();
            let mut put_off = Vec::new();
            for (waiting, fate) in self.lanes.get_mut(*number).line.take(&places).into_iter().zip(fates) {
                self.forget(*number, &waiting, fate == Fate::Runs);
                match fate {
                    Fate::Runs => {
                        work += waiting.work;
                        jobs.push(waiting.job);
                    }
                    Fate::Late => late.push(waiting.job),
                    Fate::Gone => {}
                    Fate::PutOff => put_off.push(waiting),
                }
            }
            for waiting in put_off {
                let due = waiting.job.deadline() + BEHIND_ALL;
                self.take_in(*number, Waiting { due, is_put_off: true, ..waiting }, now);
            }
            self.weigh(*number, now);
        }
        (Batch { jobs, late }, work)
    }

    /// Rows of the next batch at most, when so many wait that are so long.
    fn most_rows(&self, waiting: usize, elements: usize, tokens: usize, kind: usize, now: Instant) -> usize {
        let preferred = self.policy.preferred_rows.iter().rev().find(|size| **size <= waiting);
        let best = preferred.copied().unwrap_or_else(|| {
            let times = &self.times[kind];
            let best = times.best_rows(elements, WORTH, now).max(times.ample(elements, waiting).unwrap_or(1));
            // Under overload admission keeps short what waits.
            let enough = if self.overload(now).is_some() { waiting.saturating_mul(2) } else { waiting };
            times.untried(elements, best).or_else(|| times.again(elements, best, enough, now)).unwrap_or(best)
        });
        best.min(self.policy.max_rows).min(self.policy.max_tokens / tokens.max(1)).max(1)
    }
}
