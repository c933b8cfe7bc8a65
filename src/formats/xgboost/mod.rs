//! xgboost's model files, of every version since 1.0 and in every format they come in: JSON, Universal Binary JSON,
//! the binary format of before 3.1, and what is inside a pickled `Booster`.
//!
//! # How xgboost computes
//!
//! All of it in `f32`, on features cast to `f32`; this is what the CPU predictor of 3.2 does, to the bit:
//!
//! * A row's outputs begin as the base margins ([`Model::base_margins`]), to which each tree in file order adds its
//!   leaf: `margin[output] += leaf`, one rounding per tree. Vector leaves add one value to every output.
//! * dart multiplies each leaf with its tree's weight, and the product is rounded before it is added:
//!   `margin += leaf * weight`. The scikit-learn classes go through `inplace_predict`, which instead computes
//!   `margin += ((base_margin + leaf) - base_margin) * weight` and so rounds differently.
//! * gblinear begins with `bias[output] + base_margin[0]`, of the *first* output even when there are more, and then
//!   adds `x * weight` feature by feature; NaN adds nothing.
//! * A numeric split sends `x < threshold` left, a categorical one sends the categories that it lists *right*; NaN goes
//!   where the split's default says. `Booster.predict` refuses infinite inputs, `inplace_predict` takes them.
//! * [`Transform`] then turns margins into predictions.
//!
//! Files of older versions are computed as 3.2 does, too: 1.3 still added the base margin last, and 1.6 sent unknown
//! categories where NaN goes. In one thing this follows the version that wrote the file: gblinear models of 1.3 and
//! before do not say their rounds, and 3.2 then takes the base score for a margin.
//!
//! On x86-64, where the compiler does not contract multiplications and additions; `exp` is the C library's, as Rust's.
//!
//! # How many trees
//!
//! All of them, for `Booster.predict` (what KServe's xgbserver calls): it does not look at `best_iteration`. The
//! scikit-learn classes do: `predict` and `predict_proba` use iterations `0..=best_iteration` when training stopped
//! early ([`Model::best_iteration`], [`Forest::trees_until`]), except for gblinear.
//!
//! `Booster.predict` takes fewer columns than there are features, the rest being missing; `inplace_predict` does not.
//!
//! # Shapes
//!
//! `Booster.predict` gives `[rows]` for one output and for `multi:softmax`, otherwise `[rows, outputs]`.
//! `XGBRegressor` and `XGBRanker` the same. `XGBClassifier.predict_proba` gives `[rows, 2]` of `1 - p, p` for one
//! output, `[rows, classes]` for `multi:*` (of `multi:softmax` too, by scipy's softmax of the margins), and for
//! multi-label `[rows, labels]`; its `predict` gives `p > 0.5`, the first greatest class, or per label `p > 0.5`.
//! Predictions are `f32`, classes are integers, but for multi-label (`f64` zeros and ones).

mod binary;
mod categories;
mod document;
mod json;
mod model;
mod objective;
mod tree;
mod ubj;

use std::collections::BTreeMap;

pub use categories::Categories;
pub use objective::{Objective, Transform};

use crate::content::Content;
use crate::error::{Error, Result};
use crate::formats::detect::HEAD_BYTES;
use crate::formats::trees::Tree;

/// A booster as its file describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Of the xgboost that wrote the file; zeros when it does not say.
    pub version: [i64; 3],
    /// How many features the model was trained on.
    pub features: usize,
    /// Empty, or one for each feature.
    pub feature_names: Vec<String>,
    /// Empty, or one for each feature: `float`, `int`, `i` (indicator), `q` (quantity), `c` (category).
    pub feature_types: Vec<String>,
    /// What a frame's categories were called, for each feature that has some; empty before 3.1 and without a frame.
    pub categories: Vec<Option<Categories>>,
    /// Margins per row: the number of classes or of targets, at least 1.
    pub outputs: usize,
    /// `num_class`, 0 unless the objective is one of many classes.
    pub classes: usize,
    pub objective: Objective,
    /// One for each output, as stored: a prediction, not a margin.
    pub base_scores: Vec<f32>,
    pub booster: Booster,
    /// What users and callbacks have put there: `best_iteration`, `best_score`.
    pub attributes: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Booster {
    Forest(Forest),
    Linear(Linear),
}

