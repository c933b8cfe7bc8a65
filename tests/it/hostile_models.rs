//! Model files that were tampered with: they are refused, or give a model that answers or refuses. Never a panic, never
//! without end.

use std::collections::BTreeSet;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use stoker::backend::tabular::data::{Cell, Cells, Column, Data, Matrix, Table};
use stoker::backend::tabular::estimator::{Estimator, Method, Takes};
use stoker::backend::tabular::sklearn;
use stoker::formats::pickle;

use crate::support::Random;

/// The pickles of all committed cases.
fn corpus() -> Vec<Vec<u8>> {
    named_corpus().into_iter().map(|(_, bytes)| bytes).collect()
}

pub fn named_corpus() -> Vec<(String, Vec<u8>)> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tabular/cases");
    let mut paths: Vec<_> = std::fs::read_dir(cases).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let file = std::fs::File::open(path.join("model.joblib")).unwrap();
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
        (path.file_name().unwrap().to_string_lossy().into_owned(), unframed(bytes))
    };
    paths.iter().map(read).collect()
}

/// The same pickle without frames, whose lengths would refuse whatever is longer or shorter than it was.
pub fn unframed(bytes: Vec<u8>) -> Vec<u8> {
    let (mut plain, mut rest) = (Vec::new(), &bytes[..]);
    while let [first, after @ ..] = rest {
        rest = match rest {
            [0x95, low, high, 0, 0, 0, 0, 0, 0, framed @ ..]
                if usize::from(u16::from_le_bytes([*low, *high])) <= framed.len() =>
            {
                framed
            }
            _ => {
                plain.push(*first);
                after
            }
        };
    }
    // Numbers of an array may look like a frame.
    let values = |bytes: &[u8]| pickle::read(bytes).map(|(graph, _)| graph.nodes().count()).ok();
    if values(&plain) == values(&bytes) { plain } else { bytes }
}

/// Numbers that shapes, counts and indices had better not be, as pickles and arrays have them.
const NUMBERS: [u64; 8] = [
    0,
    u64::MAX,
    1 << 40,
    i64::MAX as u64,
    0x7ff8_0000_0000_0000, // NaN
    0x7ff0_0000_0000_0000, // infinity
    0x7fef_ffff_ffff_ffff, // the greatest double
    0xc008_0000_0000_0000, // -3.0
];

/// Places of small integers and of short names in a pickle (`BININT1`, `SHORT_BINUNICODE`), as far as one can tell.
fn places(bytes: &[u8], opcode: u8) -> Vec<usize> {
    let fits = |at: &usize| match opcode {
        b'K' => bytes.len() > at + 1,
        _ => bytes.len() > at + 1 + usize::from(bytes.get(at + 1).copied().unwrap_or(255)),
    };
    (0..bytes.len()).filter(|at| bytes[*at] == opcode).filter(fits).collect()
}

/// A few changes, some of bytes and some that know pickles.
fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut below = |limit: usize| random.below(limit.max(1) as u64) as usize;
    let mut bytes = corpus[below(corpus.len())].clone();
    for _ in 0..=below(3) {
        let at = below(bytes.len());
        match below(8) {
            0 if below(4) == 0 => bytes.truncate(at),
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << below(8),
            2 if bytes.len() >= at + 8 => bytes[at..at + 8].copy_from_slice(&NUMBERS[below(8)].to_le_bytes()),
            3 | 4 => {
                let integers = places(&bytes, b'K');
                if let Some(at) = integers.get(below(integers.len())) {
                    bytes[at + 1] = [0, 1, 2, 3, 255, below(256) as u8][below(6)];
                }
            }
            5 => {
                // An integer of four bytes, instead of one.
                let integers = places(&bytes, b'K');
                if let Some(at) = integers.get(below(integers.len())) {
                    let number = [-1_i32, i32::MAX, 1 << 24, -(1 << 30)][below(4)].to_le_bytes();
                    bytes.splice(*at..at + 2, std::iter::once(b'J').chain(number));
                }
            }
            6 => {
                // One name for another: attributes, classes and options trade places.
                let names = places(&bytes, 0x8c);
                let piece = |at: usize| at..at + 2 + usize::from(bytes[at + 1]);
                if let (Some(one), Some(other)) = (names.get(below(names.len())), names.get(below(names.len()))) {
                    let other = bytes[piece(*other)].to_vec();
                    bytes.splice(piece(*one), other);
                }
            }
            _ => {
                let other = &corpus[below(corpus.len())];
                let from = below(other.len());
                let length = below(400).min(other.len() - from);
                let end = bytes.len().min(at + length);
                bytes.splice(at.min(end)..end, other[from..from + length].iter().copied());
            }
        }
    }
    bytes
}

