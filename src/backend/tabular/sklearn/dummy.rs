//! Baselines that answer the same for every row.

use super::members::Places;
use super::read;
use super::trees::interleave;
use crate::backend::tabular::data::{Data, Labels, Matrix, Target};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, Takes, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::Node;

pub const CLASSES: &[(&str, Build)] = &[("DummyClassifier", classifier), ("DummyRegressor", regressor)];

/// What is said of every row.
struct Dummy {
    /// Of each output one label or value.
    answers: Vec<Labels>,
    /// Of each output; empty for regression.
    probabilities: Vec<Vec<f64>>,
    features: Option<usize>,
}

fn classifier(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let outputs = node.read("n_outputs_", Node::usize)?;
    let classes = node.attr("classes_")?;
    let priors = node.attr("class_prior_")?;
    let (classes, priors) = if outputs == 1 {
        (vec![classes], vec![priors])
    } else {
        (classes.items()?.collect(), priors.items()?.collect::<Vec<Node<'_>>>())
    };
    if classes.is_empty() || classes.len() != priors.len() {
        return Err(Error::load(format!("classes_ of {} outputs, class_prior_ of {}", classes.len(), priors.len())));
    }
    let strategy = node.read("strategy", Node::text)?;
    let mut dummy = Dummy { answers: Vec::new(), probabilities: Vec::new(), features: read::features(node)? };
    for (output, (classes, prior)) in classes.into_iter().zip(priors).enumerate() {
        let classes = read::labels(classes).map_err(|error| error.context("classes_"))?;
        let prior = prior.numbers()?.vector(Some(classes.len()))?;
        if classes.is_empty() {
            return Err(Error::load("classes_ is empty"));
        }
        let place = match strategy {
            "prior" | "most_frequent" => read::argmax_of(&prior),
            "constant" => {
                let label = constant(node, output)?;
                let place = Places::of(&classes).find(&label).first().copied().flatten();
                dummy.answers.push(label);
                place.ok_or_else(|| Error::load("constant is not one of the classes"))?
            }
            other => return Err(unsupported("strategy", other)), // at random
        };
        if strategy != "constant" {
            dummy.answers.push(classes.pick(std::iter::once(place)));
        }
        let only = (0..classes.len()).map(|class| f64::from(u8::from(class == place)));
        dummy.probabilities.push(if strategy == "prior" { prior } else { only.collect() });
    }
    Ok(Box::new(dummy))
}

/// What `constant` says for this output.
fn constant(node: Node<'_>, output: usize) -> Result<Labels> {
    let constant = node.attr("constant")?;
    let label = match constant.items() {
        Ok(mut items) => items.nth(output).map(read::label).transpose()?,
        Err(_) => match read::label(constant) {
            Ok(label) => Some(label),
            Err(_) => Some(read::labels(constant)?)
                .filter(|labels| output < labels.len())
                .map(|labels| labels.pick(std::iter::once(output))),
        },
    };
    label.ok_or_else(|| Error::load(format!("constant: none for output {output}")))
}

fn regressor(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let outputs = node.read("n_outputs_", Node::usize)?;
    let values = node.read("constant_", read::labels)?;
    if values.len() != outputs || outputs == 0 {
        return Err(Error::load(format!("constant_: {} values for {outputs} outputs", values.len())));
    }
    let answers = (0..outputs).map(|output| values.pick(std::iter::once(output))).collect();
    Ok(Box::new(Dummy { answers, probabilities: Vec::new(), features: read::features(node)? }))
}

impl Estimator for Dummy {
    fn can(&self, method: Method) -> bool {
        method == Method::Predict || (method == Method::PredictProba && !self.probabilities.is_empty())
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let repeated = |answer: &Labels| answer.pick(std::iter::repeat_n(0, rows.rows()));
        match self.answers.as_slice() {
            [only] => Ok(Target::one(repeated(only))),
            several => interleave(&several.iter().map(repeated).collect::<Vec<_>>()),
        }
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        let repeated = |row: &Vec<f64>| Matrix::new(rows.rows(), row.len(), row.repeat(rows.rows()));
        Ok(self.probabilities.iter().map(repeated).collect())
    }

    fn features(&self) -> Option<usize> {
        self.features
    }

    fn takes(&self, _column: usize) -> Takes {
        // Without a count of columns, one of text would be taken for all: those of before 1.5 keep none.
        Takes::text_if(self.features.is_some())
    }
}
