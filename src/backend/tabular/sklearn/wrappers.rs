//! Estimators that leave the work to the one inside: searches, thresholds, transformed targets.

use super::members::{Places, check_shape, classes, probabilities};
use super::read;
use crate::backend::tabular::data::{Data, Labels, Matrix, Target};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, Names, Takes, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::{Node, Value};
use crate::tensor::DType;

pub const CLASSES: &[(&str, Build)] = &[
    ("GridSearchCV", search),
    ("RandomizedSearchCV", search),
    ("HalvingGridSearchCV", search),
    ("HalvingRandomSearchCV", search),
    ("SelfTrainingClassifier", self_training),
    ("FrozenEstimator", frozen),
    ("FixedThresholdClassifier", fixed_threshold),
    ("TunedThresholdClassifierCV", tuned_threshold),
    ("TransformedTargetRegressor", transformed_target),
];

/// Once fitted, a search is the best estimator that it found.
fn search(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    if node.find("best_estimator_").is_none() {
        return Err(Error::load("attribute \"best_estimator_\" is missing (is the model fitted, with refit=True?)"));
    }
    node.read("best_estimator_", |inner| builder.build(inner))
}

fn self_training(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let name = if node.find("estimator_").is_some() { "estimator_" } else { "base_estimator_" }; // until 1.5
    node.read(name, |inner| builder.build(inner))
}

fn frozen(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    node.read("estimator", |inner| builder.build(inner))
}

/// Decides between two classes by another score than one half.
struct Threshold {
    inner: Box<dyn Estimator>,
    classes: Labels,
    score: Method,
    /// From which on the positive class is meant.
    least: f64,
    /// The class that great scores mean.
    positive: usize,
}

fn fixed_threshold(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let given = match node.attr("threshold")?.text() {
        Ok(_) => None, // "auto"
        Err(_) => Some(node.read("threshold", Node::float)?),
    };
    let positive = read::option(node, "pos_label", Ok)?;
    threshold(node, builder, given, positive)
}

fn tuned_threshold(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let scorer = node.attr("_curve_scorer")?;
    let positive = scorer.attr("_kwargs")?.some("pos_label");
    if positive.is_none() && asks_for_one(scorer)? {
        // Their default is the class 1; with other classes than 0 and 1 that may be the first one.
        let known = node.read("estimator_", classes)?;
        if Places::of(&known).find(&Labels::Float(vec![1.0])) != [Some(1)] {
            return Err(unsupported("scoring", "a function of the class 1, which is not the second one"));
        }
    }
    let best = node.read("best_threshold_", Node::float)?;
    threshold(node, builder, Some(best), positive)
}

/// Whether the scoring function has an option `pos_label` that is 1 unless it is given.
fn asks_for_one(scorer: Node<'_>) -> Result<bool> {
    let function = scorer.attr("_score_func")?.value();
    let ones = ["f1_score", "fbeta_score", "jaccard_score", "precision_score", "recall_score"];
    Ok(matches!(function, Value::Name(name) if ones.contains(&&*name.name)))
}

fn threshold(
    node: Node<'_>,
    builder: &mut Builder,
    threshold: Option<f64>,
    positive: Option<Node<'_>>,
) -> Result<Box<dyn Estimator>> {
    let inner = node.some("estimator_").map_or_else(|| node.attr("estimator"), Ok)?;
    let classes = classes(inner)?;
    if classes.len() != 2 {
        return Err(Error::load(format!("{} classes, expected 2", classes.len())));
    }
    let inner = builder.build(inner)?;
    let score = match node.read("response_method", Node::text)? {
        "auto" if inner.can(Method::PredictProba) => Method::PredictProba,
        "auto" => Method::DecisionFunction,
        other => Method::parse(other).ok_or_else(|| unsupported("response_method", other))?,
    };
    let positive = match positive {
        None => 1,
        Some(label) => {
            let label = read::label(label).map_err(|error| error.context("pos_label"))?;
            let place = Places::of(&classes).find(&label).first().copied().flatten();
            place.ok_or_else(|| Error::load("pos_label is not one of the classes"))?
        }
    };
    let least = threshold.unwrap_or(if score == Method::PredictProba { 0.5 } else { 0.0 });
    Ok(Box::new(Threshold { inner, classes, score, least, positive }))
}

