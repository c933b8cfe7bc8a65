//! What many estimators have in common: class labels, link functions, the version that wrote them.

use std::sync::Arc;

use crate::backend::tabular::data::{Labels, Matrix, Target};
use crate::backend::tabular::estimator::unsupported;
use crate::error::{Error, Result};
use crate::formats::graph::{Array, Elements, Node, Value};
use crate::tensor::DType;

/// Class labels as `classes_` holds them.
///
/// # Errors
/// When they are neither numbers nor text nor bools.
pub fn labels(node: Node<'_>) -> Result<Labels> {
    let array = node.array()?;
    match &array.elements {
        Elements::Plain { element, .. } => match (element.kind, element.size) {
            (b'U' | b'S', _) => Ok(Labels::Text(array.texts()?.into_iter().map(Arc::from).collect())),
            (b'b', _) => Ok(Labels::Bool(array.numbers()?.values.iter().map(|value| *value != 0.0).collect())),
            (b'f', 4) => Ok(Labels::Single(array.numbers()?.values.iter().map(|value| *value as f32).collect())),
            (b'f', _) => Ok(Labels::Float(array.numbers()?.values)),
            (kind, size) => Ok(Labels::Int(array.integers()?, integer_type(kind, size))),
        },
        Elements::Objects(_) => objects(node, array),
    }
}

/// One label, as an option names it.
///
/// # Errors
/// When it is neither a number nor text nor a bool.
pub fn label(node: Node<'_>) -> Result<Labels> {
    match node.value() {
        Value::Array(array) if array.is_scalar() => labels(node),
        Value::Text(text) => Ok(Labels::Text(vec![text.as_ref().into()])),
        Value::Bool(value) => Ok(Labels::Bool(vec![*value])),
        Value::Int(value) => Ok(Labels::Int(vec![*value], DType::Int64)),
        _ => Ok(Labels::Float(vec![node.float()?])),
    }
}

/// `classes_` of a classifier; until 1.7 `RidgeClassifier` has them in its binarizer.
///
/// # Errors
/// As [`labels`]; also when there are none.
pub fn classes(node: Node<'_>) -> Result<Labels> {
    if let Some(classes) = booster_classes(node)? {
        return Ok(classes);
    }
    let classes = match node.some("_label_binarizer") {
        Some(binarizer) if node.find("classes_").is_none() => binarizer.read("classes_", labels)?,
        _ => node.read("classes_", labels)?,
    };
    if classes.is_empty() { Err(Error::load("classes_ is empty")) } else { Ok(classes) }
}

/// Whether [`classes`] would find some, which takes no reading of them.
pub fn has_classes(node: Node<'_>) -> bool {
    let is_booster = node.class().is_some_and(|class| BOOSTERS.contains(&&*class.name));
    is_booster
        || node.some("_label_binarizer").unwrap_or(node).some("classes_").is_some()
        || node.some("classes_").is_some()
}

const BOOSTERS: [&str; 3] = ["LGBMClassifier", "XGBClassifier", "XGBRFClassifier"];

/// The classes of xgboost's and lightgbm's classifiers, which work them out when asked.
fn booster_classes(node: Node<'_>) -> Result<Option<Labels>> {
    match node.class().map(|class| &*class.name) {
        Some("LGBMClassifier") => node.read("_classes", labels).map(Some),
        Some("XGBClassifier" | "XGBRFClassifier") => {
            match node.read_some("_le", |coder| coder.read("classes_", labels))? {
                Some(classes) => Ok(Some(classes)),
                None => {
                    let count = node.read("n_classes_", Node::usize)?.min(1 << 16);
                    Ok(Some(Labels::Int((0..count as i64).collect(), DType::Int64)))
                }
            }
        }
        _ => Ok(None),
    }
}

