//! The slow and obvious way to compute what trees say, for tests: walks one row down one tree at a time, in the order
//! and precision of the libraries, and is held against their answers (`tests/tabular`). What is fast is then held
//! against this.

// Numbers in tests are small, or the cast is what is meant.
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss, clippy::float_cmp)]

pub mod fixtures;
mod lightgbm;
mod xgboost;

use super::trees::{Categories, Kind, LinearLeaf, Missing, Test, Tree, ZERO};
use super::{lightgbm as lgb, xgboost as xgb};

/// The index of the leaf that the row falls into.
pub fn leaf(tree: &Tree, row: &[f64]) -> usize {
    let mut at = 0;
    loop {
        match &tree.nodes[at as usize].kind {
            Kind::Leaf { index } => return *index as usize,
            // Columns that are not there are missing.
            Kind::Split { feature, test, left, right } => {
                let value = row.get(*feature as usize).copied().unwrap_or(f64::NAN);
                at = if goes_left(test, value) { *left } else { *right };
            }
        }
    }
}

fn goes_left(test: &Test, value: f64) -> bool {
    match test {
        Test::AtMost { threshold, missing, missing_left } => match missing {
            Missing::NanIsZero => (if value.is_nan() { 0.0 } else { value }) <= *threshold,
            Missing::Nan if value.is_nan() => *missing_left,
            Missing::NanAndZero if value.is_nan() || value.abs() <= ZERO => *missing_left,
            _ => value <= *threshold,
        },
        Test::Category(categories) => category_goes_left(categories, value),
    }
}

fn category_goes_left(categories: &Categories, value: f64) -> bool {
    if value.is_nan() {
        return categories.nan_left;
    }
    let known = value >= 0.0 || (categories.toward_zero && value > -1.0);
    // Beyond what an integer holds is beyond all words, too.
    let category = if known { value as u64 } else { u64::MAX };
    match categories.left.get((category / 64) as usize) {
        Some(word) => word >> (category % 64) & 1 == 1,
        None => categories.others_left,
    }
}

/// What lightgbm's linear leaf says, `constant` first and then term by term.
fn linear(leaf: &LinearLeaf, row: &[f64]) -> f64 {
    let value = |feature: u32| row[feature as usize];
    if leaf.terms.iter().any(|(feature, _)| value(*feature).is_nan()) {
        return leaf.fallback;
    }
    leaf.terms.iter().fold(leaf.constant, |sum, (feature, coefficient)| sum + coefficient * value(*feature))
}

/// Margins of one row by xgboost's first `trees` trees. The row is of `f32`, as xgboost sees it.
pub fn xgboost_margins(model: &xgb::Model, trees: usize, row: &[f32]) -> Vec<f32> {
    let base = model.base_margins();
    match &model.booster {
        xgb::Booster::Forest(forest) => {
            let wide: Vec<f64> = row.iter().copied().map(f64::from).collect();
            let mut margins = base;
            for (index, grown) in forest.trees.iter().take(trees).enumerate() {
                let leaf = leaf(&grown.tree, &wide);
                match grown.target {
                    xgb::Target::Output(output) => {
                        let value = grown.tree.leaves[leaf] as f32;
                        margins[output] += forest.weights.as_ref().map_or(value, |weights| value * weights[index]);
                    }
                    xgb::Target::All => {
                        let values = &grown.tree.leaves[leaf * margins.len()..];
                        margins.iter_mut().zip(values).for_each(|(margin, value)| *margin += *value as f32);
                    }
                }
            }
            margins
        }
        xgb::Booster::Linear(linear) => (0..model.outputs)
            .map(|output| {
                let weights = linear.weights.iter().skip(output).step_by(model.outputs);
                let present = row.iter().zip(weights).filter(|(value, _)| !value.is_nan());
                present.fold(linear.bias[output] + base[0], |sum, (value, weight)| sum + value * weight)
            })
            .collect(),
    }
}

/// Raw scores of one row by lightgbm: the sums, and the leaf of each tree.
pub fn lightgbm_scores(model: &lgb::Model, row: &[f64]) -> (Vec<f64>, Vec<usize>) {
    let row: Vec<f64> = row.iter().map(|value| if value.abs() <= ZERO { 0.0 } else { *value }).collect();
    let mut scores = vec![0.0; model.trees_per_iteration];
    let mut leaves = Vec::new();
    let complete = model.iterations() * model.trees_per_iteration;
    for (index, tree) in model.trees.iter().take(complete).enumerate() {
        let leaf = leaf(tree, &row);
        scores[index % model.trees_per_iteration] +=
            tree.linear.get(leaf).map_or(tree.leaves[leaf], |leaf| linear(leaf, &row));
        leaves.push(leaf);
    }
    (scores, leaves)
}

/// What each feature contributes to a tree's leaf values, of which leaf vectors have only the first, and at last the
/// tree's expectation: Shapley values by their definition, over all sets of features. The value of a set is the
/// expectation when only its features are known, the others sending a row both ways as training rows went.
pub fn contributions(tree: &Tree, features: usize, row: &[f64]) -> Vec<f64> {
    let expected: Vec<f64> = (0..1_u32 << features).map(|known| expectation(tree, 0, known, row)).collect();
    let factorial = |number: u32| (1..=number).map(f64::from).product::<f64>();
    let count = features as u32;
    let mut contributions: Vec<f64> = (0..features)
        .map(|feature| {
            let without = (0..1_u32 << features).filter(|known| known >> feature & 1 == 0);
            let gain = |known: u32| {
                let size = known.count_ones();
                let weight = factorial(size) * factorial(count - size - 1) / factorial(count);
                weight * (expected[(known | 1 << feature) as usize] - expected[known as usize])
            };
            without.map(gain).sum()
        })
        .collect();
    contributions.push(expected[0]);
    contributions
}

fn expectation(tree: &Tree, at: u32, known: u32, row: &[f64]) -> f64 {
    let node = &tree.nodes[at as usize];
    match &node.kind {
        Kind::Leaf { index } => tree.leaves[*index as usize],
        Kind::Split { feature, test, left, right } if known >> feature & 1 == 1 => {
            expectation(tree, if goes_left(test, row[*feature as usize]) { *left } else { *right }, known, row)
        }
        Kind::Split { left, right, .. } => {
            let share = |child: u32| tree.nodes[child as usize].cover * expectation(tree, child, known, row);
            (share(*left) + share(*right)) / node.cover
        }
    }
}
