//! What every step of a model can do, and how one is built from its description.

use std::sync::Arc;

use super::data::{Cell, Data, Matrix, Target};
use super::forest::Forest;
use crate::error::{Error, Kind, Result};
use crate::formats::graph::{Id, Node};
use crate::infer::EXPLANATION;
pub use crate::infer::table::Takes;
use crate::tensor::DType;

/// scikit-learn's methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    Predict,
    PredictProba,
    DecisionFunction,
    Transform,
    /// Not scikit-learn's: the Shapley values of `shap.TreeExplainer`.
    Contributions,
}

impl Method {
    pub const ALL: [Method; 5] =
        [Method::Predict, Method::PredictProba, Method::DecisionFunction, Method::Transform, Method::Contributions];

    pub const fn name(self) -> &'static str {
        match self {
            Method::Predict => "predict",
            Method::PredictProba => "predict_proba",
            Method::DecisionFunction => "decision_function",
            Method::Transform => "transform",
            Method::Contributions => EXPLANATION,
        }
    }

    pub fn parse(name: &str) -> Option<Method> {
        Method::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// Names of columns that only the estimator's own file knows, as boosters do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names<'a> {
    /// One for each column, or none.
    pub list: &'a [String],
    /// Whether `_` stands for the spaces that were in them.
    pub underscored: bool,
}

/// Shapley values, `[rows, outputs, features + 1]`: one for each feature, and at last the mean that they start from.
#[derive(Clone, Debug, PartialEq)]
pub struct Contributions {
    pub rows: usize,
    pub outputs: usize,
    /// Features and one.
    pub columns: usize,
    pub values: Vec<f64>,
}

/// A fitted estimator: rows in, answers out. It has as many columns in as it was fitted with: [`Builder::build`] puts a
/// check before each that it has the method and, when it knows its [`Estimator::features`], the columns; but not before
/// `inverse_transform`.
///
/// Numbers are computed as scikit-learn computes them, in the same order where the order shows.
pub trait Estimator: Send + Sync {
    /// Whether it has a method, as `hasattr` would say.
    fn can(&self, method: Method) -> bool;

    /// Class labels or values.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when the values are at fault, in the library's words; [`Kind::Unsupported`] without such a
    /// method.
    fn predict(&self, _rows: &Data) -> Result<Target> {
        Err(lacks(Method::Predict))
    }

    /// One matrix of a column for each class; several for classifiers of several outputs.
    ///
    /// # Errors
    /// As [`Estimator::predict`].
    fn predict_proba(&self, _rows: &Data) -> Result<Vec<Matrix>> {
        Err(lacks(Method::PredictProba))
    }

    /// A column for each class, or one column for two classes.
    ///
    /// # Errors
    /// As [`Estimator::predict`].
    fn decision_function(&self, _rows: &Data) -> Result<Matrix> {
        Err(lacks(Method::DecisionFunction))
    }

    /// # Errors
    /// As [`Estimator::predict`].
    fn transform(&self, _rows: &Data) -> Result<Data> {
        Err(lacks(Method::Transform))
    }

    /// Shows all forests in it, which may be computed elsewhere: nobody need show those that are for a few rows alone.
    ///
    /// # Errors
    /// The visitor's.
    fn visit_forests(&mut self, _visit: &mut dyn FnMut(&mut Forest) -> Result<()>) -> Result<()> {
        Ok(())
    }

    /// The type of what `transform` gives, where the estimator says; else it is that of the numbers, as a [`Matrix`] has
    /// them.
    fn gives(&self) -> Option<DType> {
        None
    }

    /// Whether `transform` gives a number for each row, not a column of them.
    fn gives_vector(&self) -> bool {
        false
    }

    /// What `get_feature_names_out` calls the columns that `transform` gives, those that come in having these names;
    /// `None` where that is not known.
    fn names_out(&self, _names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        None
    }

    /// Columns that `transform` gives and that have no names but the class's, with a number.
    fn components(&self) -> Option<usize> {
        None
    }

    /// Where a column is that `transform` passes on as it is.
    fn passes(&self, _column: usize) -> Option<usize> {
        None
    }

    /// What each feature contributes to the raw prediction of each output.
    ///
    /// # Errors
    /// As [`Estimator::predict`].
    fn contributions(&self, _rows: &Data) -> Result<Contributions> {
        Err(lacks(Method::Contributions))
    }

    /// Whether it has an [`Estimator::inverse_transform`].
    fn can_invert(&self) -> bool {
        false
    }

