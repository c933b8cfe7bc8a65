//! Sends what is due when it is due, and notes what becomes of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::{Semaphore, mpsc};

use super::arrivals::{self, Schedule};
use super::bodies::Prepared;
use super::checks::{self, MOST_PER_SECOND};
use super::client::{Answer, Client};
use super::record::Record;
use super::scenario::{Arrivals, Load, Protocol, Scenario, Step};
use super::targets::Target;
use super::turns::{Turn, Turns};

pub struct Player {
    targets: Vec<Target>,
    /// One for each target.
    clients: Vec<Client>,
    scenario: Scenario,
    /// For each kind of traffic.
    prepared: Vec<Prepared>,
    /// Seconds between requests, by the name of the file.
    traces: BTreeMap<PathBuf, Vec<f64>>,
    /// Requests that have no answer yet, whether or not they have been sent.
    waiting: Cell<usize>,
}

/// What one round of a step has shown.
pub struct Played {
    pub record: Rc<RefCell<Record>>,
    /// Requests a second that were to be sent.
    pub offered: Option<f64>,
    /// Rates of a search, the parts answered in time and the 99th percentiles.
    pub tried: Vec<(f64, f64, f64)>,
    pub capacity: Option<f64>,
    /// At most, and in the mean.
    pub sent_late_milliseconds: (f64, f64),
}

/// What is seen of a step while it goes on.
struct Sight {
    /// From when on is measured.
    begun: Instant,
    end: Instant,
    record: Rc<RefCell<Record>>,
    /// Answers in time in rounds before.
    before: u64,
    turns: RefCell<Turns>,
    /// What requests say that they have.
    deadline: Option<Duration>,
    /// A permit for each request that may be on its way.
    gate: Semaphore,
    /// Sum, number and maximum of the seconds that requests were sent late.
    late: Cell<(f64, u64, f64)>,
}

impl Sight {
    fn played(&self, offered: Option<f64>, capacity: Option<f64>) -> Played {
        let (sum, count, most) = self.late.get();
        let sent_late_milliseconds = (most * 1000.0, sum * 1000.0 / count.max(1) as f64);
        Played { record: self.record.clone(), offered, tried: Vec::new(), capacity, sent_late_milliseconds }
    }
}

/// With more, one core does nothing but open connections.
const MOST_ON_THEIR_WAY: usize = 4096;
/// More would only measure the generator's memory.
const MOST_WAITING: usize = 20_000;
/// Until answers are given up for which nobody waits in the scenario.
const PATIENCE: Duration = Duration::from_secs(30);
/// For a server that is started again while it is measured.
const GRACE: Duration = Duration::from_secs(5);

impl Player {
    /// `folder` is where the scenario's files are.
    pub fn new(targets: &[Target], scenario: &Scenario, prepared: Vec<Prepared>, folder: &Path) -> Result<Player> {
        let mut traces = BTreeMap::new();
        for step in &scenario.steps {
            if let Load::Open { arrivals: Arrivals::Trace(file), .. }
            | Load::Search { arrivals: Arrivals::Trace(file), .. } = &step.load
            {
                traces.insert(file.clone(), arrivals::read_trace(&folder.join(file))?);
            }
        }
        Ok(Player {
            targets: targets.to_vec(),
            clients: targets.iter().cloned().map(Client::new).collect(),
            scenario: scenario.clone(),
            prepared,
            traces,
            waiting: Cell::new(0),
        })
    }

    /// Whether each target answers each kind of request at all.
    pub async fn check(&self) -> Result<()> {
        for (target, client) in self.targets.iter().zip(&self.clients) {
            for (traffic, prepared) in self.scenario.traffic.iter().zip(&self.prepared) {
                let asked = format!("traffic \"{}\" to {}", traffic.name, target.url);
                let answer = probe(client, traffic.protocol, prepared, PATIENCE).await;
                let Answer { status, reason, .. } = answer.with_context(|| asked.clone())?;
                ensure!(status == 200, "{asked} is answered with status {status}: {reason}");
            }
        }
        Ok(())
    }

