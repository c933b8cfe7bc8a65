//! The result of the experiment: what a round measured, what the rounds come to, and how that is
//! kept (JSON) and shown (markdown).

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::provenance::Provenance;

/// A core this busy is what limits the rate.
const SATURATED: f64 = 0.9;

#[derive(Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub provenance: Provenance,
    pub server_core: usize,
    pub generator_core: usize,
    pub measured_seconds: u64,
    pub request: &'static str,
    pub answer: String,
    pub comparisons: Vec<Comparison>,
}

#[derive(Serialize)]
pub struct Comparison {
    connections: usize,
    /// Stoker's median rate over the bare server's.
    ratio: f64,
    stoker: Side,
    bare: Side,
    /// Another server of the same model, when there was one, and stoker's median rate over its.
    peer: Option<Side>,
    times_peer: Option<f64>,
}

#[derive(Serialize)]
struct Side {
    bottleneck: Bottleneck,
    /// Each field the median of that field over the rounds, except `wrong`, which is their sum.
    median: Measurement,
    rounds: Vec<Measurement>,
}

#[derive(Serialize)]
pub struct Measurement {
    /// Right answers only.
    pub requests_per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// CPU time over wall time, 1 being a whole core: the server's, the generator's, and what
    /// anything else, the hypervisor included, took of the two cores.
    pub server_cpu: f64,
    pub generator_cpu: f64,
    pub other_cpu: f64,
    /// The server's CPU time over its right answers. A server that is not saturated pays more, for
    /// going to sleep and waking between requests.
    pub server_us_per_request: f64,
    pub wrong: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Bottleneck {
    Server,
    Generator,
    Both,
    /// The round trip, with few connections, or other work on the cores.
    Neither,
}

impl Comparison {
    pub fn new(
        connections: usize,
        stoker: Vec<Measurement>,
        bare: Vec<Measurement>,
        peer: Option<Vec<Measurement>>,
    ) -> Self {
        let (stoker, bare, peer) = (Side::new(stoker), Side::new(bare), peer.map(Side::new));
        let over = |side: &Side| stoker.median.requests_per_second / side.median.requests_per_second;
        Self { connections, ratio: over(&bare), times_peer: peer.as_ref().map(over), stoker, bare, peer }
    }

    fn sides(&self) -> impl Iterator<Item = (&'static str, &Side)> {
        [("stoker", &self.stoker), ("bare", &self.bare)].into_iter().chain(self.peer.iter().map(|side| ("peer", side)))
    }
}

impl Side {
    fn new(rounds: Vec<Measurement>) -> Self {
        let median = |field: fn(&Measurement) -> f64| median(rounds.iter().map(field).collect());
        let median = Measurement {
            requests_per_second: median(|round| round.requests_per_second),
            p50_us: median(|round| round.p50_us),
            p99_us: median(|round| round.p99_us),
            server_cpu: median(|round| round.server_cpu),
            generator_cpu: median(|round| round.generator_cpu),
            other_cpu: median(|round| round.other_cpu),
            server_us_per_request: median(|round| round.server_us_per_request),
            wrong: rounds.iter().map(|round| round.wrong).sum(),
        };
        Self { bottleneck: Bottleneck::of(&median), median, rounds }
    }
}

impl Bottleneck {
    fn of(measurement: &Measurement) -> Self {
        match (measurement.server_cpu >= SATURATED, measurement.generator_cpu >= SATURATED) {
            (true, false) => Self::Server,
            (false, true) => Self::Generator,
            (true, true) => Self::Both,
            (false, false) => Self::Neither,
        }
    }
}

impl Report {
    pub fn wrong(&self) -> u64 {
        self.comparisons.iter().flat_map(Comparison::sides).map(|(_, side)| side.median.wrong).sum()
    }

