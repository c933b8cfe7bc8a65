//! A scenario step by step: what each has shown, and how the targets compare.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::arrivals::Random;
use super::bodies;
use super::comparison::{self, Comparison};
use super::kept::{Batches, Measured};
use super::panics;
use super::player::{Played, Player};
use super::record::{Record, Sample};
use super::scenario::{Scenario, Step};
use super::scrape;
use super::targets::{Target, Watch};

/// What has been seen so far.
#[derive(Default)]
pub struct Seen {
    pub steps: Vec<Measured>,
    /// Of the targets, or of the versions of the model where there is one target.
    pub comparison: Vec<Comparison>,
}

/// What is measured is in `seen` after each step, whatever comes of the next one.
pub async fn play(targets: &[Target], scenario: &Scenario, folder: &Path, seen: &mut Seen) -> Result<()> {
    let mut random = Random(scenario.seed);
    let prepared = scenario.traffic.iter().map(|traffic| bodies::prepare(traffic, folder, &mut random));
    let prepared = prepared.collect::<Result<Vec<_>>>()?;
    let player = Rc::new(Player::new(targets, scenario, prepared, folder)?);
    player.check().await?;
    let mut capacity = None;
    for (number, step) in scenario.steps.iter().enumerate() {
        let watch = Watch::begin(targets).await;
        let seed = scenario.seed.wrapping_add(1 + number as u64);
        let played = tokio::select! {
            played = player.step(step, capacity, seed) => played.with_context(|| format!("step \"{}\"", step.name))?,
            () = watch.go_on(Duration::from_secs_f64(step.warmup_seconds + step.seconds)) => unreachable!("never ends"),
        };
        panics::none_so_far().with_context(|| format!("step \"{}\"", step.name))?;
        capacity = played.capacity.or(capacity);
        let (change, servers) = watch.end().await;
        seen.comparison.extend(compared(&played, step, targets, seed));
        let of_step =
            Measured { servers, batches: scrape::batches(&change), ..measured(&played, scenario, step, targets) };
        let is_unanswered = of_step.all.outcomes.contains_key("no answer");
        seen.steps.push(of_step);
        if is_unanswered {
            player.check_again().await.with_context(|| format!("after step \"{}\"", step.name))?;
        }
    }
    Ok(())
}

fn compared(played: &Played, step: &Step, targets: &[Target], seed: u64) -> Vec<Comparison> {
    let record = played.record.borrow();
    let groups = if targets.len() > 1 { by_target(&record, targets) } else { by_version(&record) };
    let compare = |(name, samples): &(String, Vec<Sample>)| {
        comparison::compare(&step.name, step.seconds, (&groups[0].0, &groups[0].1), (name, samples), seed)
    };
    groups.iter().skip(1).map(compare).collect()
}

fn measured(played: &Played, scenario: &Scenario, step: &Step, targets: &[Target]) -> Measured {
    let lasts = Duration::from_secs_f64(step.seconds);
    let record = played.record.borrow();
    let kinds = scenario.traffic.iter().enumerate().filter(|(_, traffic)| step.takes_part(traffic));
    let of_kind = |number: usize| record.summary(lasts, |sample| usize::from(sample.traffic) == number);
    let of_target = |number: usize| record.summary(lasts, |sample| usize::from(sample.target) == number);
    let of_version = |number: usize| record.summary(lasts, |sample| usize::from(sample.version) == number);
    let (mut by_target, mut by_version) = (Vec::new(), Vec::new());
    if targets.len() > 1 {
        by_target.extend(targets.iter().enumerate().map(|(number, target)| (target.name.clone(), of_target(number))));
    } else if record.versions.len() > 2 {
        by_version
            .extend(versions(&record).into_iter().map(|(number, version)| (version.to_owned(), of_version(number))));
    }
    Measured {
        name: step.name.clone(),
        offered_per_second: played.offered,
        seconds: step.seconds,
        all: record.summary(lasts, |_| true),
        traffic: kinds.map(|(number, traffic)| (traffic.name.clone(), of_kind(number))).collect(),
        targets: by_target,
        versions: by_version,
        tried: played.tried.clone(),
        capacity_per_second: played.capacity,
        sent_late_milliseconds: played.sent_late_milliseconds,
        batches: Batches::default(),
        servers: Vec::new(),
        unanswered: record.unanswered.clone(),
        drift: record.drift(lasts),
    }
}

fn by_target(record: &Record, targets: &[Target]) -> Vec<(String, Vec<Sample>)> {
    let of = |number| record.samples.iter().filter(move |sample| usize::from(sample.target) == number).copied();
    targets.iter().enumerate().map(|(number, target)| (target.name.clone(), of(number).collect())).collect()
}

fn by_version(record: &Record) -> Vec<(String, Vec<Sample>)> {
    let of = |number| record.samples.iter().filter(move |sample| usize::from(sample.version) == number).copied();
    let versions = versions(record).into_iter();
    versions.map(|(number, version)| (format!("version {version}"), of(number).collect())).collect()
}

/// With their indices, the oldest first; without what names none, which is the record's first.
fn versions(record: &Record) -> Vec<(usize, &str)> {
    let mut named: Vec<_> = record.versions.iter().map(String::as_str).enumerate().skip(1).collect();
    named.sort_by_key(|(_, version)| (version.parse::<u64>().unwrap_or(u64::MAX), *version));
    named
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::client::Answer;
    use crate::run::turns::Turn;

    #[test]
    fn versions_go_by_their_numbers() {
        let mut record = Record::new(Duration::from_secs(1));
        for version in [Some("10"), Some("9"), None, Some("b"), Some("9")] {
            let version = version.map(str::to_owned);
            let answer = Ok(Answer { status: 200, version, says_when_to_retry: false, reason: String::new() });
            record.add(Turn { traffic: 0, target: 0, variant: 0 }, Duration::ZERO, Duration::ZERO, &answer);
        }
        let groups = by_version(&record);
        let counts: Vec<_> = groups.iter().map(|(name, samples)| (name.as_str(), samples.len())).collect();
        assert_eq!(counts, [("version 9", 2), ("version 10", 1), ("version b", 1)]);
    }
}
