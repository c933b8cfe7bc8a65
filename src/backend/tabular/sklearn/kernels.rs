//! Similarities of rows: `sklearn.metrics.pairwise`'s kernels.

use super::affine::dot;
use super::distances::{Metric, squared_distance};
use crate::backend::tabular::data::Matrix;
use crate::backend::tabular::estimator::unsupported;
use crate::error::Result;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kernel {
    /// `x.y`
    Linear,
    /// `(gamma x.y + coef0)^degree`
    Polynomial { gamma: f64, coef0: f64, degree: f64 },
    /// `tanh(gamma x.y + coef0)`
    Sigmoid { gamma: f64, coef0: f64 },
    /// `exp(-gamma |x - y|^2)`
    Rbf { gamma: f64 },
    /// `exp(-gamma sum(|x - y|))`
    Laplacian { gamma: f64 },
    /// `x.y / |x| / |y|`
    Cosine,
}

impl Kernel {
    /// The kernel of this name; parameters that are not given are scikit-learn's own, `gamma` that of so many columns.
    ///
    /// # Errors
    /// When there is none, or we do not compute it.
    pub fn new(
        name: &str,
        gamma: Option<f64>,
        coef0: Option<f64>,
        degree: Option<f64>,
        columns: usize,
    ) -> Result<Kernel> {
        let gamma = gamma.unwrap_or(1.0 / columns as f64);
        let coef0 = coef0.unwrap_or(1.0);
        Ok(match name {
            "linear" => Kernel::Linear,
            "poly" | "polynomial" => Kernel::Polynomial { gamma, coef0, degree: degree.unwrap_or(3.0) },
            "sigmoid" => Kernel::Sigmoid { gamma, coef0 },
            "rbf" => Kernel::Rbf { gamma },
            "laplacian" => Kernel::Laplacian { gamma },
            "cosine" => Kernel::Cosine,
            other => return Err(unsupported("kernel", other)),
        })
    }

    pub fn of(self, x: &[f64], y: &[f64]) -> f64 {
        match self {
            Kernel::Linear => dot(x, y),
            Kernel::Polynomial { gamma, coef0, degree } => (gamma * dot(x, y) + coef0).powf(degree),
            Kernel::Sigmoid { gamma, coef0 } => (gamma * dot(x, y) + coef0).tanh(),
            Kernel::Rbf { gamma } => (-gamma * squared_distance(x, y)).exp(),
            Kernel::Laplacian { gamma } => (-gamma * Metric::Manhattan.reduced(x, y)).exp(),
            Kernel::Cosine => {
                // Rows of zeros are similar to none.
                let norm = |row: &[f64]| match dot(row, row).sqrt() {
                    0.0 => 1.0,
                    norm => norm,
                };
                dot(x, y) / norm(x) / norm(y)
            }
        }
    }

    /// A column for each of the others.
    pub fn matrix(self, rows: &Matrix, others: &Matrix) -> Matrix {
        let values =
            rows.iter_rows().flat_map(|row| others.iter_rows().map(move |other| self.of(row, other))).collect();
        Matrix::new(rows.rows, others.rows, values)
    }
}
