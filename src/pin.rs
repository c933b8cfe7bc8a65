//! `stoker pin URI`: what a URI means now, so that it can be asked for again: the version that a name stands for, where
//! that lies, and the digest of its files. A promotion commits that to Git.

use serde::Serialize;

use crate::config::{PinConfig, PinFormat};
use crate::error::{Error, Result};
use crate::source::cache::Wanted;
use crate::source::digest::{self, ModelDigest, Summed};
use crate::source::progress::Progress;
use crate::source::uri::SourceUri;
use crate::source::{Env, Listed, Opened, RemoteFile, Source, exact, open, total_bytes};

/// Annotations of an InferenceService. KServe gives them to the pod, and our runtimes' `STOKER_STORAGE_DIGEST` is the
/// first.
const DIGEST: &str = "stoker.dev/storage-digest";
const PINNED: &str = "stoker.dev/storage-pinned";
const VERSION: &str = "stoker.dev/storage-version";

/// Looks a URI up, brings the model to the cache, and says what it is.
///
/// # Errors
/// As [`open`] and [`Cache::fetch`](crate::source::cache::Cache::fetch).
pub fn pin(config: &PinConfig, env: Env<'_>) -> Result<String> {
    let version = exact(&config.uri, env)?;
    if let SourceUri::Web { url, .. } = &version
        && url.target().contains('?')
    {
        return Err(Error::load(format!(
            "{version}: an address with a query is not pinned: the query may be a secret, and without it the address may \
             lead elsewhere. Put the file where it has an address of its own"
        )));
    }
    let (place, objects, fetched, files) = match open(&version, env)? {
        Opened::Here(path) => {
            let files = digest::sum(&path)?;
            (SourceUri::Local(path.canonicalize().unwrap_or(path)), Vec::new(), None, files)
        }
        Opened::Elsewhere(source) => {
            let listed = Listed::of(&version, source)?;
            let progress = Progress::begin(total_bytes(&listed.manifest));
            let fetched = config.cache.fetch(&Wanted::of(&listed, None, &progress))?;
            let source = &*listed.source;
            let objects = listed.manifest.iter().map(|file| object(source, file)).collect::<Result<_>>()?;
            let files = digest::sum(&fetched.directory)?;
            (source.place().unwrap_or(version.clone()), objects, Some(fetched), files)
        }
    };
    let digest = ModelDigest::of(&files);
    if let Some(fetched) = fetched {
        fetched.remember(&digest);
    }
    let pinned = Pinned {
        uri: config.uri.to_string(),
        version: version.to_string(),
        storage_uri: place.to_string(),
        digest: digest.to_string(),
        files: files.iter().map(file).collect(),
        objects,
    };
    Ok(match config.format {
        PinFormat::Json => serde_json::to_string_pretty(&pinned).expect("plain data"),
        PinFormat::Annotations => pinned.patch(),
    })
}

#[derive(Serialize)]
struct Pinned {
    /// What was asked for.
    uri: String,
    /// The version that this stands for now.
    version: String,
    /// Where it lies; what to write into an InferenceService.
    #[serde(rename = "storageUri")]
    storage_uri: String,
    digest: String,
    /// What is served.
    files: Vec<File>,
    /// What the store has; an archive is one object of many files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    objects: Vec<Object>,
}

#[derive(Serialize)]
struct File {
    path: String,
    bytes: u64,
    sha256: String,
}

#[derive(Serialize)]
struct Object {
    key: String,
    bytes: u64,
    etag: String,
    #[serde(rename = "versionId", skip_serializing_if = "Option::is_none")]
    version: Option<String>,
}

fn file(summed: &Summed) -> File {
    File { path: summed.path.clone(), bytes: summed.bytes, sha256: summed.hex() }
}

fn object(source: &dyn Source, file: &RemoteFile) -> Result<Object> {
    let version = source.version(file)?;
    Ok(Object { key: file.key.clone(), bytes: file.bytes, etag: file.tag.clone(), version })
}

impl Pinned {
    /// As YAML, for `kubectl patch --type=merge` and for what a repository holds.
    fn patch(&self) -> String {
        let quoted = |text: &str| serde_json::to_string(text).expect("text is plain data");
        format!(
            "metadata:\n  annotations:\n    {DIGEST}: {}\n    {PINNED}: {}\n    {VERSION}: {}\n\
             spec:\n  predictor:\n    model:\n      storageUri: {}\n",
            quoted(&self.digest),
            quoted(&self.uri),
            quoted(&self.version),
            quoted(&self.storage_uri)
        )
    }
}
