//! Compressed files: which compression, and the bytes behind it, never more than a bound allows.

use std::io::Read;

use bytes::Bytes;

use crate::error::{Error, Result};

/// What a file may always unpack to, and how often its own size beyond that: trees and padding of real models
/// shrink to a tenth, whereas a bomb grows a thousandfold.
const ALWAYS: u64 = 256 << 20;
const PER_BYTE: u64 = 100;

/// Most bytes that a file of this size may unpack to.
pub fn bound(compressed: usize) -> u64 {
    (compressed as u64).saturating_mul(PER_BYTE).saturating_add(ALWAYS)
}

/// xz's highest level wants 65 MiB; what a file asks for is allocated before the first byte is there.
const MAX_LZMA_KIB: u32 = 128 << 10;

/// The bytes as they are, or what they unpack to when they are compressed in one of joblib's ways.
///
/// # Errors
/// When the data is damaged or unpacks to more than [`bound`].
pub fn unpack(bytes: Bytes) -> Result<Bytes> {
    let failed = |name: &str, error: std::io::Error| {
        Error::load(format!("the file is compressed with {name} and cannot be unpacked: is it complete?"))
            .with_source(error)
    };
    let input = &bytes[..];
    let (name, unpacked) = match input {
        [0x1f, 0x8b, ..] => ("gzip", drain(flate2::bufread::MultiGzDecoder::new(input), bytes.len())),
        [0x78, second, ..] if (0x7800 | u16::from(*second)).is_multiple_of(31) => {
            ("zlib", drain(flate2::bufread::ZlibDecoder::new(input), bytes.len()))
        }
        [b'B', b'Z', b'h', ..] => ("bz2", drain(bzip2::bufread::MultiBzDecoder::new(input), bytes.len())),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            let reader = lzma_rust2::XzReader::new_mem_limit(input, true, MAX_LZMA_KIB);
            ("xz", drain(reader, bytes.len()))
        }
        [0x5d, 0, ..] => {
            let reader = lzma_rust2::LzmaReader::new_mem_limit(input, MAX_LZMA_KIB, None);
            ("lzma", reader.and_then(|reader| drain(reader, bytes.len())))
        }
        [4, 0x22, 0x4d, 0x18, ..] => ("lz4", drain(lz4_flex::frame::FrameDecoder::new(input), bytes.len())),
        [b'Z', b'F', ..] => ("zlib", drain(flate2::bufread::ZlibDecoder::new(zfile(input)), bytes.len())),
        _ => return Ok(bytes),
    };
    unpacked.map_err(|error| failed(name, error)).and_then(|unpacked| within(unpacked, bytes.len()))
}

/// joblib before 0.9.3: `ZF`, the length in hexadecimal padded to 19 characters, sometimes a space more, zlib data.
fn zfile(input: &[u8]) -> &[u8] {
    let data = input.get(2 + 19..).unwrap_or_default();
    data.strip_prefix(b" ").unwrap_or(data)
}

/// Reads to the end, or one byte past the bound.
fn drain(reader: impl Read, compressed: usize) -> std::io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    reader.take(bound(compressed) + 1).read_to_end(&mut unpacked)?;
    Ok(unpacked)
}

fn within(unpacked: Vec<u8>, compressed: usize) -> Result<Bytes> {
    if unpacked.len() as u64 > bound(compressed) {
        return Err(Error::load(format!(
            "the file unpacks from {compressed} bytes to more than {} bytes: this is not a model. If it is one, save it \
             without compression",
            bound(compressed)
        )));
    }
    Ok(unpacked.into())
}
