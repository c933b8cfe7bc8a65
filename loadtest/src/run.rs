//! Plays a scenario against a server and keeps what was seen: as JSON, and as a page to look at.
//!
//! Latency counts from when a request was to be sent, not from when it was: a server that holds its clients up is not
//! spared what they would have asked meanwhile (Gil Tene's "coordinated omission").

mod arrivals;
mod bodies;
mod client;
mod record;
mod scenario;
mod scrape;

use std::cell::{Cell, RefCell};
use std::io::{IsTerminal, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lexopt::prelude::*;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use self::arrivals::{Random, Schedule};
use self::bodies::Prepared;
use self::client::Client;
use self::record::{Record, Summary};
use self::scenario::{Arrivals, Load, Scenario, Step};
use crate::provenance::Provenance;

#[derive(Debug)]
pub struct Options {
    scenario: PathBuf,
    target: SocketAddr,
    name: String,
    out: PathBuf,
}

impl Options {
    pub fn parse(args: &mut lexopt::Parser) -> Result<Self> {
        let (mut scenario, mut target, mut name, mut out) = (None, None, None, PathBuf::from("loadtest/runs"));
        while let Some(arg) = args.next()? {
            match arg {
                Value(file) if scenario.is_none() => scenario = Some(PathBuf::from(file)),
                Long("target") => target = Some(address(&args.value()?.string()?)?),
                Long("name") => name = Some(args.value()?.string()?),
                Long("out") => out = PathBuf::from(args.value()?),
                other => return Err(other.unexpected().into()),
            }
        }
        let scenario = scenario.context("which scenario?")?;
        let stem = scenario.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { target: target.context("--target is needed")?, name: name.unwrap_or(stem), scenario, out })
    }
}

/// Of `http://host:port`.
fn address(url: &str) -> Result<SocketAddr> {
    let authority = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let with_port = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let mut addresses = with_port.to_socket_addrs().with_context(|| format!("--target {url}"))?;
    addresses.next().with_context(|| format!("--target {url} has no address"))
}

/// What is kept of a run.
#[derive(Serialize)]
struct Run {
    #[serde(flatten)]
    provenance: Provenance,
    name: String,
    scenario: Scenario,
    steps: Vec<Measured>,
}

#[derive(Serialize)]
struct Measured {
    name: String,
    /// Requests a second that were to be sent; `None` where the server sets the pace.
    offered_per_second: Option<f64>,
    seconds: f64,
    all: Summary,
    /// By the name of the traffic.
    traffic: Vec<(String, Summary)>,
    /// Of a search: each rate that was tried, the part that was answered in time, and the 99th percentile.
    tried: Vec<(f64, f64, f64)>,
    capacity_per_second: Option<f64>,
    /// Late by how much a request was sent at most and in the mean, in milliseconds: the generator's own fault.
    sent_late_milliseconds: (f64, f64),
    mean_batch_rows: Option<f64>,
    batch_rows: Vec<(String, f64)>,
}

pub fn run(options: &Options) -> Result<()> {
    let provenance = Provenance::collect(std::thread::available_parallelism()?.get())?;
    let scenario = Scenario::read(&options.scenario)?;
    let folder = options.scenario.parent().unwrap_or(Path::new(".")).to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let steps = LocalSet::new().block_on(&runtime, play(options.target, &scenario, &folder))?;
    for Measured { name, offered_per_second, all, mean_batch_rows, capacity_per_second, .. } in &steps {
        let offered = offered_per_second.map_or("closed".to_owned(), |rate| format!("{rate:.0}/s"));
        let latency = |name: &str| all.milliseconds.get(name).copied().unwrap_or_default();
        println!(
            "{name:<20} offered {offered:>9}  goodput {:>8.1}/s  p50 {:>8.2} ms  p99 {:>8.2} ms  rows a batch {}  {}{:?}",
            all.goodput_per_second,
            latency("p50"),
            latency("p99"),
            mean_batch_rows.map_or("?".to_owned(), |rows| format!("{rows:.1}")),
            capacity_per_second.map(|rate| format!("capacity {rate:.0}/s  ")).unwrap_or_default(),
            all.outcomes,
        );
    }
    std::fs::create_dir_all(&options.out)?;
    let file = options.out.join(format!("{}-{}.json", options.name, provenance.date.replace(':', "-")));
    let run = Run { provenance, name: options.name.clone(), scenario, steps };
    std::fs::write(&file, serde_json::to_vec(&run)?).with_context(|| file.display().to_string())?;
    println!("{}", file.display());
    Ok(())
}

