//! Devices that are slow for a while, in virtual time: what was learned then must not be held against those who come after.

use std::time::{Duration, Instant};

use stoker::engine::batch::Batcher;
use stoker::engine::policy::Policy;

use crate::support::Random;
use crate::virtual_time::{Ask, play, teach};

/// 4 ms a batch and 1 ms a row: 32 rows in 36 ms, 889 a second.
fn takes(rows: usize) -> Duration {
    Duration::from_micros(4000 + 1000 * rows as u64)
}

/// A tenth more or less.
fn noisy(time: Duration, random: &mut Random) -> Duration {
    time.mul_f64(0.9 + random.below(200) as f64 / 1000.0)
}

fn ask(came: Instant, slo: Duration) -> Ask {
    Ask { shape: 0, tenant: 0, came, deadline: came + slo }
}

/// A request now and then, on a device that is `slow` times slower until `until` and was so at warm-up: when those were
/// answered in time that came after it.
fn answered_after(slow: f64, until: Duration, gap: Duration, slo: Duration) -> Vec<bool> {
    let start = Instant::now();
    let mut batcher = Batcher::new(Policy::new(8, 64));
    teach(&mut batcher, 8, start, |rows| takes(rows).mul_f64(slow));
    let asks: Vec<Ask> = (1..=200).map(|number| ask(start + gap * number, slo)).collect();
    let after: Vec<Instant> = asks.iter().map(|ask| ask.came).filter(|came| *came > start + until).collect();
    let mut random = Random(1);
    let mut answered = Vec::new();
    let device = |rows, now: Instant| {
        let time = noisy(takes(rows), &mut random);
        if now < start + until { time.mul_f64(slow) } else { time }
    };
    let end = start + gap * 200 + Duration::from_secs(10);
    play(&mut batcher, 1, asks, end, device, |ask, now| answered.extend((now <= ask.deadline).then_some(ask.came)));
    after.iter().map(|came| answered.contains(came)).collect()
}

#[test]
fn a_slow_start_is_not_believed_for_ever() {
    // Warm-up took 50 ms where 40 are allowed; now a row takes 5.
    for gap in [Duration::from_millis(20), Duration::from_millis(500), Duration::from_secs(2)] {
        let answered = answered_after(10.0, Duration::ZERO, gap, Duration::from_millis(40));
        let refused = answered.iter().filter(|answered| !**answered).count() as f64;
        assert!(refused * gap.as_secs_f64() <= 1.1, "{gap:?} between: {refused} of 200 refused");
        assert!(answered[100..].iter().all(|answered| *answered));
    }
}

#[test]
fn a_slow_phase_is_forgotten_when_it_is_over() {
    let gap = Duration::from_millis(100);
    let answered = answered_after(10.0, Duration::from_secs(8), gap, Duration::from_millis(40));
    let refused = answered.iter().filter(|answered| !**answered).count();
    assert!(answered.len() == 120 && refused <= 12, "{refused} of {} refused", answered.len());
    assert!(answered[20..].iter().all(|answered| *answered));
}

#[test]
fn goodput_follows_a_device_that_slows_down_and_recovers() {
    const SLO: Duration = Duration::from_millis(200);
    const CAPACITY: f64 = 889.0;
    for (seed, slow, load) in [(0, 3.0, 0.9), (1, 3.0, 1.2), (2, 2.0, 0.9), (3, 2.0, 2.0), (4, 1.5, 1.0)] {
        let start = Instant::now();
        let second = |number: u64| start + Duration::from_secs(number);
        let mut random = Random(seed);
        let mut came = start;
        let next = || {
            let uniform = (random.below(1 << 30) + 1) as f64 / f64::from(1 << 30);
            came += Duration::from_secs_f64(-uniform.ln() / (load * CAPACITY));
            (came < second(40)).then_some(ask(came, SLO))
        };
        let asks: Vec<Ask> = std::iter::from_fn(next).collect();
        let mut batcher = Batcher::new(Policy::new(32, 1024));
        teach(&mut batcher, 32, start, takes);
        let mut per_second = vec![0_u32; 41];
        let device = |rows, now: Instant| {
            let time = noisy(takes(rows), &mut random);
            if (second(10)..second(20)).contains(&now) { time.mul_f64(slow) } else { time }
        };
        let in_time = |ask: &Ask, now: Instant| {
            let number = now.duration_since(start).as_secs() as usize;
            per_second[number] += u32::from(now <= ask.deadline);
        };
        play(&mut batcher, 1, asks, second(41), device, in_time);
        let mean = |seconds: std::ops::Range<usize>| {
            f64::from(per_second[seconds.clone()].iter().sum::<u32>()) / seconds.len() as f64
        };
        let (before, during, after) = (mean(2..10), mean(12..20), mean(22..40));
        println!("seed {seed}: {before:.0} before, {during:.0} during, {after:.0} after; {per_second:?}");
        assert!(after >= 0.95 * before, "seed {seed}: {after} after, {before} before");
        // Half of the deadline is one batch then: not all of what could be done is done in time.
        let possible = (CAPACITY / slow).min(load * CAPACITY);
        assert!(during >= 0.7 * possible, "seed {seed}: {during} of {possible}");
    }
}
