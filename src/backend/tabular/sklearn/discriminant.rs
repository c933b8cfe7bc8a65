//! Classes as Gaussians: linear and quadratic discriminant analysis, and the nearest centroid.

use super::affine::{Linear, dot};
use super::distances::Metric;
use super::input::{self, Input};
use super::read::{self, argmax, decide, expit, softmax, two_columns};
use crate::backend::tabular::data::{Data, Labels, Matrix, Target};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, lacks};
use crate::error::{Error, Result};
use crate::formats::graph::Node;

pub const CLASSES: &[(&str, Build)] = &[
    ("LinearDiscriminantAnalysis", linear),
    ("QuadraticDiscriminantAnalysis", quadratic),
    ("NearestCentroid", centroid),
];

fn classes(node: Node<'_>) -> Result<Labels> {
    let classes = node.read("classes_", read::labels)?;
    if classes.len() < 2 {
        return Err(Error::load(format!("classes_ are {}, expected at least 2", classes.len())));
    }
    Ok(classes)
}

struct LinearDiscriminant {
    linear: Linear,
    classes: Labels,
    /// Onto the directions that tell classes apart; the solver "lsqr" finds none, and one class has none.
    projection: Option<Linear>,
}

fn linear(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let linear = Linear::read(node)?;
    let classes = node.read("classes_", read::labels)?;
    node.read("means_", |means| input::matrix_of(means, classes.len(), linear.features()))?;
    let expected = if classes.len() == 2 { 1 } else { classes.len() };
    if linear.outputs() != expected {
        return Err(Error::load(format!("coef_ has {} rows for {} classes", linear.outputs(), classes.len())));
    }
    let projection = match node.read("solver", Node::text)? {
        "svd" if classes.len() == 1 => None,
        _ if classes.len() == 1 => {
            return Err(Error::load("a model of one class has predictions of solver \"svd\" only"));
        }
        "lsqr" => None,
        solver => Some(projection(node, linear.features(), solver == "svd")?),
    };
    Ok(Box::new(LinearDiscriminant { linear, classes, projection }))
}

/// `(x - xbar_) @ scalings_[:, :_max_components]`.
fn projection(node: Node<'_>, features: usize, centred: bool) -> Result<Linear> {
    let scalings = node.read("scalings_", input::matrix)?;
    let components = node.read("_max_components", Node::usize)?.min(scalings.columns);
    if scalings.rows != features || components == 0 {
        return Err(Error::load(format!("scalings_ has shape [{}, {}]", scalings.rows, scalings.columns)));
    }
    let centre =
        if centred { node.read("xbar_", |node| node.numbers()?.vector(Some(features)))? } else { vec![0.0; features] };
    let components: Vec<usize> = (0..components).collect();
    let weights = scalings.select(&components).transposed();
    let shifts = weights.iter_rows().map(|row| -dot(row, &centre)).collect();
    Linear::new(weights, shifts)
}

impl Estimator for LinearDiscriminant {
    fn can(&self, method: Method) -> bool {
        match method {
            Method::Predict | Method::DecisionFunction => true,
            Method::PredictProba => self.classes.len() > 1,
            Method::Transform => self.projection.is_some(),
            Method::Contributions => false,
        }
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        Ok(decide(&self.classes, &self.linear.apply(rows)?))
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        self.linear.apply(rows)
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        let mut scores = self.linear.apply(rows)?;
        if scores.columns == 1 {
            return Ok(vec![two_columns(scores.values.into_iter().map(expit))]);
        }
        softmax(&mut scores);
        Ok(vec![scores])
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let projection = self.projection.as_ref().ok_or_else(|| lacks(Method::Transform))?;
        Ok(Data::Dense(projection.apply(rows)?))
    }

    fn components(&self) -> Option<usize> {
        self.projection.as_ref().map(Linear::outputs)
    }

    fn features(&self) -> Option<usize> {
        Some(self.linear.features())
    }
}

/// Classes by log posteriors, a column for each.
struct ByScores {
    classes: Labels,
    features: usize,
    scores: Scores,
}

enum Scores {
    Quadratic(Vec<Quadratic>),
    Centroids(Centroids),
}

/// `-0.5 * |(x - mean) @ whitening|^2 + constant`
struct Quadratic {
    mean: Vec<f64>,
    /// A row for each direction.
    whitening: Linear,
    constant: f64,
}

fn quadratic(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let classes = classes(node)?;
    let means = node.read("means_", input::matrix)?;
    let features = means.columns;
    let priors = node.read("priors_", |node| node.numbers()?.vector(Some(classes.len())))?;
    let rotations: Vec<Node<'_>> = node.read("rotations_", Node::items)?.collect();
    let scalings: Vec<Node<'_>> = node.read("scalings_", Node::items)?.collect();
    if [means.rows, rotations.len(), scalings.len()] != [classes.len(); 3] {
        return Err(Error::load(format!("means_, rotations_ or scalings_ are not of {} classes", classes.len())));
    }
    let part = |class: usize| {
        let rotation = input::matrix(rotations[class])?;
        let scaling = scalings[class].numbers()?.vector(Some(rotation.columns))?;
        if rotation.rows != features {
            return Err(Error::load(format!("rotations_ have {} rows, expected {features}", rotation.rows)));
        }
        let mut whitening = rotation.transposed();
        for (row, scale) in whitening.values.chunks_exact_mut(features).zip(&scaling) {
            row.iter_mut().for_each(|weight| *weight *= scale.powf(-0.5));
        }
        let whitening = Linear::new(whitening, vec![0.0])?;
        let spread: f64 = scaling.iter().map(|scale| scale.ln()).sum();
        Ok(Quadratic { mean: means.row(class).to_vec(), whitening, constant: priors[class].ln() - 0.5 * spread })
    };
    let parts = (0..classes.len()).map(part).collect::<Result<Vec<_>>>()?;
    Ok(Box::new(ByScores { classes, features, scores: Scores::Quadratic(parts) }))
}

