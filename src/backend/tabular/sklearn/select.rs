//! Transformers that keep some of the columns. Which ones is worked out when the model is read.

use std::sync::Arc;

use super::importance::{Importances, importances};
use super::read;
use crate::backend::tabular::data::{Data, Matrix, Target};
use crate::backend::tabular::estimator::{Build, Builder, Contributions, Estimator, Method, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::{Node, Value};

pub const CLASSES: &[(&str, Build)] = &[
    ("SelectKBest", univariate),
    ("SelectPercentile", univariate),
    ("SelectFpr", univariate),
    ("SelectFdr", univariate),
    ("SelectFwe", univariate),
    ("GenericUnivariateSelect", univariate),
    ("VarianceThreshold", variance),
    ("SelectFromModel", from_model),
    ("RFE", elimination),
    ("RFECV", elimination),
    ("SequentialFeatureSelector", sequential),
];

struct Selector {
    features: usize,
    kept: Vec<usize>,
    takes_missing: bool,
}

impl Selector {
    fn new(mask: &[bool], takes_missing: bool) -> Selector {
        let kept = (0..mask.len()).filter(|column| mask[*column]).collect();
        Selector { features: mask.len(), kept, takes_missing }
    }
}

impl Estimator for Selector {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        match rows {
            Data::Dense(matrix) | Data::Typed(matrix, _) if self.takes_missing => matrix.check_not_infinite()?,
            _ if self.takes_missing => {}
            rows => rows.check_finite()?,
        }
        Ok(rows.select(&self.kept))
    }

    fn can_invert(&self) -> bool {
        true
    }

    fn inverse_transform(&self, rows: &Matrix) -> Result<Matrix> {
        rows.check_columns(self.kept.len())?;
        let mut out = Matrix { single: rows.single, ..Matrix::zeros(rows.rows, self.features) };
        for (place, row) in rows.iter_rows().enumerate() {
            let target = out.row_mut(place);
            self.kept.iter().zip(row).for_each(|(column, value)| target[*column] = *value);
        }
        Ok(out)
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        Some(self.kept.iter().map(|column| names[*column].clone()).collect())
    }

    fn passes(&self, column: usize) -> Option<usize> {
        self.kept.binary_search(&column).ok()
    }

    fn features(&self) -> Option<usize> {
        Some(self.features)
    }
}

fn univariate(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let class = node.class().map_or("", |class| &*class.name);
    let (mode, option) = match class {
        "SelectKBest" => ("k_best", "k"),
        "SelectPercentile" => ("percentile", "percentile"),
        "SelectFpr" => ("fpr", "alpha"),
        "SelectFdr" => ("fdr", "alpha"),
        "SelectFwe" => ("fwe", "alpha"),
        _ => (node.read("mode", Node::text)?, "param"),
    };
    let scores = || node.read("scores_", |node| node.numbers()?.vector(None));
    let p_values = || node.read("pvalues_", |node| node.numbers()?.vector(None));
    let option = node.attr(option)?;
    let mask = match mode {
        "k_best" if option.text().is_ok_and(|text| text == "all") => vec![true; scores()?.len()],
        "k_best" => best(&clean(scores()?), option.usize()?),
        "percentile" => percentile(&clean(scores()?), option.float()?),
        "fpr" => {
            let alpha = option.float()?;
            p_values()?.iter().map(|p| *p < alpha).collect()
        }
        "fdr" => false_discovery(&p_values()?, option.float()?),
        "fwe" => {
            let p_values = p_values()?;
            let alpha = option.float()? / p_values.len() as f64;
            p_values.iter().map(|p| *p < alpha).collect()
        }
        other => return Err(unsupported("mode", other)),
    };
    Ok(Box::new(Selector::new(&mask, false)))
}

/// NaN counts less than any score.
fn clean(mut scores: Vec<f64>) -> Vec<f64> {
    scores.iter_mut().filter(|score| score.is_nan()).for_each(|score| *score = f64::MIN);
    scores
}

