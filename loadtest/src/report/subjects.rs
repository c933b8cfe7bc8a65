//! Who is shown beside whom: runs, the targets of a run, or the versions that one target answered with.

use crate::run::kept::{Batches, Measured, Run, Server, Summary};
use crate::run::scenario::Load;

pub struct Subject<'a> {
    pub label: String,
    pub run: &'a Run,
    part: Part,
}

#[derive(Clone)]
enum Part {
    Whole,
    Target(usize),
    Version(String),
}

/// Everything that latencies and rates are told of.
pub fn subjects(runs: &[Run]) -> Vec<Subject<'_>> {
    runs.iter().flat_map(|run| parts(run).into_iter().map(|part| subject(runs, run, part))).collect()
}

/// Everything that has metrics of its own.
pub fn servers(runs: &[Run]) -> Vec<Subject<'_>> {
    let targets = |run: &Run| {
        let parts = parts(run).into_iter().filter(|part| !matches!(part, Part::Version(_)));
        let parts: Vec<_> = parts.collect();
        if parts.is_empty() { vec![Part::Whole] } else { parts }
    };
    runs.iter().flat_map(|run| targets(run).into_iter().map(|part| subject(runs, run, part))).collect()
}

fn parts(run: &Run) -> Vec<Part> {
    let mut versions: Vec<String> = Vec::new();
    for (version, _) in run.steps.iter().flat_map(|step| &step.versions) {
        if !versions.contains(version) {
            versions.push(version.clone());
        }
    }
    match (run.targets.len(), versions.is_empty()) {
        (2.., _) => (0..run.targets.len()).map(Part::Target).collect(),
        (_, false) => versions.into_iter().map(Part::Version).collect(),
        (_, true) => vec![Part::Whole],
    }
}

fn subject<'a>(runs: &[Run], run: &'a Run, part: Part) -> Subject<'a> {
    let of_run = match &part {
        Part::Whole => None,
        Part::Target(number) => Some(run.targets[*number].name.clone()),
        Part::Version(version) => Some(format!("version {version}")),
    };
    let label = match of_run {
        None => run.label().to_owned(),
        Some(part) if runs.len() > 1 => format!("{}, {part}", run.label()),
        Some(part) => part,
    };
    Subject { label, run, part }
}

/// Names of steps, as the first run that has them orders them.
pub fn step_names(runs: &[Run]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for step in runs.iter().flat_map(|run| &run.steps) {
        if !names.contains(&step.name.as_str()) {
            names.push(&step.name);
        }
    }
    names
}

impl<'a> Subject<'a> {
    pub fn step(&self, name: &str) -> Option<&'a Measured> {
        self.run.steps.iter().find(|step| step.name == name)
    }

    pub fn summary(&self, step: &'a Measured) -> Option<&'a Summary> {
        match &self.part {
            Part::Whole => Some(&step.all),
            Part::Target(number) => step.targets.get(*number).map(|(_, summary)| summary),
            Part::Version(version) => {
                step.versions.iter().find(|(named, _)| named == version).map(|(_, summary)| summary)
            }
        }
    }

    /// Requests a second: its part of what was to be sent at a rate that stayed the same.
    pub fn offered(&self, step: &Measured) -> Option<f64> {
        let load = &self.run.scenario.steps.iter().find(|planned| planned.name == step.name)?.load;
        if matches!(load, Load::Open { ramp: true, .. }) {
            return None;
        }
        let own = self.summary(step)?.sent() as f64;
        Some(step.offered_per_second? * own / step.all.sent().max(1) as f64)
    }

    /// Rates that a search has tried, with the part answered in time and the 99th percentile; they are not told apart
    /// by target or version.
    pub fn tried(&self, step: &'a Measured) -> &'a [(f64, f64, f64)] {
        if matches!(self.part, Part::Whole) { &step.tried } else { &[] }
    }

    pub fn batches(&self, step: &'a Measured) -> Option<&'a Batches> {
        match self.part {
            Part::Whole => Some(&step.batches),
            Part::Target(number) => step.servers.get(number).map(|server| &server.batches),
            Part::Version(_) => None,
        }
    }

    pub fn server(&self, step: &'a Measured) -> Option<&'a Server> {
        let number = if let Part::Target(number) = self.part { number } else { 0 };
        step.servers.get(number)
    }

    /// Points of steps with the same key lie on one line: they ask the same in the same way, at other rates.
    pub fn kind(&self, step: &Measured) -> String {
        let planned = self.run.scenario.steps.iter().find(|planned| planned.name == step.name);
        let arrivals = planned.and_then(|planned| match &planned.load {
            Load::Open { arrivals, .. } | Load::Search { arrivals, .. } => Some(arrivals.clone()),
            Load::Closed { .. } => None,
        });
        format!("{arrivals:?} {:?}", planned.map(|planned| (&planned.traffic, planned.by_turns)))
    }
}