/// A row for each class; since 1.6 with the classes' spread and priors.
struct Centroids {
    metric: Metric,
    points: Matrix,
    posterior: Option<Posterior>,
}

/// `2 log(prior) - d^2` between rows that are divided by the columns' spread.
struct Posterior {
    spread: Vec<f64>,
    logs: Vec<f64>,
    /// All are alike, so that the nearest centroid decides as it is.
    uniform: bool,
}

fn centroid(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let classes = classes(node)?;
    let centroids = node.read("centroids_", input::matrix)?;
    let features = centroids.columns;
    if centroids.rows != classes.len() {
        return Err(Error::load(format!("centroids_ has {} rows for {} classes", centroids.rows, classes.len())));
    }
    let metric = Metric::read(node.attr("metric")?, None, features)?;
    let priors = |node: Node<'_>| node.numbers()?.vector(Some(classes.len()));
    let posterior = match read::option_since((1, 6), node, "class_prior_", priors)? {
        None => None,
        Some(priors) => {
            let mut spread = node.read("within_class_std_dev_", |node| node.numbers()?.vector(Some(features)))?;
            spread.iter_mut().filter(|spread| **spread == 0.0).for_each(|spread| *spread = 1.0);
            let even = 1.0 / classes.len() as f64;
            let uniform = priors.iter().all(|prior| (prior - even).abs() <= 1e-8 + 1e-5 * even); // numpy's isclose
            Some(Posterior { spread, logs: priors.iter().map(|prior| 2.0 * prior.ln()).collect(), uniform })
        }
    };
    Ok(Box::new(ByScores {
        classes,
        features,
        scores: Scores::Centroids(Centroids { metric, points: centroids, posterior }),
    }))
}

impl Centroids {
    /// The negative distance from each centroid.
    fn nearness(&self, rows: &Matrix) -> Matrix {
        let mut centroids = self.points.clone();
        centroids.values.chunks_exact_mut(centroids.columns).for_each(|row| self.metric.prepare(row));
        self.each(rows, &centroids, |reduced, _| -reduced)
    }

    fn posteriors(&self, rows: &Matrix, posterior: &Posterior) -> Matrix {
        let scaled = |matrix: &Matrix| {
            let mut scaled = matrix.clone();
            for row in scaled.values.chunks_exact_mut(matrix.columns) {
                row.iter_mut().zip(&posterior.spread).for_each(|(value, spread)| *value /= spread);
                self.metric.prepare(row);
            }
            scaled
        };
        let square = |reduced: f64, class: usize| posterior.logs[class] - self.metric.distance(reduced).powi(2);
        self.each(&scaled(rows), &scaled(&self.points), square)
    }

    fn each(&self, rows: &Matrix, centroids: &Matrix, score: impl Fn(f64, usize) -> f64) -> Matrix {
        let mut out = Matrix::zeros(rows.rows, centroids.rows);
        let mut prepared = vec![0.0; rows.columns];
        for (row, out) in rows.iter_rows().zip(out.values.chunks_exact_mut(centroids.rows)) {
            prepared.copy_from_slice(row);
            self.metric.prepare(&mut prepared);
            for (class, (out, centroid)) in out.iter_mut().zip(centroids.iter_rows()).enumerate() {
                *out = score(self.metric.reduced(&prepared, centroid), class);
            }
        }
        out
    }
}

impl ByScores {
    fn scores(&self, rows: &Data) -> Result<Matrix> {
        let rows = Input::dense(rows, self.features)?;
        let parts = match &self.scores {
            Scores::Quadratic(parts) => parts,
            Scores::Centroids(centroids) => {
                let posterior = centroids.posterior.as_ref().ok_or_else(|| lacks(Method::DecisionFunction))?;
                return Ok(centroids.posteriors(&rows, posterior));
            }
        };
        let mut out = Matrix::zeros(rows.rows, parts.len());
        for (class, part) in parts.iter().enumerate() {
            let centred = rows.iter_rows().flat_map(|row| row.iter().zip(&part.mean).map(|(value, mean)| value - mean));
            let white = part.whitening.apply_dense(&Matrix::new(rows.rows, rows.columns, centred.collect()));
            for (row, white) in white.iter_rows().enumerate() {
                let squares: f64 = white.iter().map(|value| value * value).sum();
                out.row_mut(row)[class] = part.constant - 0.5 * squares;
            }
        }
        Ok(out)
    }
}

impl Estimator for ByScores {
    fn can(&self, method: Method) -> bool {
        let scores = match &self.scores {
            Scores::Quadratic(_) => true,
            Scores::Centroids(centroids) => centroids.posterior.is_some() && centroids.metric == Metric::Euclidean,
        };
        method == Method::Predict || (scores && matches!(method, Method::PredictProba | Method::DecisionFunction))
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let scores = match &self.scores {
            Scores::Centroids(centroids) if centroids.posterior.as_ref().is_none_or(|posterior| posterior.uniform) => {
                centroids.nearness(&*Input::dense(rows, self.features)?)
            }
            _ => self.scores(rows)?,
        };
        Ok(Target::one(self.classes.pick(argmax(&scores))))
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        let scores = self.scores(rows)?;
        if scores.columns != 2 {
            return Ok(scores);
        }
        let values = scores.iter_rows().map(|row| row[1] - row[0]).collect();
        Ok(Matrix::new(scores.rows, 1, values))
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        let mut scores = self.scores(rows)?;
        softmax(&mut scores);
        Ok(vec![scores])
    }

    fn features(&self) -> Option<usize> {
        Some(self.features)
    }
}
