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
    fn answer(&self, files: &ModelFiles) -> Result<Method> {
        let logged = files.mlflow.as_ref().and_then(|mlflow| mlflow.method.as_deref());
        match logged {
            _ if self.predict_proba => Ok(Method::PredictProba),
            None => Ok(Method::Predict),
            Some(name) => Method::parse(name).ok_or_else(|| estimator::unsupported("predict_fn", name)),
        }
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
        let answer = self.answer(files).map_err(place)?;
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
