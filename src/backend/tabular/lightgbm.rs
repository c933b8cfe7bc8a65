//! lightgbm's boosters, and the scikit-learn classes around them. How lightgbm computes is said in
//! [`crate::formats::lightgbm`].

use super::categories::{Categories, Category, Coding, Unseen};
use super::data::{Data, Labels, Matrix, Target};
use super::estimator::{Build, Builder, Contributions, Estimator, Method, Names, Takes};
use super::forest::{self, InputPrecision};
use super::sklearn::read::{self, argmax, two_columns};
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::formats::lightgbm::{self as format, Model};
use crate::formats::trees::ZERO;

pub const CLASSES: &[(&str, Build)] = &[
    ("Booster", pickled),
    ("LGBMClassifier", classifier),
    ("LGBMRegressor", regressor),
    ("LGBMRanker", regressor),
    ("LGBMModel", regressor),
];

pub struct Booster {
    features: usize,
    outputs: usize,
    forest: forest::Forest,
    /// Without its trees: what becomes of the sums.
    model: Model,
    iterations: usize,
    coding: Coding,
}

impl Booster {
    /// A booster as `Booster.predict` uses it.
    ///
    /// # Errors
    /// As [`forest::Forest::compile`].
    pub fn new(mut model: Model) -> Result<Booster> {
        let (features, outputs, iterations) = (model.features, model.trees_per_iteration.max(1), model.iterations());
        model.keep_iterations(iterations);
        let coding = coding(&model)?;
        let trees = std::mem::take(&mut model.trees);
        let trees = trees.into_iter().enumerate().map(|(number, tree)| (tree, number % outputs)).collect();
        let grown = forest::Grown { features, outputs, width: 1, input: InputPrecision::Double, trees };
        Ok(Booster { features, outputs, forest: forest::Forest::compile(grown)?, model, iterations, coding })
    }

    fn predictions(&self, rows: &Data) -> Result<Vec<f64>> {
        let mut scores = self.raw(rows)?;
        for row in scores.chunks_exact_mut(self.outputs) {
            if self.model.average_output && self.iterations > 0 {
                row.iter_mut().for_each(|score| *score /= self.iterations as f64);
            }
            if let Some(objective) = self.model.objective {
                objective.apply(row);
            }
        }
        Ok(scores)
    }

    /// Sums of the trees, which nothing was made of.
    fn raw(&self, rows: &Data) -> Result<Vec<f64>> {
        self.forest.sums(&self.seen(rows)?.values, &vec![0.0; self.outputs])
    }

    /// Rows as the trees see them.
    fn seen(&self, rows: &Data) -> Result<Matrix> {
        let mut rows = self.coding.coded(rows)?.into_owned();
        rows.values.iter_mut().filter(|value| value.abs() <= ZERO).for_each(|value| *value = 0.0);
        Ok(rows)
    }

    fn target(&self, predictions: Vec<f64>) -> Target {
        Target { values: Labels::Float(predictions), columns: (self.outputs > 1).then_some(self.outputs) }
    }
}

/// # Errors
/// When categories are numbers, and other than their codes, and may be of several columns.
fn coding(model: &Model) -> Result<Coding> {
    let mut columns = vec![None; model.features];
    for (list, column) in model.pandas_categorical.iter().zip(model.pandas_columns()) {
        let category = |value: &serde_json::Value| match value {
            serde_json::Value::String(text) => Ok(Category::Text(text.as_str().into())),
            serde_json::Value::Bool(value) => Ok(Category::Bool(*value)),
            serde_json::Value::Number(number) => Ok(Category::number(number.as_f64().unwrap_or(f64::NAN))),
            other => Err(Error::load(format!("pandas_categorical has {other} for a category"))),
        };
        let categories = list.iter().map(category).collect::<Result<Vec<_>>>()?;
        let categories = Categories::new(categories, Unseen::Missing)?;
        match column {
            Some(column) => columns[column] = Some(categories),
            None if categories.takes() == Takes::NumericCategories => {
                return Err(Error::load(
                    "a column of pandas' type category holds numbers, and the file leaves open which column it is: \
                     train with text, or with codes from 0, as categories",
                ));
            }
            None => {}
        }
    }
    Ok(Coding::new(columns))
}

impl Estimator for Booster {
    fn visit_forests(&mut self, visit: &mut dyn FnMut(&mut forest::Forest) -> Result<()>) -> Result<()> {
        visit(&mut self.forest)
    }

    fn can(&self, method: Method) -> bool {
        method == Method::Predict || (method == Method::Contributions && !self.forest.is_linear())
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        Ok(self.target(self.predictions(rows)?))
    }

    /// As `pred_contrib`, of the raw scores; a random forest's are not averaged there either.
    fn contributions(&self, rows: &Data) -> Result<Contributions> {
        self.forest.explain(&self.seen(rows)?, &vec![0.0; self.outputs])
    }

    fn explained_outputs(&self) -> usize {
        self.outputs
    }

    fn features(&self) -> Option<usize> {
        Some(self.features)
    }