/// The `count` greatest; the last of equals.
fn best(scores: &[f64], count: usize) -> Vec<bool> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|one, other| scores[*one].total_cmp(&scores[*other]));
    let mut mask = vec![false; scores.len()];
    order.iter().rev().take(count).for_each(|column| mask[*column] = true);
    mask
}

/// Those above the percentile, and as many of the first at it as there is place for.
fn percentile(scores: &[f64], percent: f64) -> Vec<bool> {
    if percent >= 100.0 || scores.is_empty() {
        return vec![true; scores.len()];
    }
    if percent <= 0.0 {
        return vec![false; scores.len()];
    }
    let threshold = quantile(scores, (100.0 - percent) / 100.0);
    let mut mask: Vec<bool> = scores.iter().map(|score| *score > threshold).collect();
    let most = (scores.len() as f64 * percent / 100.0) as usize;
    let free = most.saturating_sub(mask.iter().filter(|kept| **kept).count());
    let ties: Vec<usize> = (0..scores.len()).filter(|column| scores[*column] == threshold).take(free).collect();
    ties.into_iter().for_each(|column| mask[column] = true);
    mask
}

/// `np.quantile`, linear between its neighbours.
fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = q * (sorted.len() - 1) as f64;
    let (below, part) = (at.floor(), at - at.floor());
    let low = sorted[below as usize];
    let high = sorted[(below as usize + 1).min(sorted.len() - 1)];
    if part < 0.5 { low + (high - low) * part } else { high - (high - low) * (1.0 - part) }
}

/// Benjamini and Hochberg's procedure.
fn false_discovery(p_values: &[f64], alpha: f64) -> Vec<bool> {
    let mut sorted = p_values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = p_values.len() as f64;
    let within = sorted.iter().enumerate().filter(|(rank, p)| **p <= alpha / count * (rank + 1) as f64);
    match within.map(|(_, p)| *p).next_back() {
        None => vec![false; p_values.len()],
        Some(most) => p_values.iter().map(|p| *p <= most).collect(),
    }
}

fn variance(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let threshold = node.read("threshold", Node::float)?;
    let variances = node.read("variances_", |node| node.numbers()?.vector(None))?;
    let mask: Vec<bool> = variances.iter().map(|variance| *variance > threshold).collect();
    Ok(Box::new(Selector::new(&mask, true)))
}

fn read_support(node: Node<'_>) -> Result<Vec<bool>> {
    let support = node.read("support_", |node| node.numbers()?.vector(None))?;
    Ok(support.into_iter().map(|kept| kept != 0.0).collect())
}

fn sequential(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    Ok(Box::new(Selector::new(&read_support(node)?, takes_missing(node.attr("estimator")?))))
}

/// Whether this estimator knows NaN, so that those that select columns for it let it through.
fn takes_missing(estimator: Node<'_>) -> bool {
    let class = estimator.class().map_or("", |class| &*class.name);
    ["Tree", "Forest", "HistGradientBoosting", "XGB", "LGBM"].iter().any(|part| class.contains(part))
}

/// Columns whose importance reaches a threshold, or the most important ones.
fn from_model(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let estimator = node.some("estimator_").map_or_else(|| node.attr("estimator"), Ok)?;
    let order = node.read("norm_order", Node::float)?;
    let getter = node.read("importance_getter", |getter| {
        getter.text().map_err(|_| unsupported("importance_getter", "a function"))
    })?;
    let scores = importances(estimator, getter, order).map_err(|error| error.context("estimator_"))?;
    let threshold = threshold(node, estimator, &scores)?;
    let scores = scores.values;
    let mut mask = vec![true; scores.len()];
    if let Some(given) = read::option(node, "max_features", Ok)? {
        let most = node.some("max_features_").unwrap_or(given);
        let most = most.usize().map_err(|error| error.context("max_features"))?;
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|one, other| scores[*other].total_cmp(&scores[*one]));
        mask.fill(false);
        order.into_iter().take(most).for_each(|column| mask[column] = true);
    }
    mask.iter_mut().zip(&scores).filter(|(_, score)| **score < threshold).for_each(|(kept, _)| *kept = false);
    Ok(Box::new(Selector::new(&mask, takes_missing(estimator))))
}

