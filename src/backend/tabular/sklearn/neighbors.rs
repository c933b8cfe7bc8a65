//! Estimators that answer with what the nearest rows they were fitted with had.

use super::affine::{floats, is_single};
use super::distances::Metric;
use super::input::Input;
use super::read::{self, argmax};
use super::search::Points;
use super::trees::interleave;
use crate::backend::tabular::data::{Data, Labels, Matrix, Target};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::tensor::DType;

pub const CLASSES: &[(&str, Build)] = &[
    ("KNeighborsClassifier", classifier),
    ("KNeighborsRegressor", regressor),
    ("RadiusNeighborsClassifier", classifier),
    ("RadiusNeighborsRegressor", regressor),
    ("LocalOutlierFactor", outliers),
];

/// Which rows count, and how much.
struct Neighbors {
    points: Points,
    reach: Reach,
    by_distance: bool,
}

#[derive(Clone, Copy)]
enum Reach {
    Nearest(usize),
    Radius(f64),
}

impl Neighbors {
    fn read(node: Node<'_>) -> Result<Neighbors> {
        let points = node.attr("_fit_X").and_then(|_| Points::read(node))?;
        let weights = read::option(node, "weights", |weights| Ok(weights.text().unwrap_or("a function")))?;
        let by_distance = match weights {
            None | Some("uniform") => false,
            Some("distance") => true,
            Some(other) => return Err(unsupported("weights", other)),
        };
        let radius = node.class().is_some_and(|class| class.name.starts_with("Radius"));
        let reach = if radius {
            Reach::Radius(node.read("radius", Node::float)?)
        } else {
            Reach::Nearest(count(node, "n_neighbors", &points)?)
        };
        Ok(Neighbors { points, reach, by_distance })
    }

    /// Weights and places of the neighbours of each row.
    fn find(&self, rows: &Data) -> Result<Vec<Vec<(f64, usize)>>> {
        let rows = Input::dense(rows, self.points.features())?;
        let one = |row: &[f64]| {
            let mut found = match self.reach {
                Reach::Nearest(k) => self.points.nearest(row, k),
                Reach::Radius(radius) => self.points.within(row, radius),
            };
            self.weigh(&mut found);
            found
        };
        Ok(rows.iter_rows().map(one).collect())
    }

    /// Turns distances into weights: where some are zero, only those count.
    fn weigh(&self, found: &mut [(f64, usize)]) {
        if !self.by_distance {
            found.iter_mut().for_each(|(weight, _)| *weight = 1.0);
            return;
        }
        found.iter_mut().for_each(|(weight, _)| *weight = 1.0 / self.points.metric.distance(*weight));
        if found.iter().any(|(weight, _)| weight.is_infinite()) {
            found.iter_mut().for_each(|(weight, _)| *weight = f64::from(u8::from(weight.is_infinite())));
        }
    }
}

/// A number of neighbours, of which there are that many.
fn count(node: Node<'_>, name: &str, points: &Points) -> Result<usize> {
    let count = node.read(name, Node::usize)?;
    if count == 0 || count > points.count() {
        return Err(Error::load(format!("{name} is {count}, of {} rows", points.count())));
    }
    Ok(count)
}

struct Classifier {
    neighbors: Neighbors,
    /// Of each output: the classes, and which of them each row had.
    outputs: Vec<(Labels, Vec<usize>)>,
    several: bool,
    /// Of radius neighbours, for rows without any: a class of each output, if there is one.
    outlier: Option<Vec<Outlier>>,
}

struct Outlier {
    label: Labels,
    class: Option<usize>,
}

fn classifier(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let neighbors = Neighbors::read(node)?;
    let several = node.read("outputs_2d_", Node::bool)?;
    let classes = node.attr("classes_")?;
    let classes =
        if several { classes.items()?.map(read::labels).collect() } else { read::labels(classes).map(|one| vec![one]) };
    let classes = classes.map_err(|error| error.context("classes_"))?;
    let known = node.read("_y", |node| node.array()?.integers())?;
    let count = neighbors.points.count().checked_mul(classes.len());
    if count != Some(known.len()) || classes.is_empty() {
        return Err(Error::load(format!("_y has {} values for {} rows", known.len(), neighbors.points.count())));
    }
    let mut outputs = Vec::new();
    for (output, labels) in classes.iter().enumerate() {
        let places: Vec<usize> =
            known.iter().skip(output).step_by(classes.len()).map(|class| *class as usize).collect();
        if places.iter().any(|place| *place >= labels.len()) {
            return Err(Error::load(format!("_y names classes beyond the {} of output {output}", labels.len())));
        }
        outputs.push((labels.clone(), places));
    }
    let outlier = |node: Node<'_>| {
        let labels: Vec<Node<'_>> = node.items()?.collect();
        if labels.len() != classes.len() {
            return Err(Error::load(format!("{} labels for {} outputs", labels.len(), classes.len())));
        }
        labels.into_iter().zip(&classes).map(|(label, classes)| outlier(label, classes)).collect::<Result<Vec<_>>>()
    };
    let outlier = match neighbors.reach {
        Reach::Nearest(_) => None,
        Reach::Radius(_) => read::option(node, "outlier_label_", outlier)?,
    };
    let outlier = match outlier {
        Some(outlier) if !several && counts_classes(node, &neighbors)? => {
            // There, a label is taken for the place of a class: 1 for the second one.
            let place = node.attr("outlier_label")?.float().ok();
            let class = (0..outputs[0].0.len()).find(|class| Some(*class as f64) == place);
            Some(outlier.into_iter().map(|outlier| Outlier { class, ..outlier }).collect())
        }
        outlier => outlier,
    };
    Ok(Box::new(Classifier { neighbors, outputs, several, outlier }))
}

