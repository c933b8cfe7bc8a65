//! Gaussian processes (Rasmussen and Williams, 2006), and kernel ridge regression: a row is answered by how alike it is
//! to each of those fitted, `kernel(x, rows) @ weights`.

use super::affine::dot;
use super::covariance::Kernel;
use super::input::{self, Input};
use super::kernels;
use super::read::{self, two_columns};
use crate::backend::tabular::data::{Data, Labels, Matrix, Target};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::Node;

pub const CLASSES: &[(&str, Build)] = &[
    ("GaussianProcessRegressor", regressor),
    ("GaussianProcessClassifier", classifier),
    ("_BinaryGaussianProcessClassifierLaplace", binary),
    ("KernelRidge", ridge),
];

type Compare = Box<dyn Fn(&[f64], &[f64]) -> f64 + Send + Sync>;

struct Regressor {
    compare: Compare,
    rows: Matrix,
    /// A row for each target, a column for each fitted row.
    weights: Matrix,
    /// Of each target: `scale * y + shift`.
    scale: Vec<f64>,
    shift: Vec<f64>,
    flat: bool,
}

fn regressor(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let rows = node.read("X_train_", input::matrix)?;
    let kernel = node.read("kernel_", |kernel| Kernel::read(kernel, rows.columns))?;
    let (weights, flat) = weights(node, "alpha_", rows.rows)?;
    let targets = weights.rows;
    let of_targets = |name| {
        let values = node.read(name, |node| node.numbers()?.vector(None))?;
        match values.len() {
            1 => Ok(vec![values[0]; targets]),
            count if count == targets => Ok(values),
            count => Err(Error::load(format!("{name}: expected {targets} values, got {count}"))),
        }
    };
    let (scale, shift) = (of_targets("_y_train_std")?, of_targets("_y_train_mean")?);
    // One target is one dimension, since 1.1 in any case.
    let flat = flat || (targets == 1 && read::version(node) >= (1, 1));
    let compare: Compare = Box::new(move |a, b| kernel.between(a, b));
    Ok(Box::new(Regressor { compare, rows, weights, scale, shift, flat }))
}

/// One dimension, or a column for each target.
fn weights(node: Node<'_>, name: &str, rows: usize) -> Result<(Matrix, bool)> {
    let numbers = node.read(name, Node::numbers)?;
    let (targets, flat) = match *numbers.shape.as_slice() {
        [count] if count == rows => (1, true),
        [count, targets] if count == rows && targets > 0 => (targets, false),
        ref shape => return Err(Error::load(format!("{name} has shape {shape:?} for {rows} rows"))),
    };
    Ok((Matrix::new(rows, targets, numbers.values).transposed(), flat))
}

fn ridge(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let rows = node.read("X_fit_", input::matrix)?;
    let (weights, flat) = weights(node, "dual_coef_", rows.rows)?;
    let gamma = read::option(node, "gamma", Node::float)?;
    let coef0 = node.read("coef0", Node::float)?;
    let degree = node.read("degree", Node::float)?;
    let Ok(kernel) = node.attr("kernel")?.text() else { return Err(unsupported("kernel", "a function")) };
    let kernel = kernels::Kernel::new(kernel, gamma, Some(coef0), Some(degree), rows.columns)?;
    let compare: Compare = Box::new(move |a, b| kernel.of(a, b));
    let targets = weights.rows;
    let (scale, shift) = (vec![1.0; targets], vec![0.0; targets]);
    Ok(Box::new(Regressor { compare, rows, weights, scale, shift, flat }))
}

impl Estimator for Regressor {
    fn can(&self, method: Method) -> bool {
        method == Method::Predict
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let rows = Input::dense(rows, self.rows.columns)?;
        let targets = self.weights.rows;
        let mut out = Matrix::zeros(rows.rows, targets);
        let mut kernels = vec![0.0; self.rows.rows];
        for (row, out) in rows.iter_rows().zip(out.values.chunks_exact_mut(targets)) {
            kernels.iter_mut().zip(self.rows.iter_rows()).for_each(|(out, fitted)| *out = (self.compare)(row, fitted));
            for (target, out) in out.iter_mut().enumerate() {
                *out = self.scale[target] * dot(&kernels, self.weights.row(target)) + self.shift[target];
            }
        }
        Ok(Target { values: Labels::Float(out.values), columns: (!self.flat).then_some(targets) })
    }

    fn features(&self) -> Option<usize> {
        Some(self.rows.columns)
    }
}

/// It answers as what it fitted: one for two classes, or one-vs-rest of such.
fn classifier(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    node.read("base_estimator_", |estimator| builder.build(estimator))
}

/// Two classes, by Laplace's approximation of the posterior.
struct Binary {
    kernel: Kernel,
    classes: Labels,
    rows: Matrix,
    /// What each fitted row says: its class less what was expected.
    residuals: Vec<f64>,
    /// `W_sr_` and the lower triangle `L_`, for the variance.
    roots: Vec<f64>,
    lower: Matrix,
}