fn threshold(node: Node<'_>, estimator: Node<'_>, scores: &Importances) -> Result<f64> {
    let named = |name: &str| match name {
        "mean" => Ok(scores.mean()),
        "median" if !scores.values.is_empty() => Ok(scores.round(quantile(&scores.values, 0.5))),
        other => Err(unsupported("threshold", other)),
    };
    let given = node.attr("threshold")?;
    match given.value() {
        Value::None if prefers_few(node, estimator) => Ok(1e-5),
        Value::None => Ok(scores.mean()),
        Value::Text(text) => match text.split_once('*') {
            Some((scale, name)) => {
                let scale: f64 = scale.trim().parse().map_err(|_| unsupported("threshold", text))?;
                Ok(scores.round(scores.round(scale) * named(name.trim())?))
            }
            None => named(text),
        },
        _ => given.float().map(|given| scores.round(given)).map_err(|error| error.context("threshold")),
    }
}

/// Whether the estimator makes coefficients zero by itself, which versions saw differently.
fn prefers_few(node: Node<'_>, estimator: Node<'_>) -> bool {
    let version = read::version(node);
    let class = estimator.class().map_or("", |class| &*class.name);
    let near_one = |name: &str| {
        let ratios = estimator.some(name).and_then(|ratio| ratio.numbers().ok());
        ratios.is_some_and(|ratios| ratios.values.iter().all(|ratio| (ratio - 1.0).abs() <= 1e-5 + 1e-8))
    };
    if class.contains("Lasso") || estimator.some("penalty").is_some_and(|it| it.text().is_ok_and(|it| it == "l1")) {
        return true;
    }
    match class {
        "ElasticNet" | "MultiTaskElasticNet" if version >= (1, 1) => near_one("l1_ratio"),
        "ElasticNetCV" | "MultiTaskElasticNetCV" if version >= (1, 1) => near_one("l1_ratio_"),
        "LogisticRegression" if version >= (1, 8) => near_one("l1_ratio"),
        "LogisticRegressionCV" if version >= (1, 8) => near_one("l1_ratio_"),
        _ => false,
    }
}

/// The columns that were left, and the estimator that was fitted with them.
struct Elimination {
    selector: Selector,
    estimator: Box<dyn Estimator>,
}

fn elimination(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let inner = node.attr("estimator_")?;
    let selector = Selector::new(&read_support(node)?, takes_missing(inner));
    let estimator = builder.build(inner).map_err(|error| error.context("estimator_"))?;
    if estimator.features().is_some_and(|features| features != selector.kept.len()) {
        return Err(Error::load("support_ does not fit estimator_"));
    }
    Ok(Box::new(Elimination { selector, estimator }))
}

impl Estimator for Elimination {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform || self.estimator.can(method)
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        self.estimator.predict(&self.selector.transform(rows)?)
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        self.estimator.predict_proba(&self.selector.transform(rows)?)
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        self.estimator.decision_function(&self.selector.transform(rows)?)
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        self.selector.transform(rows)
    }

    fn can_invert(&self) -> bool {
        true
    }

    fn inverse_transform(&self, rows: &Matrix) -> Result<Matrix> {
        self.selector.inverse_transform(rows)
    }

    fn contributions(&self, rows: &Data) -> Result<Contributions> {
        self.estimator.contributions(&self.selector.transform(rows)?)
    }

    fn explained_outputs(&self) -> usize {
        self.estimator.explained_outputs()
    }

    fn explained(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        self.estimator.explained(&self.selector.names_out(names)?)
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        self.selector.names_out(names)
    }

    fn passes(&self, column: usize) -> Option<usize> {
        self.selector.passes(column)
    }

    fn features(&self) -> Option<usize> {
        Some(self.selector.features)
    }
}
