//! Hostile model files: nothing runs, nothing panics, and neither time nor memory goes beyond the file's own size.

use std::io::Write;
use std::time::{Duration, Instant};

use stoker::error::{Kind, Result};
use stoker::formats::graph::{Graph, Id, Value};
use stoker::formats::{pickle, skops};

use crate::hostile_models::unframed;
use crate::support::Random;
use crate::tabular::{files, read};

fn pickled(bytes: &[u8]) -> Result<(Graph, Id)> {
    pickle::read(bytes)
}

fn refusal(bytes: &[u8]) -> String {
    let error = pickled(bytes).unwrap_err();
    assert_eq!(error.kind(), Kind::Load);
    error.message().to_owned()
}

#[test]
fn programs_in_pickles_are_refused_by_name() {
    for (bytes, named) in [
        (&b"cposix\nsystem\n(S'id'\ntR."[..], "posix.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.", "os.system"),
        (b"(S'id'\nios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\nS'id'\no.", "os.system"),
        (b"c__builtin__\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"cbuiltins\ngetattr\n.", "builtins.getattr"),
        (b"csklearn.utils\nos.system\n.", "sklearn.utils.os.system"),
        (b"cnumpy\nload\n.", "numpy.load"),
        (b"csubprocess\nPopen\n.", "subprocess.Popen"),
    ] {
        let message = refusal(bytes);
        assert!(message.contains(&format!("names {named}")) && message.contains("nothing was executed"), "{message}");
    }
    let (name, bytes) = files().into_iter().find(|(name, _)| name.starts_with("refused_lambda")).unwrap();
    let message = read(&name, bytes).unwrap_err().message().to_owned();
    assert!(message.contains("cloudpickle.cloudpickle.") && message.contains("code of its own"), "{message}");
}

#[test]
fn what_is_not_in_the_file_is_said() {
    assert!(refusal(b"Pid\n.").contains("persistent ids"));
    assert!(refusal(b"\x80\x05\x97.").contains("buffer_callback"));
    assert!(refusal(b"\x80\x02\x82\x01.").contains("copyreg"));
    assert!(refusal(b"cjoblib.numpy_pickle\nNDArrayWrapper\n.").contains("save it again with a current joblib"));
    assert!(refusal(b"\xff").contains("not an instruction"));
    assert!(refusal(b"\x80\x04").contains("is it complete?"));
}

#[test]
fn what_is_no_model_is_called_by_its_name() {
    assert!(refusal(b"hello world\n").contains("a text file, not a pickle"));
    assert!(refusal(b"{\"json\": 1}").contains("a JSON file"));
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"<!doctype html><h1>403</h1>").unwrap();
    assert!(refusal(&encoder.finish().unwrap()).contains("an HTML page"));
    let error = skops::read(archive(&[("archive/data.pkl", b""), ("archive/version", b"3")])).unwrap_err();
    assert!(error.message().contains("torch.save"), "{error}");
    for ending in ["onnx", "pkl", "bst", "json", "ubj", "txt", "model"] {
        let directory = tempfile::tempdir().unwrap();
        let model = directory.path().join(format!("model.{ending}"));
        std::fs::write(&model, "version https://git-lfs.github.com/spec/v1\n").unwrap();
        for path in [directory.path(), &model] {
            let error = stoker::formats::open(path).unwrap_err();
            assert!(error.message().contains("a Git LFS pointer"), "{error}");
        }
    }
}

#[test]
fn lengths_are_checked_before_they_are_used() {
    for opcode in *b"\x8d\x8e\x96\x95" {
        for length in [u64::MAX, 1 << 63, (1 << 63) - 1, 1 << 40] {
            refusal(&[&[opcode][..], &length.to_le_bytes(), b"x."].concat());
        }
    }
    for opcode in *b"XBT\x8b" {
        refusal(&[&[opcode][..], &u32::MAX.to_le_bytes(), b"x."].concat());
    }
    refusal(b"Np99999999999999\n.");
    refusal(b"Nr\xff\xff\xff\xff.");
    refusal(&[b"L", "9".repeat(100_000).as_bytes(), b"\n."].concat());
    // Arrays of more elements than bytes, and of none.
    let array = |shape: &str| {
        let head = "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n";
        format!("{head}({shape}tcnumpy\ndtype\n(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS''\ntb.")
    };
    assert!(pickled(array("I0\n").as_bytes()).is_ok());
    for shape in ["I4\n", "L9223372036854775807L\n", "L4611686018427387904L\nI4\n", "I-1\n", "I0\nL1099511627776L\n"] {
        refusal(array(shape).as_bytes());
    }
    refusal(array(&"I0\n".repeat(65)).as_bytes());
}