/// A few rows of what the model takes; `None` when that is more than anyone sends.
fn rows(model: &dyn Estimator, random: &mut Random) -> Option<Data> {
    let columns = model.features().unwrap_or(random.below(6) as usize);
    if columns > 10_000 {
        return None;
    }
    let numbers = [0.0, 1.0, -2.5, 0.3, 1e300, f64::NAN, 7.0];
    if (0..columns).any(|column| model.takes(column) != Takes::Numbers) {
        let cell = |random: &mut Random| match random.below(4) {
            0 => Cell::None,
            1 => Cell::Text("Ulm".into()),
            _ => Cell::Number(numbers[random.below(7) as usize]),
        };
        let column =
            |_| Column { name: None, cells: Cells::Mixed((0..3).map(|_| cell(&mut *random)).collect()), dtype: None };
        let columns: Vec<Column> = (0..columns).map(column).collect();
        return Some(Data::Table(Table { rows: 3, columns }));
    }
    // Mostly rows that are not refused for NaN at once.
    let kinds = if random.below(3) == 0 { 7 } else { 4 };
    let values = (0..3 * columns).map(|_| numbers[random.below(kinds) as usize]).collect();
    Some(Data::Dense(Matrix::new(3, columns, values)))
}

/// Loads the file and asks the model all that it can; whether it was loaded.
fn try_model(bytes: Vec<u8>, random: &mut Random) -> bool {
    let Ok(model) = sklearn::load(bytes.into()) else { return false };
    let Some(rows) = rows(&*model, random) else { return true };
    for method in Method::ALL {
        if model.can(method) {
            let _ = match method {
                Method::Predict => model.predict(&rows).map(drop),
                Method::PredictProba => model.predict_proba(&rows).map(drop),
                Method::DecisionFunction => model.decision_function(&rows).map(drop),
                Method::Transform => model.transform(&rows).map(drop),
                Method::Contributions => model.contributions(&rows).map(drop),
            };
        }
    }
    true
}

/// An object of a class with these attributes, which are a pickle's pairs of keys and values.
fn object(class: &str, attributes: &[u8]) -> Vec<u8> {
    [b"\x80\x04", &instance(class, attributes)[..], b"."].concat()
}

/// As [`object`], for inside of another.
fn instance(class: &str, attributes: &[u8]) -> Vec<u8> {
    [b"c", class.as_bytes(), b"\n)\x81q\x00}(", attributes, b"ub"].concat()
}

#[test]
fn a_pipeline_that_contains_itself_is_refused_once() {
    let pipeline = object("sklearn.pipeline\nPipeline", b"\x8c\x05steps](\x8c\x04selfh\x00\x86e");
    let error = sklearn::load(pipeline.into()).err().unwrap();
    assert_eq!(error.message(), "Pipeline: step \"self\": this Pipeline contains itself");
}

#[test]
fn targets_that_nothing_brings_back_are_refused() {
    let linear =
        instance("sklearn.linear_model._base\nLinearRegression", b"\x8c\x05coef_]K\x01a\x8c\x0aintercept_K\x00");
    let normalizer = instance("sklearn.preprocessing._data\nNormalizer", b"\x8c\x04norm\x8c\x02l2");
    let pipeline = [b"\x8c\x05steps]\x8c\x04unit", &normalizer[..], b"\x86a"].concat();
    let pipeline = instance("sklearn.pipeline\nPipeline", &pipeline);
    for (transformer, class) in [(normalizer, "Normalizer"), (pipeline, "Pipeline")] {
        let attributes =
            [b"\x8c\x0aregressor_", &linear[..], b"\x8c\x0ctransformer_", &transformer, b"\x8c\x0d_training_dimK\x01"];
        let model = object("sklearn.compose._target\nTransformedTargetRegressor", &attributes.concat());
        let error = sklearn::load(model.into()).err().unwrap();
        let expected = format!("transformer_: inverse_transform=of {class} is not supported");
        assert!(error.message().contains(&expected), "{error}");
    }
}

