//! Texts to numbers: counts of words or of pieces of words, and their weights.
//!
//! Everything stays sparse, as vocabularies are large.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::canonical_combining_class;

use super::read;
use super::scale::Norm;
use super::stop_words;
use super::tokens::Tokens;
use crate::backend::tabular::data::{Cell, Cells, Data, Sparse};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, Takes, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::{Node, Value};
use crate::tensor::DType;

pub const CLASSES: &[(&str, Build)] = &[
    ("CountVectorizer", count),
    ("TfidfVectorizer", tfidf_vectorizer),
    ("TfidfTransformer", tfidf_transformer),
    ("HashingVectorizer", hashing),
];

/// Python's `str.isspace`.
fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\x1c'..='\x1f').contains(&character)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accents {
    Keep,
    /// Decomposes, and drops what is left over of marks.
    Unicode,
    /// Decomposes, and drops all that is not ASCII.
    Ascii,
}

enum Pieces {
    /// Runs of tokens that are no stop words.
    Words { tokens: Tokens, stop_words: HashSet<String> },
    /// Runs of characters.
    Characters,
    /// Runs of characters within words, which have a space on both sides.
    Bounded,
}

/// What is looked for in a text: `build_analyzer()`.
struct Analyzer {
    lowercase: bool,
    accents: Accents,
    pieces: Pieces,
    /// Least and greatest length of a run.
    range: (usize, usize),
}

impl Analyzer {
    fn read(node: Node<'_>) -> Result<Analyzer> {
        for option in ["preprocessor", "tokenizer"] {
            read::option(node, option, |_| Err::<(), _>(unsupported(option, "a function")))?;
        }
        let text = |option: &'static str| {
            node.read(option, |given| given.text().map_err(|_| unsupported(option, "a function")))
        };
        if text("input")? != "content" {
            return Err(unsupported("input", text("input")?));
        }
        let accents = read::option(node, "strip_accents", |given| match given.text() {
            Ok("unicode") => Ok(Accents::Unicode),
            Ok("ascii") => Ok(Accents::Ascii),
            Ok(other) => Err(unsupported("strip_accents", other)),
            Err(_) => Err(unsupported("strip_accents", "a function")),
        })?;
        let accents = accents.unwrap_or(Accents::Keep);
        let pieces = match text("analyzer")? {
            "word" => Pieces::Words {
                tokens: node.read("token_pattern", |pattern| Tokens::compile(pattern.text()?))?,
                stop_words: node.read("stop_words", read_stop_words)?,
            },
            "char" => Pieces::Characters,
            "char_wb" => Pieces::Bounded,
            other => return Err(unsupported("analyzer", other)),
        };
        let [least, most] = node.read("ngram_range", Node::tuple)?;
        let range = (least.usize()?, most.usize()?);
        if range.0 == 0 || range.0 > range.1 {
            return Err(Error::load(format!("ngram_range is from {} to {}", range.0, range.1)));
        }
        Ok(Analyzer { lowercase: node.read("lowercase", Node::bool)?, accents, pieces, range })
    }

    /// Calls `found` with every piece of a text.
    fn each(&self, text: &str, mut found: impl FnMut(&str)) -> Result<()> {
        let text = self.prepare(text);
        let (least, most) = self.range;
        match &self.pieces {
            Pieces::Words { tokens, stop_words } => {
                let mut words = tokens.find(&text)?;
                if !stop_words.is_empty() {
                    words.retain(|word| !stop_words.contains(*word));
                }
                let mut joined = String::new();
                for length in least..=most.min(words.len()) {
                    for run in words.windows(length) {
                        if let [word] = run {
                            found(word);
                            continue;
                        }
                        joined.clear();
                        for (place, word) in run.iter().enumerate() {
                            joined.push_str(if place == 0 { "" } else { " " });
                            joined.push_str(word);
                        }
                        found(&joined);
                    }
                }
            }
            Pieces::Characters => {
                let text = without_runs_of_space(&text);
                let ends = ends(&text);
                for length in least..=most.min(ends.len() - 1) {
                    ends.windows(length + 1).for_each(|run| found(&text[run[0]..run[length]]));
                }
            }
            Pieces::Bounded => {
                let mut word = String::new();
                for inner in text.split(is_space).filter(|word| !word.is_empty()) {
                    word.clear();
                    word.extend([" ", inner, " "]);
                    let ends = ends(&word);
                    for length in least..=most {
                        if length >= ends.len() - 1 {
                            found(&word); // a short word counts once
                            break;
                        }
                        ends.windows(length + 1).for_each(|run| found(&word[run[0]..run[length]]));
                    }
                }
            }
        }
        Ok(())
    }

    fn prepare<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let text = if self.lowercase { Cow::Owned(text.to_lowercase()) } else { Cow::Borrowed(text) };
        match self.accents {
            _ if text.is_ascii() => text,
            Accents::Keep => text,
            Accents::Unicode => {
                let is_mark = |c: char| canonical_combining_class(c) != 0;
                Cow::Owned(text.nfkd().filter(|character| !is_mark(*character)).collect())
            }
            Accents::Ascii => Cow::Owned(text.nfkd().filter(char::is_ascii).collect()),
        }
    }
}