/// A byte that is lost from a coefficient would otherwise leave another model.
#[test]
fn instructions_lie_in_the_frames_that_announce_them() {
    const HEAD: usize = 11;
    for (name, bytes) in files().into_iter().filter(|(name, _)| ["linear.p4.pkl", "linear.p5.pkl"].contains(&&**name)) {
        for lost in HEAD..bytes.len() {
            let message = refusal(&[&bytes[..lost], &bytes[lost + 1..]].concat());
            assert!(message.contains("is it complete?"), "{name} without byte {lost}: {message}");
        }
    }
    let frame = |size: u64, rest: &[u8]| [&b"\x95"[..], &size.to_le_bytes(), rest].concat();
    for whole in [frame(2, b"N."), frame(1, b"N."), frame(1, &[b"N", &frame(1, b".")[..]].concat()), frame(0, b"N.")] {
        assert!(pickled(&whole).is_ok(), "{whole:?}");
    }
    let within = frame(12, &[b"N", &frame(2, b"0N")[..], b"."].concat());
    for (broken, named) in [
        (frame(3, b"N."), "is it complete?"),
        (frame(2, b"NK\x01."), "in the middle of an instruction"),
        (frame(3, b"I12\n."), "in the middle of an instruction"),
        (frame(3, b"N.."), "longer than its instructions"),
        (within, "longer than its instructions"),
    ] {
        let message = refusal(&broken);
        assert!(message.contains(named), "{broken:?}: {message}");
    }
}

#[test]
fn size_in_the_file_bounds_time_and_memory() {
    let begun = Instant::now();
    // Deep nesting is no recursion, and a tuple of a tuple of ... is as long as it is written.
    let deep = [&b"N"[..], &b"\x85".repeat(200_000), b"."].concat();
    assert!(pickled(&deep).is_ok());
    assert!(pickled(&[&b"]"[..], &b"]2a".repeat(50_000), b"."].concat()).is_ok());
    let laughs = [&b"N"[..], &b"2\x86".repeat(100_000), b"."].concat();
    assert!(pickled(&laughs).is_ok());
    let (graph, root) = pickled(b"]2a.").unwrap();
    assert!(matches!(graph.value(root), Value::List(items) if items[..] == [root]), "a list may hold itself");

    // The same long value again and again, three bytes a time, each of which would copy it.
    let long = 1 << 16;
    let list = [&b"(("[..], &b"N".repeat(long), b"lq\0"].concat();
    let text = [&b"(X"[..], &u32::try_from(long).unwrap().to_le_bytes(), &b"a".repeat(long), b"q\0"].concat();
    let names = b"c__builtin__\nset\nq\x01c__builtin__\nlist\nq\x02c_codecs\nencode\nq\x03X\x06\0\0\0latin1q\x04";
    for (value, again) in [(&list, &b"h\x01h\0\x85R"[..]), (&list, b"h\x02h\0\x85R"), (&text, b"h\x03h\0h\x04\x86R")] {
        let bytes = [&value[..], names, &again.repeat(20_000), b"t."].concat();
        let message = refusal(&bytes);
        assert!(message.contains("far more memory"), "{message}");
    }
    // Nor is it copied by who asks for a list's numbers or texts.
    let numbers = [&b"]("[..], &b"G\x3f\xf0\0\0\0\0\0\0".repeat(10_000), b"lq\x000(", &b"h\0".repeat(10_000), b"e."];
    let (graph, root) = pickled(&numbers.concat()).unwrap();
    assert!(graph.node(root).numbers().unwrap_err().message().contains("repeats"));
    let texts = [&b"](X\0\0\x01\0"[..], &b"a".repeat(long), b"q\x000", &b"h\0".repeat(10_000), b"e."].concat();
    let (graph, root) = pickled(&texts).unwrap();
    assert!(graph.node(root).texts().unwrap_err().message().contains("repeats"));
    // Calls of calls, and marks upon marks.
    let calls = [&b"ccopyreg\n__newobj__\nq\0("[..], &b"h\0".repeat(100_000), b"tR."].concat();
    assert!(refusal(&calls).contains("within another"));
    let nested = [&b"ccopyreg\n__newobj_ex__\nq\0)"[..], &b"q\x010h\0h\x01}\x87".repeat(50_000), b"R."].concat();
    assert!(!refusal(&nested).is_empty());
    assert!(refusal(&b"(".repeat(100_000)).contains("nested deeper"));
    // Pickles in joblib's arrays of objects, each in the last.
    let wrapper = "cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\u{81}";
    let wrapper: Vec<u8> = wrapper.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    let state = b"}(S'shape'\n(I0\ntS'order'\nS'C'\nS'dtype'\ncnumpy\ndtype\n(S'O8'\ntRub";
    assert!(refusal(&[&wrapper[..], state].concat().repeat(1000)).contains("nested deeper"));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// What a few bytes unpack to has no more credit than they have: a memo's entry has a byte there, and eight in memory.
#[test]
fn a_compressed_pickle_has_the_credit_of_its_own_size() {
    let pickle = [&b"N"[..], &b"\x94".repeat(36 << 20), b"."].concat();
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&pickle).unwrap();
    let message = refusal(&encoder.finish().unwrap());
    assert!(message.contains("far more memory"), "{message}");
}