/// Whether scikit-learn has `RadiusNeighborsClassMode` count classes, which it does for some metrics since 1.4.
fn counts_classes(node: Node<'_>, neighbors: &Neighbors) -> Result<bool> {
    let metric = matches!(
        neighbors.points.metric,
        Metric::Manhattan | Metric::Chebyshev | Metric::Minkowski { .. } | Metric::Haversine | Metric::Canberra
    );
    let uniform = node.some("weights").is_some_and(|weights| weights.text().is_ok_and(|text| text == "uniform"));
    let brute = node.read("_fit_method", Node::text)? == "brute";
    Ok(metric && uniform && brute && read::version(node) >= (1, 4))
}

/// A label in the type of the others, and its place among them.
fn outlier(node: Node<'_>, classes: &Labels) -> Result<Outlier> {
    let label = match classes {
        Labels::Text(_) => Labels::Text(vec![node.text()?.into()]),
        Labels::Int(_, dtype) => Labels::Int(vec![node.int()?], *dtype),
        Labels::Bool(_) => Labels::Bool(vec![node.bool()?]),
        Labels::Float(_) => Labels::Float(vec![node.float()?]),
        Labels::Single(_) => Labels::Single(vec![node.float()? as f32]),
    };
    let class = (0..classes.len()).find(|place| classes.pick(std::iter::once(*place)) == label);
    Ok(Outlier { label, class })
}

impl Classifier {
    /// Weights of classes, a matrix for each output; not yet shares.
    fn votes(&self, rows: &Data) -> Result<Vec<Matrix>> {
        let found = self.neighbors.find(rows)?;
        if self.outlier.is_none() && found.iter().any(Vec::is_empty) {
            let lonely: Vec<usize> = (0..found.len()).filter(|row| found[*row].is_empty()).take(16).collect();
            return Err(Error::invalid(format!(
                "No neighbors found for test samples {lonely:?}, you can try using larger radius, giving a label for \
                 outliers, or considering removing them from your dataset."
            )));
        }
        let votes = |(output, (classes, known)): (usize, &(Labels, Vec<usize>))| {
            let mut votes = Matrix::zeros(found.len(), classes.len());
            for (row, found) in found.iter().enumerate() {
                let votes = votes.row_mut(row);
                found.iter().for_each(|(weight, place)| votes[known[*place]] += weight);
                let outlier = self.outlier.as_ref().and_then(|outlier| outlier[output].class);
                if let (true, Some(class)) = (found.is_empty(), outlier) {
                    votes[class] = 1.0;
                }
            }
            votes
        };
        Ok(self.outputs.iter().enumerate().map(votes).collect())
    }
}

impl Estimator for Classifier {
    fn can(&self, method: Method) -> bool {
        matches!(method, Method::Predict | Method::PredictProba)
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let labels = |(output, votes): (usize, Matrix)| {
            let (classes, _) = &self.outputs[output];
            let mut labels = classes.pick(argmax(&votes));
            if let Some(outlier) = &self.outlier {
                let nothing = votes.iter_rows().map(|row| row.iter().all(|votes| *votes == 0.0));
                replace(&mut labels, nothing, &outlier[output].label);
            }
            labels
        };
        let mut columns: Vec<Labels> = self.votes(rows)?.into_iter().enumerate().map(labels).collect();
        if self.several { interleave(&columns) } else { Ok(Target::one(columns.swap_remove(0))) }
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        let mut votes = self.votes(rows)?;
        for output in &mut votes {
            for row in output.values.chunks_exact_mut(output.columns) {
                let sum: f64 = row.iter().sum();
                if sum != 0.0 {
                    row.iter_mut().for_each(|vote| *vote /= sum);
                }
            }
        }
        Ok(votes)
    }

    fn features(&self) -> Option<usize> {
        Some(self.neighbors.points.features())
    }
}

