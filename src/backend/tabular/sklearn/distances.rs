//! How far two rows are from each other: scikit-learn's `DistanceMetric`.
//!
//! Searches compare reduced distances, which order rows as distances do and take less to compute.

use crate::backend::tabular::estimator::unsupported;
use crate::error::{Error, Result};
use crate::formats::graph::Node;

#[derive(Clone, Debug, PartialEq)]
pub enum Metric {
    Euclidean,
    SquaredEuclidean,
    Manhattan,
    Chebyshev,
    /// `sum(w * |a - b|^p)^(1/p)`, weights empty for 1.
    Minkowski {
        p: f64,
        weights: Vec<f64>,
    },
    /// 1 less the cosine of the angle between the rows.
    Cosine,
    /// On a sphere of radius 1, from latitude and longitude in radians.
    Haversine,
    /// The share of columns that differ.
    Hamming,
    Canberra,
    /// Euclidean, of columns divided by their deviations, whose squares these are.
    Standardized(Vec<f64>),
    /// `sqrt((a - b) V (a - b))`, a row of the matrix after the other.
    Mahalanobis(Vec<f64>),
    BrayCurtis,
    /// 1 less the correlation of the rows.
    Correlation,
    /// Of columns that are zero or not.
    Shares(Shares),
}

/// How the counts of columns where both rows, one row, the other, or none has something make a distance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shares {
    Jaccard,
    Dice,
    RogersTanimoto,
    RussellRao,
    SokalSneath,
    Yule,
}

impl Shares {
    fn of(self, a: &[f64], b: &[f64]) -> f64 {
        let mut counts = [[0.0; 2]; 2];
        a.iter().zip(b).for_each(|(a, b)| counts[usize::from(*a != 0.0)][usize::from(*b != 0.0)] += 1.0);
        let [[none, other], [one, both]] = counts;
        let (all, unlike) = (a.len() as f64, one + other);
        match self {
            Shares::Jaccard if both + unlike == 0.0 => 0.0,
            Shares::Jaccard => unlike / (both + unlike),
            Shares::Dice => unlike / (2.0 * both + unlike),
            Shares::RogersTanimoto => 2.0 * unlike / (all + unlike),
            Shares::RussellRao => (all - both) / all,
            Shares::SokalSneath => unlike / (both * 0.5 + unlike),
            Shares::Yule if one * other == 0.0 => 0.0,
            Shares::Yule => 2.0 * one * other / (both * none + one * other),
        }
    }
}

impl Metric {
    /// From its name, and parameters as `effective_metric_params_` has them.
    ///
    /// # Errors
    /// When it is a function, one that is not computed, or does not fit the number of columns.
    pub fn read(name: Node<'_>, parameters: Option<Node<'_>>, features: usize) -> Result<Metric> {
        let Ok(name) = name.text() else { return Err(unsupported("metric", "a function")) };
        let parameter = |name: &str| parameters.and_then(|parameters| parameters.some(name));
        Ok(match name {
            "euclidean" | "l2" => Metric::Euclidean,
            "sqeuclidean" => Metric::SquaredEuclidean,
            "manhattan" | "cityblock" | "l1" => Metric::Manhattan,
            "chebyshev" | "infinity" => Metric::Chebyshev,
            "minkowski" | "p" => {
                let p = parameter("p").map_or(Ok(2.0), Node::float)?;
                let weights = parameter("w").map(|node| node.numbers()?.vector(Some(features))).transpose()?;
                if p.is_nan() || p <= 0.0 || (p.is_infinite() && weights.is_some()) {
                    return Err(unsupported("p", p));
                }
                match weights {
                    None if p == 1.0 => Metric::Manhattan,
                    None if p == 2.0 => Metric::Euclidean,
                    None if p.is_infinite() => Metric::Chebyshev,
                    weights => Metric::Minkowski { p, weights: weights.unwrap_or_default() },
                }
            }
            "cosine" => Metric::Cosine,
            "haversine" if features == 2 => Metric::Haversine,
            "haversine" => return Err(Error::load(format!("haversine distances need 2 columns, not {features}"))),
            "hamming" => Metric::Hamming,
            "canberra" => Metric::Canberra,
            // Without these parameters the rows of a request would decide.
            "seuclidean" => match parameter("V") {
                Some(variances) => Metric::Standardized(variances.numbers()?.vector(Some(features))?),
                None => return Err(unsupported("metric_params", "None")),
            },
            "mahalanobis" => match parameter("VI").map(|inverse| inverse.numbers()?.matrix()).transpose()? {
                Some((rows, columns, values)) if (rows, columns) == (features, features) => Metric::Mahalanobis(values),
                Some((rows, ..)) => return Err(Error::load(format!("VI has {rows} rows for {features} columns"))),
                None => return Err(unsupported("metric_params", "those without VI")),
            },
            "braycurtis" => Metric::BrayCurtis,
            "correlation" => Metric::Correlation,
            "jaccard" => Metric::Shares(Shares::Jaccard),
            "dice" => Metric::Shares(Shares::Dice),
            "rogerstanimoto" | "sokalmichener" => Metric::Shares(Shares::RogersTanimoto),
            "russellrao" => Metric::Shares(Shares::RussellRao),
            "sokalsneath" => Metric::Shares(Shares::SokalSneath),
            "yule" => Metric::Shares(Shares::Yule),
            other => return Err(unsupported("metric", other)),
        })
    }

