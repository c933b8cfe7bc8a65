//! lightgbm's text models, versions 2 to 4: files of `save_model`, strings of `model_to_string`, and what is inside a
//! pickled `Booster` (`handle`) or `LGBMModel`.
//!
//! # How lightgbm computes
//!
//! All of it in `f64`:
//!
//! * Inputs within [`ZERO`](crate::formats::trees::ZERO) of zero become 0 before any tree sees them.
//! * Scores begin at 0. Trees come iteration by iteration, one for each output in turn, and each adds its leaf:
//!   `score[output] += leaf`. Shrinkage and the initial score of `boost_from_average` are in the leaves already.
//! * A leaf that is linear is `constant`, to which each term is added in turn, or the leaf's plain value when one of
//!   the features is NaN.
//! * A random forest (`average_output`) divides the sum by the number of iterations; not so for `raw_score=True`.
//! * [`Objective::apply`] then turns scores into predictions; without an objective (a custom one) they stay.
//! * Numeric splits send `x <= threshold` left, categorical ones the categories that they list; NaN, negative and
//!   unknown categories go right.
//!
//! `pred_contrib` weighs branches with counts of rows (`internal_count`, `leaf_count`), not with weights: these are
//! the covers here.
//!
//! # How many trees
//!
//! All that the file has. `save_model` and `model_to_string` leave out what came after the best iteration, unless told
//! otherwise, and so does `lgb.train` when it is done; the file does not say which iteration it was. Only a *pickled*
//! booster that was kept for training (`keep_training_booster`) may have more trees and, outside of this text, a
//! `best_iteration` above 0, up to which `predict` then goes: [`Model::keep_iterations`] is for that.
//!
//! # Shapes
//!
//! `Booster.predict` gives `f64`, `[rows]` for one output, otherwise `[rows, outputs]`, and takes exactly as many
//! columns as there are features. `LGBMClassifier.predict_proba` gives
//! `[rows, 2]` of `1 - p, p` for `binary`, its `predict` the class of the greatest probability (`p > 0.5` for binary).

mod objective;
mod pandas;
mod text;
mod tree;

use std::collections::BTreeMap;

pub use objective::Objective;
use serde_json::Value;

use crate::content::Content;
use crate::error::Result;
use crate::formats::trees::Tree;

/// A booster as its text describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// `v2` to `v4`.
    pub version: String,
    pub features: usize,
    /// One for each feature; `Column_0` and so on when the data had no names.
    pub feature_names: Vec<String>,
    /// One for each feature: `[min:max]`, categories as `1:2:3`, or `none` for a constant one.
    pub feature_infos: Vec<String>,
    pub classes: usize,
    /// Scores per row.
    pub trees_per_iteration: usize,
    /// None for a custom one, whose scores are the predictions.
    pub objective: Option<Objective>,
    /// Whether it is a random forest, whose predictions are averages.
    pub average_output: bool,
    /// Iteration by iteration.
    pub trees: Vec<Tree>,
    /// The learning rate that each tree's leaves were multiplied with.
    pub shrinkage: Vec<f64>,
    /// The `parameters:` that it was trained with, for information.
    pub parameters: BTreeMap<String, String>,
    /// For each feature of pandas' type `category`, in order, the categories that its codes 0, 1, .. stand for.
    pub pandas_categorical: Vec<Vec<Value>>,
}

impl Model {
    /// Complete iterations; what trees there are beyond are not used.
    pub fn iterations(&self) -> usize {
        self.trees.len() / self.trees_per_iteration.max(1)
    }

    /// Forgets the trees after the first `iterations`.
    pub fn keep_iterations(&mut self, iterations: usize) {
        let trees = iterations.saturating_mul(self.trees_per_iteration);
        self.trees.truncate(trees);
        self.shrinkage.truncate(trees);
    }

    /// For each list of [`Model::pandas_categorical`] the column that it must be of; `None` where the file leaves that
    /// open: several constant columns, ordered categories beside whole numbers, columns declared categorical by hand.
    pub fn pandas_columns(&self) -> Vec<Option<usize>> {
        let lists: Vec<usize> = self.pandas_categorical.iter().map(Vec::len).collect();
        pandas::columns(&lists, &self.feature_infos)
    }

    /// Turns the scores of one row into predictions in place.
    pub fn apply(&self, row: &mut [f64]) {
        if self.average_output {
            #[allow(clippy::cast_precision_loss)]
            let iterations = self.iterations() as f64;
            for score in row.iter_mut() {
                *score /= iterations;
            }
        }
        if let Some(objective) = &self.objective {
            objective.apply(row);
        }
    }
}

/// Whether this looks like a model of lightgbm.
pub fn recognise(bytes: &[u8]) -> bool {
    bytes.strip_prefix(b"tree").is_some_and(|rest| matches!(rest.first(), Some(b'\n' | b'\r')))
}

/// Reads a model.
///
/// # Errors
/// [`Kind::Load`](crate::error::Kind::Load), naming the tree or the line.
pub fn read(content: impl Into<Content>) -> Result<Model> {
    text::read(&content.into())
}
