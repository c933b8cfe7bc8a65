//! What the scheduler costs: the pure core alone, in this process, with requests that come 100,000 times a second of
//! virtual time and a device that is just fast enough. Told is the processor's time for one request, from `turn_away` to
//! `done`, with what it takes to play the device.

use std::time::{Duration, Instant};

use anyhow::Result;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use stoker::engine::batch::Batcher;
use stoker::engine::policy::Policy;

use crate::rounds::Options;
use crate::virtual_time::{Ask, Ran, play, teach};

/// Traffic that is measured.
#[derive(Clone, Copy, Serialize)]
struct Traffic {
    name: &'static str,
    shapes: u64,
    tenants: u64,
    /// Of what the device can do.
    load: f64,
    slo_milliseconds: u64,
}

const TRAFFIC: [Traffic; 6] = [
    Traffic { name: "one shape", shapes: 1, tenants: 1, load: 0.9, slo_milliseconds: 60_000 },
    Traffic { name: "one shape, overload", shapes: 1, tenants: 1, load: 2.0, slo_milliseconds: 5 },
    Traffic { name: "8 shapes", shapes: 8, tenants: 1, load: 0.9, slo_milliseconds: 60_000 },
    Traffic { name: "10 tenants", shapes: 1, tenants: 10, load: 0.9, slo_milliseconds: 60_000 },
    Traffic { name: "100 tenants, overload", shapes: 1, tenants: 100, load: 2.0, slo_milliseconds: 5 },
    Traffic { name: "each its own tenant", shapes: 1, tenants: u64::MAX, load: 0.9, slo_milliseconds: 60_000 },
];

const REQUESTS: u32 = 200_000;
/// Between arrivals: 100,000 a second.
const GAP: Duration = Duration::from_micros(10);
const MAX_ROWS: usize = 32;

#[derive(Serialize)]
struct Measured {
    #[serde(flatten)]
    traffic: Traffic,
    /// The median of the rounds.
    nanoseconds_per_request: f64,
    rows_per_batch: f64,
}

#[derive(Serialize)]
struct Seen {
    requests: u32,
    measured: Vec<Measured>,
}

pub fn run(options: &Options) -> Result<()> {
    let measured: Vec<Measured> = TRAFFIC.into_iter().map(|traffic| measure(traffic, options)).collect();
    println!("| traffic | ns a request | rows a batch |\n|---|---:|---:|");
    for Measured { traffic, nanoseconds_per_request, rows_per_batch } in &measured {
        println!("| {} | {nanoseconds_per_request:.0} | {rows_per_batch:.1} |", traffic.name);
    }
    options.keep("scheduler", &Seen { requests: REQUESTS, measured })
}

fn measure(traffic: Traffic, options: &Options) -> Measured {
    let mut rows_per_batch = 0.0;
    let seconds = options.median(|| {
        let (took, ran) = round(traffic);
        rows_per_batch = ran.rows_per_batch();
        took
    });
    Measured { traffic, nanoseconds_per_request: seconds * 1e9 / f64::from(REQUESTS), rows_per_batch }
}

/// The processor's time, and what ran.
fn round(traffic: Traffic) -> (Duration, Ran) {
    // A full batch takes what makes the load that is wanted; half of it is the same for all sizes.
    let full = GAP.mul_f64(MAX_ROWS as f64 * traffic.load);
    let takes = |rows: usize| full.mul_f64(0.5 + 0.5 * rows as f64 / MAX_ROWS as f64);
    let start = Instant::now();
    let ask = |number: u32| {
        let (came, number) = (start + GAP * (number + 1), u64::from(number));
        let deadline = came + Duration::from_millis(traffic.slo_milliseconds);
        Ask { shape: number % traffic.shapes, tenant: number % traffic.tenants, came, deadline }
    };
    let asks: Vec<Ask> = (0..REQUESTS).map(ask).collect();
    let mut batcher = Batcher::new(Policy::new(MAX_ROWS, 1024));
    teach(&mut batcher, MAX_ROWS, start, takes);
    let began = processor_time();
    let ran = play(&mut batcher, 1, asks, start + GAP * REQUESTS, |rows, _| takes(rows), |_, _| {});
    (processor_time() - began, ran)
}

/// Of this thread: without what other processes, and the host, have had meanwhile.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every Linux has this clock").into()
}
