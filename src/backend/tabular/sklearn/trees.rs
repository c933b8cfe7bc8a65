//! Decision trees and forests of them.
//!
//! scikit-learn's trees see `f32` and compare `x <= threshold`; values are summed in `f64`, tree by tree.

use std::borrow::Cow;

use super::read::{self, argmax};
use crate::backend::tabular::data::{Data, Labels, Matrix, Target};
use crate::backend::tabular::estimator::{Build, Builder, Contributions, Estimator, Method};
use crate::backend::tabular::forest::{Forest, Grown, InputPrecision};
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::formats::trees::{Kind, Missing, Node as TreeNode, Test, Tree};

pub const CLASSES: &[(&str, Build)] = &[
    ("DecisionTreeClassifier", tree),
    ("DecisionTreeRegressor", tree),
    ("ExtraTreeClassifier", tree),
    ("ExtraTreeRegressor", tree),
    ("RandomForestClassifier", forest),
    ("RandomForestRegressor", forest),
    ("ExtraTreesClassifier", forest),
    ("ExtraTreesRegressor", forest),
];

/// A `sklearn.tree._tree.Tree`, with what is said of its values.
pub struct ReadTree {
    pub tree: Tree,
    /// Values of each leaf: outputs times classes.
    pub width: usize,
    /// Samples in each node, in the order of the tree's nodes.
    pub samples: Vec<f64>,
    /// Whether NaN has a way to go (since 1.3).
    pub knows_missing: bool,
}

/// Reads `tree_` of a decision tree.
///
/// # Errors
/// When a field is missing or arrays do not fit each other. Whether it is a tree is checked when it is compiled.
pub fn read_tree(node: Node<'_>) -> Result<ReadTree> {
    let state = node.object()?.state.map(|state| node.at(state)).ok_or_else(|| node.expected("a fitted tree"))?;
    let nodes = state.read("nodes", Node::array)?;
    let field = |name: &str| {
        let values = nodes.field(name)?;
        values.ok_or_else(|| Error::load(format!("nodes have no field \"{name}\"")))
    };
    let (lefts, rights) = (field("left_child")?, field("right_child")?);
    let (features, thresholds) = (field("feature")?, field("threshold")?);
    let (samples, covers) = (field("n_node_samples")?, field("weighted_n_node_samples")?);
    let missing_left = nodes.field("missing_go_to_left")?;
    let values = state.read("values", Node::numbers)?;
    let count = lefts.len();
    let width = values.shape.iter().skip(1).product::<usize>();
    if values.shape.first() != Some(&count) || width == 0 {
        return Err(Error::load(format!("values of shape {:?} for {count} nodes", values.shape)));
    }
    let mut tree = Tree { nodes: Vec::with_capacity(count), ..Tree::default() };
    for id in 0..count {
        let kind = if lefts[id] < 0.0 {
            tree.leaves.extend_from_slice(&values.values[id * width..][..width]);
            Kind::Leaf { index: (tree.leaves.len() / width - 1) as u32 }
        } else {
            let test = Test::AtMost {
                threshold: thresholds[id],
                missing: Missing::Nan,
                missing_left: missing_left.as_ref().is_some_and(|left| left[id] != 0.0),
            };
            if features[id] < 0.0 || rights[id] < 0.0 {
                return Err(Error::load(format!("node {id}: feature {}, right child {}", features[id], rights[id])));
            }
            Kind::Split { feature: features[id] as u32, test, left: lefts[id] as u32, right: rights[id] as u32 }
        };
        tree.nodes.push(TreeNode { cover: covers[id], kind });
    }
    Ok(ReadTree { tree, width, samples, knows_missing: missing_left.is_some() })
}

/// What a classifier or regressor of one or several outputs calls its outputs.
struct Outputs {
    /// Of each output; empty for regression.
    classes: Vec<Labels>,
    outputs: usize,
}

impl Outputs {
    fn read(node: Node<'_>) -> Result<Outputs> {
        let outputs = node.read("n_outputs_", Node::usize)?;
        let classes = |node: Node<'_>| {
            if outputs == 1 { Ok(vec![read::labels(node)?]) } else { node.items()?.map(read::labels).collect() }
        };
        let classes = if read::is_classifier(node) { node.read("classes_", classes)? } else { Vec::new() };
        let fit = classes.is_empty() || classes.len() == outputs && !classes.iter().any(Labels::is_empty);
        if !fit || outputs == 0 {
            return Err(Error::load(format!("classes_ are of {} outputs, not of {outputs}", classes.len())));
        }
        Ok(Outputs { classes, outputs })
    }

    fn is_classifier(&self) -> bool {
        !self.classes.is_empty()
    }

    /// Cuts a leaf's values into a matrix for each output: values lie padded to the most classes.
    fn split(&self, values: &Matrix) -> Vec<Matrix> {
        let most = values.columns / self.outputs;
        let part = |output: usize| {
            let columns: Vec<usize> = (output * most..output * most + self.classes[output].len()).collect();
            values.select(&columns)
        };
        (0..self.outputs).map(part).collect()
    }

    fn predict(&self, values: &Matrix) -> Result<Target> {
        if !self.is_classifier() {
            let columns = (self.outputs > 1).then_some(self.outputs);
            return Ok(Target { values: Labels::Float(values.values.clone()), columns });
        }
        let parts = self.split(values);
        if let [only] = parts.as_slice() {
            return Ok(Target::one(self.classes[0].pick(argmax(only))));
        }
        let chosen: Vec<Labels> =
            parts.iter().zip(&self.classes).map(|(part, classes)| classes.pick(argmax(part))).collect();
        interleave(&chosen)
    }
}

