//! `stoker inspect DIR`: what would be served, found out by really loading it.

use std::fmt::Write;
use std::time::Duration;

use crate::config::InspectConfig;
use crate::config::batching::Batching;
use crate::device::host;
use crate::device::watch::Watch;
use crate::engine::joining::Joining;
use crate::error::{Error, Result};
use crate::formats;
use crate::infer::TensorSpec;
use crate::model::loader::open_model;
use crate::model::site::{Gpus, Wanted, sites};
use crate::model::warmup::{WarmedUp, warm_up};
use crate::telemetry::metrics::Metrics;
use crate::text::size;

/// Loads the model, warms it up with the batch sizes that serving would use, and describes it.
///
/// # Errors
/// Whatever `serve` would fail with.
pub fn inspect(config: &InspectConfig) -> Result<String> {
    let files = formats::open(&config.path)?;
    let resident = || host::process_memory().unwrap_or_default().resident_bytes;
    let before = resident();
    let memory_limit = config.backend.gpu.memory_limit.map(|bytes| bytes as u64);
    let wanted = Wanted { choice: &config.device, model: "it", instances: 1, memory_limit };
    let sites = sites(wanted, &files, &Gpus::new(Watch::new(Metrics::default().devices), false))?;
    let site = &sites[0];
    let device = &site.device;
    if device.needs_process() {
        let text = format!("stoker inspect loads models on one device: let CUDA_VISIBLE_DEVICES name {device} alone");
        return Err(Error::load(text));
    }
    let model = open_model(&files, &config.backend, device)?;
    let Batching { policy, joining, .. } = &config.batching;
    let warmed = warm_up(model, policy.max_rows, joining)?;
    let WarmedUp { model, max_rows, joining, signature, longest_batch, note, .. } = warmed;
    let needed = site.measure().unwrap_or_else(|| resident().saturating_sub(before));

    let mut text = String::new();
    let mut line = |key: &str, value: String| writeln!(text, "{key:<9}{value}").expect("writing to a string");
    line("format", files.format.name().to_owned());
    line("file", format!("{} ({})", files.model.display(), size(files.bytes)));
    line("version", files.version.clone().unwrap_or_else(|| "1".to_owned()));
    line("backend", {
        let threads = config.backend.threads.unwrap_or_else(host::cpus);
        format!("{} on {device}, {threads} threads", files.format.platform())
    });
    line("placed", site.why.clone());
    line(
        "batching",
        match joining {
            _ if max_rows == 1 => "no: each request runs alone and whole".to_owned(),
            Joining::Alike => format!("up to {max_rows} rows"),
            Joining::Padded(_) => format!("up to {max_rows} rows, which are filled up to the longest"),
            Joining::Ragged(_) => format!("up to {max_rows} rows of any lengths, one behind the other"),
        },
    );
    line("memory", format!("{} once loaded and warmed up with {max_rows} rows", size(needed)));
    if longest_batch != Duration::MAX {
        line("time", format!("{longest_batch:.1?} for a batch of {max_rows} rows of made-up values"));
    }
    let mut list = |key: &str, specs: &[TensorSpec]| specs.iter().for_each(|spec| line(key, spec.to_string()));
    list("input", &signature.inputs);
    list("output", &signature.outputs);
    for note in files.note.iter().chain(model.notes()).chain(&note) {
        line("note", note.clone());
    }
    text.truncate(text.trim_end().len());
    Ok(text)
}
