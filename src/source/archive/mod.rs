//! Models that are one archive: unpacked while they arrive, as KServe's initializer unpacks them when they are there.
//! It leaves the archive away afterwards; here it is only on the disk, for as long, when the server does not know ranges.
//!
//! It differs on purpose: an archive is refused when one of its entries is a link (KServe makes those that stay inside),
//! has a name that is absolute or leaves the folder (KServe changes some of those), or one that was there before (KServe
//! takes the last), and when it ends too early. Of a file only its name and its content are taken, no mode and no time.

mod names;
mod stream;
mod tar;
mod tree;
mod zip;

use std::ops::Range;
use std::path::Path;

use self::names::is_archive;
use self::stream::stream;
use self::tree::Tree;
use super::checksum::Checksum;
use super::disk::Disk;
use super::reading::{BUFFER_BYTES, read_range};
use super::transfer::{transfer, write_error};
use super::{Env, RangeReader, RemoteFile, Source};
use crate::error::{Error, Result};

/// More files than any model has; a bound on what a bomb does to a file system.
const MAX_ENTRIES: usize = 100_000;

/// The file of a manifest that is to be unpacked: it is the only one.
pub fn single(manifest: &[RemoteFile]) -> Option<&RemoteFile> {
    match manifest {
        [only] if is_archive(&only.path) => Some(only),
        _ => None,
    }
}

/// Whether a path of this machine is an archive, or a directory of one archive and nothing else.
pub fn is_alone(path: &Path) -> bool {
    let named =
        |path: &Path| path.is_file() && path.file_name().is_some_and(|name| is_archive(&name.to_string_lossy()));
    let Ok(mut entries) = path.read_dir() else { return named(path) };
    match (entries.next(), entries.next()) {
        (Some(Ok(only)), None) => named(&only.path()),
        _ => false,
    }
}

/// Most bytes that an archive may unpack to.
///
/// # Errors
/// When the setting is no number.
pub fn max_unpacked_bytes(env: Env<'_>) -> Result<u64> {
    const VARIABLE: &str = "STORAGE_MAX_UNPACKED_BYTES";
    const DEFAULT: u64 = 64 << 30;
    let wrong = |text: &str| Error::load(format!("{VARIABLE}: \"{text}\" is no number of bytes"));
    env(VARIABLE).map_or(Ok(DEFAULT), |text| text.trim().parse().map_err(|_| wrong(&text)))
}

/// Unpacks an archive into a folder of its own, in place of what an earlier attempt has left there, and gives the paths
/// and the checksums of its files. What the archive is decides its content, not its name.
///
/// # Errors
/// When the source fails, or the archive is damaged, hostile or too large. The folder is then gone.
pub fn unpack(
    source: &dyn Source,
    file: &RemoteFile,
    folder: &Path,
    max_bytes: u64,
) -> Result<Vec<(String, Checksum)>> {
    let failed = |error: std::io::Error| write_error(folder, &error);
    if folder.symlink_metadata().is_ok() {
        std::fs::remove_dir_all(folder).map_err(failed)?;
    }
    std::fs::create_dir_all(folder).map_err(failed)?;
    let unpacked = if file.whole {
        unpack_whole(source, file, folder, max_bytes)
    } else {
        unpack_into(source, file, folder, max_bytes)
    };
    let unpacked = unpacked.map_err(|error| error.context(&file.key));
    if unpacked.is_err() {
        let _ = std::fs::remove_dir_all(folder); // or else the next attempt
    }
    unpacked
}

fn unpack_whole(
    source: &dyn Source,
    file: &RemoteFile,
    folder: &Path,
    max_bytes: u64,
) -> Result<Vec<(String, Checksum)>> {
    let failed = |error: std::io::Error| write_error(folder, &error);
    let aside = tempfile::Builder::new().prefix(".stoker-archive-").tempdir_in(folder).map_err(failed)?;
    let here = RemoteFile { path: "archive".to_owned(), whole: false, ..file.clone() };
    transfer(source, &[RemoteFile { whole: true, ..here.clone() }], aside.path(), &aside.path().join("parts"))?;
    let disk = Disk(aside.path().to_owned());
    let came = disk.manifest()?.into_iter().find(|came| came.path == here.path);
    let came = came.ok_or_else(|| Error::internal("a file that came is not there"))?;
    let unpacked = unpack_into(&disk, &RemoteFile { key: here.key, ..came }, folder, max_bytes)?;
    aside.close().map_err(failed)?;
    Ok(unpacked)
}

fn unpack_into(
    source: &dyn Source,
    file: &RemoteFile,
    folder: &Path,
    max_bytes: u64,
) -> Result<Vec<(String, Checksum)>> {
    let limits = Limits { archive: file.bytes, setting: max_bytes };
    let mut tree = Tree::new(folder, limits);
    let head = read(source, file, 0..file.bytes.min(MAGIC_BYTES))?;
    match kind(&head) {
        Kind::Zip => zip::unpack(source, file, &mut tree),
        Kind::Tar(compression) => {
            let expected = source.checksum(file)?;
            stream(source, file, 0..file.bytes, expected.as_ref(), |stream| {
                tar::unpack(stream, compression, &limits, &mut tree)
            })
        }
    }?;
    tree.finish()
}

/// How much a small archive may always unpack to, and how often its size a larger one: deflate cannot do more.
#[derive(Clone, Copy)]
struct Limits {
    archive: u64,
    setting: u64,
}

impl Limits {
    const ALWAYS: u64 = 256 << 20;
    const PER_BYTE: u64 = 1000;

    fn by_size(&self) -> u64 {
        self.archive.saturating_mul(Limits::PER_BYTE).saturating_add(Limits::ALWAYS)
    }

    fn bytes(&self) -> u64 {
        self.setting.min(self.by_size())
    }

    fn exceeded(&self) -> Error {
        let (from, to) = (self.archive, self.bytes());
        let what = if self.setting < self.by_size() {
            "if it is a model, set STORAGE_MAX_UNPACKED_BYTES"
        } else {
            "this is not a model"
        };
        Error::load(format!("the archive unpacks from {from} bytes to more than {to}: {what}"))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Zip,
    Tar(Compression),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

const MAGIC_BYTES: u64 = 6;

/// What an archive is by how it begins. A tar begins with a name.
fn kind(head: &[u8]) -> Kind {
    Kind::Tar(match head {
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => return Kind::Zip,
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [b'B', b'Z', b'h', ..] => Compression::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Compression::Xz,
        // The second is a frame to be skipped, which parallel compressors begin with.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::None,
    })
}

/// A small range of a file.
fn read(source: &dyn Source, file: &RemoteFile, range: Range<u64>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut take = |_: &dyn RangeReader, _, read: &[u8]| Ok(bytes.extend_from_slice(read));
    read_range(source, file, range, &mut vec![0; BUFFER_BYTES], &mut take, &|| true)?;
    Ok(bytes)
}

const LINK: &str = "it is a link: pack the files themselves (tar --dereference, zip without --symlinks)";
const DEVICE: &str = "it is a device or a pipe, which no model has";

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::load(format!("the archive is damaged: {what}"))
}

fn truncated() -> Error {
    Error::load("the archive ends too early: is it complete?")
}

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
