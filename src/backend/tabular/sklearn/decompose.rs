//! Projections of rows onto fewer columns, or onto random ones.

use super::affine::is_single;
use super::{input, read};
use crate::backend::tabular::data::{Data, Matrix, Sparse};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, irreversible, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::Node;

pub const CLASSES: &[(&str, Build)] = &[
    ("PCA", pca),
    ("IncrementalPCA", pca),
    ("TruncatedSVD", truncated_svd),
    ("FastICA", fast_ica),
    ("FactorAnalysis", factor_analysis),
    ("GaussianRandomProjection", gaussian_projection),
    ("SparseRandomProjection", sparse_projection),
];

/// `rows @ components.T`, with components as rows.
///
/// # Errors
/// When the rows are not numbers.
pub fn project(rows: &Data, components: &Matrix) -> Result<Matrix> {
    let mut out = Matrix::zeros(rows.rows(), components.rows);
    match rows {
        Data::Sparse(sparse) => {
            for row in 0..sparse.rows {
                for (out, component) in out.row_mut(row).iter_mut().zip(components.iter_rows()) {
                    *out = sparse.row(row).map(|(column, value)| value * component[column]).sum();
                }
            }
        }
        rows => {
            for (place, row) in rows.dense()?.iter_rows().enumerate() {
                for (out, component) in out.row_mut(place).iter_mut().zip(components.iter_rows()) {
                    *out = dot(row, component);
                }
            }
        }
    }
    Ok(out)
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

/// A matrix, which remembers whether it is of `f32`; also one that scipy has as sparse.
///
/// # Errors
/// When it is none, or sparse and large.
pub fn matrix(node: Node<'_>) -> Result<Matrix> {
    const MOST: usize = 1 << 24;
    if node.class().is_some() {
        let sparse = input::sparse(node)?;
        if sparse.rows.saturating_mul(sparse.columns) > MOST {
            return Err(unsupported("a sparse matrix of so many columns", sparse.columns));
        }
        return sparse.to_dense();
    }
    let (rows, columns, values) = node.numbers()?.matrix()?;
    Ok(Matrix { single: is_single(node), ..Matrix::new(rows, columns, values) })
}

/// So many numbers of an attribute.
///
/// # Errors
/// When there are not as many.
pub fn vector(node: Node<'_>, name: &str, length: usize) -> Result<Vec<f64>> {
    node.read(name, |node| node.numbers()?.vector(Some(length)))
}

/// The rows, when they are as scikit-learn's check of them asks for.
///
/// # Errors
/// In its words.
pub fn checked(rows: &Data, sparse: bool) -> Result<&Data> {
    match rows {
        Data::Sparse(_) if !sparse => Err(read::sparse()),
        Data::Table(_) => rows.dense()?.check_finite().map(|()| rows),
        rows => rows.check_finite().map(|()| rows),
    }
}

/// `((x - mean) @ components.T) / scale`.
struct Projection {
    components: Matrix,
    shift: Shift,
    scale: Option<Vec<f64>>,
    takes_sparse: bool,
    /// The way back for rows: `x @ back + mean`.
    back: Option<(Matrix, Vec<f64>)>,
}

/// What is taken away: from the rows, or from what they become, which is nearly the same.
enum Shift {
    None,
    Before(Vec<f64>),
    After(Vec<f64>),
}

impl Projection {
    fn new(components: Matrix) -> Projection {
        let shift = Shift::None;
        Projection { components, shift, scale: None, takes_sparse: false, back: None }
    }
}

fn pca(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let components = node.read("components_", matrix)?;
    let mean = vector(node, "mean_", components.columns)?;
    // Since 1.5 the mean is projected too, which lets sparse rows be.
    let after = read::version(node) >= (1, 5);
    let (mut scale, mut back) = (None, components.clone());
    if node.read("whiten", Node::bool)? {
        let deviations = vector(node, "explained_variance_", components.rows)?.into_iter().map(f64::sqrt);
        let deviations: Vec<f64> = deviations.collect();
        for (row, deviation) in back.values.chunks_exact_mut(components.columns.max(1)).zip(&deviations) {
            row.iter_mut().for_each(|value| *value *= deviation);
        }
        let least = if after { if components.single { f64::from(f32::EPSILON) } else { f64::EPSILON } } else { 0.0 };
        scale = Some(deviations.into_iter().map(|deviation| deviation.max(least)).collect());
    }
    let shift = if after {
        Shift::After(components.iter_rows().map(|component| dot(&mean, component)).collect())
    } else {
        Shift::Before(mean.clone())
    };
    let back = Some((back, mean));
    // In batches that are made dense.
    let incremental = node.class().is_some_and(|class| *class.name == *"IncrementalPCA");
    let takes_sparse = after || incremental;
    Ok(Box::new(Projection { shift, scale, takes_sparse, back, ..Projection::new(components) }))
}

fn truncated_svd(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let components = node.read("components_", matrix)?;
    let back = Some((components.clone(), vec![0.0; components.columns]));
    Ok(Box::new(Projection { takes_sparse: true, back, ..Projection::new(components) }))
}

fn fast_ica(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let components = node.read("components_", matrix)?;
    let whitens = node.read("whiten", |given| Ok(given.text().is_ok() || given.bool()?))?;
    let mean = if whitens { vector(node, "mean_", components.columns)? } else { vec![0.0; components.columns] };
    let mixing = node.read("mixing_", matrix)?.transposed();
    if (mixing.rows, mixing.columns) != (components.rows, components.columns) {
        return Err(Error::load(format!("mixing_ has shape [{}, {}]", mixing.columns, mixing.rows)));
    }
    let back = Some((mixing, mean.clone()));
    Ok(Box::new(Projection { shift: Shift::Before(mean), back, ..Projection::new(components) }))
}

/// `(x - mean) @ W.T @ inv(I + W @ components.T)`, where `W = components / noise_variance` (Bishop, 12.66).
fn factor_analysis(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let components = node.read("components_", matrix)?;
    let noise = vector(node, "noise_variance_", components.columns)?;
    let mean = vector(node, "mean_", components.columns)?;
    let mut weighted = components.clone();
    for row in weighted.values.chunks_exact_mut(noise.len().max(1)) {
        row.iter_mut().zip(&noise).for_each(|(value, noise)| *value /= noise);
    }
    let count = components.rows;
    let mut covariance = project(&Data::Dense(weighted.clone()), &components)?;
    (0..count).for_each(|place| covariance.row_mut(place)[place] += 1.0);
    let inverse = invert(covariance)?;
    // As one projection: its rows are those of inverse.T @ W.
    let mut combined = Matrix::zeros(count, components.columns);
    for place in 0..count {
        for (factor, row) in weighted.iter_rows().enumerate() {
            let weight = inverse.row(factor)[place];
            combined.row_mut(place).iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * value);
        }
    }
    Ok(Box::new(Projection { shift: Shift::Before(mean), ..Projection::new(combined) }))
}

