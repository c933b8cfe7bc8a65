//! Linear models: `x @ coef_.T + intercept_`, and what each class makes of it.

use super::affine::Linear;
use super::read::{self, expit, softmax, two_columns};
use super::targets::Targets;
use crate::backend::tabular::data::{Data, Labels, Matrix, Target};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::tensor::DType;

pub const CLASSES: &[(&str, Build)] = &[
    ("LinearRegression", regressor),
    ("Ridge", regressor),
    ("RidgeCV", regressor),
    ("Lasso", regressor),
    ("LassoCV", regressor),
    ("LassoLars", regressor),
    ("LassoLarsCV", regressor),
    ("LassoLarsIC", regressor),
    ("Lars", regressor),
    ("LarsCV", regressor),
    ("ElasticNet", regressor),
    ("ElasticNetCV", regressor),
    ("MultiTaskLasso", regressor),
    ("MultiTaskLassoCV", regressor),
    ("MultiTaskElasticNet", regressor),
    ("MultiTaskElasticNetCV", regressor),
    ("OrthogonalMatchingPursuit", regressor),
    ("OrthogonalMatchingPursuitCV", regressor),
    ("BayesianRidge", regressor),
    ("ARDRegression", regressor),
    ("HuberRegressor", regressor),
    ("QuantileRegressor", regressor),
    ("TheilSenRegressor", regressor),
    ("RANSACRegressor", ransac),
    ("SGDRegressor", regressor),
    ("PassiveAggressiveRegressor", regressor),
    ("LinearSVR", regressor),
    ("PoissonRegressor", log_regressor),
    ("GammaRegressor", log_regressor),
    ("TweedieRegressor", tweedie_regressor),
    ("LogisticRegression", logistic),
    ("LogisticRegressionCV", logistic),
    ("RidgeClassifier", ridge_classifier),
    ("RidgeClassifierCV", ridge_classifier),
    ("LinearSVC", margin_classifier),
    ("Perceptron", margin_classifier),
    ("PassiveAggressiveClassifier", margin_classifier),
    ("SGDClassifier", sgd_classifier),
    ("SGDOneClassSVM", one_class),
];

struct Regressor {
    linear: Linear,
    /// From the linear predictor to the mean.
    inverse_link: fn(f64) -> f64,
}

fn regressor(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    Ok(Box::new(Regressor { linear: Linear::read(node)?, inverse_link: |value| value }))
}

fn log_regressor(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    Ok(Box::new(Regressor { linear: Linear::read(node)?, inverse_link: f64::exp }))
}

fn tweedie_regressor(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let link = node.read("link", Node::text)?;
    let power = node.read("power", Node::float)?;
    match link {
        "identity" => regressor(node, builder),
        "auto" if power <= 0.0 => regressor(node, builder),
        "auto" | "log" => log_regressor(node, builder),
        other => Err(unsupported("link", other)),
    }
}

/// It answers as the estimator that it fitted to the inliers.
fn ransac(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    node.read("estimator_", |estimator| builder.build(estimator))
}

impl Estimator for Regressor {
    fn can(&self, method: Method) -> bool {
        method == Method::Predict
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let mut values = self.linear.apply(rows)?;
        values.values.iter_mut().for_each(|value| *value = (self.inverse_link)(*value));
        Ok(self.linear.target(values))
    }

    fn features(&self) -> Option<usize> {
        Some(self.linear.features())
    }
}

/// From decisions to probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probabilities {
    None,
    Softmax,
    /// Each class against the rest, then normalised.
    OneVsRest,
    /// SGD's modified Huber loss (Zhang, 2004).
    ModifiedHuber,
}

struct Classifier {
    linear: Linear,
    targets: Targets,
    probabilities: Probabilities,
}

fn classifier(node: Node<'_>, targets: Targets, probabilities: Probabilities) -> Result<Box<dyn Estimator>> {
    let linear = Linear::read(node)?;
    // A multinomial model of two classes has one row too.
    if linear.outputs() != targets.columns() {
        return Err(Error::load(format!("coef_ has {} rows, expected {}", linear.outputs(), targets.columns())));
    }
    Ok(Box::new(Classifier { linear, targets, probabilities }))
}

fn classes(node: Node<'_>) -> Result<Targets> {
    let classes = node.read("classes_", read::labels)?;
    if classes.len() < 2 {
        return Err(Error::load(format!("classes_ are {}, expected at least 2", classes.len())));
    }
    Ok(Targets::Classes(classes))
}

