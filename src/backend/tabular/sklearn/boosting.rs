//! Gradient boosting of decision trees, which are read in [`super::trees`].

use super::read::{self, argmax, expit, softmax, two_columns};
use super::trees::{read_tree, seen};
use crate::backend::tabular::data::{Data, Labels, Matrix, Target};
use crate::backend::tabular::estimator::{Build, Builder, Contributions, Estimator, Method, unsupported};
use crate::backend::tabular::forest::{Forest, Grown, InputPrecision};
use crate::error::{Error, Kind, Result};
use crate::formats::graph::Node;

pub const CLASSES: &[(&str, Build)] =
    &[("GradientBoostingClassifier", boosting), ("GradientBoostingRegressor", boosting)];

/// From raw sums to probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Identity,
    Logistic,
    /// Of the exponential loss: half the log odds.
    HalfLogistic,
    Softmax,
}

enum Start {
    /// The same for all rows.
    Constant(Vec<f64>),
    Estimator(Box<dyn Estimator>),
}

struct Boosting {
    forest: Forest,
    start: Start,
    link: Link,
    age: Age,
    classes: Option<Labels>,
}

fn boosting(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let features = node.read("n_features_in_", Node::usize)?;
    let classes = read::is_classifier(node).then(|| read::classes(node)).transpose()?;
    let rate = node.read("learning_rate", Node::float)?;
    let estimators: Vec<Node<'_>> = node.read("estimators_", Node::items)?.collect();
    let each = match node.attr("estimators_")?.array()?.shape.as_slice() {
        [_, each] if *each > 0 => *each,
        shape => return Err(Error::load(format!("estimators_ has shape {shape:?}"))),
    };
    let loss = node.read("loss", Node::text)?;
    let link = match (&classes, loss) {
        (None, _) => Link::Identity,
        (Some(_), "exponential") => Link::HalfLogistic,
        (Some(_), "log_loss" | "deviance") if each == 1 => Link::Logistic,
        (Some(_), "log_loss" | "deviance") => Link::Softmax,
        (Some(_), other) => return Err(unsupported("loss", other)),
    };
    let expected = classes.as_ref().map_or(1, |classes| if classes.len() == 2 { 1 } else { classes.len() });
    if each != expected || classes.as_ref().is_some_and(|classes| classes.len() < 2) {
        return Err(Error::load(format!("{each} trees an iteration where {expected} are expected")));
    }
    let mut trees = Vec::with_capacity(estimators.len());
    for (number, estimator) in estimators.into_iter().enumerate() {
        let read = estimator.read("tree_", read_tree).map_err(|error| error.context(format_args!("tree {number}")))?;
        let mut tree = read.tree;
        tree.leaves.iter_mut().for_each(|value| *value *= rate);
        trees.push((tree, number % each));
    }
    let grown = Grown { features, outputs: each, width: 1, input: InputPrecision::Single, trees };
    let age = Age::of(node);
    let start = node.read("init_", |init| start(init, builder, link, age, each))?;
    Ok(Box::new(Boosting { forest: Forest::compile(grown)?, start, link, age, classes }))
}

/// The prediction that boosting begins with: mostly a dummy's constant.
fn start(init: Node<'_>, builder: &mut Builder, link: Link, age: Age, each: usize) -> Result<Start> {
    match init.class().map(|class| &*class.name) {
        None if init.text().is_ok_and(|text| text == "zero") => Ok(Start::Constant(vec![0.0; each])),
        Some("DummyRegressor") => Ok(Start::Constant(init.read("constant_", Node::numbers)?.vector(Some(each))?)),
        Some("DummyClassifier") if !matches!(link, Link::Identity) => {
            let strategy = init.read("strategy", Node::text)?;
            if strategy != "prior" {
                return Err(unsupported("strategy", strategy));
            }
            let classes = if each == 1 { 2 } else { each };
            let prior = init.read("class_prior_", |prior| prior.numbers()?.vector(Some(classes)))?;
            Ok(Start::Constant(raw(link, age, &prior)))
        }
        _ => Ok(Start::Estimator(builder.build(init)?)),
    }
}

/// What differs between versions in how boosting begins.
#[derive(Clone, Copy)]
struct Age {
    /// How far probabilities are kept off 0 and 1.
    tiny: f64,
    /// Raw predictions of several classes have a mean of 0.
    centred: bool,
}

