//! Checksums that stores keep of what they hold. CRCs are computed while the parts of a file arrive, in any order: those
//! of neighbouring stretches combine to that of both. Other sums need all bytes in order, and are made of the file when
//! it is there.

use std::io::{self, Read};

use crc_fast::{CrcAlgorithm, Digest as Crc, checksum_combine};
use sha2::digest::DynDigest;

use super::{hex, unhex};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Md5,
    Sha1,
    Sha256,
}

/// What a file should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    pub algorithm: Algorithm,
    /// Most significant byte first.
    pub value: Vec<u8>,
    /// It is the sum of the sums of parts of so many bytes, one after the other; the last part may be shorter.
    pub part_bytes: Option<u64>,
}

impl std::fmt::Display for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.algorithm.name(), hex(&self.value))
    }
}

impl Algorithm {
    pub const ALL: [Algorithm; 6] =
        [Algorithm::Crc64Nvme, Algorithm::Crc32c, Algorithm::Crc32, Algorithm::Sha256, Algorithm::Sha1, Algorithm::Md5];

    /// As S3 calls it in `x-amz-checksum-` headers.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "crc32",
            Algorithm::Crc32c => "crc32c",
            Algorithm::Crc64Nvme => "crc64nvme",
            Algorithm::Md5 => "md5",
            Algorithm::Sha1 => "sha1",
            Algorithm::Sha256 => "sha256",
        }
    }

    /// Bytes of a sum.
    pub fn size(self) -> usize {
        match self {
            Algorithm::Crc32 | Algorithm::Crc32c => 4,
            Algorithm::Crc64Nvme => 8,
            Algorithm::Md5 => 16,
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 => 32,
        }
    }

    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Algorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Algorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Algorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Algorithm::Md5 | Algorithm::Sha1 | Algorithm::Sha256 => None,
        }
    }

    fn crc_bytes(self, crc: u64) -> Vec<u8> {
        crc.to_be_bytes()[8 - self.size()..].to_vec()
    }

    fn hasher(self) -> Option<Box<dyn DynDigest>> {
        match self {
            Algorithm::Md5 => Some(Box::new(md5::Md5::default())),
            Algorithm::Sha1 => Some(Box::new(sha1::Sha1::default())),
            Algorithm::Sha256 => Some(Box::new(sha2::Sha256::default())),
            Algorithm::Crc32 | Algorithm::Crc32c | Algorithm::Crc64Nvme => None,
        }
    }
}

impl Checksum {
    /// As [`Display`](std::fmt::Display) writes it.
    pub fn parse(text: &str) -> Option<Checksum> {
        let (name, value) = text.split_once(' ')?;
        let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)?;
        let value = unhex(value).filter(|value| value.len() == algorithm.size())?;
        Some(Checksum { algorithm, value, part_bytes: None })
    }

    /// Whether bytes in order sum up to it.
    ///
    /// # Errors
    /// When the bytes cannot be read.
    pub fn is_of(&self, mut bytes: impl Read) -> io::Result<bool> {
        let mut buffer = vec![0; 256 << 10];
        let mut sum = InOrder::begin(self);
        loop {
            match bytes.read(&mut buffer)? {
                0 => return Ok(sum.is_right()),
                read => sum.update(&buffer[..read]),
            }
        }
    }
}

/// Sums up all bytes of a file, in order.
pub struct InOrder<'c> {
    expected: &'c Checksum,
    crc: Sum,
    /// When it is no CRC: of all bytes, or of the sums of the parts; and of the current part.
    hashers: Option<(Box<dyn DynDigest>, Box<dyn DynDigest>)>,
    /// Bytes of the current part.
    in_part: u64,
}

