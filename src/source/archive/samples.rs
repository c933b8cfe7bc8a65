//! Makes archives of every kind, also those that no tool makes.

use std::collections::BTreeMap;
use std::io::Write;

use ::tar::{Builder, EntryType, Header};

/// Written by Python: `a/model.onnx` with "model" in it.
pub const XZ: &[u8] = b"\
    \xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F\x02\x00!\x01\x1c\x00\x00\x00\x10\xcfX\xcc\xe0'\xff\x00b]\x000\x8b\xc9\
    \xa73\xa8\xe7\xaf\xa6(\xb1\x8b\x22\xce\x8c6\xf4\xa6\x04\x99/\x0c\x93x\xfd\xb9\x1d\x1a/\xef\xff\xa8>\xa9\
    \xeb\x05M\xd7{Ot[\xf1w\xcb$S\xc3\x89s\x98\x95\xdcD\xb5\x90\xe6\xe2!\x97\x84(\x8a\x8bl\xca\x17\xff\xc2\
    \x0fO\xdb\xfc\xf6\x0e\xb8\x9bP]\x081\x0c\xf5\xd8u\xbc\x86\xb4g\xe2R\xbf}s*\x95?\x00\x00\x00\x00\x95\x09\
    \xfe!\xdb \xec<\x00\x01~\x80P\x00\x00\x00\x5c\x07\x96\x88\xb1\xc4g\xfb\x02\x00\x00\x00\x00\x04YZ";

pub type Files = BTreeMap<String, Vec<u8>>;

pub fn files<const N: usize>(files: [(&str, &[u8]); N]) -> Files {
    files.into_iter().map(|(path, content)| (path.to_owned(), content.to_vec())).collect()
}

pub fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

/// One entry whose name nobody checks.
pub fn raw_entry(kind: EntryType, name: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = header(kind, content.len() as u64);
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.set_cksum();
    let padding = vec![0; content.len().next_multiple_of(512) - content.len()];
    [header.as_bytes(), content, &padding].concat()
}

pub const TAR_END: [u8; 1024] = [0; 1024];

pub fn tar(files: &Files) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    builder.append_data(&mut header(EntryType::Directory, 0), "./", &b""[..]).unwrap();
    for (path, content) in files {
        let mut header = header(EntryType::Regular, content.len() as u64);
        builder.append_data(&mut header, path, &content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Names and sizes in pax headers only, as Python writes them when they are long.
pub fn pax_tar(files: &Files) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, content) in files {
        let size = content.len().to_string();
        builder.append_pax_extensions([("path", path.as_bytes()), ("size", size.as_bytes())]).unwrap();
        let mut header = Header::new_ustar();
        header.set_path("other").unwrap();
        header.set_size(0);
        header.set_cksum();
        let padding = vec![0; content.len().next_multiple_of(512) - content.len()];
        builder.get_mut().write_all(&[header.as_bytes(), &content[..], &padding].concat()).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub struct ZipEntry<'a> {
    pub name: &'a str,
    pub content: &'a [u8],
    pub method: u16,
    pub flags: u16,
    pub mode: u16,
}

impl<'a> ZipEntry<'a> {
    pub fn new(name: &'a str, content: &'a [u8]) -> ZipEntry<'a> {
        ZipEntry { name, content, method: 0, flags: 0, mode: 0o100_644 }
    }

    /// What the local header and the directory say both, from the version that is needed on.
    fn record(&self, packed: usize) -> Vec<u8> {
        let mut crc = flate2::Crc::new();
        crc.update(self.content);
        let mut record = [20, self.flags, self.method, 0, 0].map(u16::to_le_bytes).concat();
        for number in [crc.sum(), packed.try_into().unwrap(), self.content.len().try_into().unwrap()] {
            record.extend(number.to_le_bytes());
        }
        record.extend(u32::try_from(self.name.len()).unwrap().to_le_bytes()); // and no extra field
        record
    }
}

pub fn zip_of(entries: &[ZipEntry<'_>]) -> Vec<u8> {
    let (mut members, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let packed = match entry.method {
            8 => {
                let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(entry.content).unwrap();
                encoder.finish().unwrap()
            }
            _ => entry.content.to_vec(),
        };
        let (record, begins) = (entry.record(packed.len()), u32::try_from(members.len()).unwrap());
        members.extend([b"PK\x03\x04", &record[..], entry.name.as_bytes(), &packed].concat());
        let attributes = (u32::from(entry.mode) << 16).to_le_bytes();
        directory.extend(
            [b"PK\x01\x02\x14\x03", &record[..], &[0; 6], &attributes, &begins.to_le_bytes(), entry.name.as_bytes()]
                .concat(),
        );
    }
    let count = u16::try_from(entries.len()).unwrap().to_le_bytes();
    let (size, start) = (u32::try_from(directory.len()).unwrap(), u32::try_from(members.len()).unwrap());
    let end = [&b"PK\x05\x06\0\0\0\0"[..], &count, &count, &size.to_le_bytes(), &start.to_le_bytes(), &[0; 2]].concat();
    [members, directory, end].concat()
}

pub fn zip(files: &Files, method: u16) -> Vec<u8> {
    let entry = |(name, content)| ZipEntry { method, ..ZipEntry::new(name, content) };
    let files = files.iter().map(|(name, content)| (name.as_str(), content.as_slice()));
    let folder = ZipEntry { mode: 0o040_755, ..ZipEntry::new("1/", b"") };
    zip_of(&std::iter::once(folder).chain(files.map(entry)).collect::<Vec<_>>())
}

/// Every kind of archive of the files.
pub fn all(files: &Files) -> Vec<(&'static str, Vec<u8>)> {
    let tar = tar(files);
    // Two members, as parallel compressors write.
    let half = tar.len() / 2;
    vec![
        ("tar", tar.clone()),
        ("pax", pax_tar(files)),
        ("gzip", [gzip(&tar[..half]), gzip(&tar[half..])].concat()),
        ("bzip2", [bzip2(&tar[..half]), bzip2(&tar[half..])].concat()),
        ("zstd", [zstd(&tar[..half]), zstd(&tar[half..])].concat()),
        ("zip", zip(files, 0)),
        ("deflated zip", zip(files, 8)),
    ]
}
