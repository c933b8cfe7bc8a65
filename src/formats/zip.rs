//! Zip archives: their directory, their compressions, and archives in memory, with members by name and stored ones
//! without a copy. There the archive is a container: names are compared, never used as paths.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{BufRead, Read};
use std::rc::Rc;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::formats::compression;
use crate::tensor::Excerpt;

/// A forest in skops has two members a tree.
const MAX_MEMBERS: usize = 1 << 20;

pub struct Zip {
    bytes: Bytes,
    members: HashMap<Box<str>, Member>,
    /// Bytes that may still be unpacked.
    left: Rc<Cell<u64>>,
    /// What has been unpacked, so that a member that is named twice is unpacked once.
    unpacked: RefCell<HashMap<Box<str>, Bytes>>,
}

/// What the directory says of a member.
#[derive(Clone, Copy)]
pub struct Member {
    pub method: u16,
    pub encrypted: bool,
    pub crc: u32,
    pub packed: u64,
    pub size: u64,
    /// Unix's file mode; 0 when it was not written there.
    pub mode: u16,
    /// Where the member begins, with a header of its own.
    pub header: u64,
}

/// The length of a member's own header, without what [`local_lengths`] says.
pub const LOCAL_BYTES: usize = 30;

fn damaged(what: &str) -> Error {
    Error::load(format!("a damaged zip archive ({what}): is the file complete?"))
}

/// A little-endian number of a record.
fn number(record: &[u8], at: usize, bytes: usize) -> Option<u64> {
    let field = record.get(at..at.checked_add(bytes)?)?;
    Some(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn narrow(value: u64) -> Option<usize> {
    usize::try_from(value).ok()
}

impl Zip {
    /// Reads the directory at the archive's end.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub fn open(bytes: Bytes) -> Result<Zip> {
        let members = directory(&bytes)?;
        let left = Rc::new(Cell::new(compression::bound(bytes.len())));
        Ok(Zip { bytes, members, left, unpacked: RefCell::default() })
    }

    /// The bytes of the member of exactly this name.
    ///
    /// # Errors
    /// When there is none, it is damaged, or all members together unpack to more than
    /// [`bound`](compression::bound).
    pub fn read(&self, name: &str) -> Result<Bytes> {
        if let Some(bytes) = self.unpacked.borrow().get(name) {
            return Ok(bytes.clone());
        }
        let context = |error: Error| error.context(format_args!("member \"{}\"", Excerpt(name)));
        let member = self.members.get(name).ok_or_else(|| context(damaged("there is no such member")))?;
        let bytes = self.unpack(*member).map_err(context)?;
        self.unpacked.borrow_mut().insert(name.into(), bytes.clone());
        Ok(bytes)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.members.keys().map(|name| &**name)
    }

    /// As [`Zip::read`], `None` when there is no such member.
    ///
    /// # Errors
    /// As [`Zip::read`].
    pub fn find(&self, name: &str) -> Result<Option<Bytes>> {
        self.members.contains_key(name).then(|| self.read(name)).transpose()
    }

    /// A member that is an archive itself; both share the bound.
    ///
    /// # Errors
    /// As [`Zip::read`] and [`Zip::open`].
    pub fn nested(&self, name: &str) -> Result<Zip> {
        Ok(Zip { left: Rc::clone(&self.left), ..Zip::open(self.read(name)?)? })
    }

    fn unpack(&self, member: Member) -> Result<Bytes> {
        let left = self.left.get().checked_sub(member.size).ok_or_else(|| {
            Error::load(format!(
                "the archive unpacks from {} bytes to more than {}: this is not a model",
                self.bytes.len(),
                compression::bound(self.bytes.len())
            ))
        })?;
        self.left.set(left);
        let data = self.data(member).ok_or_else(|| damaged("a member lies outside of the file"))?;
        let content = match member.method {
            0 if member.packed == member.size => data,
            0 => return Err(damaged("a member's size")),
            method => {
                let size = narrow(member.size).ok_or_else(|| damaged("a member's size"))?;
                // One byte more shows that there is more; what is not written to takes no memory.
                let mut content = Vec::new();
                content.try_reserve_exact(size + 1).map_err(|error| damaged("a member's size").with_source(error))?;
                let mut reader = decoder(method, &data[..], member.size)?.take(member.size + 1);
                reader.read_to_end(&mut content).map_err(|error| damaged("a member's data").with_source(error))?;
                if content.len() != size {
                    return Err(damaged("a member's size"));
                }
                content.into()
            }
        };
        let mut crc = flate2::Crc::new();
        crc.update(&content);
        if crc.sum() == member.crc { Ok(content) } else { Err(damaged("a checksum")) }
    }

    /// A member's bytes as they lie in the file, behind a header of its own.
    fn data(&self, member: Member) -> Option<Bytes> {
        let header = narrow(member.header)?;
        let (name, extra) = local_lengths(self.bytes.get(header..)?)?;
        let start = header.checked_add(LOCAL_BYTES)?.checked_add(name + extra)?;
        let end = start.checked_add(narrow(member.packed)?)?;
        (end <= self.bytes.len()).then(|| self.bytes.slice(start..end))
    }
}

/// The lengths of a member's name and of what follows it, by the header that it begins with.
pub fn local_lengths(header: &[u8]) -> Option<(usize, usize)> {
    let is_header = header.starts_with(b"PK\x03\x04");
    is_header.then_some((narrow(number(header, 26, 2)?)?, narrow(number(header, 28, 2)?)?))
}

/// Reads what a method has packed: those that Python's zipfile writes.
///
/// # Errors
/// When the method is another, or the data does not begin as its data does.
pub fn decoder<'a>(method: u16, data: impl BufRead + 'a, size: u64) -> Result<Box<dyn Read + 'a>> {
    Ok(match method {
        0 => Box::new(data),
        8 => Box::new(flate2::bufread::DeflateDecoder::new(data)),
        12 => Box::new(bzip2::bufread::BzDecoder::new(data)),
        14 => {
            let reader = compression::zip_lzma(data, size);
            Box::new(reader.map_err(|error| damaged("a member's data").with_source(error))?)
        }
        _ => {
            return Err(Error::load(format!(
                "zip compression method {method}: save the file with zipfile.ZIP_STORED or ZIP_DEFLATED"
            )));
        }
    })
}