fn binary(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let rows = node.read("X_train_", input::matrix)?;
    let kernel = node.read("kernel_", |kernel| Kernel::read(kernel, rows.columns))?;
    let of_rows = |name| node.read(name, |node| node.numbers()?.vector(Some(rows.rows)));
    let (known, expected) = (of_rows("y_train_")?, of_rows("pi_")?);
    let residuals = known.iter().zip(expected).map(|(known, expected)| known - expected).collect();
    let roots = of_rows("W_sr_")?;
    let lower = node.read("L_", |node| input::matrix_of(node, rows.rows, rows.rows))?;
    let classes = node.read("classes_", read::labels)?;
    if classes.len() != 2 {
        return Err(Error::load(format!("classes_ are {}, expected 2", classes.len())));
    }
    Ok(Box::new(Binary { kernel, classes, rows, residuals, roots, lower }))
}

impl Binary {
    /// Algorithm 3.2, line 4; leaves the kernels.
    fn mean(&self, row: &[f64], kernels: &mut [f64]) -> f64 {
        let each = kernels.iter_mut().zip(self.rows.iter_rows());
        each.for_each(|(out, fitted)| *out = self.kernel.between(fitted, row));
        dot(kernels, &self.residuals)
    }

    /// Lines 5 and 6, from the kernels, which it overwrites by the solution of `L v = W_sr_ * kernels`.
    fn variance(&self, row: &[f64], kernels: &mut [f64]) -> f64 {
        for at in 0..kernels.len() {
            let lower = self.lower.row(at);
            let known = dot(&lower[..at], &kernels[..at]);
            kernels[at] = (self.roots[at] * kernels[at] - known) / lower[at];
        }
        self.kernel.own(row) - dot(kernels, kernels)
    }
}

impl Estimator for Binary {
    fn can(&self, method: Method) -> bool {
        matches!(method, Method::Predict | Method::PredictProba)
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let rows = Input::dense(rows, self.rows.columns)?;
        let mut kernels = vec![0.0; self.rows.rows];
        let second = rows.iter_rows().map(|row| usize::from(self.mean(row, &mut kernels) > 0.0));
        Ok(Target::one(self.classes.pick(second)))
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        let rows = Input::dense(rows, self.rows.columns)?;
        let mut kernels = vec![0.0; self.rows.rows];
        let mut positive = Vec::with_capacity(rows.rows);
        for row in rows.iter_rows() {
            let mean = self.mean(row, &mut kernels);
            positive.push(squash(mean, self.variance(row, &mut kernels)));
        }
        Ok(vec![two_columns(positive.into_iter())])
    }

    fn features(&self) -> Option<usize> {
        Some(self.rows.columns)
    }
}

/// The mean of the logistic function under a Gaussian, which is approximated by five error functions (Williams and
/// Barber, 1998).
fn squash(mean: f64, variance: f64) -> f64 {
    const TERMS: [(f64, f64); 5] = [
        (0.41, -1_854.821_415_1),
        (0.4, 3_516.898_936_46),
        (0.37, 221.293_467_12),
        (0.44, 128.123_238_05),
        (0.39, -2_010.494_226_54),
    ];
    let alpha = 1.0 / (2.0 * variance);
    let width = (std::f64::consts::PI / alpha).sqrt() / (2.0 * (variance * 2.0 * std::f64::consts::PI).sqrt());
    let term = |(lambda, weight): (f64, f64)| {
        weight * (width * erf(lambda * mean * (alpha / (alpha + lambda * lambda)).sqrt()) + 0.5)
    };
    TERMS.into_iter().map(term).sum()
}

/// The error function, by a series of terms of one sign (Abramowitz and Stegun, 7.1.6).
fn erf(x: f64) -> f64 {
    let size = x.abs();
    if size > 6.0 {
        return 1.0_f64.copysign(x);
    }
    let (mut term, mut sum, mut odd) = (size, size, 1.0);
    while term > sum * 1e-17 {
        odd += 2.0;
        term *= 2.0 * size * size / odd;
        sum += term;
    }
    (std::f64::consts::FRAC_2_SQRT_PI * (-size * size).exp() * sum).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::erf;

    #[test]
    fn the_error_function_is_as_tables_have_it() {
        for (x, expected) in [
            (0.0, 0.0),
            (0.1, 0.112_462_916_018_284_9),
            (-1.0, -0.842_700_792_949_714_9),
            (2.5, 0.999_593_047_982_555),
            (7.0, 1.0),
        ] {
            assert!((erf(x) - expected).abs() < 1e-15, "{x}: {}", erf(x));
        }
        assert!(erf(f64::NAN).is_nan());
    }
}
