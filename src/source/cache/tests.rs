//! The cache, over the source in memory.

use std::io::Write;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::source::memory::Memory;
use crate::source::reading::BUFFER_BYTES;
use crate::source::transfer::{PART_BYTES, transfer};

fn cache() -> (TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache { directory: folder.path().join("cache"), max_bytes: None, max_unpacked_bytes: 1 << 30 };
    (folder, cache)
}

pub fn fetch(cache: &Cache, source: &Memory, name: &str) -> Result<Fetched> {
    let manifest = source.manifest()?;
    let progress = Progress::begin(total_bytes(&manifest));
    cache.fetch(&Wanted { source, name, manifest: &manifest, pinned: None, early: None, progress: &progress })
}

/// What it comes in: of so little, a megabyte each.
const PARTS: usize = 17;

fn content() -> Bytes {
    let length = usize::try_from(PART_BYTES).unwrap() * 2 + 12_345;
    (0..=250).cycle().take(length).collect()
}

#[test]
fn all_files_arrive_whole_and_are_not_read_twice() {
    let (_folder, cache) = cache();
    let files = [("1/model.onnx", content()), ("empty", Bytes::new()), ("small", Bytes::from_static(b"x"))];
    let source = Memory::new(files);
    let first = fetch(&cache, &source, "memory://a").unwrap();
    assert!(!first.cached);
    assert_eq!(std::fs::read(first.directory.join("1/model.onnx")).unwrap(), content());
    assert_eq!(std::fs::read(first.directory.join("empty")).unwrap(), b"");
    let opened = source.opened();
    let second = fetch(&cache, &source, "memory://a").unwrap();
    assert!(second.cached && second.directory == first.directory);
    assert_eq!(source.opened(), opened);
}

#[test]
fn a_failed_read_leaves_no_model_behind() {
    let (_folder, cache) = cache();
    let mut source = Memory::new([("model.onnx", content())]);
    source.fail_from = Some(2);
    let error = fetch(&cache, &source, "memory://a").err().unwrap();
    assert!(error.message().contains("scripted failure"), "{error}");
    assert_eq!(evict::models(&cache.directory).len(), 0);
}

#[test]
fn what_breaks_goes_on_where_it_was() {
    let (_folder, cache) = cache();
    let mut source = Memory::new([("model.onnx", content())]);
    source.break_after = Some(3 * BUFFER_BYTES);
    let fetched = fetch(&cache, &source, "memory://a").unwrap();
    assert_eq!(std::fs::read(fetched.directory.join("model.onnx")).unwrap(), content());
    // Nothing of it gets anywhere.
    source.break_after = Some(BUFFER_BYTES - 1);
    let error = fetch(&cache, &source, "memory://b").err().unwrap();
    assert_eq!(error.message(), "a scripted break");
}

#[test]
fn only_some_stores_name_files_by_their_content() {
    let named = |name: &str, tag: &str| {
        let file = RemoteFile { path: "m".into(), key: "m".into(), bytes: 1, tag: tag.into(), whole: false };
        super::content(name, &file)
    };
    let (md5, oid) = ("0cc175b9c0f1b6a831c399e269772661", "0a".repeat(20));
    assert_eq!(named("s3://b/a", &format!("\"{md5}-2\"")), named("s3://b/c", &format!("\"{md5}-2\"")));
    assert_eq!(named("hf://o/m@main", &oid).unwrap(), format!("hf://o {oid}"));
    for (name, tag) in [("https://h/a", md5), ("s3://b/a", "\"7\""), ("models:/a/1", "0/m-1/artifacts/MLmodel")] {
        assert_eq!(named(name, tag), None, "{name}");
    }
}

#[test]
fn nobody_waits_for_more_than_there_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let file = |bytes| RemoteFile { path: "m".into(), key: "m".into(), bytes, tag: String::new(), whole: false };
    let error = transfer(&Memory::default(), &[file(u64::MAX), file(7)], folder.path(), &folder.path().join("parts"));
    assert!(error.unwrap_err().message().contains("which no model has"));
}

#[test]
fn what_only_comes_whole_begins_again() {
    let (_folder, cache) = cache();
    let mut source = Memory::new([("model.onnx", content()), ("empty", Bytes::new())]);
    source.whole = true;
    let fetched = fetch(&cache, &source, "memory://a").unwrap();
    assert_eq!(std::fs::read(fetched.directory.join("model.onnx")).unwrap(), content());
    assert_eq!(source.opened(), 1);
    source.break_after = Some(3 * BUFFER_BYTES);
    let error = fetch(&cache, &source, "memory://b").err().unwrap();
    assert_eq!((error.message(), source.opened()), ("a scripted break", 1 + 3));
}

