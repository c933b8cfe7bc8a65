//! Where models come from. [`uri`] says what a `storageUri` means, [`open`] finds the [`Source`] that lists and reads it,
//! [`transfer`] brings it to a local directory, or [`archive`] when it is one, and a [`cache`] keeps it. A local directory
//! is served in place: ONNX Runtime maps weights that lie beside a graph, so files in it are to be replaced, not written
//! into.
//!
//! Everything here blocks: fetching is done by threads of its own, which do nothing else.

pub mod archive;
pub mod cache;
pub mod checksum;
mod crowd;
pub mod digest;
mod disk;
mod filtered;
pub mod http;
mod hub;
mod journal;
pub mod memory;
mod mlflow;
mod part;
pub mod patterns;
pub mod progress;
pub mod reading;
pub mod s3;
mod several;
mod site;
pub mod transfer;
pub mod uri;
mod web;
mod width;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use self::checksum::Checksum;
use self::digest::ModelDigest;
use self::disk::Disk;
use self::filtered::Filtered;
use self::patterns::Patterns;
use self::s3::handover::HandedOver;
use self::uri::{Mounted, SourceUri};
use crate::error::{Error, Result};

/// Variables of the environment.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where the files of a URI are.
pub enum Opened {
    /// On this machine.
    Here(PathBuf),
    Elsewhere(Box<dyn Source>),
}

/// Finds what reads those files of a URI that are wanted, with its settings from the environment. Names that may come to
/// mean something else are looked up, once. Of what is on this machine all is wanted.
///
/// # Errors
/// When a setting is missing or wrong, or a name means nothing.
pub fn open(uri: &SourceUri, env: Env<'_>) -> Result<Opened> {
    let wanted = Patterns::from_env(env)?;
    Ok(match (uri, find(uri, env)?) {
        // Each of them is asked for what is wanted of it.
        (SourceUri::Several(_), found) => found,
        (_, Opened::Elsewhere(source)) if !wanted.is_all() => {
            Opened::Elsewhere(Box::new(Filtered { source, uri: uri.clone(), wanted }))
        }
        (_, found) => found,
    })
}

/// As [`open`], of all files.
fn find(uri: &SourceUri, env: Env<'_>) -> Result<Opened> {
    Ok(match uri {
        SourceUri::Local(path) => open_local(path, env)?,
        SourceUri::S3 { bucket, prefix } => {
            Opened::Elsewhere(Box::new(s3::S3::new(&s3::settings::from_env(env)?, bucket, prefix)?))
        }
        SourceUri::Hub { repo, revision, path } => {
            Opened::Elsewhere(Box::new(hub::Hub::new(repo, revision, path, env)?))
        }
        SourceUri::Mlflow(name) => mlflow::open(name, env)?,
        SourceUri::Web { url, file } => Opened::Elsewhere(Box::new(web::Web::new(url, file, env)?)),
        SourceUri::Several(parts) => Opened::Elsewhere(Box::new(several::Several::open(parts, env)?)),
    })
}

/// What a path of this machine holds is served in place, unless it only says where the files are, or is an archive.
fn open_local(path: &Path, env: Env<'_>) -> Result<Opened> {
    let disk = || -> Box<dyn Source> { Box::new(Disk(path.to_owned())) };
    if archive::is_alone(path) {
        return Ok(Opened::Elsewhere(disk()));
    }
    let mut handed = HandedOver::find_below(path, env)?;
    let is_all =
        |handed: &(String, HandedOver)| handed.0.is_empty() && disk().manifest().is_ok_and(|own| own.is_empty());
    match handed.len() {
        0 => Ok(Opened::Here(path.to_owned())),
        1 if is_all(&handed[0]) => Ok(Opened::Elsewhere(Box::new(handed.remove(0).1))),
        _ => {
            let handed =
                handed.into_iter().map(|(below, handed)| -> (_, Box<dyn Source>) { (below, Box::new(handed)) });
            let parts = handed.chain([(String::new(), disk())]).collect();
            Ok(Opened::Elsewhere(Box::new(several::Several(parts))))
        }
    }
}

/// What a URI means now, as one that goes on meaning that: aliases and branches become the versions that they name.
///
/// # Errors
/// As [`open`].
pub fn exact(uri: &SourceUri, env: Env<'_>) -> Result<SourceUri> {
    Ok(match uri {
        SourceUri::Hub { repo, revision, path } => {
            let revision = hub::Hub::new(repo, revision, path, env)?.commit().to_owned();
            SourceUri::Hub { repo: repo.clone(), revision, path: path.clone() }
        }
        SourceUri::Mlflow(name) => SourceUri::Mlflow(mlflow::exact(name, env)?),
        SourceUri::Several(parts) => {
            let part = |part: &Mounted| Ok(Mounted { uri: exact(&part.uri, env)?, below: part.below.clone() });
            SourceUri::Several(parts.iter().map(part).collect::<Result<_>>()?)
        }
        SourceUri::Local(_) | SourceUri::S3 { .. } | SourceUri::Web { .. } => uri.clone(),
    })
}

