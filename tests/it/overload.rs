//! What the scheduler makes of traffic and scripted devices, in virtual time. Each run has a seed, which its failure
//! names.

use std::time::{Duration, Instant};

use stoker::engine::batch::Batcher;
use stoker::engine::policy::Policy;

use crate::support::Random;
use crate::virtual_time::{Ask, Ran, play, teach};

/// Requests of one kind, which come at random.
#[derive(Clone, Copy)]
struct Stream {
    per_second: f64,
    shape: u64,
    tenant: u64,
    patience: Duration,
    /// So many come at once.
    at_once: usize,
}

/// How long a batch of so many rows takes.
type Device = fn(usize, &mut Random) -> Duration;

/// What became of the requests of one tenant.
#[derive(Default)]
struct Seen {
    offered: usize,
    in_time: usize,
    /// Of those that were answered.
    latencies: Vec<Duration>,
}

impl Seen {
    fn latency(&mut self, quantile: f64) -> Duration {
        self.latencies.sort_unstable();
        self.latencies[((self.latencies.len() - 1) as f64 * quantile) as usize]
    }
}

struct Outcome {
    tenants: Vec<Seen>,
    ran: Ran,
}

impl Outcome {
    fn in_time(&self) -> usize {
        self.tenants.iter().map(|seen| seen.in_time).sum()
    }
}

impl Stream {
    fn asks(self, start: Instant, end: Instant, random: &mut Random) -> Vec<Ask> {
        let Stream { per_second, shape, tenant, patience, at_once } = self;
        let next =
            |came: &Instant| Some(*came + exponential(per_second / at_once as f64, random)).filter(|came| *came < end);
        let arrivals = std::iter::successors(Some(start), next).skip(1);
        let ask = |came| Ask { shape, tenant, came, deadline: came + patience };
        arrivals.flat_map(|came| std::iter::repeat_n(ask(came), at_once)).collect()
    }
}

fn exponential(per_second: f64, random: &mut Random) -> Duration {
    let uniform = (random.below(1 << 30) + 1) as f64 / f64::from(1 << 30);
    Duration::from_secs_f64(-uniform.ln() / per_second)
}

/// Lets streams of requests come for so long.
fn simulate(policy: &Policy, device: Device, streams: &[Stream], lasts: Duration, seed: u64) -> Outcome {
    simulate_moody(policy, device, |_| 1.0, streams, lasts, seed)
}

/// Of a device that takes so many times as long at some moments as at others.
fn simulate_moody(
    policy: &Policy,
    device: Device,
    mood: impl Fn(Duration) -> f64,
    streams: &[Stream],
    lasts: Duration,
    seed: u64,
) -> Outcome {
    println!("seed {seed}"); // shown if it fails
    let mut random = Random(seed);
    let start = Instant::now();
    let end = start + lasts;
    let mut asks: Vec<Ask> = streams.iter().flat_map(|stream| stream.asks(start, end, &mut random)).collect();
    asks.sort_by_key(|ask| ask.came);
    let mut tenants = Vec::new();
    tenants.resize_with(streams.iter().map(|stream| stream.tenant as usize + 1).max().unwrap(), Seen::default);
    asks.iter().for_each(|ask| tenants[ask.tenant as usize].offered += 1);
    let mut batcher = Batcher::new(policy.clone());
    teach(&mut batcher, policy.max_rows, start, |rows| device(rows, &mut random));
    let answered = |ask: &Ask, now: Instant| {
        let seen = &mut tenants[ask.tenant as usize];
        seen.in_time += usize::from(now <= ask.deadline);
        seen.latencies.push(now - ask.came);
    };
    let takes = |rows, now: Instant| device(rows, &mut random).mul_f64(mood(now - start));
    let ran = play(&mut batcher, policy.workers.len(), asks, end, takes, answered);
    Outcome { tenants, ran }
}

/// 4 ms a batch and 1 ms a row, one tenth more or less, and now and then twice as long: 32 rows in 36 ms, 889 a second.
fn steady(rows: usize, random: &mut Random) -> Duration {
    let time = Duration::from_micros(4000 + 1000 * rows as u64).mul_f64(0.9 + random.below(200) as f64 / 1000.0);
    if random.below(100) == 0 { 2 * time } else { time }
}

const CAPACITY: f64 = 889.0;
const LASTS: Duration = Duration::from_secs(20);
const SLO: Duration = Duration::from_millis(150);

fn one_stream(load: f64) -> Stream {
    Stream { per_second: load * CAPACITY, shape: 0, tenant: 0, patience: SLO, at_once: 1 }
}

