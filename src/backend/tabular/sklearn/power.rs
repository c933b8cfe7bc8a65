//! Transformers that bend each column: towards a normal distribution, or a given one by its quantiles.

use std::sync::Arc;

use super::read;
use super::special::{normal_cdf, normal_quantile};
use crate::backend::tabular::data::{Data, Matrix};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::Node;

pub const CLASSES: &[(&str, Build)] = &[("PowerTransformer", power), ("QuantileTransformer", quantile)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    BoxCox,
    YeoJohnson,
    /// As written in scikit-learn until 1.8.
    OldYeoJohnson,
}

/// A power of each number, with an exponent for each column, then perhaps standardised.
struct PowerTransformer {
    family: Family,
    lambdas: Vec<f64>,
    scaler: Option<Box<dyn Estimator>>,
}

fn power(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let family = match node.read("method", Node::text)? {
        "box-cox" => Family::BoxCox,
        "yeo-johnson" if read::version(node) >= (1, 9) => Family::YeoJohnson,
        "yeo-johnson" => Family::OldYeoJohnson,
        other => return Err(unsupported("method", other)),
    };
    let lambdas = node.read("lambdas_", |node| node.numbers()?.vector(None))?;
    let standardize = node.read("standardize", Node::bool)?;
    let scaler = standardize.then(|| node.read("_scaler", |node| builder.build(node))).transpose()?;
    Ok(Box::new(PowerTransformer { family, lambdas, scaler }))
}

impl Family {
    fn apply(self, x: f64, lambda: f64) -> f64 {
        let is_zero = |lambda: f64| lambda.abs() < f64::EPSILON;
        match self {
            Family::BoxCox if lambda == 0.0 => x.ln(),
            Family::BoxCox => (lambda * x.ln()).exp_m1() / lambda,
            Family::YeoJohnson | Family::OldYeoJohnson if x >= 0.0 && is_zero(lambda) => x.ln_1p(),
            Family::YeoJohnson if x >= 0.0 => (lambda * x.ln_1p()).exp_m1() / lambda,
            Family::OldYeoJohnson if x >= 0.0 => ((x + 1.0).powf(lambda) - 1.0) / lambda,
            // Negative, or NaN.
            _ if is_zero(lambda - 2.0) => -(-x).ln_1p(),
            Family::YeoJohnson => -((2.0 - lambda) * (-x).ln_1p()).exp_m1() / (2.0 - lambda),
            Family::OldYeoJohnson => -((1.0 - x).powf(2.0 - lambda) - 1.0) / (2.0 - lambda),
        }
    }

    fn undo(self, x: f64, lambda: f64) -> f64 {
        match self {
            Family::BoxCox if lambda == 0.0 => x.exp(),
            Family::BoxCox => ((lambda * x).ln_1p() / lambda).exp(),
            _ if x >= 0.0 && lambda.abs() < f64::EPSILON => x.exp() - 1.0,
            _ if x >= 0.0 => (x * lambda + 1.0).powf(1.0 / lambda) - 1.0,
            _ if (lambda - 2.0).abs() > f64::EPSILON => 1.0 - (1.0 - (2.0 - lambda) * x).powf(1.0 / (2.0 - lambda)),
            _ => 1.0 - (-x).exp(),
        }
    }
}

impl PowerTransformer {
    fn each(&self, rows: &mut Matrix, apply: impl Fn(f64, f64) -> f64) {
        for row in rows.values.chunks_exact_mut(self.lambdas.len().max(1)) {
            row.iter_mut().zip(&self.lambdas).for_each(|(value, lambda)| *value = apply(*value, *lambda));
        }
        rows.rounded();
    }
}

impl Estimator for PowerTransformer {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        if let Data::Sparse(_) = rows {
            return Err(read::sparse());
        }
        let mut out = rows.dense()?.into_owned();
        out.check_not_infinite()?;
        if self.family == Family::BoxCox && out.values.iter().any(|value| *value <= 0.0) {
            return Err(Error::invalid("The Box-Cox transformation can only be applied to strictly positive data"));
        }
        self.each(&mut out, |value, lambda| self.family.apply(value, lambda));
        match &self.scaler {
            Some(scaler) => scaler.transform(&Data::Dense(out)),
            None => Ok(Data::Dense(out)),
        }
    }

    fn can_invert(&self) -> bool {
        true
    }

    fn inverse_transform(&self, rows: &Matrix) -> Result<Matrix> {
        rows.check_columns(self.lambdas.len())?;
        let mut out = match &self.scaler {
            Some(scaler) => scaler.inverse_transform(rows)?,
            None => rows.clone(),
        };
        self.each(&mut out, |value, lambda| self.family.undo(value, lambda));
        Ok(out)
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        Some(names.to_vec())
    }

    fn features(&self) -> Option<usize> {
        Some(self.lambdas.len())
    }
}

