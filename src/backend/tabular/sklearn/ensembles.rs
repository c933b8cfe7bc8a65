//! Bagging and voting: means of what several estimators say.

use std::sync::Arc;

use super::members::{Built, Member, Trees, check_classes, check_shape, classes, kept, numbered, probabilities};
use super::read::{self, argmax};
use crate::backend::tabular::data::{Data, Labels, Matrix, Target};
use crate::backend::tabular::estimator::{
    Build, Builder, Contributions, Estimator, MOST_NAMES, Method, Takes, lacks, unsupported,
};
use crate::backend::tabular::forest::Forest;
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::tensor::DType;

pub const CLASSES: &[(&str, Build)] = &[
    ("BaggingClassifier", bagging_classifier),
    ("BaggingRegressor", bagging_regressor),
    ("VotingClassifier", voting_classifier),
    ("VotingRegressor", voting_regressor),
];

/// A member of a bag, with the places of its classes among those of the ensemble.
struct Bagged {
    member: Built,
    /// `None` when they are the same.
    places: Option<Vec<usize>>,
}

/// The mean of the members' probabilities, or votes of those that have none.
struct BaggingClassifier {
    members: Bag,
    count: f64,
    classes: Labels,
    features: usize,
}

enum Bag {
    Trees(Trees),
    Others(Vec<Bagged>),
}

fn bagging_classifier(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let features = node.read("n_features_in_", Node::usize)?;
    let own = read::classes(node)?;
    let members = Member::with_columns(node, features)?;
    let count = members.len() as f64;
    let places = members.iter().map(|member| places(member.node, own.len())).collect::<Result<Vec<_>>>()?;
    let shape = (own.len(), own.len());
    let trees =
        if places.iter().all(Option::is_none) { Trees::of(&members, features, shape, |_| 0, |_, _| ())? } else { None };
    let members = match trees {
        Some(trees) => Bag::Trees(trees),
        None => {
            let members = Built::all(members, builder)?.into_iter().zip(places);
            Bag::Others(members.map(|(member, places)| Bagged { member, places }).collect())
        }
    };
    Ok(Box::new(BaggingClassifier { members, count, classes: own, features }))
}

/// Members are fitted with the numbers of classes, and may have missed some.
fn places(member: Node<'_>, count: usize) -> Result<Option<Vec<usize>>> {
    let places = numbered(&classes(member)?, count).map_err(|error| Error::load(error.message().to_owned()))?;
    Ok((places.len() != count).then_some(places))
}

impl Bagged {
    /// Adds to `sums`, which has a column for each class of the ensemble.
    fn add(&self, rows: &Data, sums: &mut Matrix) -> Result<()> {
        if !self.member.can(Method::PredictProba) {
            let predicted = self.member.ask(rows, |own, rows| own.predict(rows))?.values;
            for (row, class) in numbered(&predicted, sums.columns)?.into_iter().take(sums.rows).enumerate() {
                sums.row_mut(row)[class] += 1.0;
            }
            return Ok(());
        }
        let columns = self.places.as_ref().map_or(sums.columns, Vec::len);
        let own = self.member.ask(rows, |own, rows| probabilities(own, rows, columns))?;
        match &self.places {
            None => sums.values.iter_mut().zip(&own.values).for_each(|(sum, own)| *sum += own),
            Some(places) => {
                for row in 0..sums.rows {
                    let sums = sums.row_mut(row);
                    places.iter().zip(own.row(row)).for_each(|(place, own)| sums[*place] += own);
                }
            }
        }
        Ok(())
    }
}

impl BaggingClassifier {
    fn mean(&self, rows: &Data) -> Result<Matrix> {
        let mut mean = match &self.members {
            Bag::Trees(trees) => trees.sums(rows)?,
            Bag::Others(members) => {
                let mut sums = Matrix::zeros(rows.rows(), self.classes.len());
                members.iter().try_for_each(|member| member.add(rows, &mut sums))?;
                sums
            }
        };
        mean.values.iter_mut().for_each(|value| *value /= self.count);
        Ok(mean)
    }
}