#[test]
fn what_was_damaged_on_the_way_is_fetched_again() {
    for file in [content(), Bytes::from_static(b"small")] {
        let (_folder, cache) = cache();
        let mut source = Memory::new([("model.onnx", file.clone())]);
        source.damaged = 1;
        let fetched = fetch(&cache, &source, "memory://a").unwrap();
        assert_eq!(std::fs::read(fetched.directory.join("model.onnx")).unwrap(), file);
        source.damaged = usize::MAX;
        let error = fetch(&cache, &source, "memory://b").err().unwrap();
        assert!(error.message().starts_with("model.onnx: damaged in the store or on the way here"), "{error}");
        assert_eq!(evict::models(&cache.directory).len(), 1, "only the first");
    }
}

#[test]
fn a_damaged_copy_is_fetched_again() {
    let (_folder, cache) = cache();
    let source = Memory::new([("model.onnx", content()), ("small", Bytes::from_static(b"x"))]);
    let model = |fetched: &Fetched| fetched.directory.join("model.onnx");
    let first = fetch(&cache, &source, "memory://a").unwrap();
    File::options().write(true).open(model(&first)).unwrap().set_len(10).unwrap();
    assert!(!fetch(&cache, &source, "memory://a").unwrap().cached);
    // Of the right size.
    std::fs::write(model(&first), vec![1; content().len()]).unwrap();
    let again = fetch(&cache, &source, "memory://a").unwrap();
    assert!(!again.cached);
    assert_eq!(std::fs::read(model(&again)).unwrap(), content());
    std::fs::write(cache.directory.join(again.directory.parent().unwrap()).join("index.json"), "{").unwrap();
    assert!(!fetch(&cache, &source, "memory://a").unwrap().cached);
}

/// What another boot has left behind is compared with its checksums, for it may not have reached the disk.
#[test]
fn after_a_restart_of_the_machine_nothing_is_taken_on_trust() {
    let (_folder, cache) = cache();
    let source = Memory::new([("model.onnx", content())]);
    let first = fetch(&cache, &source, "memory://a").unwrap();
    let boot = first.directory.parent().unwrap().join("boot");
    let now = std::fs::read_to_string(&boot).unwrap();
    std::fs::write(&boot, "another").unwrap();
    assert!(fetch(&cache, &source, "memory://a").unwrap().cached);
    assert_eq!(std::fs::read_to_string(&boot).unwrap(), now);
    // As a disk that lost what it had not written yet: the size is there, and the time.
    let model = File::options().write(true).open(first.directory.join("model.onnx")).unwrap();
    let modified = model.metadata().unwrap().modified().unwrap();
    model.set_len(0).and_then(|()| model.set_len(content().len() as u64)).unwrap();
    model.set_modified(modified).unwrap();
    std::fs::write(&boot, "another").unwrap();
    assert!(!fetch(&cache, &source, "memory://a").unwrap().cached);
}

#[test]
fn a_killed_process_is_gone_on_with() {
    let (_folder, cache) = cache();
    let mut source = Memory::new([("model.onnx", content()), ("small", Bytes::from_static(b"x"))]);
    source.fail_from = Some(2);
    assert!(fetch(&cache, &source, "memory://a").is_err());
    let partial = |cache: &Cache| cache.directory.read_dir().unwrap().flatten().next().unwrap().path();
    assert_eq!(partial(&cache).extension().unwrap(), "partial");
    source.fail_from = None;
    let opened = source.opened();
    let fetched = fetch(&cache, &source, "memory://a").unwrap();
    assert!(source.opened() - opened <= PARTS, "some parts were there");
    assert_eq!(std::fs::read(fetched.directory.join("model.onnx")).unwrap(), content());
    assert_eq!(cache.directory.read_dir().unwrap().count(), 1);
}

#[test]
fn what_is_there_under_another_name_is_linked() {
    let (_folder, cache) = cache();
    let bucket = |model: &str| format!("s3://bucket/{model}");
    let source = Memory::new([("model.onnx", content()), ("labels", Bytes::from_static(b"a"))]);
    let first = fetch(&cache, &source, &bucket("one")).unwrap();
    let opened = source.opened();
    let newer = Memory::new([("deep/same.onnx", content()), ("labels", Bytes::from_static(b"b"))]);
    let second = fetch(&cache, &newer, &bucket("two")).unwrap();
    assert_eq!((source.opened(), newer.opened()), (opened, 1), "only the labels came");
    assert_eq!(std::fs::read(second.directory.join("deep/same.onnx")).unwrap(), content());
    assert_eq!(std::fs::read(second.directory.join("labels")).unwrap(), b"b");
    let inode = |path: PathBuf| std::fs::metadata(path).unwrap().ino();
    assert_eq!(inode(first.directory.join("model.onnx")), inode(second.directory.join("deep/same.onnx")));
    // Not from another place, where the same hash may be an attacker's.
    let elsewhere = Memory::new([("model.onnx", content())]);
    fetch(&cache, &elsewhere, "s3://other/model").unwrap();
    assert_eq!(elsewhere.opened(), PARTS);
}

