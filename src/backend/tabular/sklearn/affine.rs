//! `x @ weights.T + bias`: all of a linear model, a layer of a neural network, most of naive Bayes.

use super::input::{self, Input};
use crate::backend::tabular::data::{Data, Labels, Matrix, Sparse, Target};
use crate::error::{Error, Result};
use crate::formats::graph::{Elements, Node, Value};

/// One row of weights for each output.
pub struct Linear {
    outputs: usize,
    features: usize,
    weights: Vec<f64>,
    bias: Vec<f64>,
    /// `coef_` is one-dimensional, so `predict` is too.
    flat: bool,
    /// Weights and bias are `f32`, so what they make of `f32` is too.
    single: bool,
}

impl Linear {
    /// Weights of shape (outputs, features), and a bias for each output.
    ///
    /// # Errors
    /// When they do not fit each other.
    pub fn new(weights: Matrix, bias: Vec<f64>) -> Result<Linear> {
        let (outputs, features) = (weights.rows, weights.columns);
        let bias = match bias.len() {
            1 => vec![bias[0]; outputs],
            count if count == outputs => bias,
            count => return Err(Error::load(format!("intercept_: expected {outputs} values, got {count}"))),
        };
        if outputs == 0 || features == 0 {
            return Err(Error::load(format!("coef_ has shape [{outputs}, {features}]")));
        }
        Ok(Linear { outputs, features, weights: weights.values, bias, flat: false, single: weights.single })
    }

    /// Reads `coef_` and `intercept_`.
    ///
    /// # Errors
    /// When they are missing or do not fit each other.
    pub fn read(node: Node<'_>) -> Result<Linear> {
        let mut weights = node.read("coef_", input::matrix)?; // sparse after `sparsify()`
        let flat = match node.attr("coef_")?.array() {
            Ok(array) => array.shape.len() < 2,
            Err(_) => weights.rows == 1, // regressors with sparse coefficients answer in one dimension
        };
        let intercept = node.attr("intercept_")?;
        weights.single = is_single(node.attr("coef_")?) && (intercept.array().is_err() || is_single(intercept));
        let bias = node.read("intercept_", |node| node.numbers()?.vector(None))?;
        Ok(Linear { flat, ..Linear::new(weights, bias)? })
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    pub fn features(&self) -> usize {
        self.features
    }

    /// A column for each output.
    ///
    /// # Errors
    /// When the rows hold NaN or infinity, or are not numbers, or not as many as the weights.
    pub fn apply(&self, rows: &Data) -> Result<Matrix> {
        Ok(self.apply_input(&Input::check(rows, self.features)?))
    }

    /// As [`Linear::apply`], for rows that have been checked.
    pub fn apply_input(&self, rows: &Input<'_>) -> Matrix {
        match rows {
            Input::Dense(dense) => self.apply_dense(dense),
            Input::Sparse(sparse) => self.apply_sparse(sparse),
        }
    }

    pub fn apply_dense(&self, rows: &Matrix) -> Matrix {
        const BLOCK: usize = 8; // rows that share a row of weights while it is in the nearest cache
        let mut out = Matrix::zeros(rows.rows, self.outputs);
        let blocks = rows.values.chunks(BLOCK * self.features).zip(out.values.chunks_mut(BLOCK * self.outputs));
        for (block, outs) in blocks {
            for (output, weights) in self.weights.chunks_exact(self.features).enumerate() {
                let outs = outs.iter_mut().skip(output).step_by(self.outputs);
                for (row, out) in block.chunks_exact(self.features).zip(outs) {
                    *out = dot(row, weights) + self.bias[output];
                }
            }
        }
        out.single = rows.single && self.single;
        out.rounded();
        out
    }

    fn apply_sparse(&self, rows: &Sparse) -> Matrix {
        let mut out = Matrix::zeros(rows.rows, self.outputs);
        for (row, outs) in out.values.chunks_exact_mut(self.outputs).enumerate() {
            for ((out, weights), bias) in outs.iter_mut().zip(self.weights.chunks_exact(self.features)).zip(&self.bias)
            {
                *out = rows.row(row).map(|(column, value)| value * weights[column]).sum::<f64>() + bias;
            }
        }
        out
    }

    /// What a regressor answers with, in `coef_`'s dimensions.
    pub fn target(&self, values: Matrix) -> Target {
        Target { columns: (!self.flat).then_some(self.outputs), values: floats(values) }
    }
}

/// Numbers of a matrix, with the type numpy would have for them.
pub fn floats(values: Matrix) -> Labels {
    if values.single {
        Labels::Single(values.values.iter().map(|value| *value as f32).collect())
    } else {
        Labels::Float(values.values)
    }
}

/// Whether this is an array of `f32`.
pub fn is_single(node: Node<'_>) -> bool {
    let node = if input::is_sparse(node) { node.find("data").unwrap_or(node) } else { node };
    matches!(node.value(), Value::Array(array)
        if matches!(&array.elements, Elements::Plain { element, .. } if element.kind == b'f' && element.size == 4))
}

/// `sum(a * b)`, in several partial sums as BLAS does: faster than one, and more exact.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}
