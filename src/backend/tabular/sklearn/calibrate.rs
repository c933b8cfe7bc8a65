//! Calibrated classifiers, and the isotonic regression that may calibrate them.

use super::members::{Places, check_shape, classes, probabilities};
use super::read::{self, argmax, expit, softmax};
use crate::backend::tabular::data::{Data, Labels, Matrix, Target};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, Takes, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::{Elements, Node};

pub const CLASSES: &[(&str, Build)] = &[("CalibratedClassifierCV", calibrated), ("IsotonicRegression", isotonic)];

/// The mean of what pairs of classifiers and calibrators say.
struct Calibrated {
    pairs: Vec<Pair>,
    classes: Labels,
}

/// A classifier, and what makes its scores probabilities.
struct Pair {
    classifier: Box<dyn Estimator>,
    /// Classes that it knows; the whole may have more.
    known: usize,
    calibration: Calibration,
    /// Probabilities of two classes are one column of scores, when the classifier itself knows two: since 1.4; before,
    /// when the whole does.
    own_count: bool,
}

enum Calibration {
    /// A calibrator for each class, or one for two classes; and where the classifier's classes are among all.
    EachClass(Vec<Calibrator>, Vec<usize>),
    /// `softmax(beta * logits)`, since 1.8.
    Temperature { beta: f64 },
}

enum Calibrator {
    /// `expit(-(a * x + b))` (Platt, 2000).
    Sigmoid {
        a: f64,
        b: f64,
    },
    Isotonic(Isotonic),
}

fn calibrated(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let classes = read::classes(node)?;
    if classes.len() < 2 && read::version(node) >= (1, 4) {
        return Err(Error::load("a model of one class has no predictions since scikit-learn 1.4"));
    }
    let own_count = read::version(node) >= (1, 4);
    let mut pairs = Vec::new();
    for (number, pair) in node.read("calibrated_classifiers_", Node::items)?.enumerate() {
        let pair = Pair::read(pair, builder, &classes, own_count);
        pairs.push(pair.map_err(|error| error.context(format_args!("calibrated_classifiers_[{number}]")))?);
    }
    if pairs.is_empty() {
        return Err(Error::load("calibrated_classifiers_ is empty"));
    }
    Ok(Box::new(Calibrated { pairs, classes }))
}

impl Pair {
    fn read(node: Node<'_>, builder: &mut Builder, all: &Labels, own_count: bool) -> Result<Pair> {
        let classifier = node.some("estimator").or_else(|| node.some("base_estimator")); // until 1.1
        let classifier = classifier.ok_or_else(|| Error::load("attribute \"estimator\" is missing"))?;
        let own = classes(classifier)?;
        let mut calibrators = node.read("calibrators", Node::items)?;
        let calibration = match node.read("method", Node::text)? {
            "sigmoid" | "isotonic" => {
                let places = Places::of(all).find(&own).into_iter().collect::<Option<Vec<usize>>>();
                let places = places.ok_or_else(|| Error::load("the classifier knows classes that are not here"))?;
                Calibration::EachClass(calibrators.map(Calibrator::read).collect::<Result<_>>()?, places)
            }
            "temperature" => {
                let only = calibrators.next().ok_or_else(|| Error::load("calibrators is empty"))?;
                Calibration::Temperature { beta: only.read("beta_", Node::float)? }
            }
            other => return Err(unsupported("method", other)),
        };
        Ok(Pair { classifier: builder.build(classifier)?, known: own.len(), calibration, own_count })
    }

    /// Decisions or probabilities; one column when there are two classes.
    fn scores(&self, rows: &Data, all: usize) -> Result<Matrix> {
        if self.classifier.can(Method::DecisionFunction) {
            return self.classifier.decision_function(rows);
        }
        let probabilities = probabilities(&*self.classifier, rows, self.known)?;
        let one_column = self.known >= 2 && if self.own_count { self.known == 2 } else { all == 2 };
        Ok(if one_column { probabilities.select(&[1]) } else { probabilities })
    }