impl<'c> InOrder<'c> {
    /// To be compared with this.
    pub fn begin(expected: &'c Checksum) -> InOrder<'c> {
        let hashers = expected.algorithm.hasher().zip(expected.algorithm.hasher());
        InOrder { expected, crc: Sum::begin(Some(expected), 0), hashers, in_part: 0 }
    }

    pub fn update(&mut self, mut bytes: &[u8]) {
        let Some((whole, part)) = &mut self.hashers else { return self.crc.update(bytes) };
        let Some(part_bytes) = self.expected.part_bytes.map(|bytes| bytes.max(1)) else { return whole.update(bytes) };
        while !bytes.is_empty() {
            let left = usize::try_from(part_bytes - self.in_part).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(left));
            part.update(now);
            self.in_part += now.len() as u64;
            bytes = later;
            if self.in_part == part_bytes {
                whole.update(&part.finalize_reset());
                self.in_part = 0;
            }
        }
    }

    pub fn is_right(self) -> bool {
        let Some((mut whole, part)) = self.hashers else {
            let mut sums = Sums::default();
            sums.extend([self.crc]);
            return sums.like(self.expected).as_ref() == Some(self.expected);
        };
        if self.in_part > 0 {
            whole.update(&part.finalize());
        }
        *whole.finalize() == *self.expected.value
    }
}

/// The CRC of consecutive bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    start: u64,
    bytes: u64,
    crc: u64,
}

/// Computes the CRCs of bytes as they come, cut where the parts of a checksum end.
pub struct Sum {
    algorithm: Algorithm,
    crc: CrcAlgorithm,
    part_bytes: u64,
    /// Where the current stretch begins.
    start: u64,
    current: Crc,
    done: Vec<Stretch>,
}

impl Sum {
    /// Of bytes from `start` on, to be compared with this checksum.
    pub fn begin(expected: Option<&Checksum>, start: u64) -> Sum {
        let (algorithm, crc) = expected
            .and_then(|expected| Some((expected.algorithm, expected.algorithm.crc()?)))
            .unwrap_or((Algorithm::Crc64Nvme, CrcAlgorithm::Crc64Nvme));
        let part_bytes = expected.and_then(|expected| expected.part_bytes).unwrap_or(u64::MAX).max(1);
        Sum { algorithm, crc, part_bytes, start, current: Crc::new(crc), done: Vec::new() }
    }

    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let at = self.start + self.current.get_amount();
            let left = self.part_bytes - at % self.part_bytes;
            let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
            self.current.update(now);
            bytes = later;
            if now.len() as u64 == left {
                self.cut();
            }
        }
    }

    fn cut(&mut self) {
        let bytes = self.current.get_amount();
        if bytes > 0 {
            self.done.push(Stretch { start: self.start, bytes, crc: self.current.finalize_reset() });
            self.start += bytes;
        }
    }
}

/// The sums of all stretches of a file, as they become known.
#[derive(Default)]
pub struct Sums {
    stretches: Vec<Stretch>,
    kind: Option<(Algorithm, CrcAlgorithm)>,
}

impl Extend<Sum> for Sums {
    fn extend<I: IntoIterator<Item = Sum>>(&mut self, sums: I) {
        sums.into_iter().for_each(|sum| self.add(sum));
    }
}

impl Sums {
    fn add(&mut self, mut sum: Sum) {
        sum.cut();
        self.kind = Some((sum.algorithm, sum.crc));
        self.stretches.append(&mut sum.done);
    }

    /// Of the whole file, once all of it is there.
    pub fn whole(&mut self) -> Checksum {
        let (algorithm, crc) = self.kind.unwrap_or((Algorithm::Crc64Nvme, CrcAlgorithm::Crc64Nvme));
        self.stretches.sort_unstable_by_key(|stretch| stretch.start);
        let value = algorithm.crc_bytes(combined(crc, &self.stretches));
        Checksum { algorithm, value, part_bytes: None }
    }

    /// The same sum as the expected one, to be compared with it; `None` when that is no CRC.
    pub fn like(&mut self, expected: &Checksum) -> Option<Checksum> {
        let crc = expected.algorithm.crc()?;
        let whole = self.whole();
        let Some(part_bytes) = expected.part_bytes else { return Some(whole) };
        let mut outer = Crc::new(crc);
        for part in self.stretches.chunk_by(|one, other| one.start / part_bytes == other.start / part_bytes) {
            outer.update(&expected.algorithm.crc_bytes(combined(crc, part)));
        }
        Some(Checksum { value: expected.algorithm.crc_bytes(outer.finalize()), ..expected.clone() })
    }
}

