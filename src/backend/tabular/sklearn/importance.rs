//! How much each column counts in a fitted estimator: `coef_`, or `feature_importances_`, which scikit-learn works out
//! of the trees and does not save.

use crate::backend::tabular::estimator::unsupported;
use crate::error::{Error, Result};
use crate::formats::graph::Node;

/// scikit-learn's `_get_feature_importances`, where coefficients of several outputs are brought to one number by a norm
/// of this order.
///
/// # Errors
/// When the estimator has no importances, or they would have to be asked of another library.
pub fn importances(estimator: Node<'_>, getter: &str, order: f64) -> Result<Vec<f64>> {
    match getter {
        "auto" if estimator.find("coef_").is_some() => coefficients(estimator, order),
        "coef_" => coefficients(estimator, order),
        "auto" | "feature_importances_" => Ok(of_trees(estimator)?.into_iter().map(f64::abs).collect()),
        other => Err(unsupported("importance_getter", other)),
    }
}

fn coefficients(estimator: Node<'_>, order: f64) -> Result<Vec<f64>> {
    let numbers = estimator.read("coef_", Node::numbers)?;
    let flat = numbers.shape.len() < 2;
    let (rows, columns, values) = numbers.matrix()?;
    let column = |column: usize| (0..rows).map(move |row| row * columns + column).map(|at| values[at].abs());
    let norm = |place: usize| {
        let values = column(place);
        if flat || order == 1.0 {
            values.sum::<f64>()
        } else if order == f64::INFINITY {
            values.fold(0.0, f64::max)
        } else if order == f64::NEG_INFINITY {
            values.fold(f64::INFINITY, f64::min)
        } else if order == 0.0 {
            values.filter(|value| *value != 0.0).count() as f64
        } else if order == 2.0 {
            values.map(|value| value * value).sum::<f64>().sqrt()
        } else {
            values.map(|value| value.powf(order)).sum::<f64>().powf(1.0 / order)
        }
    };
    Ok((0..columns).map(norm).collect())
}

/// `feature_importances_` of trees, forests and gradient boosting.
fn of_trees(estimator: Node<'_>) -> Result<Vec<f64>> {
    let class = estimator.class().map_or("", |class| &*class.name);
    let features = estimator.read("n_features_in_", Node::usize)?;
    match class {
        "DecisionTreeClassifier" | "DecisionTreeRegressor" | "ExtraTreeClassifier" | "ExtraTreeRegressor" => {
            Ok(of_tree(estimator, features)?.map_or_else(|| vec![0.0; features], normalised))
        }
        "RandomForestClassifier" | "RandomForestRegressor" | "ExtraTreesClassifier" | "ExtraTreesRegressor" => {
            let trees = estimator.read("estimators_", Node::items)?;
            mean(trees.map(|tree| Ok(of_tree(tree, features)?.map(normalised))), features)
        }
        "GradientBoostingClassifier" | "GradientBoostingRegressor" => {
            let trees = estimator.read("estimators_", Node::items)?;
            mean(trees.map(|tree| of_tree(tree, features)), features)
        }
        "AdaBoostClassifier" | "AdaBoostRegressor" => {
            let weights = estimator.read("estimator_weights_", |node| node.numbers()?.vector(None))?;
            let norm: f64 = weights.iter().sum();
            let mut sums = vec![0.0; features];
            for (tree, weight) in estimator.read("estimators_", Node::items)?.zip(&weights) {
                let importances = of_tree(tree, features)?.map_or_else(|| vec![0.0; features], normalised);
                sums.iter_mut().zip(importances).for_each(|(sum, importance)| *sum += weight * importance);
            }
            sums.iter_mut().for_each(|sum| *sum /= norm);
            Ok(sums)
        }
        _ => Err(Error::load(format!("feature_importances_ of {class} are not supported"))),
    }
}

/// The mean of those trees that split, brought to a sum of 1.
fn mean(trees: impl Iterator<Item = Result<Option<Vec<f64>>>>, features: usize) -> Result<Vec<f64>> {
    let mut sums = vec![0.0; features];
    let mut count = 0.0;
    for tree in trees {
        let Some(importances) = tree? else { continue };
        sums.iter_mut().zip(importances).for_each(|(sum, importance)| *sum += importance);
        count += 1.0;
    }
    if count > 0.0 {
        sums.iter_mut().for_each(|sum| *sum /= count);
        let total: f64 = sums.iter().sum();
        sums.iter_mut().for_each(|sum| *sum /= total);
    }
    Ok(sums)
}

fn normalised(mut importances: Vec<f64>) -> Vec<f64> {
    let total: f64 = importances.iter().sum();
    if total > 0.0 {
        importances.iter_mut().for_each(|importance| *importance /= total);
    }
    importances
}

/// By how much the splits on each column lessen the impurity, for a sample; `None` when the tree is one leaf.
fn of_tree(estimator: Node<'_>, features: usize) -> Result<Option<Vec<f64>>> {
    let tree = estimator.attr("tree_")?;
    let state = tree.object()?.state.map(|state| tree.at(state)).ok_or_else(|| tree.expected("a fitted tree"))?;
    let nodes = state.read("nodes", Node::array)?;
    let field = |name: &str| nodes.field(name)?.ok_or_else(|| Error::load(format!("nodes have no field \"{name}\"")));
    let (lefts, rights, columns) = (field("left_child")?, field("right_child")?, field("feature")?);
    let (samples, impurities) = (field("weighted_n_node_samples")?, field("impurity")?);
    if lefts.len() < 2 {
        return Ok(None);
    }
    let mut importances = vec![0.0; features];
    for id in (0..lefts.len()).filter(|id| lefts[*id] >= 0.0) {
        let (left, right) = (lefts[id] as usize, rights[id] as usize);
        let column = importances.get_mut(columns[id] as usize);
        let Some(column) = column.filter(|_| left.max(right) < lefts.len() && columns[id] >= 0.0) else {
            return Err(Error::load(format!("node {id} refers to what is not there")));
        };
        *column += samples[id] * impurities[id] - samples[left] * impurities[left] - samples[right] * impurities[right];
    }
    importances.iter_mut().for_each(|importance| *importance /= samples[0]);
    Ok(Some(importances))
}
