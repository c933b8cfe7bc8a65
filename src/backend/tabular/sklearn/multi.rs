//! Many classes from estimators that know two: one against the rest, one against one, codes of classes.

use super::members::{check_shape, classifier, probabilities};
use super::read::{self, argmax, two_columns};
use crate::backend::tabular::data::{Data, Labels, Matrix, Target};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, Takes, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::tensor::DType;

pub const CLASSES: &[(&str, Build)] = &[
    ("OneVsRestClassifier", one_vs_rest),
    ("OneVsOneClassifier", one_vs_one),
    ("OutputCodeClassifier", output_code),
    ("_ConstantPredictor", constant),
];

/// An estimator that tells one class from another, and what is asked of it: scikit-learn's `_predict_binary`.
struct Binary {
    estimator: Box<dyn Estimator>,
    score: Method,
    threshold: f64,
}

impl Binary {
    fn all(node: Node<'_>, builder: &mut Builder) -> Result<Vec<Binary>> {
        let nodes: Vec<Node<'_>> = node.read("estimators_", Node::items)?.collect();
        let estimators = builder.build_all(nodes.iter().copied())?;
        if estimators.is_empty() {
            return Err(Error::load("estimators_ is empty"));
        }
        Ok(estimators.into_iter().zip(nodes).map(|(estimator, node)| Binary::new(estimator, node)).collect())
    }

    fn new(estimator: Box<dyn Estimator>, node: Node<'_>) -> Binary {
        let is_classifier = classifier(node).is_ok();
        let score = if estimator.can(Method::DecisionFunction) {
            Method::DecisionFunction
        } else if is_classifier {
            Method::PredictProba
        } else {
            Method::Predict
        };
        let threshold = if is_classifier && score == Method::DecisionFunction { 0.0 } else { 0.5 };
        Binary { estimator, score, threshold }
    }

    /// Greater for the second class.
    fn scores(&self, rows: &Data) -> Result<Vec<f64>> {
        match self.score {
            Method::DecisionFunction => {
                let scores = self.estimator.decision_function(rows)?;
                check_shape(&scores, rows.rows(), 1)?;
                Ok(scores.values)
            }
            Method::PredictProba => {
                let probabilities = probabilities(&*self.estimator, rows, 2)?;
                Ok(probabilities.iter_rows().map(|row| row[1]).collect())
            }
            _ => self.predict(rows),
        }
    }

    fn predict(&self, rows: &Data) -> Result<Vec<f64>> {
        let values = self.estimator.predict(rows)?.values.numbers()?;
        check_shape(&Matrix { rows: values.len(), columns: 1, ..Matrix::default() }, rows.rows(), 1)?;
        Ok(values)
    }
}

/// One column for each of the answers.
fn columns(rows: usize, answers: impl ExactSizeIterator<Item = Result<Vec<f64>>>) -> Result<Matrix> {
    let mut matrix = Matrix::zeros(rows, answers.len());
    for (column, answer) in answers.enumerate() {
        for (row, value) in answer?.into_iter().enumerate() {
            matrix.row_mut(row)[column] = value;
        }
    }
    Ok(matrix)
}

struct OneVsRest {
    estimators: Vec<Binary>,
    classes: Labels,
    /// Any number of labels a row, instead of one of the classes.
    multilabel: bool,
    /// Of classes with equal scores, the last one wins: until 1.7.
    last_of_equals: bool,
    /// Rows without any probability are left as they are, since 1.7; before, 0 / 0 made them NaN.
    keeps_zeros: bool,
}

fn one_vs_rest(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let binarizer = node.attr("label_binarizer_")?;
    let classes = binarizer.read("classes_", read::labels)?;
    let multilabel = binarizer.read("y_type_", Node::text)?.starts_with("multilabel");
    let estimators = Binary::all(node, builder)?;
    let expected = if classes.len() <= 2 && !multilabel { 1 } else { classes.len() };
    if estimators.len() != expected || classes.is_empty() {
        return Err(Error::load(format!("{} estimators for {} classes", estimators.len(), classes.len())));
    }
    let version = read::version(node);
    Ok(Box::new(OneVsRest {
        estimators,
        classes,
        multilabel,
        last_of_equals: version < (1, 8),
        keeps_zeros: version >= (1, 7),
    }))
}

