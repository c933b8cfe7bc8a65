//! Models that are computed here: trees, linear models and their kin, from the files of scikit-learn, xgboost and
//! lightgbm.

// Numeric code: conversions and exact comparisons are meant, and the kernels' pieces must be inlined.
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
#![allow(clippy::float_cmp, clippy::inline_always, clippy::many_single_char_names)]
#![allow(clippy::cast_possible_wrap, clippy::manual_midpoint)]

use std::fs;

use bytes::Bytes;

use self::estimator::{Builder, Method};
use self::model::TabularModel;
use super::{Backend, Model};
use crate::config::BackendOptions;
use crate::device::DeviceId;
use crate::error::{Error, Result};
use crate::formats::{ModelFiles, pickle, skops};

pub mod data;
pub mod estimator;
pub mod forest;
pub mod lightgbm;
pub mod model;
pub mod registry;
mod schema;
pub mod sklearn;
pub mod xgboost;

/// scikit-learn's models.
pub struct SklearnBackend {
    answer: Method,
}

impl SklearnBackend {
    pub fn new(options: &BackendOptions) -> SklearnBackend {
        SklearnBackend { answer: if options.predict_proba { Method::PredictProba } else { Method::Predict } }
    }
}

impl Backend for SklearnBackend {
    fn platform(&self) -> &'static str {
        "stoker_sklearn"
    }

    fn load(&self, files: &ModelFiles, _: &DeviceId) -> Result<Box<dyn Model>> {
        let place = |error: Error| error.context(files.model.display());
        let bytes = Bytes::from(fs::read(&files.model).map_err(|error| place(Error::load(error.to_string())))?);
        let (graph, root) =
            if skops::recognise(&bytes) { skops::read(bytes) } else { pickle::read(bytes) }.map_err(place)?;
        let root = graph.node(root);
        let estimator = Builder::default().build(root).map_err(place)?;
        let table = schema::of_estimator(root, &*estimator).map_err(place)?;
        Ok(Box::new(TabularModel::new(estimator, table, self.answer).map_err(place)?))
    }
}