    fn probabilities(&self, rows: &Data, all: usize) -> Result<Matrix> {
        let scores = self.scores(rows, all)?;
        let mut out = match &self.calibration {
            Calibration::EachClass(calibrators, places) => each_class(&scores, calibrators, places, all)?,
            Calibration::Temperature { beta } => {
                let mut logits = if self.classifier.can(Method::DecisionFunction) {
                    decision_logits(scores)
                } else {
                    probability_logits(scores)
                };
                logits.values.iter_mut().for_each(|logit| *logit *= beta);
                softmax(&mut logits);
                logits
            }
        };
        check_shape(&out, rows.rows(), all)?;
        // Sums of rounded numbers may exceed 1 a little.
        out.values.iter_mut().filter(|p| **p > 1.0 && **p <= 1.0 + 1e-5).for_each(|p| *p = 1.0);
        Ok(out)
    }
}

fn each_class(scores: &Matrix, calibrators: &[Calibrator], places: &[usize], all: usize) -> Result<Matrix> {
    let mut out = Matrix::zeros(scores.rows, all);
    for ((column, place), calibrator) in (0..scores.columns).zip(places).zip(calibrators) {
        // The only column of two classes is the second one's.
        let place = if all == 2 { place + 1 } else { *place };
        if place >= all {
            return Err(Error::internal("a calibrator of a class that there is not"));
        }
        for row in 0..scores.rows {
            out.row_mut(row)[place] = calibrator.calibrate(scores.row(row)[column])?;
        }
    }
    for row in 0..out.rows {
        let row = out.row_mut(row);
        if all == 2 {
            row[0] = 1.0 - row[1];
            continue;
        }
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|p| *p = if sum == 0.0 { 1.0 / all as f64 } else { *p / sum });
    }
    Ok(out)
}

fn decision_logits(scores: Matrix) -> Matrix {
    if scores.columns != 1 {
        return scores;
    }
    Matrix::new(scores.rows, 2, scores.values.iter().flat_map(|score| [-score, *score]).collect())
}

fn probability_logits(scores: Matrix) -> Matrix {
    const TINY: f64 = 1e-12;
    let mut scores = if scores.columns == 1 { read::two_columns(scores.values.into_iter()) } else { scores };
    scores.values.iter_mut().for_each(|p| *p = (*p + TINY).ln());
    scores
}

impl Calibrator {
    fn read(node: Node<'_>) -> Result<Calibrator> {
        match node.class().map(|class| &*class.name) {
            Some("_SigmoidCalibration") => {
                Ok(Calibrator::Sigmoid { a: node.read("a_", Node::float)?, b: node.read("b_", Node::float)? })
            }
            Some("IsotonicRegression") => Ok(Calibrator::Isotonic(Isotonic::read(node)?)),
            _ => Err(node.expected("a calibrator")),
        }
    }

    fn calibrate(&self, score: f64) -> Result<f64> {
        match self {
            Calibrator::Sigmoid { a, b } => Ok(expit(-(a * score + b))),
            Calibrator::Isotonic(isotonic) => isotonic.interpolate(score),
        }
    }
}

impl Estimator for Calibrated {
    fn can(&self, method: Method) -> bool {
        matches!(method, Method::Predict | Method::PredictProba)
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        Ok(Target::one(self.classes.pick(argmax(&self.predict_proba(rows)?[0]))))
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        let mut mean = Matrix::zeros(rows.rows(), self.classes.len());
        for pair in &self.pairs {
            let own = pair.probabilities(rows, self.classes.len())?;
            mean.values.iter_mut().zip(&own.values).for_each(|(sum, own)| *sum += own);
        }
        mean.values.iter_mut().for_each(|value| *value /= self.pairs.len() as f64);
        Ok(vec![mean])
    }

    fn features(&self) -> Option<usize> {
        self.pairs[0].classifier.features()
    }

    fn takes(&self, column: usize) -> Takes {
        self.pairs.iter().map(|pair| pair.classifier.takes(column)).max().unwrap_or_default()
    }

    fn demands(&self, column: usize) -> bool {
        self.pairs.iter().any(|pair| pair.classifier.demands(column))
    }

    fn uses(&self, column: usize) -> bool {
        self.pairs.iter().any(|pair| pair.classifier.uses(column))
    }
}