async fn play(target: SocketAddr, scenario: &Scenario, folder: &Path) -> Result<Vec<Measured>> {
    let mut random = Random(scenario.seed);
    let prepared = scenario.traffic.iter().map(|traffic| bodies::prepare(traffic, folder, &mut random));
    let prepared = prepared.collect::<Result<Vec<_>>>()?;
    let player =
        Rc::new(Player { client: Client::new(target), scenario: scenario.clone(), prepared, waiting: Cell::new(0) });
    player.check().await?;
    let (mut steps, mut capacity) = (Vec::new(), None);
    for (number, step) in scenario.steps.iter().enumerate() {
        let before = scrape::scrape(target).await;
        let seed = scenario.seed + 1 + number as u64;
        let mut measured = player.step(step, capacity, folder, seed).await.with_context(|| step.name.clone())?;
        let change = scrape::difference(&before, &scrape::scrape(target).await);
        measured.mean_batch_rows = scrape::mean_batch_rows(&change);
        measured.batch_rows = scrape::batch_rows(&change);
        capacity = measured.capacity_per_second.or(capacity);
        steps.push(measured);
    }
    Ok(steps)
}

struct Player {
    client: Client,
    scenario: Scenario,
    prepared: Vec<Prepared>,
    /// Requests that have no answer yet.
    waiting: Cell<usize>,
}

/// What is seen of a step while it goes on.
struct Sight {
    /// From when on is measured.
    begun: Instant,
    end: Instant,
    all: RefCell<Record>,
    traffic: RefCell<Vec<Record>>,
    /// What requests say that they have.
    deadline: Option<Duration>,
    /// Sum, number and maximum of the seconds that requests were sent late.
    late: Cell<(f64, u64, f64)>,
}

impl Sight {
    fn new(scenario: &Scenario, begun: Instant, end: Instant, deadline: Option<Duration>) -> Rc<Sight> {
        let record = || Record::new(scenario.slo());
        let traffic = RefCell::new(scenario.traffic.iter().map(|_| record()).collect());
        Rc::new(Sight { begun, end, all: RefCell::new(record()), traffic, deadline, late: Cell::default() })
    }
}

/// More would only measure the generator's memory.
const MOST_WAITING: usize = 20_000;
/// Until answers are given up for which nobody waits in the scenario.
const PATIENCE: Duration = Duration::from_secs(30);

impl Player {
    /// Whether the server answers each kind of request at all.
    async fn check(&self) -> Result<()> {
        for (traffic, prepared) in self.scenario.traffic.iter().zip(&self.prepared) {
            let answer = self.client.send(traffic.protocol, prepared, 0, None).await;
            let answer = answer.with_context(|| format!("traffic \"{}\"", traffic.name))?;
            ensure!(answer.status == 200, "traffic \"{}\" is answered with status {}", traffic.name, answer.status);
        }
        Ok(())
    }