/// Whatever was read can be asked for anything.
fn ask(outcome: Result<(Graph, Id)>) {
    match outcome {
        Ok((graph, root)) => {
            for node in graph.nodes().chain([graph.node(root)]) {
                let _ =
                    (node.numbers(), node.texts(), node.bool(), node.int(), node.float(), node.text(), node.class());
                let _ = (node.find("a"), node.items().map(|items| items.len()), node.entries().map(|all| all.len()));
                if let Value::Array(array) = node.value() {
                    let _ = (array.integers(), array.field("left_child"));
                }
            }
        }
        Err(error) => {
            assert_eq!(error.kind(), Kind::Load, "{error}");
            assert!(error.message().len() < 600, "{error}");
        }
    }
}

#[test]
fn cut_files_are_refused() {
    for (name, bytes) in files() {
        // Some kilobytes each; every byte of the small ones.
        let step = if name.starts_with("linear") { 1 } else { 211 };
        for cut in (0..bytes.len()).step_by(step) {
            let outcome = read(&name, bytes[..cut].to_vec());
            // A checksum at the end may be missing without harm.
            let checked = ["gz", "bz2", "xz", "lz4"].iter().any(|packed| name.contains(&format!(".{packed}.")));
            assert!(outcome.is_err() || (checked && cut + 32 > bytes.len()), "{name} of {cut} bytes");
        }
    }
}

#[test]
fn flipped_bits_do_no_harm() {
    for (name, bytes) in files() {
        let step = match name.as_str() {
            "linear.p4.pkl" => 1,
            "linear.p0.pkl" | "linear.joblib" => 5,
            _ => 2039,
        };
        for bit in (0..bytes.len() * 8).step_by(step) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            ask(read(&name, flipped));
        }
    }
}

const PIECES: &[&[u8]] = &[
    b"(",
    b"t",
    b"R",
    b"b",
    b"\x81",
    b"\x93",
    b"\x94",
    b"h\x00",
    b"h\x05",
    b"]",
    b"}",
    b"2",
    b"0",
    b"1",
    b"\x85",
    b"\x86",
    b"u",
    b"e",
    b"N",
    b"\x8f",
    b"\x90",
    b"\x91",
    b"K\x01",
    b"\x8c\x05shape",
    b"\xff\xff\xff\xff",
    b"\x00",
    b"C\x00",
    b"cnumpy\ndtype\n",
    b"cnumpy.core.multiarray\n_reconstruct\n",
    b"cnumpy.core.multiarray\nscalar\n",
    b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n",
    b"c_codecs\nencode\n",
    b"cbuiltins\nlist\n",
    b"ccopyreg\n_reconstructor\n",
    b"ccollections\nOrderedDict\n",
    b"{\"a\": 1}",
    b"\"",
    b"null",
    b"[[",
    b"99999999999",
    b"-1",
    b"CachedNode",
    b"\"__loader__\": \"TupleNode\"",
    b"SparseMatrixNode",
];

