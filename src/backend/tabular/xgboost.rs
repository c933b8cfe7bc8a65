//! xgboost's boosters, and the scikit-learn classes around them. How xgboost computes, and how the classes differ from
//! the booster, is said in [`crate::formats::xgboost`]; sums here are its own to the bit.

use super::categories::{Categories, Category, Coding, Unseen};
use super::data::{Data, Labels, Matrix, Target};
use super::estimator::{Build, Builder, Contributions, Estimator, Method, Names, Takes, unsupported};
use super::forest::{self, InputPrecision};
use super::sklearn::read::{self, argmax};
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::formats::xgboost::{self as format, Linear, Model, Transform};
use crate::tensor::DType;

pub const CLASSES: &[(&str, Build)] = &[
    ("Booster", pickled),
    ("XGBClassifier", classifier),
    ("XGBRFClassifier", classifier),
    ("XGBRegressor", regressor),
    ("XGBRFRegressor", regressor),
    ("XGBRanker", regressor),
];

/// Margins of rows, and what becomes of them.
pub struct Booster {
    features: usize,
    names: Vec<String>,
    coding: Coding,
    outputs: usize,
    transform: Transform,
    /// Where margins begin.
    base: Vec<f32>,
    sums: Sums,
}

enum Sums {
    Trees(Box<forest::Forest>),
    Linear(Linear),
}

/// Who asks: the booster itself, or its scikit-learn class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Front {
    Booster,
    Class,
}

impl Booster {
    /// A booster as `Booster.predict` uses it: with all its trees.
    ///
    /// # Errors
    /// As [`forest::Forest::compile`].
    pub fn new(model: Model) -> Result<Booster> {
        Booster::seen_by(Front::Booster, model)
    }

    fn seen_by(front: Front, model: Model) -> Result<Booster> {
        let (features, outputs, base) = (model.features, model.outputs, model.base_margins());
        let until = if front == Front::Class { model.best_iteration().map_or(0, |best| best + 1) } else { 0 };
        let transform = model.objective.transform;
        let names = model.feature_names;
        let coding = coding(model.categories)?;
        let sums = match model.booster {
            format::Booster::Linear(linear) => Sums::Linear(linear),
            format::Booster::Forest(forest) => {
                let vectors = forest.trees.iter().any(|grown| grown.target == format::Target::All);
                let count = forest.trees_until(until);
                let weights = forest.weights;
                let trees = forest.trees.into_iter().take(count).enumerate().map(|(number, mut grown)| {
                    let output = match grown.target {
                        format::Target::Output(output) => output,
                        format::Target::All => 0,
                    };
                    if let Some(weight) = weights.as_ref().map(|weights| weights[number]) {
                        let base = base.get(output).copied().unwrap_or_default();
                        grown.tree.leaves.iter_mut().for_each(|leaf| {
                            // The class's way rounds twice more; a margin's base is the same for all rows.
                            let value = *leaf as f32;
                            let value = if front == Front::Class { (base + value) - base } else { value };
                            *leaf = f64::from(value * weight);
                        });
                    }
                    (grown.tree, output)
                });
                let trees = trees.collect();
                let width = if vectors { outputs } else { 1 };
                let grown = forest::Grown { features, outputs, width, input: InputPrecision::Single, trees };
                Sums::Trees(Box::new(forest::Forest::compile(grown)?))
            }
        };
        Ok(Booster { features, names, coding, outputs, transform, base, sums })
    }

    /// Rows as the trees see them: what a sparse matrix does not hold is missing, not zero.
    fn seen(&self, rows: &Data) -> Result<Matrix> {
        let Data::Sparse(sparse) = rows else { return Ok(self.coding.coded(rows)?.into_owned()) };
        let mut dense = sparse.to_dense()?;
        dense.values.fill(f64::NAN);
        for row in 0..sparse.rows {
            let values = dense.row_mut(row);
            sparse.row(row).for_each(|(column, value)| values[column] = value);
        }
        Ok(dense)
    }

    /// A margin for each output of each row.
    fn margins(&self, rows: &Matrix) -> Result<Vec<f32>> {
        match &self.sums {
            Sums::Trees(forest) => forest.sums(&rows.values, &self.base),
            Sums::Linear(linear) => Ok(rows.iter_rows().flat_map(|row| self.linear_margins(linear, row)).collect()),
        }
    }

