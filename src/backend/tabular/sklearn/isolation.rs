//! Forests that were grown without targets: isolation forests, where it counts how soon random splits set a row apart,
//! and embeddings, where it counts to which leaves a row falls.

use std::borrow::Cow;
use std::sync::Arc;

use super::members::Member;
use super::read;
use super::trees::{ReadTree, read_tree, seen};
use crate::backend::tabular::data::{Data, Labels, Matrix, Target};
use crate::backend::tabular::estimator::{Build, Builder, Contributions, Estimator, Method};
use crate::backend::tabular::forest::{Forest, Grown, InputPrecision};
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::formats::trees::{Kind, Tree};
use crate::tensor::DType;

pub const CLASSES: &[(&str, Build)] = &[("IsolationForest", isolation), ("RandomTreesEmbedding", embedding)];

/// `-2 ** -(mean depth / average_path_length(max_samples)) - offset`.
struct Isolation {
    /// Sums of depths.
    forest: Forest,
    /// The sum of depths that is halfway, trees times average path length.
    scale: f64,
    offset: f64,
    /// Since 1.6 any number is taken.
    any_number: bool,
}

fn isolation(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let features = node.read("n_features_in_", Node::usize)?;
    let mut trees = Vec::new();
    for (number, member) in Member::with_columns(node, features)?.into_iter().enumerate() {
        let place = |error: Error| error.context(format_args!("tree {number}"));
        let read = member.node.read("tree_", read_tree).map_err(place)?;
        let mut tree = depths(read).map_err(place)?;
        member.rename(&mut tree).map_err(place)?;
        trees.push((tree, 0));
    }
    let samples = match node.some("_max_samples") {
        Some(_) => node.read("_max_samples", Node::float)?,
        None => node.read("max_samples_", Node::float)?,
    };
    let scale = trees.len() as f64 * average_path_length(samples);
    let grown = Grown { features, outputs: 1, width: 1, input: InputPrecision::Single, trees };
    Ok(Box::new(Isolation {
        forest: Forest::compile(grown)?,
        scale,
        offset: node.read("offset_", Node::float)?,
        any_number: read::version(node) >= (1, 6),
    }))
}

/// Leaves that say how deep they are, and how much deeper splitting their samples on would have gone.
fn depths(ReadTree { mut tree, samples, .. }: ReadTree) -> Result<Tree> {
    tree.check(usize::MAX, 1)?;
    tree.leaves = vec![0.0; tree.leaves.len()];
    let mut open = vec![(0_usize, 1.0)];
    while let Some((id, depth)) = open.pop() {
        match &tree.nodes[id].kind {
            Kind::Leaf { index } => tree.leaves[*index as usize] = depth + average_path_length(samples[id]) - 1.0,
            Kind::Split { left, right, .. } => {
                open.extend([(*left as usize, depth + 1.0), (*right as usize, depth + 1.0)]);
            }
        }
    }
    Ok(tree)
}

/// Of an unsuccessful search among as many samples in a binary tree (Liu, Ting and Zhou, "Isolation Forest", 2008).
fn average_path_length(samples: f64) -> f64 {
    if samples <= 1.0 {
        0.0
    } else if samples == 2.0 {
        1.0
    } else {
        2.0 * ((samples - 1.0).ln() + std::f64::consts::EULER_GAMMA) - 2.0 * (samples - 1.0) / samples
    }
}

impl Isolation {
    /// Rows as the trees see them. Those of sparse rows compare with NaN, which is greater than nothing, and go on to
    /// the right, where the greatest number would go, too.
    fn seen<'a>(&self, rows: &'a Data) -> Result<Cow<'a, Matrix>> {
        if !self.any_number {
            return seen(rows, false);
        }
        let mut dense = rows.dense()?;
        if matches!(rows, Data::Sparse(_)) {
            let missing = dense.to_mut().values.iter_mut().filter(|value| value.is_nan());
            missing.for_each(|value| *value = f64::INFINITY);
        }
        Ok(dense)
    }

    fn decisions(&self, rows: &Data) -> Result<Vec<f64>> {
        let rows = self.seen(rows)?;
        let depths = self.forest.sums(&rows.values, &[0.0])?;
        let share = |depth: f64| if self.scale == 0.0 { 1.0 } else { depth / self.scale };
        Ok(depths.into_iter().map(|depth| -(-share(depth)).exp2() - self.offset).collect())
    }
}

impl Estimator for Isolation {
    fn visit_forests(&mut self, visit: &mut dyn FnMut(&mut Forest) -> Result<()>) -> Result<()> {
        visit(&mut self.forest)
    }

    fn can(&self, method: Method) -> bool {
        matches!(method, Method::Predict | Method::DecisionFunction | Method::Contributions)
    }

    /// Of the mean depth: the less, the more of an outlier.
    fn contributions(&self, rows: &Data) -> Result<Contributions> {
        let rows = self.seen(rows)?;
        let mut parts = self.forest.explain(&rows, &[0.0])?;
        parts.values.iter_mut().for_each(|value| *value /= self.forest.trees().max(1) as f64);
        Ok(parts)
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let inliers = self.decisions(rows)?.into_iter().map(|score| if score < 0.0 { -1 } else { 1 });
        Ok(Target::one(Labels::Int(inliers.collect(), DType::Int64)))
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        let decisions = self.decisions(rows)?;
        Ok(Matrix::new(decisions.len(), 1, decisions))
    }

    fn features(&self) -> Option<usize> {
        Some(self.forest.features())
    }
}

/// The leaves that a row falls into, one-hot encoded.
struct Embedding {
    /// Trees whose leaves say their own number, each to an output of its own.
    forest: Forest,
    encoder: Box<dyn Estimator>,
    knows_missing: bool,
}

fn embedding(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let features = node.read("n_features_in_", Node::usize)?;
    let mut trees = Vec::new();
    let mut knows_missing = true;
    for (number, member) in Member::all(node)?.into_iter().enumerate() {
        let read = member.node.read("tree_", read_tree);
        let mut read = read.map_err(|error| error.context(format_args!("tree {number}")))?;
        let leaves = read.tree.nodes.iter().enumerate().filter(|(_, node)| matches!(node.kind, Kind::Leaf { .. }));
        read.tree.leaves = leaves.map(|(id, _)| id as f64).collect();
        knows_missing &= read.knows_missing;
        trees.push((read.tree, number));
    }
    let encoder = node.read("one_hot_encoder_", |encoder| builder.build(encoder))?;
    if encoder.features() != Some(trees.len()) {
        return Err(Error::load(format!("one_hot_encoder_ is not of {} trees", trees.len())));
    }
    let grown = Grown { features, outputs: trees.len(), width: 1, input: InputPrecision::Single, trees };
    Ok(Box::new(Embedding { forest: Forest::compile(grown)?, encoder, knows_missing }))
}

impl Estimator for Embedding {
    fn visit_forests(&mut self, visit: &mut dyn FnMut(&mut Forest) -> Result<()>) -> Result<()> {
        visit(&mut self.forest)
    }

    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let rows = seen(rows, self.knows_missing)?;
        let trees = self.forest.outputs();
        let leaves = self.forest.sums(&rows.values, &vec![0.0; trees])?;
        self.encoder.transform(&Data::Dense(Matrix::new(rows.rows, trees, leaves)))
    }

    fn names_out(&self, _names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        let trees = (0..self.forest.outputs()).map(|tree| format!("randomtreesembedding_{tree}").into());
        self.encoder.names_out(&trees.collect::<Vec<_>>())
    }

    fn features(&self) -> Option<usize> {
        Some(self.forest.features())
    }
}