impl OneVsRest {
    fn scores(&self, rows: &Data) -> Result<Matrix> {
        columns(rows.rows(), self.estimators.iter().map(|binary| binary.scores(rows)))
    }

    fn can_all(&self, method: Method) -> bool {
        self.estimators[0].estimator.can(method)
    }
}

impl Estimator for OneVsRest {
    fn can(&self, method: Method) -> bool {
        match method {
            Method::Predict => true,
            Method::PredictProba | Method::DecisionFunction => self.can_all(method),
            Method::Transform | Method::Contributions => false,
        }
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let scores = self.scores(rows)?;
        let threshold = self.estimators[0].threshold;
        if self.multilabel {
            let set = scores.values.iter().map(|score| i64::from(*score > threshold)).collect();
            return Ok(Target { values: Labels::Int(set, DType::Int64), columns: Some(scores.columns) });
        }
        if scores.columns == 1 {
            return Ok(read::either(&self.classes, scores.values.iter().map(|score| *score > threshold)));
        }
        let chosen = scores.iter_rows().map(|row| {
            let first = read::argmax_of(row);
            if self.last_of_equals {
                row.iter().rposition(|score| *score == row[first]).unwrap_or(first)
            } else {
                first
            }
        });
        Ok(Target::one(self.classes.pick(chosen)))
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        let decide = |binary: &Binary| {
            let scores = binary.estimator.decision_function(rows)?;
            check_shape(&scores, rows.rows(), 1)?;
            Ok(scores.values)
        };
        columns(rows.rows(), self.estimators.iter().map(decide))
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        let positive = |binary: &Binary| Ok(probabilities(&*binary.estimator, rows, 2)?.select(&[1]));
        let mut all = Matrix::beside(&self.estimators.iter().map(positive).collect::<Result<Vec<_>>>()?);
        if all.columns == 1 {
            all = Matrix { single: all.single, ..two_columns(all.values.into_iter()) };
        }
        if !self.multilabel {
            for row in 0..all.rows {
                let row = all.row_mut(row);
                let sum: f64 = row.iter().sum();
                if sum != 0.0 || !self.keeps_zeros {
                    row.iter_mut().for_each(|value| *value /= sum);
                }
            }
        }
        all.rounded();
        Ok(vec![all])
    }

    fn features(&self) -> Option<usize> {
        self.estimators.iter().find_map(|binary| binary.estimator.features())
    }

    fn takes(&self, column: usize) -> Takes {
        self.estimators.iter().map(|binary| binary.estimator.takes(column)).max().unwrap_or_default()
    }

    fn demands(&self, column: usize) -> bool {
        self.estimators.iter().any(|binary| binary.estimator.demands(column))
    }

    fn uses(&self, column: usize) -> bool {
        self.estimators.iter().any(|binary| binary.estimator.uses(column))
    }
}

/// An estimator for each pair of classes, which votes for one of them.
struct OneVsOne {
    estimators: Vec<Binary>,
    classes: Labels,
    /// Beyond which the second of two classes is meant.
    threshold: f64,
}

fn one_vs_one(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    read::option(node, "pairwise_indices_", |_| Err::<(), _>(unsupported("kernel", "precomputed")))?;
    let classes = read::classes(node)?;
    let estimators = Binary::all(node, builder)?;
    let pairs = (classes.len() as u128 * (classes.len() as u128).saturating_sub(1)) / 2;
    if estimators.len() as u128 != pairs {
        return Err(Error::load(format!("{} estimators for {} classes", estimators.len(), classes.len())));
    }
    // Until 1.0 also where estimators say probabilities.
    let threshold = if read::version(node) < (1, 1) { 0.0 } else { estimators[0].threshold };
    Ok(Box::new(OneVsOne { estimators, classes, threshold }))
}