/// Labels of numpy's `object` type: all of one kind, as they mostly are.
fn objects(node: Node<'_>, array: &Array) -> Result<Labels> {
    let items: Vec<Node<'_>> = node.items()?.collect();
    let kind = |is: fn(&Value) -> bool| items.iter().all(|item| is(item.value()));
    if kind(|value| matches!(value, Value::Text(_))) {
        Ok(Labels::Text(items.iter().map(|item| item.text().map(Arc::from)).collect::<Result<_>>()?))
    } else if kind(|value| matches!(value, Value::Bool(_))) {
        Ok(Labels::Bool(items.iter().map(|item| item.bool()).collect::<Result<_>>()?))
    } else if kind(|value| matches!(value, Value::Int(_))) {
        Ok(Labels::Int(items.iter().map(|item| item.int()).collect::<Result<_>>()?, DType::Int64))
    } else if kind(|value| matches!(value, Value::Int(_) | Value::Float(_))) {
        Ok(Labels::Float(items.iter().map(|item| item.float()).collect::<Result<_>>()?))
    } else {
        Err(Error::load(format!("labels of mixed types in an array of shape {:?} are not supported", array.shape)))
    }
}

fn integer_type(kind: u8, size: usize) -> DType {
    match (kind, size) {
        (b'i', 1) => DType::Int8,
        (b'i', 2) => DType::Int16,
        (b'i', 4) => DType::Int32,
        (b'u', 1) => DType::Uint8,
        (b'u', 2) => DType::Uint16,
        (b'u', 4) => DType::Uint32,
        (b'u', 8) => DType::Uint64,
        _ => DType::Int64,
    }
}

