//! Archives of every kind: as tools make them, broken, and hostile.

use ::tar::{Builder, EntryType};
use bytes::Bytes;

use super::samples::*;
use super::*;
use crate::source::cache::Cache;
use crate::source::cache::tests::fetch;
use crate::source::memory::Memory;

const MANY: u64 = 1 << 30;

/// A model with what is awkward: long names, empty files, more than a buffer.
fn model() -> Files {
    let weights: Vec<u8> = (0..=250).cycle().take(BUFFER_BYTES + 12_345).collect();
    let long = format!("{}/{}.bin", "folder".repeat(20), "file".repeat(30));
    files([("1/model.onnx", &weights), ("empty", b""), ("ünder/a b+c%.txt", b"x"), (&long, b"long")])
}

fn memory(archive: Vec<u8>) -> Memory {
    Memory::new([("dir/model.tar.gz", archive.into())])
}

/// What is in a folder.
fn found(folder: &Path) -> Files {
    fn walk(folder: &Path, below: &str, found: &mut Files) {
        for entry in folder.read_dir().unwrap() {
            let entry = entry.unwrap();
            let path = format!("{below}{}", entry.file_name().to_str().unwrap());
            if entry.path().is_dir() {
                walk(&entry.path(), &format!("{path}/"), found);
            } else {
                found.insert(path, std::fs::read(entry.path()).unwrap());
            }
        }
    }
    let mut files = Files::new();
    walk(folder, "", &mut files);
    files
}

fn try_unpack(source: &Memory, max_bytes: u64) -> Result<Files> {
    let manifest = source.manifest().unwrap();
    try_unpack_file(source, single(&manifest).unwrap(), max_bytes)
}

fn try_unpack_file(source: &Memory, file: &RemoteFile, max_bytes: u64) -> Result<Files> {
    let folder = tempfile::tempdir().unwrap();
    let listed = unpack(source, file, folder.path(), max_bytes)?;
    let found = found(folder.path());
    assert_eq!(listed.len(), found.len());
    for (path, sum) in listed {
        assert!(sum.is_of(&found[&path][..]).unwrap(), "{path}");
    }
    Ok(found)
}

fn refusal(archive: Vec<u8>) -> String {
    try_unpack(&memory(archive), MANY).unwrap_err().to_string()
}

#[test]
fn every_kind_unpacks_to_the_same() {
    for (kind, archive) in all(&model()) {
        assert!(try_unpack(&memory(archive), MANY).unwrap() == model(), "{kind}");
    }
    assert_eq!(try_unpack(&memory(XZ.to_vec()), MANY).unwrap(), files([("a/model.onnx", b"model")]));
}

#[test]
fn streams_of_many_parts_go_on_where_they_broke() {
    let period: Vec<u8> = (0..=250).collect();
    let weights = period.repeat(17 * usize::try_from(stream::PART_BYTES).unwrap() / period.len()); // more than the window
    let large = files([("model.bin", &weights), ("z", b"z")]);
    for archive in [tar(&large), zip(&large, 0)] {
        let mut source = memory(archive);
        let manifest = source.manifest().unwrap();
        source.break_after = Some(3 * BUFFER_BYTES);
        assert!(try_unpack_file(&source, &manifest[0], MANY).unwrap() == large);
        assert!(source.opened() > 60);
        source.fail_from = Some(source.opened() + 10);
        let error = try_unpack_file(&source, &manifest[0], MANY).unwrap_err();
        assert!(error.message().ends_with("scripted failure"), "{error}");
        source.fail_from = None;
        source.break_after = Some(5);
        assert!(try_unpack_file(&source, &manifest[0], MANY).unwrap_err().message().ends_with("a scripted break"));
    }
}