#[test]
fn terms_that_do_not_fit_are_named() {
    let terms = |outputs: &[u8]| {
        let attributes = b"\x8c\x0en_features_in_K\x02\x8c\x0b_min_degreeK\x00\x8c\x0b_max_degreeK\x02\
            \x8c\x10interaction_only\x89\x8c\x0cinclude_bias\x88\x8c\x12n_output_features_";
        object("sklearn.preprocessing._polynomial\nPolynomialFeatures", &[attributes, outputs].concat())
    };
    let refusal = |outputs: &[u8]| sklearn::load(terms(outputs).into()).err().unwrap().message().to_owned();
    assert!(sklearn::load(terms(b"K\x06").into()).is_ok());
    assert!(
        refusal(b"K\x05").ends_with("n_output_features_ is 5, but there are more terms up to degree 2 of 2 features")
    );
    assert!(refusal(b"K\x07").ends_with("n_output_features_ is 7, but there are 6 terms"));
    assert!(refusal(b"J\x00\x00\x00\x7f").contains("n_output_features_=2130706432 is not supported"));
}

/// A list of a hundred thousand estimators that are all the same one, which is some kilobytes large.
#[test]
fn an_estimator_that_is_there_again_and_again_is_refused() {
    let name = |name: &str| [b"X", &(name.len() as u32).to_le_bytes()[..], name.as_bytes()].concat();
    let number = [&b"G"[..], &1.5_f64.to_be_bytes()].concat();
    let linear = [
        b"csklearn.linear_model._base\nLinearRegression\n)\x81}(",
        &name("coef_")[..],
        b"](",
        &number.repeat(1000),
        b"e",
        &name("intercept_"),
        &number,
        b"ub",
    ]
    .concat();
    let voting = [
        b"\x80\x02csklearn.ensemble._voting\nVotingRegressor\n)\x81}(",
        &name("weights")[..],
        b"N",
        &name("estimators_"),
        b"](",
        &linear,
        b"q\x01",
        &b"h\x01".repeat(100_000),
        b"eub.",
    ]
    .concat();
    let error = sklearn::load(voting.into()).err().unwrap();
    assert!(error.message().contains("repeats long values"), "{error}");
}

/// The same pickle with `classes_` of one number in front of the model's other attributes: what is there first counts.
fn with_one_class(bytes: &[u8]) -> Vec<u8> {
    const STATE: &[u8] = b")\x81\x94}\x94(";
    const ONE: &[u8] =
        b"\x8c\x08classes_cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n\x8c\x02i8\x85RC\x08\0\0\0\0\0\0\0\0\x86R";
    let begin = memchr::memmem::find(bytes, STATE).unwrap() + STATE.len();
    [&bytes[..begin], ONE, &bytes[begin..]].concat()
}

/// Some know their labels from elsewhere, and answer as before.
#[test]
fn fewer_classes_than_the_model_has_are_refused() {
    let answer = |model: &dyn Estimator| {
        let columns = model.features().unwrap();
        let values = [-3.0, 0.0, 3.0].into_iter().flat_map(|value| vec![value; columns]).collect();
        model.predict(&Data::Dense(Matrix::new(3, columns, values)))
    };
    let (mut refused, mut wrong) = (BTreeSet::new(), Vec::new());
    for (name, bytes) in named_corpus() {
        let (graph, root) = pickle::read(bytes.clone()).unwrap();
        let classes = graph.node(root).some("classes_").and_then(|classes| Some(classes.array().ok()?.shape.clone()));
        let model = sklearn::load(bytes.clone().into()).unwrap();
        if !model.can(Method::Predict) || classes.is_none_or(|shape| shape[..] == [1]) {
            continue;
        }
        match sklearn::load(with_one_class(&bytes).into()) {
            Err(_) => _ = refused.insert(graph.node(root).class().unwrap().name.clone()),
            Ok(damaged) if answer(&*damaged).is_ok_and(|labels| labels == answer(&*model).unwrap()) => {}
            Ok(_) => wrong.push(name),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(refused.len() > 25, "{refused:?}");
}

/// `FUZZ_CASES` asks for more, `FUZZ_FIRST` for others.
#[test]
fn mutated_models_are_refused_or_answer() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |count| count.parse().unwrap());
    let (first, count) = (number("FUZZ_FIRST", 0_u64), number("FUZZ_CASES", 1000_u64));
    let corpus = corpus();
    let (mut failures, mut loaded) = (Vec::new(), 0);
    for seed in first..first + count {
        let begun = Instant::now();
        let mut random = Random(seed);
        let bytes = mutate(&mut random, &corpus);
        match catch_unwind(AssertUnwindSafe(|| try_model(bytes, &mut random))) {
            Ok(whether) => loaded += u64::from(whether),
            Err(_) => failures.push(format!("seed {seed} panics")),
        }
        if begun.elapsed() > Duration::from_secs(10) {
            failures.push(format!("seed {seed} takes {:?}", begun.elapsed()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(loaded > count / 20, "only {loaded} of {count} models still load: the mutations are too coarse");
}