/// Where characters end, 0 first.
fn ends(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.char_indices().map(|(at, character)| at + character.len_utf8())).collect()
}

/// `re.sub(r"\s\s+", " ", text)`.
fn without_runs_of_space(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if is_space(character) && characters.peek().copied().is_some_and(is_space) {
            while characters.next_if(|next| is_space(*next)).is_some() {}
            out.push(' ');
        } else {
            out.push(character);
        }
    }
    out
}

fn read_stop_words(node: Node<'_>) -> Result<HashSet<String>> {
    match node.value() {
        Value::None => Ok(HashSet::new()),
        Value::Text(text) if **text == *"english" => {
            Ok(stop_words::ENGLISH.split_whitespace().map(str::to_owned).collect())
        }
        Value::Text(text) => Err(unsupported("stop_words", text)),
        _ => Ok(node.texts()?.into_iter().collect()),
    }
}

/// The texts of the one column that vectorizers take.
fn texts(rows: &Data) -> Result<Vec<Arc<str>>> {
    let lacks_lower = |kind: &str| Error::invalid(format!("'{kind}' object has no attribute 'lower'"));
    let text = |cell: &Cell| match cell {
        Cell::Text(text) => Ok(text.clone()),
        Cell::None => Err(Error::invalid("np.nan is an invalid document, expected byte or unicode string.")),
        Cell::Bool(_) => Err(lacks_lower("bool")),
        Cell::Number(_) => Err(lacks_lower("float")),
    };
    match rows {
        Data::Table(table) => match &table.columns[0].cells {
            Cells::Mixed(cells) => cells.iter().map(text).collect(),
            Cells::Numbers(values) => values.iter().map(|value| text(&Cell::Number(*value))).collect(),
        },
        Data::Dense(_) | Data::Typed(..) | Data::Sparse(_) => Err(lacks_lower("float")),
    }
}

/// Which column a piece counts in.
enum Columns {
    Vocabulary(HashMap<Box<str>, u32>),
    /// By its hash, whose sign says whether it counts up or down.
    Hashed {
        columns: usize,
        signed: bool,
    },
}

impl Columns {
    fn count(&self) -> usize {
        match self {
            Columns::Vocabulary(words) => words.len(),
            Columns::Hashed { columns, .. } => *columns,
        }
    }

    fn find(&self, piece: &str) -> Option<(u32, f64)> {
        match self {
            Columns::Vocabulary(words) => words.get(piece).map(|column| (*column, 1.0)),
            Columns::Hashed { columns, signed } => {
                let hash = murmur3(piece.as_bytes()).cast_signed();
                let column = u64::from(hash.unsigned_abs()) % *columns as u64;
                Some((column as u32, if *signed && hash < 0 { -1.0 } else { 1.0 }))
            }
        }
    }
}

