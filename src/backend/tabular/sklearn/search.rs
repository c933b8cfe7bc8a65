//! The nearest of the rows that an estimator was fitted with, by scikit-learn's trees where it grew one.
//!
//! Which of several equally distant rows are found depends on the order in which they are looked at, so trees are
//! walked and heaps filled as scikit-learn does (`_binary_tree.pxi`, `_heap.pyx`).

use super::distances::Metric;
use super::input;
use crate::backend::tabular::data::Matrix;
use crate::backend::tabular::estimator::unsupported;
use crate::error::{Error, Result};
use crate::formats::graph::Node;

/// Rows to search, with their tree.
pub struct Points {
    /// Prepared for the metric.
    rows: Matrix,
    pub metric: Metric,
    tree: Option<Tree>,
}

/// A `KDTree` or `BallTree`: node `i` has the children `2i + 1` and `2i + 2`.
struct Tree {
    nodes: Vec<TreeNode>,
    /// The rows in the order of leaves.
    order: Vec<usize>,
    bounds: Bounds,
}

#[derive(Clone, Copy)]
struct TreeNode {
    start: usize,
    end: usize,
    leaf: bool,
    radius: f64,
}

/// Of each node.
enum Bounds {
    /// The least and the greatest value of each column.
    Boxes { low: Matrix, high: Matrix, p: f64 },
    /// Centroids, around which the nodes' radius holds all rows.
    Balls(Matrix),
}

impl Points {
    /// Reads `_fit_X`, `_tree` and the metric of an estimator of neighbours.
    ///
    /// # Errors
    /// When they do not fit each other, or the metric is not supported.
    pub fn read(node: Node<'_>) -> Result<Points> {
        let mut rows = node.read("_fit_X", input::matrix)?;
        let metric =
            Metric::read(node.attr("effective_metric_")?, Some(node.attr("effective_metric_params_")?), rows.columns)?;
        rows.values.chunks_exact_mut(rows.columns).for_each(|row| metric.prepare(row));
        let tree = match node.read("_fit_method", Node::text)? {
            // Where it computes them by scipy, versions and types of numbers differ in what their sum is.
            "brute" if metric == Metric::BrayCurtis && rows.values.iter().any(|value| *value < 0.0) => {
                return Err(unsupported("metric", "braycurtis of numbers below zero"));
            }
            "brute" => None,
            _ => Some(node.read("_tree", |node| Tree::read(node, &rows, &metric))?),
        };
        Ok(Points { rows, metric, tree })
    }

    pub fn count(&self) -> usize {
        self.rows.rows
    }

    pub fn features(&self) -> usize {
        self.rows.columns
    }

    /// The `k` nearest rows, nearest first, as reduced distances and places.
    pub fn nearest(&self, row: &[f64], k: usize) -> Vec<(f64, usize)> {
        let mut row = row.to_vec();
        self.metric.prepare(&mut row);
        let mut heap = Heap(vec![(f64::INFINITY, 0); k]);
        match &self.tree {
            Some(tree) => tree.nearest(self, 0, &row, tree.least(self, 0, &row), &mut heap),
            None => {
                let distances = self.rows.iter_rows().map(|point| self.metric.reduced(&row, point));
                distances.enumerate().for_each(|(place, distance)| heap.push(distance, place));
            }
        }
        heap.0.sort_by(|a, b| a.0.total_cmp(&b.0));
        heap.0
    }

    /// All rows at most this far away, as reduced distances and places.
    pub fn within(&self, row: &[f64], radius: f64) -> Vec<(f64, usize)> {
        let mut row = row.to_vec();
        self.metric.prepare(&mut row);
        let radius = self.metric.reduce(radius);
        let mut found = Vec::new();
        let mut look = |place: usize| {
            let distance = self.metric.reduced(&row, self.rows.row(place));
            if distance <= radius {
                found.push((distance, place));
            }
        };
        let Some(tree) = &self.tree else {
            (0..self.count()).for_each(look);
            return found;
        };
        let mut waiting = vec![0];
        while let Some(at) = waiting.pop() {
            let node = tree.nodes[at];
            if tree.least(self, at, &row) > radius {
                continue;
            }
            if node.leaf {
                tree.order[node.start..node.end].iter().for_each(|place| look(*place));
            } else {
                waiting.extend([2 * at + 2, 2 * at + 1]);
            }
        }
        found
    }
}

