//! Which of the jobs that wait run together now: as many answers in time as a second of the device gives. Pure.

use std::iter::successors;
use std::time::{Duration, Instant};

use super::as_f64;
use super::times::Expected;

/// What the choice must know of a job.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    pub rows: usize,
    pub deadline: Instant,
}

/// Places of candidates, ascending.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Run together now.
    pub run: Vec<usize>,
    /// Cannot be answered in time any more.
    pub late: Vec<usize>,
}

/// Chooses a batch of at most `most` rows among candidates, which come in the order in which they are to run; `expect` says
/// how long one of so many rows will take.
///
/// As long as all who come first are answered in time together, they run. Otherwise several sizes are weighed by how many
/// rows of all candidates are answered in time when full batches follow, less what is `lost` by then: rows a second that
/// come and could have been answered instead, when more come than can be done. Without that, saving who waits longest by
/// small batches would look best each time, and the queue would stay as long. Of two that are equal, the one that answers
/// more rows in a second is taken. Late is who would be so by a batch that is no slower than half of them; who has a better
/// chance than that gets it.
pub fn choose(
    candidates: &[Candidate],
    most: usize,
    lost: f64,
    now: Instant,
    expect: impl Fn(usize) -> Expected,
) -> Choice {
    let is_late = |place: &usize| now + expect(candidates[*place].rows).middle > candidates[*place].deadline;
    let (late, alive): (Vec<usize>, Vec<usize>) = (0..candidates.len()).partition(is_late);
    let first = Batch::of(candidates, &alive, most, None);
    let end = now + expect(first.rows).slow;
    let run = if first.run.iter().all(|place| end <= candidates[*place].deadline) {
        first.run
    } else {
        weigh(candidates, &alive, first.rows, lost, now, expect)
    };
    Choice { run, late }
}

/// The most valuable batch of at most `most` rows; empty if none can answer anybody in time.
fn weigh(
    candidates: &[Candidate],
    alive: &[usize],
    most: usize,
    lost: f64,
    now: Instant,
    expect: impl Fn(usize) -> Expected,
) -> Vec<usize> {
    /// How likely a batch is to take as long as its slow end rather than its middle.
    const SLOW: f64 = 0.1;
    let middle = |rows: usize| expect(rows).middle;
    let value = |batch: &Batch| {
        let Expected { middle: took, slow } = expect(batch.rows);
        let of = |end: Instant| batch.run.iter().filter(move |place| candidates[**place].deadline >= end);
        let in_time = |end: Instant| as_f64(of(end).map(|place| candidates[*place].rows).sum());
        let likely = in_time(now + took) * (1.0 - SLOW) + in_time(now + slow) * SLOW;
        let (after, end) = in_time_after(candidates, alive, batch, most, now + took, &middle);
        let rate = as_f64(batch.rows) / took.as_secs_f64().max(1e-9);
        (likely + as_f64(after) - lost * (end - now).as_secs_f64(), rate)
    };
    // That of the first one, too, who at worst runs alone.
    let alone = alive.first().map(|place| candidates[*place].rows);
    let sizes = successors(Some(most), |size| (*size > 1).then_some(size * 3 / 4)).chain(alone);
    let batches = sizes.flat_map(|size| {
        let Expected { middle, slow } = expect(size);
        [slow, middle].map(|took| Batch::of(candidates, alive, size, Some(now + took)))
    });
    let valued = batches.filter(|batch| batch.rows > 0).map(|batch| (value(&batch), batch.run));
    let best = valued.max_by(|((a, a_rate), _), ((b, b_rate), _)| a.total_cmp(b).then(a_rate.total_cmp(b_rate)));
    best.map_or_else(Vec::new, |(_, run)| run)
}

