//! Transformers that shift and scale each column by itself.

use crate::backend::tabular::data::{Data, Matrix};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method};
use crate::error::Result;
use crate::formats::graph::Node;

pub const CLASSES: &[(&str, Build)] = &[("StandardScaler", standard)];

/// `(x - shift) / scale`.
struct Scaler {
    features: usize,
    shift: Option<Vec<f64>>,
    scale: Option<Vec<f64>>,
}

fn standard(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let features = node.read("n_features_in_", Node::usize)?;
    let of = |option: &str, name: &str| -> Result<Option<Vec<f64>>> {
        if !node.read(option, Node::bool)? {
            return Ok(None);
        }
        node.read_some(name, |node| node.numbers()?.vector(Some(features)))
    };
    Ok(Box::new(Scaler { features, shift: of("with_mean", "mean_")?, scale: of("with_std", "scale_")? }))
}

impl Scaler {
    fn each(&self, rows: &Matrix, by: &[f64], apply: impl Fn(f64, f64) -> f64) -> Matrix {
        let mut rows = rows.clone();
        for row in rows.values.chunks_exact_mut(self.features) {
            row.iter_mut().zip(by).for_each(|(value, by)| *value = apply(*value, *by));
        }
        rows.rounded();
        rows
    }
}

impl Estimator for Scaler {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let mut out = rows.dense()?.into_owned();
        out.check_not_infinite()?;
        if let Some(shift) = &self.shift {
            out = self.each(&out, shift, |value, shift| value - shift);
        }
        if let Some(scale) = &self.scale {
            out = self.each(&out, scale, |value, scale| value / scale);
        }
        Ok(Data::Dense(out))
    }

    fn inverse_transform(&self, rows: &Matrix) -> Result<Matrix> {
        let mut out = rows.clone();
        if let Some(scale) = &self.scale {
            out = self.each(&out, scale, |value, scale| value * scale);
        }
        if let Some(shift) = &self.shift {
            out = self.each(&out, shift, |value, shift| value + shift);
        }
        Ok(out)
    }

    fn features(&self) -> Option<usize> {
        Some(self.features)
    }
}
