//! The scheduler in virtual time: requests that come when they say, devices that take as long as they say. Seconds of theirs
//! take milliseconds of ours. The benchmark of the scheduler's own cost (`loadtest scheduler`) plays by this, too.

use std::time::{Duration, Instant};

use stoker::engine::batch::{Batcher, Job, Next};

#[derive(Clone)]
pub struct Ask {
    pub shape: u64,
    pub tenant: u64,
    pub came: Instant,
    pub deadline: Instant,
}

impl Job for Ask {
    type Shape = u64;
    fn shape(&self) -> &u64 {
        &self.shape
    }
    fn rows(&self) -> usize {
        1
    }
    fn elements(&self) -> usize {
        1
    }
    fn bytes(&self) -> usize {
        1
    }
    fn deadline(&self) -> Instant {
        self.deadline
    }
    fn tenant(&self) -> u64 {
        self.tenant
    }
}

/// What ran.
#[derive(Default)]
pub struct Ran {
    pub batches: usize,
    pub rows: usize,
    /// Who was let in and could not be answered in time any more.
    pub late: usize,
}

impl Ran {
    pub fn rows_per_batch(&self) -> f64 {
        self.rows as f64 / self.batches as f64
    }
}

/// Teaches a batcher what warm-up would.
pub fn teach(batcher: &mut Batcher<Ask>, max_rows: usize, now: Instant, mut takes: impl FnMut(usize) -> Duration) {
    for rows in [1, 2, 4, 8, 16, 32].into_iter().filter(|rows| *rows <= max_rows) {
        batcher.learn(0, 1, rows, takes(rows), now);
    }
}

/// Lets them come, by when they do, to a batcher of so many workers, whose batches of so many rows that begin then take as
/// long as said, and tells who is answered when, until then.
///
/// # Panics
/// When somebody runs who is late already.
pub fn play(
    batcher: &mut Batcher<Ask>,
    workers: usize,
    asks: impl IntoIterator<Item = Ask>,
    until: Instant,
    mut takes: impl FnMut(usize, Instant) -> Duration,
    mut answered: impl FnMut(&Ask, Instant),
) -> Ran {
    let mut ran = Ran::default();
    let mut asks = asks.into_iter().peekable();
    let mut running: Vec<Option<(Instant, Vec<Ask>)>> = (0..workers).map(|_| None).collect();
    // When free workers look what there is to do.
    let mut looks: Vec<Option<Instant>> = vec![None; workers];
    loop {
        let ends = running.iter().flatten().map(|(end, _)| *end);
        let next_look =
            looks.iter().zip(&running).filter(|(_, running)| running.is_none()).filter_map(|(look, _)| *look);
        let Some(now) = ends.chain(next_look).chain(asks.peek().map(|ask| ask.came)).min().filter(|now| *now < until)
        else {
            return ran;
        };
        while let Some(ask) = asks.next_if(|ask| ask.came <= now) {
            // As servers do: before the request is read, and after.
            let pushed = batcher.turn_away(ask.tenant, Some(ask.deadline), now).and_then(|()| batcher.push(ask, now));
            if pushed.is_ok_and(|pushed| pushed.wakes) {
                looks.fill(Some(now));
            }
        }
        for (worker, (running, look)) in running.iter_mut().zip(&mut looks).enumerate() {
            if let Some((_, asks)) = running.take_if(|(end, _)| *end <= now) {
                batcher.done(worker, true, now);
                *look = Some(now);
                asks.iter().for_each(|ask| answered(ask, now));
            }
            while running.is_none() && look.is_some_and(|look| look <= now) {
                let next = batcher.next(worker, now);
                ran.late += if let Next::Run(batch) = &next { batch.late.len() } else { 0 };
                match next {
                    Next::Run(batch) if !batch.jobs.is_empty() => {
                        assert!(batch.jobs.iter().all(|job| job.deadline > now), "late work runs");
                        (ran.batches, ran.rows) = (ran.batches + 1, ran.rows + batch.jobs.len());
                        *running = Some((now + takes(batch.jobs.len(), now), batch.jobs));
                    }
                    Next::Run(_) => {}
                    Next::SleepUntil(due) => *look = Some(due),
                    Next::Pass | Next::Idle => *look = None,
                }
            }
        }
    }
}