#[test]
fn entries_that_no_model_needs_are_refused_by_name() {
    let tar = |kind, name: &[u8]| [&raw_entry(kind, name, b"")[..], &TAR_END].concat();
    let sparse = {
        let mut builder = Builder::new(Vec::new());
        builder.append_pax_extensions([("GNU.sparse.major", &b"1"[..])]).unwrap();
        [builder.get_ref().clone(), raw_entry(EntryType::Regular, b"holes", b"")].concat()
    };
    let twice = |name: &[u8]| {
        let entries = [raw_entry(EntryType::Regular, b"a/twice", b"1"), raw_entry(EntryType::Regular, name, b"2")];
        [&entries.concat()[..], &TAR_END].concat()
    };
    let zipped = |entry: ZipEntry<'_>| zip_of(&[ZipEntry::new("good", b"x"), entry]);
    let entry = |name| ZipEntry::new(name, b"x");
    for (archive, reason) in [
        (tar(EntryType::Regular, b"../../etc/passwd"), "entry \"../../etc/passwd\": the name has \"..\" in it"),
        (tar(EntryType::Directory, b"a/../.."), "entry \"a/../..\": the name has \"..\" in it"),
        (tar(EntryType::Regular, b"/etc/passwd"), "entry \"/etc/passwd\": the name is absolute"),
        (tar(EntryType::Regular, b"\xff"), "the name is not UTF-8"),
        (tar(EntryType::Regular, b".stoker-unpacked"), "the name is reserved for stoker itself"),
        (tar(EntryType::Regular, b"."), "entry \".\": a file without a name"),
        (tar(EntryType::Symlink, b"link"), "entry \"link\": it is a link"),
        (tar(EntryType::Link, b"link"), "entry \"link\": it is a link"),
        (tar(EntryType::Char, b"dev"), "entry \"dev\": it is a device"),
        (tar(EntryType::Block, b"dev"), "entry \"dev\": it is a device"),
        (tar(EntryType::Fifo, b"pipe"), "entry \"pipe\": it is a device or a pipe"),
        (tar(EntryType::new(b'V'), b"label"), "entry \"label\": it is of the type \"V\""),
        (sparse, "entry \"holes\": it is a sparse file"),
        (twice(b"a/twice"), "entry \"a/twice\": there is another entry"),
        (twice(b"./a//twice"), "entry \"./a//twice\": there is another entry"),
        (twice(b"a"), "entry \"a\": there is another entry"),
        (twice(b"a/twice/below"), "entry \"a/twice/below\": there is another entry"),
        (zipped(entry("../up")), "entry \"../up\": the name has \"..\" in it"),
        (zipped(entry("/up")), "entry \"/up\": the name is absolute"),
        (zipped(entry("good")), "entry \"good\": there is another entry"),
        (zipped(ZipEntry { mode: 0o120_777, ..entry("link") }), "entry \"link\": it is a link"),
        (zipped(ZipEntry { mode: 0o020_666, ..entry("dev") }), "entry \"dev\": it is a device"),
        (zipped(ZipEntry { flags: 1, ..entry("secret") }), "entry \"secret\": it is encrypted"),
        (zipped(ZipEntry { method: 97, ..entry("odd") }), "entry \"odd\": zip compression method 97"),
    ] {
        let said = refusal(archive);
        assert!(said.starts_with("dir/model.tar.gz: ") && said.contains(reason), "{said}");
    }
}

#[test]
fn what_is_refused_is_not_read_further() {
    let mut archive = raw_entry(EntryType::Regular, b"../a", b"");
    archive.resize(30 * usize::try_from(stream::PART_BYTES).unwrap(), 0);
    let source = memory(archive);
    assert!(try_unpack(&source, MANY).is_err());
    assert!(source.opened() <= 1 + 16, "its beginning and a window: {}", source.opened());
}

