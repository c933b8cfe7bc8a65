//! What the scheduler costs: the pure core alone, in this process, with requests that come 100,000 times a second of
//! virtual time and a device that is just fast enough. Told is the processor's time for one request, from `push` to `done`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lexopt::prelude::*;
use serde::Serialize;
use stoker::engine::batch::{Batcher, Job, Next};
use stoker::engine::policy::Policy;

use crate::provenance::Provenance;

#[derive(Debug)]
pub struct Options {
    rounds: usize,
    out: Option<PathBuf>,
}

impl Options {
    pub fn parse(args: &mut lexopt::Parser) -> Result<Self> {
        let (mut rounds, mut out) = (9, None);
        while let Some(arg) = args.next()? {
            match arg {
                Long("rounds") => rounds = args.value()?.parse()?,
                Long("out") => out = Some(PathBuf::from(args.value()?)),
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(Self { rounds, out })
    }
}

struct Request {
    shape: u64,
    deadline: Instant,
    tenant: u64,
}

impl Job for Request {
    type Shape = u64;
    fn shape(&self) -> &u64 {
        &self.shape
    }
    fn rows(&self) -> usize {
        1
    }
    fn elements(&self) -> usize {
        4
    }
    fn bytes(&self) -> usize {
        16
    }
    fn deadline(&self) -> Instant {
        self.deadline
    }
    fn tenant(&self) -> u64 {
        self.tenant
    }
}

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

const TRAFFIC: [Traffic; 5] = [
    Traffic { name: "one shape", shapes: 1, tenants: 1, load: 0.9, slo_milliseconds: 60_000 },
    Traffic { name: "one shape, overload", shapes: 1, tenants: 1, load: 2.0, slo_milliseconds: 5 },
    Traffic { name: "8 shapes", shapes: 8, tenants: 1, load: 0.9, slo_milliseconds: 60_000 },
    Traffic { name: "10 tenants", shapes: 1, tenants: 10, load: 0.9, slo_milliseconds: 60_000 },
    Traffic { name: "100 tenants, overload", shapes: 1, tenants: 100, load: 2.0, slo_milliseconds: 5 },
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
struct Report {
    #[serde(flatten)]
    provenance: Provenance,
    requests: u32,
    measured: Vec<Measured>,
}

pub fn run(options: &Options) -> Result<()> {
    let provenance = Provenance::collect(std::thread::available_parallelism()?.get())?;
    let measured: Vec<Measured> = TRAFFIC.into_iter().map(|traffic| measure(traffic, options.rounds)).collect();
    println!("| traffic | ns a request | rows a batch |\n|---|---:|---:|");
    for Measured { traffic, nanoseconds_per_request, rows_per_batch } in &measured {
        println!("| {} | {nanoseconds_per_request:.0} | {rows_per_batch:.1} |", traffic.name);
    }
    if let Some(folder) = &options.out {
        let name = format!("scheduler-{}.json", provenance.date.replace(':', "-"));
        let report = Report { provenance, requests: REQUESTS, measured };
        let path = folder.join(name);
        std::fs::write(&path, serde_json::to_vec_pretty(&report)?).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn measure(traffic: Traffic, rounds: usize) -> Measured {
    let mut times = Vec::new();
    let mut rows_per_batch = 0.0;
    for _ in 0..rounds {
        let (took, batches, rows) = round(traffic);
        times.push(took.as_secs_f64() * 1e9 / f64::from(REQUESTS));
        rows_per_batch = f64::from(rows) / f64::from(batches.max(1));
    }
    times.sort_unstable_by(f64::total_cmp);
    Measured { traffic, nanoseconds_per_request: times[times.len() / 2], rows_per_batch }
}

/// The processor's time, and how many batches and rows ran.
fn round(traffic: Traffic) -> (Duration, u32, u32) {
    // A full batch takes what makes the load that is wanted; half of it is the same for all sizes.
    let full = GAP.mul_f64(MAX_ROWS as f64 * traffic.load);
    let takes = |rows: usize| full.mul_f64(0.5 + 0.5 * rows as f64 / MAX_ROWS as f64);
    let mut now = Instant::now();
    let mut batcher = Batcher::new(Policy::new(MAX_ROWS, 1024));
    for rows in [1, 2, 4, 8, 16, 32] {
        batcher.learn(0, 4, rows, takes(rows), now);
    }
    let (mut busy_until, mut batches, mut rows) = (None::<Instant>, 0, 0);
    let began = Instant::now();
    for number in 0..u64::from(REQUESTS) {
        now += GAP;
        let deadline = now + Duration::from_millis(traffic.slo_milliseconds);
        let request = Request { shape: number % traffic.shapes, deadline, tenant: number % traffic.tenants };
        let _ = std::hint::black_box(batcher.push(request, now));
        if let Some(end) = busy_until.filter(|end| *end <= now) {
            batcher.done(0, true, end);
            busy_until = None;
        }
        if busy_until.is_none()
            && let Next::Run(batch) = batcher.next(0, now)
            && !batch.jobs.is_empty()
        {
            busy_until = Some(now + takes(batch.jobs.len()));
            (batches, rows) = (batches + 1, rows + batch.jobs.len() as u32);
        }
    }
    (began.elapsed(), batches, rows)
}
