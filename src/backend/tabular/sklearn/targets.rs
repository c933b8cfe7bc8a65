//! How classifiers that learn 0 and 1 for each class (scikit-learn's `LabelBinarizer`) get back to labels.

use super::read::{self, argmax, either};
use crate::backend::tabular::data::{Labels, Matrix, Target};
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::tensor::DType;

/// What a fitted `LabelBinarizer` was shown.
pub enum Targets {
    /// One label a row. Two classes have one column, as has a single one; others one each.
    Classes(Labels),
    /// Any number of labels a row, each of its own column.
    Multilabel(usize),
}

impl Targets {
    /// # Errors
    /// When attributes are missing.
    pub fn read(node: Node<'_>) -> Result<Targets> {
        let classes = node.read("classes_", read::labels)?;
        match node.read("y_type_", Node::text)? {
            "multilabel-indicator" => Ok(Targets::Multilabel(classes.len())),
            "binary" | "multiclass" if !classes.is_empty() => Ok(Targets::Classes(classes)),
            kind => Err(Error::load(format!("{} classes of type \"{kind}\"", classes.len()))),
        }
    }

    /// Columns that scores must have.
    pub fn columns(&self) -> usize {
        match self {
            Targets::Classes(classes) if classes.len() <= 2 => 1,
            Targets::Classes(classes) => classes.len(),
            Targets::Multilabel(count) => *count,
        }
    }

    /// Labels by scores: whichever is the greatest, or all above the threshold.
    pub fn decide(&self, scores: &Matrix, threshold: f64) -> Target {
        let above = scores.values.iter().map(|score| *score > threshold);
        match self {
            Targets::Classes(classes) if classes.len() <= 2 => either(classes, above),
            Targets::Classes(classes) => Target::one(classes.pick(argmax(scores))),
            Targets::Multilabel(count) => {
                let values = Labels::Int(above.map(i64::from).collect(), DType::Int64);
                Target { values, columns: Some(*count) }
            }
        }
    }
}