/// `_sklearn_version` as (major, minor); the newest when it does not say, as scikit-learn takes it.
pub fn version(node: Node<'_>) -> (u32, u32) {
    let Some(text) = node.find("_sklearn_version").and_then(|version| version.text().ok()) else {
        return (u32::MAX, 0);
    };
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// An attribute that every fitted object has, such as an option of the constructor; it may be None.
///
/// # Errors
/// When it is missing, which never means that it is off.
pub fn option<'g, T>(node: Node<'g>, name: &str, read: impl FnOnce(Node<'g>) -> Result<T>) -> Result<Option<T>> {
    node.read(name, |given| if given.is_none() { Ok(None) } else { read(given).map(Some) })
}

/// An attribute that fitted objects have since a version; before, it is as if it were None.
///
/// # Errors
/// As [`option`].
pub fn option_since<'g, T>(
    since: (u32, u32),
    node: Node<'g>,
    name: &str,
    read: impl FnOnce(Node<'g>) -> Result<T>,
) -> Result<Option<T>> {
    if version(node) < since { Ok(None) } else { option(node, name, read) }
}

/// For arguments of a function, a dict or None, of which there may be none.
///
/// # Errors
/// As [`option`]; also when there are some.
pub fn no_arguments(node: Node<'_>, name: &str) -> Result<()> {
    let count = option(node, name, |given| Ok(given.entries()?.len()))?.unwrap_or(0);
    if count == 0 { Ok(()) } else { Err(unsupported(name, "{...}")) }
}

/// Whether its class is a classifier's, which has attributes that regressors lack.
pub fn is_classifier(node: Node<'_>) -> bool {
    node.class().is_some_and(|class| class.name.ends_with("Classifier"))
}

/// Whether a classifier's tree has the shares of classes in its leaves; before 1.4 it has their weights.
///
/// # Errors
/// When the version is missing, which nothing else tells.
pub fn holds_shares(node: Node<'_>) -> Result<bool> {
    node.attr("_sklearn_version")?;
    Ok(version(node) >= (1, 4))
}

/// Columns that an estimator was fitted with.
///
/// # Errors
/// When it says something that is not a count.
pub fn features(node: Node<'_>) -> Result<Option<usize>> {
    node.read_some("n_features_in_", Node::usize)
}

/// The option `dtype`, where other types than floats are not kept to.
pub fn float_dtype(node: Node<'_>) -> Option<DType> {
    dtype(node).filter(|dtype| matches!(dtype, DType::Fp32 | DType::Fp64))
}

/// The option `dtype`: a class of numpy or Python, numpy's `dtype`, or its name. None also for `float16` and others that
/// we do not compute in: numbers are then answered as they are.
pub fn dtype(node: Node<'_>) -> Option<DType> {
    let name = match node.some("dtype")?.value() {
        Value::Name(name) => &*name.name,
        Value::Text(text) => text,
        Value::ElementType(element) => {
            return match (element.kind, element.size) {
                (b'f', 4) => Some(DType::Fp32),
                (b'f', 8) => Some(DType::Fp64),
                (b'b', _) => Some(DType::Bool),
                (kind @ (b'i' | b'u'), size) => Some(integer_type(kind, size)),
                _ => None,
            };
        }
        _ => return None,
    };
    Some(match name.trim_start_matches('<') {
        "float64" | "float" | "double" | "f8" | "d" => DType::Fp64,
        "float32" | "single" | "f4" | "f" => DType::Fp32,
        "bool" | "bool_" | "?" => DType::Bool,
        "int64" | "int" | "int_" | "i8" => DType::Int64,
        "int32" | "i4" => DType::Int32,
        "int16" | "i2" => DType::Int16,
        "int8" | "i1" => DType::Int8,
        "uint64" | "u8" => DType::Uint64,
        "uint32" | "u4" => DType::Uint32,
        "uint16" | "u2" => DType::Uint16,
        "uint8" | "u1" => DType::Uint8,
        _ => return None,
    })
}

/// For steps that do not take a sparse matrix.
pub fn sparse() -> Error {
    Error::invalid(
        "Sparse data was passed for X, but dense data is required. Use '.toarray()' to convert to a dense numpy array.",
    )
}

/// The class with the greatest score in each row; the first of equals, as numpy's argmax.
pub fn argmax(scores: &Matrix) -> impl Iterator<Item = usize> {
    scores.iter_rows().map(argmax_of)
}

/// The place of the greatest; the first of equals, and of NaN.
pub fn argmax_of(scores: &[f64]) -> usize {
    let best = scores.iter().enumerate().fold(None, |best: Option<(usize, f64)>, (place, score)| match best {
        Some((_, most)) if most.is_nan() || !(*score > most || score.is_nan()) => best,
        _ => Some((place, *score)),
    });
    best.map_or(0, |(place, _)| place)
}

/// Labels of classes by what a decision function says: one column decides between two classes by its sign.
pub fn decide(classes: &Labels, scores: &Matrix) -> Target {
    if scores.columns == 1 {
        either(classes, scores.values.iter().map(|score| *score > 0.0))
    } else {
        Target::one(classes.pick(argmax(scores)))
    }
}

/// The second of two classes where it is meant, else the first. A model that was shown a single class knows no other.
pub fn either(classes: &Labels, second: impl Iterator<Item = bool>) -> Target {
    let last = classes.len().saturating_sub(1);
    Target::one(classes.pick(second.map(|second| usize::from(second).min(last))))
}

/// `1 / (1 + exp(-x))`, without overflow on either side (scipy's expit).
pub fn expit(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Turns each row of scores into probabilities, in place.
pub fn softmax(scores: &mut Matrix) {
    for row in 0..scores.rows {
        let row = scores.row_mut(row);
        let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut sum = 0.0;
        for score in &mut *row {
            *score = (*score - most).exp();
            sum += *score;
        }
        row.iter_mut().for_each(|score| *score /= sum);
    }
}

/// Turns each row of log likelihoods into probabilities, in place: `exp(x - logsumexp(x))`.
pub fn normalise_logs(logs: &mut Matrix) {
    for row in logs.values.chunks_exact_mut(logs.columns) {
        let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let shift = if most.is_finite() { most } else { 0.0 };
        let sum = row.iter().map(|log| (log - shift).exp()).sum::<f64>().ln() + shift;
        row.iter_mut().for_each(|log| *log = (*log - sum).exp());
    }
}

/// `p` of the positive class as columns `1 - p` and `p`.
pub fn two_columns(positive: impl ExactSizeIterator<Item = f64>) -> Matrix {
    let rows = positive.len();
    Matrix::new(rows, 2, positive.flat_map(|p| [1.0 - p, p]).collect())
}
