//! A scenario step by step: what each has shown, and how the targets compare.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::arrivals::Random;
use super::bodies;
use super::comparison::{self, Comparison};
use super::kept::Measured;
use super::panics;
use super::player::{Played, Player};
use super::record::{Record, Sample};
use super::scenario::{Scenario, Step};
use super::scrape;
use super::stolen::Stolen;
use super::targets::{Target, Watch};

/// What has been seen so far of each step.
#[derive(Default)]
pub struct Seen(Vec<OfStep>);

struct OfStep {
    /// Lasts as long as all rounds so far.
    step: Step,
    record: Rc<RefCell<Record>>,
    rounds: Vec<Played>,
    watch: Watch,
    stolen: Stolen,
    seed: u64,
    /// What came of it when its last round was over: its requests are not kept any longer.
    done: Option<(Measured, Vec<Comparison>)>,
}

/// What is measured is in `seen` after each round of a step, whatever comes of the next one.
pub async fn play(targets: &[Target], scenario: &Scenario, folder: &Path, seen: &mut Seen) -> Result<()> {
    let mut random = Random(scenario.seed);
    let prepared = scenario.traffic.iter().map(|traffic| bodies::prepare(traffic, folder, &mut random));
    let prepared = prepared.collect::<Result<Vec<_>>>()?;
    let player = Rc::new(Player::new(targets, scenario, prepared, folder)?);
    player.check().await?;
    let mut capacity = None;
    let parts: Vec<Step> = scenario.steps.iter().map(|step| step.of_round(scenario.rounds)).collect();
    for (part, number) in (0..scenario.rounds).flat_map(|_| parts.iter().zip(0..)) {
        let seed = scenario.seed.wrapping_add(1 + number as u64);
        let of_step = seen.0.get_mut(number);
        let mut new = of_step.is_none().then(|| OfStep::new(part, player.record(), targets, seed));
        let of_step = of_step.or(new.as_mut()).expect("one of them is there");
        let is_unanswered =
            of_step.round(&player, part, &mut capacity).await.with_context(|| format!("step \"{}\"", part.name))?;
        if of_step.rounds.len() == scenario.rounds as usize {
            of_step.finish(player.record(), scenario, targets);
        }
        seen.0.extend(new);
        if is_unanswered {
            player.check_again().await.with_context(|| format!("after step \"{}\"", part.name))?;
        }
    }
    Ok(())
}

impl Seen {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each step, and how the targets compare, or the versions of the model where there is one target.
    pub fn measured(self, scenario: &Scenario, targets: &[Target]) -> (Vec<Measured>, Vec<Comparison>) {
        let parts = |mut of_step: OfStep| {
            let done = of_step.done.take();
            done.unwrap_or_else(|| (of_step.measured(scenario, targets), of_step.compared(targets)))
        };
        let (steps, comparisons): (Vec<_>, Vec<_>) = self.0.into_iter().map(parts).unzip();
        (steps, comparisons.into_iter().flatten().collect())
    }
}

impl OfStep {
    fn new(part: &Step, record: Rc<RefCell<Record>>, targets: &[Target], seed: u64) -> OfStep {
        let step = Step { seconds: 0.0, ..part.clone() };
        OfStep {
            step,
            record,
            rounds: Vec::new(),
            watch: Watch::new(targets),
            stolen: Stolen::default(),
            seed,
            done: None,
        }
    }

    /// Plays one round. Tells whether there were requests without an answer.
    async fn round(&mut self, player: &Rc<Player>, part: &Step, capacity: &mut Option<f64>) -> Result<bool> {
        self.watch.begin().await;
        self.stolen.begin();
        let unanswered = |record: &Record| record.unanswered.values().sum::<u64>();
        let before = unanswered(&self.record.borrow());
        let seed = self.seed.wrapping_add((self.rounds.len() as u64) << 32);
        let lasts = Duration::from_secs_f64(part.seconds);
        let played = tokio::select! {
            played = player.step(part, *capacity, self.record.clone(), seed) => played?,
            () = self.watch.go_on(Duration::from_secs_f64(part.warmup_seconds) + lasts) => unreachable!("never ends"),
        };
        panics::none_so_far()?;
        *capacity = played.capacity.or(*capacity);
        self.stolen.end();
        self.watch.end().await;
        self.record = played.record.clone(); // a search takes a new one for each rate
        self.record.borrow_mut().round_is_over(lasts);
        self.step.seconds += part.seconds;
        self.rounds.push(played);
        Ok(unanswered(&self.record.borrow()) > before)
    }

    fn finish(&mut self, nothing: Rc<RefCell<Record>>, scenario: &Scenario, targets: &[Target]) {
        self.done = Some((self.measured(scenario, targets), self.compared(targets)));
        self.rounds.clear();
        self.record = nothing;
    }

    fn compared(&self, targets: &[Target]) -> Vec<Comparison> {
        let (step, record, seed) = (&self.step, self.record.borrow(), self.seed);
        let groups = if targets.len() > 1 { by_target(&record, targets) } else { by_version(&record) };
        let compare = |(name, samples): &(String, Vec<Sample>)| {
            comparison::compare(&step.name, step.seconds, (&groups[0].0, &groups[0].1), (name, samples), seed)
        };
        groups.iter().skip(1).map(compare).collect()
    }

    fn measured(&self, scenario: &Scenario, targets: &[Target]) -> Measured {
        let step = &self.step;
        let lasts = Duration::from_secs_f64(step.seconds);
        let record = self.record.borrow();
        let kinds = scenario.traffic.iter().enumerate().filter(|(_, traffic)| step.takes_part(traffic));
        let of_kind = |number: usize| record.summary(lasts, |sample| usize::from(sample.traffic) == number);
        let of_target = |number: usize| record.summary(lasts, |sample| usize::from(sample.target) == number);
        let of_version = |number: usize| record.summary(lasts, |sample| usize::from(sample.version) == number);
        let (mut by_target, mut by_version) = (Vec::new(), Vec::new());
        if targets.len() > 1 {
            by_target
                .extend(targets.iter().enumerate().map(|(number, target)| (target.name.clone(), of_target(number))));
        } else if record.versions.len() > 2 {
            by_version.extend(
                versions(&record).into_iter().map(|(number, version)| (version.to_owned(), of_version(number))),
            );
        }
        let (change, servers) = self.watch.seen();
        let mean = |of: &dyn Fn(&Played) -> Option<f64>| {
            let sum: Option<f64> = self.rounds.iter().map(of).sum();
            sum.map(|sum| sum / self.rounds.len() as f64)
        };
        let (late_most, late_means): (Vec<f64>, Vec<f64>) =
            self.rounds.iter().map(|played| played.sent_late_milliseconds).unzip();
        let late_mean = late_means.iter().sum::<f64>() / self.rounds.len() as f64;
        Measured {
            name: step.name.clone(),
            offered_per_second: mean(&|played| played.offered),
            seconds: step.seconds,
            all: record.summary(lasts, |_| true),
            traffic: kinds.map(|(number, traffic)| (traffic.name.clone(), of_kind(number))).collect(),
            targets: by_target,
            versions: by_version,
            tried: self.rounds.iter().flat_map(|played| played.tried.clone()).collect(),
            capacity_per_second: mean(&|played| played.capacity),
            sent_late_milliseconds: (late_most.into_iter().fold(0.0, f64::max), late_mean),
            batches: scrape::batches(&change),
            servers,
            unanswered: record.unanswered.clone(),
            drift: record.drift(lasts),
            stolen: self.stolen.part(),
        }
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