fn combined(crc: CrcAlgorithm, stretches: &[Stretch]) -> u64 {
    let [first, others @ ..] = stretches else { return Crc::new(crc).finalize() };
    others.iter().fold(first.crc, |sum, next| checksum_combine(crc, sum, next.crc, next.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(algorithm: Algorithm, part_bytes: Option<u64>, value: &str) -> Checksum {
        Checksum { algorithm, part_bytes, value: unhex(value).unwrap() }
    }

    /// Sums of the bytes as they come when `cuts` are where requests begin, the last request first.
    fn sums(expected: &Checksum, bytes: &[u8], cuts: &[usize]) -> Sums {
        let mut sums = Sums::default();
        let ends = cuts.iter().copied().skip(1).chain([bytes.len()]);
        for (start, end) in cuts.iter().copied().zip(ends).collect::<Vec<_>>().into_iter().rev() {
            let mut sum = Sum::begin(Some(expected), start as u64);
            bytes[start..end].chunks(65_537).for_each(|some| sum.update(some));
            sums.add(sum);
        }
        sums
    }

    /// The values are the catalogue's (reveng) for "123456789", and RFC 1321's and FIPS 180's methods by coreutils.
    #[test]
    fn sums_are_the_standards() {
        for (algorithm, value) in [
            (Algorithm::Crc32, "cbf43926"),
            (Algorithm::Crc32c, "e3069283"),
            (Algorithm::Crc64Nvme, "ae8b14860a799888"),
        ] {
            let expected = expected(algorithm, None, value);
            assert_eq!(sums(&expected, b"123456789", &[0]).like(&expected), Some(expected.clone()));
            assert_eq!(sums(&expected, b"123456789", &[0, 1, 5]).like(&expected), Some(expected.clone()));
            assert_ne!(sums(&expected, b"123456788", &[0, 5]).like(&expected), Some(expected));
        }
        for (algorithm, value) in [
            (Algorithm::Md5, "25f9e794323b453885f5181f1b624d0b"),
            (Algorithm::Sha1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
            (Algorithm::Sha256, "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
        ] {
            let expected = expected(algorithm, None, value);
            assert!(expected.is_of(&b"123456789"[..]).unwrap());
            assert!(!expected.is_of(&b"123456788"[..]).unwrap());
            assert_eq!(Sums::default().like(&expected), None);
        }
    }

    /// What boto3 1.44 and MinIO keep of 20 MiB of 0x5a in parts of 8 MiB.
    #[test]
    fn sums_of_parts_are_s3s() {
        let bytes = vec![0x5a; 20 << 20];
        let part = Some(8 << 20);
        for (algorithm, value) in [(Algorithm::Crc32, "3c485ca0"), (Algorithm::Crc32c, "996aa48a")] {
            let expected = expected(algorithm, part, value);
            for cuts in [&[0][..], &[0, 8 << 20, 16 << 20], &[0, 5_000_001, 9 << 20]] {
                assert_eq!(sums(&expected, &bytes, cuts).like(&expected), Some(expected.clone()), "{cuts:?}");
            }
        }
        for (algorithm, value) in [
            (Algorithm::Md5, "9b53f6e36fa85f0dfed41d187c944b6d"),
            (Algorithm::Sha256, "bc60373055bcdbc9041c602be79c532173a82628ae0653ca06d68deeb24fb068"),
        ] {
            assert!(expected(algorithm, part, value).is_of(&bytes[..]).unwrap());
            assert!(!expected(algorithm, part, value).is_of(&bytes[1..]).unwrap());
        }
    }

    #[test]
    fn an_empty_file_has_a_sum() {
        let expected = expected(Algorithm::Crc32, None, "00000000");
        assert_eq!(sums(&expected, b"", &[0]).like(&expected), Some(expected));
    }
}
