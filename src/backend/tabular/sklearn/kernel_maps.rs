//! Maps of rows into columns where a kernel is (nearly) a product, and kernel PCA.

use std::sync::Arc;

use super::decompose::{checked, matrix, project, vector};
use super::kernels::Kernel;
use super::read;
use crate::backend::tabular::data::{Data, Matrix, Sparse, stored};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, MOST_NAMES, Method, Takes, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::Node;

pub const CLASSES: &[(&str, Build)] = &[
    ("KernelPCA", kernel_pca),
    ("Nystroem", nystroem),
    ("RBFSampler", rbf_sampler),
    ("SkewedChi2Sampler", skewed_chi2_sampler),
    ("AdditiveChi2Sampler", additive_chi2_sampler),
];

/// Similarities to the rows that it was fitted with, centred when `centre` says around what, then projected.
struct KernelMap {
    kernel: Kernel,
    fitted: Matrix,
    centre: Option<(Vec<f64>, f64)>,
    components: Matrix,
}

fn some_float(node: Node<'_>, name: &str) -> Result<Option<f64>> {
    read::option(node, name, Node::float)
}

fn kernel_name(node: Node<'_>) -> Result<&str> {
    node.read("kernel", |kernel| kernel.text().map_err(|_| unsupported("kernel", "a function")))
}

fn kernel_pca(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let fitted = node.read("X_fit_", matrix)?;
    let own = read::option_since((1, 3), node, "gamma_", Node::float)?;
    let gamma = own.or(some_float(node, "gamma")?);
    let (coef0, degree) = (some_float(node, "coef0")?, some_float(node, "degree")?);
    let kernel = Kernel::new(kernel_name(node)?, gamma, coef0, degree, fitted.columns)?;
    let eigenvalues = node.read("eigenvalues_", |node| node.numbers()?.vector(None))?;
    let vectors = node.read("eigenvectors_", matrix)?;
    if vectors.rows != fitted.rows || vectors.columns != eigenvalues.len() {
        return Err(Error::load(format!("eigenvectors_ are of {} rows, not {}", vectors.rows, fitted.rows)));
    }
    let mut components = Matrix::zeros(vectors.columns, vectors.rows);
    for (place, value) in eigenvalues.iter().enumerate().filter(|(_, value)| **value != 0.0) {
        let column = vectors.iter_rows().map(|row| row[place] / value.sqrt());
        components.row_mut(place).iter_mut().zip(column).for_each(|(out, value)| *out = value);
    }
    let centre = node.read("_centerer", |node| {
        Ok((vector(node, "K_fit_rows_", fitted.rows)?, node.read("K_fit_all_", Node::float)?))
    })?;
    Ok(Box::new(KernelMap { kernel, fitted, centre: Some(centre), components }))
}

fn nystroem(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    read::no_arguments(node, "kernel_params")?;
    let fitted = node.read("components_", matrix)?;
    let (gamma, coef0, degree) = (some_float(node, "gamma")?, some_float(node, "coef0")?, some_float(node, "degree")?);
    let kernel = Kernel::new(kernel_name(node)?, gamma, coef0, degree, fitted.columns)?;
    let components = node.read("normalization_", matrix)?;
    if components.columns != fitted.rows {
        return Err(Error::load(format!("normalization_ is of {} columns, not {}", components.columns, fitted.rows)));
    }
    Ok(Box::new(KernelMap { kernel, fitted, centre: None, components }))
}

impl Estimator for KernelMap {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let rows = checked(rows, true)?.dense()?;
        let mut similarities = self.kernel.matrix(&rows, &self.fitted);
        if let Some((means, mean)) = &self.centre {
            for row in similarities.values.chunks_exact_mut(means.len().max(1)) {
                let own = row.iter().sum::<f64>() / means.len() as f64;
                row.iter_mut().zip(means).for_each(|(value, column)| *value = *value - column - own + mean);
            }
        }
        Ok(Data::Dense(project(&Data::Dense(similarities), &self.components)?))
    }

    fn components(&self) -> Option<usize> {
        Some(self.components.rows)
    }

    fn features(&self) -> Option<usize> {
        Some(self.fitted.columns)
    }
}

/// `factor * cos(x @ weights + offset)`, of the logarithms of the rows when they are `skewed` by so much.
struct Waves {
    /// Transposed: a row for each column out.
    weights: Matrix,
    offset: Vec<f64>,
    factor: f64,
    skewed: Option<f64>,
}