/// A seeded mutator, as for requests.
fn mutate(random: &mut Random, corpus: &[&[u8]]) -> Vec<u8> {
    let mut below = |limit: usize| random.below(limit.max(1) as u64) as usize;
    let mut bytes = corpus[below(corpus.len())].to_vec();
    for _ in 0..=below(5) {
        let at = below(bytes.len());
        match below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << below(8),
            1 => bytes.truncate(at.max(bytes.len() / 2)),
            2 => {
                let other = corpus[below(corpus.len())];
                let start = below(other.len());
                let end = other.len().min(start + below(400));
                bytes.splice(at..at, other[start..end].iter().copied());
            }
            3 => {
                let end = bytes.len().min(at + below(30));
                let piece = bytes[at..end].repeat(below(6));
                bytes.splice(at..at, piece);
            }
            4 => {
                let end = bytes.len().min(at + below(10));
                bytes.drain(at..end);
            }
            _ => _ = bytes.splice(at..at, PIECES[below(PIECES.len())].iter().copied()),
        }
    }
    bytes
}

fn cases() -> u64 {
    std::env::var("FUZZ_CASES").map_or(3000, |count| count.parse().unwrap())
}

/// `FUZZ_CASES` asks for more.
#[test]
fn mutated_pickles_are_read_or_refused() {
    let files: Vec<Vec<u8>> = files()
        .into_iter()
        .filter(|(name, _)| name.ends_with(".pkl") || name.matches('.').count() == 1)
        .filter(|(name, bytes)| !name.ends_with(".skops") && bytes.len() < 10_000)
        .map(|(_, bytes)| unframed(bytes))
        .collect();
    let corpus: Vec<&[u8]> = files.iter().map(|bytes| &bytes[..]).collect();
    for seed in 0..cases() {
        ask(pickled(&mutate(&mut Random(seed), &corpus)));
    }
}

/// An archive of stored members with right checksums, so that what is mutated is what is read.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in members {
        let mut crc = flate2::Crc::new();
        crc.update(content);
        let mut common = b"\x14\0\0\0\0\0\0\0\0\0".to_vec();
        common.extend(crc.sum().to_le_bytes());
        common.extend([content.len() as u32; 2].iter().flat_map(|size| size.to_le_bytes()));
        common.extend((name.len() as u32).to_le_bytes()); // and no extra field
        let place = (file.len() as u32).to_le_bytes();
        directory.extend([&b"PK\x01\x02\x14\0"[..], &common, &[0; 10], &place, name.as_bytes()].concat());
        file.extend([&b"PK\x03\x04"[..], &common, name.as_bytes(), content].concat());
    }
    let [count, size, start] = [members.len(), directory.len(), file.len()];
    file.extend(&directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([count as u16; 2].iter().flat_map(|count| count.to_le_bytes()));
    file.extend([size as u32, start as u32].iter().flat_map(|number| number.to_le_bytes()));
    file.extend([0, 0]);
    file
}

#[test]
fn mutated_skops_files_are_read_or_refused() {
    use stoker::formats::zip::Zip;
    let (_, bytes) = files().into_iter().find(|(name, _)| name == "linear.skops").unwrap();
    let zip = Zip::open(bytes.into()).unwrap();
    let schema = zip.read("schema.json").unwrap();
    let mut names: Vec<&str> = zip.names().collect();
    names.sort_unstable();
    let members: Vec<(&str, bytes::Bytes)> = names.iter().map(|name| (*name, zip.read(name).unwrap())).collect();
    let whole = |schema: &[u8], array: Option<&[u8]>| {
        let content = members.iter().map(|(name, bytes)| match *name {
            "schema.json" => (*name, schema),
            _ => (*name, array.unwrap_or(bytes)),
        });
        archive(&content.collect::<Vec<_>>())
    };
    assert!(skops::read(whole(&schema, None)).is_ok());
    for seed in 0..cases() / 2 {
        ask(skops::read(whole(&mutate(&mut Random(seed), &[&schema]), None)));
        let array = mutate(&mut Random(seed), &[&members[0].1]);
        ask(skops::read(whole(&schema, Some(&array))));
    }
    let deep = |open: &str| open.repeat(100_000).into_bytes();
    for schema in [deep("["), deep("{\"content\": "), deep("{\"protocol\":2,\"__loader__\":\"ListNode\",\"content\":[")]
    {
        assert!(skops::read(whole(&schema, None)).is_err());
    }
    let named = |class: &str| {
        let node =
            format!(r#"{{"protocol": 2, "__loader__": "ObjectNode", "__class__": "{class}", "__module__": "os"}}"#);
        skops::read(whole(node.as_bytes(), None)).unwrap_err().message().to_owned()
    };
    assert!(named("system").contains("the file names os.system"));
}