impl Threshold {
    fn scores(&self, rows: &Data) -> Result<Vec<f64>> {
        if self.score == Method::PredictProba {
            let probabilities = probabilities(&*self.inner, rows, 2)?;
            return Ok(probabilities.iter_rows().map(|row| row[self.positive]).collect());
        }
        let scores = self.inner.decision_function(rows)?;
        check_shape(&scores, rows.rows(), 1)?;
        let sign = if self.positive == 1 { 1.0 } else { -1.0 };
        Ok(scores.values.into_iter().map(|score| sign * score).collect())
    }
}

impl Estimator for Threshold {
    fn can(&self, method: Method) -> bool {
        match method {
            Method::Predict => true,
            Method::PredictProba | Method::DecisionFunction => self.inner.can(method),
            Method::Transform | Method::Contributions => false,
        }
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let chosen = self.scores(rows)?.into_iter().map(|score| {
            let is_positive = score >= self.least;
            if is_positive { self.positive } else { 1 - self.positive }
        });
        Ok(Target::one(self.classes.pick(chosen)))
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        self.inner.predict_proba(rows)
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        self.inner.decision_function(rows)
    }

    fn features(&self) -> Option<usize> {
        self.inner.features()
    }

    fn names(&self) -> Names<'_> {
        self.inner.names()
    }

    fn takes(&self, column: usize) -> Takes {
        self.inner.takes(column)
    }

    fn counts_types(&self) -> bool {
        self.inner.counts_types()
    }

    fn demands(&self, column: usize) -> bool {
        self.inner.demands(column)
    }

    fn uses(&self, column: usize) -> bool {
        self.inner.uses(column)
    }
}

/// A regression of transformed targets, whose predictions are transformed back.
struct TransformedTarget {
    regressor: Box<dyn Estimator>,
    transformer: Box<dyn Estimator>,
    /// Targets were one-dimensional.
    flat: bool,
}

fn transformed_target(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    Ok(Box::new(TransformedTarget {
        regressor: node.read("regressor_", |inner| builder.build(inner))?,
        transformer: node.read("transformer_", |inner| inverse(inner, builder))?,
        flat: node.read("_training_dim", Node::usize)? == 1,
    }))
}

/// A transformer whose inverse is computed here, which not all are.
fn inverse(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let transformer = builder.build(node)?;
    let class = node.class().map_or("", |class| &*class.name);
    if transformer.can_invert() {
        Ok(transformer)
    } else {
        Err(unsupported("inverse_transform", format!("of {class}")))
    }
}

impl Estimator for TransformedTarget {
    fn can(&self, method: Method) -> bool {
        method == Method::Predict
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let target = self.regressor.predict(rows)?;
        let single = matches!(target.values, Labels::Single(_));
        let columns = target.columns.unwrap_or(1);
        let given = Matrix { rows: rows.rows(), columns, values: target.values.numbers()?, single };
        check_shape(&Matrix { rows: given.values.len(), columns: 1, ..Matrix::default() }, rows.rows() * columns, 1)?;
        let answer = self.transformer.inverse_transform(&given)?;
        check_shape(&answer, given.rows, answer.columns)?;
        let columns = (!self.flat || answer.columns != 1).then_some(answer.columns);
        // What was of no category is None there, which no integer is.
        let gives = self.transformer.inverse_gives().filter(|_| answer.values.iter().all(|value| !value.is_nan()));
        let own = if answer.single { DType::Fp32 } else { DType::Fp64 };
        Ok(Target { values: Labels::cast(answer.values, gives.unwrap_or(own)), columns })
    }

    fn features(&self) -> Option<usize> {
        self.regressor.features()
    }

    fn names(&self) -> Names<'_> {
        self.regressor.names()
    }

    fn takes(&self, column: usize) -> Takes {
        self.regressor.takes(column)
    }

    fn demands(&self, column: usize) -> bool {
        self.regressor.demands(column)
    }

    fn uses(&self, column: usize) -> bool {
        self.regressor.uses(column)
    }
}
