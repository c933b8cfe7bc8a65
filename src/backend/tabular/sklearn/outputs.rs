//! Several outputs from estimators of one: side by side, or in a chain in which each sees what was said before it.

use super::beside::beside;
use super::members::check_shape;
use super::read;
use super::trees::interleave;
use crate::backend::tabular::data::{Data, Labels, Matrix, Target};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, Takes, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::Node;

pub const CLASSES: &[(&str, Build)] = &[
    ("MultiOutputClassifier", side_by_side),
    ("MultiOutputRegressor", side_by_side),
    ("ClassifierChain", chain),
    ("RegressorChain", chain),
];

fn read_estimators(node: Node<'_>, builder: &mut Builder) -> Result<Vec<Box<dyn Estimator>>> {
    let estimators = builder.build_all(node.read("estimators_", Node::items)?)?;
    if estimators.is_empty() { Err(Error::load("estimators_ is empty")) } else { Ok(estimators) }
}

struct SideBySide(Vec<Box<dyn Estimator>>);

fn side_by_side(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    Ok(Box::new(SideBySide(read_estimators(node, builder)?)))
}

impl Estimator for SideBySide {
    fn can(&self, method: Method) -> bool {
        matches!(method, Method::Predict | Method::PredictProba) && self.0.iter().all(|estimator| estimator.can(method))
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let one = |estimator: &dyn Estimator| {
            let target = estimator.predict(rows)?;
            if target.values.len() == rows.rows() {
                Ok(target.values)
            } else {
                Err(Error::internal("an estimator inside has several outputs"))
            }
        };
        interleave(&self.0.iter().map(|estimator| one(&**estimator)).collect::<Result<Vec<Labels>>>()?)
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        let all = self.0.iter().map(|estimator| estimator.predict_proba(rows)).collect::<Result<Vec<_>>>()?;
        Ok(all.into_iter().flatten().collect())
    }

    fn features(&self) -> Option<usize> {
        self.0[0].features()
    }

    fn takes(&self, column: usize) -> Takes {
        self.0.iter().map(|estimator| estimator.takes(column)).max().unwrap_or_default()
    }

    fn demands(&self, column: usize) -> bool {
        self.0.iter().any(|estimator| estimator.demands(column))
    }

    fn uses(&self, column: usize) -> bool {
        self.0.iter().any(|estimator| estimator.uses(column))
    }
}

struct Chain {
    estimators: Vec<Box<dyn Estimator>>,
    /// The output that each estimator says.
    order: Vec<usize>,
    /// What those that follow see of it.
    seen: Method,
    classifies: bool,
    features: usize,
}

fn chain(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let estimators = read_estimators(node, builder)?;
    let order = node.read("order_", Node::numbers)?.vector(Some(estimators.len()))?;
    let mut sorted = order.clone();
    sorted.sort_unstable_by(f64::total_cmp);
    if !sorted.iter().enumerate().all(|(place, output)| *output == place as f64) {
        return Err(Error::load("order_ does not name each output once"));
    }
    let classifies = node.class().is_some_and(|class| &*class.name == "ClassifierChain");
    // Of several methods to choose from, the chosen one; until 1.4 there was no choice.
    let seen = if classifies { read::option_since((1, 5), node, "chain_method_", Node::text)? } else { None };
    let seen = seen.unwrap_or("predict");
    Ok(Box::new(Chain {
        estimators,
        order: order.into_iter().map(|output| output as usize).collect(),
        seen: Method::parse(seen).ok_or_else(|| unsupported("chain_method", seen))?,
        classifies,
        features: node.read("n_features_in_", Node::usize)?,
    }))
}

impl Chain {
    /// A column for each output, of what its estimator says in this way.
    fn say(&self, rows: &Data, said: Method) -> Result<Matrix> {
        let rows = match rows {
            Data::Sparse(_) => rows.clone(),
            other => Data::Dense(Matrix { single: false, ..other.dense()?.into_owned() }),
        };
        if let Data::Dense(matrix) = &rows {
            matrix.check_finite()?;
        }
        let mut outputs = Matrix::zeros(rows.rows(), self.estimators.len());
        let mut seen: Vec<Data> = vec![rows];
        for (estimator, output) in self.estimators.iter().zip(&self.order) {
            let count = seen[0].rows();
            let sparse = matches!(seen[0], Data::Sparse(_));
            let augmented = beside(count, seen.clone(), sparse)?;
            let answer = ask(&**estimator, said, &augmented)?;
            for (row, value) in answer.iter().enumerate() {
                outputs.row_mut(row)[*output] = *value;
            }
            let shown = if self.seen == said { answer } else { ask(&**estimator, self.seen, &augmented)? };
            seen.push(Data::Dense(Matrix::new(count, 1, shown)));
        }
        Ok(outputs)
    }
}

/// One number a row, as greater as the second class is more likely.
fn ask(estimator: &dyn Estimator, method: Method, rows: &Data) -> Result<Vec<f64>> {
    let answer = match method {
        Method::PredictProba => {
            let mut answers = estimator.predict_proba(rows)?;
            let answer = answers.pop().ok_or_else(|| Error::internal("no probabilities"))?;
            check_shape(&answer, rows.rows(), 2)?;
            answer.select(&[1])
        }
        Method::DecisionFunction => estimator.decision_function(rows)?,
        _ => {
            let values = estimator.predict(rows)?.values.numbers()?;
            Matrix { rows: values.len(), columns: 1, values, single: false }
        }
    };
    check_shape(&answer, rows.rows(), 1)?;
    Ok(answer.values)
}

impl Estimator for Chain {
    fn can(&self, method: Method) -> bool {
        let known = match method {
            Method::Predict => true,
            Method::PredictProba | Method::DecisionFunction => self.classifies,
            Method::Transform | Method::Contributions => false,
        };
        known && self.estimators.iter().all(|estimator| estimator.can(method))
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let outputs = self.say(rows, Method::Predict)?;
        Ok(Target { values: Labels::Float(outputs.values), columns: Some(outputs.columns) })
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        Ok(vec![self.say(rows, Method::PredictProba)?])
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        self.say(rows, Method::DecisionFunction)
    }

    fn features(&self) -> Option<usize> {
        Some(self.features)
    }
}
