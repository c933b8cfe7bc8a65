//! `KNNImputer`: the mean of the nearest rows that have the value.

use std::sync::Arc;

use super::impute::{Missing, MissingIndicator};
use super::read;
use crate::backend::tabular::data::{Data, Matrix};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::{Node, Value};

pub const CLASSES: &[(&str, Build)] = &[("KNNImputer", knn)];

/// Distances are Euclidean over the columns that both rows have, scaled up to all columns:
/// `sqrt(columns / present * sum((x - y)^2))`.
struct KnnImputer {
    missing: Missing,
    /// What it was fitted with, zero where missing.
    fitted: Matrix,
    /// Sums of squares of its rows.
    squares: Vec<f64>,
    /// Where `fitted` is missing, row-major.
    lacks: Vec<bool>,
    /// Mean of each column; `None` where it has no values, which drops the column, or fills it with 0.
    means: Vec<Option<f64>>,
    keep_empty: bool,
    neighbours: usize,
    by_distance: bool,
    /// Until 1.5, where too few rows have a distance, others count as well when all count alike.
    counts_any: bool,
    indicator: Option<MissingIndicator>,
}

fn knn(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    match node.read("metric", Node::text)? {
        "nan_euclidean" => {}
        other => return Err(unsupported("metric", other)),
    }
    let by_distance = match node.attr("weights")?.value() {
        Value::None => false,
        Value::Text(text) if **text == *"uniform" => false,
        Value::Text(text) if **text == *"distance" => true,
        _ => return Err(unsupported("weights", "a function")),
    };
    let (rows, columns, values) = node.read("_fit_X", |node| node.numbers()?.matrix())?;
    let lacks = node.read("_mask_fit_X", |node| node.numbers()?.matrix())?;
    if (lacks.0, lacks.1) != (rows, columns) {
        return Err(Error::load(format!("_mask_fit_X is of {} rows and {} columns", lacks.0, lacks.1)));
    }
    let lacks: Vec<bool> = lacks.2.into_iter().map(|lacks| lacks != 0.0).collect();
    let values = values.into_iter().zip(&lacks).map(|(value, lacks)| if *lacks { 0.0 } else { value }).collect();
    let fitted = Matrix::new(rows, columns, values);
    let mean = |column: usize| {
        let present = (0..rows).filter(|row| !lacks[row * columns + column]).count();
        let sum: f64 = fitted.iter_rows().map(|row| row[column]).sum();
        (present > 0).then(|| sum / present as f64)
    };
    let means = (0..columns).map(mean).collect();
    Ok(Box::new(KnnImputer {
        missing: Missing::read(node)?,
        squares: fitted.iter_rows().map(square).collect(),
        fitted,
        lacks,
        means,
        keep_empty: read::option_since((1, 2), node, "keep_empty_features", Node::bool)? == Some(true),
        neighbours: node.read("n_neighbors", Node::usize)?.max(1),
        by_distance,
        counts_any: !by_distance && read::version(node) < (1, 6),
        indicator: MissingIndicator::added(node, columns)?,
    }))
}

fn square(row: &[f64]) -> f64 {
    row.iter().map(|value| value * value).sum()
}

impl KnnImputer {
    fn keeps(&self, column: usize) -> bool {
        self.keep_empty || self.means[column].is_some()
    }

    /// Distances of a row to all that it was fitted with; NaN where they have no column in common. The sums are
    /// scikit-learn's: `x.x + y.y - 2 x.y`, less what only one of both has.
    fn distances(&self, row: &[f64], lacks: &[bool]) -> Vec<f64> {
        let columns = self.fitted.columns;
        let own = square(row);
        let distance = |(place, other): (usize, &[f64])| {
            let other_lacks = &self.lacks[place * columns..][..columns];
            let (mut product, mut only_row, mut only_other, mut present) = (0.0, 0.0, 0.0, 0_usize);
            for column in 0..columns {
                product += row[column] * other[column];
                match (lacks[column], other_lacks[column]) {
                    (false, false) => present += 1,
                    (false, true) => only_row += row[column] * row[column],
                    (true, false) => only_other += other[column] * other[column],
                    (true, true) => {}
                }
            }
            if present == 0 {
                return f64::NAN;
            }
            let all = (-2.0 * product + own + self.squares[place]).max(0.0);
            let squared = (all - only_row - only_other).max(0.0);
            (squared / present as f64 * columns as f64).sqrt()
        };
        self.fitted.iter_rows().enumerate().map(distance).collect()
    }

    /// The mean of the nearest donors' values of a column.
    fn impute(&self, distances: &[f64], column: usize, mean: f64) -> f64 {
        let columns = self.fitted.columns;
        let has = |row: &usize| !self.lacks[row * columns + column];
        let mut donors: Vec<(f64, usize)> = (0..distances.len())
            .filter(has)
            .map(|row| (distances[row], row))
            .filter(|(far, _)| self.counts_any || !far.is_nan())
            .collect();
        if donors.iter().all(|(far, _)| far.is_nan()) {
            return mean;
        }
        let order = |one: &(f64, usize), other: &(f64, usize)| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1));
        if donors.len() > self.neighbours {
            donors.select_nth_unstable_by(self.neighbours - 1, order);
            donors.truncate(self.neighbours);
        }
        donors.sort_unstable_by(order);
        // Those at no distance count alone.
        let nearest = donors[0].0;
        let weight = |far: f64| match (self.by_distance, nearest == 0.0) {
            (false, _) => 1.0,
            (true, false) => 1.0 / far,
            (true, true) => f64::from(u8::from(far == 0.0)),
        };
        let (sum, weights) = donors.iter().fold((0.0, 0.0), |(sum, weights), (far, row)| {
            (sum + self.fitted.row(*row)[column] * weight(*far), weights + weight(*far))
        });
        sum / weights
    }
}

impl Estimator for KnnImputer {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let given = self.missing.checked(rows)?;
        let mut filled = given.clone().into_owned();
        let mut lacks = vec![false; given.columns];
        for place in 0..filled.rows {
            let row = filled.row_mut(place);
            row.iter().zip(&mut lacks).for_each(|(value, lacks)| *lacks = self.missing.number(*value));
            if !lacks.iter().zip(&self.means).any(|(lacks, mean)| *lacks && mean.is_some()) {
                continue;
            }
            row.iter_mut().zip(&lacks).filter(|(_, lacks)| **lacks).for_each(|(value, _)| *value = 0.0);
            let distances = self.distances(row, &lacks);
            for (column, mean) in self.means.iter().enumerate().filter(|(column, _)| lacks[*column]) {
                row[column] = mean.map_or(0.0, |mean| self.impute(&distances, column, mean));
            }
        }
        filled.rounded();
        if self.keep_empty {
            for row in filled.values.chunks_exact_mut(self.means.len()) {
                row.iter_mut().zip(&self.means).filter(|(_, m)| m.is_none()).for_each(|(value, _)| *value = 0.0);
            }
        } else {
            filled = filled.select(&(0..self.means.len()).filter(|column| self.keeps(*column)).collect::<Vec<_>>());
        }
        MissingIndicator::beside(self.indicator.as_ref(), Data::Dense(filled), rows)
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        let kept = (0..self.means.len()).filter(|column| self.keeps(*column));
        Some(MissingIndicator::names_beside(self.indicator.as_ref(), kept, names))
    }

    fn features(&self) -> Option<usize> {
        Some(self.fitted.columns)
    }
}