fn directory(bytes: &Bytes) -> Result<HashMap<Box<str>, Member>> {
    let End { count, start, .. } = end(bytes, 0)?.ok_or_else(|| Error::load("not a zip archive"))?;
    if count > MAX_MEMBERS as u64 {
        return Err(Error::load(format!("a zip archive of {count} members: this is not a model")));
    }
    let directory = narrow(start).and_then(|start| bytes.get(start..)).ok_or_else(|| damaged("its directory"))?;
    let mut members = HashMap::new();
    for entry in entries(directory, count) {
        let (name, member) = entry?;
        let name = std::str::from_utf8(name).map_err(|_| damaged("its directory"))?;
        if member.encrypted {
            return Err(Error::load("an encrypted zip archive: save it without a password"));
        }
        if members.insert(name.into(), member).is_some() {
            return Err(damaged("two members of one name"));
        }
    }
    Ok(members)
}

/// What the record at an archive's end says.
pub struct End {
    /// Entries of the directory.
    pub count: u64,
    /// Where the directory is.
    pub start: u64,
    pub bytes: u64,
}

/// How much of an archive's end has the record in it: a comment of up to 64 KiB may follow, Zip64's are in front.
pub const END_BYTES: usize = END + 0xffff + 20 + 56;
const END: usize = 22;