/// By Gauss and Jordan, with the greatest pivot of each column.
fn invert(mut matrix: Matrix) -> Result<Matrix> {
    let size = matrix.rows;
    let mut inverse = Matrix::zeros(size, size);
    (0..size).for_each(|place| inverse.row_mut(place)[place] = 1.0);
    for column in 0..size {
        let greatest = (column..size)
            .max_by(|one, other| matrix.row(*one)[column].abs().total_cmp(&matrix.row(*other)[column].abs()));
        let pivot = greatest.filter(|row| matrix.row(*row)[column].is_normal());
        let pivot = pivot.ok_or_else(|| Error::load("noise_variance_ makes a singular matrix"))?;
        for each in [&mut matrix, &mut inverse] {
            (0..size).for_each(|place| each.values.swap(pivot * size + place, column * size + place));
        }
        let factor = matrix.row(column)[column];
        let (left, right) = (matrix.row(column).to_vec(), inverse.row(column).to_vec());
        for row in 0..size {
            let share = if row == column { 1.0 - 1.0 / factor } else { matrix.row(row)[column] / factor };
            matrix.row_mut(row).iter_mut().zip(&left).for_each(|(value, other)| *value -= share * other);
            inverse.row_mut(row).iter_mut().zip(&right).for_each(|(value, other)| *value -= share * other);
        }
    }
    Ok(inverse)
}

