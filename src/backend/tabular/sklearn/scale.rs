//! Transformers that shift and scale each column, or each row, by itself.
//!
//! scikit-learn works in place, so with `float32` rows every step rounds: see [`Matrix::rounded`]. NaN passes through
//! the scalers of columns.

use std::sync::Arc;

use super::read;
use crate::backend::tabular::data::{Data, Matrix, Sparse, is_float};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::Node;

pub const CLASSES: &[(&str, Build)] = &[
    ("StandardScaler", standard),
    ("MinMaxScaler", min_max),
    ("MaxAbsScaler", max_abs),
    ("RobustScaler", robust),
    ("Normalizer", normalizer),
    ("Binarizer", binarizer),
];

/// What is done to a row in place, one number for each column.
enum Step {
    Add(Vec<f64>),
    Subtract(Vec<f64>),
    Multiply(Vec<f64>),
    Divide(Vec<f64>),
    Clip(f64, f64),
}

/// Steps one after another, undone in the opposite order. A clip cannot be undone.
struct Scaler {
    features: usize,
    steps: Vec<Step>,
    takes_sparse: bool,
    /// Each step's numbers are made `f32` before they meet rows of `f32`, as `StandardScaler` does since 1.8.
    casts: bool,
}

/// Numbers of a column each that are there when an option is set.
fn option(node: Node<'_>, option: &str, name: &str, features: usize) -> Result<Option<Vec<f64>>> {
    let is_on = node.read(option, Node::bool)?;
    is_on.then(|| node.read(name, |node| node.numbers()?.vector(Some(features)))).transpose()
}

/// `(x - mean_) / scale_`.
fn standard(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let features = node.read("n_features_in_", Node::usize)?;
    let shift = option(node, "with_mean", "mean_", features)?;
    let scale = option(node, "with_std", "scale_", features)?;
    Ok(Box::new(Scaler { casts: read::version(node) >= (1, 8), ..Scaler::shift_and_divide(features, shift, scale) }))
}

/// `(x - center_) / scale_`.
fn robust(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let features = node.read("n_features_in_", Node::usize)?;
    let shift = option(node, "with_centering", "center_", features)?;
    let scale = option(node, "with_scaling", "scale_", features)?;
    Ok(Box::new(Scaler::shift_and_divide(features, shift, scale)))
}

impl Scaler {
    fn shift_and_divide(features: usize, shift: Option<Vec<f64>>, scale: Option<Vec<f64>>) -> Scaler {
        let steps = shift.map(Step::Subtract).into_iter().chain(scale.map(Step::Divide)).collect();
        Scaler { features, steps, takes_sparse: true, casts: false }
    }
}

/// `x * scale_ + min_`, into `feature_range` when `clip`.
fn min_max(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let features = node.read("n_features_in_", Node::usize)?;
    let of = |name: &str| node.read(name, |node| node.numbers()?.vector(Some(features)));
    let mut steps = vec![Step::Multiply(of("scale_")?), Step::Add(of("min_")?)];
    if node.read("clip", Node::bool)? {
        let [low, high] = node.read("feature_range", Node::tuple)?;
        steps.push(clip(low.float()?, high.float()?)?);
    }
    Ok(Box::new(Scaler { features, steps, takes_sparse: false, casts: false }))
}

/// `x / scale_`, into [-1, 1] when `clip` (since 1.9).
fn max_abs(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let features = node.read("n_features_in_", Node::usize)?;
    let mut steps = vec![Step::Divide(node.read("scale_", |node| node.numbers()?.vector(Some(features)))?)];
    if read::option_since((1, 9), node, "clip", Node::bool)? == Some(true) {
        steps.push(clip(-1.0, 1.0)?);
    }
    Ok(Box::new(Scaler { features, steps, takes_sparse: true, casts: false }))
}

fn clip(low: f64, high: f64) -> Result<Step> {
    if low <= high { Ok(Step::Clip(low, high)) } else { Err(Error::load(format!("a range from {low} to {high}"))) }
}

impl Step {
    fn apply(&self, rows: &mut Matrix, casts: bool) {
        let cast = |by: f64| if casts { f64::from(by as f32) } else { by };
        match self {
            Step::Add(by) => each(rows, by, |value, by| value + cast(by)),
            Step::Subtract(by) => each(rows, by, |value, by| value - cast(by)),
            Step::Multiply(by) => each(rows, by, |value, by| value * cast(by)),
            Step::Divide(by) => each(rows, by, |value, by| value / cast(by)),
            Step::Clip(low, high) => rows.values.iter_mut().for_each(|value| *value = value.clamp(*low, *high)),
        }
        rows.rounded();
    }

    fn undo(&self, rows: &mut Matrix) {
        match self {
            Step::Add(by) => each(rows, by, |value, by| value - by),
            Step::Subtract(by) => each(rows, by, |value, by| value + by),
            Step::Multiply(by) => each(rows, by, |value, by| value / by),
            Step::Divide(by) => each(rows, by, |value, by| value * by),
            Step::Clip(..) => {}
        }
        rows.rounded();
    }