impl Estimator for BaggingClassifier {
    fn visit_forests(&mut self, visit: &mut dyn FnMut(&mut Forest) -> Result<()>) -> Result<()> {
        match &mut self.members {
            Bag::Trees(trees) => trees.visit_forests(visit),
            Bag::Others(_) => Ok(()),
        }
    }

    fn can(&self, method: Method) -> bool {
        match (method, &self.members) {
            (Method::Predict | Method::PredictProba, _) | (Method::Contributions, Bag::Trees(_)) => true,
            (Method::DecisionFunction, Bag::Others(members)) => {
                members.iter().all(|member| member.member.can(Method::DecisionFunction))
            }
            _ => false,
        }
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        Ok(Target::one(self.classes.pick(argmax(&self.mean(rows)?))))
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        Ok(vec![self.mean(rows)?])
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        let Bag::Others(members) = &self.members else {
            return Err(Error::internal("trees have no decision function"));
        };
        let mut decisions = members.iter().map(|own| own.member.ask(rows, |own, rows| own.decision_function(rows)));
        let mut mean = decisions.next().ok_or_else(|| Error::internal("an ensemble without members"))??;
        for decision in decisions {
            let decision = decision?;
            check_shape(&decision, mean.rows, mean.columns)?;
            mean.values.iter_mut().zip(&decision.values).for_each(|(sum, own)| *sum += own);
        }
        mean.values.iter_mut().for_each(|value| *value /= self.count);
        Ok(mean)
    }

    fn contributions(&self, rows: &Data) -> Result<Contributions> {
        match &self.members {
            Bag::Trees(trees) => trees.explain_mean(rows),
            Bag::Others(_) => Err(lacks(Method::Contributions)),
        }
    }

    fn explained_outputs(&self) -> usize {
        self.classes.len()
    }

    fn features(&self) -> Option<usize> {
        Some(self.features)
    }

    fn takes(&self, column: usize) -> Takes {
        match &self.members {
            Bag::Trees(_) => Takes::Numbers,
            Bag::Others(members) => members.iter().map(|member| member.member.takes(column)).max().unwrap_or_default(),
        }
    }
}

/// The mean of what the members predict.
enum BaggingRegressor {
    Trees { trees: Trees, count: f64, features: usize },
    Others { members: Vec<Built>, features: usize },
}

fn bagging_regressor(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let features = node.read("n_features_in_", Node::usize)?;
    let members = Member::with_columns(node, features)?;
    let count = members.len() as f64;
    Ok(Box::new(match Trees::of(&members, features, (1, 1), |_| 0, |_, _| ())? {
        Some(trees) => BaggingRegressor::Trees { trees, count, features },
        None => BaggingRegressor::Others { members: Built::all(members, builder)?, features },
    }))
}

impl Estimator for BaggingRegressor {
    fn visit_forests(&mut self, visit: &mut dyn FnMut(&mut Forest) -> Result<()>) -> Result<()> {
        match self {
            BaggingRegressor::Trees { trees, .. } => trees.visit_forests(visit),
            BaggingRegressor::Others { .. } => Ok(()),
        }
    }

    fn can(&self, method: Method) -> bool {
        match self {
            BaggingRegressor::Trees { .. } => matches!(method, Method::Predict | Method::Contributions),
            BaggingRegressor::Others { .. } => method == Method::Predict,
        }
    }

