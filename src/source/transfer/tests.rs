//! Files into memory; those on the disk are tested with the cache.

use bytes::Bytes;

use super::*;
use crate::source::memory::Memory;

#[allow(clippy::cast_possible_truncation)] // a few megabytes
fn content() -> Bytes {
    (0..=250).cycle().take((PART_BYTES * 2 + 12_345) as usize).collect()
}

fn source(plan: impl FnOnce(&mut Memory)) -> Memory {
    let mut source =
        Memory::new([("1/model.onnx", content()), ("empty", Bytes::new()), ("small", Bytes::from_static(b"x"))]);
    plan(&mut source);
    source
}

fn never(_: &str) -> bool {
    false
}

fn read_all(source: &Memory, manifest: &[RemoteFile]) -> Result<Contents> {
    Transfer::to_memory(source, manifest, &never)?.run().map(|moved| moved.contents)
}

fn assert_whole(read: &Contents) {
    assert_eq!(read["1/model.onnx"].all(), content());
    assert_eq!((read["empty"].all(), read["small"].all()), (&b""[..], &b"x"[..]));
}

fn assert_read(source: &Memory) {
    assert_whole(&read_all(source, &source.manifest().unwrap()).unwrap());
}

#[test]
fn all_files_arrive_whole() {
    assert_read(&source(|_| {}));
    assert_read(&source(|source| source.whole = true));
}

#[test]
fn what_breaks_or_is_damaged_is_read_again() {
    assert_read(&source(|source| source.break_after = Some(3 * BUFFER_BYTES)));
    assert_read(&source(|source| source.damaged = 1));
}

#[test]
fn what_fails_for_good_fails() {
    let failing = source(|source| source.fail_from = Some(2));
    let error = read_all(&failing, &failing.manifest().unwrap()).unwrap_err();
    assert!(error.message().contains("scripted failure"), "{error}");
    let damaged = source(|source| source.damaged = usize::MAX);
    let error = read_all(&damaged, &damaged.manifest().unwrap()).unwrap_err();
    assert!(error.message().contains("do not have its checksum"), "{error}");
    let huge = vec![RemoteFile { bytes: 1 << 50, ..source(|_| {}).manifest().unwrap().remove(0) }];
    assert!(read_all(&source(|_| {}), &huge).unwrap_err().message().contains("of memory are free"));
}

#[test]
fn what_is_wanted_early_is_read_while_it_comes_to_the_disk() {
    for (damaged, break_after) in [(0, None), (0, Some(3 * BUFFER_BYTES)), (1, None)] {
        let mut source = Memory::new([("1/model.onnx", content())]);
        (source.damaged, source.break_after) = (damaged, break_after);
        let (folder, manifest) = (tempfile::tempdir().unwrap(), source.manifest().unwrap());
        let (files, journal) = (folder.path().join("files"), folder.path().join("parts"));
        let early = |path: &str| path.ends_with(".onnx");
        let transfer = Transfer::to_disk(&source, &manifest, &files, &journal, &early).unwrap();
        let begun = transfer.contents();
        assert_eq!(begun.keys().collect::<Vec<_>>(), ["1/model.onnx"]);
        let (moved, seen) = std::thread::scope(|scope| {
            let reading = scope.spawn(|| begun["1/model.onnx"].all().to_vec());
            (transfer.run().unwrap(), reading.join().unwrap())
        });
        assert_eq!(moved.is_as_begun, damaged == 0);
        assert_eq!(moved.is_as_begun, seen == content());
        assert_eq!(moved.contents["1/model.onnx"].all(), content());
        assert_eq!(std::fs::read(files.join("1/model.onnx")).unwrap(), content());
    }
    // What nobody reads early does not matter to them.
    let mut source = Memory::new([("a", content())]);
    source.damaged = 1;
    let (folder, manifest) = (tempfile::tempdir().unwrap(), source.manifest().unwrap());
    let moved =
        Transfer::to_disk(&source, &manifest, folder.path(), &folder.path().join("parts"), &never).unwrap().run();
    assert!(moved.unwrap().is_as_begun);
}

#[test]
fn whoever_reads_a_file_that_does_not_come_is_not_kept_waiting() {
    let source = source(|source| source.fail_from = Some(1));
    let manifest = source.manifest().unwrap();
    let transfer = Transfer::to_memory(&source, &manifest, &never).unwrap();
    let begun = transfer.contents();
    assert!(transfer.run().is_err());
    assert!(begun["1/model.onnx"].all().len() < content().len());
}

#[test]
fn parts_are_as_large_as_leaves_work_for_all() {
    const MIB: u64 = 1 << 20;
    let file = |bytes| RemoteFile { bytes, ..source(|_| {}).manifest().unwrap().remove(0) };
    let step = |bytes, early| steps(&[file(bytes)], &|_| early)[0];
    assert_eq!((step(0, true), step(8 * MIB, true), step(8 * MIB, false)), (8 * MIB, 8 * MIB, 8 * MIB));
    assert_eq!((step(9 * MIB, true), step(9 * MIB, false)), (MIB / 2, MIB));
    assert_eq!((step(512 * MIB, true), step(512 * MIB, false)), (2 * MIB, 4 * MIB));
    assert_eq!((step(4096 * MIB, true), step(4096 * MIB, false)), (8 * MIB, 8 * MIB));
    assert_eq!(steps(&[file(9 * MIB), file(2048 * MIB)], &never), [8 * MIB, 8 * MIB]);
    assert_eq!(steps(&[RemoteFile { whole: true, ..file(10 * MIB) }], &never), [10 * MIB]);
    assert_eq!((count(&file(0), MIB), count(&file(MIB), MIB), count(&file(MIB + 1), MIB)), (1, 1, 2));
}
