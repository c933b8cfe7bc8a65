//! `IterativeImputer`: each column from the others, round after round.

use std::sync::Arc;

use super::impute::{Missing, MissingIndicator};
use super::read;
use crate::backend::tabular::data::{Data, Matrix};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::{Array, Node};

pub const CLASSES: &[(&str, Build)] = &[("IterativeImputer", iterative)];

/// Predicts a column's missing values from others.
struct Step {
    column: usize,
    others: Vec<usize>,
    least: f64,
    most: f64,
    estimator: Box<dyn Estimator>,
}

struct IterativeImputer {
    missing: Missing,
    features: usize,
    /// Columns that are kept: those that had values, or all.
    kept: Vec<usize>,
    /// Of the kept ones, those that had no values, which stay as they were filled at first.
    empty: Vec<bool>,
    initial: Box<dyn Estimator>,
    steps: Vec<Step>,
    indicator: Option<MissingIndicator>,
}

fn iterative(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    if node.read("sample_posterior", Node::bool)? {
        return Err(unsupported("sample_posterior", "True"));
    }
    let features = node.read("n_features_in_", Node::usize)?;
    let initial = node.attr("initial_imputer_")?;
    // Until 1.5 columns were empty when they had no mean (or whatever they were first filled with).
    let of_features = |node: Node<'_>| node.numbers()?.vector(Some(features));
    let empty: Vec<bool> = match read::option_since((1, 6), node, "_is_empty_feature", of_features)? {
        Some(empty) => empty.into_iter().map(|empty| empty != 0.0).collect(),
        None => initial.read("statistics_", of_features)?.into_iter().map(f64::is_nan).collect(),
    };
    let keeps = read::option_since((1, 2), node, "keep_empty_features", Node::bool)? == Some(true);
    let kept: Vec<usize> = (0..features).filter(|column| keeps || !empty[*column]).collect();
    // Without rounds, as of one feature, it fills once and knows no limits.
    let steps = if node.read("n_iter_", Node::usize)? == 0 { Vec::new() } else { steps(node, kept.len(), builder)? };
    Ok(Box::new(IterativeImputer {
        missing: Missing::read(node)?,
        features,
        empty: kept.iter().map(|column| empty[*column]).collect(),
        kept,
        initial: builder.build(initial).map_err(|error| error.context("initial_imputer_"))?,
        steps,
        indicator: MissingIndicator::added(node, features)?,
    }))
}

/// What is done in all rounds, to so many columns.
fn steps(node: Node<'_>, columns: usize, builder: &mut Builder) -> Result<Vec<Step>> {
    let limit = |name: &str| node.read(name, |node| node.numbers()?.vector(None));
    let (least, most) = (limit("_min_value")?, limit("_max_value")?);
    let mut steps = Vec::new();
    for (number, step) in node.read("imputation_sequence_", Node::items)?.enumerate() {
        let place = |error: Error| error.context(format_args!("imputation_sequence_[{number}]"));
        let triplet = step.object()?;
        // Protocols 0 and 1 have it as a tuple that was made something else.
        let parts = if triplet.args.is_empty() { &triplet.items } else { &triplet.args };
        let [column, others, estimator] = parts.as_slice() else {
            return Err(place(step.expected("a column, others and an estimator")));
        };
        let column = step.at(*column).usize().map_err(place)?;
        let others = step.at(*others).array().and_then(Array::integers).map_err(place)?;
        let others = others.into_iter().map(|other| usize::try_from(other).ok().filter(|other| *other < columns));
        let others = others.collect::<Option<Vec<_>>>();
        let (Some(others), Some(least), Some(most)) = (others, least.get(column), most.get(column)) else {
            return Err(place(Error::load("columns that do not exist")));
        };
        let estimator = builder.build(step.at(*estimator)).map_err(place)?;
        let fits = column < columns && estimator.features().is_none_or(|features| features == others.len());
        if !fits || least.is_nan() || most.is_nan() || least > most || !estimator.can(Method::Predict) {
            return Err(place(Error::load(format!("column {column} cannot be predicted from {}", others.len()))));
        }
        steps.push(Step { column, others, least: *least, most: *most, estimator });
    }
    Ok(steps)
}

impl IterativeImputer {
    fn impute(&self, rows: &Matrix) -> Result<Matrix> {
        let mut filled = self.initial.transform(&Data::Dense(rows.clone()))?.dense()?.into_owned();
        filled.check_columns(self.kept.len())?;
        let lacks =
            |row: usize, place: usize| !self.empty[place] && self.missing.number(rows.row(row)[self.kept[place]]);
        // scikit-learn leaves it at the first filling when nothing is known at all.
        if (0..rows.rows).all(|row| (0..self.kept.len()).all(|place| lacks(row, place))) {
            return Ok(filled);
        }
        for step in &self.steps {
            let lacking: Vec<usize> = (0..rows.rows).filter(|row| lacks(*row, step.column)).collect();
            if lacking.is_empty() {
                continue;
            }
            let known = lacking.iter().flat_map(|row| step.others.iter().map(|other| filled.row(*row)[*other]));
            let known = Matrix::new(lacking.len(), step.others.len(), known.collect());
            let values = step.estimator.predict(&Data::Dense(Matrix { single: filled.single, ..known }))?;
            for (row, value) in lacking.into_iter().zip(values.values.numbers()?) {
                filled.row_mut(row)[step.column] = value.clamp(step.least, step.most);
            }
            filled.rounded();
        }
        Ok(filled)
    }
}

impl Estimator for IterativeImputer {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let given = self.missing.checked(rows)?;
        let filled = Data::Dense(self.impute(&given)?);
        MissingIndicator::beside(self.indicator.as_ref(), filled, rows)
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        Some(MissingIndicator::names_beside(self.indicator.as_ref(), self.kept.iter().copied(), names))
    }

    fn features(&self) -> Option<usize> {
        Some(self.features)
    }
}