/// Each number's place among the quantiles of its column, from 0 to 1, or what a normal distribution has there.
struct QuantileTransformer {
    references: Vec<f64>,
    /// Of each column, ascending.
    quantiles: Vec<Vec<f64>>,
    normal: bool,
    ignores_zeros: bool,
}

fn quantile(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let references = node.read("references_", |node| node.numbers()?.vector(None))?;
    let (count, columns, values) = node.read("quantiles_", |node| node.numbers()?.matrix())?;
    if count != references.len() || count == 0 {
        return Err(Error::load(format!("quantiles_ are {count}, for {} references_", references.len())));
    }
    let column = |column: usize| (0..count).map(|at| values[at * columns + column]).collect();
    let normal = match node.read("output_distribution", Node::text)? {
        "normal" => true,
        "uniform" => false,
        other => return Err(unsupported("output_distribution", other)),
    };
    Ok(Box::new(QuantileTransformer {
        references,
        quantiles: (0..columns).map(column).collect(),
        normal,
        ignores_zeros: node.read("ignore_implicit_zeros", Node::bool)?,
    }))
}

/// Numbers this near to the ends of the quantiles are at the ends, for the normal distribution.
const NEAR: f64 = 1e-7;

/// `np.interp(x, from, to)`, each seen through a sign and in either direction: the mean of both directions is what
/// makes ties symmetric.
fn interpolate(x: f64, from: &[f64], to: &[f64], reversed: bool) -> f64 {
    let last = from.len() - 1;
    let at = |place: usize| if reversed { (-from[last - place], -to[last - place]) } else { (from[place], to[place]) };
    let x = if reversed { -x } else { x };
    // How many are at most x.
    let below = if reversed {
        from.len() - from.partition_point(|value| *value < -x)
    } else {
        from.partition_point(|value| *value <= x)
    };
    if below == 0 {
        return at(0).1;
    }
    let (x0, y0) = at(below - 1);
    if below > last || x == x0 {
        return y0;
    }
    let (x1, y1) = at(below);
    (y1 - y0) / (x1 - x0) * (x - x0) + y0
}

impl QuantileTransformer {
    fn apply(&self, x: f64, quantiles: &[f64], single: bool) -> f64 {
        let round = |value: f64| if single { f64::from(value as f32) } else { value };
        if x.is_nan() {
            return x;
        }
        let (least, most) = (quantiles[0], quantiles[quantiles.len() - 1]);
        let (low, high) =
            if self.normal { (round(x - NEAR) < least, round(x + NEAR) > most) } else { (x == least, x == most) };
        let place = match (low, high) {
            (true, _) => 0.0,
            (_, true) => 1.0,
            _ => {
                let up = interpolate(x, quantiles, &self.references, false);
                round(0.5 * (up - interpolate(x, quantiles, &self.references, true)))
            }
        };
        if !self.normal {
            return place;
        }
        let edge = NEAR - f64::EPSILON;
        round(normal_quantile(place)).clamp(normal_quantile(edge), normal_quantile(1.0 - edge))
    }

    fn undo(&self, x: f64, quantiles: &[f64]) -> f64 {
        let place = if self.normal { normal_cdf(x) } else { x };
        if place.is_nan() {
            return place;
        }
        let (low, high) =
            if self.normal { (place - NEAR < 0.0, place + NEAR > 1.0) } else { (place == 0.0, place == 1.0) };
        match (low, high) {
            (true, _) => quantiles[0],
            (_, true) => quantiles[quantiles.len() - 1],
            _ => interpolate(place, &self.references, quantiles, false),
        }
    }

    fn each(&self, rows: &mut Matrix, apply: impl Fn(f64, &[f64]) -> f64) {
        for row in rows.values.chunks_exact_mut(self.quantiles.len().max(1)) {
            row.iter_mut().zip(&self.quantiles).for_each(|(value, quantiles)| *value = apply(*value, quantiles));
        }
        rows.rounded();
    }
}

impl Estimator for QuantileTransformer {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        if let Data::Sparse(sparse) = rows {
            if !self.ignores_zeros && sparse.values.iter().any(|value| *value < 0.0) {
                return Err(Error::invalid("QuantileTransformer only accepts non-negative sparse matrices."));
            }
            let apply = |column: usize, value| self.apply(value, &self.quantiles[column], false);
            return Ok(Data::Sparse(sparse.map_nonzero(apply)));
        }
        let mut out = rows.dense()?.into_owned();
        out.check_not_infinite()?;
        let single = out.single;
        self.each(&mut out, |value, quantiles| self.apply(value, quantiles, single));
        Ok(Data::Dense(out))
    }

    fn can_invert(&self) -> bool {
        true
    }

    fn inverse_transform(&self, rows: &Matrix) -> Result<Matrix> {
        rows.check_columns(self.quantiles.len())?;
        let mut out = rows.clone();
        self.each(&mut out, |value, quantiles| self.undo(value, quantiles));
        Ok(out)
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        Some(names.to_vec())
    }

    fn features(&self) -> Option<usize> {
        Some(self.quantiles.len())
    }
}
