//! `AdaBoost`: weighted votes of classifiers, weighted medians of regressors.

use super::members::{Built, Member, Places, Trees, probabilities};
use super::read::{self, decide, softmax};
use crate::backend::tabular::data::{Data, Labels, Matrix, Target};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, Takes};
use crate::error::{Error, Result};
use crate::formats::graph::Node;

pub const CLASSES: &[(&str, Build)] = &[("AdaBoostClassifier", classifier), ("AdaBoostRegressor", regressor)];

/// Members as they are, or as one forest that gives the same.
enum Members {
    Trees(Trees),
    Others(Vec<Built>),
}

impl Members {
    fn takes(&self, column: usize) -> Takes {
        match self {
            Members::Trees(_) => Takes::Numbers,
            Members::Others(members) => members.iter().map(|member| member.takes(column)).max().unwrap_or_default(),
        }
    }
}

/// `estimator_weights_`, which may be longer than `estimators_` when boosting stopped early.
fn read_weights(node: Node<'_>, members: usize) -> Result<Vec<f64>> {
    let weights = node.read("estimator_weights_", Node::numbers)?.vector(None)?;
    if weights.len() < members {
        return Err(Error::load(format!("{} weights for {members} estimators", weights.len())));
    }
    Ok(weights)
}

/// What a member says of the classes (Zhu et al., "Multi-class `AdaBoost`", 2009).
#[derive(Clone, Copy)]
enum Vote {
    /// SAMME: its weight for the class that it predicts, and a part of it against the others (since 1.3).
    Discrete { against: f64 },
    /// SAMME.R: centred logarithms of its probabilities, which are 0 when there is one class.
    Real,
}

impl Vote {
    fn of(node: Node<'_>, classes: usize) -> Result<Vote> {
        // The option is gone since 1.8, SAMME.R since 1.6.
        let algorithm = if read::version(node) < (1, 8) { node.read("algorithm", Node::text)? } else { "SAMME" };
        let counts_against = read::version(node) >= (1, 3);
        if algorithm == "SAMME.R" || (classes == 1 && counts_against) {
            return Ok(Vote::Real);
        }
        let against = if counts_against { -1.0 / (classes as f64 - 1.0) } else { 0.0 };
        Ok(Vote::Discrete { against })
    }

    /// For and against the predicted class.
    fn discrete(self, weight: f64) -> (f64, f64) {
        match self {
            Vote::Discrete { against: 0.0 } | Vote::Real => (weight, 0.0),
            Vote::Discrete { against } => (weight, against * weight),
        }
    }

    /// Turns one member's probabilities into its votes.
    fn cast(self, probabilities: &mut [f64], weight: f64) {
        match self {
            Vote::Discrete { .. } => {
                let chosen = read::argmax_of(probabilities);
                let (for_it, against) = self.discrete(weight);
                probabilities.fill(against);
                probabilities[chosen] = for_it;
            }
            Vote::Real => {
                let classes = probabilities.len() as f64;
                probabilities.iter_mut().for_each(|p| *p = p.max(f64::EPSILON).ln());
                let sum: f64 = probabilities.iter().sum();
                probabilities.iter_mut().for_each(|log| *log = (classes - 1.0) * (*log - (1.0 / classes) * sum));
            }
        }
    }
}

struct Classifier {
    members: Members,
    classes: Labels,
    vote: Vote,
    weights: Vec<f64>,
    features: Option<usize>,
}

fn classifier(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let classes = read::classes(node)?;
    let count = node.read("n_classes_", Node::usize)?;
    if count != classes.len() {
        return Err(Error::load(format!("classes_ are {}, n_classes_ is {count}", classes.len())));
    }
    let members = Member::all(node)?;
    let weights = read_weights(node, members.len())?;
    let vote = Vote::of(node, classes.len())?;
    let features = read::features(node)?;
    let shape = (classes.len(), classes.len());
    let cast = |number: usize, values: &mut [f64]| vote.cast(values, weights[number]);
    let trees = match features {
        Some(features) if same_classes(&members, &classes) => Trees::of(&members, features, shape, |_| 0, cast)?,
        _ => None,
    };
    let members = match trees {
        Some(trees) => Members::Trees(trees),
        None => Members::Others(Built::all(members, builder)?),
    };
    Ok(Box::new(Classifier { members, classes, vote, weights, features }))
}

