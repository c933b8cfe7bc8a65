//! A model's files, brought to this machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::phases::Phases;
use crate::config::ModelConfig;
use crate::content::Contents;
use crate::error::{Error, Result};
use crate::formats::tree::{Coming, Tree};
use crate::formats::{self, FileEntry};
use crate::source::cache::{Begun, Cache, Early, Fetched, InUse, Wanted};
use crate::source::digest::{self, ModelDigest};
use crate::source::progress::Progress;
use crate::source::transfer::Transfer;
use crate::source::uri::SourceUri;
use crate::source::{Listed, Opened, RemoteFile, archive, fingerprint_here, open, total_bytes};
use crate::telemetry::metrics::Metrics;

/// Where the files are.
pub struct Local {
    pub tree: Tree,
    /// Keeps them in the cache.
    pub in_use: Option<InUse>,
    /// Of what the source had; `None` when it was not asked.
    pub fingerprint: Option<String>,
    /// Whether what was given to whoever begins early turned out to be so.
    pub is_as_begun: bool,
}

/// What the source has, and how long it took to find it and to list it.
pub struct Look {
    begun: Instant,
    found: Found,
    resolved: Duration,
    listed: Duration,
}

enum Found {
    /// On this machine, with its fingerprint.
    Here(PathBuf, std::result::Result<String, String>),
    Elsewhere(Listed),
}

impl Look {
    /// When somebody began to look.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// What changes when that changes what would be served.
    ///
    /// # Errors
    /// When a directory of this machine cannot be listed.
    pub fn fingerprint(&self) -> Result<String> {
        match &self.found {
            Found::Here(_, fingerprint) => fingerprint.clone().map_err(Error::load),
            Found::Elsewhere(listed) => Ok(listed.fingerprint()),
        }
    }
}

/// Looks what the source has.
///
/// # Errors
/// With the step that failed and what to do.
pub async fn look(config: &ModelConfig) -> Result<Look> {
    let uri = config.source.clone();
    blocking(move || {
        let begun = Instant::now();
        let opened = open(&uri, &|name| std::env::var(name).ok())?;
        let (resolved, listing) = (begun.elapsed(), Instant::now());
        let found = match opened {
            Opened::Here(path) => {
                let fingerprint = fingerprint_here(&path).map_err(|error| error.to_string());
                Found::Here(path, fingerprint)
            }
            Opened::Elsewhere(source) => Found::Elsewhere(Listed::of(&uri, source)?),
        };
        Ok(Look { begun, found, resolved, listed: listing.elapsed() })
    })
    .await
}

/// Brings the files here, unless they are, and checks their digest when one is pinned. What the source has is looked up
/// unless somebody already has. Files that come are given to `begin` while they do, once.
///
/// # Errors
/// With the step that failed and what to do.
pub async fn fetch(
    config: &ModelConfig,
    look_before: Option<Look>,
    metrics: &Metrics,
    phases: &mut Phases,
    begin: impl Fn(Tree) + Send + Sync + 'static,
) -> Result<Local> {
    let started = Instant::now();
    let uri = &config.source;
    let pinned = config.digest.zip(config.cache.clone()).filter(|_| !matches!(uri, SourceUri::Local(_)));
    if let Some((digest, cache)) = pinned
        && let Some(found) = blocking(move || Ok(cache.find(&digest))).await?
    {
        metrics.loads.observe_fetch(true);
        return Ok(told(uri, found, None, started));
    }
    let Look { found, resolved, listed: took, .. } = match look_before {
        Some(look) => look,
        None => look(config).await?,
    };
    phases.took("resolve", resolved);
    let listed = match found {
        // Without a fingerprint, the load says what is wrong.
        Found::Here(path, fingerprint) => return here(path, fingerprint.ok(), config, phases).await,
        Found::Elsewhere(listed) => listed,
    };
    phases.took("list", took);
    let digest = config.digest.or_else(|| listed.source.pinned());
    // A directory may only say where the files are.
    let place = listed.source.place().filter(|_| matches!(uri, SourceUri::Local(_)));
    let uri = place.as_ref().unwrap_or(uri);
    let begin = move |Begun { manifest, directory, contents }| begin(coming(&manifest, directory, contents));
    let bytes = total_bytes(&listed.manifest);
    let progress = Progress::watched(bytes, metrics.loads.download(uri.scheme(), &config.name, bytes));
    let (cache, of) = (config.cache.clone(), uri.clone());
    let (brought, progress) = blocking(move || {
        let bringing = Bringing { listed: &listed, digest: digest.as_ref(), progress: &progress, begin: &begin };
        let brought = match &cache {
            Some(cache) => bringing.to_disk(cache, &of, started),
            None => bringing.to_memory(&of),
        };
        Ok((brought?, progress))
    })
    .await?;
    progress.first_byte().iter().for_each(|took| phases.took("first_byte", *took));
    brought.verified.iter().for_each(|took| phases.took("verify", *took));
    metrics.loads.observe_fetch(brought.cached);
    Ok(brought.local)
}