/// `MurmurHash3_x86_32` with seed 0 (Appleby, public domain).
fn murmur3(bytes: &[u8]) -> u32 {
    let mix = |block: u32| block.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let (blocks, rest) = bytes.as_chunks::<4>();
    let mut hash = 0_u32;
    for block in blocks {
        hash = (hash ^ mix(u32::from_le_bytes(*block))).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    let tail = rest.iter().rev().fold(0_u32, |tail, byte| tail << 8 | u32::from(*byte));
    hash ^= mix(tail) ^ bytes.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

/// Counts, and their weights.
struct Vectorizer {
    analyzer: Analyzer,
    columns: Columns,
    /// Once is as good as many times.
    binary: bool,
    weights: Weights,
    gives: Option<DType>,
}

fn vectorizer(node: Node<'_>, gives: Option<DType>, tfidf: Option<Node<'_>>) -> Result<Box<dyn Estimator>> {
    let entries = node.attr("vocabulary_")?.entries().map_err(|error| error.context("vocabulary_"))?;
    let count = entries.len();
    let mut words = HashMap::with_capacity(count);
    for (word, column) in entries {
        let column = column.usize()?;
        if column >= count {
            return Err(Error::load(format!("vocabulary_: column {column} of {count}")));
        }
        words.insert(Box::from(word.text()?), column as u32);
    }
    if words.len() != count {
        return Err(Error::load("vocabulary_ has words twice"));
    }
    let weights = tfidf.map(|tfidf| Weights::read(tfidf, Some(count)).map_err(|error| error.context("_tfidf")));
    Ok(Box::new(Vectorizer {
        analyzer: Analyzer::read(node)?,
        columns: Columns::Vocabulary(words),
        binary: node.read("binary", Node::bool)?,
        weights: Weights { single: gives == Some(DType::Fp32), ..weights.transpose()?.unwrap_or_default() },
        gives,
    }))
}

fn count(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    vectorizer(node, node.read("dtype", |_| Ok(read::dtype(node)))?, None)
}

fn tfidf_vectorizer(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let gives = node.read("dtype", |_| Ok(read::float_dtype(node)))?;
    vectorizer(node, gives, Some(node.attr("_tfidf")?))
}

fn hashing(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let columns = node.read("n_features", Node::usize)?;
    if columns == 0 || u32::try_from(columns).is_err() {
        return Err(Error::load(format!("n_features is {columns}")));
    }
    let gives = node.read("dtype", |_| Ok(read::float_dtype(node)))?;
    Ok(Box::new(Vectorizer {
        analyzer: Analyzer::read(node)?,
        columns: Columns::Hashed { columns, signed: node.read("alternate_sign", Node::bool)? },
        binary: node.read("binary", Node::bool)?,
        weights: Weights {
            norm: read::option(node, "norm", Norm::read)?,
            single: gives == Some(DType::Fp32),
            ..Weights::default()
        },
        gives,
    }))
}

impl Estimator for Vectorizer {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let mut out = Sparse::with_columns(self.columns.count());
        let mut found: Vec<(u32, f64)> = Vec::new();
        for text in texts(rows)? {
            found.clear();
            self.analyzer.each(&text, |piece| found.extend(self.columns.find(piece)))?;
            found.sort_unstable_by_key(|(column, _)| *column);
            for same in found.chunk_by(|one, other| one.0 == other.0) {
                let count = if self.binary { 1.0 } else { same.iter().map(|(_, sign)| sign).sum() };
                out.push(same[0].0 as usize, count);
            }
            out.end_row();
        }
        self.weights.apply(&mut out);
        Ok(Data::Sparse(out))
    }

    fn gives(&self) -> Option<DType> {
        self.gives
    }

    fn names_out(&self, _: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        let Columns::Vocabulary(words) = &self.columns else { return None };
        let mut names = vec![Arc::from(""); words.len()];
        words.iter().for_each(|(word, column)| names[*column as usize] = (&**word).into());
        Some(names)
    }

    fn features(&self) -> Option<usize> {
        Some(1)
    }

    fn takes(&self, _column: usize) -> Takes {
        Takes::Text
    }
}

/// Term frequency times inverse document frequency, rows brought to one length.
#[derive(Debug, Default)]
struct Weights {
    /// `1 + ln(count)` instead of the count.
    sublinear: bool,
    idf: Option<Vec<f64>>,
    norm: Option<Norm>,
    /// Everything is `f32`.
    single: bool,
}

impl Weights {
    fn read(node: Node<'_>, columns: Option<usize>) -> Result<Weights> {
        let idf = match node.read("use_idf", Node::bool)? {
            false => None,
            // A diagonal matrix until 1.4, all of whose diagonal is stored.
            true if node.find("_idf_diag").is_some() => {
                Some(node.read("_idf_diag", |node| node.read("data", Node::numbers)?.vector(columns))?)
            }
            true => Some(node.read("idf_", |node| node.numbers()?.vector(columns))?),
        };
        Ok(Weights {
            sublinear: node.read("sublinear_tf", Node::bool)?,
            idf,
            norm: read::option(node, "norm", Norm::read)?,
            single: false,
        })
    }

    fn apply(&self, counts: &mut Sparse) {
        let round = |counts: &mut Sparse| {
            if self.single {
                counts.values.iter_mut().for_each(|value| *value = f64::from(*value as f32));
            }
        };
        if self.sublinear {
            counts.values.iter_mut().for_each(|value| *value = value.ln() + 1.0);
            round(counts);
        }
        if let Some(idf) = &self.idf {
            counts.values.iter_mut().zip(&counts.indices).for_each(|(value, column)| *value *= idf[*column as usize]);
            round(counts);
        }
        if let Some(norm) = self.norm {
            norm.apply_sparse(counts);
            round(counts);
        }
    }
}

struct TfidfTransformer {
    features: Option<usize>,
    weights: Weights,
}

fn tfidf_transformer(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let features = read::features(node)?;
    let weights = Weights::read(node, features)?;
    let features = features.or(weights.idf.as_ref().map(Vec::len));
    Ok(Box::new(TfidfTransformer { features, weights }))
}

impl Estimator for TfidfTransformer {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let mut out = match rows {
            Data::Sparse(sparse) => sparse.clone(),
            dense => {
                let dense = dense.dense()?;
                dense.check_finite()?;
                Sparse::from(dense.as_ref())
            }
        };
        self.weights.apply(&mut out);
        Ok(Data::Sparse(out))
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        Some(names.to_vec())
    }

    fn features(&self) -> Option<usize> {
        self.features
    }
}