    async fn step(self: &Rc<Self>, step: &Step, capacity: Option<f64>, folder: &Path, seed: u64) -> Result<Measured> {
        let lasts = Duration::from_secs_f64(step.seconds);
        let warmup = Duration::from_secs_f64(step.warmup_seconds);
        let mut tried = Vec::new();
        let (sight, offered, capacity) = match &step.load {
            Load::Closed { connections } => {
                let sight = self.closed(&step.name, *connections, warmup, lasts, seed).await;
                let rate = sight.all.borrow().summary(lasts).answered_per_second;
                (sight, None, Some(rate))
            }
            Load::Open { arrivals, rate, of_capacity, ramp } => {
                let relative = || Some(of_capacity.as_ref()? * capacity?);
                let rate = rate.or_else(relative).context("no step before has found a capacity")?;
                let schedule = |seed| schedule(arrivals, folder, rate, ramp.then_some(step.seconds), seed);
                (self.open(&step.name, schedule(seed)?, warmup, lasts).await, Some(rate), None)
            }
            Load::Search { arrivals, quantile } => {
                let (mut passed, mut failed): (f64, Option<f64>) = (0.0, None);
                let mut rate = 32.0;
                let mut best = None;
                while failed.is_none_or(|failed| failed / passed.max(1.0) > 1.04) && tried.len() < 24 {
                    let schedule = schedule(arrivals, folder, rate, None, seed + tried.len() as u64)?;
                    let sight = self.open(&format!("{} {rate:.0}/s", step.name), schedule, warmup, lasts).await;
                    let (part, (_, _, p99)) = (sight.all.borrow().part_in_time(), sight.all.borrow().progress());
                    tried.push((rate, part, p99));
                    if part >= *quantile {
                        (passed, best) = (rate, Some((sight, rate)));
                    } else {
                        failed = Some(rate);
                    }
                    rate = failed.map_or(passed * 2.0, |failed| (passed.max(1.0) * failed).sqrt());
                    if passed == 0.0 && failed.is_some_and(|failed| failed < 0.1) {
                        break;
                    }
                }
                let Some((sight, rate)) = best else { bail!("not even the smallest rate holds the objective") };
                (sight, Some(rate), Some(rate))
            }
        };
        let (sum, count, most) = sight.late.get();
        let names = self.scenario.traffic.iter().map(|traffic| traffic.name.clone());
        let traffic = names.zip(sight.traffic.borrow().iter().map(|record| record.summary(lasts))).collect();
        Ok(Measured {
            name: step.name.clone(),
            offered_per_second: offered,
            seconds: step.seconds,
            all: sight.all.borrow().summary(lasts),
            traffic,
            tried,
            capacity_per_second: capacity,
            sent_late_milliseconds: (most * 1000.0, sum * 1000.0 / count.max(1) as f64),
            mean_batch_rows: None,
            batch_rows: Vec::new(),
        })
    }

