//! Models that are computed here: trees, linear models and their kin, from the files of scikit-learn, xgboost and
//! lightgbm.

// Numeric code: conversions and exact comparisons are meant, and the kernels' pieces must be inlined.
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
#![allow(clippy::float_cmp, clippy::inline_always, clippy::many_single_char_names)]
#![allow(clippy::cast_possible_wrap, clippy::manual_midpoint)]

use std::fs;

use bytes::Bytes;

use self::estimator::{Builder, Estimator, Method};
use self::model::TabularModel;
use super::{Backend, Model};
use crate::config::BackendOptions;
use crate::device::DeviceId;
use crate::error::{Error, Result};
use crate::formats::{self, Format, ModelFiles, pickle, skops};
use crate::infer::table::TableSpec;

pub mod categories;
pub mod data;
pub mod estimator;
pub mod forest;
pub mod labels;
pub mod lightgbm;
pub mod model;
pub mod registry;
mod schema;
pub mod sklearn;
pub mod xgboost;

/// Models of scikit-learn, xgboost and lightgbm.
pub struct TabularBackend {
    platform: &'static str,
    predict_proba: bool,
}

impl TabularBackend {
    pub fn new(files: &ModelFiles, options: &BackendOptions) -> TabularBackend {
        let platform = match files.format {
            Format::Xgboost => "stoker_xgboost",
            Format::Lightgbm => "stoker_lightgbm",
            _ => "stoker_sklearn",
        };
        TabularBackend { platform, predict_proba: options.predict_proba }
    }

    /// What the model answers with unless asked otherwise: as the operator says, or else as it was logged.
    ///
    /// KServe's sklearnserver answers with labels when there are no probabilities. Clients would take the one for the
    /// other, so that is said here, before any of them asks.
    fn answer(&self, files: &ModelFiles, estimator: &dyn Estimator) -> Result<Method> {
        let logged = files.mlflow.as_ref().and_then(|mlflow| mlflow.method.as_deref());
        let (answer, asked) = match logged {
            _ if self.predict_proba => (
                Method::PredictProba,
                "--predict_proba (or PREDICT_PROBA=true) asks for: leave that out to be answered with predict",
            ),
            None => return Ok(Method::Predict),
            Some(name) => (
                Method::parse(name).ok_or_else(|| estimator::unsupported("predict_fn", name))?,
                "predict_fn in MLmodel asks for: log the model with a method that it has",
            ),
        };
        // A transformer alone is asked to predict, too.
        if answer == Method::Predict || estimator.can(answer) {
            return Ok(answer);
        }
        Err(Error::load(format!("the model has no {}, which {asked}", answer.name())))
    }
}

impl Backend for TabularBackend {
    fn platform(&self) -> &'static str {
        self.platform
    }

    fn load(&self, files: &ModelFiles, _: &DeviceId) -> Result<Box<dyn Model>> {
        let place = |error: Error| error.context(files.model.display());
        let bytes = Bytes::from(fs::read(&files.model).map_err(|error| place(Error::load(error.to_string())))?);
        let class = files.mlflow.as_ref().and_then(|mlflow| mlflow.class.as_deref());
        let (estimator, table) = read(files.format, class, bytes).map_err(place)?;
        let table = match &files.mlflow {
            Some(mlflow) => schema::with_signature(table, &mlflow.inputs).map_err(place)?,
            None => table,
        };
        let output = files.mlflow.as_ref().and_then(|mlflow| mlflow.output.clone());
        let answer = self.answer(files, &*estimator).map_err(place)?;
        Ok(Box::new(TabularModel::new(estimator, table, answer, output).map_err(place)?))
    }
}

/// Reads a model file, and which columns it takes.
fn read(format: Format, class: Option<&str>, bytes: Bytes) -> Result<(Box<dyn Estimator>, TableSpec)> {
    match format {
        Format::Xgboost => {
            let model = formats::xgboost::read(&bytes)?;
            let estimator = xgboost::saved_by(class, model)?;
            let table = schema::columns(&*estimator, estimator.names(), false);
            Ok((estimator, table))
        }
        Format::Lightgbm => {
            let booster = lightgbm::Booster::new(formats::lightgbm::read(&bytes)?)?;
            let table = schema::columns(&booster, booster.names(), false);
            Ok((Box::new(booster), table))
        }
        _ => {
            let (graph, root) = if skops::recognise(&bytes) { skops::read(bytes)? } else { pickle::read(bytes)? };
            let root = graph.node(root);
            let estimator = Builder::default().build(root)?;
            let table = schema::of_estimator(root, &*estimator)?;
            Ok((estimator, table))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::mlmodel;

    #[test]
    fn whoever_asks_for_what_the_model_lacks_is_told_what_to_do() {
        let model =
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tabular/cases/linear_LinearRegression_one_target/model.joblib");
        let mut files = formats::open(model.as_ref()).unwrap();
        let load = |files: &ModelFiles, predict_proba| {
            let backend = TabularBackend { platform: "stoker_sklearn", predict_proba };
            backend.load(files, &DeviceId::Cpu).map(drop).map_err(|error| error.to_string())
        };
        load(&files, false).unwrap();
        let message = load(&files, true).unwrap_err();
        assert!(
            message.contains(
                "the model has no predict_proba, which --predict_proba (or PREDICT_PROBA=true) asks for: leave that out"
            ),
            "{message}"
        );
        let logged =
            "flavors:\n  sklearn: {pickled_model: model.joblib}\n  python_function: {predict_fn: decision_function}\n";
        files.mlflow = Some(mlmodel::read(logged).unwrap());
        let message = load(&files, false).unwrap_err();
        assert!(message.contains("has no decision_function, which predict_fn in MLmodel asks for"), "{message}");
    }
}
