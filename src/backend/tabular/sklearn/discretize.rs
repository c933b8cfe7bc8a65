//! `KBinsDiscretizer`: which of some bins a number is in.

use std::sync::Arc;

use super::read;
use crate::backend::tabular::data::{Data, Matrix, Sparse};
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
    encoding: Encoding,
    /// What numbers are made first.
    gives: Option<DType>,
    /// Until 1.0, numbers were moved up a little before they were compared.
    moved: bool,
}

fn bins(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let inner = |node: Node<'_>| {
        let edges = node.numbers()?.vector(None)?;
        match edges.as_slice() {
            [_, inner @ .., _] => Ok(inner.to_vec()),
            _ => Err(Error::load(format!("{} edges", edges.len()))),
        }
    };
    let edges = node.read("bin_edges_", |node| node.items()?.map(inner).collect::<Result<Vec<_>>>())?;
    let encoding = match node.read("encode", Node::text)? {
        "ordinal" => Encoding::Ordinal,
        "onehot" => Encoding::OneHot { sparse: true },
        "onehot-dense" => Encoding::OneHot { sparse: false },
        other => return Err(unsupported("encode", other)),
    };
    let gives = node.read("dtype", |_| Ok(read::dtype(node)))?;
    Ok(Box::new(Bins { edges, encoding, gives, moved: read::version(node) < (1, 1) }))
}

impl Bins {
    fn find(&self, value: f64, edges: &[f64]) -> usize {
        let value = if self.moved { value + (1e-8 + 1e-5 * value.abs()) } else { value };
        edges.partition_point(|edge| *edge <= value)
    }
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
