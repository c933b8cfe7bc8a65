//! `feature_importances_` of xgboost's and lightgbm's classes.

use super::importance::Importances;
use super::read;
use crate::backend::tabular::estimator::unsupported;
use crate::backend::tabular::{lightgbm, xgboost};
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::formats::trees::{Kind, Tree};
use crate::formats::xgboost::{Booster, Target};

/// xgboost's `get_score`, in its order and in `f32`, brought to a sum of 1.
///
/// # Errors
/// When it is no booster of trees, or the file does not say how much its splits gained.
pub fn of_xgboost(estimator: Node<'_>) -> Result<Importances> {
    let model = estimator.read("_Booster", xgboost::read_pickled)?;
    let kind = read::option(estimator, "importance_type", Node::text)?.unwrap_or("gain");
    let Booster::Forest(forest) = &model.booster else { return Err(unsupported("booster", "gblinear")) };
    let (of_gain, averaged) = match kind {
        "weight" => (None, false),
        "gain" => (Some(true), true),
        "total_gain" => (Some(true), false),
        "cover" => (Some(false), true),
        "total_cover" => (Some(false), false),
        other => return Err(unsupported("importance_type", other)),
    };
    let (mut sums, mut counts) = (vec![0.0_f32; model.features], vec![0.0_f32; model.features]);
    for grown in &forest.trees {
        if grown.target == Target::All {
            return Err(unsupported("multi_strategy", "multi_output_tree"));
        }
        let mut open = vec![0_u32];
        while let Some(id) = open.pop() {
            let node = &grown.tree.nodes[id as usize];
            let Kind::Split { feature, left, right, .. } = node.kind else { continue };
            counts[feature as usize] += 1.0;
            sums[feature as usize] += match of_gain {
                None => 1.0,
                Some(true) => gain(&grown.tree, id)?,
                Some(false) => node.cover as f32,
            };
            open.extend([left, right]);
        }
    }
    if averaged {
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum /= count.max(1.0));
    }
    let mut scores = Importances { values: sums.into_iter().map(f64::from).collect(), single: true };
    let total = scores.sum(&scores.values);
    if total != 0.0 {
        scores.values = scores.values.iter().map(|value| scores.round(value / total)).collect();
    }
    Ok(scores)
}

fn gain(tree: &Tree, id: u32) -> Result<f32> {
    let missing = || Error::load("the file does not say how much its splits gained (loss_changes)");
    tree.gains.get(id as usize).copied().ok_or_else(missing)
}

/// lightgbm's `feature_importance`: how many splits gained anything, or how much together.
///
/// # Errors
/// When the importance is of another type.
pub fn of_lightgbm(estimator: Node<'_>) -> Result<Importances> {
    let model = estimator.read("_Booster", lightgbm::read_pickled)?;
    let of_gain = match read::option(estimator, "importance_type", Node::text)?.unwrap_or("split") {
        "split" => false,
        "gain" => true,
        other => return Err(unsupported("importance_type", other)),
    };
    let mut values = vec![0.0; model.features];
    for tree in &model.trees {
        for (node, gain) in tree.nodes.iter().zip(&tree.gains) {
            if let (Kind::Split { feature, .. }, true) = (&node.kind, *gain > 0.0) {
                values[*feature as usize] += if of_gain { f64::from(*gain) } else { 1.0 };
            }
        }
    }
    Ok(Importances { values, single: false })
}
