//! What a step has shown: how many were answered, how fast, and how that went from second to second.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::client::Answer;

/// Microseconds, with three digits, up to ten minutes.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds make sense")
}

/// Of one kind of traffic, or of all.
pub struct Record {
    slo: Duration,
    sent: u64,
    in_time: u64,
    /// By what became of them: a status, or `no answer`.
    outcomes: BTreeMap<String, u64>,
    versions: BTreeMap<String, u64>,
    /// Of those that were refused and told when to come again.
    told_when: u64,
    /// From when a request was to be sent to the end of its answer, of those that were answered.
    answered: Histogram<u64>,
    refused: Histogram<u64>,
    seconds: Vec<Second>,
}

struct Second {
    sent: u64,
    in_time: u64,
    answered: Histogram<u64>,
}

/// As it is kept.
#[derive(Serialize)]
pub struct Summary {
    pub sent_per_second: f64,
    /// Answers within the objective.
    pub goodput_per_second: f64,
    pub answered_per_second: f64,
    pub outcomes: BTreeMap<String, u64>,
    pub versions: BTreeMap<String, u64>,
    pub told_when_to_retry: u64,
    /// Of what was answered, by quantile.
    pub milliseconds: BTreeMap<String, f64>,
    /// Of what was refused.
    pub refusal_milliseconds: BTreeMap<String, f64>,
    /// Pairs of milliseconds and the part of the answers that took no longer.
    pub cdf: Vec<(f64, f64)>,
    /// For each second: sent, in time, and the 50th and 99th percentile in milliseconds.
    pub timeline: Vec<(u64, u64, f64, f64)>,
}

impl Record {
    pub fn new(slo: Duration) -> Record {
        Record {
            slo,
            sent: 0,
            in_time: 0,
            outcomes: BTreeMap::new(),
            versions: BTreeMap::new(),
            told_when: 0,
            answered: histogram(),
            refused: histogram(),
            seconds: Vec::new(),
        }
    }

    /// A request that was to be sent `at` after the measurement began; `latency` is from then on.
    pub fn add(&mut self, at: Duration, latency: Duration, answer: &Result<Answer>) {
        let second = at.as_secs() as usize;
        while self.seconds.len() <= second {
            self.seconds.push(Second { sent: 0, in_time: 0, answered: histogram() });
        }
        let second = &mut self.seconds[second];
        let micros = latency.as_micros() as u64;
        self.sent += 1;
        second.sent += 1;
        let outcome = match answer {
            Ok(Answer { status: 200, version, .. }) => {
                self.answered.saturating_record(micros);
                second.answered.saturating_record(micros);
                if latency <= self.slo {
                    self.in_time += 1;
                    second.in_time += 1;
                }
                let version = version.clone().unwrap_or_else(|| "unnamed".to_owned());
                *self.versions.entry(version).or_default() += 1;
                "200".to_owned()
            }
            Ok(Answer { status, says_when_to_retry, .. }) => {
                self.refused.saturating_record(micros);
                self.told_when += u64::from(*says_when_to_retry);
                status.to_string()
            }
            Err(_) => "no answer".to_owned(),
        };
        *self.outcomes.entry(outcome).or_default() += 1;
    }

    /// Answered within the objective, as part of what was sent.
    pub fn part_in_time(&self) -> f64 {
        self.in_time as f64 / self.sent.max(1) as f64
    }

    pub fn summary(&self, measured: Duration) -> Summary {
        let rate = |count: u64| count as f64 / measured.as_secs_f64();
        let millis = |micros: u64| micros as f64 / 1000.0;
        let quantiles = |histogram: &Histogram<u64>| {
            let named = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
            let named = named.into_iter().filter(|_| !histogram.is_empty());
            named.map(|(name, part)| (name.to_owned(), millis(histogram.value_at_quantile(part)))).collect()
        };
        let parts = (0..=200).map(|step| f64::from(step) / 200.0).chain([0.998, 0.999, 0.9995, 0.9999]);
        let mut cdf: Vec<_> = parts.map(|part| (millis(self.answered.value_at_quantile(part)), part)).collect();
        cdf.sort_by(|a, b| a.1.total_cmp(&b.1));
        let second = |Second { sent, in_time, answered }: &Second| {
            (*sent, *in_time, millis(answered.value_at_quantile(0.5)), millis(answered.value_at_quantile(0.99)))
        };
        Summary {
            sent_per_second: rate(self.sent),
            goodput_per_second: rate(self.in_time),
            answered_per_second: rate(self.answered.len()),
            outcomes: self.outcomes.clone(),
            versions: self.versions.clone(),
            told_when_to_retry: self.told_when,
            milliseconds: quantiles(&self.answered),
            refusal_milliseconds: quantiles(&self.refused),
            cdf,
            timeline: self.seconds.iter().map(second).collect(),
        }
    }

    /// Sent and the 99th percentile of what was answered so far, for a progress line.
    pub fn progress(&self) -> (u64, u64, f64) {
        (self.sent, self.in_time, self.answered.value_at_quantile(0.99) as f64 / 1000.0)
    }
}
