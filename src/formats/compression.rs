//! Compressed files: which compression, and the bytes behind it, never more than a bound allows.

use std::io::{BufRead, Read};

use crate::content::Content;
use crate::error::{Error, Result};

/// What a file may always unpack to, and how often its own size beyond that: trees and padding of real models
/// shrink to a tenth, whereas a bomb grows a thousandfold.
const ALWAYS: u64 = 256 << 20;
const PER_BYTE: u64 = 100;

/// Most bytes that a file of this size may unpack to.
pub fn bound(compressed: usize) -> u64 {
    (compressed as u64).saturating_mul(PER_BYTE).saturating_add(ALWAYS)
}

/// What of an unpacked file counts where the bounds of its values go by its size: of a bomb little more than what
/// there was before.
pub fn counted(compressed: usize, unpacked: usize) -> usize {
    const PER_BYTE: usize = 20;
    unpacked.min(compressed.saturating_mul(PER_BYTE))
}

/// xz's highest level wants 65 MiB; what a file asks for is allocated before the first byte is there.
pub const MAX_LZMA_KIB: u32 = 66 << 10;

/// The bytes as they are, or what they unpack to when they are compressed in one of joblib's ways.
///
/// # Errors
/// When the data is damaged or unpacks to more than [`bound`].
pub fn unpack(content: Content) -> Result<Content> {
    let limit = bound(content.len());
    unpack_within(content, limit)
}

fn unpack_within(content: Content, limit: u64) -> Result<Content> {
    const LONGEST_MAGIC: usize = 5;
    let input = Stream { content: &content, at: 0 };
    let (name, unpacked) = match content.upto(LONGEST_MAGIC) {
        [0x1f, 0x8b, ..] => ("gzip", drain(flate2::bufread::MultiGzDecoder::new(input), limit)),
        [0x78, second, ..] if (0x7800 | u16::from(*second)).is_multiple_of(31) => {
            ("zlib", drain(flate2::bufread::ZlibDecoder::new(input), limit))
        }
        [b'B', b'Z', b'h', ..] => ("bz2", drain(bzip2::bufread::MultiBzDecoder::new(input), limit)),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            ("xz", drain(lzma_rust2::XzReader::new_mem_limit(input, true, MAX_LZMA_KIB), limit))
        }
        [0x5d, 0, ..] => {
            let reader = lzma_rust2::LzmaReader::new_mem_limit(input, MAX_LZMA_KIB, None);
            ("lzma", reader.and_then(|reader| drain(reader, limit)))
        }
        [4, 0x22, 0x4d, 0x18, ..] => ("lz4", drain(lz4_flex::frame::FrameDecoder::new(input), limit)),
        [b'Z', b'F', ..] => ("zlib", drain(flate2::bufread::ZlibDecoder::new(zfile(input)), limit)),
        _ => return Ok(content),
    };
    let unpacked = unpacked.map_err(|error| {
        Error::load(format!("the file is compressed with {name} and cannot be unpacked: is it complete?"))
            .with_source(error)
    })?;
    if unpacked.len() as u64 > limit {
        return Err(Error::load(format!(
            "the file unpacks from {} bytes to more than {limit}: this is not a model. If it is one, save it without \
             compression",
            content.len()
        )));
    }
    Ok(unpacked.into())
}

/// A zip archive's method 14: of LZMA's header the properties are in front, behind a version and their size.
pub fn zip_lzma(mut data: impl Read, size: u64) -> std::io::Result<impl Read> {
    let mut front = [0; 9];
    data.read_exact(&mut front)?;
    let [_, _, 5, 0, properties @ ..] = front else { return Err(std::io::ErrorKind::InvalidData.into()) };
    let header = [&properties[..], &size.to_le_bytes()].concat();
    lzma_rust2::LzmaReader::new_mem_limit(std::io::Cursor::new(header).chain(data), MAX_LZMA_KIB, None)
}

/// joblib before 0.9.3: `ZF`, the length in hexadecimal padded to 19 characters, sometimes a space more, zlib data.
fn zfile(mut input: Stream<'_>) -> Stream<'_> {
    const HEADER: usize = 2 + 19;
    let is_padded = input.content.upto(HEADER + 1).get(HEADER) == Some(&b' ');
    input.at = HEADER + usize::from(is_padded);
    input
}

/// Bytes as they come.
struct Stream<'c> {
    content: &'c Content,
    at: usize,
}

impl BufRead for Stream<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        Ok(self.content.upto(self.at + 1).get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, bytes: usize) {
        self.at += bytes;
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

/// Reads to the end, or one byte past the limit. Room is reserved in few steps, of which the last is the limit, since
/// all that was read so far is there twice while it moves. Pages that nothing is written to take no memory.
fn drain(mut reader: impl Read, limit: u64) -> std::io::Result<Vec<u8>> {
    const STEPS: u32 = 5;
    const EIGHTFOLD: u32 = 3;
    let most = usize::try_from(limit + 1).map_err(std::io::Error::other)?;
    let mut unpacked = Vec::new();
    for step in (0..STEPS).rev() {
        let room = (most >> (step * EIGHTFOLD)) - unpacked.len();
        unpacked.try_reserve_exact(room)?;
        if reader.by_ref().take(room as u64).read_to_end(&mut unpacked)? < room {
            break;
        }
    }
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn zlib(size: usize) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&vec![0; size]).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        assert_eq!(unpack_within(zlib(1000).into(), 1000).unwrap().len(), 1000);
        let error = unpack_within(zlib(1 << 20).into(), 1000).unwrap_err();
        assert!(error.message().contains("to more than 1000"), "{error}");
        // Nor is there room for more.
        for limit in [0, 1, 7, 4096, 1 << 20] {
            let room = drain(std::io::repeat(1), limit).unwrap().capacity();
            assert_eq!(room as u64, limit + 1);
        }
    }

    #[test]
    fn what_is_cut_or_damaged_is_refused() {
        let whole = zlib(1000);
        for cut in 2..whole.len() {
            assert!(unpack(whole[..cut].into()).is_err());
        }
        for start in [&b"\x1f\x8b"[..], b"BZh", b"\xfd7zXZ", b"\x5d\0", b"ZF", b"ZF0x1"] {
            assert!(unpack(start.into()).is_err(), "{start:?}");
        }
        // A header that asks for a dictionary of 4 GiB.
        assert!(unpack(b"\x5d\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0".into()).is_err());
    }
}