#[test]
fn more_than_can_be_done_costs_nobody_who_is_let_in() {
    for seed in 0..5 {
        let run = |load| simulate(&Policy::new(32, 1024), steady, &[one_stream(load)], LASTS, seed);
        let loads = [0.5, 0.8, 0.9, 1.0, 1.2, 2.0, 5.0];
        let mut outcomes = loads.map(run);
        let goodput = outcomes.each_ref().map(|outcome| outcome.in_time() as f64 / LASTS.as_secs_f64());
        let peak = goodput.into_iter().fold(0.0, f64::max);
        let p99 = outcomes.each_mut().map(|outcome| outcome.tenants[0].latency(0.99));
        println!("seed {seed}: goodput {goodput:.0?}, p99 {p99:.0?}");
        assert!(goodput[5] >= 0.95 * peak && goodput[6] >= 0.95 * peak, "seed {seed}: {goodput:?}");
        assert!(peak >= 0.95 * CAPACITY, "seed {seed}: {goodput:?}");
        assert!(p99.iter().all(|p99| *p99 <= SLO), "seed {seed}: {p99:?}");
    }
}

/// A machine that is shared with others: its speed is another one each second.
#[test]
fn few_of_those_who_are_let_in_are_late_even_where_speed_changes() {
    const SLO: Duration = Duration::from_millis(400);
    for load in [1.0, 2.0] {
        let (mut late, mut let_in, mut in_time) = (0, 0, 0);
        for seed in 0..8 {
            let mood = |at: Duration| 1.0 + 0.1 * (Random(seed * 1000 + at.as_secs()).below(5)) as f64;
            let stream = Stream { per_second: load * 245.0, patience: SLO, ..one_stream(1.0) };
            let outcome = simulate_moody(&Policy::new(32, 1024), tight, mood, &[stream], LASTS * 3, seed);
            let of_seed = outcome.ran.late + outcome.tenants[0].latencies.len() - outcome.in_time();
            late += of_seed;
            let_in += outcome.ran.late + outcome.tenants[0].latencies.len();
            in_time += outcome.in_time();
        }
        println!("load {load}: {late} of {let_in} late, {in_time} in time");
        assert!(late as f64 <= 0.01 * let_in as f64, "load {load}: {late} of {let_in}");
        // It takes 1.2 times as long in the mean.
        let most = 245.0 / 1.2 * 8.0 * 3.0 * LASTS.as_secs_f64();
        assert!(in_time as f64 >= 0.9 * most, "load {load}: {in_time} of {most}");
    }
}

#[test]
fn shapes_that_take_turns_are_batched_as_well_as_one() {
    for seed in 0..5 {
        let run = |streams: &[Stream]| simulate(&Policy::new(32, 1024), steady, streams, LASTS, seed);
        let half = |shape| Stream { shape, ..one_stream(0.4) };
        let (one, two) = (run(&[one_stream(0.8)]).ran.rows_per_batch(), run(&[half(0), half(1)]).ran.rows_per_batch());
        println!("seed {seed}: {one:.1} and {two:.1} rows a batch");
        assert!(two >= 0.8 * one, "seed {seed}: {two} of {one}");
    }
}

/// 1 ms a batch and 1 ms a row, as models that keep a processor busy: there is little to be had from large batches.
fn busy(rows: usize, random: &mut Random) -> Duration {
    Duration::from_micros(1000 + 1000 * rows as u64).mul_f64(0.9 + random.below(200) as f64 / 1000.0)
}

#[test]
fn a_tenant_who_wants_ten_times_his_share_slows_no_other_down() {
    for seed in 0..5 {
        // On the second device short batches are dear: it does six tenths of what it is taken to do at its best.
        for (device, fair, goodput) in [(busy as Device, 500.0, 600.0), (steady, 445.0, 520.0)] {
            let run = |streams: &[Stream]| simulate(&Policy::new(32, 1024), device, streams, LASTS, seed);
            let modest = Stream { per_second: 0.6 * fair, shape: 0, tenant: 1, patience: SLO, at_once: 1 };
            let greedy = Stream { per_second: 10.0 * fair, tenant: 0, ..modest };
            let (mut alone, mut beside) = (run(&[modest]), run(&[greedy, modest]));
            let [alone_p99, p99] = [&mut alone, &mut beside].map(|outcome| outcome.tenants[1].latency(0.99));
            let Seen { offered, in_time, .. } = beside.tenants[1];
            println!(
                "seed {seed}: p99 {alone_p99:.1?} and {p99:.1?}, {in_time} of {offered} in time, all {}, {:.1} rows",
                beside.in_time(),
                beside.ran.rows_per_batch()
            );
            assert!(in_time as f64 >= 0.99 * offered as f64, "seed {seed}: {in_time} of {offered}");
            assert!(beside.in_time() as f64 >= goodput * LASTS.as_secs_f64(), "seed {seed}");
            assert!(p99 <= alone_p99.mul_f64(1.5), "seed {seed}: {p99:?} instead of {alone_p99:?}");
        }
    }
}