impl OneVsOne {
    /// `votes + s / (3 (|s| + 1))` with `s` the sum of confidences: scikit-learn's `_ovr_decision_function`.
    fn votes(&self, rows: &Data) -> Result<Matrix> {
        let classes = self.classes.len();
        let mut votes = Matrix::zeros(rows.rows(), classes);
        let mut sums = Matrix::zeros(rows.rows(), classes);
        let pairs = (0..classes).flat_map(|one| (one + 1..classes).map(move |other| (one, other)));
        for (binary, (one, other)) in self.estimators.iter().zip(pairs) {
            let (predicted, confidences) = (binary.predict(rows)?, binary.scores(rows)?);
            for (row, (predicted, confidence)) in predicted.into_iter().zip(confidences).enumerate() {
                let sums = sums.row_mut(row);
                sums[one] -= confidence;
                sums[other] += confidence;
                if predicted == 0.0 || predicted == 1.0 {
                    votes.row_mut(row)[if predicted == 0.0 { one } else { other }] += 1.0;
                }
            }
        }
        let tie_breaks = sums.values.iter().map(|sum| sum / (3.0 * (sum.abs() + 1.0)));
        votes.values.iter_mut().zip(tie_breaks).for_each(|(vote, tie_break)| *vote += tie_break);
        Ok(votes)
    }
}

impl Estimator for OneVsOne {
    fn can(&self, method: Method) -> bool {
        matches!(method, Method::Predict | Method::DecisionFunction)
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let votes = self.decision_function(rows)?;
        if votes.columns > 1 {
            return Ok(Target::one(self.classes.pick(argmax(&votes))));
        }
        Ok(Target::one(self.classes.pick(votes.values.iter().map(|vote| usize::from(*vote > self.threshold)))))
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        let votes = self.votes(rows)?;
        Ok(if votes.columns == 2 { votes.select(&[1]) } else { votes })
    }

    fn features(&self) -> Option<usize> {
        self.estimators.iter().find_map(|binary| binary.estimator.features())
    }
}

/// Each class has a code, and each estimator says one number of it; the class with the nearest code is predicted.
struct OutputCode {
    estimators: Vec<Binary>,
    classes: Labels,
    /// A row for each class.
    codes: Matrix,
}

fn output_code(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let classes = read::classes(node)?;
    let estimators = Binary::all(node, builder)?;
    let (rows, columns, values) = node.read("code_book_", |codes| codes.numbers()?.matrix())?;
    if (rows, columns) != (classes.len(), estimators.len()) || rows == 0 {
        return Err(Error::load(format!("code_book_ is of {rows} classes and {columns} estimators")));
    }
    Ok(Box::new(OutputCode { estimators, classes, codes: Matrix::new(rows, columns, values) }))
}

impl Estimator for OutputCode {
    fn can(&self, method: Method) -> bool {
        method == Method::Predict
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let said = columns(rows.rows(), self.estimators.iter().map(|binary| binary.scores(rows)))?;
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let lengths: Vec<f64> = self.codes.iter_rows().map(|code| dot(code, code)).collect();
        // Up to what all classes have in common, the negative squared distance.
        let near = said.iter_rows().map(|said| {
            let codes = self.codes.iter_rows().zip(&lengths);
            read::argmax_of(&codes.map(|(code, length)| 2.0 * dot(said, code) - length).collect::<Vec<_>>())
        });
        Ok(Target::one(self.classes.pick(near)))
    }

    fn features(&self) -> Option<usize> {
        self.estimators.iter().find_map(|binary| binary.estimator.features())
    }

    fn takes(&self, column: usize) -> Takes {
        self.estimators.iter().map(|binary| binary.estimator.takes(column)).max().unwrap_or_default()
    }

    fn demands(&self, column: usize) -> bool {
        self.estimators.iter().any(|binary| binary.estimator.demands(column))
    }

    fn uses(&self, column: usize) -> bool {
        self.estimators.iter().any(|binary| binary.estimator.uses(column))
    }
}

/// Where all rows were of one class.
struct Constant(f64);

fn constant(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    Ok(Box::new(Constant(node.read("y_", |y| y.numbers()?.vector(Some(1)))?[0])))
}

impl Estimator for Constant {
    fn can(&self, method: Method) -> bool {
        matches!(method, Method::Predict | Method::PredictProba | Method::DecisionFunction)
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        Ok(Target::floats(vec![self.0; rows.rows()]))
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        Ok(Matrix::new(rows.rows(), 1, vec![self.0; rows.rows()]))
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        Ok(vec![two_columns(std::iter::repeat_n(self.0, rows.rows()))])
    }

    fn features(&self) -> Option<usize> {
        None
    }
}
