//! A model's files, brought to this machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::phases::Phases;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::formats::tree::Tree;
use crate::source::cache::{Fetched, InUse};
use crate::source::digest::{self, ModelDigest};
use crate::source::direct::{Contents, read_all};
use crate::source::progress::Progress;
use crate::source::uri::SourceUri;
use crate::source::{Opened, Source, archive, fingerprint, identity, name, open, total_bytes};
use crate::telemetry::metrics::Metrics;

/// Where the files are.
pub struct Local {
    pub tree: Tree,
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
    let uri = &config.source;
    let pinned = config.digest.zip(config.cache.clone()).filter(|_| !matches!(uri, SourceUri::Local(_)));
    if let Some((digest, cache)) = pinned
        && let Some(found) = blocking(move || Ok(cache.find(&digest))).await?
    {
        metrics.loads.observe_fetch(uri.scheme(), true, 0);
        return Ok(told(uri, found, started));
    }
    let opened = open_now(config).await?;
    phases.done("resolve");
    let (digest, asked) = (config.digest, uri.clone());
    let source = match opened {
        Opened::Here(path) => return here(path, config, phases).await,
        Opened::Elsewhere(source) => source,
    };
    let name = name(uri, &*source);
    let Some(cache) = config.cache.clone() else {
        let asked = config.source.clone();
        let read = blocking(move || direct(&*source, &asked, &name, digest.as_ref())).await?;
        let steps = [("list", Some(read.listed)), ("first_byte", read.first_byte), ("verify", read.verified)];
        steps.iter().for_each(|(phase, took)| took.iter().for_each(|took| phases.took(phase, *took)));
        metrics.loads.observe_fetch(uri.scheme(), false, read.bytes);
        return Ok(Local {
            tree: Tree::Memory(Arc::new(read.contents)),
            in_use: None,
            fingerprint: Some(read.fingerprint),
        });
    };
    let fetched = blocking(move || cache.fetch(&*source, &name, digest.as_ref())).await?;
    let steps = [("list", fetched.listed), ("first_byte", fetched.first_byte), ("verify", fetched.verified)];
    steps.iter().for_each(|(phase, took)| took.iter().for_each(|took| phases.took(phase, *took)));
    metrics.loads.observe_fetch(asked.scheme(), fetched.cached, fetched.came);
    Ok(told(uri, fetched, started))
}

/// Files that were read straight into memory.
struct Read {
    contents: Contents,
    fingerprint: String,
    bytes: u64,
    listed: Duration,
    first_byte: Option<Duration>,
    verified: Option<Duration>,
}

fn direct(source: &dyn Source, uri: &SourceUri, name: &str, digest: Option<&ModelDigest>) -> Result<Read> {
    let begun = Instant::now();
    let manifest = source.manifest()?;
    let listed = begun.elapsed();
    if manifest.is_empty() {
        return Err(Error::load(format!("{name}: there is no object below it")));
    }
    if archive::single(&manifest).is_some() {
        return Err(Error::load(format!("{name}: an archive is unpacked on the disk: give a --cache_dir")));
    }
    let bytes = total_bytes(&manifest);
    let progress = Progress::begin(bytes);
    let contents = progress.tell(name, || read_all(&progress.of(source), &manifest))?;
    let verified = digest.map(|digest| {
        let begun = Instant::now();
        let found = ModelDigest::of(&digest::sum_contents(&contents));
        digest.check_is(found).map(|()| begun.elapsed()).map_err(|error| error.context(name))
    });
    let (files, seconds) = (manifest.len(), begun.elapsed().as_secs_f64());
    tracing::info!(uri = %uri, files, bytes, seconds, "model fetched into memory");
    let fingerprint = identity(name, &manifest);
    let first_byte = progress.first_byte();
    Ok(Read { contents, fingerprint, bytes, listed, first_byte, verified: verified.transpose()? })
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
    Ok(Local { tree: Tree::Disk(path), in_use: None, fingerprint })
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
    Local { tree: Tree::Disk(directory), in_use: Some(fetched.in_use), fingerprint: fetched.fingerprint }
}

/// Does what waits for disks and networks on a thread of its own.
///
/// # Errors
/// That of the work, or that it panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::load(format!("loading stopped half-way: {error}"))))
}