/// One column for each output, row by row.
///
/// # Errors
/// As [`Labels::concat`].
pub fn interleave(columns: &[Labels]) -> Result<Target> {
    let outputs = columns.len();
    let joined = Labels::concat(columns)?;
    let rows = joined.len() / outputs.max(1);
    let places = (0..rows).flat_map(|row| (0..outputs).map(move |output| output * rows + row));
    Ok(Target { values: joined.pick(places), columns: Some(outputs) })
}

/// The mean of some trees' values.
struct Averaging {
    forest: Forest,
    outputs: Outputs,
    knows_missing: bool,
}

fn tree(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    averaging(node, std::iter::once(node))
}

fn forest(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    averaging(node, node.read("estimators_", Node::items)?)
}

fn averaging<'g>(node: Node<'g>, estimators: impl Iterator<Item = Node<'g>>) -> Result<Box<dyn Estimator>> {
    let outputs = Outputs::read(node)?;
    let features = node.read("n_features_in_", Node::usize)?;
    let normalised = !outputs.is_classifier() || read::holds_shares(node)?;
    let mut trees = Vec::new();
    let (mut width, mut knows_missing) = (outputs.outputs, true);
    for (number, estimator) in estimators.enumerate() {
        let read = estimator.read("tree_", read_tree).map_err(|error| error.context(format_args!("tree {number}")))?;
        let mut tree = read.tree;
        if !normalised {
            normalise(&mut tree.leaves, read.width / outputs.outputs);
        }
        if number > 0 && read.width != width {
            return Err(Error::load(format!("tree {number} has {} values a leaf, others {width}", read.width)));
        }
        width = read.width;
        knows_missing &= read.knows_missing;
        trees.push((tree, 0));
    }
    let each = outputs.classes.iter().map(Labels::len).max().unwrap_or(1);
    if trees.is_empty() || Some(width) != each.checked_mul(outputs.outputs) {
        return Err(Error::load(format!(
            "{} trees of {width} values for {} outputs of {each} {}",
            trees.len(),
            outputs.outputs,
            if outputs.is_classifier() { "classes" } else { "values" }
        )));
    }
    let grown = Grown { features, outputs: width, width, input: InputPrecision::Single, trees };
    Ok(Box::new(Averaging { forest: Forest::compile(grown)?, outputs, knows_missing }))
}

/// Weights of classes become their shares.
pub(super) fn normalise(leaves: &mut [f64], classes: usize) {
    for weights in leaves.chunks_exact_mut(classes.max(1)) {
        let sum: f64 = weights.iter().sum();
        if sum != 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
    }
}

/// Rows as trees see them, which know missing values in dense ones at most.
pub(super) fn seen(rows: &Data, knows_missing: bool) -> Result<Cow<'_, Matrix>> {
    let knows_missing = knows_missing && !matches!(rows, Data::Sparse(_));
    let rows = rows.dense()?;
    if rows.values.iter().any(|value| (*value as f32).is_infinite()) {
        return Err(Error::invalid("Input X contains infinity or a value too large for dtype('float32')."));
    }
    if !knows_missing {
        rows.check_finite()?;
    }
    Ok(rows)
}

impl Averaging {
    fn mean(&self, rows: &Data) -> Result<Matrix> {
        let rows = seen(rows, self.knows_missing)?;
        let width = self.forest.outputs();
        let mut values = self.forest.sums(&rows.values, &vec![0.0; width])?;
        let trees = self.forest.trees();
        if trees > 1 {
            values.iter_mut().for_each(|value| *value /= trees as f64);
        }
        Ok(Matrix::new(rows.rows, width, values))
    }
}

impl Estimator for Averaging {
    fn visit_forests(&mut self, visit: &mut dyn FnMut(&mut Forest) -> Result<()>) -> Result<()> {
        visit(&mut self.forest)
    }

    fn can(&self, method: Method) -> bool {
        match method {
            Method::Predict | Method::Contributions => true,
            Method::PredictProba => self.outputs.is_classifier(),
            _ => false,
        }
    }

    fn explained_outputs(&self) -> usize {
        self.forest.outputs()
    }

    /// Of the class shares, or of the mean.
    fn contributions(&self, rows: &Data) -> Result<Contributions> {
        let rows = seen(rows, self.knows_missing)?;
        let mut parts = self.forest.explain(&rows, &vec![0.0; self.forest.outputs()])?;
        parts.values.iter_mut().for_each(|value| *value /= self.forest.trees() as f64);
        Ok(parts)
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        self.outputs.predict(&self.mean(rows)?)
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        Ok(self.outputs.split(&self.mean(rows)?))
    }

    fn features(&self) -> Option<usize> {
        Some(self.forest.features())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::tabular::data::{Cell, Cells, Column, Sparse, Table};

    #[test]
    fn missing_values_are_known_in_dense_rows_only() {
        let dense = Data::Dense(Matrix::new(1, 1, vec![f64::NAN]));
        let sparse =
            Data::Sparse(Sparse { rows: 1, columns: 1, starts: vec![0, 1], indices: vec![0], values: vec![f64::NAN] });
        assert!(seen(&dense, true).is_ok() && seen(&dense, false).is_err());
        assert!(seen(&sparse, true).is_err());
        let table = |cells| Data::Table(Table { rows: 1, columns: vec![Column { name: None, cells, dtype: None }] });
        assert!(dense.check_finite().is_err() && sparse.check_finite().is_err());
        assert!(table(Cells::Numbers(vec![f64::NAN])).check_finite().is_err());
        assert!(table(Cells::Mixed(vec![Cell::None])).check_finite().is_ok());
    }
}
