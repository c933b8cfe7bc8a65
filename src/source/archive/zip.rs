//! Zip archives from a source: first the directory at their end, then the members in the order in which they lie,
//! from one stream.

use std::io::{self, Read};
use std::ops::Range;

use flate2::CrcReader;

use super::names::entry as named;
use super::stream::{Stream, stream};
use super::tree::{Failed, Tree};
use super::{DEVICE, LINK, MAX_ENTRIES, damaged, read, truncated};
use crate::error::{Error, Result};
use crate::formats::zip::{END_BYTES, End, LOCAL_BYTES, Member, decoder, end, entries, local_lengths};
use crate::source::{RemoteFile, Source};

/// Of a hundred thousand entries with the longest names that there are.
const MAX_DIRECTORY_BYTES: u64 = 32 << 20;

/// # Errors
/// When the archive is incomplete or damaged, too large, or has members that no model needs.
pub fn unpack(source: &dyn Source, file: &RemoteFile, tree: &mut Tree<'_>) -> Result<()> {
    let (range, count) = directory(source, file)?;
    let directory = read(source, file, range.clone())?;
    let mut members = entries(&directory, count).collect::<Result<Vec<_>>>()?;
    members.sort_by_key(|(_, member)| member.header);
    // Members have checksums of their own.
    stream(source, file, 0..range.start, None, |stream| {
        let mut at = 0;
        for (name, member) in &members {
            unpack_member(stream, &mut at, name, member, tree)?;
        }
        Ok(())
    })
}

/// Where the directory is, and how many entries it has.
fn directory(source: &dyn Source, file: &RemoteFile) -> Result<(Range<u64>, u64)> {
    let begins = file.bytes.saturating_sub(END_BYTES as u64);
    let last = read(source, file, begins..file.bytes)?;
    let end = end(&last, begins)?.ok_or_else(truncated)?;
    if end.count > MAX_ENTRIES as u64 || end.bytes > MAX_DIRECTORY_BYTES {
        let End { count, bytes, .. } = end;
        return Err(Error::load(format!("{count} entries, described in {bytes} bytes: is this one model?")));
    }
    let range = end.start..end.start.saturating_add(end.bytes);
    if range.end > file.bytes {
        return Err(damaged("its directory lies outside of it"));
    }
    Ok((range, end.count))
}

/// Unpacks the next member. `at` is where the stream is, and goes along.
fn unpack_member(
    stream: &mut Stream<'_>,
    at: &mut u64,
    name: &[u8],
    member: &Member,
    tree: &mut Tree<'_>,
) -> Result<()> {
    tree.count()?;
    let wrong = |what: &str| Err(Error::load(format!("{}: {what}", named(name))));
    match member.mode & 0o170_000 {
        0 | 0o100_000 | 0o040_000 => {}
        0o120_000 => return wrong(LINK),
        _ => return wrong(DEVICE),
    }
    if member.encrypted {
        return wrong("it is encrypted: save the model without a password");
    }
    let in_member = |error: Error| error.context(named(name));
    begin(stream, at, name, member).map_err(|error| in_member(damaged("its beginning").with_source(error)))?;
    *at += member.packed;
    let mut packed = stream.by_ref().take(member.packed);
    if name.ends_with(b"/") {
        tree.directory(name)?;
    } else {
        let decoder = decoder(member.method, &mut packed, member.size).map_err(in_member)?;
        let mut content = CrcReader::new(decoder);
        tree.file(name, member.size, &mut content).map_err(|failed| match failed {
            Failed::Refused(error) => error,
            Failed::Read(error) => in_member(damaged("its data").with_source(error)),
        })?;
        if content.crc().sum() != member.crc {
            return Err(in_member(damaged("its checksum")));
        }
    }
    // LZMA's end mark may be left.
    io::copy(&mut packed, &mut io::sink()).map(drop).map_err(|error| in_member(damaged("its data").with_source(error)))
}

/// Goes to the data of a member, which lies behind a header of its own.
fn begin(stream: &mut Stream<'_>, at: &mut u64, name: &[u8], member: &Member) -> io::Result<()> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidData);
    let gap = member.header.checked_sub(*at).ok_or_else(|| io::Error::other("members overlap"))?;
    skip(stream, gap)?;
    let mut header = [0; LOCAL_BYTES];
    stream.read_exact(&mut header)?;
    let (name_bytes, extra_bytes) = local_lengths(&header).ok_or_else(wrong)?;
    let mut local_name = vec![0; name_bytes];
    stream.read_exact(&mut local_name)?;
    if local_name != name {
        return Err(wrong());
    }
    skip(stream, extra_bytes as u64)?;
    *at = member.header + (LOCAL_BYTES + name_bytes + extra_bytes) as u64;
    Ok(())
}

fn skip(stream: &mut Stream<'_>, bytes: u64) -> io::Result<()> {
    let skipped = io::copy(&mut stream.by_ref().take(bytes), &mut io::sink())?;
    if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