    /// Only what leaves zero zero.
    fn apply_sparse(&self, rows: &mut Sparse) -> Result<()> {
        match self {
            // scikit-learn multiplies sparse columns by the inverse.
            Step::Divide(by) => {
                rows.values.iter_mut().zip(&rows.indices).for_each(|(value, column)| {
                    *value *= 1.0 / by[*column as usize];
                });
                Ok(())
            }
            Step::Clip(low, high) => {
                rows.values.iter_mut().for_each(|value| *value = value.clamp(*low, *high));
                Ok(())
            }
            Step::Add(_) | Step::Subtract(_) | Step::Multiply(_) => Err(Error::invalid(
                "Cannot center sparse matrices: pass `with_mean=False` instead. See docstring for motivation and \
                 alternatives.",
            )),
        }
    }
}

fn each(rows: &mut Matrix, by: &[f64], apply: impl Fn(f64, f64) -> f64) {
    for row in rows.values.chunks_exact_mut(by.len().max(1)) {
        row.iter_mut().zip(by).for_each(|(value, by)| *value = apply(*value, *by));
    }
}

impl Estimator for Scaler {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        if let Data::Sparse(sparse) = rows {
            if !self.takes_sparse {
                return Err(read::sparse());
            }
            let mut out = sparse.clone();
            self.steps.iter().try_for_each(|step| step.apply_sparse(&mut out))?;
            return Ok(Data::Sparse(out));
        }
        let mut out = rows.dense()?.into_owned();
        out.check_not_infinite()?;
        let casts = self.casts && out.single;
        self.steps.iter().for_each(|step| step.apply(&mut out, casts));
        Ok(Data::Dense(out))
    }

    fn can_invert(&self) -> bool {
        true
    }

    fn inverse_transform(&self, rows: &Matrix) -> Result<Matrix> {
        let mut out = rows.clone();
        out.check_columns(self.features)?;
        self.steps.iter().rev().for_each(|step| step.undo(&mut out));
        Ok(out)
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        Some(names.to_vec())
    }

    fn features(&self) -> Option<usize> {
        Some(self.features)
    }
}

/// The length that each row is brought to 1 in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    L1,
    L2,
    Max,
}

impl Norm {
    pub fn read(node: Node<'_>) -> Result<Norm> {
        match node.text()? {
            "l1" => Ok(Norm::L1),
            "l2" => Ok(Norm::L2),
            "max" => Ok(Norm::Max),
            other => Err(unsupported("norm", other)),
        }
    }

    fn of(self, values: &[f64]) -> f64 {
        match self {
            Norm::L1 => values.iter().map(|value| value.abs()).sum(),
            Norm::L2 => values.iter().map(|value| value * value).sum::<f64>().sqrt(),
            Norm::Max => values.iter().fold(0.0, |most: f64, value| most.max(value.abs())),
        }
    }

    fn divide(self, values: &mut [f64], least: f64) {
        let norm = self.of(values);
        if norm > least {
            values.iter_mut().for_each(|value| *value /= norm);
        }
    }

    /// Divides each row by its length, unless that is 0.
    pub fn apply(self, rows: &mut Matrix) {
        // Lengths below are taken for 0 (scikit-learn's `_handle_zeros_in_scale`).
        let least = 10.0 * if rows.single { f64::from(f32::EPSILON) } else { f64::EPSILON };
        for row in rows.values.chunks_exact_mut(rows.columns.max(1)) {
            self.divide(row, least.next_down());
        }
        rows.rounded();
    }

    /// As [`Norm::apply`].
    pub fn apply_sparse(self, rows: &mut Sparse) {
        for row in 0..rows.rows {
            self.divide(&mut rows.values[rows.starts[row]..rows.starts[row + 1]], 0.0);
        }
    }
}

struct Normalizer {
    features: Option<usize>,
    norm: Norm,
}

fn normalizer(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    Ok(Box::new(Normalizer { features: read::features(node)?, norm: node.read("norm", Norm::read)? }))
}

impl Estimator for Normalizer {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        if let Data::Sparse(sparse) = rows {
            sparse.check_finite()?;
            let mut out = sparse.clone();
            self.norm.apply_sparse(&mut out);
            return Ok(Data::Sparse(out));
        }
        let mut out = rows.dense()?.into_owned();
        out.check_finite()?;
        self.norm.apply(&mut out);
        Ok(Data::Dense(out))
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        Some(names.to_vec())
    }

    fn features(&self) -> Option<usize> {
        self.features
    }
}

/// 1 above the threshold, else 0.
struct Binarizer {
    features: Option<usize>,
    threshold: f64,
}

fn binarizer(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    Ok(Box::new(Binarizer { features: read::features(node)?, threshold: node.read("threshold", Node::float)? }))
}

impl Estimator for Binarizer {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let above = |value: f64| f64::from(u8::from(value > self.threshold));
        if let Data::Sparse(sparse) = rows {
            if self.threshold < 0.0 {
                return Err(Error::invalid("Cannot binarize a sparse matrix with threshold < 0"));
            }
            sparse.check_finite()?;
            return Ok(Data::Sparse(sparse.map_nonzero(|_, value| above(value))));
        }
        let mut out = rows.dense()?.into_owned();
        out.check_finite()?;
        out.values.iter_mut().for_each(|value| *value = above(*value));
        Ok(match rows.dtype() {
            dtype if is_float(dtype) => Data::Dense(out),
            dtype => Data::of_type(out, dtype),
        })
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        Some(names.to_vec())
    }

    fn features(&self) -> Option<usize> {
        self.features
    }
}