    /// Whether each target answers anything, though some requests had no answer; who has just started gets some time.
    pub async fn check_again(&self) -> Result<()> {
        let given_up = Instant::now() + GRACE;
        let (traffic, prepared) = (&self.scenario.traffic[0], &self.prepared[0]);
        for (target, client) in self.targets.iter().zip(&self.clients) {
            while let Err(error) = probe(client, traffic.protocol, prepared, GRACE).await {
                if Instant::now() >= given_up {
                    return Err(error.context(format!("{} does not answer any more", target.url)));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// Parts of the capacity are of that which a step before has found. What is seen is added to the record of rounds before.
    pub async fn step(
        self: &Rc<Self>,
        step: &Step,
        capacity: Option<f64>,
        record: Rc<RefCell<Record>>,
        seed: u64,
    ) -> Result<Played> {
        match &step.load {
            Load::Closed { connections } => {
                let before = record.borrow().answered();
                let sight = self.closed(step, *connections, record, seed).await;
                let answered = sight.record.borrow().answered() - before;
                Ok(sight.played(None, Some(answered as f64 / step.seconds)))
            }
            Load::Open { arrivals, rate, of_capacity, ramp, connections } => {
                let relative = || Some(of_capacity.as_ref()? * capacity?);
                let rate = rate.or_else(relative).context("no step before has found a capacity")?;
                ensure!(rate > 0.0, "the capacity that a step before has found is 0: nothing was answered");
                let is_too_much =
                    rate > MOST_PER_SECOND || checks::too_many(rate * self.kept_at_once(), step).is_some();
                ensure!(!is_too_much, "{rate:.0} requests a second are more than can be sent and kept");
                let ramp = ramp.then_some(step.warmup_seconds + step.seconds);
                let schedule = self.schedule(arrivals, rate, ramp, seed);
                let sight = self.open(step, &step.name, schedule, *connections, record, seed).await;
                Ok(sight.played(Some(rate), None))
            }
            Load::Search { arrivals, quantile } => self.search(step, arrivals, *quantile, seed).await,
        }
    }

    async fn search(self: &Rc<Self>, step: &Step, arrivals: &Arrivals, quantile: f64, seed: u64) -> Result<Played> {
        let (mut passed, mut failed): (f64, Option<f64>) = (0.0, None);
        let (mut tried, mut best, mut rate) = (Vec::new(), None, 32.0);
        // A bad moment of the machine is not believed: what does not hold the objective is tried once more.
        let mut missed = None;
        while failed.is_none_or(|failed| failed / passed.max(1.0) > 1.04) && tried.len() < 36 {
            let seed = seed.wrapping_add(tried.len() as u64);
            let schedule = self.schedule(arrivals, rate, None, seed);
            let name = format!("{} {rate:.0}/s", step.name);
            let sight = self.open(step, &name, schedule, None, self.record(), seed).await;
            let (part, (_, _, p99)) = (sight.record.borrow().part_in_time(), sight.record.borrow().progress());
            tried.push((rate, part, p99));
            if part >= quantile {
                (passed, best) = (rate, Some(sight.played(Some(rate), Some(rate))));
            } else if missed.replace(rate) == Some(rate) {
                failed = Some(rate);
            } else {
                continue;
            }
            rate = failed.map_or(passed * 2.0, |failed| (passed.max(1.0) * failed).sqrt());
            if rate > MOST_PER_SECOND || checks::too_many(rate, step).is_some() {
                break;
            }
        }
        let Some(best) = best else {
            let (least, part, _) = tried.last().copied().unwrap_or_default();
            bail!(
                "not even {least:.1} requests a second hold the objective: {:.1} % are answered in time",
                part * 100.0
            )
        };
        Ok(Played { tried, ..best })
    }

    /// Steps' rounds of which all requests are kept until the last of them is over.
    fn kept_at_once(&self) -> f64 {
        let Scenario { rounds, steps, .. } = &self.scenario;
        if *rounds > 1 { f64::from(*rounds) * steps.len() as f64 } else { 1.0 }
    }

    /// An empty one.
    pub fn record(&self) -> Rc<RefCell<Record>> {
        Rc::new(RefCell::new(Record::new(self.scenario.slo())))
    }

    fn sight(
        &self,
        step: &Step,
        start: Instant,
        deadline: Option<Duration>,
        at_once: Option<usize>,
        record: Rc<RefCell<Record>>,
        seed: u64,
    ) -> Rc<Sight> {
        let begun = start + Duration::from_secs_f64(step.warmup_seconds);
        let before = record.borrow().progress().1;
        Rc::new(Sight {
            begun,
            end: begun + Duration::from_secs_f64(step.seconds),
            before,
            record,
            turns: RefCell::new(Turns::new(&self.scenario, step, self.targets.len(), seed)),
            deadline,
            gate: Semaphore::new(at_once.unwrap_or(Semaphore::MAX_PERMITS)),
            late: Cell::default(),
        })
    }

    async fn open(
        self: &Rc<Self>,
        step: &Step,
        name: &str,
        schedule: Schedule,
        at_once: Option<usize>,
        record: Rc<RefCell<Record>>,
        seed: u64,
    ) -> Rc<Sight> {
        let at_once = Some(at_once.unwrap_or(MOST_ON_THEIR_WAY));
        let start = Instant::now() + Duration::from_millis(5);
        let deadline = self.scenario.send_deadline.then(|| self.scenario.slo());
        let sight = self.sight(step, start, deadline, at_once, record, seed);
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
        while let Some(at) = arrivals.recv().await {
            let late = at.elapsed().as_secs_f64();
            let (sum, count, most) = sight.late.get();
            sight.late.set((sum + late, count + 1, most.max(late)));
            let turn = sight.turns.borrow_mut().next();
            if self.waiting.get() >= MOST_WAITING {
                note(&sight, turn, at, &Err(anyhow::anyhow!("too many requests wait for their answers")));
                continue;
            }
            let (player, sight) = (self.clone(), sight.clone());
            self.waiting.set(self.waiting.get() + 1);
            tokio::task::spawn_local(async move {
                player.ask(&sight, turn, at).await;
                player.waiting.set(player.waiting.get() - 1);
            });
        }
        let _ = pace.join(); // it ends with the channel; a panic has been noted
        let given_up = Instant::now() + PATIENCE;
        while self.waiting.get() > 0 && Instant::now() < given_up {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        progress.abort();
        sight
    }

    async fn closed(
        self: &Rc<Self>,
        step: &Step,
        connections: usize,
        record: Rc<RefCell<Record>>,
        seed: u64,
    ) -> Rc<Sight> {
        let sight = self.sight(step, Instant::now(), None, None, record, seed);
        let progress = tokio::task::spawn_local(tell(step.name.clone(), sight.clone()));
        let tasks: Vec<_> = (0..connections)
            .map(|_| {
                let (player, sight) = (self.clone(), sight.clone());
                tokio::task::spawn_local(async move {
                    while Instant::now() < sight.end {
                        let turn = sight.turns.borrow_mut().next();
                        if !player.ask(&sight, turn, Instant::now()).await {
                            tokio::time::sleep(Duration::from_millis(10)).await; // nobody asks a dead server without end
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            let _ = task.await; // a panic has been noted
        }
        progress.abort();
        sight
    }

    /// Sends one request that was due then, and takes note of what becomes of it; whether it was answered.
    async fn ask(&self, sight: &Sight, turn: Turn, at: Instant) -> bool {
        let protocol = self.scenario.traffic[turn.traffic].protocol;
        let prepared = &self.prepared[turn.traffic];
        let answer = tokio::time::timeout(PATIENCE, async {
            let _permit = sight.gate.acquire().await?;
            self.clients[turn.target].send(protocol, prepared, turn.variant, sight.deadline).await
        });
        let answer = answer.await.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in {PATIENCE:?}")));
        note(sight, turn, at, &answer);
        answer.is_ok()
    }

    fn schedule(&self, arrivals: &Arrivals, rate: f64, ramp: Option<f64>, seed: u64) -> Schedule {
        let trace = if let Arrivals::Trace(file) = arrivals { self.traces[file].clone() } else { Vec::new() };
        Schedule::new(arrivals, trace, rate, ramp, seed)
    }
}

/// Sends a request that is not measured.
async fn probe(client: &Client, protocol: Protocol, prepared: &Prepared, patience: Duration) -> Result<Answer> {
    let answer = tokio::time::timeout(patience, client.send(protocol, prepared, 0, None));
    answer.await.with_context(|| format!("no answer in {patience:?}"))?
}

fn note(sight: &Sight, turn: Turn, at: Instant, answer: &Result<Answer>) {
    let latency = at.elapsed();
    if at >= sight.begun && at < sight.end {
        sight.record.borrow_mut().add(turn, at - sight.begun, latency, answer);
    }
}

/// Says how a step goes, in one line that changes, on a terminal.
async fn tell(name: String, sight: Rc<Sight>) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (whole, since) = ((sight.end - sight.begun).as_secs_f64(), sight.begun.elapsed().as_secs_f64());
        let (sent, in_time, p99) = sight.record.borrow().progress();
        let bar = "#".repeat((since / whole * 20.0).clamp(0.0, 20.0) as usize);
        let rate = (in_time - sight.before) as f64 / since.clamp(0.001, whole);
        let _ =
            write!(std::io::stderr(), "\r\x1b[K{name} [{bar:<20}] {sent} sent, {rate:.0}/s in time, p99 {p99:.1} ms");
    }
}
