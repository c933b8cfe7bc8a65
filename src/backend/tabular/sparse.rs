//! Rows of numbers that are mostly zero.

use super::data::{Matrix, check_finite};
use crate::error::{Error, Result};

/// Rows of numbers that are mostly zero (scipy's CSR): what text vectorizers give.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sparse {
    pub rows: usize,
    pub columns: usize,
    /// Where each row begins in the other two, and where the last one ends.
    pub starts: Vec<usize>,
    /// Ascending within a row.
    pub indices: Vec<u32>,
    pub values: Vec<f64>,
}

impl Sparse {
    pub fn row(&self, row: usize) -> impl Iterator<Item = (usize, f64)> {
        let range = self.starts[row]..self.starts[row + 1];
        self.indices[range.clone()].iter().map(|index| *index as usize).zip(self.values[range].iter().copied())
    }

    /// As [`Matrix::check_finite`].
    ///
    /// # Errors
    /// When a number is NaN or infinite.
    pub fn check_finite(&self) -> Result<()> {
        check_finite(&self.values)
    }

    /// Each number, given its column, by another; zeros are left out.
    #[must_use]
    pub fn map_nonzero(&self, map: impl Fn(usize, f64) -> f64) -> Sparse {
        let mut mapped = Sparse::with_columns(self.columns);
        for row in 0..self.rows {
            for (column, value) in self.row(row) {
                mapped.push(column, map(column, value));
            }
            mapped.end_row();
        }
        mapped
    }

    /// No rows yet: [`Sparse::push`] and [`Sparse::end_row`] build them.
    pub fn with_columns(columns: usize) -> Sparse {
        Sparse { columns, starts: vec![0], ..Sparse::default() }
    }

    /// Puts a number, unless it is zero, into the row that is being built, after all of lower columns.
    pub fn push(&mut self, column: usize, value: f64) {
        if value != 0.0 {
            self.indices.push(column as u32);
            self.values.push(value);
        }
    }

    pub fn end_row(&mut self) {
        self.starts.push(self.indices.len());
        self.rows = self.starts.len() - 1;
    }

    /// All numbers, zeros included.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) when they would take more memory than a request may.
    pub fn to_dense(&self) -> Result<Matrix> {
        const MOST: usize = 1 << 27; // a GiB
        let size = self.rows.saturating_mul(self.columns);
        if size > MOST {
            return Err(Error::invalid(format!(
                "{} rows of {} columns are too many to compute with at once: send fewer rows",
                self.rows, self.columns
            )));
        }
        let mut dense = Matrix::zeros(self.rows, self.columns);
        for row in 0..self.rows {
            let target = dense.row_mut(row);
            self.row(row).for_each(|(column, value)| target[column] = value);
        }
        Ok(dense)
    }
}

impl From<&Matrix> for Sparse {
    fn from(matrix: &Matrix) -> Sparse {
        let mut sparse = Sparse::with_columns(matrix.columns);
        for row in matrix.iter_rows() {
            row.iter().enumerate().for_each(|(column, value)| sparse.push(column, *value));
            sparse.end_row();
        }
        sparse
    }
}

impl Sparse {
    /// Some of the columns, in the order given.
    #[must_use]
    pub fn select(&self, columns: &[usize]) -> Sparse {
        let mut places = std::collections::HashMap::<usize, Vec<u32>>::new();
        for (place, column) in columns.iter().enumerate() {
            places.entry(*column).or_default().push(place as u32);
        }
        let mut selected = Sparse { rows: self.rows, columns: columns.len(), starts: vec![0], ..Sparse::default() };
        for row in 0..self.rows {
            let kept = self.row(row).flat_map(|(column, value)| {
                places.get(&column).into_iter().flatten().map(move |place| (*place, value))
            });
            let mut kept: Vec<(u32, f64)> = kept.collect();
            kept.sort_unstable_by_key(|(place, _)| *place);
            selected.indices.extend(kept.iter().map(|(place, _)| *place));
            selected.values.extend(kept.iter().map(|(_, value)| *value));
            selected.starts.push(selected.indices.len());
        }
        selected
    }
}
