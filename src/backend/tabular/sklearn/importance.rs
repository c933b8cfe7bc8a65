//! How much each column counts in a fitted estimator: `coef_`, or `feature_importances_`, which the libraries work out
//! of the trees and do not save.

use super::importance_boosters;
use crate::backend::tabular::estimator::unsupported;
use crate::error::{Error, Result};
use crate::formats::graph::{Name, Node};

/// One number for each column.
pub struct Importances {
    pub values: Vec<f64>,
    /// They are `f32`, and so is what numpy works out of them.
    pub single: bool,
}

impl Importances {
    pub fn round(&self, value: f64) -> f64 {
        if self.single { f64::from(value as f32) } else { value }
    }

    pub fn mean(&self) -> f64 {
        self.round(self.sum(&self.values) / self.values.len() as f64)
    }

    /// In numpy's order, which decides where all columns count alike.
    pub fn sum(&self, values: &[f64]) -> f64 {
        const LANES: usize = 8;
        const BLOCK: usize = 128;
        let add = |sum: f64, value: &f64| self.round(sum + value);
        if values.len() > BLOCK {
            let half = values.len() / 2;
            let (first, second) = values.split_at(half - half % LANES);
            return add(self.sum(first), &self.sum(second));
        }
        let (chunks, rest) = values.as_chunks::<LANES>();
        let Some((first, chunks)) = chunks.split_first() else { return rest.iter().fold(0.0, add) };
        let mut lanes = *first;
        for chunk in chunks {
            lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane = add(*lane, value));
        }
        let [a, b, c, d, e, f, g, h] = lanes;
        let sum = add(add(add(a, &b), &add(c, &d)), &add(add(e, &f), &add(g, &h)));
        rest.iter().fold(sum, add)
    }
}

/// scikit-learn's `_get_feature_importances`, where coefficients of several outputs are brought to one number by a norm
/// of this order.
///
/// # Errors
/// When the estimator has no importances, or they are not computed here.
pub fn importances(estimator: Node<'_>, getter: &str, order: f64) -> Result<Importances> {
    let package = estimator.class().map_or("", Name::package);
    let mut importances = match (getter, package) {
        ("auto" | "feature_importances_", "xgboost") => importance_boosters::of_xgboost(estimator)?,
        ("auto" | "feature_importances_", "lightgbm") => importance_boosters::of_lightgbm(estimator)?,
        ("auto", _) if estimator.find("coef_").is_some() => double(coefficients(estimator, order)?),
        ("auto" | "feature_importances_", _) => double(of_trees(estimator)?),
        ("coef_", package) if package != "xgboost" => double(coefficients(estimator, order)?),
        _ => return Err(unsupported("importance_getter", getter)),
    };
    importances.values.iter_mut().for_each(|value| *value = value.abs());
    Ok(importances)
}

fn double(values: Vec<f64>) -> Importances {
    Importances { values, single: false }
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
    let features = estimator.read("n_features_in_", Node::usize);
    match class {
        "DecisionTreeClassifier" | "DecisionTreeRegressor" | "ExtraTreeClassifier" | "ExtraTreeRegressor" => {
            let features = features?;
            Ok(of_tree(estimator, features)?.map_or_else(|| vec![0.0; features], normalised))
        }
        "RandomForestClassifier" | "RandomForestRegressor" | "ExtraTreesClassifier" | "ExtraTreesRegressor" => {
            let (features, trees) = (features?, estimator.read("estimators_", Node::items)?);
            mean(trees.map(|tree| Ok(of_tree(tree, features)?.map(normalised))), features)
        }
        "GradientBoostingClassifier" | "GradientBoostingRegressor" => {
            let (features, trees) = (features?, estimator.read("estimators_", Node::items)?);
            mean(trees.map(|tree| of_tree(tree, features)), features)
        }
        "AdaBoostClassifier" | "AdaBoostRegressor" => {
            let features = features?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Against numpy's; added one after the other, all of them would be others.
    #[test]
    fn sums_are_numpys() {
        for (count, single, double) in [
            (9, 1.519_877_4_f32, 1.519_877_344_877_344_6),
            (20, 2.190_813_3, 2.190_813_250_217_275),
            (129, 3.956_225_4, 3.956_224_926_052_236),
            (300, 4.789_297_6, 4.789_297_397_713_862),
        ] {
            let values: Vec<f64> = (3..count + 3).map(|n| 1.0 / f64::from(n)).collect();
            let singles: Vec<f64> = values.iter().map(|value| f64::from(*value as f32)).collect();
            let sum = |single: bool, values: &[f64]| Importances { values: Vec::new(), single }.sum(values);
            assert_eq!((sum(true, &singles) as f32, sum(false, &values)), (single, double), "{count}");
        }
    }
}
