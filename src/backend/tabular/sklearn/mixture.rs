//! Mixtures of Gaussians: how likely a row is under each of them, and so from which it is.

use super::input::{self, Input};
use super::read::{self, argmax, normalise_logs};
use crate::backend::tabular::data::{Data, Labels, Matrix, Target, is_float, stored};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, Takes, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::tensor::DType;

pub const CLASSES: &[(&str, Build)] = &[("GaussianMixture", gaussian), ("BayesianGaussianMixture", bayesian)];

/// `log(weight) + log N(x; mean, covariance)` for each component.
struct Mixture {
    /// A row for each component.
    means: Matrix,
    precisions: Precisions,
    /// All that does not depend on the row.
    constants: Vec<f64>,
    /// Squares are summed into what is of the request's own type (since 1.7, for full covariances), be that integers.
    rounds: bool,
}

/// Cholesky factors of inverse covariances.
enum Precisions {
    Full(Vec<Matrix>),
    Tied(Matrix),
    /// A row for each component.
    Diagonal(Matrix),
    Spherical(Vec<f64>),
}

impl Precisions {
    fn read(node: Node<'_>, components: usize, features: usize) -> Result<Precisions> {
        let name = "precisions_cholesky_";
        Ok(match node.read("covariance_type", Node::text)? {
            "full" => {
                let numbers = node.read(name, Node::numbers)?;
                if numbers.shape != [components, features, features] {
                    return Err(Error::load(format!("{name} has shape {:?}", numbers.shape)));
                }
                let parts = numbers.values.chunks_exact(features * features);
                Precisions::Full(parts.map(|part| Matrix::new(features, features, part.to_vec())).collect())
            }
            "tied" => Precisions::Tied(node.read(name, |node| input::matrix_of(node, features, features))?),
            "diag" => Precisions::Diagonal(node.read(name, |node| input::matrix_of(node, components, features))?),
            "spherical" => Precisions::Spherical(node.read(name, |node| node.numbers()?.vector(Some(components)))?),
            other => return Err(unsupported("covariance_type", other)),
        })
    }

    /// The logarithm of a factor's determinant.
    fn log_determinant(&self, component: usize, features: usize) -> f64 {
        let diagonal = |matrix: &Matrix| (0..features).map(|at| matrix.row(at)[at].ln()).sum();
        match self {
            Precisions::Full(parts) => diagonal(&parts[component]),
            Precisions::Tied(matrix) => diagonal(matrix),
            Precisions::Diagonal(rows) => rows.row(component).iter().map(|value| value.ln()).sum(),
            Precisions::Spherical(values) => features as f64 * values[component].ln(),
        }
    }

    /// What the squares of integers lose where numpy keeps them in the type of the integers: `X**2`, and of spheres the
    /// sum of each row's.
    fn overflow(&self, component: usize, row: &[f64], dtype: DType) -> f64 {
        // numpy has no power of truth values, but one of INT8.
        let kept = |square: f64| stored(square, if dtype == DType::Bool { DType::Int8 } else { dtype });
        let lost = |square: f64| kept(square) - square;
        match self {
            Precisions::Full(_) | Precisions::Tied(_) => 0.0,
            Precisions::Diagonal(rows) => {
                row.iter().zip(rows.row(component)).map(|(value, factor)| lost(value * value) * factor * factor).sum()
            }
            Precisions::Spherical(factors) => {
                let square: f64 = row.iter().map(|value| value * value).sum();
                // The sum of truth values is one.
                let kept = if dtype == DType::Bool { square.min(1.0) } else { stored(square, dtype) };
                (kept - square) * factors[component].powi(2)
            }
        }
    }

    /// `|x @ factor|^2` of a row less its mean; `scratch` is as long.
    fn squares(&self, component: usize, centred: &[f64], scratch: &mut [f64]) -> f64 {
        let mut product = |matrix: &Matrix| {
            scratch.fill(0.0);
            for (value, row) in centred.iter().zip(matrix.iter_rows()) {
                scratch.iter_mut().zip(row).for_each(|(out, weight)| *out += value * weight);
            }
            scratch.iter().map(|value| value * value).sum()
        };
        match self {
            Precisions::Full(parts) => product(&parts[component]),
            Precisions::Tied(matrix) => product(matrix),
            Precisions::Diagonal(rows) => centred.iter().zip(rows.row(component)).map(|(x, p)| (x * p).powi(2)).sum(),
            Precisions::Spherical(values) => centred.iter().map(|x| (x * values[component]).powi(2)).sum(),
        }
    }
}

fn read(node: Node<'_>) -> Result<Mixture> {
    let means = node.read("means_", input::matrix)?;
    let (components, features) = (means.rows, means.columns);
    let precisions = Precisions::read(node, components, features)?;
    let normal = -0.5 * features as f64 * (2.0 * std::f64::consts::PI).ln();
    let constants = (0..components).map(|component| normal + precisions.log_determinant(component, features)).collect();
    let rounds = read::version(node) >= (1, 7) && matches!(precisions, Precisions::Full(_) | Precisions::Tied(_));
    Ok(Mixture { means, precisions, constants, rounds })
}

fn gaussian(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let mut mixture = read(node)?;
    let weights = node.read("weights_", |node| node.numbers()?.vector(Some(mixture.means.rows)))?;
    mixture.constants.iter_mut().zip(weights).for_each(|(constant, weight)| *constant += weight.ln());
    Ok(Box::new(mixture))
}