    fn contributions(&self, rows: &Data) -> Result<Contributions> {
        match self {
            BaggingRegressor::Trees { trees, .. } => trees.explain_mean(rows),
            BaggingRegressor::Others { .. } => Err(lacks(Method::Contributions)),
        }
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        match self {
            BaggingRegressor::Trees { trees, count, .. } => {
                let sums = trees.sums(rows)?.values;
                Ok(Target::floats(sums.into_iter().map(|sum| sum / count).collect()))
            }
            BaggingRegressor::Others { members, .. } => {
                let mut answers = members.iter().map(|member| member.ask(rows, |own, rows| own.predict(rows)));
                let first = answers.next().ok_or_else(|| Error::internal("an ensemble without members"))??;
                let mut mean = first.values.numbers()?;
                for answer in answers {
                    let values = answer?.values.numbers()?;
                    mean.iter_mut().zip(values).for_each(|(sum, own)| *sum += own);
                }
                mean.iter_mut().for_each(|value| *value /= members.len() as f64);
                Ok(Target { values: Labels::Float(mean), columns: first.columns })
            }
        }
    }

    fn features(&self) -> Option<usize> {
        match self {
            BaggingRegressor::Trees { features, .. } | BaggingRegressor::Others { features, .. } => Some(*features),
        }
    }

    fn takes(&self, column: usize) -> Takes {
        match self {
            BaggingRegressor::Trees { .. } => Takes::Numbers,
            BaggingRegressor::Others { members, .. } => {
                members.iter().map(|member| member.takes(column)).max().unwrap_or_default()
            }
        }
    }
}

/// Different estimators of the same rows, with their weights.
struct Voters {
    members: Vec<Box<dyn Estimator>>,
    names: Vec<Arc<str>>,
    weights: Option<Vec<f64>>,
}

impl Voters {
    fn read(node: Node<'_>, builder: &mut Builder) -> Result<Voters> {
        let members = builder.build_all(node.read("estimators_", Node::items)?)?;
        let weights = read::option(node, "weights", |weights| weights.numbers()?.vector(None))?;
        let kept = kept(node)?;
        // Those of dropped estimators are there too.
        let of_kept = |weights: Vec<f64>| kept.iter().filter_map(|(place, _)| weights.get(*place).copied()).collect();
        let weights: Option<Vec<f64>> = weights.map(of_kept);
        let fits = kept.len() == members.len() && weights.as_ref().is_none_or(|weights| weights.len() == members.len());
        if members.is_empty() || !fits {
            return Err(Error::load("estimators_ is empty, or does not fit estimators and weights"));
        }
        Ok(Voters { members, names: kept.into_iter().map(|(_, name)| name.into()).collect(), weights })
    }

    fn weight(&self, place: usize) -> f64 {
        self.weights.as_ref().map_or(1.0, |weights| weights[place])
    }

    /// numpy's weighted average of the members' answers.
    fn average(&self, answers: &[Matrix]) -> Matrix {
        let mut average = Matrix::zeros(answers[0].rows, answers[0].columns);
        for (place, answer) in answers.iter().enumerate() {
            let weight = self.weight(place);
            average.values.iter_mut().zip(&answer.values).for_each(|(sum, own)| *sum += own * weight);
        }
        let scale: f64 = (0..answers.len()).map(|place| self.weight(place)).sum();
        average.values.iter_mut().for_each(|value| *value /= scale);
        average
    }

    /// What each predicts, as a matrix of one column.
    fn predictions(&self, rows: &Data) -> Result<Vec<Matrix>> {
        let mut predictions = Vec::with_capacity(self.members.len());
        for member in &self.members {
            let values = member.predict(rows)?.values.numbers()?;
            if values.len() != rows.rows() {
                return Err(unsupported("voting", "of several outputs"));
            }
            predictions.push(Matrix::new(values.len(), 1, values));
        }
        Ok(predictions)
    }

    fn probabilities(&self, rows: &Data, classes: usize) -> Result<Vec<Matrix>> {
        self.members.iter().map(|member| probabilities(&**member, rows, classes)).collect()
    }

    fn features(&self) -> Option<usize> {
        self.members[0].features()
    }

    fn takes(&self, column: usize) -> Takes {
        self.members.iter().map(|member| member.takes(column)).max().unwrap_or_default()
    }

    fn demands(&self, column: usize) -> bool {
        self.members.iter().any(|member| member.demands(column))
    }