#[test]
fn bombs_are_bounded() {
    let large = files([("weights", &[0; 5000])]);
    for (kind, archive) in all(&large) {
        let error = try_unpack(&memory(archive), 4999).unwrap_err();
        assert!(error.message().contains("to more than 4999: if it is a model, set STORAGE_MAX"), "{kind}: {error}");
    }
    // Not what an entry says, but what there is.
    let zeros = gzip(&[&raw_entry(EntryType::Regular, b"a", b"")[..], &vec![0; 1 << 20]].concat());
    let error = try_unpack(&memory(zeros), 1 << 20).unwrap_err();
    assert!(error.message().contains("to more than"), "{error}");
    let limits = |archive, setting| Limits { archive, setting };
    assert_eq!(limits(1 << 20, u64::MAX).bytes(), (1000 << 20) + (256 << 20));
    assert!(limits(1, u64::MAX).exceeded().message().contains("from 1 bytes to more than 268436456: this is not"));

    let described = raw_entry(EntryType::GNULongName, b"././@LongLink", &vec![b'a'; 2 << 20]);
    assert!(refusal(described).contains("the description of an entry is longer than 1048576 bytes"));
    let described = raw_entry(EntryType::XGlobalHeader, b"pax", &vec![b'a'; 2 << 20]);
    assert!(refusal(described).contains("the description of an entry is longer than 1048576 bytes"));
    let many = raw_entry(EntryType::XGlobalHeader, b"pax", b"").repeat(MAX_ENTRIES + 1);
    assert!(refusal(many).contains("more than 100000 entries"));
    let mut many = zip(&Files::new(), 0);
    let wide = [&b"PK\x06\x06"[..], &[0; 28], &100_001_u64.to_le_bytes(), &[0; 16]].concat();
    let at = u64::try_from(many.len() - 22).unwrap();
    let locator = [&b"PK\x06\x07\0\0\0\0"[..], &at.to_le_bytes(), &[0; 4]].concat();
    many.splice(many.len() - 22..many.len() - 22, [wide, locator].concat());
    assert!(refusal(many).contains("100001 entries, described in 0 bytes"));
}

#[test]
fn members_that_overlap_are_refused() {
    let mut bomb = zip_of(&[ZipEntry::new("a", b"same"), ZipEntry::new("b", b"other")]);
    let second = memchr::memmem::rfind(&bomb, b"PK\x01\x02").unwrap();
    bomb[second + 42..second + 46].fill(0); // begins where the first does
    assert!(refusal(bomb).contains("entry \"b\": the archive is damaged: its beginning: members overlap"));
}

#[test]
fn what_is_cut_off_ends_too_early() {
    let small = files([("1/model.onnx", b"model"), ("2/empty", b"")]);
    for (kind, archive) in all(&small) {
        // The second block of zeros at a tar's end says nothing more.
        let end = archive.len() - if matches!(kind, "tar" | "pax") { 512 } else { 0 };
        for cut in (6..end).rev().step_by(archive.len() / 50 + 1) {
            let said = refusal(archive[..cut].to_vec());
            assert!(said.contains("ends too early"), "{kind} cut at {cut} of {}: {said}", archive.len());
        }
    }
    assert!(refusal(XZ[..XZ.len() - 1].to_vec()).contains("ends too early"));
    // All entries are there, but not the end.
    assert!(refusal(raw_entry(EntryType::Regular, b"a", b"whole")).contains("ends too early"));
    assert!(refusal(Vec::new()).contains("ends too early"));
    assert!(refusal(TAR_END.to_vec()).ends_with("the archive is empty"));
    assert!(refusal(zip_of(&[])).ends_with("the archive is empty"));
}

#[test]
fn damage_is_found_by_checksums() {
    let small = files([("1/model.onnx", &b"model".repeat(100))]);
    let tar = tar(&small);
    for (kind, mut archive, from_end) in
        [("gzip", gzip(&tar), 8), ("zstd", zstd(&tar), 1), ("bzip2", bzip2(&tar), 2), ("xz", XZ.to_vec(), 40)]
    {
        let at = archive.len() - from_end;
        archive[at] ^= 1;
        let said = refusal(archive);
        assert!(said.contains("the archive is damaged, or compressed with too large a window"), "{kind}: {said}");
    }
    for method in [0, 8] {
        let mut archive = zip(&small, method);
        let at = memchr::memmem::rfind(&archive, b"PK\x01\x02").unwrap();
        archive[at + 16] ^= 1;
        assert!(refusal(archive).contains("entry \"1/model.onnx\": the archive is damaged: its checksum"));
    }
    let mut header = tar.clone();
    header[512] ^= 1; // behind that of "./"
    assert!(refusal(header).contains("the archive is damaged: what it has is no tar"));
    let text = b"<html>".repeat(100);
    assert!(refusal(text.clone()).contains("is no tar"));
    assert!(refusal(gzip(&text)).contains("is no tar"));
}

/// Numbers that look random and are always the same.
fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state >> 33).unwrap()
}