/// Nine who ask for six tenths of their parts each: more than half of what there is.
#[test]
fn one_of_ten_who_wants_ten_times_his_share_slows_no_other_down() {
    for seed in 0..5 {
        let run = |streams: &[Stream]| simulate(&Policy::new(32, 1024), busy, streams, LASTS, seed);
        let fair = 100.0;
        let modest = |tenant| Stream { per_second: 0.6 * fair, shape: 0, tenant, patience: SLO, at_once: 1 };
        let others: Vec<Stream> = (1..10).map(modest).collect();
        let greedy = Stream { per_second: 10.0 * fair, ..modest(0) };
        let (mut without, mut beside) = (run(&others), run(&[&[greedy], &others[..]].concat()));
        for tenant in 1..10 {
            let [one, other] = [&mut without, &mut beside].map(|outcome| outcome.tenants[tenant].latency(0.99));
            let Seen { offered, in_time, .. } = beside.tenants[tenant];
            println!("seed {seed}, tenant {tenant}: p99 {one:.1?} and {other:.1?}, {in_time} of {offered} in time");
            assert!(in_time as f64 >= 0.99 * offered as f64, "seed {seed}: {in_time} of {offered}");
            assert!(other <= one.mul_f64(1.5), "seed {seed}, tenant {tenant}: {other:?} instead of {one:?}");
        }
    }
}

/// Between two bursts he is nobody who asks for much: each is noticed by what waits.
#[test]
fn a_tenant_whose_requests_come_many_at_once_slows_others_down_little() {
    for seed in 0..5 {
        let run = |streams: &[Stream]| simulate(&Policy::new(32, 1024), steady, streams, LASTS, seed);
        let patience = 10 * SLO;
        let quiet = Stream { per_second: 0.2 * CAPACITY, shape: 0, tenant: 1, patience, at_once: 1 };
        let greedy = Stream { per_second: 0.5 * CAPACITY, tenant: 0, at_once: 400, ..quiet };
        let (mut alone, mut beside) = (run(&[quiet]), run(&[greedy, quiet]));
        let [alone_p99, p99] = [&mut alone, &mut beside].map(|outcome| outcome.tenants[1].latency(0.99));
        println!("seed {seed}: p99 {alone_p99:.1?} and {p99:.1?}, all {}", beside.in_time());
        assert!(p99 <= alone_p99.mul_f64(2.5), "seed {seed}: {p99:?} instead of {alone_p99:?}");
    }
}

/// 28 ms a batch and 3.2 ms a row: 32 rows in 130 ms, 245 a second, more than half of the objective.
fn tight(rows: usize, random: &mut Random) -> Duration {
    let time = Duration::from_micros(28_000 + 3200 * rows as u64).mul_f64(0.95 + random.below(100) as f64 / 1000.0);
    if random.below(50) == 0 { time.mul_f64(1.3) } else { time }
}

/// Where a full batch takes more than half of the time that answers have, what comes while it runs decides how large the
/// next one may be: more traffic than capacity lets batches grow a little, and must not make them shrink.
///
/// Twenty seconds are few batches here, so a run's goodput is only known to a tenth: runs are taken together.
#[test]
fn batches_do_not_shrink_under_overload_when_deadlines_are_tight() {
    const SLO: Duration = Duration::from_millis(200);
    const SEEDS: u64 = 8;
    const LOADS: [f64; 6] = [1.0, 1.2, 1.5, 2.0, 3.0, 5.0];
    let all = LOADS.map(|load| {
        let stream = Stream { per_second: load * 245.0, shape: 0, tenant: 0, patience: SLO, at_once: 1 };
        let mut all = Seen::default();
        for seed in 0..SEEDS {
            let Outcome { tenants, .. } = simulate(&Policy::new(32, 1024), tight, &[stream], LASTS, seed);
            let goodput = tenants[0].in_time as f64 / LASTS.as_secs_f64();
            println!("load {load}, seed {seed}: goodput {goodput:.0}");
            assert!(goodput >= 0.8 * 245.0, "load {load}, seed {seed}: {goodput}");
            all.in_time += tenants[0].in_time;
            all.latencies.extend(&tenants[0].latencies);
        }
        (all.in_time as f64 / (LASTS.as_secs_f64() * SEEDS as f64), all.latency(0.99))
    });
    println!("{all:.0?}");
    let peak = all.iter().map(|(goodput, _)| *goodput).fold(0.0, f64::max);
    assert!(all[3].0 >= 0.95 * peak && all.iter().all(|(goodput, _)| *goodput >= 0.98 * all[0].0), "{all:?}");
    assert!(all.iter().all(|(_, p99)| *p99 <= SLO), "{all:?}");
}