/// Finds the record in an archive's last bytes, which begin at `begins`; `None` when it is not there, or not whole.
///
/// # Errors
/// When it is damaged.
pub fn end(last: &[u8], begins: u64) -> Result<Option<End>> {
    let tail = last.len().saturating_sub(END + 0xffff);
    let Some(at) = memchr::memmem::rfind(&last[tail..], b"PK\x05\x06") else { return Ok(None) };
    let at = tail + at;
    let field = |record: &[u8], at, bytes| number(record, at, bytes).ok_or_else(|| damaged("its end"));
    let end = &last[at..];
    if end.len() < END {
        return Ok(None);
    }
    // Zip64 has another end record, and in front of this one a pointer to it.
    let locator = at.checked_sub(20).map(|at| &last[at..]).filter(|locator| locator.starts_with(b"PK\x06\x07"));
    let Some(locator) = locator else {
        return Ok(Some(End { count: field(end, 10, 2)?, start: field(end, 16, 4)?, bytes: field(end, 12, 4)? }));
    };
    let place = field(locator, 8, 8)?.checked_sub(begins).and_then(narrow);
    let wide = place.and_then(|place| last.get(place..)).filter(|wide| wide.starts_with(b"PK\x06\x06"));
    let wide = wide.ok_or_else(|| damaged("its end"))?;
    Ok(Some(End { count: field(wide, 32, 8)?, start: field(wide, 48, 8)?, bytes: field(wide, 40, 8)? }))
}

/// The entries of a directory, with their names; it ends at the first that is damaged.
pub fn entries(directory: &[u8], count: u64) -> impl Iterator<Item = Result<(&[u8], Member)>> {
    let mut rest = Some(directory);
    (0..count).map_while(move |_| {
        let found = entry(rest?);
        rest = found.map(|(.., after)| after);
        Some(found.map(|(name, member, _)| (name, member)).ok_or_else(|| damaged("its directory")))
    })
}

