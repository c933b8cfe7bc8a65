//! What flows between the steps of a model: a matrix of numbers, a sparse one, or a table of columns as pandas has it.

use std::borrow::Cow;
use std::sync::Arc;

pub use super::dtypes::{float_of, is_float, promoted, stored, wrapped};
pub use super::labels::{Labels, Target};
pub use super::sparse::Sparse;
use crate::error::{Error, Result};
use crate::tensor::DType;

/// Rows of numbers, row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    pub rows: usize,
    pub columns: usize,
    pub values: Vec<f64>,
    /// The numbers are `f32`, and so is what is computed in place from them: see [`Matrix::rounded`].
    pub single: bool,
}

impl Matrix {
    pub fn new(rows: usize, columns: usize, values: Vec<f64>) -> Matrix {
        debug_assert_eq!(rows * columns, values.len());
        Matrix { rows, columns, values, single: false }
    }

    pub fn zeros(rows: usize, columns: usize) -> Matrix {
        Matrix::new(rows, columns, vec![0.0; rows * columns])
    }

    pub fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.columns..][..self.columns]
    }

    pub fn row_mut(&mut self, row: usize) -> &mut [f64] {
        &mut self.values[row * self.columns..][..self.columns]
    }

    pub fn iter_rows(&self) -> impl Iterator<Item = &[f64]> {
        (0..self.rows).map(|row| self.row(row))
    }

    /// Some of the columns, in the order given.
    ///
    /// # Panics
    /// When a column does not exist: whoever builds the step checks.
    #[must_use]
    pub fn select(&self, columns: &[usize]) -> Matrix {
        let values = self.iter_rows().flat_map(|row| columns.iter().map(move |column| row[*column])).collect();
        Matrix { rows: self.rows, columns: columns.len(), values, single: self.single }
    }

    #[must_use]
    pub fn transposed(&self) -> Matrix {
        let values = (0..self.columns).flat_map(|column| self.iter_rows().map(move |row| row[column])).collect();
        Matrix { rows: self.columns, columns: self.rows, values, single: self.single }
    }

    /// Matrices side by side.
    pub fn beside(parts: &[Matrix]) -> Matrix {
        let rows = parts.first().map_or(0, |part| part.rows);
        let columns = parts.iter().map(|part| part.columns).sum();
        let mut values = Vec::with_capacity(rows * columns);
        for row in 0..rows {
            parts.iter().for_each(|part| values.extend_from_slice(part.row(row)));
        }
        Matrix { rows, columns, values, single: !parts.is_empty() && parts.iter().all(|part| part.single) }
    }

    /// For `inverse_transform`, before which nobody checks.
    ///
    /// # Errors
    /// When these are not as many columns.
    pub fn check_columns(&self, expected: usize) -> Result<()> {
        if self.columns == expected {
            return Ok(());
        }
        Err(Error::invalid(format!("X has {} features, but {expected} are expected as input.", self.columns)))
    }

    /// Rounds every number to `f32` when the matrix is of singles. numpy computes `x -= mean` on an `f32` array in
    /// `f64` and rounds what it stores, so each step in place on such an array ends with this.
    pub fn rounded(&mut self) {
        if self.single {
            self.values.iter_mut().for_each(|value| *value = f64::from(*value as f32));
        }
    }

    /// scikit-learn's check of what most of its estimators take.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid), in scikit-learn's words, when a number is NaN or infinite.
    pub fn check_finite(&self) -> Result<()> {
        check_finite(&self.values)
    }

    /// As [`Matrix::check_finite`] for estimators that know NaN as missing.
    ///
    /// # Errors
    /// When a number is infinite.
    pub fn check_not_infinite(&self) -> Result<()> {
        if self.values.iter().any(|value| value.is_infinite()) {
            return Err(Error::invalid("Input X contains infinity or a value too large for dtype('float64')."));
        }
        Ok(())
    }
}

pub(super) fn check_finite(values: &[f64]) -> Result<()> {
    match values.iter().find(|value| !value.is_finite()) {
        None => Ok(()),
        Some(value) if value.is_nan() => Err(Error::invalid("Input X contains NaN.")),
        Some(_) => Err(Error::invalid("Input X contains infinity or a value too large for dtype('float64').")),
    }
}

