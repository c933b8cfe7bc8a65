//! What every step of a model can do, and how one is built from its description.

use super::data::{Data, Matrix, Target};
use crate::error::{Error, Kind, Result};
use crate::formats::graph::Node;

/// scikit-learn's methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    Predict,
    PredictProba,
    DecisionFunction,
    Transform,
}

impl Method {
    pub const fn name(self) -> &'static str {
        match self {
            Method::Predict => "predict",
            Method::PredictProba => "predict_proba",
            Method::DecisionFunction => "decision_function",
            Method::Transform => "transform",
        }
    }

    pub fn parse(name: &str) -> Option<Method> {
        [Method::Predict, Method::PredictProba, Method::DecisionFunction, Method::Transform]
            .into_iter()
            .find(|method| method.name() == name)
    }
}

/// A fitted estimator: rows in, answers out. It has as many columns in as it was fitted with; whoever runs the whole
/// model checks the request, and whoever builds a step checks its neighbours.
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

    /// Undoes `transform`, for the targets of a regression.
    ///
    /// # Errors
    /// As [`Estimator::predict`].
    fn inverse_transform(&self, _rows: &Matrix) -> Result<Matrix> {
        Err(Error::new(Kind::Unsupported, "the estimator has no inverse_transform"))
    }

    /// Columns that it was fitted with, where it knows.
    fn features(&self) -> Option<usize>;

    /// Whether this column may hold something else than numbers.
    fn takes_text(&self, _column: usize) -> bool {
        false
    }

    /// Whether this column makes a difference: one that is dropped may be left out of a request.
    fn uses(&self, _column: usize) -> bool {
        true
    }
}

/// For methods that an estimator does not have as it was fitted.
pub fn lacks(method: Method) -> Error {
    Error::new(Kind::Unsupported, format!("the estimator has no {}", method.name()))
}

/// Builds an estimator from a fitted object.
///
/// # Errors
/// [`Kind::Load`], naming the attribute, or the option that is not supported.
pub type Build = fn(Node<'_>, &mut Builder) -> Result<Box<dyn Estimator>>;

/// Builds estimators inside estimators, within bounds.
#[derive(Debug, Default)]
pub struct Builder {
    depth: usize,
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
        if self.depth >= MAX_DEPTH || self.built >= MAX_BUILT {
            return Err(Error::load(format!(
                "estimators are nested more than {MAX_DEPTH} deep or are more than {MAX_BUILT}"
            )));
        }
        self.depth += 1;
        self.built += 1;
        let built = build(node, self).map_err(|error| error.context(&class.name));
        self.depth -= 1;
        built
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

/// For options that change the answer and that we do not compute.
pub fn unsupported(option: &str, value: impl std::fmt::Display) -> Error {
    Error::load(format!("{option}={value} is not supported: convert the model to ONNX (skl2onnx) and serve that"))
}
