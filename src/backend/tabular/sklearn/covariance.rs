//! Covariance functions of Gaussian processes (`sklearn.gaussian_process.kernels`): how alike two rows are.

use super::affine::dot;
use super::distances::squared_distance;
use crate::backend::tabular::estimator::unsupported;
use crate::error::{Error, Result};
use crate::formats::graph::Node;

pub enum Kernel {
    Sum(Box<Kernel>, Box<Kernel>),
    Product(Box<Kernel>, Box<Kernel>),
    Power(Box<Kernel>, f64),
    Constant(f64),
    /// Noise: each row is like nothing but itself.
    White(f64),
    /// By the distance of rows divided by `scales`: one, or one for each column.
    Radial {
        of: Radial,
        scales: Vec<f64>,
    },
    RationalQuadratic {
        scale: f64,
        alpha: f64,
    },
    Periodic {
        scale: f64,
        period: f64,
    },
    DotProduct {
        offset: f64,
    },
}

/// Functions of a distance.
#[derive(Clone, Copy)]
pub enum Radial {
    Gaussian,
    /// Matérn's, of the smoothness 1/2, 3/2 and 5/2.
    Matern1,
    Matern3,
    Matern5,
}

/// More than any kernel is made of: objects may contain others many times over.
const MAX_PARTS: usize = 256;

impl Kernel {
    /// # Errors
    /// When it is none that is computed, or does not fit the number of columns.
    pub fn read(node: Node<'_>, features: usize) -> Result<Kernel> {
        Kernel::part(node, features, &mut 0, 0)
    }

    fn part(node: Node<'_>, features: usize, parts: &mut usize, depth: usize) -> Result<Kernel> {
        *parts += 1;
        if *parts > MAX_PARTS || depth > 32 {
            return Err(Error::load(format!("a kernel of more than {MAX_PARTS} parts")));
        }
        let mut part =
            |name: &str| node.read(name, |node| Kernel::part(node, features, parts, depth + 1)).map(Box::new);
        let float = |name: &str| node.read(name, Node::float);
        let radial = |of| -> Result<Kernel> {
            let scales = node.read("length_scale", |node| node.numbers()?.vector(None))?;
            if scales.len() != 1 && scales.len() != features {
                return Err(Error::load(format!("length_scale has {} values for {features} columns", scales.len())));
            }
            Ok(Kernel::Radial { of, scales })
        };
        let Some(class) = node.class() else { return Err(node.expected("a kernel")) };
        match &*class.name {
            "Sum" => Ok(Kernel::Sum(part("k1")?, part("k2")?)),
            "Product" => Ok(Kernel::Product(part("k1")?, part("k2")?)),
            "Exponentiation" => Ok(Kernel::Power(part("kernel")?, float("exponent")?)),
            "ConstantKernel" => Ok(Kernel::Constant(float("constant_value")?)),
            "WhiteKernel" => Ok(Kernel::White(float("noise_level")?)),
            "RBF" => radial(Radial::Gaussian),
            "Matern" => match float("nu")? {
                0.5 => radial(Radial::Matern1),
                1.5 => radial(Radial::Matern3),
                2.5 => radial(Radial::Matern5),
                f64::INFINITY => radial(Radial::Gaussian),
                other => Err(unsupported("nu", other)),
            },
            "RationalQuadratic" => {
                Ok(Kernel::RationalQuadratic { scale: float("length_scale")?, alpha: float("alpha")? })
            }
            "ExpSineSquared" => Ok(Kernel::Periodic { scale: float("length_scale")?, period: float("periodicity")? }),
            "DotProduct" => Ok(Kernel::DotProduct { offset: float("sigma_0")? }),
            other => Err(unsupported("kernel", other)),
        }
    }

    /// Of two rows that are not the same one.
    pub fn between(&self, a: &[f64], b: &[f64]) -> f64 {
        match self {
            Kernel::Sum(one, other) => one.between(a, b) + other.between(a, b),
            Kernel::Product(one, other) => one.between(a, b) * other.between(a, b),
            Kernel::Power(kernel, exponent) => kernel.between(a, b).powf(*exponent),
            Kernel::Constant(value) => *value,
            Kernel::White(_) => 0.0,
            Kernel::Radial { of, scales } => {
                let square = match scales.as_slice() {
                    [scale] => squared_distance(a, b) / (scale * scale),
                    scales => a.iter().zip(b).zip(scales).map(|((a, b), scale)| ((a - b) / scale).powi(2)).sum(),
                };
                of.of(square)
            }
            Kernel::RationalQuadratic { scale, alpha } => {
                (1.0 + squared_distance(a, b) / (2.0 * alpha * scale * scale)).powf(-alpha)
            }
            Kernel::Periodic { scale, period } => {
                let angle = std::f64::consts::PI / period * squared_distance(a, b).sqrt();
                (-2.0 * (angle.sin() / scale).powi(2)).exp()
            }
            Kernel::DotProduct { offset } => dot(a, b) + offset * offset,
        }
    }

    /// Of a row and itself.
    pub fn own(&self, row: &[f64]) -> f64 {
        match self {
            Kernel::Sum(one, other) => one.own(row) + other.own(row),
            Kernel::Product(one, other) => one.own(row) * other.own(row),
            Kernel::Power(kernel, exponent) => kernel.own(row).powf(*exponent),
            Kernel::White(noise) => *noise,
            kernel => kernel.between(row, row),
        }
    }
}

impl Radial {
    fn of(self, square: f64) -> f64 {
        let scaled = |factor: f64| (factor * square).sqrt();
        match self {
            Radial::Gaussian => (-0.5 * square).exp(),
            Radial::Matern1 => (-square.sqrt()).exp(),
            Radial::Matern3 => (1.0 + scaled(3.0)) * (-scaled(3.0)).exp(),
            Radial::Matern5 => (1.0 + scaled(5.0) + 5.0 * square / 3.0) * (-scaled(5.0)).exp(),
        }
    }
}
