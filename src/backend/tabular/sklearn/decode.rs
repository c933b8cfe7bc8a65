//! Categories from the codes that encoders gave them, for the targets of a regression, which are numbers.

use super::discretize::index;
use super::read;
use crate::backend::tabular::data::{Labels, Matrix};
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::tensor::DType;

/// The categories of each column.
pub struct Decoder {
    pub categories: Vec<Vec<f64>>,
    /// The type that numpy finds for all of them.
    pub gives: DType,
}

impl Decoder {
    /// The categories of a fitted encoder; `None` when some are no numbers. `special` are those that the encoder has of
    /// each column, and that are looked up unchecked.
    ///
    /// # Errors
    /// When there is no such category.
    pub fn read(node: Node<'_>, special: &[Option<usize>]) -> Result<Option<Decoder>> {
        let numbers = |node: Node<'_>| read::labels(node).ok().filter(|labels| labels.dtype() != DType::Bytes);
        let labels: Option<Vec<Labels>> = node.read("categories_", |node| Ok(node.items()?.map(numbers).collect()))?;
        let Some(labels) = labels else { return Ok(None) };
        let categories = labels.iter().map(Labels::numbers).collect::<Result<Vec<_>>>()?;
        for (column, (categories, special)) in categories.iter().zip(special).enumerate() {
            if special.is_some_and(|place| place >= categories.len()) {
                return Err(Error::load(format!("column {column} has a special category that it does not have")));
            }
        }
        Ok(Some(Decoder { gives: Labels::concat(&labels)?.dtype(), categories }))
    }
}

/// What `OrdinalEncoder` gave its categories.
pub struct Places {
    pub decoder: Decoder,
    /// The code of the missing, and which category of each column they are.
    pub missing: f64,
    pub missing_at: Vec<Option<usize>>,
    /// The code of values of no category.
    pub unknown: Option<f64>,
}

impl Places {
    /// # Errors
    /// When a code is of no category.
    pub fn invert(&self, rows: &Matrix) -> Result<Matrix> {
        rows.check_columns(self.decoder.categories.len())?;
        rows.check_not_infinite()?;
        let same = |code: f64, other: f64| code == other || (code.is_nan() && other.is_nan());
        let mut out = rows.clone();
        for row in out.values.chunks_exact_mut(rows.columns.max(1)) {
            for (column, value) in row.iter_mut().enumerate() {
                let categories = &self.decoder.categories[column];
                *value = match self.missing_at[column] {
                    Some(place) if same(*value, self.missing) => categories[place],
                    _ if self.unknown.is_some_and(|unknown| same(*value, unknown)) => f64::NAN,
                    _ => categories[index(*value, categories.len())?],
                };
            }
        }
        Ok(Matrix { single: false, ..out })
    }
}

/// The columns that `OneHotEncoder` gave its categories.
pub struct Columns {
    pub decoder: Decoder,
    /// Of each column, the category that has no column of its own.
    pub dropped: Vec<Option<usize>>,
    /// Values of no category are refused.
    pub strict: bool,
}

impl Columns {
    /// # Errors
    /// When a value cannot have been of any category.
    pub fn invert(&self, rows: &Matrix) -> Result<Matrix> {
        let kept: Vec<Vec<f64>> = self.decoder.categories.iter().zip(&self.dropped).map(kept).collect();
        rows.check_columns(kept.iter().map(Vec::len).sum())?;
        rows.check_finite()?;
        let mut out = Matrix::zeros(rows.rows, kept.len());
        for (place, row) in rows.iter_rows().enumerate() {
            let mut rest = row;
            for (column, kept) in kept.iter().enumerate() {
                let (own, others) = rest.split_at(kept.len());
                rest = others;
                let is_none = own.iter().sum::<f64>() == 0.0;
                out.row_mut(place)[column] = match self.dropped[column] {
                    Some(dropped) if is_none => self.decoder.categories[column][dropped],
                    None if is_none && self.strict => return Err(all_zeros(place)),
                    None if is_none => f64::NAN,
                    _ => kept[read::argmax_of(own)],
                };
            }
        }
        Ok(out)
    }
}

/// The categories that have a column.
fn kept((categories, dropped): (&Vec<f64>, &Option<usize>)) -> Vec<f64> {
    let places = (0..categories.len()).filter(|place| Some(*place) != *dropped);
    places.map(|place| categories[place]).collect()
}

fn all_zeros(row: usize) -> Error {
    Error::invalid(format!(
        "Samples [{row}] can not be inverted when drop=None and handle_unknown='error' because they contain all zeros"
    ))
}
