//! The batcher by hand, and whatever may come.

mod devices;
mod tenants;

use proptest::prelude::*;

use super::*;
use crate::engine::policy::MaxQueue;

#[derive(Clone, Debug)]
struct Fake {
    id: usize,
    shape: u8,
    rows: usize,
    deadline: Instant,
    put_off_at: Option<Instant>,
    level: usize,
    tenant: u64,
    abandoned: bool,
}

/// Shapes from this one on are of rows of that many elements, which can be filled up.
const LENGTHS: u8 = 10;

impl Job for Fake {
    type Shape = u8;
    fn shape(&self) -> &u8 {
        &self.shape
    }
    fn can_be_padded(one: &u8, other: &u8) -> bool {
        *one >= LENGTHS && *other >= LENGTHS
    }
    fn rows(&self) -> usize {
        self.rows
    }
    fn elements(&self) -> usize {
        if self.shape < LENGTHS { 1 } else { usize::from(self.shape) }
    }
    fn tokens(&self) -> usize {
        self.elements()
    }
    fn bytes(&self) -> usize {
        self.rows * 10
    }
    fn deadline(&self) -> Instant {
        self.deadline
    }
    fn put_off_at(&self) -> Option<Instant> {
        self.put_off_at
    }
    fn level(&self) -> usize {
        self.level
    }
    fn tenant(&self) -> u64 {
        self.tenant
    }
    fn abandoned(&self) -> bool {
        self.abandoned
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// One row of shape 0, that is due in a second.
fn job(id: usize, now: Instant) -> Fake {
    let (deadline, put_off_at) = (now + ms(1000), None);
    Fake { id, shape: 0, rows: 1, deadline, put_off_at, level: 0, tenant: 0, abandoned: false }
}

fn ids(jobs: &[Fake]) -> Vec<usize> {
    jobs.iter().map(|job| job.id).collect()
}

fn batch(next: Next<Fake>) -> Batch<Fake> {
    match next {
        Next::Run(batch) => batch,
        other => panic!("expected a batch, got {other:?}"),
    }
}

/// What the only worker runs now, and is done with at once.
fn run(batcher: &mut Batcher<Fake>, now: Instant) -> Vec<usize> {
    let batch = batch(batcher.next(0, now));
    batcher.done(0, false, now);
    ids(&batch.jobs)
}

/// Batches take 10 ms, and 1 ms more for each row.
fn taught(policy: Policy, now: Instant) -> Batcher<Fake> {
    let mut batcher = Batcher::new(policy);
    for rows in [1, 2, 4, 8] {
        batcher.learn(0, 1, rows, ms(10 + rows as u64), now);
    }
    batcher
}

#[test]
fn alternating_shapes_still_form_full_batches() {
    let now = Instant::now();
    let mut batcher = Batcher::new(Policy::new(4, 100));
    for (id, shape) in (0..8).zip([0, 1].into_iter().cycle()) {
        let arrival = now + ms(id as u64);
        batcher.push(Fake { shape, ..job(id, arrival) }, arrival).unwrap();
    }
    assert_eq!(run(&mut batcher, now + ms(9)), [0, 2, 4, 6]);
    assert_eq!(run(&mut batcher, now + ms(9)), [1, 3, 5, 7]);
    assert!(matches!(batcher.next(0, now + ms(9)), Next::Idle));
}

#[test]
fn who_is_turned_away_unread_would_have_been_refused() {
    let now = Instant::now();
    let mut batcher = taught(Policy::new(4, 100), now);
    assert_eq!(batcher.turn_away(0, Some(now + ms(1)), now), Ok(()), "nothing waits");
    for id in 0..20 {
        let deadline = now + ms(500);
        batcher.push(Fake { shape: u8::from(id % 2 == 1), deadline, ..job(id, now) }, now).unwrap();
    }
    let mut turned_away = 0;
    // Who is due before all of them comes first.
    for millis in [10, 50, 499] {
        assert_eq!(batcher.turn_away(0, Some(now + ms(millis)), now), Ok(()), "{millis} ms");
    }
    // More comes than is done: 4 rows in 14 ms, 20 at once.
    let mut batcher = taught(Policy::new(4, 100), now);
    (0..4).for_each(|id| drop(batcher.push(job(id, now), now)));
    assert_eq!(batch(batcher.next(0, now)).jobs.len(), 4);
    let now = now + ms(14);
    batcher.done(0, true, now);
    for id in 0..20 {
        let deadline = now + ms(30);
        let _ = batcher.push(Fake { shape: u8::from(id % 2 == 1), deadline, ..job(id, now) }, now);
    }
    for millis in 1..150 {
        let deadline = now + ms(millis);
        if let Err(refused) = batcher.turn_away(0, Some(deadline), now) {
            turned_away += 1;
            assert!(matches!(refused, Refused::Busy { .. }));
            for shape in [0, 1] {
                let refused = batcher.push(Fake { shape, deadline, ..job(100, now) }, now).unwrap_err();
                assert!(matches!(refused, Refused::Busy { .. } | Refused::Late { .. }), "{millis} ms: {refused:?}");
            }
        }
    }
    assert!((5..149).contains(&turned_away), "{turned_away}");
}

#[test]
fn a_lane_waits_for_company_until_its_delay_or_until_it_is_full() {
    let now = Instant::now();
    let mut batcher = Batcher::new(Policy { max_delay: ms(10), ..Policy::new(2, 100) });
    assert!(batcher.push(job(0, now), now).unwrap().wakes);
    assert!(matches!(batcher.next(0, now + ms(9)), Next::SleepUntil(due) if due == now + ms(10)));
    assert_eq!(run(&mut batcher, now + ms(10)), [0]);

    batcher.push(job(1, now), now).unwrap();
    assert!(matches!(batcher.next(0, now), Next::SleepUntil(_)));
    assert!(!batcher.push(Fake { shape: 1, ..job(2, now) }, now).unwrap().wakes);
    assert!(batcher.push(Fake { shape: 1, ..job(3, now) }, now).unwrap().wakes);
    assert_eq!(run(&mut batcher, now), [2, 3]);
}

#[test]
fn nobody_waits_for_company_that_does_not_come_or_longer_than_he_can() {
    let now = Instant::now();
    let mut batcher = taught(Policy { max_delay: ms(50), ..Policy::new(8, 100) }, now);
    batcher.push(Fake { deadline: now + ms(40), ..job(0, now) }, now).unwrap();
    assert!(matches!(batcher.next(0, now), Next::SleepUntil(due) if due == now + ms(28)), "12 ms for two rows");
    assert_eq!(run(&mut batcher, now + ms(28)), [0]);
    // Who is in a greater hurry wakes who sleeps.
    batcher.push(Fake { deadline: now + ms(90), ..job(2, now) }, now + ms(30)).unwrap();
    assert!(matches!(batcher.next(0, now + ms(30)), Next::SleepUntil(_)));
    assert!(batcher.push(Fake { deadline: now + ms(60), shape: 1, ..job(3, now) }, now + ms(31)).unwrap().wakes);
    assert_eq!((run(&mut batcher, now + ms(48)), run(&mut batcher, now + ms(78))), (vec![3], vec![2]));
    // The next one comes after 100 ms: so will probably the one after it.
    batcher.push(job(1, now), now + ms(500)).unwrap();
    assert_eq!(run(&mut batcher, now + ms(500)), [1]);
}

#[test]
fn abandoned_jobs_are_dropped_and_late_ones_are_handed_out_as_such() {
    let now = Instant::now();
    let mut batcher = Batcher::new(Policy::new(8, 100));
    batcher.push(Fake { abandoned: true, ..job(0, now) }, now).unwrap();
    batcher.push(Fake { deadline: now + ms(5), ..job(1, now) }, now).unwrap();
    batcher.push(job(2, now), now).unwrap();
    let Batch { jobs, late } = batch(batcher.next(0, now + ms(6)));
    assert_eq!((ids(&jobs), ids(&late)), (vec![2], vec![1]));
    assert_eq!((batcher.jobs(), batcher.rows(), batcher.bytes()), (0, 0, 0));
}

#[test]
fn what_would_not_be_ready_in_time_does_not_run() {
    let now = Instant::now();
    let mut batcher = taught(Policy::new(8, 100), now);
    batcher.push(Fake { deadline: now + ms(20), ..job(0, now) }, now).unwrap();
    let Batch { jobs, late } = batch(batcher.next(0, now + ms(10)));
    assert_eq!((jobs.len(), ids(&late)), (0, vec![0]));
}

#[test]
fn queues_are_bounded_in_each_respect() {
    let now = Instant::now();
    let bounded = |max_queue| Batcher::new(Policy { max_queue, ..Policy::new(4, 0) });
    let all = MaxQueue { jobs: 2, rows: 100, bytes: 1000 };
    let full = |mut batcher: Batcher<Fake>| {
        assert!(matches!(batcher.push(Fake { rows: 5, ..job(0, now) }, now), Err(Refused::TooLarge)));
        batcher.push(Fake { rows: 2, ..job(1, now) }, now).unwrap();
        batcher.push(job(2, now), now).unwrap();
        matches!(batcher.push(job(3, now), now), Err(Refused::Full { .. }))
    };
    assert!(full(bounded(all)));
    assert!(full(bounded(MaxQueue { jobs: 9, rows: 3, ..all })));
    assert!(full(bounded(MaxQueue { jobs: 9, bytes: 30, ..all })));
    assert!(!full(bounded(MaxQueue { jobs: 9, ..all })));
}

#[test]
fn what_cannot_be_answered_in_time_is_refused_when_it_comes() {
    let now = Instant::now();
    let mut batcher = taught(Policy::new(8, 100), now);
    let due = |millis| Fake { deadline: now + ms(millis), ..job(0, now) };
    assert!(matches!(batcher.push(due(10), now), Err(Refused::Late { takes }) if takes == ms(11)));
    (0..8).for_each(|_| drop(batcher.push(due(1000), now).unwrap()));
    assert_eq!(batch(batcher.next(0, now)).jobs.len(), 8);
    // The worker is busy for 18 ms.
    assert!(matches!(batcher.push(due(28), now), Err(Refused::Busy { retry_after }) if retry_after == ms(1)));
    batcher.push(due(29), now).unwrap();
    // After long silence what was known is not held against anybody.
    batcher.done(0, false, now + ms(18));
    assert_eq!(run(&mut batcher, now + ms(18)).len(), 1);
    let later = now + Duration::from_secs(5);
    batcher.push(Fake { deadline: later + ms(1), ..job(0, now) }, later).unwrap();
}

/// Pushes jobs of a level, with milliseconds until their deadline and until they come.
fn pushing(batcher: &mut Batcher<Fake>, now: Instant) -> impl FnMut(usize, usize, u64, u64) {
    move |id, level, deadline, at| {
        batcher.push(Fake { level, deadline: now + ms(deadline), ..job(id, now) }, now + ms(at)).unwrap();
    }
}

#[test]
fn urgent_ones_come_first_and_lower_levels_later_but_not_never() {
    let now = Instant::now();
    let mut batcher = Batcher::new(Policy { ageing: ms(100), ..Policy::new(1, 100) });
    let mut push = pushing(&mut batcher, now);
    push(0, 1, 5000, 0);
    push(1, 0, 5000, 1);
    push(2, 0, 50, 2);
    push(3, 0, 5000, 99);
    push(4, 0, 5000, 115); // the first has waited long enough to be before it, which has an eighth less beyond that
    drop(push);
    let order: Vec<_> = (0..5).flat_map(|_| run(&mut batcher, now + ms(20))).collect();
    assert_eq!(order, [2, 1, 3, 0, 4]);
}

#[test]
fn a_deadline_does_not_bring_anybody_before_a_level_above_his() {
    let now = Instant::now();
    let mut batcher = Batcher::new(Policy { max_jobs_of_level: vec![100; 3], ..Policy::new(1, 100) });
    let mut push = pushing(&mut batcher, now);
    push(0, 2, 2000, 0);
    push(1, 1, 300, 0);
    push(2, 0, 60_000, 0);
    push(3, 0, 500, 100);
    push(4, 0, 60_000, 1500); // the second level has waited long enough
    drop(push);
    let order: Vec<_> = (0..5).flat_map(|_| run(&mut batcher, now + ms(20))).collect();
    assert_eq!(order, [3, 2, 1, 4, 0]);
}

#[test]
fn who_has_little_time_comes_before_those_who_have_much_and_wait() {
    let now = Instant::now();
    let mut batcher = Batcher::new(Policy::new(1, 1000));
    let patient = |id, at| Fake { deadline: now + ms(60_000), ..job(id, at) };
    (0..5).for_each(|id| drop(batcher.push(patient(id, now), now).unwrap()));
    let later = now + ms(5000);
    batcher.push(Fake { deadline: later + ms(400), ..job(9, later) }, later).unwrap();
    assert_eq!(run(&mut batcher, later), [9]);
    // But not for ever.
    let later = now + ms(9000);
    batcher.push(Fake { deadline: later + ms(400), ..job(10, later) }, later).unwrap();
    assert_eq!(run(&mut batcher, later), [0]);
}

#[test]
fn preferred_sizes_are_taken_where_they_can_be() {
    let now = Instant::now();
    let mut batcher = Batcher::new(Policy { preferred_rows: vec![2, 4], max_delay: ms(10), ..Policy::new(8, 100) });
    (0..7).for_each(|id| drop(batcher.push(job(id, now), now).unwrap()));
    assert_eq!((run(&mut batcher, now), run(&mut batcher, now)), (vec![0, 1, 2, 3], vec![4, 5]));
    assert!(matches!(batcher.next(0, now), Next::SleepUntil(_) | Next::Run(_)));
}

/// 1 ms a batch, and 1 ms more for each ten elements.
fn taught_lengths(policy: Policy, now: Instant) -> Batcher<Fake> {
    let mut batcher = Batcher::new(policy);
    for (elements, rows) in [10, 20, 40, 80, 160].into_iter().flat_map(|length| [1, 2, 4, 8].map(|rows| (length, rows)))
    {
        batcher.learn(0, elements, rows, ms(1 + (elements * rows / 10) as u64), now);
    }
    batcher
}

#[test]
fn rows_of_other_lengths_fill_a_batch_up_where_that_takes_less() {
    let now = Instant::now();
    let mut batcher = taught_lengths(Policy::new(8, 100), now);
    for (id, shape) in [20, 160, 20, 21].into_iter().enumerate() {
        batcher.push(Fake { shape, ..job(id, now) }, now).unwrap();
    }
    // Filled up to 160 the short ones would take 16 ms each.
    assert_eq!(run(&mut batcher, now), [0, 2, 3]);
    assert_eq!(run(&mut batcher, now), [1]);
}

#[test]
fn a_batch_has_no_more_tokens_than_allowed() {
    let now = Instant::now();
    let mut batcher = taught_lengths(Policy { max_tokens: 80, ..Policy::new(8, 100) }, now);
    for (id, shape) in [20, 20, 40, 20, 20].into_iter().enumerate() {
        batcher.push(Fake { shape, ..job(id, now) }, now).unwrap();
    }
    assert_eq!(run(&mut batcher, now), [0, 1, 3, 4]);
    assert_eq!(run(&mut batcher, now), [2]);
    let long = Fake { shape: 81, ..job(9, now) };
    assert!(matches!(batcher.push(long, now), Err(Refused::TooLarge)));
}

#[test]
fn who_is_put_off_comes_after_the_others_and_not_never() {
    let now = Instant::now();
    let mut batcher = Batcher::new(Policy::new(1, 100));
    batcher.push(Fake { put_off_at: Some(now + ms(5)), ..job(0, now) }, now).unwrap();
    batcher.push(job(1, now + ms(1)), now + ms(1)).unwrap();
    assert_eq!(run(&mut batcher, now + ms(6)), [1]);
    assert_eq!(run(&mut batcher, now + ms(6)), [0]);
}

#[test]
fn a_level_has_bounds_of_its_own() {
    let now = Instant::now();
    let mut batcher = Batcher::new(Policy { max_jobs_of_level: vec![9, 1], ..Policy::new(4, 100) });
    batcher.push(Fake { level: 1, ..job(0, now) }, now).unwrap();
    let refused = batcher.push(Fake { level: 1, ..job(1, now) }, now).unwrap_err();
    assert!(matches!(refused, Refused::Full { .. }));
    batcher.push(job(2, now), now).unwrap();
    assert_eq!(run(&mut batcher, now), [2, 0]);
    batcher.push(Fake { level: 1, ..job(3, now) }, now).unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Push { shape: u8, rows: usize, patience: u64, put_off: Option<u64>, level: usize, tenant: u64, abandoned: bool },
    Pull,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let shape = prop_oneof![0..3_u8, LENGTHS..3 * LENGTHS];
    let put_off = proptest::option::weighted(0.2, 0..40_u64);
    let push = (shape, 1..6_usize, 0..40_u64, put_off, 0..3_usize, 0..4_u64, proptest::bool::weighted(0.1)).prop_map(
        |(shape, rows, patience, put_off, level, tenant, abandoned)| Step::Push {
            shape,
            rows,
            patience,
            put_off,
            level,
            tenant,
            abandoned,
        },
    );
    prop_oneof![4 => push, 3 => Just(Step::Pull), 2 => (0..15_u64).prop_map(Step::Wait)]
}

proptest! {
    /// Every job leaves exactly once; batches hold what can be joined within the limits; nothing runs that is late; the
    /// queue stays within its bounds.
    #[test]
    fn no_job_is_lost_doubled_or_kept(
        steps in proptest::collection::vec(step(), 0..200),
        max_rows in 5..12_usize,
        max_delay in 0..20_u64,
        jobs in 1..30_usize,
        rows in 5..60_usize,
        max_tokens in 100..400_usize,
        of_last_level in 1..10_usize,
        is_taught: bool,
    ) {
        let mut now = Instant::now();
        let max_queue = MaxQueue { jobs, rows, bytes: 10 * rows };
        let max_jobs_of_level = vec![usize::MAX, usize::MAX, of_last_level];
        let policy = Policy {
            max_delay: ms(max_delay),
            max_tokens,
            max_queue,
            max_jobs_of_level,
            ..Policy::new(max_rows, jobs)
        };
        let mut batcher = if is_taught { taught(policy, now) } else { Batcher::new(policy) };
        let (mut inside, mut left) = (Vec::new(), Vec::new());
        let check = |Batch { jobs, late }: Batch<Fake>, now: Instant, left: &mut Vec<usize>| {
            prop_assert!(jobs.iter().map(|job| job.rows).sum::<usize>() <= max_rows);
            let can_join = |one: u8, other: u8| one == other || Fake::can_be_padded(&one, &other);
            prop_assert!(jobs.windows(2).all(|pair| can_join(pair[0].shape, pair[1].shape)));
            let longest = jobs.iter().map(Job::tokens).max().unwrap_or(0);
            prop_assert!(longest * jobs.iter().map(|job| job.rows).sum::<usize>() <= max_tokens);
            prop_assert!(jobs.iter().all(|job| !job.abandoned && job.deadline >= now));
            prop_assert!(late.iter().all(|job| !job.abandoned));
            left.extend(ids(&jobs).into_iter().chain(ids(&late)));
            Ok(())
        };
        for (id, step) in steps.into_iter().enumerate() {
            match step {
                Step::Push { shape, rows, patience, put_off, level, tenant, abandoned } => {
                    let (deadline, put_off_at) = (now + ms(patience), put_off.map(|millis| now + ms(millis)));
                    let job = Fake { id, shape, rows, deadline, put_off_at, level, tenant, abandoned };
                    if let Ok(pushed) = batcher.push(job, now) {
                        left.extend(ids(&pushed.evicted));
                        inside.push((id, abandoned));
                    }
                }
                Step::Pull => if let Next::Run(batch) = batcher.next(0, now) {
                    check(batch, now, &mut left)?;
                    batcher.done(0, true, now);
                },
                Step::Wait(millis) => now += ms(millis),
            }
            prop_assert!(batcher.jobs() <= jobs && batcher.rows() <= rows && batcher.bytes() <= 10 * rows);
        }
        now += ms(1000);
        while let Next::Run(batch) = batcher.next(0, now) {
            check(batch, now, &mut left)?;
            batcher.done(0, true, now);
        }
        prop_assert!(matches!(batcher.next(0, now), Next::Idle));
        prop_assert_eq!((batcher.jobs(), batcher.rows(), batcher.bytes()), (0, 0, 0));
        let total = left.len();
        left.sort_unstable();
        left.dedup();
        prop_assert_eq!(left.len(), total, "twice");
        let expected: Vec<_> = inside.iter().filter(|(_, abandoned)| !abandoned).map(|(id, _)| *id).collect();
        prop_assert!(expected.iter().all(|id| left.binary_search(id).is_ok()), "lost");
    }
}