/// A monotonous function, linear between its thresholds.
struct Isotonic {
    /// Ascending.
    xs: Vec<f64>,
    ys: Vec<f64>,
    beyond: Beyond,
    /// It was fitted to `f32` and computes in them.
    single: bool,
}

/// What holds before the first and after the last threshold.
enum Beyond {
    Nan,
    Clip,
    Raise,
}

fn isotonic(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    Ok(Box::new(Isotonic::read(node)?))
}

impl Isotonic {
    fn read(node: Node<'_>) -> Result<Isotonic> {
        let xs = node.read("X_thresholds_", |xs| xs.numbers()?.vector(None))?;
        let ys = node.read("y_thresholds_", |ys| ys.numbers()?.vector(Some(xs.len())))?;
        if xs.is_empty() || !xs.is_sorted() {
            return Err(Error::load("X_thresholds_ are not in order"));
        }
        let beyond = match node.read("out_of_bounds", Node::text)? {
            "nan" => Beyond::Nan,
            "clip" => Beyond::Clip,
            "raise" => Beyond::Raise,
            other => return Err(unsupported("out_of_bounds", other)),
        };
        let array = node.read("X_thresholds_", Node::array)?;
        let single = matches!(&array.elements, Elements::Plain { element, .. } if element.size == 4);
        Ok(Isotonic { xs, ys, beyond, single })
    }

    /// As `numpy.interp`, or for `f32` as `scipy.interpolate.interp1d`.
    fn interpolate(&self, x: f64) -> Result<f64> {
        let ([first, ..], [.., last]) = (self.xs.as_slice(), self.xs.as_slice()) else { return Ok(f64::NAN) };
        let mut x = if self.single { f64::from(x as f32) } else { x };
        match self.beyond {
            Beyond::Clip => x = x.max(*first).min(*last),
            _ if self.xs.len() == 1 => {}
            Beyond::Nan if !(*first..=*last).contains(&x) => return Ok(f64::NAN),
            Beyond::Raise if x < *first => {
                return Err(Error::invalid(format!(
                    "A value ({x}) in x_new is below the interpolation range's minimum value ({first})."
                )));
            }
            Beyond::Raise if x > *last => {
                return Err(Error::invalid(format!(
                    "A value ({x}) in x_new is above the interpolation range's maximum value ({last})."
                )));
            }
            _ => {}
        }
        if self.xs.len() == 1 {
            return Ok(self.ys[0]);
        }
        if self.single {
            let high = self.xs.partition_point(|own| *own < x).clamp(1, self.xs.len() - 1);
            let [x0, x1, y0, y1] =
                [self.xs[high - 1], self.xs[high], self.ys[high - 1], self.ys[high]].map(|value| value as f32);
            return Ok(f64::from((y1 - y0) / (x1 - x0) * (x as f32 - x0) + y0));
        }
        let low = self.xs.partition_point(|own| *own <= x).saturating_sub(1);
        let (x0, y0) = (self.xs[low], self.ys[low]);
        if low + 1 == self.xs.len() || x0 == x {
            return Ok(y0);
        }
        Ok((self.ys[low + 1] - y0) / (self.xs[low + 1] - x0) * (x - x0) + y0)
    }

    fn values(&self, rows: &Data) -> Result<Vec<f64>> {
        let rows = rows.dense()?;
        if rows.columns != 1 {
            return Err(Error::invalid("Isotonic regression input X should be a 1d array or 2d array with 1 feature"));
        }
        rows.check_finite()?;
        rows.values.iter().map(|x| self.interpolate(*x)).collect()
    }
}

impl Estimator for Isotonic {
    fn can(&self, method: Method) -> bool {
        matches!(method, Method::Predict | Method::Transform)
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let values = self.values(rows)?;
        Ok(Target::one(if self.single {
            Labels::Single(values.into_iter().map(|value| value as f32).collect())
        } else {
            Labels::Float(values)
        }))
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let values = self.values(rows)?;
        Ok(Data::Dense(Matrix { rows: values.len(), columns: 1, values, single: self.single }))
    }

    fn gives_vector(&self) -> bool {
        true
    }

    fn features(&self) -> Option<usize> {
        Some(1)
    }
}
