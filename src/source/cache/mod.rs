//! Models on this machine's disk, shared by all processes that are given the same directory.
//!
//! ```text
//! KEY/files/...      a model; KEY is a hash of what the manifest says
//! KEY/index.json     its files and their checksums; locked (shared) by whoever uses the model
//! KEY/boot           the boot id under which it was last known to be whole
//! KEY/digest         its digest, once somebody has asked for it
//! KEY.partial/       a model on its way here: files, and the journal of what is there of them
//! KEY.lock           locked by whoever brings it; others wait, and read in it why that failed
//! ```
//!
//! A model appears under its name by a rename when it is complete. Nothing waits for the disk: after a machine's restart
//! checksums tell what has reached it.

mod evict;
mod index;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::index::{Entry, FILES, Index};
use super::digest::{self, ModelDigest};
use super::progress::Progress;
use super::transfer::Transfer;
use super::{Listed, RemoteFile, Source, archive, identity, total_bytes};
use crate::content::Contents;
use crate::error::{Error, Result};

/// Where models are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    pub directory: PathBuf,
    /// Beyond so many bytes, models that nobody uses go, the longest unused first.
    pub max_bytes: Option<u64>,
    /// Most that a model that is one archive may unpack to.
    pub max_unpacked_bytes: u64,
}

/// A model that is here.
pub struct Fetched {
    pub directory: PathBuf,
    pub files: usize,
    pub bytes: u64,
    /// Whether it was all there from before.
    pub cached: bool,
    /// How long it took to know that its digest is the one that is pinned, when one is.
    pub verified: Option<Duration>,
    /// Whether what was given to whoever begins [`Early`] turned out to be so.
    pub is_as_begun: bool,
    /// Keeps it from going.
    pub in_use: InUse,
}

/// What to bring.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    pub source: &'a dyn Source,
    pub name: &'a str,
    /// What there is at the source.
    pub manifest: &'a [RemoteFile],
    /// What the files' digest has to be.
    pub pinned: Option<&'a ModelDigest>,
    pub early: Option<&'a Early<'a>>,
    /// Of all that there is.
    pub progress: &'a Progress,
}

impl<'a> Wanted<'a> {
    /// All that there is, when it is complete.
    pub fn of(listed: &'a Listed, pinned: Option<&'a ModelDigest>, progress: &'a Progress) -> Wanted<'a> {
        let Listed { source, name, manifest } = listed;
        Wanted { source: &**source, name, manifest, pinned, early: None, progress }
    }
}

/// For whoever begins to work on a model while it comes.
pub struct Early<'a> {
    /// Whether a file with this path is wanted in memory as well.
    pub wants: fn(&str) -> bool,
    /// Called once, when files begin to come: not for a model that is there, nor for one that is an archive.
    pub begin: &'a (dyn Fn(Begun) + Sync),
}

/// A model on its way.
pub struct Begun {
    /// All that will be there.
    pub manifest: Vec<RemoteFile>,
    /// Where it will be; nothing, when it is only in memory.
    pub directory: Option<PathBuf>,
    /// What can be read of it while it comes, not known to be right yet.
    pub contents: Contents,
}

impl Fetched {
    /// Keeps the digest of the model's files, so that nobody works it out again.
    pub fn remember(&self, digest: &ModelDigest) {
        self.directory.parent().inspect(|folder| remember(folder, digest));
    }
}