fn gaussian_projection(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let components = node.read("components_", matrix)?;
    Ok(Box::new(Projection { takes_sparse: true, ..Projection::new(components) }))
}

/// Onto components that are mostly zero.
struct SparseProjection {
    components: Sparse,
    /// Sparse rows stay sparse.
    keeps_sparse: bool,
}

fn sparse_projection(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let components = node.read("components_", input::sparse)?;
    let keeps_sparse = !node.read("dense_output", Node::bool)?;
    Ok(Box::new(SparseProjection { components, keeps_sparse }))
}

impl Estimator for SparseProjection {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let rows = checked(rows, true)?;
        let keeps_sparse = self.keeps_sparse && matches!(rows, Data::Sparse(_));
        let rows = rows.dense()?;
        let mut out = Matrix::zeros(rows.rows, self.components.rows);
        for (place, row) in rows.iter_rows().enumerate() {
            for (component, out) in out.row_mut(place).iter_mut().enumerate() {
                *out = self.components.row(component).map(|(column, value)| value * row[column]).sum();
            }
        }
        Ok(if keeps_sparse { Data::Sparse(Sparse::from(&out)) } else { Data::Dense(out) })
    }

    fn components(&self) -> Option<usize> {
        Some(self.components.rows)
    }

    fn features(&self) -> Option<usize> {
        Some(self.components.columns)
    }
}

impl Estimator for Projection {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let rows = checked(rows, self.takes_sparse)?;
        let single = self.components.single && matches!(rows, Data::Dense(matrix) if matrix.single);
        let mut out = match &self.shift {
            Shift::Before(mean) => {
                let mut rows = rows.dense()?.into_owned();
                for row in rows.values.chunks_exact_mut(mean.len().max(1)) {
                    row.iter_mut().zip(mean).for_each(|(value, mean)| *value -= mean);
                }
                project(&Data::Dense(rows), &self.components)?
            }
            Shift::None | Shift::After(_) => project(rows, &self.components)?,
        };
        for row in out.values.chunks_exact_mut(out.columns.max(1)) {
            if let Shift::After(mean) = &self.shift {
                row.iter_mut().zip(mean).for_each(|(value, mean)| *value -= mean);
            }
            if let Some(scale) = &self.scale {
                row.iter_mut().zip(scale).for_each(|(value, scale)| *value /= scale);
            }
        }
        out.single = single;
        out.rounded();
        Ok(Data::Dense(out))
    }

    fn can_invert(&self) -> bool {
        self.back.is_some()
    }

    fn inverse_transform(&self, rows: &Matrix) -> Result<Matrix> {
        let (back, mean) = self.back.as_ref().ok_or_else(irreversible)?;
        rows.check_columns(back.rows)?;
        let mut out = Matrix::zeros(rows.rows, back.columns);
        for (place, row) in rows.iter_rows().enumerate() {
            let out = out.row_mut(place);
            for (value, component) in row.iter().zip(back.iter_rows()) {
                out.iter_mut().zip(component).for_each(|(out, component)| *out += value * component);
            }
            out.iter_mut().zip(mean).for_each(|(out, mean)| *out += mean);
        }
        Ok(out)
    }

    fn components(&self) -> Option<usize> {
        Some(self.components.rows)
    }

    fn features(&self) -> Option<usize> {
        Some(self.components.columns)
    }
}