    async fn open(self: &Rc<Self>, name: &str, schedule: Schedule, warmup: Duration, lasts: Duration) -> Rc<Sight> {
        let start = Instant::now() + Duration::from_millis(5);
        let deadline = self.scenario.send_deadline.then(|| self.scenario.slo());
        let sight = Sight::new(&self.scenario, start + warmup, start + warmup + lasts, deadline);
        let (due, mut arrivals) = mpsc::unbounded_channel();
        let end = sight.end;
        // Timers of the runtime go by milliseconds.
        let pace = std::thread::spawn(move || {
            for at in schedule {
                let at = start + Duration::from_secs_f64(at);
                if at >= end {
                    break;
                }
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
                if due.send(at).is_err() {
                    break;
                }
            }
        });
        let progress = tokio::task::spawn_local(tell(name.to_owned(), sight.clone()));
        let mut random = Random(self.scenario.seed ^ 0x5eed);
        while let Some(at) = arrivals.recv().await {
            let late = at.elapsed().as_secs_f64();
            let (sum, count, most) = sight.late.get();
            sight.late.set((sum + late, count + 1, most.max(late)));
            let kind = self.kind(&mut random);
            if self.waiting.get() >= MOST_WAITING {
                self.note(&sight, kind, at, &Err(anyhow::anyhow!("too many requests wait for their answers")));
                continue;
            }
            let (player, sight, variant) = (self.clone(), sight.clone(), random.next() as usize);
            tokio::task::spawn_local(async move { player.ask(&sight, kind, variant, at).await });
        }
        let _ = pace.join(); // it ends with the channel
        let given_up = Instant::now() + PATIENCE;
        while self.waiting.get() > 0 && Instant::now() < given_up {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        progress.abort();
        sight
    }

    async fn closed(
        self: &Rc<Self>,
        name: &str,
        connections: usize,
        warmup: Duration,
        lasts: Duration,
        seed: u64,
    ) -> Rc<Sight> {
        let start = Instant::now();
        let sight = Sight::new(&self.scenario, start + warmup, start + warmup + lasts, None);
        let progress = tokio::task::spawn_local(tell(name.to_owned(), sight.clone()));
        let tasks: Vec<_> = (0..connections)
            .map(|number| {
                let (player, sight) = (self.clone(), sight.clone());
                let mut random = Random(seed ^ (number as u64) << 32);
                tokio::task::spawn_local(async move {
                    while Instant::now() < sight.end {
                        let kind = player.kind(&mut random);
                        player.ask(&sight, kind, random.next() as usize, Instant::now()).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            let _ = task.await; // a panic has been printed
        }
        progress.abort();
        sight
    }

    /// Which traffic's turn it is, by their shares.
    fn kind(&self, random: &mut Random) -> usize {
        let total: f64 = self.scenario.traffic.iter().map(|traffic| traffic.share).sum();
        let mut left = random.unit() * total;
        let found = self.scenario.traffic.iter().position(|traffic| {
            left -= traffic.share;
            left <= 0.0
        });
        found.unwrap_or(0)
    }

    /// Sends one request that was due then, and takes note of what becomes of it.
    async fn ask(&self, sight: &Sight, kind: usize, variant: usize, at: Instant) {
        self.waiting.set(self.waiting.get() + 1);
        let send =
            self.client.send(self.scenario.traffic[kind].protocol, &self.prepared[kind], variant, sight.deadline);
        let answer = tokio::time::timeout(PATIENCE, send).await;
        let answer = answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in {PATIENCE:?}")));
        self.waiting.set(self.waiting.get() - 1);
        self.note(sight, kind, at, &answer);
    }

    fn note(&self, sight: &Sight, kind: usize, at: Instant, answer: &Result<client::Answer>) {
        let latency = at.elapsed();
        if at < sight.begun || at >= sight.end {
            return;
        }
        let since = at - sight.begun;
        sight.all.borrow_mut().add(since, latency, answer);
        sight.traffic.borrow_mut()[kind].add(since, latency, answer);
    }
}

fn schedule(arrivals: &Arrivals, folder: &Path, rate: f64, ramp: Option<f64>, seed: u64) -> Result<Schedule> {
    let mut trace = Vec::new();
    if let Arrivals::Trace(file) = arrivals {
        let text = std::fs::read_to_string(folder.join(file)).with_context(|| file.display().to_string())?;
        trace = text.split_whitespace().map(str::parse).collect::<Result<_, _>>().context("a trace is of numbers")?;
        ensure!(trace.iter().sum::<f64>() > 0.0, "the trace {} has no time in it", file.display());
    }
    Ok(Schedule::new(arrivals, trace, rate, ramp, seed))
}

/// Says how a step goes, in one line that changes, on a terminal.
async fn tell(name: String, sight: Rc<Sight>) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (whole, since) = ((sight.end - sight.begun).as_secs_f64(), sight.begun.elapsed().as_secs_f64());
        let (sent, in_time, p99) = sight.all.borrow().progress();
        let bar = "#".repeat((since / whole * 20.0).clamp(0.0, 20.0) as usize);
        let rate = in_time as f64 / since.clamp(0.001, whole);
        let _ =
            write!(std::io::stderr(), "\r\x1b[K{name} [{bar:<20}] {sent} sent, {rate:.0}/s in time, p99 {p99:.1} ms");
    }
}
