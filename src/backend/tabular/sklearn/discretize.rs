//! `KBinsDiscretizer`: which of some bins a number is in.

use std::sync::Arc;

use super::read;
use crate::backend::tabular::data::{Data, Matrix, Sparse, stored};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::tensor::DType;

pub const CLASSES: &[(&str, Build)] = &[("KBinsDiscretizer", bins)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Ordinal,
    OneHot { sparse: bool },
}

struct Bins {
    /// Of each column, ascending: one less than there are bins.
    edges: Vec<Vec<f64>>,
    /// Of each column, the middle of each bin.
    centres: Vec<Vec<f64>>,
    encoding: Encoding,
    /// What numbers are made first.
    gives: Option<DType>,
    /// Until 1.0, numbers were moved up a little before they were compared.
    moved: bool,
}

fn bins(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let column = |node: Node<'_>| {
        let edges = node.numbers()?.vector(None)?;
        match edges.as_slice() {
            [_, inner @ .., _] => {
                Ok((inner.to_vec(), edges.windows(2).map(|edges| (edges[1] + edges[0]) * 0.5).collect()))
            }
            _ => Err(Error::load(format!("{} edges", edges.len()))),
        }
    };
    let columns = node.read("bin_edges_", |node| node.items()?.map(column).collect::<Result<Vec<_>>>())?;
    let (edges, centres) = columns.into_iter().unzip();
    let encoding = match node.read("encode", Node::text)? {
        "ordinal" => Encoding::Ordinal,
        "onehot" => Encoding::OneHot { sparse: true },
        "onehot-dense" => Encoding::OneHot { sparse: false },
        other => return Err(unsupported("encode", other)),
    };
    let gives = node.read("dtype", |_| Ok(read::dtype(node)))?;
    Ok(Box::new(Bins { edges, centres, encoding, gives, moved: read::version(node) < (1, 1) }))
}

impl Bins {
    fn find(&self, value: f64, edges: &[f64]) -> usize {
        let value = if self.moved { value + (1e-8 + 1e-5 * value.abs()) } else { value };
        edges.partition_point(|edge| *edge <= value)
    }

    /// The bin that each number stands for, of each column; or the place of the greatest of a column's numbers.
    fn chosen(&self, row: &[f64]) -> Result<Vec<usize>> {
        if self.encoding == Encoding::Ordinal {
            return row.iter().zip(&self.centres).map(|(value, centres)| index(*value, centres.len())).collect();
        }
        let mut rest = row;
        let mut bin = |centres: &Vec<f64>| {
            let (own, others) = rest.split_at(centres.len());
            rest = others;
            if own.iter().sum::<f64>() == 0.0 {
                return Err(Error::invalid("Samples can not be inverted because they contain all zeros"));
            }
            Ok(read::argmax_of(own))
        };
        self.centres.iter().map(&mut bin).collect()
    }
}

/// Where numpy finds a number among so many: without its fraction, and from the end when it is negative.
///
/// # Errors
/// When there are not as many.
pub fn index(value: f64, size: usize) -> Result<usize> {
    let place = stored(value, DType::Int64) as i64;
    let from_end = if place < 0 { place.saturating_add(size as i64) } else { place };
    usize::try_from(from_end)
        .ok()
        .filter(|place| *place < size)
        .ok_or_else(|| Error::invalid(format!("index {place} is out of bounds for axis 0 with size {size}")))
}

impl Estimator for Bins {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        if let Data::Sparse(_) = rows {
            return Err(read::sparse());
        }
        let mut rows = rows.dense()?.into_owned();
        rows.check_finite()?;
        rows.single = self.gives.map_or(rows.single, |dtype| dtype == DType::Fp32);
        rows.rounded();
        for row in rows.values.chunks_exact_mut(self.edges.len().max(1)) {
            row.iter_mut().zip(&self.edges).for_each(|(value, edges)| *value = self.find(*value, edges) as f64);
        }
        let Encoding::OneHot { sparse } = self.encoding else { return Ok(Data::Dense(rows)) };
        let mut offsets = vec![0];
        self.edges.iter().for_each(|edges| offsets.push(offsets[offsets.len() - 1] + edges.len() + 1));
        let columns = offsets[self.edges.len()];
        let places = |row: &[f64]| row.iter().zip(&offsets).map(|(bin, offset)| offset + *bin as usize).collect();
        let places: Vec<Vec<usize>> = rows.iter_rows().map(places).collect();
        if sparse {
            let mut out = Sparse::with_columns(columns);
            for row in places {
                row.into_iter().for_each(|column| out.push(column, 1.0));
                out.end_row();
            }
            return Ok(Data::Sparse(out));
        }
        let mut out = Matrix { single: rows.single, ..Matrix::zeros(rows.rows, columns) };
        for (row, places) in places.into_iter().enumerate() {
            places.into_iter().for_each(|column| out.row_mut(row)[column] = 1.0);
        }
        Ok(Data::Dense(out))
    }

    fn can_invert(&self) -> bool {
        true
    }

    fn inverse_transform(&self, rows: &Matrix) -> Result<Matrix> {
        rows.check_finite()?;
        let is_ordinal = self.encoding == Encoding::Ordinal;
        rows.check_columns(if is_ordinal { self.centres.len() } else { self.centres.iter().map(Vec::len).sum() })?;
        let mut values = Vec::with_capacity(rows.rows * self.centres.len());
        for row in rows.iter_rows() {
            let bins = self.chosen(row)?.into_iter().zip(&self.centres);
            values.extend(bins.map(|(bin, centres)| centres[bin]));
        }
        let mut out =
            Matrix { single: rows.single && is_ordinal, ..Matrix::new(rows.rows, self.centres.len(), values) };
        out.rounded();
        Ok(out)
    }

    fn gives(&self) -> Option<DType> {
        self.gives
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        if self.encoding == Encoding::Ordinal {
            return Some(names.to_vec());
        }
        let bins = |(name, edges): (&Arc<str>, &Vec<f64>)| {
            let name = name.clone();
            (0..=edges.len()).map(move |bin| format!("{name}_{bin}.0").into())
        };
        Some(names.iter().zip(&self.edges).flat_map(bins).collect())
    }

    fn features(&self) -> Option<usize> {
        Some(self.edges.len())
    }
}