    fn linear_margins(&self, linear: &Linear, row: &[f64]) -> impl Iterator<Item = f32> {
        (0..self.outputs).map(move |output| {
            let weights = linear.weights.iter().skip(output).step_by(self.outputs);
            let present = row.iter().map(|value| *value as f32).zip(weights).filter(|(value, _)| !value.is_nan());
            // Of the first output even where there are more: that is how it is.
            let start = linear.bias[output] + self.base[0];
            present.fold(start, |sum, (value, weight)| sum + value * weight)
        })
    }

    /// Predictions, as many to a row as [`Transform::outputs`] says.
    fn predictions(&self, rows: &Matrix) -> Result<Vec<f32>> {
        let mut margins = self.margins(rows)?;
        let kept = self.transform.outputs(self.outputs);
        let rows = margins.chunks_exact_mut(self.outputs);
        rows.for_each(|row| self.transform.apply(row));
        if kept == self.outputs {
            return Ok(margins);
        }
        Ok(margins.chunks_exact(self.outputs).flat_map(|row| row[..kept].iter().copied()).collect())
    }

    /// As `pred_contribs`, of the margins.
    fn explain(&self, rows: &Matrix) -> Result<Contributions> {
        let start: Vec<f64> = self.base.iter().map(|base| f64::from(*base)).collect();
        let linear = match &self.sums {
            Sums::Trees(forest) => return forest.explain(rows, &start),
            Sums::Linear(linear) => linear,
        };
        let (outputs, columns) = (self.outputs, self.features + 1);
        let mut values = Vec::with_capacity(rows.rows * outputs * columns);
        for row in rows.iter_rows() {
            for output in 0..outputs {
                let weights = linear.weights.iter().skip(output).step_by(outputs);
                let part =
                    |(value, weight): (&f64, &f32)| if value.is_nan() { 0.0 } else { value * f64::from(*weight) };
                values.extend(row.iter().zip(weights).map(part));
                values.push(f64::from(linear.bias[output] + self.base[0]));
            }
        }
        Ok(Contributions { rows: rows.rows, outputs, columns, values })
    }

    fn target(&self, predictions: Vec<f32>) -> Target {
        let columns = self.transform.outputs(self.outputs);
        Target { values: Labels::Single(predictions), columns: (columns > 1).then_some(columns) }
    }
}

impl Estimator for Booster {
    fn visit_forests(&mut self, visit: &mut dyn FnMut(&mut forest::Forest) -> Result<()>) -> Result<()> {
        match &mut self.sums {
            Sums::Trees(forest) => visit(forest),
            Sums::Linear(_) => Ok(()),
        }
    }

    fn can(&self, method: Method) -> bool {
        matches!(method, Method::Predict | Method::Contributions)
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let rows = self.seen(rows)?;
        if rows.values.iter().any(|value| (*value as f32).is_infinite()) {
            return Err(Error::invalid(
                "Input data contains `inf` or a value too large, while `missing` is not set to `inf`",
            ));
        }
        Ok(self.target(self.predictions(&rows)?))
    }

    fn contributions(&self, rows: &Data) -> Result<Contributions> {
        self.explain(&self.seen(rows)?)
    }

    fn explained_outputs(&self) -> usize {
        self.outputs
    }

    fn features(&self) -> Option<usize> {
        Some(self.features)
    }

    fn names(&self) -> Names<'_> {
        Names { list: &self.names, underscored: false }
    }

    fn takes(&self, column: usize) -> Takes {
        self.coding.takes(column)
    }
}

fn coding(features: Vec<Option<format::Categories>>) -> Result<Coding> {
    let columns = features.into_iter().map(|categories| {
        let (categories, unseen): (Vec<Category>, _) = match categories {
            None => return Ok(None),
            Some(format::Categories::Garbled) => (Vec::new(), Unseen::Untold),
            Some(format::Categories::Text(texts)) => {
                (texts.into_iter().map(|text| Category::Text(text.into())).collect(), Unseen::Refused)
            }
            Some(format::Categories::Numbers(numbers)) => {
                (numbers.into_iter().map(|number| Category::number(number as f64)).collect(), Unseen::Refused)
            }
        };
        Categories::new(categories, unseen).map(Some)
    });
    Ok(Coding::new(columns.collect::<Result<_>>()?))
}

/// The model inside a pickled `xgboost.core.Booster`.
///
/// # Errors
/// As [`format::read`].
pub fn read_pickled(node: Node<'_>) -> Result<Model> {
    node.read("handle", |handle| format::read(handle.bytes()?))
}

