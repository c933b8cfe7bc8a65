//! `stoker pull SRC DST [SRC DST ...]`: brings models to directories, by the contract of KServe's storage initializer
//! (kserve `python/storage-initializer/scripts/initializer-entrypoint`), whose image it can replace.
//!
//! It differs in four things, on purpose: `s3://bucket/model` is not `s3://bucket/model2`, empty objects are files,
//! nothing is written outside of the directory whatever objects are called, and archives have no links
//! ([`archive`](crate::source::archive) says what else). And in what is missing: credentials that a person, a program or the
//! machine's metadata would have to be asked for (SSO, `credential_process`, IMDS), and proxies other than `http://`.

use std::fs::{File, TryLockError};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use crate::config::{PullConfig, Pulled};
use crate::error::{Error, Result};
use crate::source::digest::ModelDigest;
use crate::source::patterns::Patterns;
use crate::source::progress::Progress;
use crate::source::s3::handover::MOST_SECONDS;
use crate::source::transfer::{transfer, write_error};
use crate::source::uri::SourceUri;
use crate::source::{Env, Listed, Opened, archive, identity, open, s3, total_bytes};

/// Brings each source to its directory, one after the other.
///
/// # Errors
/// At the first source that cannot be had, naming the step that failed.
pub fn pull(config: &PullConfig, env: Env<'_>) -> Result<()> {
    let (wanted, max_unpacked) = (Patterns::from_env(env)?, archive::max_unpacked_bytes(env)?);
    let digests = digests(config.pairs.len(), env)?;
    check_handed_over(&config.pairs, digests.iter().any(Option::is_some))?;
    for (Pulled { uri, directory, handed_over }, digest) in config.pairs.iter().zip(digests) {
        let begun = Instant::now();
        let made = std::fs::create_dir_all(directory);
        made.map_err(|error| Error::load(format!("{}: cannot be made: {error}", directory.display())))?;
        let (files, bytes) = match open(uri, env)? {
            Opened::Here(path) => {
                digest.map_or(Ok(()), |digest| digest.check(&path)).map_err(|error| error.context(uri))?;
                (link(&path, directory, &wanted)?, 0)
            }
            Opened::Elsewhere(source) => {
                let listed = Listed::of(uri, source)?;
                if *handed_over {
                    hand_over(&listed, uri, directory, digest, env)?
                } else {
                    copy(&listed, uri, directory, max_unpacked, digest)?
                }
            }
        };
        let seconds = begun.elapsed().as_secs_f64();
        let done = if *handed_over { "model handed over" } else { "model pulled" };
        tracing::info!(uri = %uri, directory = %directory.display(), files, bytes, seconds, "{done}");
    }
    Ok(())
}

/// Of each directory a server can only be told one source, and of several sources no digest.
fn check_handed_over(pairs: &[Pulled], are_pinned: bool) -> Result<()> {
    let handed: Vec<&Pulled> = pairs.iter().filter(|pair| pair.handed_over).collect();
    let twice =
        |(place, pair): (usize, &&Pulled)| handed[..place].iter().any(|other| other.directory == pair.directory);
    if let Some((_, pair)) = handed.iter().enumerate().find(|(place, pair)| twice((*place, pair))) {
        let directory = pair.directory.display();
        return Err(Error::load(format!(
            "{directory}: two sources are to be handed over there: give each a directory"
        )));
    }
    if !handed.is_empty() && are_pinned && pairs.len() > 1 {
        return Err(Error::load(
            "several sources cannot be handed over with a digest: leave stoker+ out, or the digest",
        ));
    }
    Ok(())
}

/// What each of so many sources has to sum up to, in the order of the sources.
fn digests(sources: usize, env: Env<'_>) -> Result<Vec<Option<ModelDigest>>> {
    const VARIABLE: &str = "STOKER_STORAGE_DIGEST";
    let text = env(VARIABLE).unwrap_or_default();
    if text.trim().is_empty() {
        return Ok(vec![None; sources]);
    }
    let parse = |each: &str| ModelDigest::parse(each.trim()).map(Some).map_err(|error| error.context(VARIABLE));
    let digests = text.split(',').map(parse).collect::<Result<Vec<_>>>()?;
    if digests.len() != sources {
        let count = digests.len();
        return Err(Error::load(format!("{VARIABLE}: {count} digests for {sources} sources, expected one for each")));
    }
    Ok(digests)
}

/// In the directory: what is on its way, in a folder that is named by what the source has. It stays when the process is
/// killed, for the next one to go on with when that is still the same.
const FRESH: &str = ".stoker-pull";