    /// Undoes `transform`, for the targets of a regression.
    ///
    /// # Errors
    /// As [`Estimator::predict`].
    fn inverse_transform(&self, _rows: &Matrix) -> Result<Matrix> {
        Err(irreversible())
    }

    /// The type of what `inverse_transform` gives, where the estimator says, as [`Estimator::gives`].
    fn inverse_gives(&self) -> Option<DType> {
        None
    }

    /// Columns that it was fitted with, where it knows.
    fn features(&self) -> Option<usize>;

    fn takes(&self, _column: usize) -> Takes {
        Takes::Numbers
    }

    fn names(&self) -> Names<'_> {
        Names::default()
    }

    /// Outputs that [`Estimator::contributions`] speaks of: asking it would cost as much as loading.
    fn explained_outputs(&self) -> usize {
        1
    }

    /// Names of what contributions are of, where they are known: of the columns that come in, or of what earlier steps
    /// make of them.
    fn explained(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        Some(names.to_vec())
    }

    /// A value that this column took when the estimator was fitted, for encoders that take no others.
    fn example(&self, _column: usize) -> Option<Cell> {
        None
    }

    /// Whether a frame without this column is refused, whatever becomes of it.
    fn demands(&self, column: usize) -> bool {
        self.uses(column) || self.passes(column).is_some()
    }

    /// Whether it answers integers otherwise than the same numbers as fractions: it, or one inside.
    fn counts_types(&self) -> bool {
        false
    }

    /// Whether None is one of the values that this column took when the estimator was fitted, beside what is missing.
    fn knows_none(&self, _column: usize) -> bool {
        false
    }

    /// In these columns None is a value that a later step knows, and not missing: to scikit-learn it is missing in no
    /// column of objects where NaN stands for that. JSON calls both null; only what was fitted tells which it was.
    fn keep_none(&mut self, _columns: &[bool]) {}

    /// Whether this column makes a difference to more than what [`Estimator::passes`] says that it becomes. One that is
    /// neither used nor passed on is dropped, and may be left out of a request.
    fn uses(&self, _column: usize) -> bool {
        true
    }
}

/// For methods that an estimator does not have as it was fitted.
pub fn lacks(method: Method) -> Error {
    Error::new(Kind::Unsupported, format!("the estimator has no {}", method.name()))
}

/// For transformers without an inverse.
pub fn irreversible() -> Error {
    Error::new(Kind::Unsupported, "the estimator has no inverse_transform")
}

/// Builds an estimator from a fitted object.
///
/// # Errors
/// [`Kind::Load`], naming the attribute, or the option that is not supported.
pub type Build = fn(Node<'_>, &mut Builder) -> Result<Box<dyn Estimator>>;

/// Builds estimators inside estimators, within bounds.
#[derive(Debug, Default)]
pub struct Builder {
    /// The objects that are being built, each inside of the one before.
    open: Vec<Id>,
    built: usize,
}

/// Deeper nesting than any pipeline has: objects may contain themselves.
const MAX_DEPTH: usize = 32;
/// More estimators than any ensemble has: objects may contain others many times over.
const MAX_BUILT: usize = 100_000;

impl Builder {
    /// Builds the estimator that an object describes, errors named after its class.
    ///
    /// # Errors
    /// As [`Build`]; also when the class is unknown, or estimators are nested without end.
    pub fn build(&mut self, node: Node<'_>) -> Result<Box<dyn Estimator>> {
        let Some(class) = node.class() else { return Err(node.expected("an estimator")) };
        let Some(build) = super::registry::find(class) else {
            return Err(Error::load(format!(
                "{class} is not supported: convert the model to ONNX (skl2onnx) and serve that"
            )));
        };
        if self.open.contains(&node.id()) {
            return Err(Error::load(format!("this {} contains itself", class.name)));
        }
        if self.open.len() >= MAX_DEPTH || self.built >= MAX_BUILT {
            return Err(Error::load(format!(
                "estimators are nested more than {MAX_DEPTH} deep or are more than {MAX_BUILT}"
            )));
        }
        self.open.push(node.id());
        self.built += 1;
        let built = build(node, self).map_err(|error| error.context(&class.name));
        self.open.pop();
        Ok(Box::new(Checked { inner: built?, class: class.name.clone() }))
    }

    /// Builds the estimators of a list, such as `estimators_`.
    ///
    /// # Errors
    /// As [`Builder::build`], naming the place in the list.
    pub fn build_all<'g>(&mut self, nodes: impl Iterator<Item = Node<'g>>) -> Result<Vec<Box<dyn Estimator>>> {
        nodes
            .enumerate()
            .map(|(place, node)| self.build(node).map_err(|error| error.context(format_args!("[{place}]"))))
            .collect()
    }
}

