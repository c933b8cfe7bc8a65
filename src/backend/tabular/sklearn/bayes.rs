//! Naive Bayes: the logarithm of each class's prior and likelihood, added up over columns as if they knew nothing of
//! each other.

use super::affine::Linear;
use super::input::{self, Input};
use super::read::{self, argmax, normalise_logs};
use crate::backend::tabular::data::{Data, Labels, Matrix, Sparse, Target};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method};
use crate::error::{Error, Result};
use crate::formats::graph::Node;

pub const CLASSES: &[(&str, Build)] = &[
    ("GaussianNB", gaussian),
    ("MultinomialNB", multinomial),
    ("ComplementNB", complement),
    ("BernoulliNB", bernoulli),
    ("CategoricalNB", categorical),
];

struct Bayes {
    classes: Labels,
    features: usize,
    likelihood: Likelihood,
}

/// From rows to joint log likelihoods, a column for each class.
enum Likelihood {
    Gaussian(Gaussian),
    /// Counts of words: `x @ feature_log_prob_.T + class_log_prior_`.
    Counts(Linear),
    /// As counts of 0 and 1, by a threshold.
    Bits {
        linear: Linear,
        threshold: Option<f64>,
    },
    Categories(Categories),
}

fn build(node: Node<'_>, features: usize, likelihood: Likelihood) -> Result<Box<dyn Estimator>> {
    Ok(Box::new(Bayes { classes: node.read("classes_", classes)?, features, likelihood }))
}

fn classes(node: Node<'_>) -> Result<Labels> {
    let classes = read::labels(node)?;
    if classes.is_empty() { Err(Error::load("no classes")) } else { Ok(classes) }
}

/// A row for each class: mean and variance of each column.
struct Gaussian {
    means: Matrix,
    variances: Matrix,
    /// Of each class: `log(prior) - 0.5 * sum(log(2 pi variance))`.
    constants: Vec<f64>,
}

fn gaussian(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let means = node.read("theta_", input::matrix)?;
    let (count, features) = (node.read("classes_", classes)?.len(), means.columns);
    if means.rows != count {
        return Err(Error::load(format!("theta_ has {} rows for {count} classes", means.rows)));
    }
    let variances = node.read("var_", |node| input::matrix_of(node, count, features))?;
    let priors = node.read("class_prior_", |node| node.numbers()?.vector(Some(count)))?;
    let constant = |(prior, variances): (&f64, &[f64])| {
        let logs: f64 = variances.iter().map(|variance| (2.0 * std::f64::consts::PI * variance).ln()).sum();
        prior.ln() - 0.5 * logs
    };
    let constants = priors.iter().zip(variances.iter_rows()).map(constant).collect();
    build(node, features, Likelihood::Gaussian(Gaussian { means, variances, constants }))
}

impl Gaussian {
    fn compute(&self, rows: &Matrix) -> Matrix {
        let classes = self.means.rows;
        let mut out = Matrix::zeros(rows.rows, classes);
        for (row, outs) in rows.iter_rows().zip(out.values.chunks_exact_mut(classes)) {
            for (class, out) in outs.iter_mut().enumerate() {
                let spread = row.iter().zip(self.means.row(class)).zip(self.variances.row(class));
                let sum: f64 = spread.map(|((value, mean), variance)| (value - mean).powi(2) / variance).sum();
                *out = self.constants[class] - 0.5 * sum;
            }
        }
        out
    }
}

/// `feature_log_prob_` and `class_log_prior_`, whose shapes must fit `classes_`.
fn logs(node: Node<'_>) -> Result<(Matrix, Vec<f64>)> {
    let count = node.read("classes_", classes)?.len();
    let logs = node.read("feature_log_prob_", input::matrix)?;
    let prior = node.read("class_log_prior_", |node| node.numbers()?.vector(Some(count)))?;
    if logs.rows != count {
        return Err(Error::load(format!("feature_log_prob_ has {} rows for {count} classes", logs.rows)));
    }
    Ok((logs, prior))
}

fn multinomial(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let (logs, prior) = logs(node)?;
    build(node, logs.columns, Likelihood::Counts(Linear::new(logs, prior)?))
}