/// A booster from a file of its own, as the class that saved it sees it: `Booster` unless something else is said.
///
/// # Errors
/// When the class is none of xgboost's.
pub fn saved_by(class: Option<&str>, model: Model) -> Result<Box<dyn Estimator>> {
    let class = class.map_or("Booster", |class| class.rsplit('.').next().unwrap_or(class));
    if class == "Booster" {
        return Ok(Box::new(Booster::new(model)?));
    }
    let classes = if model.classes > 0 { model.classes } else { 2 };
    let class_model = Class { booster: Booster::seen_by(Front::Class, model)?, missing: None };
    match class {
        "XGBClassifier" | "XGBRFClassifier" => {
            Ok(Box::new(Classifier { class: class_model, encoder: None, classes, gives_margins: false }))
        }
        "XGBRegressor" | "XGBRFRegressor" | "XGBRanker" => Ok(Box::new(Regressor(class_model))),
        other => Err(unsupported("model_class", other)),
    }
}

fn pickled(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    Ok(Box::new(Booster::new(read_pickled(node)?)?))
}

/// What all the scikit-learn classes have.
struct Class {
    booster: Booster,
    /// The value that stands for a missing one, beside NaN.
    missing: Option<f64>,
}

impl Class {
    fn read(node: Node<'_>) -> Result<Class> {
        let model = node.read("_Booster", read_pickled)?;
        let missing = node.read_some("missing", Node::float)?.filter(|missing| !missing.is_nan());
        Ok(Class { booster: Booster::seen_by(Front::Class, model)?, missing })
    }

    fn rows(&self, rows: &Data) -> Result<Matrix> {
        let mut rows = self.booster.seen(rows)?;
        if let Some(missing) = self.missing {
            let is_missing = |value: f64| value as f32 == missing as f32;
            rows.values.iter_mut().filter(|value| is_missing(**value)).for_each(|value| *value = f64::NAN);
        }
        Ok(rows)
    }
}

struct Regressor(Class);

fn regressor(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    Ok(Box::new(Regressor(Class::read(node)?)))
}

impl Estimator for Regressor {
    fn visit_forests(&mut self, visit: &mut dyn FnMut(&mut forest::Forest) -> Result<()>) -> Result<()> {
        self.0.booster.visit_forests(visit)
    }

    fn can(&self, method: Method) -> bool {
        matches!(method, Method::Predict | Method::Contributions)
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let booster = &self.0.booster;
        Ok(booster.target(booster.predictions(&self.0.rows(rows)?)?))
    }

    fn contributions(&self, rows: &Data) -> Result<Contributions> {
        self.0.booster.explain(&self.0.rows(rows)?)
    }

    fn explained_outputs(&self) -> usize {
        self.0.booster.outputs
    }

    fn features(&self) -> Option<usize> {
        Some(self.0.booster.features)
    }

    fn names(&self) -> Names<'_> {
        self.0.booster.names()
    }

    fn takes(&self, column: usize) -> Takes {
        self.0.booster.coding.takes(column)
    }
}

struct Classifier {
    class: Class,
    /// `_le` of before 1.6, which took labels of any kind.
    encoder: Option<Labels>,
    classes: usize,
    /// `binary:logitraw`, whose predictions are no probabilities; they are compared with 0.5 all the same.
    gives_margins: bool,
}

fn classifier(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let class = Class::read(node)?;
    let encoder = node.read_some("_le", |encoder| encoder.read("classes_", read::labels))?;
    let classes = match node.read_some("n_classes_", Node::usize)? {
        Some(classes) => classes,
        None => class.booster.outputs.max(2),
    };
    if let Some(encoder) = &encoder
        && encoder.len() != classes.max(class.booster.outputs)
    {
        return Err(Error::load(format!("{} labels for {classes} classes", encoder.len())));
    }
    let gives_margins = read::option(node, "objective", Node::text)? == Some("binary:logitraw");
    Ok(Box::new(Classifier { class, encoder, classes, gives_margins }))
}

impl Classifier {
    fn is_multiclass(&self) -> bool {
        self.class.booster.outputs > 1 && self.classes != 2
    }

    fn labels(&self, places: Vec<i64>) -> Labels {
        let dtype = if self.class.booster.transform == Transform::Argmax { DType::Int32 } else { DType::Int64 };
        match &self.encoder {
            Some(encoder) => encoder.pick(places.into_iter().map(|place| place as usize)),
            None => Labels::Int(places, dtype),
        }
    }

