//! What a scenario's file says. Unknown fields are mistakes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::checks;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it is to show, for whoever reads the report.
    pub description: String,
    /// How long an answer is worth something.
    pub slo_milliseconds: f64,
    /// Whether requests carry that as their deadline, where the server does not set the pace.
    #[serde(default)]
    pub send_deadline: bool,
    #[serde(default = "Scenario::default_seed")]
    pub seed: u64,
    /// Kinds of requests, mixed by their shares.
    pub traffic: Vec<Traffic>,
    /// One after the other, each measured apart.
    pub steps: Vec<Step>,
    /// How many times they are played, each time for a part of their seconds: what disturbs the machine disturbs all of them.
    #[serde(default = "Scenario::default_rounds")]
    pub rounds: u32,
}

/// Requests of one kind.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    pub name: String,
    #[serde(default = "Traffic::default_share")]
    pub share: f64,
    pub protocol: Protocol,
    pub model: String,
    #[serde(default)]
    pub headers: std::collections::BTreeMap<String, String>,
    /// Made up.
    #[serde(default)]
    pub inputs: Vec<Input>,
    /// Of V1, instead of inputs: a file with the body, beside the scenario.
    pub body: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    V1,
    /// Tensors as JSON.
    V2,
    /// Tensors behind the JSON.
    V2Binary,
    Grpc,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    pub name: String,
    pub datatype: String,
    pub shape: Vec<usize>,
    /// Integers are from 0 to below this, floats from 0 to 1 times this.
    #[serde(default = "Input::default_below")]
    pub below: u32,
    /// Of BYTES: each element is one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub text: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub name: String,
    pub seconds: f64,
    /// At the beginning, not measured.
    #[serde(default)]
    pub warmup_seconds: f64,
    /// Names of the traffic that takes part; by default all of it.
    #[serde(default)]
    pub traffic: Vec<String>,
    /// Kinds of traffic take turns, as their shares say; otherwise they come at random.
    #[serde(default)]
    pub by_turns: bool,
    pub load: Load,
}

/// When requests are sent.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Load {
    /// Each connection sends its next request when the last one is answered.
    Closed { connections: usize },
    /// Whether or not the server keeps up.
    Open {
        arrivals: Arrivals,
        /// A second; or, of the capacity that a step before has found, a part.
        #[serde(default)]
        rate: Option<f64>,
        #[serde(default)]
        of_capacity: Option<f64>,
        /// Grows from nothing to the rate during the step.
        #[serde(default)]
        ramp: bool,
        /// Most requests on their way at once; others wait here, which counts. 4,096 by default.
        #[serde(default)]
        connections: Option<usize>,
    },
    /// The highest rate at which so many requests are answered within the objective.
    Search {
        arrivals: Arrivals,
        #[serde(default = "Load::default_quantile")]
        quantile: f64,
    },
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Arrivals {
    Constant,
    Poisson,
    /// By turns of half a second: three times the rate in a quarter of them, a third in the others.
    Bursty,
    /// Seconds between requests, one a line, over and over; the rate says how fast.
    Trace(PathBuf),
}

impl Scenario {
    fn default_seed() -> u64 {
        1
    }

    fn default_rounds() -> u32 {
        1
    }

    pub fn read(path: &Path) -> Result<Scenario> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Scenario::parse(&text).with_context(|| path.display().to_string())
    }

    pub fn parse(text: &str) -> Result<Scenario> {
        let scenario: Scenario = toml::from_str(text)?;
        let mistakes = checks::mistakes(&scenario);
        ensure!(mistakes.is_empty(), "{}", mistakes.join("\n"));
        Ok(scenario)
    }

    pub fn slo(&self) -> Duration {
        Duration::from_secs_f64(self.slo_milliseconds / 1000.0)
    }
}

impl Step {
    /// Its part of one of so many rounds.
    pub fn of_round(&self, rounds: u32) -> Step {
        Step { seconds: self.seconds / f64::from(rounds), ..self.clone() }
    }

    pub fn takes_part(&self, traffic: &Traffic) -> bool {
        self.traffic.is_empty() || self.traffic.contains(&traffic.name)
    }
}

impl Traffic {
    fn default_share() -> f64 {
        1.0
    }
}

impl Input {
    fn default_below() -> u32 {
        1
    }
}

impl Load {
    fn default_quantile() -> f64 {
        0.99
    }
}

#[cfg(test)]
mod tests {
    use saphyr_parser::{Event, Parser};

    use super::*;

    #[test]
    fn shipped_scenarios_can_be_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let files: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty());
        for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "toml")) {
            Scenario::read(file).unwrap();
        }
    }

    #[test]
    fn the_job_plays_a_scenario_with_few_rights() {
        let job = include_str!("../../job.yaml");
        let events = Parser::new_from_str(job).map(|event| event.unwrap().0);
        let words: Vec<String> = events
            .filter_map(|event| if let Event::Scalar(word, ..) = event { Some(word.into_owned()) } else { None })
            .collect();
        let after = |key: &str| words[words.iter().position(|word| word == key).expect(key) + 1].as_str();
        Scenario::parse(after("capacity.toml")).unwrap();
        assert_eq!(after("run"), "/scenarios/capacity.toml");
        assert_eq!([after("runAsNonRoot"), after("readOnlyRootFilesystem"), after("drop")], ["true", "true", "ALL"]);
        assert_eq!([after("restartPolicy"), after("backoffLimit"), after("type")], ["Never", "0", "RuntimeDefault"]);
    }
}
