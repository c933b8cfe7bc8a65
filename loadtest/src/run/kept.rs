//! What is kept of a run, as JSON. Fields that came later have defaults: runs that were kept before can be read.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::comparison::Comparison;
use super::scenario::Scenario;
use crate::provenance::Provenance;

#[derive(Deserialize, Serialize)]
pub struct Run {
    #[serde(flatten)]
    pub provenance: Provenance,
    pub name: String,
    /// What it is called beside others.
    #[serde(default)]
    pub label: Option<String>,
    #[serde(default)]
    pub targets: Vec<Asked>,
    pub scenario: Scenario,
    /// Why it was not played to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    pub steps: Vec<Measured>,
    /// Of targets, or of versions of a model, step by step.
    #[serde(default)]
    pub comparison: Vec<Comparison>,
}

/// A server that was asked.
#[derive(Deserialize, Serialize)]
pub struct Asked {
    pub name: String,
    pub url: String,
    /// What its metrics say that it is.
    pub build: Option<String>,
}

#[derive(Deserialize, Serialize)]
pub struct Measured {
    pub name: String,
    /// Requests a second that were to be sent; `None` where the server sets the pace.
    pub offered_per_second: Option<f64>,
    pub seconds: f64,
    pub all: Summary,
    /// By the name of the traffic.
    pub traffic: Vec<(String, Summary)>,
    /// By the name of the target, where there are several.
    #[serde(default)]
    pub targets: Vec<(String, Summary)>,
    /// By the version that answers name, where there are several of one target.
    #[serde(default)]
    pub versions: Vec<(String, Summary)>,
    /// Of a search: each rate that was tried, the part that was answered in time, and the 99th percentile.
    pub tried: Vec<(f64, f64, f64)>,
    pub capacity_per_second: Option<f64>,
    /// Late by how much a request was sent at most and in the mean, in milliseconds: the generator's own fault.
    pub sent_late_milliseconds: (f64, f64),
    /// Of all targets together.
    #[serde(flatten)]
    pub batches: Batches,
    /// What each target says of itself, in their order.
    #[serde(default)]
    pub servers: Vec<Server>,
    /// Why requests had no answer, and how many.
    #[serde(default)]
    pub unanswered: BTreeMap<String, u64>,
    /// Of steps of a minute and more.
    #[serde(default)]
    pub drift: Option<Drift>,
    /// What the host of the generator's machine gave to others of its processors' time.
    #[serde(default)]
    pub stolen: Option<f64>,
}

#[derive(Clone, Default, Deserialize, Serialize)]
pub struct Batches {
    pub mean_batch_rows: Option<f64>,
    /// Pairs of an upper bound and the batches up to it that are in no smaller one.
    pub batch_rows: Vec<(String, f64)>,
}

#[derive(Default, Deserialize, Serialize)]
pub struct Server {
    #[serde(flatten)]
    pub batches: Batches,
    /// What it has counted during the step, by series: requests by code, sums of times.
    #[serde(default)]
    pub counted: BTreeMap<String, f64>,
    /// Pairs of seconds since the step began and resident bytes.
    pub memory: Vec<(f64, f64)>,
}

/// Percentiles in milliseconds, of the first tenth of the step and of the last.
#[derive(Deserialize, Serialize)]
pub struct Drift {
    pub p50: (f64, f64),
    pub p99: (f64, f64),
}

/// Of one kind of requests, or of all.
#[derive(Deserialize, Serialize)]
pub struct Summary {
    pub sent_per_second: f64,
    /// Answers within the objective.
    pub goodput_per_second: f64,
    pub answered_per_second: f64,
    /// Requests by what became of them: a status, or `no answer`.
    pub outcomes: BTreeMap<String, u64>,
    pub versions: BTreeMap<String, u64>,
    /// Of those that were refused and told when to come again.
    pub told_when_to_retry: u64,
    /// Of what was answered, by quantile.
    pub milliseconds: BTreeMap<String, f64>,
    /// Of what was refused.
    pub refusal_milliseconds: BTreeMap<String, f64>,
    /// Pairs of milliseconds and the part of the answers that took no longer.
    pub cdf: Vec<(f64, f64)>,
    /// For each second: sent, in time, and the 50th and 99th percentile in milliseconds, 0 where nothing was answered.
    pub timeline: Vec<(u64, u64, f64, f64)>,
}

impl Run {
    pub fn read(file: &Path) -> Result<Run> {
        let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
        serde_json::from_slice(&bytes).with_context(|| format!("{} is no run of loadtest run", file.display()))
    }

    pub fn label(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.name)
    }
}

impl Summary {
    pub fn answered(&self) -> u64 {
        self.outcomes.get("200").copied().unwrap_or_default()
    }

    pub fn sent(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// A percentile in milliseconds, of those that are named.
    pub fn latency(&self, name: &str) -> Option<f64> {
        self.milliseconds.get(name).copied()
    }
}