/// Whether all members know just the classes of the ensemble.
fn same_classes(members: &[Member<'_>], classes: &Labels) -> bool {
    members.iter().all(|member| super::members::classes(member.node).is_ok_and(|own| own == *classes))
}

impl Classifier {
    fn sums(&self, rows: &Data) -> Result<Matrix> {
        rows.check_finite()?;
        let members = match &self.members {
            Members::Trees(trees) => return trees.sums(rows),
            Members::Others(members) => members,
        };
        let places = Places::of(&self.classes);
        let mut sums = Matrix::zeros(rows.rows(), self.classes.len());
        for (member, weight) in members.iter().zip(&self.weights) {
            match self.vote {
                Vote::Real => {
                    let mut votes = member.ask(rows, |own, rows| probabilities(own, rows, self.classes.len()))?;
                    for row in 0..votes.rows {
                        self.vote.cast(votes.row_mut(row), *weight);
                    }
                    sums.values.iter_mut().zip(&votes.values).for_each(|(sum, vote)| *sum += vote);
                }
                Vote::Discrete { .. } => {
                    let predicted = places.find(&member.ask(rows, |own, rows| own.predict(rows))?.values);
                    let (for_it, against) = self.vote.discrete(*weight);
                    for (row, predicted) in predicted.into_iter().take(sums.rows).enumerate() {
                        for (class, sum) in sums.row_mut(row).iter_mut().enumerate() {
                            *sum += if predicted == Some(class) { for_it } else { against };
                        }
                    }
                }
            }
        }
        Ok(sums)
    }
}

impl Estimator for Classifier {
    fn can(&self, method: Method) -> bool {
        matches!(method, Method::Predict | Method::PredictProba | Method::DecisionFunction)
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        Ok(decide(&self.classes, &self.decision_function(rows)?))
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        let mut sums = self.sums(rows)?;
        let total: f64 = self.weights.iter().sum();
        sums.values.iter_mut().for_each(|sum| *sum /= total);
        if sums.columns == 2 {
            let margins = sums.iter_rows().map(|row| -row[0] + row[1]).collect();
            return Ok(Matrix::new(sums.rows, 1, margins));
        }
        Ok(sums)
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        let mut scores = self.decision_function(rows)?;
        if self.classes.len() == 1 {
            scores.values.fill(1.0);
            return Ok(vec![scores]);
        }
        if scores.columns == 1 {
            let both = scores.values.iter().flat_map(|score| [-score / 2.0, score / 2.0]).collect();
            scores = Matrix::new(scores.rows, 2, both);
        } else {
            let others = self.classes.len() as f64 - 1.0;
            scores.values.iter_mut().for_each(|score| *score /= others);
        }
        softmax(&mut scores);
        Ok(vec![scores])
    }

    fn features(&self) -> Option<usize> {
        self.features
    }

    fn takes(&self, column: usize) -> Takes {
        self.members.takes(column)
    }
}

struct Regressor {
    members: Members,
    /// One for each member.
    weights: Vec<f64>,
    features: Option<usize>,
}

fn regressor(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let members = Member::all(node)?;
    let mut weights = read_weights(node, members.len())?;
    weights.truncate(members.len());
    let features = read::features(node)?;
    let trees = match features {
        Some(features) => Trees::of(&members, features, (members.len(), 1), |number| number, |_, _| ())?,
        None => None,
    };
    let members = match trees {
        Some(trees) => Members::Trees(trees),
        None => Members::Others(Built::all(members, builder)?),
    };
    Ok(Box::new(Regressor { members, weights, features }))
}

impl Regressor {
    /// What each member predicts, a column each.
    fn predictions(&self, rows: &Data) -> Result<Matrix> {
        rows.check_finite()?;
        let members = match &self.members {
            Members::Trees(trees) => return trees.sums(rows),
            Members::Others(members) => members,
        };
        let mut all = Matrix::zeros(rows.rows(), members.len());
        for (column, member) in members.iter().enumerate() {
            let values = member.ask(rows, |own, rows| own.predict(rows))?.values.numbers()?;
            for (row, value) in values.into_iter().take(all.rows).enumerate() {
                all.row_mut(row)[column] = value;
            }
        }
        Ok(all)
    }

    /// The prediction at which half of the weight is reached.
    fn median(&self, predictions: &[f64], order: &mut [usize]) -> f64 {
        order.sort_unstable_by(|a, b| predictions[*a].total_cmp(&predictions[*b]).then(a.cmp(b)));
        let total = order.iter().fold(0.0, |sum, place| sum + self.weights[*place]);
        let mut sum = 0.0;
        let median = order.iter().find(|place| {
            sum += self.weights[**place];
            sum >= 0.5 * total
        });
        predictions[*median.unwrap_or(&order[0])]
    }
}

impl Estimator for Regressor {
    fn can(&self, method: Method) -> bool {
        method == Method::Predict
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let predictions = self.predictions(rows)?;
        let mut order: Vec<usize> = (0..predictions.columns).collect();
        Ok(Target::floats(predictions.iter_rows().map(|row| self.median(row, &mut order)).collect()))
    }

    fn features(&self) -> Option<usize> {
        self.features
    }

    fn takes(&self, column: usize) -> Takes {
        self.members.takes(column)
    }
}