    /// As `predict_proba` has them, before one column becomes two.
    fn probabilities(&self, rows: &Data) -> Result<Matrix> {
        let booster = &self.class.booster;
        let rows = self.class.rows(rows)?;
        let values = if booster.transform == Transform::Argmax {
            let mut margins = booster.margins(&rows)?;
            margins.chunks_exact_mut(booster.outputs).for_each(scipy_softmax);
            margins
        } else {
            booster.predictions(&rows)?
        };
        let values = values.into_iter().map(f64::from).collect();
        Ok(Matrix { single: true, ..Matrix::new(rows.rows, booster.outputs, values) })
    }
}

/// scipy's softmax of one row, in `f32` as numpy adds it.
fn scipy_softmax(row: &mut [f32]) {
    let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|value| *value = (*value - greatest).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|value| *value /= sum);
}

impl Estimator for Classifier {
    fn visit_forests(&mut self, visit: &mut dyn FnMut(&mut forest::Forest) -> Result<()>) -> Result<()> {
        self.class.booster.visit_forests(visit)
    }

    fn can(&self, method: Method) -> bool {
        match method {
            Method::Predict | Method::Contributions => true,
            Method::PredictProba => !self.gives_margins,
            Method::DecisionFunction | Method::Transform => false,
        }
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let probabilities = self.probabilities(rows)?;
        let above = probabilities.values.iter().map(|value| *value > 0.5);
        if self.is_multiclass() {
            return Ok(Target::one(self.labels(argmax(&probabilities).map(|place| place as i64).collect())));
        }
        if probabilities.columns == 1 {
            return Ok(Target::one(self.labels(above.map(i64::from).collect())));
        }
        // Several labels to a row.
        let values = Labels::Float(above.map(|is_above| f64::from(u8::from(is_above))).collect());
        Ok(Target { values, columns: Some(probabilities.columns) })
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        let probabilities = self.probabilities(rows)?;
        if probabilities.columns > 1 {
            return Ok(vec![probabilities]);
        }
        let pairs = probabilities.values.iter().flat_map(|p| [f64::from(1.0 - *p as f32), *p]).collect();
        Ok(vec![Matrix { single: true, ..Matrix::new(probabilities.rows, 2, pairs) }])
    }

    fn contributions(&self, rows: &Data) -> Result<Contributions> {
        self.class.booster.explain(&self.class.rows(rows)?)
    }

    fn explained_outputs(&self) -> usize {
        self.class.booster.outputs
    }

    fn features(&self) -> Option<usize> {
        Some(self.class.booster.features)
    }

    fn names(&self) -> Names<'_> {
        self.class.booster.names()
    }

    fn takes(&self, column: usize) -> Takes {
        self.class.booster.coding.takes(column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::naive::fixtures::cases;

    /// The engine's margins against the library's, to the bit.
    #[test]
    fn margins_and_predictions_are_the_librarys() {
        for case in cases("xgboost") {
            let model = format::read(&case.bytes).unwrap();
            let booster = Booster::new(model).unwrap();
            let rows = case.numbers("rows");
            let columns = booster.features;
            let padded = rows.iter().map(|row| row.iter().copied().chain(std::iter::repeat(f64::NAN)).take(columns));
            let values: Vec<f64> = padded.flatten().collect();
            let rows = Matrix::new(rows.len(), columns, values);
            let bits = |values: Vec<f32>| {
                values.into_iter().map(|value| if value.is_nan() { 0 } else { value.to_bits() }).collect::<Vec<_>>()
            };
            let expected =
                |what: &str| bits(case.numbers(what).concat().into_iter().map(|value| value as f32).collect());
            let place = format!("{} {}", case.name, case.format);
            assert_eq!(bits(booster.margins(&rows).unwrap()), expected("margin"), "{place}");
            assert_eq!(bits(booster.predictions(&rows).unwrap()), expected("prediction"), "{place}");
            if case.answers.get("contributions").is_some() {
                let (got, expected) = (booster.explain(&rows).unwrap().values, case.numbers("contributions").concat());
                assert_eq!(got.len(), expected.len(), "{place}");
                let scale = expected.iter().fold(1.0, |most: f64, value| most.max(value.abs()));
                // xgboost computes them in f32.
                let close = got.iter().zip(&expected).all(|(got, expected)| (got - expected).abs() <= 1e-5 * scale);
                assert!(close, "{place}: {got:?}, not {expected:?}");
            }
        }
    }
}
