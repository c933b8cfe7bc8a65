//! `stoker doctor`: the way from a pod to its model, piece by piece, and which of them is at fault. Run it where a server
//! is to run, with the same arguments and environment.

mod machine;
mod network;
mod store;

use serde::Serialize;

use crate::config::DoctorConfig;
use crate::error::{Error, Result};
use crate::source::Env;
use crate::text::table;

/// One piece that was looked at.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// Where it is, e.g. `dns`.
    layer: &'static str,
    /// Of what, e.g. a host.
    of: String,
    state: State,
    /// What was seen, or why it was not looked at.
    seen: String,
    /// What to do, where something is wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    advice: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// Works, but not as one would want it.
    Warning,
    Failed,
    /// Nothing to look at, or something before it is at fault.
    Skipped,
}

impl Finding {
    fn new(layer: &'static str, of: impl Into<String>, state: State, seen: impl Into<String>) -> Finding {
        Finding { layer, of: of.into(), state, seen: seen.into(), advice: String::new() }
    }

    fn ok(layer: &'static str, of: impl Into<String>, seen: impl Into<String>) -> Finding {
        Finding::new(layer, of, State::Ok, seen)
    }

    fn warning(layer: &'static str, of: impl Into<String>, seen: impl Into<String>, advice: &str) -> Finding {
        Finding { advice: advice.to_owned(), ..Finding::new(layer, of, State::Warning, seen) }
    }

    fn failed(layer: &'static str, of: impl Into<String>, seen: impl Into<String>, advice: &str) -> Finding {
        Finding { advice: advice.to_owned(), ..Finding::new(layer, of, State::Failed, seen) }
    }

    fn skipped(layer: &'static str, of: impl Into<String>, why: impl Into<String>) -> Finding {
        Finding::new(layer, of, State::Skipped, why)
    }

    fn has_failed(&self) -> bool {
        self.state == State::Failed
    }
}

/// Looks at everything, and prints it.
///
/// # Errors
/// When something is at fault, with the first.
pub fn doctor(config: &DoctorConfig, env: Env<'_>) -> Result<String> {
    let mut findings = machine::look(&config.serve, env);
    findings.extend(store::look(&config.sources, env));
    let told = if config.json { json(&findings) } else { text(&findings) };
    let failed: Vec<&Finding> = findings.iter().filter(|finding| finding.has_failed()).collect();
    let Some(first) = failed.first() else { return Ok(told) };
    println!("{told}");
    Err(Error::load(format!("{} of {} is at fault: {}", first.layer, first.of, first.seen)))
}

fn json(findings: &[Finding]) -> String {
    serde_json::to_string_pretty(findings).expect("plain data")
}

fn text(findings: &[Finding]) -> String {
    let state = |state| match state {
        State::Ok => "ok",
        State::Warning => "warning",
        State::Failed => "FAILED",
        State::Skipped => "-",
    };
    let row = |finding: &Finding| {
        let Finding { layer, of, seen, .. } = finding;
        [(*layer).to_owned(), of.clone(), state(finding.state).to_owned(), seen.clone()]
    };
    let mut text = table(&["LAYER", "OF", "STATE", "SEEN"], &findings.iter().map(row).collect::<Vec<_>>());
    for finding in findings.iter().filter(|finding| !finding.advice.is_empty()) {
        text.push_str(&format!("\n\n{} of {}: {}", finding.layer, finding.of, finding.advice));
    }
    text
}