fn waves(node: Node<'_>, skewed: Option<f64>) -> Result<Box<dyn Estimator>> {
    let given = node.read("random_weights_", matrix)?;
    let offset = vector(node, "random_offset_", given.columns)?;
    let values = (0..given.columns).flat_map(|column| given.iter_rows().map(move |row| row[column])).collect();
    let weights = Matrix::new(given.columns, given.rows, values);
    let count = node.read("n_components", Node::float)?;
    let factor = if skewed.is_some() { 2.0_f64.sqrt() / count.sqrt() } else { (2.0 / count).sqrt() };
    Ok(Box::new(Waves { weights, offset, factor, skewed }))
}

fn rbf_sampler(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    waves(node, None)
}

fn skewed_chi2_sampler(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    waves(node, Some(node.read("skewedness", Node::float)?))
}

impl Estimator for Waves {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let rows = checked(rows, self.skewed.is_none())?;
        let mut out = match self.skewed {
            None => project(rows, &self.weights)?,
            Some(skewedness) => {
                let mut rows = rows.dense()?.into_owned();
                if rows.values.iter().any(|value| *value <= -skewedness) {
                    return Err(Error::invalid("X may not contain entries smaller than -skewedness."));
                }
                rows.values.iter_mut().for_each(|value| *value = (*value + skewedness).ln());
                project(&Data::Dense(rows), &self.weights)?
            }
        };
        for row in out.values.chunks_exact_mut(self.offset.len().max(1)) {
            row.iter_mut().zip(&self.offset).for_each(|(value, offset)| *value = self.factor * (*value + offset).cos());
        }
        Ok(Data::Dense(out))
    }

    fn components(&self) -> Option<usize> {
        Some(self.offset.len())
    }

    fn features(&self) -> Option<usize> {
        Some(self.weights.columns)
    }
}

/// Vedaldi and Zisserman's map of the additive chi-squared kernel: `2 * steps - 1` numbers for each.
struct AdditiveChi2 {
    features: Option<usize>,
    steps: u32,
    interval: f64,
}

fn additive_chi2_sampler(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let steps = node.read("sample_steps", Node::usize)?;
    let own = match steps {
        1 => Some(0.8),
        2 => Some(0.5),
        3 => Some(0.4),
        _ => None,
    };
    let interval = some_float(node, "sample_interval")?.or(own);
    match (u32::try_from(steps).ok().filter(|steps| (1..=1000).contains(steps)), interval) {
        (Some(steps), Some(interval)) => {
            Ok(Box::new(AdditiveChi2 { features: read::features(node)?, steps, interval }))
        }
        _ => Err(unsupported("sample_steps", steps)),
    }
}

impl Estimator for AdditiveChi2 {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let sparse = matches!(rows, Data::Sparse(_));
        let dtype = rows.dtype();
        let rows = checked(rows, true)?.dense()?;
        if rows.values.iter().any(|value| *value < 0.0) {
            return Err(Error::invalid("Negative values in data passed to X in AdditiveChi2Sampler.transform"));
        }
        let map = |value: f64, place: u32| {
            let step = f64::from(place.div_ceil(2));
            let angle = step * self.interval * value.ln();
            let width = (2.0 * value * self.interval / (std::f64::consts::PI * step * self.interval).cosh()).sqrt();
            match place {
                _ if value == 0.0 => 0.0,
                0 => (value * self.interval).sqrt(),
                place if place % 2 == 1 => width * angle.cos(),
                _ => width * angle.sin(),
            }
        };
        let places = 2 * self.steps - 1;
        let values = rows
            .iter_rows()
            .flat_map(|row| (0..places).flat_map(move |place| row.iter().map(move |value| map(*value, place))));
        // What is computed is put into what is of the type of the rows.
        let values = values.map(|value| stored(value, dtype)).collect();
        let out = Matrix::new(rows.rows, rows.columns * places as usize, values);
        Ok(if sparse { Data::Sparse(Sparse::from(&out)) } else { Data::of_type(out, dtype) })
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        let steps = (1..self.steps).flat_map(|step| [format!("cos{step}"), format!("sin{step}")]);
        let kinds = std::iter::once("sqrt".to_owned()).chain(steps);
        let of_kind = |kind: String| names.iter().map(move |name| format!("additivechi2sampler_{name}_{kind}").into());
        (names.len() * 2 * self.steps as usize <= MOST_NAMES).then(|| kinds.flat_map(of_kind).collect())
    }

    fn counts_types(&self) -> bool {
        true
    }

    fn takes(&self, _: usize) -> Takes {
        Takes::Typed
    }

    fn features(&self) -> Option<usize> {
        self.features
    }
}