/// More columns are not named: steps may multiply their number without end.
pub const MOST_NAMES: usize = 1 << 20;

/// Names as models have them, no more and no longer.
pub fn are_bounded(names: &[Arc<str>]) -> bool {
    const LONGEST_BYTES: usize = 1 << 10;
    names.len() <= MOST_NAMES && names.iter().all(|name| name.len() <= LONGEST_BYTES)
}

/// An estimator that is only asked what it can answer, about as many columns as it was fitted with, so that it can
/// index freely: whoever made the file decides what is put before what.
struct Checked {
    inner: Box<dyn Estimator>,
    class: Arc<str>,
}

impl Checked {
    fn check(&self, method: Method, rows: &Data) -> Result<&dyn Estimator> {
        if !self.inner.can(method) {
            return Err(lacks(method).context(&self.class));
        }
        match self.inner.features() {
            Some(features) if features != rows.columns() => Err(Error::invalid(format!(
                "X has {} features, but {} is expecting {features} features as input.",
                rows.columns(),
                self.class
            ))),
            _ => Ok(&*self.inner),
        }
    }
}

impl Estimator for Checked {
    fn can(&self, method: Method) -> bool {
        self.inner.can(method)
    }

    fn visit_forests(&mut self, visit: &mut dyn FnMut(&mut Forest) -> Result<()>) -> Result<()> {
        self.inner.visit_forests(visit)
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        self.check(Method::Predict, rows)?.predict(rows)
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        self.check(Method::PredictProba, rows)?.predict_proba(rows)
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        self.check(Method::DecisionFunction, rows)?.decision_function(rows)
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let data = self.check(Method::Transform, rows)?.transform(rows)?;
        Ok(match (data, self.inner.gives()) {
            (Data::Dense(matrix), Some(dtype)) if !matches!(dtype, DType::Fp32 | DType::Fp64) => {
                Data::Typed(matrix, dtype)
            }
            (data, _) => data,
        })
    }

    fn gives(&self) -> Option<DType> {
        self.inner.gives()
    }

    fn gives_vector(&self) -> bool {
        self.inner.gives_vector()
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        if self.inner.features().is_some_and(|features| features != names.len()) || !are_bounded(names) {
            return None;
        }
        let class = self.class.to_lowercase();
        let numbered = |count| (0..count).map(|number| format!("{class}{number}").into()).collect();
        self.inner.components().map(numbered).or_else(|| self.inner.names_out(names))
    }

    fn passes(&self, column: usize) -> Option<usize> {
        self.inner.passes(column)
    }

    fn contributions(&self, rows: &Data) -> Result<Contributions> {
        self.check(Method::Contributions, rows)?.contributions(rows)
    }

    fn can_invert(&self) -> bool {
        self.inner.can_invert()
    }

    fn inverse_transform(&self, rows: &Matrix) -> Result<Matrix> {
        self.inner.inverse_transform(rows)
    }

    fn inverse_gives(&self) -> Option<DType> {
        self.inner.inverse_gives()
    }

    fn features(&self) -> Option<usize> {
        self.inner.features()
    }

    fn takes(&self, column: usize) -> Takes {
        self.inner.takes(column)
    }

    fn names(&self) -> Names<'_> {
        self.inner.names()
    }

    fn explained_outputs(&self) -> usize {
        self.inner.explained_outputs()
    }

    fn explained(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        self.inner.explained(names)
    }

    fn example(&self, column: usize) -> Option<Cell> {
        self.inner.example(column)
    }

    fn demands(&self, column: usize) -> bool {
        self.inner.demands(column)
    }

    fn counts_types(&self) -> bool {
        self.inner.counts_types()
    }

    fn knows_none(&self, column: usize) -> bool {
        self.inner.knows_none(column)
    }

    fn keep_none(&mut self, columns: &[bool]) {
        self.inner.keep_none(columns);
    }

    fn uses(&self, column: usize) -> bool {
        self.inner.uses(column)
    }
}

/// For options that change the answer and that we do not compute.
pub fn unsupported(option: &str, value: impl std::fmt::Display) -> Error {
    Error::load(format!("{option}={value} is not supported: convert the model to ONNX (skl2onnx) and serve that"))
}
