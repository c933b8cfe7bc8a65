//! Stacking: a final estimator that sees what others say of the rows.

use std::sync::Arc;

use super::beside::beside;
use super::members::{check_classes, kept, numbered};
use super::read;
use super::trees::interleave;
use crate::backend::tabular::data::{Data, Labels, Matrix, Target};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, MOST_NAMES, Method, Takes, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::{Node, Value};
use crate::tensor::DType;

pub const CLASSES: &[(&str, Build)] = &[("StackingClassifier", stacking), ("StackingRegressor", stacking)];

struct Stacking {
    members: Vec<(Box<dyn Estimator>, Method)>,
    last: Box<dyn Estimator>,
    /// Of each output; empty for regression.
    classes: Vec<Labels>,
    /// The last one sees the rows too.
    passthrough: bool,
    /// What the members' columns are called, since 1.1.
    names: Option<Vec<Arc<str>>>,
}

fn stacking(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let estimators = builder.build_all(node.read("estimators_", Node::items)?)?;
    let methods = node.read("stack_method_", Node::texts)?;
    if estimators.is_empty() || methods.len() != estimators.len() {
        return Err(Error::load(format!("{} estimators with {} methods", estimators.len(), methods.len())));
    }
    let methods = methods.iter().map(|name| Method::parse(name).ok_or_else(|| unsupported("stack_method_", name)));
    let methods = methods.collect::<Result<Vec<Method>>>()?;
    let classes = if read::is_classifier(node) { node.read("classes_", classes)? } else { Vec::new() };
    let last = node.attr("final_estimator_")?;
    if let [classes] = classes.as_slice() {
        check_classes(last, classes.len()).map_err(|error| error.context("final_estimator_"))?;
    }
    Ok(Box::new(Stacking {
        members: estimators.into_iter().zip(methods).collect(),
        last: builder.build(last).map_err(|error| error.context("final_estimator_"))?,
        classes,
        passthrough: node.read("passthrough", Node::bool)?,
        names: names(node)?,
    }))
}

/// Of one output, or of several of two classes each.
fn classes(node: Node<'_>) -> Result<Vec<Labels>> {
    match node.value() {
        Value::List(_) => node.items()?.map(read::labels).collect(),
        _ => Ok(vec![read::labels(node)?]),
    }
}

fn names(node: Node<'_>) -> Result<Option<Vec<Arc<str>>>> {
    let counts = node.read_some("_n_feature_outs", |counts| counts.numbers()?.vector(None))?;
    let are_few = |counts: &Vec<f64>| counts.iter().map(|count| count.abs()).sum::<f64>() <= MOST_NAMES as f64;
    let Some(counts) = counts.filter(are_few) else { return Ok(None) };
    let class = node.class().map_or_else(String::new, |class| class.name.to_lowercase());
    let mut names = Vec::new();
    for ((_, member), count) in kept(node)?.into_iter().zip(counts) {
        let name = format!("{class}_{member}");
        match count as usize {
            1 => names.push(name.into()),
            several => names.extend((0..several).map(|place| Arc::from(format!("{name}{place}")))),
        }
    }
    Ok(Some(names))
}

impl Stacking {
    /// What the last estimator sees: `_concatenate_predictions`.
    fn seen(&self, rows: &Data) -> Result<Data> {
        let mut parts = Vec::new();
        for (member, method) in &self.members {
            match method {
                Method::PredictProba => {
                    let probabilities = member.predict_proba(rows)?;
                    // The first of two classes says nothing new; nor does the first of any in lists of outputs.
                    let count = self.classes_count();
                    let drop_first = probabilities.len() > 1 || count == 2;
                    let kept = |matrix: Matrix| {
                        if drop_first { matrix.select(&(1..matrix.columns).collect::<Vec<_>>()) } else { matrix }
                    };
                    parts.extend(probabilities.into_iter().map(kept).map(Data::Dense));
                }
                Method::DecisionFunction => parts.push(Data::Dense(member.decision_function(rows)?)),
                Method::Predict => {
                    let target = member.predict(rows)?;
                    let columns = target.columns.unwrap_or(1);
                    parts.push(Data::Dense(Matrix::new(rows.rows(), columns, target.values.numbers()?)));
                }
                other => return Err(unsupported("stack_method_", other.name())),
            }
        }
        if self.passthrough {
            parts.push(rows.clone());
        }
        beside(rows.rows(), parts, self.passthrough && matches!(rows, Data::Sparse(_)))
    }

    /// `len(classes_)`, which for several outputs is their number.
    fn classes_count(&self) -> usize {
        match self.classes.as_slice() {
            [only] => only.len(),
            several => several.len(),
        }
    }
}

impl Estimator for Stacking {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform || (method != Method::Contributions && self.last.can(method))
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let target = self.last.predict(&self.seen(rows)?)?;
        match (self.classes.as_slice(), target.columns) {
            ([], _) => Ok(target),
            ([classes], None) => Ok(Target::one(classes.pick(numbered(&target.values, classes.len())?.into_iter()))),
            (several, Some(columns)) if several.len() == columns => {
                let numbers = target.values.numbers()?;
                let column = |(output, classes): (usize, &Labels)| {
                    let own = numbers.iter().skip(output).step_by(columns).copied().collect();
                    Ok(classes.pick(numbered(&Labels::Float(own), classes.len())?.into_iter()))
                };
                interleave(&several.iter().enumerate().map(column).collect::<Result<Vec<_>>>()?)
            }
            _ => Err(Error::internal("the final estimator has other outputs than the stack")),
        }
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        let probabilities = self.last.predict_proba(&self.seen(rows)?)?;
        if self.classes.len() < 2 {
            return Ok(probabilities);
        }
        // Of several outputs, scikit-learn gives the first class's.
        let first: Vec<Matrix> = probabilities.iter().map(|matrix| matrix.select(&[0])).collect();
        Ok(vec![Matrix::beside(&first)])
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        self.last.decision_function(&self.seen(rows)?)
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        self.seen(rows)
    }

    fn gives(&self) -> Option<DType> {
        // Members tell classes by number.
        let numbers = !self.classes.is_empty() && self.members.iter().all(|(_, method)| *method == Method::Predict);
        (numbers && !self.passthrough).then_some(DType::Int64)
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        let passed = if self.passthrough { names } else { &[] };
        Some([self.names.as_deref()?, passed].concat())
    }

    fn features(&self) -> Option<usize> {
        self.members[0].0.features()
    }

    fn takes(&self, column: usize) -> Takes {
        self.members.iter().map(|(member, _)| member.takes(column)).max().unwrap_or_default()
    }

    fn demands(&self, column: usize) -> bool {
        self.passthrough || self.members.iter().any(|(member, _)| member.demands(column))
    }

    fn uses(&self, column: usize) -> bool {
        self.passthrough || self.members.iter().any(|(member, _)| member.uses(column))
    }
}
