//! A model's files, brought to this machine.

use std::path::PathBuf;
use std::time::Instant;

use super::phases::Phases;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::source::cache::{Fetched, InUse};
use crate::source::uri::SourceUri;
use crate::source::{Opened, fingerprint, name, open};
use crate::telemetry::metrics::Metrics;

/// Where the files are.
pub struct Local {
    pub path: PathBuf,
    /// Keeps them in the cache.
    pub in_use: Option<InUse>,
    /// Of what the source had; `None` when it was not asked.
    pub fingerprint: Option<String>,
}

/// Brings the files here, unless they are, and checks their digest when one is pinned.
///
/// # Errors
/// With the step that failed and what to do.
pub async fn fetch(config: &ModelConfig, metrics: &Metrics, phases: &mut Phases) -> Result<Local> {
    let started = Instant::now();
    let (uri, cache) = (&config.source, config.cache.clone());
    if let (Some(digest), false) = (config.digest, matches!(uri, SourceUri::Local(_))) {
        let cache = cache.clone();
        if let Some(found) = blocking(move || Ok(cache.find(&digest))).await? {
            metrics.loads.observe_fetch(uri.scheme(), true, 0);
            return Ok(told(uri, found, started));
        }
    }
    let opened = open_now(config).await?;
    phases.done("resolve");
    let (digest, asked) = (config.digest, uri.clone());
    let source = match opened {
        Opened::Here(path) => return here(path, config, phases).await,
        Opened::Elsewhere(source) => source,
    };
    let name = name(uri, &*source);
    let fetched = blocking(move || cache.fetch(&*source, &name, digest.as_ref())).await?;
    let steps = [("list", fetched.listed), ("first_byte", fetched.first_byte), ("verify", fetched.verified)];
    steps.iter().for_each(|(phase, took)| took.iter().for_each(|took| phases.took(phase, *took)));
    metrics.loads.observe_fetch(asked.scheme(), fetched.cached, fetched.came);
    Ok(told(uri, fetched, started))
}

/// Files that are here from the start.
async fn here(path: PathBuf, config: &ModelConfig, phases: &mut Phases) -> Result<Local> {
    if let Some(digest) = config.digest {
        let (checked, of) = (path.clone(), config.source.to_string());
        blocking(move || digest.check(&checked).map_err(|error| error.context(of))).await?;
        phases.done("verify");
    }
    let (uri, opened) = (config.source.clone(), Opened::Here(path.clone()));
    // Without one, the load says what is wrong.
    let fingerprint = blocking(move || fingerprint(&uri, &opened)).await.ok();
    Ok(Local { path, in_use: None, fingerprint })
}

/// What [`Local::fingerprint`] would be by now.
///
/// # Errors
/// As [`fetch`].
pub async fn current(config: &ModelConfig) -> Result<String> {
    let (uri, opened) = (config.source.clone(), open_now(config).await?);
    blocking(move || fingerprint(&uri, &opened)).await
}

async fn open_now(config: &ModelConfig) -> Result<Opened> {
    let uri = config.source.clone();
    blocking(move || open(&uri, &|name| std::env::var(name).ok())).await
}

/// Says what has been fetched.
fn told(uri: &SourceUri, fetched: Fetched, started: Instant) -> Local {
    let directory = fetched.directory;
    tracing::info!(
        uri = %uri,
        files = fetched.files,
        bytes = fetched.bytes,
        cached = fetched.cached,
        seconds = started.elapsed().as_secs_f64(),
        directory = %directory.display(),
        "model fetched"
    );
    Local { path: directory, in_use: Some(fetched.in_use), fingerprint: fetched.fingerprint }
}

/// Does what waits for disks and networks on a thread of its own.
///
/// # Errors
/// That of the work, or that it panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::load(format!("loading stopped half-way: {error}"))))
}
