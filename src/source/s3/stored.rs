//! The checksums that S3 tells of an object, in the headers of an answer.
//! Source: "Checking object integrity in Amazon S3", Amazon S3 User Guide.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::source::checksum::{Algorithm, Checksum};
use crate::source::unhex;

/// A checksum whose parts' size is not known yet.
#[derive(Debug, PartialEq, Eq)]
pub struct Stored {
    pub algorithm: Algorithm,
    pub value: Vec<u8>,
    /// It is of so many parts' checksums.
    pub parts: Option<u64>,
}

impl Stored {
    /// With the size of the first part, which all but the last have.
    pub fn with_part(self, part_bytes: Option<u64>) -> Checksum {
        Checksum { algorithm: self.algorithm, value: self.value, part_bytes }
    }
}

/// What headers say: a checksum that was stored, else the `ETag` where that is the content's MD5.
pub fn stored<'h>(header: impl Fn(&str) -> Option<&'h str>, trust_etag: bool) -> Option<Stored> {
    let kept = Algorithm::ALL.into_iter().find_map(|algorithm| {
        let (value, parts) = split(header(&format!("x-amz-checksum-{}", algorithm.name()))?)?;
        let value = BASE64_STANDARD.decode(value).ok()?;
        (value.len() == algorithm.size()).then_some(Stored { algorithm, value, parts })
    });
    kept.or_else(|| if trust_etag { md5(&header) } else { None })
}

/// The `ETag` is the content's MD5, or that of its parts' MD5s, unless the object was encrypted with a key of one's own.
fn md5<'h>(header: &impl Fn(&str) -> Option<&'h str>) -> Option<Stored> {
    let by_kms = header("x-amz-server-side-encryption").is_some_and(|kind| kind.starts_with("aws:kms"));
    if by_kms || header("x-amz-server-side-encryption-customer-algorithm").is_some() {
        return None;
    }
    let (hex, parts) = split(header("etag")?.trim_matches('"'))?;
    let value = unhex(hex)?;
    (value.len() == Algorithm::Md5.size()).then_some(Stored { algorithm: Algorithm::Md5, value, parts })
}

/// `value`, or `value-parts`.
fn split(text: &str) -> Option<(&str, Option<u64>)> {
    match text.split_once('-') {
        None => Some((text, None)),
        Some((value, parts)) => Some((value, Some(parts.parse().ok()?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&str, &'static str)]) -> Option<Stored> {
        let header = |name: &str| headers.iter().find(|(own, _)| *own == name).map(|(_, value)| *value);
        stored(header, true)
    }

    #[test]
    fn stored_checksums_come_before_the_etag() {
        let etag = ("etag", "\"25f9e794323b453885f5181f1b624d0b\"");
        let crc = of(&[etag, ("x-amz-checksum-crc32", "y/Q5Jg==")]).unwrap();
        assert_eq!(crc, Stored { algorithm: Algorithm::Crc32, value: vec![0xcb, 0xf4, 0x39, 0x26], parts: None });
        let md5 = of(&[etag]).unwrap();
        assert_eq!((md5.algorithm, md5.value[0], md5.parts), (Algorithm::Md5, 0x25, None));
        assert_eq!(stored(|name| (name == "etag").then_some(etag.1), false), None);
    }

    #[test]
    fn sums_of_parts_say_so() {
        assert_eq!(of(&[("x-amz-checksum-crc32c", "mWqkig==-3")]).unwrap().parts, Some(3));
        assert_eq!(of(&[("etag", "\"9b53f6e36fa85f0dfed41d187c944b6d-3\"")]).unwrap().parts, Some(3));
    }

    #[test]
    fn what_is_no_sum_is_none() {
        let etag = ("etag", "\"25f9e794323b453885f5181f1b624d0b\"");
        for headers in [
            &[][..],
            &[("etag", "\"v1-tag\"")],
            &[("etag", "\"25f9\"")],
            &[("etag", "\"ü5f9e794323b453885f5181f1b624d0\"")],
            &[("x-amz-checksum-crc32", "AAAA")],
            &[etag, ("x-amz-server-side-encryption", "aws:kms:dsse")],
            &[etag, ("x-amz-server-side-encryption-customer-algorithm", "AES256")],
        ] {
            assert_eq!(of(headers), None, "{headers:?}");
        }
    }
}
