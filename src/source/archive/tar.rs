//! Tar archives, as they are or compressed, from a stream: `tar` finds the entries, what becomes of them is decided
//! here.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, Read};

use ::tar::{Archive, Entry, EntryType};

use super::names::entry as named;
use super::tree::{Failed, Tree};
use super::{Compression, Limits, damaged, truncated};
use crate::error::{Error, Result};
use crate::formats::compression::MAX_LZMA_KIB;

/// Most that may describe an entry, which `tar` keeps in memory: its name, and what else pax writes in front of it.
const MAX_DESCRIPTION_BYTES: u64 = 1 << 20;

/// # Errors
/// When the archive is incomplete or damaged, too large, or has entries that no model needs.
pub fn unpack(stream: impl BufRead, compression: Compression, limits: &Limits, tree: &mut Tree<'_>) -> Result<()> {
    let gauge = Gauge { all: Cell::new(limits.bytes()), ..Gauge::default() };
    let done = decoder(stream, compression).map_err(Failed::Read).and_then(|stream| {
        let mut archive = Archive::new(Gauged { stream, gauge: &gauge });
        entries(&mut archive, &gauge, tree)?;
        // Compressed data has its checksum at its end.
        gauge.description.set(u64::MAX);
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(Failed::Read)?;
        Ok(())
    });
    done.map_err(|failed| match failed {
        Failed::Refused(error) => error,
        Failed::Read(error) => match gauge.fault.take() {
            Some(Fault::TooLarge) => limits.exceeded(),
            Some(Fault::LongDescription) => {
                damaged(format!("the description of an entry is longer than {MAX_DESCRIPTION_BYTES} bytes"))
            }
            Some(Fault::Stream(io::ErrorKind::UnexpectedEof)) => truncated(),
            Some(Fault::Stream(_)) => {
                Error::load("the archive is damaged, or compressed with too large a window").with_source(error)
            }
            None if gauge.ended.get() || error.kind() == io::ErrorKind::UnexpectedEof => truncated(),
            // `tar` would quote what it found.
            None => damaged("what it has is no tar"),
        },
    })
}

fn entries(archive: &mut Archive<Gauged<'_, impl Read>>, gauge: &Gauge, tree: &mut Tree<'_>) -> Result<(), Failed> {
    let mut entries = archive.entries().map_err(Failed::Read)?;
    loop {
        gauge.description.set(MAX_DESCRIPTION_BYTES);
        let Some(entry) = entries.next() else { break };
        tree.count()?;
        unpack_entry(entry.map_err(Failed::Read)?, gauge, tree)?;
    }
    if gauge.ended.get() {
        return Err(Failed::Read(io::ErrorKind::UnexpectedEof.into())); // zeros end it
    }
    Ok(())
}

fn unpack_entry(mut entry: Entry<'_, impl Read>, gauge: &Gauge, tree: &mut Tree<'_>) -> Result<(), Failed> {
    let name = entry.path_bytes().into_owned();
    let refused = |what: &str| Err(Error::load(format!("{}: {what}", named(&name))).into());
    for extension in entry.pax_extensions().map_err(Failed::Read)?.into_iter().flatten() {
        if extension.map_err(Failed::Read)?.key_bytes().starts_with(b"GNU.sparse") {
            return refused(SPARSE);
        }
    }
    match entry.header().entry_type() {
        // As they were before there was a type for them.
        EntryType::Regular if name.ends_with(b"/") => Ok(tree.directory(&name)?),
        EntryType::Regular | EntryType::Continuous => {
            gauge.description.set(u64::MAX);
            tree.file(&name, entry.size(), &mut entry)
        }
        EntryType::Directory => Ok(tree.directory(&name)?),
        EntryType::XGlobalHeader => Ok(()),
        EntryType::Symlink | EntryType::Link => refused(super::LINK),
        EntryType::Char | EntryType::Block | EntryType::Fifo => refused(super::DEVICE),
        EntryType::GNUSparse => refused(SPARSE),
        other => refused(&format!("it is of the type \"{}\", which is none of a file", other.as_byte().escape_ascii())),
    }
}

const SPARSE: &str = "it is a sparse file: pack the model without --sparse";

/// zstd is the C library's, which reads archives of several frames, checks their sums, is 1.4 to 3.5 times as fast as
/// what there is in Rust, and takes no larger window than 128 MiB.
fn decoder<'a>(stream: impl BufRead + 'a, compression: Compression) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(stream),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(stream)),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(stream, true, MAX_LZMA_KIB)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(stream)?),
    })
}

/// Bounds what `tar` reads, and knows what became of it: errors do not come through `tar` as they were.
#[derive(Default)]
struct Gauge {
    /// Bytes that may still be read.
    all: Cell<u64>,
    /// Bytes that may be read until an entry's content begins.
    description: Cell<u64>,
    ended: Cell<bool>,
    fault: RefCell<Option<Fault>>,
}

enum Fault {
    TooLarge,
    LongDescription,
    Stream(io::ErrorKind),
}

struct Gauged<'g, R> {
    stream: R,
    gauge: &'g Gauge,
}

impl<R: Read> Read for Gauged<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Gauge { all, description, ended, fault } = self.gauge;
        let read = match self.stream.read(buffer) {
            Ok(read) => read,
            Err(error) => {
                fault.replace(Some(Fault::Stream(error.kind())));
                return Err(error);
            }
        };
        ended.set(read == 0 && !buffer.is_empty());
        for (left, exceeded) in [(all, Fault::TooLarge), (description, Fault::LongDescription)] {
            match left.get().checked_sub(read as u64) {
                Some(rest) => left.set(rest),
                None => {
                    fault.replace(Some(exceeded));
                    return Err(io::Error::other("more than may be read"));
                }
            }
        }
        Ok(read)
    }
}
