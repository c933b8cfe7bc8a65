//! Workers on devices of different kinds.

use super::*;

#[test]
fn a_slow_device_leaves_to_a_fast_one_what_that_does_sooner() {
    let now = Instant::now();
    let mut batcher = Batcher::new(Policy { workers: vec![0, 1], ..Policy::new(1, 100) });
    batcher.learn(0, 1, 1, ms(10), now);
    batcher.learn(1, 1, 1, ms(35), now);
    (0..5).for_each(|id| drop(batcher.push(job(id, now), now).unwrap()));
    assert_eq!(batch(batcher.next(0, now)).jobs.len(), 1);
    // The fast one would need 50 ms for all of them.
    assert_eq!(batch(batcher.next(1, now)).jobs.len(), 1);
    batcher.done(1, false, now);
    // It is done with the three that are left, and what it runs, after 40 ms; this one would take longer.
    batcher.learn(1, 1, 1, ms(45), now);
    batcher.learn(1, 1, 1, ms(45), now);
    assert!(matches!(batcher.next(1, now), Next::SleepUntil(free) if free == now + ms(10)));
    batcher.done(0, false, now);
    assert!(matches!(batcher.next(1, now), Next::Pass));
}

#[test]
fn of_two_that_are_equally_fast_one_takes_what_waits() {
    let now = Instant::now();
    let mut batcher = Batcher::new(Policy { workers: vec![0, 1], ..Policy::new(1, 100) });
    (0..2).for_each(|kind| batcher.learn(kind, 1, 1, ms(10), now));
    batcher.push(job(0, now), now).unwrap();
    assert!(matches!(batcher.next(1, now), Next::Pass));
    assert_eq!(batch(batcher.next(0, now)).jobs.len(), 1);
}