/// Weights and precisions are distributions here, of which the expected logarithms count.
fn bayesian(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let mut mixture = read(node)?;
    let (components, features) = (mixture.means.rows, mixture.means.columns);
    let of_components = |name| node.read(name, |node| node.numbers()?.vector(Some(components)));
    let freedom = match mixture.precisions {
        Precisions::Tied(_) => vec![node.read("degrees_of_freedom_", Node::float)?; components],
        _ => of_components("degrees_of_freedom_")?,
    };
    let strength = of_components("mean_precision_")?;
    let columns = features as f64;
    for (component, constant) in mixture.constants.iter_mut().enumerate() {
        let freedom = freedom[component];
        let sum: f64 = (0..features).map(|column| digamma(0.5 * (freedom - column as f64))).sum();
        let spread = columns * 2.0_f64.ln() + sum - columns / strength[component];
        *constant += 0.5 * spread - 0.5 * columns * freedom.ln();
    }
    let weights = log_weights(node, components)?;
    mixture.constants.iter_mut().zip(weights).for_each(|(constant, weight)| *constant += weight);
    Ok(Box::new(mixture))
}

fn log_weights(node: Node<'_>, components: usize) -> Result<Vec<f64>> {
    let concentration = node.attr("weight_concentration_")?;
    match node.read("weight_concentration_prior_type", Node::text)? {
        // Sticks broken off one after another.
        "dirichlet_process" => {
            let [a, b] = concentration.tuple()?.map(|part| part.numbers()?.vector(Some(components)));
            let mut rest = 0.0;
            let weight = |(a, b): (f64, f64)| {
                let sum = digamma(a + b);
                let log = digamma(a) - sum + rest;
                rest += digamma(b) - sum;
                log
            };
            Ok(a?.into_iter().zip(b?).map(weight).collect())
        }
        "dirichlet_distribution" => {
            let parts = concentration.numbers()?.vector(Some(components))?;
            let sum = digamma(parts.iter().sum());
            Ok(parts.iter().map(|part| digamma(*part) - sum).collect())
        }
        other => Err(unsupported("weight_concentration_prior_type", other)),
    }
}

/// The derivative of the logarithm of the gamma function, for positive numbers: by recurrence to where its asymptotic
/// series is exact (Abramowitz and Stegun, 6.3.5 and 6.3.18).
fn digamma(mut x: f64) -> f64 {
    if x.is_nan() || x <= 0.0 {
        return f64::NAN;
    }
    let mut shift = 0.0;
    while x < 10.0 {
        shift -= 1.0 / x;
        x += 1.0;
    }
    const SERIES: [f64; 7] =
        [1.0 / 12.0, -1.0 / 120.0, 1.0 / 252.0, -1.0 / 240.0, 1.0 / 132.0, -691.0 / 32760.0, 1.0 / 12.0];
    let square = 1.0 / (x * x);
    let series = SERIES.iter().rev().fold(0.0, |sum, term| (sum + term) * square);
    shift + x.ln() - 0.5 / x - series
}

impl Mixture {
    fn logs(&self, rows: &Data) -> Result<Matrix> {
        let asked = rows.dtype();
        let dtype = if self.rounds { asked } else { DType::Fp64 };
        let rows = Input::dense(rows, self.means.columns)?;
        let components = self.means.rows;
        let mut out = Matrix::zeros(rows.rows, components);
        let mut centred = vec![0.0; self.means.columns];
        let mut scratch = centred.clone();
        for (row, out) in rows.iter_rows().zip(out.values.chunks_exact_mut(components)) {
            for (component, out) in out.iter_mut().enumerate() {
                let differences = row.iter().zip(self.means.row(component)).map(|(value, mean)| value - mean);
                centred.iter_mut().zip(differences).for_each(|(out, difference)| *out = difference);
                let mut squares = stored(self.precisions.squares(component, &centred, &mut scratch), dtype);
                if !is_float(asked) {
                    squares += self.precisions.overflow(component, row, asked);
                }
                *out = self.constants[component] - 0.5 * squares;
            }
        }
        Ok(out)
    }
}

impl Estimator for Mixture {
    fn can(&self, method: Method) -> bool {
        matches!(method, Method::Predict | Method::PredictProba)
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let components = Labels::Int((0_i64..).take(self.means.rows).collect(), DType::Int64);
        Ok(Target::one(components.pick(argmax(&self.logs(rows)?))))
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        let mut logs = self.logs(rows)?;
        normalise_logs(&mut logs);
        Ok(vec![logs])
    }

    fn features(&self) -> Option<usize> {
        Some(self.means.columns)
    }

    fn counts_types(&self) -> bool {
        true
    }

    fn takes(&self, _: usize) -> Takes {
        Takes::Typed
    }
}

#[cfg(test)]
mod tests {
    use super::digamma;

    #[test]
    fn digamma_is_as_tables_have_it() {
        for (x, expected) in [
            (1.0, -0.577_215_664_901_532_9),
            (0.5, -1.963_510_026_021_423_5),
            (10.0, 2.251_752_589_066_721),
            (0.001, -1_000.575_571_931_810_3),
            (123.4, 4.811_373_775_116_277_5),
        ] {
            assert!((digamma(x) - expected).abs() <= 1e-13 * expected.abs(), "{x}: {}", digamma(x));
        }
    }
}
