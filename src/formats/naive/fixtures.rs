//! The cases that `tests/tabular/make_boosters.py` has written, and changed copies of files.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::error::{Kind, Result};

/// A model in one format, and what its library says.
pub struct Case {
    pub name: String,
    pub format: String,
    pub bytes: Vec<u8>,
    pub answers: Value,
}

impl Case {
    /// Numbers by row: null is NaN, infinities are texts.
    pub fn numbers(&self, what: &str) -> Vec<Vec<f64>> {
        fn number(value: &Value) -> f64 {
            value.as_f64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(f64::NAN)
        }
        fn flat(value: &Value) -> Vec<f64> {
            value.as_array().map_or_else(|| vec![number(value)], |values| values.iter().flat_map(flat).collect())
        }
        let rows = self.answers[what].as_array().unwrap_or_else(|| panic!("{} has no {what}", self.name));
        rows.iter().map(flat).collect()
    }
}

/// The committed cases, or those of `BOOSTER_CASES`; a case for each format.
pub fn cases(library: &str) -> Vec<Case> {
    let root = std::env::var_os("BOOSTER_CASES")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tabular"), PathBuf::from);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root.join(library)).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let (name, format) = file.split_once('.').unwrap();
        if format == "answers.json" {
            continue;
        }
        let answers = std::fs::read(path.with_file_name(format!("{name}.answers.json"))).unwrap();
        found.push(Case {
            name: name.to_owned(),
            format: format.to_owned(),
            bytes: std::fs::read(&path).unwrap(),
            answers: serde_json::from_slice(&answers).unwrap(),
        });
    }
    found.sort_by(|a, b| (&a.name, &a.format).cmp(&(&b.name, &b.format)));
    assert!(!found.is_empty());
    found
}

/// The models alone.
pub fn models(library: &str) -> Vec<Vec<u8>> {
    cases(library).into_iter().map(|case| case.bytes).collect()
}

/// How many rows and values were compared.
pub fn widths(cases: &[Case]) -> (usize, usize) {
    let rows: Vec<_> = cases.iter().flat_map(|case| case.numbers("prediction")).collect();
    (rows.len(), rows.iter().map(Vec::len).sum())
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit.max(1) as u64) as usize
    }
}

fn mutate(random: &mut Random, corpus: &[Vec<u8>], texts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(8) {
            0 => bytes.truncate(at),
            1 | 2 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            3 => {
                let other = &corpus[random.below(corpus.len())];
                bytes.splice(at.., other[random.below(other.len())..].iter().copied());
            }
            4 => {
                let end = bytes.len().min(at + random.below(40));
                bytes.drain(at..end);
            }
            5 => {
                let piece = bytes[at..bytes.len().min(at + random.below(20))].repeat(random.below(5));
                bytes.splice(at..at, piece);
            }
            6 => {
                // A number of four or eight bytes at its ends.
                let value = [0_u64, 1, u64::MAX, 1 << 63, (1 << 63) - 1, 0x7fff_ffff, 1 << 31, 0x7fc0_0000];
                let value = value[random.below(value.len())].to_le_bytes();
                let length = [4, 8][random.below(2)].min(bytes.len() - at);
                bytes[at..at + length].copy_from_slice(&value[..length]);
            }
            _ => {
                // Takes the place of a number, where the format is text.
                let text = texts[random.below(texts.len())];
                let delimits = |byte: &u8| matches!(byte, b',' | b'[' | b']' | b' ' | b'=' | b'\n');
                let from = at + bytes[at..].iter().position(delimits).map_or(0, |found| found + 1);
                let length = bytes[from..].iter().position(delimits).unwrap_or(0);
                bytes.splice(from..from + length, text.iter().copied());
            }
        }
    }
    bytes
}

/// Reads mutated files: whatever they hold, they are read or refused, in bounded time. `FUZZ_CASES` asks for more.
pub fn fuzz(corpus: &[Vec<u8>], texts: &[&[u8]], read: impl Fn(&[u8]) -> Result<()>) {
    let count = std::env::var("FUZZ_CASES").map_or(20_000, |count| count.parse().unwrap());
    let mut read_well = 0;
    for seed in 0..count {
        let bytes = mutate(&mut Random(seed), corpus, texts);
        let begun = Instant::now();
        match read(&bytes) {
            Ok(()) => read_well += 1,
            Err(error) => {
                assert_eq!(error.kind(), Kind::Load, "seed {seed}: {error}");
                assert!(error.message().len() < 600, "seed {seed}: {error}");
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "seed {seed} took {:?}", begun.elapsed());
    }
    assert!(read_well > count / 50, "only {read_well} of {count} mutations could be read");
}