/// A shared lock on a model's index.
pub struct InUse(#[allow(dead_code, reason = "held, not read")] File);

impl Cache {
    /// A model with this digest, if there is one here. Asks nobody, whatever it is called elsewhere.
    pub fn find(&self, pinned: &ModelDigest) -> Option<Fetched> {
        let mut models = evict::models(&self.directory).into_iter();
        let (folder, index) = models.find(|(folder, _)| known_digest(folder) == Some(*pinned))?;
        let in_use = reuse(&folder)?;
        Some(Fetched {
            directory: folder.join(FILES),
            files: index.files.len(),
            bytes: index.files.iter().map(|file| file.bytes).sum(),
            cached: true,
            verified: None,
            is_as_begun: true,
            in_use,
        })
    }

    /// Removes what is not used any more and beyond the limit.
    pub fn tidy(&self) {
        evict::make_room(self, 0, &self.directory);
    }

    /// Brings the source's files here, unless they are. Waits for whoever is bringing the same.
    ///
    /// # Errors
    /// When the source fails, when the directory cannot be written, or when the files have another digest
    /// than the one that is pinned.
    pub fn fetch(&self, wanted: &Wanted<'_>) -> Result<Fetched> {
        let Wanted { source, name, manifest, pinned, progress, .. } = *wanted;
        let failed = |error: io::Error| Error::load(format!("cache directory {}: {error}", self.directory.display()));
        let target = self.directory.join(identity(name, manifest));
        let bytes = total_bytes(manifest);
        let fetched = |in_use, verified, cached, is_as_begun| {
            Ok(Fetched {
                directory: target.join(FILES),
                files: manifest.len(),
                bytes,
                cached,
                verified,
                is_as_begun,
                in_use,
            })
        };
        if let Some(in_use) = reuse(&target) {
            evict::make_room(self, 0, &target);
            return fetched(in_use, verify(&target, name, pinned)?, true, true);
        }
        std::fs::create_dir_all(&self.directory).map_err(failed)?;
        let bringing = match Bringing::begin(target.with_extension(LOCK), PATIENCE).map_err(failed)? {
            Turn::Ours(bringing) => bringing,
            Turn::Failed(reason) => {
                return Err(Error::load(format!(
                    "{reason} (told by the process that was bringing the model for others)"
                )));
            }
        };
        if let Some(in_use) = reuse(&target) {
            return fetched(in_use, verify(&target, name, pinned)?, true, true);
        }
        evict::discard(&target).map_err(failed)?;
        evict::make_room(self, bytes, &target);
        let counted = progress.of(source);
        let wanted = Wanted { source: &counted, ..*wanted };
        let brought = progress.tell(name, || self.bring(&wanted, &target));
        let Brought { in_use, verified, is_as_begun } = brought.inspect_err(|error| bringing.fails(error))?;
        drop(bringing);
        evict::make_room(self, 0, &target);
        fetched(in_use, verified, false, is_as_begun)
    }

    fn bring(&self, wanted: &Wanted<'_>, target: &Path) -> Result<Brought> {
        let Wanted { source, name, manifest, pinned, early, .. } = *wanted;
        let failed = |error: io::Error| Error::load(format!("cache directory {}: {error}", self.directory.display()));
        let partial = target.with_extension(PARTIAL);
        let files = partial.join(FILES);
        std::fs::create_dir_all(&files).map_err(failed)?;
        let mut is_as_begun = true;
        let entries = match archive::single(manifest) {
            Some(archive) => {
                let unpacked = archive::unpack(source, archive, &files, self.max_unpacked_bytes)?;
                let entry = |(path, sum): &(String, _)| Entry::of(&files, path, sum, None);
                unpacked.iter().map(entry).collect::<io::Result<_>>().map_err(failed)?
            }
            None => {
                let (mut entries, missing) = link(&self.directory, name, manifest, &files);
                let journal = partial.join("parts");
                let wants = |path: &str| early.is_some_and(|early| (early.wants)(path));
                let transfer = Transfer::to_disk(source, &missing, &files, &journal, &wants)?;
                if let Some(early) = early {
                    let directory = Some(target.join(FILES));
                    (early.begin)(Begun { manifest: manifest.to_vec(), directory, contents: transfer.contents() });
                }
                let moved = transfer.run()?;
                is_as_begun = moved.is_as_begun;
                for (file, sum) in missing.iter().zip(&moved.sums) {
                    entries.push(Entry::of(&files, &file.path, sum, content(name, file)).map_err(failed)?);
                }
                entries
            }
        };
        let verified = match verify(&partial, name, pinned) {
            Ok(verified) => verified,
            Err(error) => {
                evict::discard(&partial).map_err(failed)?;
                return Err(error);
            }
        };
        let file = Index { files: entries }.write(&partial).map_err(failed)?;
        file.lock_shared().map_err(failed)?;
        std::fs::rename(&partial, target).map_err(failed)?;
        Ok(Brought { in_use: InUse(file), verified, is_as_begun })
    }
}

struct Brought {
    in_use: InUse,
    verified: Option<Duration>,
    is_as_begun: bool,
}

/// Fails when a model in the cache does not have the digest that is pinned; how long it took to know.
fn verify(folder: &Path, name: &str, pinned: Option<&ModelDigest>) -> Result<Option<Duration>> {
    let Some(pinned) = pinned else { return Ok(None) };
    let begun = Instant::now();
    digest_of(folder).and_then(|found| pinned.check_is(found)).map_err(|error| error.context(name))?;
    Ok(Some(begun.elapsed()))
}

const LOCK: &str = "lock";
const PARTIAL: &str = "partial";
/// Holds a model's digest.
const DIGEST: &str = "digest";

fn known_digest(folder: &Path) -> Option<ModelDigest> {
    ModelDigest::parse(&std::fs::read_to_string(folder.join(DIGEST)).ok()?).ok()
}

/// The digest of a model's files, worked out once.
///
/// # Errors
/// When they cannot be read.
fn digest_of(folder: &Path) -> Result<ModelDigest> {
    if let Some(known) = known_digest(folder) {
        return Ok(known);
    }
    let digest = ModelDigest::of(&digest::sum(&folder.join(FILES))?);
    remember(folder, &digest);
    Ok(digest)
}

fn remember(folder: &Path, digest: &ModelDigest) {
    let _ = std::fs::write(folder.join(DIGEST), digest.to_string()); // else the next one works it out
}

/// Links to files of other models that have the same content; what is left to bring.
fn link(cache: &Path, name: &str, manifest: &[RemoteFile], files: &Path) -> (Vec<Entry>, Vec<RemoteFile>) {
    let mut known = HashMap::new();
    for (folder, index) in evict::models(cache) {
        for entry in index.files {
            let key = entry.content.clone().map(|content| (content, entry.bytes));
            known.extend(key.map(|key| (key, (folder.join(FILES), entry))));
        }
    }
    let (mut linked, mut missing) = (Vec::new(), Vec::new());
    for file in manifest {
        let same = content(name, file).and_then(|content| known.get(&(content, file.bytes)));
        match same.and_then(|(folder, entry)| entry.link(folder, files, &file.path)) {
            Some(entry) => linked.push(entry),
            None => {
                unlink(&files.join(&file.path));
                missing.push(file.clone());
            }
        }
    }
    (linked, missing)
}

/// Removes what an earlier attempt has linked there: writing to it would change the other model, too.
fn unlink(path: &Path) {
    if std::fs::metadata(path).is_ok_and(|found| found.nlink() > 1) {
        let _ = std::fs::remove_file(path); // else writing to it says why
    }
}

/// What a file's content is called by a store whose tags are hashes of it: S3's `ETag`s, a hub's object ids. Only in the
/// same place: to others' files that have the same MD5 on purpose nobody links. A web server's may look like hashes and
/// be made of a file's time and size.
fn content(name: &str, file: &RemoteFile) -> Option<String> {
    let hash = file.tag.trim_matches('"');
    let digits = hash.split('-').next().unwrap_or_default();
    let is_hash = digits.len() >= 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let place: Vec<&str> = name.split('/').take(3).collect();
    (is_hash && !name.starts_with("http")).then(|| format!("{} {hash}", place.join("/")))
}

/// Takes a model that is here and whole.
fn reuse(target: &Path) -> Option<InUse> {
    let (file, index) = Index::open(target)?;
    file.lock_shared().ok()?;
    // Whoever discards a model does so under the lock.
    if !is_at(&file, &target.join(index::NAME)) || !index.holds(target) {
        return None;
    }
    let _ = file.set_modified(std::time::SystemTime::now()); // used later than others
    Some(InUse(file))
}

/// Whether this open file is what is at the path now.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |found: std::fs::Metadata| (found.dev(), found.ino());
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(there)) => identity(open) == identity(there),
        _ => false,
    }
}