/// What a source is called in a cache, where several names may mean the same place.
pub fn name(uri: &SourceUri, source: &dyn Source) -> String {
    source.place().as_ref().unwrap_or(uri).to_string()
}

/// A source and what it has.
pub struct Listed {
    pub source: Box<dyn Source>,
    pub name: String,
    /// Not empty.
    pub manifest: Vec<RemoteFile>,
}

impl Listed {
    /// Asks what there is.
    ///
    /// # Errors
    /// When it cannot be listed, or has nothing.
    pub fn of(uri: &SourceUri, source: Box<dyn Source>) -> Result<Listed> {
        let (name, manifest) = (name(uri, &*source), source.manifest()?);
        if manifest.is_empty() {
            return Err(Error::load(format!("{name}: there is no object below it")));
        }
        Ok(Listed { source, name, manifest })
    }

    /// What changes when that changes what the source gives.
    pub fn fingerprint(&self) -> String {
        identity(&self.name, &self.manifest)
    }
}

/// As [`Listed::fingerprint`], of a path on this machine.
///
/// # Errors
/// When it cannot be listed.
pub fn fingerprint_here(path: &Path) -> Result<String> {
    Ok(identity(&path.to_string_lossy(), &Disk(path.to_owned()).manifest()?))
}

/// A store of model files.
pub trait Source: Send + Sync {
    /// Everything below the URI, in a stable order. Costs requests, reads no content.
    ///
    /// # Errors
    /// With the step that failed and what to do.
    fn manifest(&self) -> Result<Vec<RemoteFile>>;

    /// Begins to read `range` of a file, exactly as it was when the manifest was made. Once: whoever asks decides whether
    /// to ask again.
    ///
    /// # Errors
    /// Also when the file has changed since.
    fn open(&self, file: &RemoteFile, range: Range<u64>) -> Result<Box<dyn RangeReader + '_>, Trouble>;

    /// What the store says that the whole file sums up to. May cost requests: asked only of files that are read in parts,
    /// for the answer to a request for a whole one says it.
    ///
    /// # Errors
    /// Also when the file has changed since.
    fn checksum(&self, _file: &RemoteFile) -> Result<Option<Checksum>> {
        Ok(None)
    }

    /// What the store calls this state of a file, where it keeps earlier ones, too.
    ///
    /// # Errors
    /// Also when the file has changed since.
    fn version(&self, _file: &RemoteFile) -> Result<Option<String>> {
        Ok(None)
    }

    /// What names the same place without asking anybody what it means, where there is such a name.
    fn place(&self) -> Option<SourceUri> {
        None
    }

    /// What the files have to sum up to, by whoever gave us the source.
    fn pinned(&self) -> Option<ModelDigest> {
        None
    }

    /// How often to ask for the same before giving up.
    fn attempts(&self) -> u32;

    /// Lets all that is being read fail soon, for what is read is not wanted any more.
    fn stop(&self);
}

/// Bytes as they arrive.
pub trait RangeReader {
    /// Fills the buffer, or as much of it as the range has left.
    ///
    /// # Errors
    /// When the connection fails; what was read before counts.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Trouble>;

    /// What the store says that the whole file sums up to, when all of it is being read.
    fn checksum(&self) -> Option<&Checksum> {
        None
    }
}

/// Why something could not be read, and whether to try again.
#[derive(Debug)]
pub struct Trouble {
    pub error: Error,
    /// How long to wait before another attempt; `None` when that would fail just so.
    pub retry: Option<Duration>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// The same for the same content of the same place, and safe as a file name.
pub fn identity(place: &str, manifest: &[RemoteFile]) -> String {
    let mut hash = Sha256::new();
    hash.update(place);
    for file in manifest {
        hash.update(format!("\0{}\0{}\0{}\0{}\0{}", file.path, file.key, file.bytes, file.tag, file.whole));
    }
    hex(&hash.finalize()[..16])
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let byte = |at| text.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    (0..text.len()).step_by(2).map(byte).collect()
}

/// One file of a [`Source`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RemoteFile {
    /// Where it goes below the model directory: relative, `/` between components, no `..`.
    pub path: String,
    /// What the source calls it.
    pub key: String,
    pub bytes: u64,
    /// Changes when the content does; S3's `ETag`.
    pub tag: String,
    /// Whether it can only be read as a whole, from its first byte to its last.
    pub whole: bool,
}

/// Sizes are what a server says: their sum may be more than can be counted.
pub fn total_bytes(manifest: &[RemoteFile]) -> u64 {
    manifest.iter().fold(0, |bytes, file| bytes.saturating_add(file.bytes))
}

/// More files than any model has; a bound on what a mistaken URI costs.
const MAX_FILES: usize = 100_000;

fn check_count(files: usize, place: impl std::fmt::Display) -> Result<()> {
    match files {
        0..=MAX_FILES => Ok(()),
        _ => Err(Error::load(format!("{place}: more than {MAX_FILES} files: is this one model?"))),
    }
}
