//! The rows that an estimator is given, as scikit-learn's `validate_data` leaves them; and scipy's sparse matrices,
//! which a model may hold.

use std::borrow::Cow;

use crate::backend::tabular::data::{Data, Matrix, Sparse};
use crate::error::{Error, Result};
use crate::formats::graph::{Node, Value};

/// As many columns as the estimator was fitted with, all of finite numbers.
pub enum Input<'a> {
    Dense(Cow<'a, Matrix>),
    Sparse(Cow<'a, Sparse>),
}

impl<'a> Input<'a> {
    /// # Errors
    /// In scikit-learn's words, when the rows are not such.
    pub fn check(rows: &'a Data, features: usize) -> Result<Input<'a>> {
        if rows.columns() != features {
            return Err(Error::invalid(format!(
                "X has {} features, but the estimator is expecting {features} features as input.",
                rows.columns()
            )));
        }
        match rows {
            Data::Sparse(sparse) => {
                sparse.check_finite()?;
                Ok(Input::Sparse(Cow::Borrowed(sparse)))
            }
            _ => {
                let dense = rows.dense()?;
                dense.check_finite()?;
                Ok(Input::Dense(dense))
            }
        }
    }

    /// For estimators that know no sparse rows, or are faster without.
    ///
    /// # Errors
    /// As [`Input::check`].
    pub fn dense(rows: &'a Data, features: usize) -> Result<Cow<'a, Matrix>> {
        match Input::check(rows, features)? {
            Input::Dense(dense) => Ok(dense),
            Input::Sparse(sparse) => Ok(Cow::Owned(sparse.to_dense()?)),
        }
    }
}

/// Whether this is one of scipy's sparse matrices.
pub fn is_sparse(node: Node<'_>) -> bool {
    matches!(node.value(), Value::Object(object) if object.class.package() == "scipy")
}

/// A `csr_matrix` or `csr_array`, which is what scikit-learn leaves in its models.
///
/// # Errors
/// When it is another kind of matrix, or its parts do not fit each other.
pub fn sparse(node: Node<'_>) -> Result<Sparse> {
    let class = node.class().ok_or_else(|| node.expected("a sparse matrix"))?;
    if !class.name.starts_with("csr_") {
        return Err(Error::load(format!("a sparse matrix of type {} is not supported", class.name)));
    }
    let shape = node.read("_shape", |node| node.items()?.map(Node::usize).collect::<Result<Vec<_>>>())?;
    let [rows, columns] = match *shape.as_slice() {
        [columns] => [1, columns],
        [rows, columns] => [rows, columns],
        _ => return Err(Error::load(format!("a sparse matrix has shape {shape:?}"))),
    };
    let counts = |name| node.read(name, |node| node.array()?.integers());
    let (starts, places) = (counts("indptr")?, counts("indices")?);
    let values = node.read("data", |node| node.numbers()?.vector(Some(places.len())))?;
    let damaged = || Error::load(format!("a sparse matrix of shape {shape:?} whose parts do not fit"));
    let ascending = starts.first() == Some(&0) && starts.is_sorted();
    let ends = starts.last().is_some_and(|end| usize::try_from(*end) == Ok(places.len()));
    let end = u32::try_from(columns).map_err(|_| damaged())?;
    let within = places.iter().all(|place| (0..i64::from(end)).contains(place));
    if rows.checked_add(1) != Some(starts.len()) || !ascending || !ends || !within {
        return Err(damaged());
    }
    let mut sparse =
        Sparse { rows, columns, starts: starts.into_iter().map(|start| start as usize).collect(), ..Sparse::default() };
    let mut row: Vec<(u32, f64)> = Vec::new();
    for range in sparse.starts.windows(2).map(|ends| ends[0]..ends[1]) {
        row.clear();
        row.extend(range.map(|at| (places[at] as u32, values[at])));
        row.sort_unstable_by_key(|(place, _)| *place); // scipy does not promise it
        if row.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(damaged());
        }
        sparse.indices.extend(row.iter().map(|(place, _)| *place));
        sparse.values.extend(row.iter().map(|(_, value)| *value));
    }
    Ok(sparse)
}

/// A matrix of numbers in either form, of at least one row and one column, with what it says of its shape.
///
/// # Errors
/// When it is none.
pub fn matrix(node: Node<'_>) -> Result<Matrix> {
    let read = if is_sparse(node) {
        let sparse = sparse(node)?;
        sparse.to_dense().map_err(|error| Error::load(error.message().to_owned()))?
    } else {
        let (rows, columns, values) = node.numbers()?.matrix()?;
        Matrix::new(rows, columns, values)
    };
    if read.values.is_empty() {
        return Err(Error::load(format!("expected a matrix, got shape [{}, {}]", read.rows, read.columns)));
    }
    Ok(read)
}

/// As [`matrix`], of exactly this shape.
///
/// # Errors
/// When it is of another.
pub fn matrix_of(node: Node<'_>, rows: usize, columns: usize) -> Result<Matrix> {
    let read = matrix(node)?;
    if (read.rows, read.columns) != (rows, columns) {
        let (got_rows, got_columns) = (read.rows, read.columns);
        return Err(Error::load(format!("expected shape [{rows}, {columns}], got [{got_rows}, {got_columns}]")));
    }
    Ok(read)
}