    fn uses(&self, column: usize) -> bool {
        self.members.iter().any(|member| member.uses(column))
    }
}

struct VotingClassifier {
    voters: Voters,
    classes: Labels,
    /// Averages probabilities instead of counting predictions.
    soft: bool,
    /// Whether `transform` gives a matrix.
    flat: bool,
}

fn voting_classifier(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let soft = node.read("voting", Node::text)? == "soft";
    let classes = read::classes(node)?;
    node.read("estimators_", |members| members.items()?.try_for_each(|member| check_classes(member, classes.len())))?;
    Ok(Box::new(VotingClassifier {
        voters: Voters::read(node, builder)?,
        classes,
        soft,
        flat: !soft || node.read("flatten_transform", Node::bool)?,
    }))
}

impl VotingClassifier {
    /// The weights that predictions have together, a column for each class.
    fn counts(&self, rows: &Data) -> Result<Matrix> {
        let mut counts = Matrix::zeros(rows.rows(), self.classes.len());
        for (place, predicted) in self.voters.predictions(rows)?.into_iter().enumerate() {
            let chosen = numbered(&Labels::Float(predicted.values), self.classes.len())?;
            for (row, class) in chosen.into_iter().enumerate() {
                counts.row_mut(row)[class] += self.voters.weight(place);
            }
        }
        Ok(counts)
    }
}

impl Estimator for VotingClassifier {
    fn can(&self, method: Method) -> bool {
        match method {
            Method::Predict => true,
            Method::PredictProba => self.soft,
            Method::Transform => self.flat,
            Method::DecisionFunction | Method::Contributions => false,
        }
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let scores = if self.soft { self.predict_proba(rows)?.swap_remove(0) } else { self.counts(rows)? };
        Ok(Target::one(self.classes.pick(argmax(&scores))))
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        Ok(vec![self.voters.average(&self.voters.probabilities(rows, self.classes.len())?)])
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let parts = if self.soft {
            self.voters.probabilities(rows, self.classes.len())?
        } else {
            self.voters.predictions(rows)?
        };
        Ok(Data::Dense(Matrix::beside(&parts)))
    }

    fn gives(&self) -> Option<DType> {
        (!self.soft).then_some(DType::Int64)
    }

    fn names_out(&self, _names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        let voters = self.voters.names.iter().map(|name| format!("votingclassifier_{name}"));
        if !self.soft {
            return Some(voters.map(Arc::from).collect());
        }
        let of_classes = |name: String| (0..self.classes.len()).map(move |class| format!("{name}{class}").into());
        let are_few = voters.len() * self.classes.len() <= MOST_NAMES;
        (self.flat && are_few).then(|| voters.flat_map(of_classes).collect())
    }

    fn features(&self) -> Option<usize> {
        self.voters.features()
    }

    fn takes(&self, column: usize) -> Takes {
        self.voters.takes(column)
    }

    fn demands(&self, column: usize) -> bool {
        self.voters.demands(column)
    }

    fn uses(&self, column: usize) -> bool {
        self.voters.uses(column)
    }
}

struct VotingRegressor(Voters);

fn voting_regressor(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    Ok(Box::new(VotingRegressor(Voters::read(node, builder)?)))
}

impl Estimator for VotingRegressor {
    fn can(&self, method: Method) -> bool {
        matches!(method, Method::Predict | Method::Transform)
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        Ok(Target::floats(self.0.average(&self.0.predictions(rows)?).values))
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        Ok(Data::Dense(Matrix::beside(&self.0.predictions(rows)?)))
    }

    fn names_out(&self, _names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        Some(self.0.names.iter().map(|name| format!("votingregressor_{name}").into()).collect())
    }

    fn features(&self) -> Option<usize> {
        self.0.features()
    }

    fn takes(&self, column: usize) -> Takes {
        self.0.takes(column)
    }

    fn demands(&self, column: usize) -> bool {
        self.0.demands(column)
    }

    fn uses(&self, column: usize) -> bool {
        self.0.uses(column)
    }
}