fn margin_classifier(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    classifier(node, classes(node)?, Probabilities::None)
}

fn ridge_classifier(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    classifier(node, node.read("_label_binarizer", Targets::read)?, Probabilities::None)
}

/// As `LogisticRegression.predict_proba` decides between one-vs-rest and softmax.
fn logistic(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let targets = classes(node)?;
    // 1.8 dropped the option; before, "auto" and "deprecated" meant one-vs-rest for two classes and for liblinear.
    let multi_class = if read::version(node) < (1, 8) { node.read("multi_class", Node::text)? } else { "auto" };
    // Until 1.5, newton-cholesky knew no more than liblinear.
    let binary_solver = match node.read("solver", Node::text)? {
        "liblinear" => true,
        "newton-cholesky" => read::version(node) < (1, 6),
        _ => false,
    };
    let one_vs_rest = match multi_class {
        "ovr" | "warn" => true,
        "multinomial" => false,
        _ => targets.columns() == 1 || binary_solver,
    };
    classifier(node, targets, if one_vs_rest { Probabilities::OneVsRest } else { Probabilities::Softmax })
}

fn sgd_classifier(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let probabilities = match node.read("loss", Node::text)? {
        "log_loss" | "log" => Probabilities::OneVsRest,
        "modified_huber" => Probabilities::ModifiedHuber,
        _ => Probabilities::None,
    };
    classifier(node, classes(node)?, probabilities)
}

impl Estimator for Classifier {
    fn can(&self, method: Method) -> bool {
        matches!(method, Method::Predict | Method::DecisionFunction)
            || (method == Method::PredictProba && self.probabilities != Probabilities::None)
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        Ok(self.targets.decide(&self.linear.apply(rows)?, 0.0))
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        self.linear.apply(rows)
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        let mut scores = self.linear.apply(rows)?;
        let binary = scores.columns == 1;
        let single = scores.single;
        match self.probabilities {
            Probabilities::Softmax if binary => {
                // Softmax over [-score, score].
                let both = scores.values.iter().flat_map(|score| [-score, *score]).collect();
                scores = Matrix::new(scores.rows, 2, both);
                softmax(&mut scores);
            }
            Probabilities::Softmax => softmax(&mut scores),
            Probabilities::ModifiedHuber => {
                scores.values.iter_mut().for_each(|score| *score = (score.clamp(-1.0, 1.0) + 1.0) / 2.0);
                // All classes are equally likely where none is likely at all.
                let impossible = |row: &&mut [f64]| row.iter().all(|value| *value == 0.0);
                scores = if binary {
                    two_columns(scores.values.into_iter())
                } else {
                    scores.values.chunks_exact_mut(scores.columns).filter(impossible).for_each(|row| row.fill(1.0));
                    shares(scores)
                };
            }
            Probabilities::OneVsRest | Probabilities::None => {
                scores.values.iter_mut().for_each(|score| *score = expit(*score));
                scores = if binary { two_columns(scores.values.into_iter()) } else { shares(scores) };
            }
        }
        scores.single = single;
        scores.rounded();
        Ok(vec![scores])
    }

    fn features(&self) -> Option<usize> {
        Some(self.linear.features())
    }
}

/// Each row divided by its sum.
fn shares(mut scores: Matrix) -> Matrix {
    for row in scores.values.chunks_exact_mut(scores.columns) {
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|value| *value /= sum);
    }
    scores
}

/// 1 for rows on the inner side of a plane, -1 for those beyond.
struct OneClass(Linear);

fn one_class(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let weights = node.read("coef_", super::input::matrix)?;
    let offset = node.read("offset_", |node| node.numbers()?.vector(Some(1)))?;
    if weights.rows != 1 {
        return Err(Error::load(format!("coef_ has {} rows, expected one", weights.rows)));
    }
    Ok(Box::new(OneClass(Linear::new(weights, vec![-offset[0]])?)))
}

impl Estimator for OneClass {
    fn can(&self, method: Method) -> bool {
        matches!(method, Method::Predict | Method::DecisionFunction)
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let inside = self.0.apply(rows)?.values.into_iter().map(|score| if score >= 0.0 { 1 } else { -1 });
        Ok(Target::one(Labels::Int(inside.collect(), DType::Int32)))
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        self.0.apply(rows)
    }

    fn features(&self) -> Option<usize> {
        Some(self.0.features())
    }
}