impl Age {
    fn of(node: Node<'_>) -> Age {
        let version = read::version(node);
        Age { tiny: if version >= (1, 8) { f64::EPSILON } else { f64::from(f32::EPSILON) }, centred: version >= (1, 4) }
    }
}

/// Probabilities as raw predictions, as scikit-learn's `_init_raw_predictions`.
fn raw(link: Link, age: Age, probabilities: &[f64]) -> Vec<f64> {
    let clipped = |p: f64| p.clamp(age.tiny, 1.0 - age.tiny);
    match (link, probabilities) {
        (Link::Identity, _) => probabilities.to_vec(),
        (Link::Logistic, [.., positive]) => {
            let p = clipped(*positive);
            vec![(p / (1.0 - p)).ln()]
        }
        (Link::HalfLogistic, [.., positive]) => {
            let p = clipped(*positive);
            vec![0.5 * (p / (1.0 - p)).ln()]
        }
        (Link::Softmax, all) => {
            let logs: Vec<f64> = all.iter().map(|p| clipped(*p).ln()).collect();
            let mean = if age.centred { logs.iter().sum::<f64>() / logs.len() as f64 } else { 0.0 };
            logs.iter().map(|log| log - mean).collect()
        }
        (Link::Logistic | Link::HalfLogistic, []) => Vec::new(),
    }
}

impl Boosting {
    fn raw(&self, rows: &Data) -> Result<Matrix> {
        let dense = seen(rows, false)?;
        let each = self.forest.outputs();
        let values = match &self.start {
            Start::Constant(start) => self.forest.sums(&dense.values, start)?,
            Start::Estimator(estimator) => {
                // It is given what the trees see.
                let mut seen = Matrix { single: true, ..(*dense).clone() };
                seen.rounded();
                let seen = Data::Dense(seen);
                let first = match self.link {
                    Link::Identity => estimator.predict(&seen)?.values.numbers()?,
                    _ => {
                        let probabilities = estimator.predict_proba(&seen)?;
                        let probabilities = probabilities.first().map(Matrix::iter_rows).into_iter().flatten();
                        probabilities.flat_map(|row| raw(self.link, self.age, row)).collect()
                    }
                };
                if first.len() != dense.rows * each {
                    return Err(Error::internal("init_ answers in another shape than expected"));
                }
                // Each row has a start of its own.
                let rows = dense.iter_rows().zip(first.chunks_exact(each));
                rows.map(|(row, start)| self.forest.sums(row, start)).collect::<Result<Vec<_>>>()?.concat()
            }
        };
        Ok(Matrix::new(dense.rows, each, values))
    }
}

impl Estimator for Boosting {
    fn visit_forests(&mut self, visit: &mut dyn FnMut(&mut Forest) -> Result<()>) -> Result<()> {
        visit(&mut self.forest)
    }

    fn can(&self, method: Method) -> bool {
        match method {
            Method::Predict => true,
            Method::PredictProba | Method::DecisionFunction => self.classes.is_some(),
            Method::Transform => false,
            Method::Contributions => matches!(self.start, Start::Constant(_)),
        }
    }

    fn explained_outputs(&self) -> usize {
        self.forest.outputs()
    }

    /// Of the raw predictions.
    fn contributions(&self, rows: &Data) -> Result<Contributions> {
        let rows = seen(rows, false)?;
        match &self.start {
            Start::Constant(start) => self.forest.explain(&rows, start),
            Start::Estimator(_) => Err(Error::new(Kind::Unsupported, "boosting from another model is not explained")),
        }
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let raw = self.raw(rows)?;
        Ok(match &self.classes {
            None => Target::floats(raw.values),
            // Unlike other classifiers, zero is the positive class here.
            Some(classes) if raw.columns == 1 => {
                Target::one(classes.pick(raw.values.iter().map(|score| usize::from(*score >= 0.0))))
            }
            Some(classes) => Target::one(classes.pick(argmax(&raw))),
        })
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        self.raw(rows)
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        let mut raw = self.raw(rows)?;
        Ok(vec![match self.link {
            Link::Softmax => {
                softmax(&mut raw);
                raw
            }
            Link::HalfLogistic => two_columns(raw.values.iter().map(|score| expit(2.0 * score))),
            Link::Logistic | Link::Identity => two_columns(raw.values.iter().map(|score| expit(*score))),
        }])
    }

    fn features(&self) -> Option<usize> {
        Some(self.forest.features())
    }
}
