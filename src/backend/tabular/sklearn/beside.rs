//! The results of several transformers side by side.

use crate::backend::tabular::data::{Cells, Column, Data, Matrix, Sparse, Table, promoted};
use crate::error::Result;
use crate::tensor::DType;

/// Results side by side, as one of what they are.
///
/// # Errors
/// When text would have to become numbers, or there are too many of them.
pub fn beside(rows: usize, mut parts: Vec<Data>, sparse: bool) -> Result<Data> {
    if parts.len() == 1 && !sparse {
        return Ok(parts.swap_remove(0));
    }
    if sparse {
        return Ok(Data::Sparse(sparse_beside(rows, &parts)?));
    }
    // A part that stays text makes the whole a table.
    if parts.iter().any(Data::has_text) {
        let columns = parts.iter().map(columns).collect::<Result<Vec<_>>>()?.concat();
        return Ok(Data::Table(Table { rows, columns }));
    }
    let matrices = parts.iter().map(|part| Ok(part.dense()?.into_owned())).collect::<Result<Vec<Matrix>>>()?;
    if matrices.is_empty() {
        return Ok(Data::Dense(Matrix::zeros(rows, 0)));
    }
    let dtype = parts.iter().map(Data::dtype).reduce(promoted).unwrap_or(DType::Fp64);
    Ok(Data::of_type(Matrix { single: false, ..Matrix::beside(&matrices) }, dtype))
}

pub fn columns(data: &Data) -> Result<Vec<Column>> {
    match data {
        Data::Table(table) => Ok(table.columns.clone()),
        data => Ok(numbered(data.dense()?.as_ref(), data.dtype())),
    }
}

/// A matrix as columns without names.
fn numbered(matrix: &Matrix, dtype: DType) -> Vec<Column> {
    let dtype = (dtype != DType::Fp64).then_some(dtype);
    let column = |column: usize| {
        let values = matrix.iter_rows().map(|row| row[column]).collect();
        Column { name: None, cells: Cells::Numbers(values), dtype }
    };
    (0..matrix.columns).map(column).collect()
}

fn sparse_beside(rows: usize, parts: &[Data]) -> Result<Sparse> {
    enum Part<'a> {
        Sparse(&'a Sparse),
        Dense(std::borrow::Cow<'a, Matrix>),
    }
    fn read(data: &Data) -> Result<Part<'_>> {
        match data {
            Data::Sparse(sparse) => Ok(Part::Sparse(sparse)),
            other => Ok(Part::Dense(other.dense()?)),
        }
    }
    let widths: Vec<usize> = parts.iter().map(Data::columns).collect();
    let parts = parts.iter().map(read).collect::<Result<Vec<_>>>()?;
    let mut joined = Sparse { rows, columns: widths.iter().sum(), starts: vec![0], ..Sparse::default() };
    for row in 0..rows {
        let mut offset = 0;
        for (part, width) in parts.iter().zip(&widths) {
            let mut push = |(column, value): (usize, f64)| {
                joined.indices.push((offset + column) as u32);
                joined.values.push(value);
            };
            match part {
                Part::Sparse(sparse) => sparse.row(row).for_each(&mut push),
                Part::Dense(matrix) => {
                    matrix.row(row).iter().copied().enumerate().filter(|(_, value)| *value != 0.0).for_each(&mut push);
                }
            }
            offset += width;
        }
        joined.starts.push(joined.indices.len());
    }
    Ok(joined)
}