/// Equal for equal numbers: of the two zeros, one.
pub fn bits(value: f64) -> u64 {
    (value + 0.0).to_bits()
}

/// One value of a column that is not all numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// None, or pandas' NA.
    None,
    Number(f64),
    Bool(bool),
    Text(Arc<str>),
}

impl Cell {
    /// As a number, where Python's `float()` knows one.
    ///
    /// # Errors
    /// In Python's words.
    pub fn number(&self) -> Result<f64> {
        match self {
            Cell::None => Ok(f64::NAN),
            Cell::Number(value) => Ok(*value),
            Cell::Bool(value) => Ok(f64::from(u8::from(*value))),
            Cell::Text(text) => text.trim().parse().map_err(|_| {
                Error::invalid(format!("could not convert string to float: '{}'", crate::tensor::Excerpt(text)))
            }),
        }
    }

    /// As Python's `str()` has it.
    pub fn text(&self) -> Arc<str> {
        match self {
            Cell::None => "None".into(),
            Cell::Number(value) => python_float(*value).into(),
            Cell::Bool(true) => "True".into(),
            Cell::Bool(false) => "False".into(),
            Cell::Text(text) => text.clone(),
        }
    }

    /// None or NaN.
    pub fn is_missing(&self) -> bool {
        matches!(self, Cell::None) || matches!(self, Cell::Number(value) if value.is_nan())
    }
}