/// Who has waited so long for a model does not begin anew when that fails: of many who wait for a store that is stalled,
/// the last would come to know it after as many times what the first had to wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// The lock of whoever brings a model; it goes with the file.
struct Bringing {
    path: PathBuf,
    lock: File,
}

enum Turn {
    Ours(Bringing),
    /// The one before could not bring it, for this reason.
    Failed(String),
}

impl Bringing {
    /// Waits for its turn, or beyond its patience for the failure of the one before.
    fn begin(path: PathBuf, patience: Duration) -> io::Result<Turn> {
        let begun = Instant::now();
        loop {
            let mut lock = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
            if lock.try_lock().is_err() {
                tracing::info!(lock = %path.display(), "another process is bringing this model, waiting for it");
                lock.lock()?;
            }
            if is_at(&lock, &path) {
                return Ok(Turn::Ours(Bringing { path, lock }));
            }
            // The one before has removed the file.
            let mut reason = String::new();
            lock.read_to_string(&mut reason)?;
            if !reason.is_empty() && begun.elapsed() > patience {
                return Ok(Turn::Failed(reason));
            }
        }
    }

    /// Tells those who wait.
    fn fails(&self, error: &Error) {
        let _ = (&self.lock).write_all(error.message().as_bytes()); // else they try themselves
    }
}

impl Drop for Bringing {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // an empty file is in nobody's way
    }
}

#[cfg(test)]
pub mod tests;
