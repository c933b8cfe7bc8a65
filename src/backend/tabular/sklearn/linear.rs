//! Linear models: `x @ coef_.T + intercept_`, and what each class makes of it.

use super::read::{self, decide, expit, softmax, two_columns};
use crate::backend::tabular::data::{Data, Labels, Matrix, Target};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method};
use crate::error::{Error, Result};
use crate::formats::graph::{Node, Value};

pub const CLASSES: &[(&str, Build)] = &[
    ("LinearRegression", regressor),
    ("Ridge", regressor),
    ("RidgeCV", regressor),
    ("Lasso", regressor),
    ("LassoCV", regressor),
    ("ElasticNet", regressor),
    ("ElasticNetCV", regressor),
    ("BayesianRidge", regressor),
    ("HuberRegressor", regressor),
    ("SGDRegressor", regressor),
    ("LinearSVR", regressor),
    ("PoissonRegressor", log_regressor),
    ("GammaRegressor", log_regressor),
    ("TweedieRegressor", tweedie_regressor),
    ("LogisticRegression", logistic),
    ("LogisticRegressionCV", logistic),
    ("RidgeClassifier", margin_classifier),
    ("RidgeClassifierCV", margin_classifier),
    ("LinearSVC", margin_classifier),
    ("Perceptron", margin_classifier),
    ("PassiveAggressiveClassifier", margin_classifier),
    ("SGDClassifier", sgd_classifier),
];

/// `x @ weights.T + bias`, one row of weights for each output.
pub struct Linear {
    outputs: usize,
    features: usize,
    weights: Vec<f64>,
    bias: Vec<f64>,
    /// `coef_` is one-dimensional, so `predict` is too.
    flat: bool,
}

impl Linear {
    /// Reads `coef_` and `intercept_`.
    ///
    /// # Errors
    /// When they are missing or do not fit each other.
    pub fn read(node: Node<'_>) -> Result<Linear> {
        let coefficients = node.read("coef_", dense)?;
        let flat = coefficients.0;
        let (outputs, features, weights) = (coefficients.1, coefficients.2, coefficients.3);
        let bias = node.read("intercept_", |node| node.numbers()?.vector(None))?;
        let bias = match bias.len() {
            1 => vec![bias[0]; outputs],
            count if count == outputs => bias,
            count => return Err(Error::load(format!("intercept_: expected {outputs} values, got {count}"))),
        };
        Ok(Linear { outputs, features, weights, bias, flat })
    }

    /// A column for each output.
    ///
    /// # Errors
    /// When the rows hold NaN or infinity, or are not numbers.
    pub fn apply(&self, rows: &Data) -> Result<Matrix> {
        let mut out = Matrix::zeros(rows.rows(), self.outputs);
        if let Data::Sparse(sparse) = rows {
            for row in 0..sparse.rows {
                let outs = out.row_mut(row);
                for (output, out) in outs.iter_mut().enumerate() {
                    let weights = &self.weights[output * self.features..][..self.features];
                    *out = sparse.row(row).map(|(column, value)| value * weights[column]).sum::<f64>();
                    *out += self.bias[output];
                }
            }
            return Ok(out);
        }
        let dense = rows.dense()?;
        dense.check_finite()?;
        for (row, outs) in dense.iter_rows().zip(out.values.chunks_exact_mut(self.outputs)) {
            for ((out, weights), bias) in outs.iter_mut().zip(self.weights.chunks_exact(self.features)).zip(&self.bias)
            {
                *out = row.iter().zip(weights).map(|(value, weight)| value * weight).sum::<f64>() + bias;
            }
        }
        Ok(out)
    }

    fn target(&self, values: Vec<f64>) -> Target {
        Target { values: Labels::Float(values), columns: (!self.flat).then_some(self.outputs) }
    }
}