/// One entry of the directory, and what follows it.
fn entry(record: &[u8]) -> Option<(&[u8], Member, &[u8])> {
    if !record.starts_with(b"PK\x01\x02") {
        return None;
    }
    let mut member = Member {
        method: u16::try_from(number(record, 10, 2)?).ok()?,
        encrypted: number(record, 8, 2)? & 1 == 1,
        crc: u32::try_from(number(record, 16, 4)?).ok()?,
        packed: number(record, 20, 4)?,
        size: number(record, 24, 4)?,
        mode: u16::try_from(number(record, 40, 2)?).ok()?,
        header: number(record, 42, 4)?,
    };
    let name_end = 46 + narrow(number(record, 28, 2)?)?;
    let extra_end = name_end + narrow(number(record, 30, 2)?)?;
    let end = extra_end + narrow(number(record, 32, 2)?)?;
    let name = record.get(46..name_end)?;
    let mut extra = record.get(name_end..extra_end)?;
    while !extra.is_empty() {
        let length = narrow(number(extra, 2, 2)?)?;
        let mut content = extra.get(4..4 + length)?;
        if number(extra, 0, 2)? == 1 {
            // Zip64: those numbers that did not fit, in this order.
            for value in [&mut member.size, &mut member.packed, &mut member.header] {
                if *value == 0xffff_ffff {
                    *value = number(content, 0, 8)?;
                    content = &content[8..];
                }
            }
        }
        extra = &extra[4 + length..];
    }
    Some((name, member, record.get(end..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by Python's zipfile: "a" stored, "b" deflated.
    const ARCHIVE: &[u8] = b"\
        PK\x03\x04\x14\x00\x00\x00\x00\x00\x00\x00!\x00\x0b\xf9CV\x06\x00\x00\x00\x06\x00\x00\x00\x01\x00\
        \x00\x00astoredPK\x03\x04\x14\x00\x00\x00\x08\x00\x00\x00!\x00#\x12\x912\x0d\x00\x00\x00\xa0\x00\x00\
        \x00\x01\x00\x00\x00bKIM\xcbI,IMI\x19\xa44\x00PK\x01\x02\x14\x03\x14\x00\x00\x00\x00\x00\x00\x00!\
        \x00\x0b\xf9CV\x06\x00\x00\x00\x06\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\
        \x01\x00\x00\x00\x00aPK\x01\x02\x14\x03\x14\x00\x00\x00\x08\x00\x00\x00!\x00#\x12\x912\x0d\x00\x00\
        \x00\xa0\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\x01%\x00\x00\x00bPK\x05\x06\
        \x00\x00\x00\x00\x02\x00\x02\x00^\x00\x00\x00Q\x00\x00\x00\x00\x00";

    #[test]
    fn members_are_found_by_name() {
        let zip = Zip::open(Bytes::from_static(ARCHIVE)).unwrap();
        assert_eq!(zip.read("a").unwrap(), "stored");
        assert_eq!(zip.read("b").unwrap(), "deflated".repeat(20));
        assert!(zip.read("../a").is_err() && zip.read("").is_err());
    }

    #[test]
    fn a_bomb_is_refused_by_what_it_says_and_by_what_it_does() {
        let entry = memchr::memmem::rfind(ARCHIVE, b"PK\x01\x02").unwrap();
        let sized = |size: u32| {
            let mut bytes = ARCHIVE.to_vec();
            bytes[entry + 24..entry + 28].copy_from_slice(&size.to_le_bytes());
            Zip::open(bytes.into()).unwrap().read("b").unwrap_err().message().to_owned()
        };
        assert!(sized(0xffff_fff0).contains("this is not a model"));
        // It says less than it unpacks to: no more than that is unpacked.
        assert!(sized(10).contains("a member's size"));
        let zip = Zip::open(Bytes::from_static(ARCHIVE)).unwrap();
        zip.left.set(159);
        assert!(zip.read("b").unwrap_err().message().contains("this is not a model"), "the bound is for all members");
    }

    #[test]
    fn every_compression_is_bounded_and_checked() {
        for compression in ["deflated", "bz2", "lzma"] {
            let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tabular/files");
            let whole = std::fs::read(format!("{root}/linear.{compression}.skops")).unwrap();
            let entry = memchr::memmem::rfind(&whole, b"PK\x01\x02").unwrap();
            let read = |bytes: Vec<u8>| Zip::open(bytes.into())?.read("schema.json");
            let content = read(whole.clone()).unwrap();
            assert!(whole[entry + 46..].starts_with(b"schema.json") && content.starts_with(b"{"));
            let sized = |size: u32| {
                let mut bytes = whole.clone();
                bytes[entry + 24..entry + 28].copy_from_slice(&size.to_le_bytes());
                read(bytes).unwrap_err().message().to_owned()
            };
            assert!(sized(0xffff_fff0).contains("this is not a model"));
            let size = u32::try_from(content.len()).unwrap();
            for wrong in [0, 1, size - 1, size + 1, size + (1 << 20)] {
                assert!(sized(wrong).contains("a damaged zip archive"), "{compression} of {wrong}");
            }
            let begun = usize::try_from(number(&whole, entry + 42, 4).unwrap()).unwrap();
            for bit in (begun * 8..entry * 8).step_by(11) {
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(read(bytes).map_or(true, |read| read == content), "{compression} with bit {bit} changed");
            }
        }
    }

    #[test]
    fn damage_is_refused_or_harmless() {
        for cut in 0..ARCHIVE.len() {
            assert!(Zip::open(Bytes::from_static(&ARCHIVE[..cut])).is_err());
        }
        for bit in 0..ARCHIVE.len() * 8 {
            let mut bytes = ARCHIVE.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(zip) = Zip::open(bytes.into()) {
                assert!(zip.read("a").is_ok_and(|content| content == "stored") || zip.read("a").is_err());
                assert!(zip.read("b").is_ok_and(|content| content.len() == 160) || zip.read("b").is_err());
            }
        }
    }
}
