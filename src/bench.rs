//! `stoker pull --bench SRC DST`: how fast a model comes to memory and to a directory, beside a raw parallel GET of the
//! same objects by the same threads, whose bytes are thrown away: what store, network and processor give at best.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::{PullConfig, Pulled};
use crate::error::{Error, Result};
use crate::source::transfer::{Transfer, throw_away, transfer, write_error};
use crate::source::{Env, Listed, Opened, RemoteFile, Source, open, total_bytes};

/// Each is measured so often, by turns; told is the middle one.
const ROUNDS: usize = 3;

/// Measures each source; what was found, as text.
///
/// # Errors
/// As [`pull`](crate::pull::pull); also for what is on this machine already.
pub fn bench(config: &PullConfig, env: Env<'_>) -> Result<String> {
    let mut text = String::new();
    for Pulled { uri, directory, .. } in &config.pairs {
        let Opened::Elsewhere(source) = open(uri, env)? else {
            return Err(Error::load(format!("{uri}: is on this machine: there is nothing to measure")));
        };
        let begun = Instant::now();
        let Listed { source, manifest, .. } = Listed::of(uri, source)?;
        let (files, bytes, listed) = (manifest.len(), total_bytes(&manifest), begun.elapsed());
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            times[0].push(timed(|| throw_away(&*source, &manifest))?);
            // Giving the memory back is not part of it.
            let mut contents = None;
            times[1].push(timed(|| {
                contents = Some(Transfer::to_memory(&*source, &manifest, &|_| false)?.run()?.contents);
                Ok(())
            })?);
            drop(contents);
            times[2].push(timed(|| to_disk(&*source, &manifest, directory))?);
        }
        let [raw, memory, disk] = times.map(middle);
        #[allow(clippy::cast_precision_loss)] // nobody reads so many digits
        let megabytes = bytes as f64 / 1e6;
        writeln!(text, "{uri}: {files} files, {megabytes:.1} MB, listed in {:.3} s", listed.as_secs_f64())
            .expect("writing to a string");
        let mut line = |what: &str, took: Duration| {
            let (seconds, ratio) = (took.as_secs_f64(), raw.as_secs_f64() / took.as_secs_f64());
            writeln!(text, "  {what:<32}{:>8.0} MB/s{seconds:>9.3} s{ratio:>7.2} of raw", megabytes / seconds)
                .expect("writing to a string");
        };
        line("raw parallel GET, thrown away", raw);
        line("straight into memory", memory);
        line(&format!("to {}", directory.display()), disk);
    }
    Ok(text)
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begun = Instant::now();
    work().map(|()| begun.elapsed())
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Into a folder in the directory that goes again.
fn to_disk(source: &dyn Source, manifest: &[RemoteFile], directory: &Path) -> Result<()> {
    let failed = |error: std::io::Error| write_error(directory, &error);
    std::fs::create_dir_all(directory).map_err(failed)?;
    let folder = tempfile::Builder::new().prefix(".stoker-bench-").tempdir_in(directory).map_err(failed)?;
    transfer(source, manifest, &folder.path().join("files"), &folder.path().join("parts")).map(drop)
}
