//! Plays a scenario against one server or several and keeps what was seen: as JSON, and as a page to look at.
//!
//! Latency counts from when a request was to be sent, not from when it was: a server that holds its clients up is not
//! spared what they would have asked meanwhile (Gil Tene's "coordinated omission").

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
mod targets;
mod turns;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lexopt::prelude::*;
use tokio::task::LocalSet;

use self::kept::{Asked, Run};
use self::scenario::Scenario;
use self::targets::Target;
use crate::provenance::Provenance;
use crate::report;

#[derive(Debug)]
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
                Long("name") => name = Some(args.value()?.string()?),
                Long("label") => label = Some(args.value()?.string()?),
                Long("without-deadlines") => without_deadlines = true,
                Long("out") => out = PathBuf::from(args.value()?),
                other => return Err(other.unexpected().into()),
            }
        }
        let scenario = scenario.context("which scenario?")?;
        let stem = scenario.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        ensure!(!targets.is_empty(), "--target is needed");
        Ok(Self { targets, name: name.unwrap_or(stem), label, without_deadlines, scenario, out })
    }
}

pub fn run(options: &Options) -> Result<()> {
    panics::watch();
    let provenance = Provenance::collect(std::thread::available_parallelism()?.get())?;
    let mut scenario = Scenario::read(&options.scenario)?;
    scenario.send_deadline &= !options.without_deadlines;
    let folder = options.scenario.parent().unwrap_or(Path::new("."));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let play = async {
        let mut targets = Vec::new();
        for target in &options.targets {
            let (name, url) = (target.name.clone(), target.url.clone());
            targets.push(Asked { name, url, build: scrape::build(&scrape::scrape(target).await) });
        }
        let (steps, comparison) = steps::play(&options.targets, &scenario, folder).await?;
        anyhow::Ok((targets, steps, comparison))
    };
    let (targets, steps, comparison) = LocalSet::new().block_on(&runtime, play)?;
    let (name, label) = (options.name.clone(), options.label.clone());
    let run = Run { provenance, name, label, targets, scenario, steps, comparison };
    let json = serde_json::to_string(&run)?;
    if options.out == Path::new("-") {
        println!("{json}");
        return Ok(());
    }
    print(&run);
    std::fs::create_dir_all(&options.out)?;
    let stem = format!("{}-{}", run.name, run.provenance.date.replace(':', "-"));
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
    }
    run.comparison.iter().for_each(|comparison| println!("{}: {}", comparison.step, comparison.sentence));
}
