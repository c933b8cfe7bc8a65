//! Isolation forests: how soon random splits set a row apart.

use super::members::Member;
use super::read;
use super::trees::{ReadTree, check, read_tree};
use crate::backend::tabular::data::{Data, Labels, Matrix, Target};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method};
use crate::backend::tabular::forest::{Forest, Grown, InputPrecision};
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::formats::trees::{Kind, Tree};
use crate::tensor::DType;

pub const CLASSES: &[(&str, Build)] = &[("IsolationForest", isolation)];

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
    fn decisions(&self, rows: &Data) -> Result<Vec<f64>> {
        let rows = rows.dense()?;
        if !self.any_number {
            check(&rows, false)?;
        }
        let depths = self.forest.sums(&rows.values, &[0.0]);
        let share = |depth: f64| if self.scale == 0.0 { 1.0 } else { depth / self.scale };
        Ok(depths.into_iter().map(|depth| -(-share(depth)).exp2() - self.offset).collect())
    }
}

impl Estimator for Isolation {
    fn can(&self, method: Method) -> bool {
        matches!(method, Method::Predict | Method::DecisionFunction)
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