/// Copies what is wanted, in place of files of the same names, once everything is there; how many files and bytes that
/// were.
fn copy(
    Listed { source, manifest, .. }: &Listed,
    uri: &SourceUri,
    directory: &Path,
    max_unpacked: u64,
    digest: Option<ModelDigest>,
) -> Result<(usize, u64)> {
    let fresh = directory.join(FRESH);
    let own = fresh.join(identity(&uri.to_string(), manifest));
    let files = own.join("files");
    if let Some(file) = manifest.iter().find(|file| Path::new(&file.path).starts_with(FRESH)) {
        return Err(Error::load(format!("{uri}: \"{}\" has the name of a folder that is needed here", file.path)));
    }
    let failed = |error: std::io::Error| write_error(directory, &error);
    let _alone = alone(directory).map_err(failed)?;
    std::fs::create_dir_all(&files).and_then(|()| keep_only(&fresh, &own)).map_err(failed)?;
    let progress = Progress::begin(total_bytes(manifest));
    let source = progress.of(&**source);
    progress.tell(&uri.to_string(), || match archive::single(manifest) {
        Some(file) => archive::unpack(&source, file, &files, max_unpacked).map(drop),
        None => transfer(&source, manifest, &files, &own.join("parts")).map(drop),
    })?;
    if let Err(error) = digest.map_or(Ok(()), |digest| digest.check(&files)) {
        std::fs::remove_dir_all(&fresh).map_err(failed)?;
        return Err(error.context(uri));
    }
    merge(&files, directory).and_then(|()| std::fs::remove_dir_all(&fresh)).map_err(failed)?;
    Ok((manifest.len(), total_bytes(manifest)))
}

/// Waits until no other process pulls to the directory, and keeps others from it until what is given goes. Some file
/// systems do not lock directories, as NFS: nobody waits there.
fn alone(directory: &Path) -> std::io::Result<File> {
    let lock = File::open(directory)?;
    if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
        tracing::info!(directory = %directory.display(), "another process is pulling to this directory, waiting for it");
        lock.lock()?;
    }
    Ok(lock)
}

/// Removes what else is in a folder.
fn keep_only(folder: &Path, kept: &Path) -> std::io::Result<()> {
    for entry in folder.read_dir()? {
        let (entry, is_folder) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?.is_dir())))?;
        if is_folder && entry != kept {
            std::fs::remove_dir_all(entry)?;
        } else if !is_folder {
            std::fs::remove_file(entry)?;
        }
    }
    Ok(())
}

/// Leaves the addresses of what is wanted, for a server that reads it by itself.
fn hand_over(
    Listed { source, manifest, .. }: &Listed,
    uri: &SourceUri,
    directory: &Path,
    digest: Option<ModelDigest>,
    env: Env<'_>,
) -> Result<(usize, u64)> {
    let Some(SourceUri::S3 { bucket, prefix }) = source.place() else {
        return Err(Error::load(format!("{uri}: only what lies in S3 can be handed over: leave stoker+ out")));
    };
    let s3 = s3::S3::new(&s3::settings::from_env(env)?, &bucket, &prefix)?;
    s3.hand_over(manifest, handed_over_seconds(env)?, digest)?.write(directory)?;
    Ok((manifest.len(), total_bytes(manifest)))
}

fn handed_over_seconds(env: Env<'_>) -> Result<u64> {
    const VARIABLE: &str = "STOKER_HANDOVER_SECONDS";
    let Some(text) = env(VARIABLE).filter(|text| !text.is_empty()) else { return Ok(MOST_SECONDS) };
    let wrong = || Error::load(format!("{VARIABLE}: \"{text}\" is no number of seconds up to {MOST_SECONDS}"));
    text.parse().ok().filter(|seconds| (1..=MOST_SECONDS).contains(seconds)).ok_or_else(wrong)
}

/// Moves what is in a folder into another.
fn merge(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in from.read_dir()? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        // A link there is replaced, not followed.
        let is_folder = target.symlink_metadata().is_ok_and(|there| there.is_dir());
        if is_folder && entry.file_type()?.is_dir() {
            merge(&entry.path(), &target)?;
        } else {
            std::fs::rename(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Links to what lies in a local directory, or to one file.
fn link(path: &Path, directory: &Path, wanted: &Patterns) -> Result<usize> {
    let failed = |error: std::io::Error| Error::load(format!("{}: {error}", path.display()));
    let path = path.canonicalize().map_err(failed)?;
    let entries = if path.is_dir() {
        let entries = path.read_dir().map_err(failed)?;
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>().map_err(failed)?
    } else {
        vec![path.clone()]
    };
    let mut linked = 0;
    for entry in entries {
        let Some(name) = entry.file_name() else { continue };
        let is_hidden = name.as_encoded_bytes().starts_with(b".");
        if is_hidden || !wanted.want(&name.to_string_lossy()) {
            continue;
        }
        linked += 1;
        let target = directory.join(name);
        if !target.exists() {
            symlink(&entry, &target).map_err(|error| Error::load(format!("{}: {error}", target.display())))?;
        }
    }
    if linked == 0 {
        return Err(Error::load(format!("{}: there is no file in it that is wanted", path.display())));
    }
    Ok(linked)
}
