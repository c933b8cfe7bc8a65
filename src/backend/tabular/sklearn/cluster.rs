//! Clusters by their centres: a row belongs to the nearest.

use super::affine::{dot, is_single};
use super::distances::squared_distance;
use super::input::{self, Input};
use super::read;
use crate::backend::tabular::data::{Data, Labels, Matrix, Target};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, lacks};
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::tensor::DType;

pub const CLASSES: &[(&str, Build)] = &[
    ("KMeans", k_means),
    ("MiniBatchKMeans", k_means),
    ("BisectingKMeans", bisecting),
    ("Birch", birch),
    ("MeanShift", mean_shift),
    ("AffinityPropagation", affinity),
];

/// Points, of which the nearest to a row is asked for, or how far each of them is.
pub struct Centres {
    pub points: Matrix,
    /// Half of each one's squared length.
    halves: Vec<f64>,
}

impl Centres {
    pub fn new(points: Matrix) -> Centres {
        let halves = points.iter_rows().map(|point| dot(point, point) / 2.0).collect();
        Centres { points, halves }
    }

    fn read(node: Node<'_>) -> Result<Centres> {
        let single = is_single(node);
        Ok(Centres::new(Matrix { single, ..input::matrix(node)? }))
    }

    /// The first of the nearest, as scikit-learn has it: by `|c|^2 - 2 x c`, which orders points as their distances do.
    pub fn nearest(&self, row: &[f64]) -> usize {
        let reduced = self.points.iter_rows().zip(&self.halves).map(|(point, half)| half - dot(row, point));
        let first = (0, f64::INFINITY);
        let (best, _) = reduced.enumerate().fold(first, |best, next| if next.1 < best.1 { next } else { best });
        best
    }

    /// How far each row is from each point.
    pub fn distances(&self, rows: &Matrix) -> Matrix {
        let mut out = Matrix::zeros(rows.rows, self.points.rows);
        for (row, out) in rows.iter_rows().zip(out.values.chunks_exact_mut(self.points.rows)) {
            for (out, point) in out.iter_mut().zip(self.points.iter_rows()) {
                *out = squared_distance(row, point).sqrt();
            }
        }
        out.single = rows.single && self.points.single;
        out.rounded();
        out
    }
}

struct Clusters {
    centres: Centres,
    /// What each centre is called; without centres, what all rows are.
    labels: Labels,
    halving: Option<Vec<Halving>>,
    transforms: bool,
}

fn clusters(node: Node<'_>, name: &str, dtype: DType, transforms: bool) -> Result<Clusters> {
    let centres = node.read(name, Centres::read)?;
    let labels = Labels::Int((0_i64..).take(centres.points.rows).collect(), dtype);
    Ok(Clusters { centres, labels, halving: None, transforms })
}

fn k_means(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    Ok(Box::new(clusters(node, "cluster_centers_", DType::Int32, true)?))
}

fn mean_shift(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    Ok(Box::new(clusters(node, "cluster_centers_", DType::Int64, false)?))
}

/// It may have found no clusters, and then answers -1.
fn affinity(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    match node.read("cluster_centers_", |node| Ok(node.array()?.shape.clone()))?.as_slice() {
        [0, features] if *features > 0 => {
            let centres = Centres::new(Matrix::zeros(0, *features));
            let labels = Labels::Int(vec![-1], DType::Int64);
            Ok(Box::new(Clusters { centres, labels, halving: None, transforms: false }))
        }
        _ => mean_shift(node, builder),
    }
}

fn birch(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let clusters = clusters(node, "subcluster_centers_", DType::Int64, true)?;
    let labels = node.read("subcluster_labels_", read::labels)?;
    if labels.len() != clusters.centres.points.rows {
        return Err(Error::load(format!("subcluster_labels_ are {}", labels.len())));
    }
    Ok(Box::new(Clusters { labels, ..clusters }))
}

/// A cluster that was cut in two, each of which is a cluster or was cut again.
struct Halving {
    /// Centres of the two.
    centres: Centres,
    next: [Half; 2],
}

#[derive(Clone, Copy)]
enum Half {
    Cluster(usize),
    /// Place among the halvings, which is greater than its own.
    Halving(usize),
}

fn bisecting(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let clusters = clusters(node, "cluster_centers_", DType::Int32, true)?;
    let (count, features) = (clusters.centres.points.rows, clusters.centres.points.columns);
    let mean = node.read_some("_X_mean", |node| node.numbers()?.vector(Some(features)))?;
    let mut halvings = Vec::new();
    let mut waiting = vec![node.attr("_bisecting_tree")?];
    let mut seen = 0;
    while seen < waiting.len() {
        let tree = waiting[seen];
        seen += 1;
        // One cluster needs no cut, and a file may say anything.
        if waiting.len() > 2 * count {
            return Err(Error::load("_bisecting_tree has more clusters than cluster_centers_"));
        }
        let mut halves = Vec::with_capacity(2);
        let mut points = Vec::with_capacity(2 * features);
        for side in ["left", "right"] {
            let Some(half) = read::option(tree, side, Ok)? else { continue };
            let centre = half.read("center", |node| node.numbers()?.vector(Some(features)))?;
            points.extend(centre);
            halves.push(if read::option(half, "left", Ok)?.is_some() {
                waiting.push(half);
                Half::Halving(waiting.len() - 1)
            } else {
                let label = half.read("label", Node::usize)?;
                if label >= count {
                    return Err(Error::load(format!("_bisecting_tree names cluster {label} of {count}")));
                }
                Half::Cluster(label)
            });
        }
        if let Some(mean) = &mean {
            points.chunks_exact_mut(features).for_each(|point| point.iter_mut().zip(mean).for_each(|(p, m)| *p += m));
        }
        match <[Half; 2]>::try_from(halves) {
            Ok(next) => halvings.push(Halving { centres: Centres::new(Matrix::new(2, features, points)), next }),
            Err(_) if count == 1 && seen == 1 => break,
            Err(_) => return Err(Error::load("_bisecting_tree has half a cut")),
        }
    }
    Ok(Box::new(Clusters { halving: Some(halvings), ..clusters }))
}

impl Clusters {
    fn place(&self, row: &[f64]) -> usize {
        let Some(halvings) = &self.halving else { return self.centres.nearest(row) };
        let mut at = Half::Halving(0);
        while let Half::Halving(place) = at {
            let Some(halving) = halvings.get(place) else { return 0 };
            at = halving.next[halving.centres.nearest(row)];
        }
        match at {
            Half::Cluster(cluster) => cluster,
            Half::Halving(_) => 0,
        }
    }
}

impl Estimator for Clusters {
    fn can(&self, method: Method) -> bool {
        method == Method::Predict || (method == Method::Transform && self.transforms)
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let rows = Input::dense(rows, self.centres.points.columns)?;
        Ok(Target::one(self.labels.pick(rows.iter_rows().map(|row| self.place(row)))))
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        if !self.transforms {
            return Err(lacks(Method::Transform));
        }
        let rows = Input::dense(rows, self.centres.points.columns)?;
        Ok(Data::Dense(self.centres.distances(&rows)))
    }

    fn components(&self) -> Option<usize> {
        Some(self.centres.points.rows)
    }

    fn features(&self) -> Option<usize> {
        Some(self.centres.points.columns)
    }
}
