//! Plays a scenario against one server or several and keeps what was seen: as JSON, and as a page to look at.
//!
//! Latency counts from when a request was to be sent, not from when it was: a server that holds its clients up is not
//! spared what they would have asked meanwhile (Gil Tene's "coordinated omission").

mod address;
mod arrivals;
mod bodies;
mod checks;
mod client;
pub mod comparison;
mod door;
pub mod kept;
mod panics;
mod player;
mod record;
pub mod scenario;
mod scrape;
mod steps;
mod stolen;
mod targets;
mod tensors;
mod turns;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use lexopt::prelude::*;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use self::kept::{Asked, Run};
use self::scenario::Scenario;
use self::steps::Seen;
use self::targets::Target;
use crate::provenance::Provenance;
use crate::report;

pub struct Options {
    scenario: PathBuf,
    targets: Vec<Target>,
    name: String,
    label: Option<String>,
    /// Whether requests say no deadline although the scenario would: as against a server that knows none.
    without_deadlines: bool,
    /// `-`: JSON to standard output, and nothing else.
    out: PathBuf,
}

impl Options {
    pub fn parse(args: &mut lexopt::Parser) -> Result<Self> {
        let (mut scenario, mut targets, mut name, mut label) = (None, Vec::new(), None, None);
        let (mut out, mut without_deadlines) = (PathBuf::from("loadtest/runs"), false);
        while let Some(arg) = args.next()? {
            match arg {
                Value(file) if scenario.is_none() => scenario = Some(PathBuf::from(file)),
                Long("target") => targets.push(Target::parse(&args.value()?.string()?, targets.len())?),
                Long("grpc") => of_target(&mut targets, "--grpc")?.with_grpc(&args.value()?.string()?)?,
                Long("metrics") => of_target(&mut targets, "--metrics")?.with_metrics(&args.value()?.string()?)?,
                Long("name") => name = Some(args.value()?.string()?),
                Long("label") => label = Some(args.value()?.string()?),
                Long("without-deadlines") => without_deadlines = true,
                Long("out") => out = PathBuf::from(args.value()?),
                other => return Err(other.unexpected().into()),
            }
        }
        let scenario = scenario.context("which scenario?")?;
        let stem = scenario.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        ensure!((1..=16).contains(&targets.len()), "--target is needed, up to 16 times");
        for (number, Target { name, .. }) in targets.iter().enumerate() {
            ensure!(targets[..number].iter().all(|other| other.name != *name), "two targets are called {name}");
        }
        Ok(Self { targets, name: name.unwrap_or(stem), label, without_deadlines, scenario, out })
    }
}

fn of_target<'a>(targets: &'a mut [Target], option: &str) -> Result<&'a mut Target> {
    targets.last_mut().with_context(|| format!("{option} follows the --target that it is of"))
}

pub fn run(options: &Options) -> Result<()> {
    panics::watch();
    let provenance = Provenance::collect(std::thread::available_parallelism()?.get())?;
    let mut scenario = Scenario::read(&options.scenario)?;
    scenario.send_deadline &= !options.without_deadlines;
    let folder = options.scenario.parent().unwrap_or(Path::new("."));
    let stem = format!("{}-{}", options.name, provenance.date.replace(':', "-"));
    if options.out != Path::new("-") {
        try_out(&options.out, &stem)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut targets, mut seen) = (Vec::new(), Seen::default());
    let play = async {
        for target in &options.targets {
            let (name, url) = (target.name.clone(), target.url.clone());
            targets.push(Asked { name, url, build: scrape::build(&scrape::scrape(target).await) });
        }
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            played = steps::play(&options.targets, &scenario, folder, &mut seen) => played,
            _ = interrupt.recv() => Err(anyhow!("interrupted")),
            _ = terminate.recv() => Err(anyhow!("terminated")),
        }
    };
    let failure = LocalSet::new().block_on(&runtime, play).and_then(|()| panics::none_so_far()).err();
    // What was measured is kept; of nothing there is nothing to keep.
    if seen.is_empty() {
        return Err(failure.context("no step was played")?);
    }
    let (steps, comparison) = seen.measured(&scenario, &options.targets);
    let (name, label) = (options.name.clone(), options.label.clone());
    let said = failure.as_ref().map(|failure| {
        format!("{failure:#}. Of {} steps the first {} were measured.", scenario.steps.len(), steps.len())
    });
    let run = Run { provenance, name, label, targets, scenario, failure: said.clone(), steps, comparison };
    keep(run, options, &stem)?;
    said.map_or(Ok(()), |said| Err(anyhow!(said)))
}

/// Whether a result can be written there, before it takes hours to have one.
fn try_out(folder: &Path, stem: &str) -> Result<()> {
    let wrong = || format!("--out {}: a result cannot be written there", folder.display());
    std::fs::create_dir_all(folder).with_context(wrong)?;
    let file = folder.join(format!("{stem}.json"));
    std::fs::write(&file, "").and_then(|()| std::fs::remove_file(&file)).with_context(wrong)
}

fn keep(run: Run, options: &Options, stem: &str) -> Result<()> {
    let json = serde_json::to_string(&run)?;
    if options.out == Path::new("-") {
        println!("{json}");
        return Ok(());
    }
    print(&run);
    for (ending, content) in [("json", json), ("html", report::page(&[run]))] {
        let file = options.out.join(format!("{stem}.{ending}"));
        std::fs::write(&file, content).with_context(|| file.display().to_string())?;
        println!("{}", file.display());
    }
    Ok(())
}

fn print(run: &Run) {
    for step in &run.steps {
        let offered = step.offered_per_second.map_or("closed".to_owned(), |rate| format!("{rate:.0}/s"));
        let latency = |name: &str| step.all.latency(name).unwrap_or_default();
        println!(
            "{:<20} offered {offered:>9}  goodput {:>8.1}/s  p50 {:>8.2} ms  p99 {:>8.2} ms  rows a batch {}  {}{:?}",
            step.name,
            step.all.goodput_per_second,
            latency("p50"),
            latency("p99"),
            step.batches.mean_batch_rows.map_or("?".to_owned(), |rows| format!("{rows:.1}")),
            step.capacity_per_second.map(|rate| format!("capacity {rate:.0}/s  ")).unwrap_or_default(),
            step.all.outcomes,
        );
        let stolen = step.stolen.filter(|part| *part >= 0.01);
        stolen
            .into_iter()
            .for_each(|part| println!("  of the processors' time the host gave {:.0} % to others", part * 100.0));
        step.unanswered.iter().for_each(|(reason, count)| println!("  no answer, {count} times: {reason}"));
    }
    run.comparison.iter().for_each(|comparison| println!("{}: {}", comparison.step, comparison.sentence));
}