/// A file that was linked before the process was killed, and is not to be any more.
#[test]
fn a_linked_file_is_never_written_to() {
    let (_folder, cache) = cache();
    let first = fetch(&cache, &Memory::new([("model.onnx", content())]), "s3://bucket/one").unwrap();
    let mut source = Memory::new([("model.onnx", content()), ("small", Bytes::from_static(b"x"))]);
    source.fail_from = Some(0);
    assert!(fetch(&cache, &source, "s3://bucket/two").is_err(), "it is killed after it linked the first file");
    // Whoever it was linked from is not as it was.
    let model = first.directory.join("model.onnx");
    File::options().append(true).open(&model).and_then(|mut file| file.write_all(b"!")).unwrap();
    source.fail_from = None;
    let second = fetch(&cache, &source, "s3://bucket/two").unwrap();
    assert_eq!(std::fs::read(second.directory.join("model.onnx")).unwrap(), content());
    assert!(std::fs::read(model).unwrap().ends_with(b"!"));
}

#[test]
fn one_of_many_brings_the_model() {
    let (_folder, cache) = cache();
    let source = Memory::new([("model.onnx", content())]);
    std::thread::scope(|scope| {
        let fetching = || scope.spawn(|| fetch(&cache, &source, "memory://a").unwrap().cached);
        let fetched: Vec<_> = (0..8).map(|_| fetching()).collect();
        let cached = fetched.into_iter().filter_map(|thread| thread.join().ok()).filter(|cached| *cached);
        assert_eq!(cached.count(), 7);
    });
    assert_eq!(source.opened(), PARTS);
}

#[test]
fn what_nobody_uses_makes_room() {
    let (_folder, unbounded) = cache();
    let cache = Cache { max_bytes: Some(25), ..unbounded };
    let source = |byte: u8| Memory::new([("model", Bytes::from(vec![byte; 10]))]);
    let kept = |name: &str| fetch(&cache, &source(name.as_bytes()[0]), name).unwrap().cached;
    let in_use = fetch(&cache, &source(b'a'), "a").unwrap();
    assert!(!kept("b") && kept("b"));
    assert!(!kept("c"), "b goes, a is in use");
    assert!(kept("a") && kept("c") && !kept("b"), "c was used last but one");
    drop(in_use);
    let large = Memory::new([("model", Bytes::from(vec![0; 30]))]);
    assert!(!fetch(&cache, &large, "large").unwrap().cached);
    assert_eq!(evict::models(&cache.directory).len(), 1);
}

#[test]
fn what_killed_processes_left_behind_goes() {
    let (_folder, cache) = cache();
    let leave = |name: &str| std::fs::create_dir_all(cache.directory.join(name).join("files")).unwrap();
    ["fresh.partial", "old.partial", "held.partial", "x.discarded"].into_iter().for_each(leave);
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_hours(2);
    for old in ["old.partial", "held.partial"] {
        File::open(cache.directory.join(old)).unwrap().set_modified(long_ago).unwrap();
    }
    let held = Bringing::begin(cache.directory.join("held.lock"), Duration::ZERO).unwrap();
    fetch(&cache, &Memory::new([("model", Bytes::from_static(b"x"))]), "a").unwrap();
    let mut left: Vec<_> = cache.directory.read_dir().unwrap().flatten().map(|entry| entry.file_name()).collect();
    left.retain(|name| name.to_string_lossy().contains('.'));
    left.sort();
    assert_eq!(left, ["fresh.partial", "held.lock", "held.partial"]);
    drop(held);
}

#[test]
fn an_empty_source_is_an_error() {
    let uri = crate::source::uri::parse("s3://bucket/none").unwrap();
    let error = Listed::of(&uri, Box::new(Memory::default())).err().unwrap();
    assert_eq!(error.message(), "s3://bucket/none: there is no object below it");
}

#[test]
fn who_has_waited_long_is_told_why_it_failed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.lock");
    let ours = |patience| match Bringing::begin(path.clone(), patience).unwrap() {
        Turn::Ours(bringing) => Ok(bringing),
        Turn::Failed(reason) => Err(reason),
    };
    for (patience, is_told) in [(Duration::ZERO, true), (Duration::from_mins(1), false)] {
        let before = ours(patience).unwrap();
        let told = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| ours(patience).err());
            std::thread::sleep(Duration::from_millis(50));
            before.fails(&Error::load("the store is away"));
            drop(before);
            waiting.join().unwrap()
        });
        assert_eq!(told, is_told.then(|| "the store is away".to_owned()));
        // Whoever comes later has a turn, and so have those who wait when nothing was said.
        drop(ours(Duration::ZERO).unwrap());
    }
}