/// gbtree and dart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forest {
    pub trees: Vec<Grown>,
    /// dart's, one for each tree.
    pub weights: Option<Vec<f32>>,
    /// Trees that were grown together in each iteration for each output.
    pub parallel_trees: usize,
    /// Where each iteration's trees begin, and at last where they end.
    pub iterations: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Grown {
    pub tree: Tree,
    pub target: Target,
    /// The library's number of each leaf, which `pred_leaf` returns: the node's place in the file.
    pub leaf_ids: Vec<u32>,
}

/// What a tree's leaves add to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    Output(usize),
    /// Leaves are vectors with a value for each output.
    All,
}

/// gblinear.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// `weights[feature * outputs + output]`.
    pub weights: Vec<f32>,
    /// One for each output.
    pub bias: Vec<f32>,
}

impl Model {
    /// Where the margins begin: the base scores brought through the objective's link function.
    pub fn base_margins(&self) -> Vec<f32> {
        self.base_scores.iter().map(|score| self.objective.margin(*score)).collect()
    }

    /// The last iteration that the scikit-learn classes use, when training stopped early.
    pub fn best_iteration(&self) -> Option<usize> {
        self.attributes.get("best_iteration")?.parse().ok()
    }
}

impl Forest {
    /// How many trees the first `iterations` have, 0 meaning all.
    pub fn trees_until(&self, iterations: usize) -> usize {
        let end = if iterations == 0 { None } else { self.iterations.get(iterations) };
        end.copied().unwrap_or(self.trees.len())
    }
}

/// A pickled booster of xgboost before 1.6: this, the binary model's length, the model, its configuration as JSON.
const OFFSET_MAGIC: &[u8] = b"CONFIG-offset:";

/// Whether a file that begins so looks like a JSON or UBJ model, or a binary one that says what it is.
pub fn recognise(head: &[u8]) -> bool {
    let is_document = head.trim_ascii_start().starts_with(b"{") && memchr::memmem::find(head, b"learner").is_some();
    is_document || head.starts_with(b"binf") || head.starts_with(OFFSET_MAGIC)
}

/// Reads a model of any of the formats, which the first bytes tell apart.
///
/// # Errors
/// [`Kind::Load`](crate::error::Kind::Load), naming the place in the file.
pub fn read(content: impl Into<Content>) -> Result<Model> {
    let content = &content.into();
    let head = content.upto(HEAD_BYTES);
    let text = head.trim_ascii_start();
    match text {
        [b'{', rest @ ..] if rest.trim_ascii_start().starts_with(b"\"") || rest.trim_ascii_start() == b"}" => {
            let mut input = json::Json::new(content);
            let raw = model::parse(&mut input)?;
            input.finish()?;
            raw.finish()
        }
        [b'{', ..] => model::parse(&mut ubj::Ubj::new(content, head.len() - text.len()))?.finish(),
        _ => read_binary(content.all()),
    }
}

fn read_binary(bytes: &[u8]) -> Result<Model> {
    match bytes {
        _ if bytes.starts_with(b"bs64") => Err(Error::load(
            "the model is of xgboost's base64 format, which no release since 1.0 reads: save it as JSON",
        )),
        _ => match bytes.strip_prefix(OFFSET_MAGIC) {
            Some(rest) => binary::read(sized(rest)?),
            None => binary::read(bytes.strip_prefix(b"binf").unwrap_or(bytes)),
        },
    }
}

/// What follows a length of 8 bytes.
fn sized(bytes: &[u8]) -> Result<&[u8]> {
    let sized = bytes.split_first_chunk().and_then(|(length, rest)| {
        let length = usize::try_from(i64::from_le_bytes(*length)).ok()?;
        rest.get(..length)
    });
    let sized = sized.ok_or_else(|| Error::load("the pickled booster is shorter than it says: was it cut short?"))?;
    Ok(sized.strip_prefix(b"binf").unwrap_or(sized))
}
