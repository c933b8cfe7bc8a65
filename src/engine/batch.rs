//! Which waiting jobs run together, and when. Pure: time comes in as an argument, nothing is locked or awaited.
//!
//! Jobs that can be joined share a shape and wait in one lane, first come first served, so mixed shapes do not cut
//! each other's batches short. A lane is due when it can fill a batch or its oldest job has waited `max_delay`;
//! among due lanes the one with the oldest job goes first.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// What the batcher must know of a job.
pub trait Job {
    /// Jobs of equal shape can be joined into one batch.
    type Shape: Clone + Eq + Hash;

    fn shape(&self) -> &Self::Shape;
    /// Rows this job adds to a batch, at least 1.
    fn rows(&self) -> usize;
    /// When its answer stops being worth anything.
    fn deadline(&self) -> Instant;
    /// Whether nobody waits for its answer any more.
    fn abandoned(&self) -> bool;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Most rows in one batch.
    pub max_rows: usize,
    /// How long a job may wait for company while a worker is free. Zero never waits.
    pub max_delay: Duration,
    /// Most jobs waiting.
    pub max_queue: usize,
}

/// Jobs to run as one batch, and jobs that came to the front too late to run.
#[derive(Debug)]
pub struct Batch<J> {
    /// Same shape, at most `max_rows` rows together. Empty only when everything that was due had expired.
    pub jobs: Vec<J>,
    pub expired: Vec<J>,
}

/// What a free worker is to do.
#[derive(Debug)]
pub enum Next<J> {
    Run(Batch<J>),
    /// Nothing is due before then, unless more is pushed.
    SleepUntil(Instant),
    /// Nothing waits.
    Idle,
}

/// Whether a sleeping worker has to look again after a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    Worker,
    Nobody,
}

/// Why a job was not taken; it is handed back.
#[derive(Debug)]
pub enum Refused<J> {
    QueueFull(J),
    /// More rows than any batch may have: the caller should have cut it.
    TooManyRows(J),
}

struct Lane<J> {
    jobs: VecDeque<(Instant, J)>,
    rows: usize,
}

pub struct Batcher<J: Job> {
    policy: Policy,
    /// No lane is empty.
    lanes: HashMap<J::Shape, Lane<J>>,
    jobs: usize,
    rows: usize,
}

impl<J: Job> Batcher<J> {
    pub fn new(policy: Policy) -> Self {
        Batcher { policy, lanes: HashMap::new(), jobs: 0, rows: 0 }
    }

    /// Jobs waiting.
    pub fn jobs(&self) -> usize {
        self.jobs
    }

    /// Rows waiting.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Takes a job in, or hands it back when the queue is full.
    pub fn push(&mut self, job: J, now: Instant) -> Result<Wake, Refused<J>> {
        let rows = job.rows();
        if rows > self.policy.max_rows {
            return Err(Refused::TooManyRows(job));
        }
        if self.jobs >= self.policy.max_queue {
            return Err(Refused::QueueFull(job));
        }
        let was_idle = self.jobs == 0;
        let max_rows = self.policy.max_rows;
        let lane = match self.lanes.get_mut(job.shape()) {
            Some(lane) => lane,
            None => self.lanes.entry(job.shape().clone()).or_insert_with(|| Lane { jobs: VecDeque::new(), rows: 0 }),
        };
        let was_full = lane.rows >= max_rows;
        lane.rows += rows;
        lane.jobs.push_back((now, job));
        let became_full = !was_full && lane.rows >= max_rows;
        self.jobs += 1;
        self.rows += rows;
        Ok(if was_idle || became_full { Wake::Worker } else { Wake::Nobody })
    }

    /// What a free worker is to do now. Jobs handed out are gone from the batcher.
    pub fn next(&mut self, now: Instant) -> Next<J> {
        loop {
            let Some((shape, due)) = self.most_urgent_lane() else { return Next::Idle };
            if due > now {
                return Next::SleepUntil(due);
            }
            let batch = self.take_batch(&shape, now);
            // Abandoned jobs vanish here without a batch; then the next lane is looked at.
            if !batch.jobs.is_empty() || !batch.expired.is_empty() {
                return Next::Run(batch);
            }
        }
    }

    /// The lane to run next and when it is due: full lanes at once, others when their oldest job has waited enough.
    fn most_urgent_lane(&self) -> Option<(J::Shape, Instant)> {
        let Policy { max_rows, max_delay, .. } = self.policy;
        let ranked = self.lanes.iter().filter_map(|(shape, lane)| {
            let arrived = lane.jobs.front()?.0;
            let wait = if lane.rows >= max_rows { Duration::ZERO } else { max_delay };
            Some((arrived + wait, arrived, shape))
        });
        let (due, _, shape) = ranked.min_by_key(|(due, arrived, _)| (*due, *arrived))?;
        Some((shape.clone(), due))
    }