/// `1e-05` and `1e+16`, which Rust writes as `1e-5` and `1e16`, from where on Python has exponents.
fn python_float(value: f64) -> String {
    let is_plain = value == 0.0 || !value.is_finite() || (1e-4..1e16).contains(&value.abs());
    if is_plain {
        return format!("{value:?}").to_lowercase();
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let sign = if exponent.starts_with('-') { '-' } else { '+' };
    format!("{digits}e{sign}{:0>2}", exponent.trim_start_matches('-'))
}

#[derive(Clone, Debug, PartialEq)]
pub enum Cells {
    Numbers(Vec<f64>),
    Mixed(Vec<Cell>),
}

impl Cells {
    pub fn len(&self) -> usize {
        match self {
            Cells::Numbers(values) => values.len(),
            Cells::Mixed(cells) => cells.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, row: usize) -> Cell {
        match self {
            Cells::Numbers(values) => Cell::Number(values[row]),
            Cells::Mixed(cells) => cells[row].clone(),
        }
    }

    /// # Errors
    /// When a cell is not a number.
    pub fn numbers(&self) -> Result<Cow<'_, [f64]>> {
        match self {
            Cells::Numbers(values) => Ok(Cow::Borrowed(values)),
            Cells::Mixed(cells) => Ok(Cow::Owned(cells.iter().map(Cell::number).collect::<Result<_>>()?)),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: Option<Arc<str>>,
    pub cells: Cells,
    /// numpy's type of the numbers, where that counts and is not `FP64`.
    pub dtype: Option<DType>,
}

/// Columns of one length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    pub rows: usize,
    pub columns: Vec<Column>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    Dense(Matrix),
    /// Numbers that numpy has in another type than its floats, where that counts. Whoever does not ask gets floats.
    Typed(Matrix, DType),
    Sparse(Sparse),
    Table(Table),
}

impl Data {
    /// As [`Matrix::check_finite`]. Columns that are not all numbers are not looked into, as those of type object.
    ///
    /// # Errors
    /// When a number is NaN or infinite.
    pub fn check_finite(&self) -> Result<()> {
        match self {
            Data::Dense(matrix) | Data::Typed(matrix, _) => matrix.check_finite(),
            Data::Sparse(sparse) => sparse.check_finite(),
            Data::Table(table) => table.columns.iter().try_for_each(|column| match &column.cells {
                Cells::Numbers(values) => check_finite(values),
                Cells::Mixed(_) => Ok(()),
            }),
        }
    }

    pub fn rows(&self) -> usize {
        match self {
            Data::Dense(matrix) | Data::Typed(matrix, _) => matrix.rows,
            Data::Sparse(sparse) => sparse.rows,
            Data::Table(table) => table.rows,
        }
    }

    pub fn columns(&self) -> usize {
        match self {
            Data::Dense(matrix) | Data::Typed(matrix, _) => matrix.columns,
            Data::Sparse(sparse) => sparse.columns,
            Data::Table(table) => table.columns.len(),
        }
    }

    /// numpy's type of all numbers, as it was told: `FP64` where nobody said anything else.
    pub fn dtype(&self) -> DType {
        match self {
            Data::Dense(matrix) if matrix.single => DType::Fp32,
            Data::Typed(_, dtype) => *dtype,
            Data::Table(table) => {
                let own = table.columns.iter().map(|column| column.dtype.unwrap_or(DType::Fp64));
                own.reduce(promoted).unwrap_or(DType::Fp64)
            }
            Data::Dense(_) | Data::Sparse(_) => DType::Fp64,
        }
    }

    /// Numbers with their type, if that is none of numpy's floats.
    pub fn of_type(numbers: Matrix, dtype: DType) -> Data {
        match dtype {
            DType::Fp64 => Data::Dense(numbers),
            DType::Fp32 => Data::Dense(Matrix { single: true, ..numbers }),
            dtype => Data::Typed(numbers, dtype),
        }
    }

    /// Whether there are columns of other things than numbers.
    pub fn has_text(&self) -> bool {
        matches!(self, Data::Table(table) if table.columns.iter().any(|column| matches!(column.cells, Cells::Mixed(_))))
    }

    /// As [`Data::dense`], without a copy of what is.
    ///
    /// # Errors
    /// As [`Data::dense`].
    pub fn into_dense(self) -> Result<Matrix> {
        match self {
            Data::Dense(matrix) | Data::Typed(matrix, _) => Ok(matrix),
            other => Ok(other.dense()?.into_owned()),
        }
    }

    /// The numbers, whatever they lie in.
    ///
    /// # Errors
    /// When a cell of a table is not a number, in Python's words.
    pub fn dense(&self) -> Result<Cow<'_, Matrix>> {
        match self {
            Data::Dense(matrix) | Data::Typed(matrix, _) => Ok(Cow::Borrowed(matrix)),
            Data::Sparse(sparse) => Ok(Cow::Owned(sparse.to_dense()?)),
            Data::Table(table) => {
                let columns = table.columns.iter().map(|column| {
                    let place = column.name.as_deref().unwrap_or("X");
                    column.cells.numbers().map_err(|error| error.context(format_args!("column \"{place}\"")))
                });
                let columns = columns.collect::<Result<Vec<_>>>()?;
                let values = (0..table.rows).flat_map(|row| columns.iter().map(move |column| column[row])).collect();
                let single = self.dtype() == DType::Fp32;
                Ok(Cow::Owned(Matrix { single, ..Matrix::new(table.rows, columns.len(), values) }))
            }
        }
    }

    /// Some of the columns, in the order given. They exist: whoever builds the step checks.
    #[must_use]
    pub fn select(&self, columns: &[usize]) -> Data {
        match self {
            Data::Dense(matrix) => Data::Dense(matrix.select(columns)),
            Data::Typed(matrix, dtype) => Data::Typed(matrix.select(columns), *dtype),
            Data::Table(table) => {
                let columns = columns.iter().map(|column| table.columns[*column].clone()).collect();
                Data::Table(Table { rows: table.rows, columns })
            }
            Data::Sparse(sparse) => Data::Sparse(sparse.select(columns)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        let numbers = [3.0, -0.0, 0.1, 1e-4, 9.9e-5, -2.5e-10, 1e16, 1.25e100, 123_456_789.5, f64::NAN, -f64::INFINITY];
        let written = numbers.map(|number| Cell::Number(number).text().to_string());
        let python =
            ["3.0", "-0.0", "0.1", "0.0001", "9.9e-05", "-2.5e-10", "1e+16", "1.25e+100", "123456789.5", "nan", "-inf"];
        assert_eq!(written, python);
    }
}
