//! What the benchmarks of pure decisions have in common: some rounds in this process, and a file for what they saw.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use lexopt::prelude::*;
use serde::Serialize;

use crate::provenance::Provenance;

#[derive(Debug)]
pub struct Options {
    rounds: usize,
    out: Option<PathBuf>,
}

impl Options {
    pub fn parse(args: &mut lexopt::Parser) -> Result<Self> {
        let (mut rounds, mut out) = (9, None);
        while let Some(arg) = args.next()? {
            match arg {
                Long("rounds") => rounds = args.value()?.parse::<usize>()?.max(1),
                Long("out") => out = Some(PathBuf::from(args.value()?)),
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(Self { rounds, out })
    }

    /// The median of the rounds, in seconds.
    pub fn median(&self, mut round: impl FnMut() -> Duration) -> f64 {
        let mut times: Vec<f64> = (0..self.rounds).map(|_| round().as_secs_f64()).collect();
        times.sort_unstable_by(f64::total_cmp);
        times[times.len() / 2]
    }

    /// Writes what was seen into `--out`, if there is one.
    pub fn keep(&self, name: &str, seen: &impl Serialize) -> Result<()> {
        #[derive(Serialize)]
        struct Report<'a, T> {
            #[serde(flatten)]
            provenance: &'a Provenance,
            #[serde(flatten)]
            seen: &'a T,
        }
        let Some(folder) = &self.out else { return Ok(()) };
        let provenance = Provenance::collect(std::thread::available_parallelism()?.get())?;
        let path = folder.join(format!("{name}-{}.json", provenance.date.replace(':', "-")));
        let report = serde_json::to_vec_pretty(&Report { provenance: &provenance, seen })?;
        std::fs::write(&path, report).with_context(|| path.display().to_string())
    }
}