/// What speaks against all other classes; the prior counts only when there are none.
fn complement(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let (logs, prior) = logs(node)?;
    let prior = if prior.len() == 1 { prior } else { vec![0.0; prior.len()] };
    build(node, logs.columns, Likelihood::Counts(Linear::new(logs, prior)?))
}

/// Columns that are 0 count too, with `log(1 - p)`: what all of them say together is part of the constant.
fn bernoulli(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let (mut logs, mut prior) = logs(node)?;
    for (row, prior) in logs.values.chunks_exact_mut(logs.columns).zip(&mut prior) {
        let mut sum = 0.0;
        for log in row {
            let absent = (1.0 - log.exp()).ln();
            *log -= absent;
            sum += absent;
        }
        *prior += sum;
    }
    let threshold = read::option(node, "binarize", Node::float)?;
    build(node, logs.columns, Likelihood::Bits { linear: Linear::new(logs, prior)?, threshold })
}

fn bits(rows: Input<'_>, threshold: f64) -> Input<'_> {
    let bit = |value: &f64| f64::from(u8::from(*value > threshold));
    match rows {
        Input::Dense(rows) => {
            let values = rows.values.iter().map(bit).collect();
            Input::Dense(std::borrow::Cow::Owned(Matrix::new(rows.rows, rows.columns, values)))
        }
        Input::Sparse(rows) => Input::Sparse(std::borrow::Cow::Owned(Sparse {
            values: rows.values.iter().map(bit).collect(),
            ..rows.into_owned()
        })),
    }
}

/// For each column, a row for each of its categories with a value for each class.
struct Categories {
    columns: Vec<Matrix>,
    prior: Vec<f64>,
}

fn categorical(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let count = node.read("classes_", classes)?.len();
    let prior = node.read("class_log_prior_", |node| node.numbers()?.vector(Some(count)))?;
    let column = |node: Node<'_>| {
        let logs = input::matrix(node)?;
        if logs.rows != count {
            return Err(Error::load(format!("feature_log_prob_ has {} rows for {count} classes", logs.rows)));
        }
        Ok(logs.transposed())
    };
    let columns = node.read("feature_log_prob_", |node| node.items()?.map(column).collect::<Result<Vec<_>>>())?;
    build(node, columns.len(), Likelihood::Categories(Categories { columns, prior }))
}

impl Categories {
    fn compute(&self, rows: &Matrix) -> Result<Matrix> {
        let classes = self.prior.len();
        let mut out = Matrix::zeros(rows.rows, classes);
        for (row, outs) in rows.iter_rows().zip(out.values.chunks_exact_mut(classes)) {
            for (value, column) in row.iter().zip(&self.columns) {
                let category = value.trunc(); // as numpy's astype(int)
                if category < 0.0 {
                    return Err(Error::invalid("Negative values in data passed to CategoricalNB (input X)."));
                }
                if category >= column.rows as f64 {
                    let size = column.rows;
                    return Err(Error::invalid(format!(
                        "index {category} is out of bounds for axis 1 with size {size}"
                    )));
                }
                outs.iter_mut().zip(column.row(category as usize)).for_each(|(out, log)| *out += log);
            }
            outs.iter_mut().zip(&self.prior).for_each(|(out, prior)| *out += prior);
        }
        Ok(out)
    }
}

impl Bayes {
    fn logs(&self, rows: &Data) -> Result<Matrix> {
        match &self.likelihood {
            Likelihood::Gaussian(gaussian) => Ok(gaussian.compute(&*Input::dense(rows, self.features)?)),
            Likelihood::Counts(linear) => linear.apply(rows),
            Likelihood::Bits { linear, threshold: None } => linear.apply(rows),
            Likelihood::Bits { linear, threshold: Some(threshold) } => {
                Ok(linear.apply_input(&bits(Input::check(rows, self.features)?, *threshold)))
            }
            Likelihood::Categories(categories) => categories.compute(&*Input::dense(rows, self.features)?),
        }
    }
}

impl Estimator for Bayes {
    fn can(&self, method: Method) -> bool {
        matches!(method, Method::Predict | Method::PredictProba)
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        Ok(Target::one(self.classes.pick(argmax(&self.logs(rows)?))))
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        let mut logs = self.logs(rows)?;
        normalise_logs(&mut logs);
        Ok(vec![logs])
    }

    fn features(&self) -> Option<usize> {
        Some(self.features)
    }
}