impl Tree {
    /// From its state: data, order, nodes, bounds, and counts.
    fn read(node: Node<'_>, rows: &Matrix, metric: &Metric) -> Result<Tree> {
        let state = node.object()?.state.map(|state| node.at(state)).ok_or_else(|| node.expected("a tree"))?;
        let parts: Vec<Node<'_>> = state.items()?.collect();
        let [_, order, nodes, bounds, ..] = *parts.as_slice() else { return Err(state.expected("a tree's state")) };
        let order: Vec<usize> = order.array()?.integers()?.into_iter().map(|place| place as usize).collect();
        let array = nodes.array()?;
        let field = |name: &str| {
            array.field(name)?.ok_or_else(|| Error::load(format!("the tree's nodes have no field \"{name}\"")))
        };
        let (starts, ends) = (field("idx_start")?, field("idx_end")?);
        let (leaves, radii) = (field("is_leaf")?, field("radius")?);
        let nodes: Vec<TreeNode> = (0..starts.len())
            .map(|at| TreeNode {
                start: starts[at] as usize,
                end: ends[at] as usize,
                leaf: leaves[at] != 0.0,
                radius: radii[at],
            })
            .collect();
        let sound = |(at, node): (usize, &TreeNode)| {
            node.start <= node.end && node.end <= order.len() && (node.leaf || 2 * at + 2 < nodes.len())
        };
        let within = order.iter().all(|place| *place < rows.rows);
        if nodes.is_empty() || !within || !nodes.iter().enumerate().all(sound) {
            return Err(Error::load("the tree is damaged"));
        }
        let bounds = bounds.numbers()?;
        let size = nodes.len() * rows.columns;
        let side = |at: usize| Matrix::new(nodes.len(), rows.columns, bounds.values[at * size..][..size].to_vec());
        let bounds = match (bounds.shape.as_slice(), metric.power()) {
            ([2, count, columns], Some(p)) if (*count, *columns) == (nodes.len(), rows.columns) => {
                Bounds::Boxes { low: side(0), high: side(1), p }
            }
            ([1, count, columns], _) if (*count, *columns) == (nodes.len(), rows.columns) => Bounds::Balls(side(0)),
            (shape, _) => return Err(Error::load(format!("the tree's bounds have shape {shape:?}"))),
        };
        Ok(Tree { nodes, order, bounds })
    }

    /// The least reduced distance that a row of a node may have.
    fn least(&self, points: &Points, at: usize, row: &[f64]) -> f64 {
        match &self.bounds {
            Bounds::Boxes { low, high, p } => {
                let beyond = low.row(at).iter().zip(high.row(at)).zip(row).map(|((low, high), value)| {
                    let (below, above) = (low - value, value - high);
                    0.5 * ((below + below.abs()) + (above + above.abs()))
                });
                match *p {
                    2.0 => beyond.map(|d| d * d).sum(),
                    1.0 => beyond.sum(),
                    f64::INFINITY => beyond.fold(0.0, f64::max),
                    p => beyond.map(|d| d.powf(p)).sum(),
                }
            }
            Bounds::Balls(centroids) => {
                let metric = &points.metric;
                let distance = metric.distance(metric.reduced(row, centroids.row(at)));
                metric.reduce((distance - self.nodes[at].radius).max(0.0))
            }
        }
    }

    /// Looks into the nearer child first. Children are as deep as the tree, which is as deep as its size has bits.
    fn nearest(&self, points: &Points, at: usize, row: &[f64], least: f64, heap: &mut Heap) {
        let node = self.nodes[at];
        if least > heap.greatest() {
            return;
        }
        if node.leaf {
            for place in &self.order[node.start..node.end] {
                heap.push(points.metric.reduced(row, points.rows.row(*place)), *place);
            }
            return;
        }
        let (left, right) = (2 * at + 1, 2 * at + 2);
        let (to_left, to_right) = (self.least(points, left, row), self.least(points, right, row));
        let order = if to_left <= to_right {
            [(left, to_left), (right, to_right)]
        } else {
            [(right, to_right), (left, to_left)]
        };
        for (child, least) in order {
            self.nearest(points, child, row, least, heap);
        }
    }
}

/// The least distances so far, the greatest of them first.
struct Heap(Vec<(f64, usize)>);

impl Heap {
    fn greatest(&self) -> f64 {
        self.0[0].0
    }

    fn push(&mut self, distance: f64, place: usize) {
        let heap = &mut self.0;
        if distance >= heap[0].0 {
            return;
        }
        let mut at = 0;
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let child = match (heap.get(left), heap.get(right)) {
                (Some(one), Some(other)) if one.0 < other.0 => right,
                (Some(_), _) => left,
                (None, _) => break,
            };
            if heap[child].0 <= distance {
                break;
            }
            heap[at] = heap[child];
            at = child;
        }
        heap[at] = (distance, place);
    }
}