    /// Writes the report to a file named after the experiment and the time.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let time = self.provenance.date.replace(':', "-");
        let file = folder.join(format!("http-floor-{time}.json"));
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&file, serde_json::to_string_pretty(self)? + "\n"))
            .with_context(|| format!("writing {}", file.display()))?;
        eprintln!("written to {}", file.display());
        Ok(())
    }

    pub fn markdown(&self) -> String {
        let provenance = &self.provenance;
        let mut text = format!(
            "`{}`\n\n{}, commit {}, {}, {} cores, Linux {}; servers on core {}, generator on core \
             {}; answer {} bytes\n",
            provenance.command,
            provenance.date,
            provenance.commit.as_deref().unwrap_or("unknown"),
            provenance.cpu,
            provenance.cores,
            provenance.kernel,
            self.server_core,
            self.generator_core,
            self.answer.len(),
        );
        for comparison in &self.comparisons {
            comparison.write_markdown(&mut text);
        }
        text
    }
}

impl Comparison {
    fn write_markdown(&self, text: &mut String) {
        let times_peer =
            self.times_peer.map(|times| format!(", and **{times:.0}** times the peer's")).unwrap_or_default();
        *text += &format!(
            "\n{} connections: stoker answers **{:.3}** of the bare server's requests per second{times_peer}\n\n\
             | server | round | requests/s | p50 µs | p99 µs | server CPU | generator CPU \
             | other CPU | server CPU µs/request | wrong |\n\
             |---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
            self.connections, self.ratio
        );
        for (name, side) in self.sides() {
            for (number, round) in (1..).zip(&side.rounds) {
                round.write_row(text, name, &number.to_string());
            }
        }
        for (name, side) in self.sides() {
            side.median.write_row(text, name, "**median**");
        }
        for (name, side) in self.sides() {
            let _ = write!(text, "\nThe bottleneck of {name}: {:?}.", side.bottleneck);
            if side.median.server_cpu < SATURATED {
                let _ = write!(
                    text,
                    " WARNING: it used {:.2} of its core, so this rate is not its capacity; other \
                     work took {:.2} of the two cores.",
                    side.median.server_cpu, side.median.other_cpu
                );
            }
            text.push('\n');
        }
    }
}

impl Measurement {
    fn write_row(&self, text: &mut String, name: &str, round: &str) {
        let _ = writeln!(
            text,
            "| {name} | {round} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {} |",
            self.requests_per_second,
            self.p50_us,
            self.p99_us,
            self.server_cpu,
            self.generator_cpu,
            self.other_cpu,
            self.server_us_per_request,
            self.wrong,
        );
    }
}

/// The middle value, or the mean of the middle two. `values` is not empty.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(requests_per_second: f64, server_cpu: f64) -> Measurement {
        Measurement {
            requests_per_second,
            p50_us: 1.0,
            p99_us: 2.0,
            server_cpu,
            generator_cpu: 0.5,
            other_cpu: 0.0,
            server_us_per_request: 1.0,
            wrong: 1,
        }
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_middle_two() {
        assert_eq!(median(vec![3.0]), 3.0);
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![9.0, 1.0, 2.0, 4.0]), 3.0);
    }

    #[test]
    fn the_ratio_is_of_medians_and_every_wrong_answer_counts() {
        let stoker = [30.0, 50.0, 1000.0].map(|rate| measurement(rate, 1.0));
        let bare = [100.0, 1.0, 110.0].map(|rate| measurement(rate, 1.0));
        let comparison = Comparison::new(64, stoker.into(), bare.into(), None);
        assert_eq!(comparison.ratio, 0.5);
        assert_eq!(comparison.stoker.median.wrong, 3);
    }

    #[test]
    fn a_rate_that_is_not_the_server_s_capacity_is_marked() {
        let [stoker, bare] = [0.95, 0.85].map(|core| vec![measurement(10.0, core)]);
        let comparison = Comparison::new(64, stoker, bare, None);
        assert_eq!(comparison.stoker.bottleneck, Bottleneck::Server);
        assert_eq!(comparison.bare.bottleneck, Bottleneck::Neither);

        let mut text = String::new();
        comparison.write_markdown(&mut text);
        assert_eq!(text.matches("WARNING").count(), 1);
    }
}