    /// Prepares a row that will be compared with many.
    pub fn prepare(&self, row: &mut [f64]) {
        if *self == Metric::Cosine {
            let norm = row.iter().map(|value| value * value).sum::<f64>().sqrt();
            if norm > 0.0 {
                row.iter_mut().for_each(|value| *value /= norm);
            }
        }
        if *self == Metric::Correlation {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            row.iter_mut().for_each(|value| *value -= mean);
        }
    }

    /// Between prepared rows of equal length, summed in order: what ties depends on it.
    pub fn reduced(&self, a: &[f64], b: &[f64]) -> f64 {
        let differences = a.iter().zip(b).map(|(a, b)| a - b);
        match self {
            Metric::Euclidean | Metric::SquaredEuclidean => squared_distance(a, b),
            Metric::Manhattan => differences.map(f64::abs).sum(),
            Metric::Chebyshev => differences.map(f64::abs).fold(0.0, f64::max),
            Metric::Minkowski { p, weights } if weights.is_empty() => differences.map(|d| d.abs().powf(*p)).sum(),
            Metric::Minkowski { p, weights } => differences.zip(weights).map(|(d, w)| w * d.abs().powf(*p)).sum(),
            Metric::Cosine => (1.0 - a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>()).clamp(0.0, 2.0),
            Metric::Haversine => {
                let (north, east) = ((0.5 * (a[0] - b[0])).sin(), (0.5 * (a[1] - b[1])).sin());
                north * north + a[0].cos() * b[0].cos() * east * east
            }
            Metric::Hamming => differences.filter(|d| *d != 0.0).count() as f64 / a.len() as f64,
            Metric::Canberra => {
                let share = |(a, b): (&f64, &f64)| match a.abs() + b.abs() {
                    0.0 => 0.0,
                    sum => (a - b).abs() / sum,
                };
                a.iter().zip(b).map(share).sum()
            }
            Metric::Standardized(variances) => differences.zip(variances).map(|(d, v)| d * d / v).sum(),
            Metric::Mahalanobis(inverse) => {
                let differences: Vec<f64> = differences.collect();
                let rows = inverse.chunks_exact(differences.len());
                let product = |row: &[f64]| row.iter().zip(&differences).map(|(v, d)| v * d).sum::<f64>();
                rows.zip(&differences).map(|(row, d)| product(row) * d).sum()
            }
            Metric::BrayCurtis => {
                let (apart, size) = a
                    .iter()
                    .zip(b)
                    .fold((0.0, 0.0), |(apart, size), (a, b)| (apart + (a - b).abs(), size + (a.abs() + b.abs())));
                if size > 0.0 { apart / size } else { 0.0 }
            }
            Metric::Correlation => {
                let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                1.0 - (product(a, b) / (product(a, a).sqrt() * product(b, b).sqrt())).clamp(-1.0, 1.0)
            }
            Metric::Shares(shares) => shares.of(a, b),
        }
    }

    pub fn distance(&self, reduced: f64) -> f64 {
        match self {
            Metric::Euclidean | Metric::Standardized(_) | Metric::Mahalanobis(_) => reduced.sqrt(),
            Metric::Minkowski { p, .. } => reduced.powf(1.0 / p),
            Metric::Haversine => 2.0 * reduced.sqrt().asin(),
            _ => reduced,
        }
    }

    /// Undoes [`Metric::distance`].
    pub fn reduce(&self, distance: f64) -> f64 {
        match self {
            Metric::Euclidean | Metric::Standardized(_) | Metric::Mahalanobis(_) => distance * distance,
            Metric::Minkowski { p, .. } => distance.powf(*p),
            Metric::Haversine => (0.5 * distance).sin().powi(2),
            _ => distance,
        }
    }

    /// `p` of those that are a norm of the difference, which a tree of boxes needs.
    pub fn power(&self) -> Option<f64> {
        match self {
            Metric::Euclidean => Some(2.0),
            Metric::Manhattan => Some(1.0),
            Metric::Chebyshev => Some(f64::INFINITY),
            Metric::Minkowski { p, weights } if weights.is_empty() => Some(*p),
            _ => None,
        }
    }
}

/// Summed in order.
pub fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}