/// Files on their way.
fn coming(manifest: &[RemoteFile], directory: Option<PathBuf>, contents: Contents) -> Tree {
    let file = |file: &RemoteFile| FileEntry { path: file.path.clone(), bytes: file.bytes };
    let files = manifest.iter().map(file).collect();
    match directory {
        Some(directory) => Tree::Coming(Arc::new(Coming { directory, files, contents: Arc::new(contents) })),
        None => Tree::Memory(Arc::new(contents)),
    }
}

/// A model on its way here.
struct Bringing<'a> {
    listed: &'a Listed,
    digest: Option<&'a ModelDigest>,
    progress: &'a Progress,
    begin: &'a (dyn Fn(Begun) + Sync),
}

struct Brought {
    local: Local,
    cached: bool,
    /// How long it took to know that its digest is the one that is pinned, when one is.
    verified: Option<Duration>,
}

impl Bringing<'_> {
    fn to_disk(&self, cache: &Cache, uri: &SourceUri, started: Instant) -> Result<Brought> {
        let early = Early { wants: formats::is_read_early, begin: self.begin };
        let wanted = Wanted { early: Some(&early), ..Wanted::of(self.listed, self.digest, self.progress) };
        let fetched = cache.fetch(&wanted)?;
        let (cached, verified) = (fetched.cached, fetched.verified);
        Ok(Brought { local: told(uri, fetched, Some(self.listed.fingerprint()), started), cached, verified })
    }

    /// Straight into memory.
    fn to_memory(&self, uri: &SourceUri) -> Result<Brought> {
        let Listed { source, name, manifest } = self.listed;
        let begun = Instant::now();
        if archive::single(manifest).is_some() {
            return Err(Error::load(format!("{name}: an archive is unpacked on the disk: give a --cache_dir")));
        }
        let counted = self.progress.of(&**source);
        let transfer = Transfer::to_memory(&counted, manifest, &formats::is_read_early)?;
        (self.begin)(Begun { manifest: manifest.clone(), directory: None, contents: transfer.contents() });
        let moved = self.progress.tell(name, || transfer.run())?;
        let verified = self.digest.map(|digest| {
            let begun = Instant::now();
            let found = ModelDigest::of(&digest::sum_contents(&moved.contents));
            digest.check_is(found).map(|()| begun.elapsed()).map_err(|error| error.context(name))
        });
        let verified = verified.transpose()?;
        let (files, bytes, seconds) = (manifest.len(), total_bytes(manifest), begun.elapsed().as_secs_f64());
        tracing::info!(uri = %uri, files, bytes, seconds, "model fetched into memory");
        let tree = Tree::Memory(Arc::new(moved.contents));
        let fingerprint = Some(self.listed.fingerprint());
        let local = Local { tree, in_use: None, fingerprint, is_as_begun: moved.is_as_begun };
        Ok(Brought { local, cached: false, verified })
    }
}

/// Files that are here from the start.
async fn here(path: PathBuf, fingerprint: Option<String>, config: &ModelConfig, phases: &mut Phases) -> Result<Local> {
    if let Some(digest) = config.digest {
        let (checked, of) = (path.clone(), config.source.to_string());
        blocking(move || digest.check(&checked).map_err(|error| error.context(of))).await?;
        phases.done("verify");
    }
    Ok(Local { tree: Tree::Disk(path), in_use: None, fingerprint, is_as_begun: true })
}

/// Says what has been fetched.
fn told(uri: &SourceUri, fetched: Fetched, fingerprint: Option<String>, started: Instant) -> Local {
    let Fetched { directory, in_use, is_as_begun, .. } = fetched;
    tracing::info!(
        uri = %uri,
        files = fetched.files,
        bytes = fetched.bytes,
        cached = fetched.cached,
        seconds = started.elapsed().as_secs_f64(),
        directory = %directory.display(),
        "model fetched"
    );
    Local { tree: Tree::Disk(directory), in_use: Some(in_use), fingerprint, is_as_begun }
}

/// Does what waits for disks and networks on a thread of its own.
///
/// # Errors
/// That of the work, or that it panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::load(format!("loading stopped half-way: {error}"))))
}