/// Rows that are answered in time by full batches after a first one, which ends then, and when the last one ends.
fn in_time_after(
    candidates: &[Candidate],
    alive: &[usize],
    first: &Batch,
    most: usize,
    mut free: Instant,
    takes: &impl Fn(usize) -> Duration,
) -> (usize, Instant) {
    let without = |places: &[usize], gone: &[usize]| {
        let mut gone = gone.iter().peekable();
        places.iter().copied().filter(|place| gone.next_if_eq(&place).is_none()).collect::<Vec<_>>()
    };
    let (mut left, mut rows) = (without(alive, &first.run), 0);
    loop {
        let size = left.iter().map(|place| candidates[*place].rows).sum::<usize>().min(most);
        let next = Batch::of(candidates, &left, size, Some(free + takes(size)));
        if next.rows == 0 {
            return (rows, free);
        }
        (free, rows) = (free + takes(next.rows), rows + next.rows);
        left = without(&left, &next.run);
    }
}

/// Jobs that could run together.
struct Batch {
    run: Vec<usize>,
    rows: usize,
}

impl Batch {
    /// The first of `alive` that fit into `most` rows; of those only whose deadline is not before `end`, if there is one.
    fn of(candidates: &[Candidate], alive: &[usize], most: usize, end: Option<Instant>) -> Batch {
        let mut batch = Batch { run: Vec::new(), rows: 0 };
        for place in alive {
            let Candidate { rows, deadline } = candidates[*place];
            if end.is_some_and(|end| end > deadline) {
                continue;
            }
            if batch.rows + rows > most {
                break;
            }
            batch.run.push(*place);
            batch.rows += rows;
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// 10 ms for a batch, and 1 ms for each row.
    fn takes(rows: usize) -> Duration {
        ms(10 + rows as u64)
    }

    /// As [`takes`], each time.
    fn surely(rows: usize) -> Expected {
        Expected { middle: takes(rows), slow: takes(rows) }
    }

    /// Single rows that are due after so many milliseconds.
    fn chosen(deadlines: &[u64], most: usize) -> Choice {
        let now = Instant::now();
        let candidate = |deadline: &u64| Candidate { rows: 1, deadline: now + ms(*deadline) };
        choose(&deadlines.iter().map(candidate).collect::<Vec<_>>(), most, 0.0, now, surely)
    }

    #[test]
    fn with_time_enough_the_first_run_in_order() {
        assert_eq!(chosen(&[50, 60, 70], 2), Choice { run: vec![0, 1], late: vec![] });
        assert_eq!(chosen(&[], 2), Choice::default());
    }

    #[test]
    fn who_cannot_be_answered_in_time_does_not_run() {
        assert_eq!(chosen(&[10, 50], 8), Choice { run: vec![1], late: vec![0] });
    }

    #[test]
    fn one_who_is_in_a_hurry_gets_a_small_batch_when_the_others_can_wait() {
        assert_eq!(chosen(&[11, 60, 60, 60], 4), Choice { run: vec![0], late: vec![] });
    }

    #[test]
    fn one_who_is_in_a_hurry_is_given_up_for_many_who_are_not_much_less() {
        let mut deadlines = vec![11];
        deadlines.extend([19; 8]);
        assert_eq!(chosen(&deadlines, 8).run, [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn who_has_a_fair_chance_gets_it() {
        let now = Instant::now();
        let expect = |_| Expected { middle: ms(10), slow: ms(100) };
        let candidates = [Candidate { rows: 1, deadline: now + ms(20) }];
        assert_eq!(choose(&candidates, 8, 0.0, now, expect), Choice { run: vec![0], late: vec![] });
    }

    proptest! {
        #[test]
        fn whoever_runs_is_answered_in_time(
            jobs in proptest::collection::vec((1..6_usize, 0..60_u64), 0..40),
            most in 6..32_usize,
        ) {
            let now = Instant::now();
            let candidates: Vec<_> =
                jobs.iter().map(|(rows, deadline)| Candidate { rows: *rows, deadline: now + ms(*deadline) }).collect();
            let Choice { run, late } = choose(&candidates, most, 0.0, now, surely);
            let rows: usize = run.iter().map(|place| candidates[*place].rows).sum();
            prop_assert!(rows <= most);
            for place in &run {
                prop_assert!(now + takes(rows) <= candidates[*place].deadline);
                prop_assert!(!late.contains(place));
            }
            prop_assert!(!run.is_empty() || late.len() == candidates.len());
        }
    }
}