/// Puts one label, of the same type, where it is asked for.
fn replace(labels: &mut Labels, places: impl Iterator<Item = bool>, by: &Labels) {
    macro_rules! put {
        ($labels:expr, $by:expr) => {
            $labels.iter_mut().zip(places).filter(|(_, asked)| *asked).for_each(|(label, _)| *label = $by[0].clone())
        };
    }
    match (labels, by) {
        (Labels::Text(labels), Labels::Text(by)) => put!(labels, by),
        (Labels::Int(labels, _), Labels::Int(by, _)) => put!(labels, by),
        (Labels::Bool(labels), Labels::Bool(by)) => put!(labels, by),
        (Labels::Float(labels), Labels::Float(by)) => put!(labels, by),
        (Labels::Single(labels), Labels::Single(by)) => put!(labels, by),
        _ => {}
    }
}

struct Regressor {
    neighbors: Neighbors,
    /// A row for each row it was fitted with.
    known: Matrix,
    flat: bool,
    /// What rows without neighbours get.
    nothing: f64,
}

fn regressor(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let neighbors = Neighbors::read(node)?;
    let target = node.attr("_y")?;
    let numbers = node.read("_y", Node::numbers)?;
    let (rows, columns) = match *numbers.shape.as_slice() {
        [rows] => (rows, 1),
        [rows, columns] if columns > 0 => (rows, columns),
        ref shape => return Err(Error::load(format!("_y has shape {shape:?}"))),
    };
    if rows != neighbors.points.count() {
        return Err(Error::load(format!("_y has {rows} rows, _fit_X {}", neighbors.points.count())));
    }
    // A mean of singles is a single; a weighted one is not.
    let single = is_single(target) && !neighbors.by_distance;
    // numpy's NaN as an integer.
    let nothing = if target.array()?.integers().is_ok() { i64::MIN as f64 } else { f64::NAN };
    let flat = numbers.shape.len() == 1;
    let known = Matrix { single, ..Matrix::new(rows, columns, numbers.values) };
    Ok(Box::new(Regressor { neighbors, known, flat, nothing }))
}

impl Estimator for Regressor {
    fn can(&self, method: Method) -> bool {
        method == Method::Predict
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let found = self.neighbors.find(rows)?;
        let columns = self.known.columns;
        let mut out = Matrix { single: self.known.single, ..Matrix::zeros(found.len(), columns) };
        for (found, out) in found.iter().zip(out.values.chunks_exact_mut(columns)) {
            let total: f64 = found.iter().map(|(weight, _)| weight).sum();
            for (weight, place) in found {
                out.iter_mut().zip(self.known.row(*place)).for_each(|(out, known)| *out += weight * known);
            }
            out.iter_mut().for_each(|out| *out = if found.is_empty() { self.nothing } else { *out / total });
        }
        let columns = (!self.flat).then_some(columns);
        Ok(Target { values: floats(out), columns })
    }

    fn features(&self) -> Option<usize> {
        Some(self.neighbors.points.features())
    }
}

/// How much thinner a row's surroundings are than its neighbours' (Breunig et al., 2000).
struct Outliers {
    points: Points,
    k: usize,
    /// Of each fitted row: its local reachability density, and the distance of its `k`th neighbour.
    densities: Vec<f64>,
    reaches: Vec<f64>,
    offset: f64,
}

fn outliers(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    if !node.read("novelty", Node::bool)? {
        return Err(unsupported("novelty", "False"));
    }
    let points = Points::read(node)?;
    let k = count(node, "n_neighbors_", &points)?;
    let densities = node.read("_lrd", |node| node.numbers()?.vector(Some(points.count())))?;
    let (rows, columns, distances) = node.read("_distances_fit_X_", |node| node.numbers()?.matrix())?;
    if rows != points.count() || columns < k {
        return Err(Error::load(format!("_distances_fit_X_ has shape [{rows}, {columns}]")));
    }
    let reaches = distances.chunks_exact(columns).map(|row| row[k - 1]).collect();
    let offset = node.read("offset_", Node::float)?;
    Ok(Box::new(Outliers { points, k, densities, reaches, offset }))
}

impl Outliers {
    fn score(&self, row: &[f64]) -> f64 {
        let found = self.points.nearest(row, self.k);
        let reach = |(reduced, place): &(f64, usize)| self.points.metric.distance(*reduced).max(self.reaches[*place]);
        let density = 1.0 / (found.iter().map(reach).sum::<f64>() / self.k as f64 + 1e-10);
        let ratios: f64 = found.iter().map(|(_, place)| self.densities[*place] / density).sum();
        -ratios / self.k as f64 - self.offset
    }
}

impl Estimator for Outliers {
    fn can(&self, method: Method) -> bool {
        matches!(method, Method::Predict | Method::DecisionFunction)
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let scores = self.decision_function(rows)?.values.into_iter();
        Ok(Target::one(Labels::Int(scores.map(|score| if score < 0.0 { -1 } else { 1 }).collect(), DType::Int64)))
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        let rows = Input::dense(rows, self.points.features())?;
        Ok(Matrix::new(rows.rows, 1, rows.iter_rows().map(|row| self.score(row)).collect()))
    }

    fn features(&self) -> Option<usize> {
        Some(self.points.features())
    }
}