    fn take_batch(&mut self, shape: &J::Shape, now: Instant) -> Batch<J> {
        let mut batch = Batch { jobs: Vec::new(), expired: Vec::new() };
        let Some(lane) = self.lanes.get_mut(shape) else { return batch };
        let mut rows = 0;
        while let Some((_, job)) = lane.jobs.front() {
            let alive = !job.abandoned() && job.deadline() > now;
            if alive && rows + job.rows() > self.policy.max_rows {
                break;
            }
            let (_, job) = lane.jobs.pop_front().expect("front was there");
            lane.rows -= job.rows();
            self.jobs -= 1;
            self.rows -= job.rows();
            if alive {
                rows += job.rows();
                batch.jobs.push(job);
            } else if !job.abandoned() {
                batch.expired.push(job);
            }
        }
        if lane.jobs.is_empty() {
            self.lanes.remove(shape);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    struct Fake {
        id: usize,
        shape: u8,
        rows: usize,
        deadline: Instant,
        abandoned: bool,
    }

    impl Job for Fake {
        type Shape = u8;
        fn shape(&self) -> &u8 {
            &self.shape
        }
        fn rows(&self) -> usize {
            self.rows
        }
        fn deadline(&self) -> Instant {
            self.deadline
        }
        fn abandoned(&self) -> bool {
            self.abandoned
        }
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn job(id: usize, shape: u8, rows: usize, now: Instant) -> Fake {
        Fake { id, shape, rows, deadline: now + ms(1000), abandoned: false }
    }

    fn ids(next: Next<Fake>) -> Vec<usize> {
        match next {
            Next::Run(batch) => batch.jobs.iter().map(|job| job.id).collect(),
            other => panic!("expected a batch, got {other:?}"),
        }
    }

    #[test]
    fn alternating_shapes_still_form_full_batches() {
        let now = Instant::now();
        let mut batcher = Batcher::new(Policy { max_rows: 4, max_delay: Duration::ZERO, max_queue: 100 });
        for (id, shape) in (0..8).zip([0, 1].into_iter().cycle()) {
            let arrival = now + ms(id as u64);
            batcher.push(job(id, shape, 1, arrival), arrival).unwrap();
        }
        assert_eq!(ids(batcher.next(now + ms(9))), [0, 2, 4, 6]);
        assert_eq!(ids(batcher.next(now + ms(9))), [1, 3, 5, 7]);
        assert!(matches!(batcher.next(now + ms(9)), Next::Idle));
    }

    #[test]
    fn a_lane_waits_for_company_until_its_delay_or_until_it_is_full() {
        let now = Instant::now();
        let mut batcher = Batcher::new(Policy { max_rows: 2, max_delay: ms(10), max_queue: 100 });
        assert_eq!(batcher.push(job(0, 0, 1, now), now).unwrap(), Wake::Worker);
        assert!(matches!(batcher.next(now + ms(9)), Next::SleepUntil(due) if due == now + ms(10)));
        assert_eq!(ids(batcher.next(now + ms(10))), [0]);

        batcher.push(job(1, 0, 1, now), now).unwrap();
        assert_eq!(batcher.push(job(2, 1, 1, now), now).unwrap(), Wake::Nobody);
        assert_eq!(batcher.push(job(3, 1, 1, now), now).unwrap(), Wake::Worker);
        assert_eq!(ids(batcher.next(now)), [2, 3]);
    }

    #[test]
    fn abandoned_jobs_are_dropped_and_late_ones_are_handed_out_as_expired() {
        let now = Instant::now();
        let mut batcher = Batcher::new(Policy { max_rows: 8, max_delay: Duration::ZERO, max_queue: 100 });
        batcher.push(Fake { abandoned: true, ..job(0, 0, 1, now) }, now).unwrap();
        batcher.push(Fake { deadline: now, ..job(1, 0, 1, now) }, now).unwrap();
        batcher.push(job(2, 0, 1, now), now).unwrap();
        let Next::Run(batch) = batcher.next(now) else { panic!("a batch is due") };
        assert_eq!(batch.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [2]);
        assert_eq!(batch.expired.iter().map(|job| job.id).collect::<Vec<_>>(), [1]);
        assert_eq!((batcher.jobs(), batcher.rows()), (0, 0));
    }

    #[test]
    fn a_full_queue_and_an_oversized_job_are_refused() {
        let now = Instant::now();
        let mut batcher = Batcher::new(Policy { max_rows: 2, max_delay: Duration::ZERO, max_queue: 1 });
        assert!(matches!(batcher.push(job(0, 0, 3, now), now), Err(Refused::TooManyRows(job)) if job.id == 0));
        batcher.push(job(1, 0, 1, now), now).unwrap();
        assert!(matches!(batcher.push(job(2, 0, 1, now), now), Err(Refused::QueueFull(job)) if job.id == 2));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push { shape: u8, rows: usize, patience: u64, abandoned: bool },
        Pull,
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3_u8, 1..6_usize, 0..40_u64, proptest::bool::weighted(0.1)).prop_map(|(shape, rows, patience, abandoned)| {
                Step::Push { shape, rows, patience, abandoned }
            }),
            3 => Just(Step::Pull),
            2 => (0..15_u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// Every job leaves exactly once; batches hold one shape, in order of arrival, within the limit; the queue
        /// stays within its bound; no live job waits past the delay while a worker asks.
        #[test]
        fn no_job_is_lost_doubled_or_kept(
            steps in proptest::collection::vec(step(), 0..200),
            max_rows in 5..12_usize,
            max_delay in 0..20_u64,
            max_queue in 1..30_usize,
        ) {
            let policy = Policy { max_rows, max_delay: ms(max_delay), max_queue };
            let mut batcher = Batcher::new(policy);
            let mut now = Instant::now();
            let mut arrived = Vec::new();
            let mut left = Vec::new();
            let check = |next: Next<Fake>, now: Instant, arrived: &[Instant], left: &mut Vec<usize>| {
                match next {
                    Next::Run(batch) => {
                        prop_assert!(!batch.jobs.is_empty() || !batch.expired.is_empty());
                        prop_assert!(batch.jobs.iter().map(|job| job.rows).sum::<usize>() <= max_rows);
                        prop_assert!(batch.jobs.windows(2).all(|pair| pair[0].shape == pair[1].shape && pair[0].id < pair[1].id));
                        prop_assert!(batch.jobs.iter().all(|job| job.deadline > now && !job.abandoned));
                        prop_assert!(batch.expired.iter().all(|job| job.deadline <= now && !job.abandoned));
                        left.extend(batch.jobs.iter().chain(&batch.expired).map(|job| job.id));
                        Ok(true)
                    }
                    Next::SleepUntil(due) => {
                        prop_assert!(due > now && due <= now + ms(max_delay));
                        let waits = |id: &usize| !left.contains(id);
                        let overdue = (0..arrived.len()).filter(waits).any(|id| arrived[id] + ms(max_delay) <= now);
                        prop_assert!(!overdue, "a due job was left waiting");
                        Ok(false)
                    }
                    Next::Idle => Ok(false),
                }
            };
            let mut abandoned_ids = Vec::new();
            for step in steps {
                match step {
                    Step::Wait(millis) => now += ms(millis),
                    Step::Pull => {
                        // Abandoned jobs leave silently whenever they are met: they count as gone from the start.
                        let mut gone = left.clone();
                        gone.extend(&abandoned_ids);
                        check(batcher.next(now), now, &arrived, &mut gone)?;
                        left = gone.into_iter().filter(|id| !abandoned_ids.contains(id)).collect();
                    }
                    Step::Push { shape, rows, patience, abandoned } => {
                        let fake = Fake { id: arrived.len(), shape, rows, deadline: now + ms(patience), abandoned };
                        match batcher.push(fake.clone(), now) {
                            Ok(_) => {
                                arrived.push(now);
                                if abandoned {
                                    abandoned_ids.push(fake.id);
                                }
                            }
                            Err(Refused::QueueFull(job)) => {
                                prop_assert_eq!(job.id, fake.id);
                                prop_assert_eq!(batcher.jobs(), max_queue);
                            }
                            Err(Refused::TooManyRows(_)) => prop_assert!(rows > max_rows),
                        }
                    }
                }
                prop_assert!(batcher.jobs() <= max_queue);
            }
            now += ms(max_delay);
            while check(batcher.next(now), now, &arrived, &mut left)? {}
            prop_assert_eq!((batcher.jobs(), batcher.rows()), (0, 0));
            left.extend(&abandoned_ids);
            left.sort_unstable();
            prop_assert_eq!(left, (0..arrived.len()).collect::<Vec<_>>());
        }
    }
}
