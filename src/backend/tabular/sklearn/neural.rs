//! Neural networks: layers of `activation(x @ coefs + intercepts)`.

use super::affine::{Linear, floats, is_single};
use super::input::{self, Input};
use super::read::{self, expit, softmax, two_columns};
use super::targets::Targets;
use crate::backend::tabular::data::{Data, Matrix, Target};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, lacks, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::Node;

pub const CLASSES: &[(&str, Build)] =
    &[("MLPClassifier", perceptron), ("MLPRegressor", perceptron), ("BernoulliRBM", boltzmann)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activation {
    Identity,
    Logistic,
    Tanh,
    Relu,
    Softmax,
    /// Of regression with the Poisson loss.
    Exp,
}

impl Activation {
    fn read(node: Node<'_>) -> Result<Activation> {
        Ok(match node.text()? {
            "identity" => Activation::Identity,
            "logistic" => Activation::Logistic,
            "tanh" => Activation::Tanh,
            "relu" => Activation::Relu,
            "softmax" => Activation::Softmax,
            "exp" => Activation::Exp,
            other => return Err(unsupported("activation", other)),
        })
    }

    fn apply(self, values: &mut Matrix) {
        let mut each = |apply: fn(f64) -> f64| values.values.iter_mut().for_each(|value| *value = apply(*value));
        match self {
            Activation::Identity => {}
            Activation::Logistic => each(expit),
            Activation::Tanh => each(f64::tanh),
            Activation::Relu => each(|value| value.max(0.0)),
            Activation::Exp => each(f64::exp),
            Activation::Softmax => softmax(values),
        }
        values.rounded();
    }
}

struct Perceptron {
    layers: Vec<Linear>,
    hidden: Activation,
    last: Activation,
    /// Of a classifier.
    targets: Option<Targets>,
}

fn perceptron(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let biases: Vec<Node<'_>> = node.read("intercepts_", Node::items)?.collect();
    let weights: Vec<Node<'_>> = node.read("coefs_", Node::items)?.collect();
    let mut layers: Vec<Linear> = Vec::with_capacity(weights.len());
    for (number, (weights, bias)) in weights.iter().zip(&biases).enumerate() {
        let layer = layer(*weights, *bias).map_err(|error| error.context(format_args!("layer {number}")))?;
        if layers.last().is_some_and(|before| before.outputs() != layer.features()) {
            return Err(Error::load(format!("layer {number} takes {} values, gets others", layer.features())));
        }
        layers.push(layer);
    }
    let outputs = layers.last().map_or(0, Linear::outputs);
    let is_classifier = read::is_classifier(node);
    let targets = is_classifier.then(|| node.read("_label_binarizer", Targets::read)).transpose()?;
    if weights.len() != biases.len() || outputs == 0 || targets.as_ref().is_some_and(|t| t.columns() != outputs) {
        return Err(Error::load(format!("{} layers with {outputs} outputs", weights.len())));
    }
    let hidden = node.read("activation", Activation::read)?;
    let last = node.read("out_activation_", Activation::read)?;
    Ok(Box::new(Perceptron { layers, hidden, last, targets }))
}

/// `coefs_` have a row for each input.
fn layer(weights: Node<'_>, bias: Node<'_>) -> Result<Linear> {
    let single = is_single(weights);
    let weights = input::matrix(weights)?.transposed();
    let bias = bias.numbers()?.vector(Some(weights.rows))?;
    Linear::new(Matrix { single, ..weights }, bias)
}

impl Perceptron {
    fn forward(&self, rows: &Data) -> Result<Matrix> {
        let (first, rest) = self.layers.split_first().ok_or_else(|| Error::internal("a network without layers"))?;
        let mut values = first.apply_input(&Input::check(rows, first.features())?);
        for layer in rest {
            self.hidden.apply(&mut values);
            values = layer.apply_dense(&values);
        }
        self.last.apply(&mut values);
        Ok(values)
    }
}

impl Estimator for Perceptron {
    fn can(&self, method: Method) -> bool {
        method == Method::Predict || (method == Method::PredictProba && self.targets.is_some())
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let values = self.forward(rows)?;
        Ok(match &self.targets {
            Some(targets) => targets.decide(&values, 0.5),
            None => {
                let columns = (values.columns > 1).then_some(values.columns);
                Target { values: floats(values), columns }
            }
        })
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        if self.targets.is_none() {
            return Err(lacks(Method::PredictProba));
        }
        let values = self.forward(rows)?;
        if values.columns > 1 {
            return Ok(vec![values]);
        }
        let single = values.single;
        Ok(vec![Matrix { single, ..two_columns(values.values.into_iter()) }])
    }

    fn features(&self) -> Option<usize> {
        self.layers.first().map(Linear::features)
    }
}

/// A restricted Boltzmann machine: how likely its hidden units are on.
struct Boltzmann(Linear);

fn boltzmann(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let weights = node.read("components_", input::matrix)?;
    let single = is_single(node.attr("components_")?);
    let bias = node.read("intercept_hidden_", |node| node.numbers()?.vector(Some(weights.rows)))?;
    Ok(Box::new(Boltzmann(Linear::new(Matrix { single, ..weights }, bias)?)))
}

impl Estimator for Boltzmann {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let mut hidden = self.0.apply(rows)?;
        Activation::Logistic.apply(&mut hidden);
        Ok(Data::Dense(hidden))
    }

    fn components(&self) -> Option<usize> {
        Some(self.0.outputs())
    }

    fn features(&self) -> Option<usize> {
        Some(self.0.features())
    }
}