#[test]
fn mutations_stay_within_bounds_and_below_the_folder() {
    const MOST: u64 = 100_000;
    const ROUNDS: usize = 100;
    let small = files([("1/model.onnx", &b"model".repeat(200)), ("..2/empty", b""), ("z", b"z")]);
    let mut state = 4;
    for (kind, archive) in all(&small) {
        for round in 0..ROUNDS {
            let mut mutated = archive.clone();
            for _ in 0..=random(&mut state) % 4 {
                let at = random(&mut state) % mutated.len();
                match random(&mut state) % 4 {
                    0 => mutated[at] ^= 1 << (random(&mut state) % 8),
                    1 => mutated[at] = b"\0\xff./"[random(&mut state) % 4],
                    2 => mutated.truncate(at.max(6)),
                    _ => {
                        let places = mutated.len().saturating_sub(16).max(1);
                        let (from, to) = (random(&mut state) % places, random(&mut state) % places);
                        let until = mutated.len().min(from + 16);
                        mutated.copy_within(from..until, to);
                    }
                }
            }
            let above = tempfile::tempdir().unwrap();
            let folder = above.path().join("a/b");
            std::fs::create_dir_all(&folder).unwrap();
            let source = memory(mutated);
            let manifest = source.manifest().unwrap();
            let _ = unpack(&source, &manifest[0], &folder, MOST);
            let all = found(above.path());
            assert!(all.keys().all(|path| path.starts_with("a/b/")), "{kind} {round}: {:?}", all.keys());
            assert!(all.values().map(|content| content.len() as u64).sum::<u64>() <= 2 * MOST, "{kind} {round}");
        }
    }
}

#[test]
fn what_only_comes_whole_is_unpacked_from_the_disk() {
    for archive in [gzip(&tar(&model())), zip(&model(), 8)] {
        let mut source = memory(archive.clone());
        source.whole = true;
        assert_eq!(try_unpack(&source, MANY).unwrap(), model());
        let mut cut = memory(archive[..archive.len() / 2].to_vec());
        cut.whole = true;
        assert!(try_unpack(&cut, MANY).is_err());
    }
}

#[test]
fn what_was_unpacked_is_not_fetched_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache { directory: folder.path().to_owned(), max_bytes: None, max_unpacked_bytes: MANY };
    let source = memory(gzip(&tar(&model())));
    let bring = || fetch(&cache, &source, "memory://a").unwrap();
    let first = bring();
    assert!(!first.cached && found(&first.directory) == model());
    let opened = source.opened();
    assert!(bring().cached && source.opened() == opened);
    std::fs::remove_file(first.directory.join("empty")).unwrap();
    let again = bring();
    assert!(!again.cached && found(&again.directory) == model());
    // What cannot be unpacked leaves nothing.
    let directory = cache.directory.join("other");
    let other = Cache { directory: directory.clone(), ..cache.clone() };
    let broken = [&raw_entry(EntryType::Regular, b"a", b"x")[..], &raw_entry(EntryType::Link, b"b", b"")].concat();
    assert!(fetch(&other, &memory(broken), "memory://b").is_err());
    assert_eq!(found(&directory), Files::new());
}

#[test]
fn only_an_archive_that_is_alone_is_unpacked() {
    let several = Memory::new([("a.tar", Bytes::new()), ("b", Bytes::new())]);
    assert_eq!(single(&several.manifest().unwrap()), None);
    assert_eq!(single(&Memory::new([("a.onnx", Bytes::new())]).manifest().unwrap()), None);
    assert!(single(&memory(Vec::new()).manifest().unwrap()).is_some());
}

#[test]
fn the_bound_is_a_setting() {
    let env = |value: Option<&'static str>| max_unpacked_bytes(&move |_| value.map(str::to_owned));
    assert_eq!(env(None).unwrap(), 64 << 30);
    assert_eq!(env(Some("1000")).unwrap(), 1000);
    assert!(env(Some("64GB")).unwrap_err().message().contains("STORAGE_MAX_UNPACKED_BYTES: \"64GB\" is no number"));
}

#[test]
fn what_the_store_sums_up_to_something_else_is_refused() {
    for length in [100, 5 * usize::try_from(stream::PART_BYTES / 2).unwrap()] {
        let mut source = memory(tar(&files([("weights", &vec![7; length])])));
        source.damaged = 2; // what it begins with, and then the first part
        let error = try_unpack(&source, MANY).unwrap_err();
        assert!(error.message().contains("its bytes do not have its checksum"), "{error}");
    }
}