/// `coef_`, which `sparsify()` and `sparse_coef_` leave as a matrix of scipy.
fn dense(node: Node<'_>) -> Result<(bool, usize, usize, Vec<f64>)> {
    if let Value::Object(_) = node.value() {
        return Err(Error::load("sparse coefficients are not supported: call densify() before saving"));
    }
    let numbers = node.numbers()?;
    let flat = numbers.shape.len() < 2;
    let (outputs, features, weights) = numbers.matrix()?;
    Ok((flat, outputs, features, weights))
}

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
        other => Err(crate::backend::tabular::estimator::unsupported("link", other)),
    }
}

impl Estimator for Regressor {
    fn can(&self, method: Method) -> bool {
        method == Method::Predict
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let mut values = self.linear.apply(rows)?.values;
        values.iter_mut().for_each(|value| *value = (self.inverse_link)(*value));
        Ok(self.linear.target(values))
    }

    fn features(&self) -> Option<usize> {
        Some(self.linear.features)
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
    classes: Labels,
    probabilities: Probabilities,
}

fn classifier(node: Node<'_>, probabilities: Probabilities) -> Result<Box<dyn Estimator>> {
    let linear = Linear::read(node)?;
    let classes = read::classes(node)?;
    let expected = if classes.len() == 2 { 1 } else { classes.len() };
    // A multinomial model of two classes has one row too.
    if linear.outputs != expected || classes.len() < 2 {
        return Err(Error::load(format!("coef_ has {} rows for {} classes", linear.outputs, classes.len())));
    }
    Ok(Box::new(Classifier { linear, classes, probabilities }))
}

fn margin_classifier(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    classifier(node, Probabilities::None)
}

/// As `LogisticRegression.predict_proba` decides between one-vs-rest and softmax.
fn logistic(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let classes = node.read("classes_", read::labels)?.len();
    // 1.8 dropped the option; before, "auto" and "deprecated" meant one-vs-rest for two classes and for liblinear.
    let multi_class = node.some("multi_class").map(Node::text).transpose()?.unwrap_or("auto");
    let liblinear = node.read_some("solver", Node::text)? == Some("liblinear");
    let one_vs_rest = match multi_class {
        "ovr" | "warn" => true,
        "multinomial" => false,
        _ => classes <= 2 || liblinear,
    };
    classifier(node, if one_vs_rest { Probabilities::OneVsRest } else { Probabilities::Softmax })
}

fn sgd_classifier(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let probabilities = match node.read("loss", Node::text)? {
        "log_loss" | "log" => Probabilities::OneVsRest,
        "modified_huber" => Probabilities::ModifiedHuber,
        _ => Probabilities::None,
    };
    classifier(node, probabilities)
}

impl Estimator for Classifier {
    fn can(&self, method: Method) -> bool {
        match method {
            Method::Predict | Method::DecisionFunction => true,
            Method::PredictProba => self.probabilities != Probabilities::None,
            Method::Transform | Method::Contributions => false,
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
        let binary = scores.columns == 1;
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
                if binary {
                    return Ok(vec![two_columns(scores.values.into_iter())]);
                }
                for row in 0..scores.rows {
                    let row = scores.row_mut(row);
                    if row.iter().sum::<f64>() == 0.0 {
                        row.fill(1.0); // all classes equally likely
                    }
                    let sum: f64 = row.iter().sum();
                    row.iter_mut().for_each(|value| *value /= sum);
                }
            }
            Probabilities::OneVsRest | Probabilities::None => {
                scores.values.iter_mut().for_each(|score| *score = expit(*score));
                if binary {
                    return Ok(vec![two_columns(scores.values.into_iter())]);
                }
                for row in 0..scores.rows {
                    let row = scores.row_mut(row);
                    let sum: f64 = row.iter().sum();
                    row.iter_mut().for_each(|value| *value /= sum);
                }
            }
        }
        Ok(vec![scores])
    }

    fn features(&self) -> Option<usize> {
        Some(self.linear.features)
    }
}