    /// `Column_0` and so on are lightgbm's for data without names.
    fn names(&self) -> Names<'_> {
        let made_up = |(place, name): (usize, &String)| *name == format!("Column_{place}");
        let names = &self.model.feature_names;
        if names.iter().enumerate().all(made_up) { Names::default() } else { Names { list: names, underscored: true } }
    }

    fn takes(&self, column: usize) -> Takes {
        self.coding.takes(column)
    }
}

/// The model inside a pickled `lightgbm.basic.Booster`, cut at its best iteration.
///
/// # Errors
/// As [`format::read`].
pub fn read_pickled(node: Node<'_>) -> Result<Model> {
    // `handle` until 4.0.
    let name = if node.find("_handle").is_some() { "_handle" } else { "handle" };
    let mut model = node.read(name, |handle| format::read(handle.text()?.as_bytes()))?;
    if let Some(best) = node.read_some("best_iteration", Node::int)?
        && best > 0
    {
        model.keep_iterations(best as usize);
    }
    Ok(model)
}

fn pickled(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    Ok(Box::new(Booster::new(read_pickled(node)?)?))
}

fn regressor(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    Ok(Box::new(node.read("_Booster", |booster| Booster::new(read_pickled(booster)?))?))
}

struct Classifier {
    booster: Booster,
    classes: Labels,
    /// Whether it is of 4.7 or later, which have a `decision_function`; others calibrate by it where there is one.
    decides: bool,
}

fn classifier(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let booster = node.read("_Booster", |booster| Booster::new(read_pickled(booster)?))?;
    let classes = node.read("_le", |encoder| encoder.read("classes_", read::labels))?;
    let expected = if booster.outputs == 1 { 2 } else { booster.outputs };
    // A binary model of one class only is one that nobody can use, but it can be trained.
    if classes.len() != expected && !(booster.outputs == 1 && classes.len() == 1) {
        return Err(Error::load(format!("{} classes for {} outputs", classes.len(), booster.outputs)));
    }
    if booster.model.objective.is_none() {
        return Err(super::estimator::unsupported("objective", "of one's own"));
    }
    let decides = node.find("_fitted_with_feature_names").is_some(); // since 4.7, too
    Ok(Box::new(Classifier { booster, classes, decides }))
}

impl Classifier {
    fn probabilities(&self, rows: &Data) -> Result<Matrix> {
        let predictions = self.booster.predictions(rows)?;
        Ok(match self.booster.outputs {
            1 => two_columns(predictions.into_iter()),
            outputs => Matrix::new(rows.rows(), outputs, predictions),
        })
    }
}

impl Estimator for Classifier {
    fn visit_forests(&mut self, visit: &mut dyn FnMut(&mut forest::Forest) -> Result<()>) -> Result<()> {
        self.booster.visit_forests(visit)
    }

    fn can(&self, method: Method) -> bool {
        match method {
            Method::PredictProba => true,
            Method::DecisionFunction => self.decides,
            _ => self.booster.can(method),
        }
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let last = self.classes.len().saturating_sub(1);
        Ok(Target::one(self.classes.pick(argmax(&self.probabilities(rows)?).map(|place| place.min(last)))))
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        Ok(vec![self.probabilities(rows)?])
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        Ok(Matrix::new(rows.rows(), self.booster.outputs, self.booster.raw(rows)?))
    }

    fn contributions(&self, rows: &Data) -> Result<Contributions> {
        self.booster.contributions(rows)
    }

    fn explained_outputs(&self) -> usize {
        self.booster.outputs
    }

    fn features(&self) -> Option<usize> {
        self.booster.features()
    }

    fn names(&self) -> Names<'_> {
        self.booster.names()
    }

    fn takes(&self, column: usize) -> Takes {
        self.booster.takes(column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::naive::fixtures::cases;

    /// The engine's predictions against the library's.
    #[test]
    fn predictions_are_the_librarys() {
        for case in cases("lightgbm") {
            let booster = Booster::new(format::read(&case.bytes).unwrap()).unwrap();
            let rows = case.numbers("rows");
            let rows = Data::Dense(Matrix::new(rows.len(), booster.features, rows.concat()));
            let got = booster.predictions(&rows).unwrap();
            let expected = case.numbers("prediction").concat();
            assert_eq!(got.len(), expected.len(), "{}", case.name);
            for (row, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let close = got == expected || (got - expected).abs() <= 1e-12 * expected.abs();
                assert!(close || (got.is_nan() && expected.is_nan()), "{} {row}: {got}, not {expected}", case.name);
            }
            if case.answers.get("contributions").is_some() {
                let got = booster.contributions(&rows).unwrap().values;
                let expected = case.numbers("contributions").concat();
                let scale = expected.iter().fold(1.0, |most: f64, value| most.max(value.abs()));
                let close = got.iter().zip(&expected).all(|(got, expected)| (got - expected).abs() <= 1e-10 * scale);
                assert!(close && got.len() == expected.len(), "{}: {got:?}, not {expected:?}", case.name);
            }
        }
    }
}
