//! Models that are computed here: trees, linear models and their kin, from the files of scikit-learn, xgboost and
//! lightgbm.

// Numeric code: conversions and exact comparisons are meant, and the kernels' pieces must be inlined.
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
#![allow(clippy::float_cmp, clippy::inline_always, clippy::many_single_char_names)]
#![allow(clippy::cast_possible_wrap, clippy::manual_midpoint)]

use self::estimator::{Builder, Estimator, Method};
use self::model::TabularModel;
use super::{Backend, Model};
use crate::config::BackendOptions;
use crate::content::Content;
use crate::device::DeviceId;
use crate::error::{Error, Result};
use crate::formats::detect::HEAD_BYTES;
use crate::formats::{self, Format, ModelFiles, pickle, skops};
use crate::infer::table::TableSpec;
use crate::kernels;
use crate::kernels::forest::Packed;
use crate::kernels::trees::Trees;

pub mod categories;
pub mod data;
pub mod dtypes;
pub mod estimator;
pub mod forest;
pub mod labels;
pub mod lightgbm;
pub mod model;
pub mod registry;
mod schema;
pub mod sklearn;
pub mod sparse;
pub mod xgboost;

/// Models of scikit-learn, xgboost and lightgbm.
pub struct TabularBackend {
    predict_proba: bool,
}

impl TabularBackend {
    pub fn new(options: &BackendOptions) -> TabularBackend {
        TabularBackend { predict_proba: options.predict_proba }
    }

    /// What the model answers with unless asked otherwise, and what the operator should know of that: probabilities
    /// where the operator wants them, or else as the model was logged. That wish is one for all models that a runtime
    /// serves, so those that have no probabilities predict, as in KServe's sklearnserver.
    fn answer(&self, files: &ModelFiles, estimator: &dyn Estimator) -> Result<(Method, Option<&'static str>)> {
        if self.predict_proba && estimator.can(Method::PredictProba) {
            return Ok((Method::PredictProba, None));
        }
        let note =
            self.predict_proba.then_some("predict_proba is set, but the model has none: it answers with predict");
        let Some(name) = files.mlflow.as_ref().and_then(|mlflow| mlflow.method.as_deref()) else {
            return Ok((Method::Predict, note));
        };
        let logged = Method::parse(name).ok_or_else(|| estimator::unsupported("predict_fn", name))?;
        // A transformer alone is asked to predict, too.
        if logged == Method::Predict || estimator.can(logged) {
            return Ok((logged, note));
        }
        Err(Error::load(format!(
            "the model has no {name}, which predict_fn in MLmodel asks for: log the model with a method that it has"
        )))
    }
}

impl Backend for TabularBackend {
    fn load(&self, files: &ModelFiles, device: &DeviceId) -> Result<Box<dyn Model>> {
        let place = |error: Error| error.context(files.model.display());
        let content = files.read().map_err(place)?;
        let class = files.mlflow.as_ref().and_then(|mlflow| mlflow.class.as_deref());
        let (mut estimator, table) = read(files.format, class, content).map_err(place)?;
        let image = match device {
            DeviceId::Cpu => None,
            DeviceId::Gpu(_) => Some(move_trees(&mut *estimator, kernels::forest_on_gpu).map_err(place)?),
        };
        let table = match &files.mlflow {
            Some(mlflow) if mlflow.has_fractions => schema::of_fractions(table),
            Some(mlflow) => schema::with_signature(table, &mlflow.inputs).map_err(place)?,
            None => table,
        };
        let output = files.mlflow.as_ref().and_then(|mlflow| mlflow.output.clone());
        let (answer, note) = self.answer(files, &*estimator).map_err(place)?;
        let mut model = TabularModel::new(estimator, table, answer, output).map_err(place)?;
        model.notes.extend(note.map(str::to_owned));
        model.notes.extend(image.map(|image| format!("its trees are computed on the GPU, by kernels for {image}")));
        Ok(Box::new(model))
    }
}

/// Has all trees of a model computed elsewhere, and tells where that is.
fn move_trees(
    estimator: &mut dyn Estimator,
    mut to: impl FnMut(&Packed) -> Result<(Box<dyn Trees>, String)>,
) -> Result<String> {
    let mut moved = None;
    estimator.visit_forests(&mut |forest| {
        let (trees, place) = to(&forest.packed()?)?;
        forest.computed_by(trees);
        moved = Some(place);
        Ok(())
    })?;
    moved.ok_or_else(|| {
        Error::load(
            "of scikit-learn's, xgboost's and lightgbm's models a GPU computes forests and boosters, alone or in a pipeline: \
             leave --device out, or say cpu",
        )
    })
}

/// Reads a model file, and which columns it takes.
fn read(format: Format, class: Option<&str>, content: Content) -> Result<(Box<dyn Estimator>, TableSpec)> {
    match format {
        Format::Xgboost => {
            let model = formats::xgboost::read(content)?;
            let estimator = xgboost::saved_by(class, model)?;
            let table = schema::columns(&*estimator, estimator.names(), false);
            Ok((estimator, table))
        }
        Format::Lightgbm => {
            let booster = lightgbm::Booster::new(formats::lightgbm::read(content)?)?;
            let table = schema::columns(&booster, booster.names(), false);
            Ok((Box::new(booster), table))
        }
        _ => {
            let is_skops = skops::recognise(content.upto(HEAD_BYTES));
            let (graph, root) = if is_skops { skops::read(content)? } else { pickle::read(content)? };
            let root = graph.node(root);
            let estimator = Builder::default().build(root)?;
            let table = schema::of_estimator(root, &*estimator)?;
            Ok((estimator, table))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::data::{Data, Matrix};
    use super::*;
    use crate::formats::mlmodel;

    fn load(files: &ModelFiles, predict_proba: bool) -> Result<Box<dyn Model>> {
        TabularBackend { predict_proba }.load(files, &DeviceId::Cpu)
    }

    #[test]
    fn a_model_without_probabilities_predicts_and_says_so() {
        let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tabular/cases");
        let files = |name: &str| formats::open(format!("{cases}/{name}/model.joblib").as_ref()).unwrap();
        let shape = |model: &dyn Model| model.signature().outputs[0].dims.len();
        let regressor = files("explain_forest");
        assert!(load(&regressor, false).unwrap().notes().is_empty());
        let model = load(&regressor, true).unwrap();
        assert_eq!((shape(&*model), model.notes().len()), (1, 1));
        let model = load(&files("boosters_lightgbm_alone_2"), true).unwrap();
        assert_eq!((shape(&*model), model.notes().len()), (2, 0));
    }

    #[test]
    fn trees_say_the_same_wherever_they_are_computed() {
        let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tabular/cases");
        let mut moved = 0;
        for case in std::fs::read_dir(cases).unwrap().map(|case| case.unwrap().path()) {
            let Ok(files) = formats::open(&case) else { continue };
            let built = || read(files.format, None, files.read().unwrap());
            let (Ok((here, _)), Ok((mut there, _))) = (built(), built()) else { continue };
            let on_processor = |packed: &Packed| {
                Ok((kernels::trees::on(kernels::processor::Processor, packed)?, "a processor".to_owned()))
            };
            let features = here.features().unwrap_or(0);
            let values: Vec<f64> =
                (0..features * 20).map(|number| f64::from(number as u32 * 37 % 101) / 20.0).collect();
            let rows = Data::Dense(Matrix::new(20, features, values));
            let Ok(expected) = here.predict(&rows) else { continue };
            match move_trees(&mut *there, on_processor) {
                Ok(place) => assert_eq!(place, "a processor"),
                Err(error) => {
                    assert!(error.to_string().contains("a GPU computes forests"), "{}: {error}", case.display());
                    continue;
                }
            }
            let predicted = there.predict(&rows).unwrap();
            assert_eq!(format!("{:?}", predicted.values), format!("{:?}", expected.values), "{}", case.display());
            moved += 1;
        }
        assert!(moved >= 10, "{moved} models of trees");
    }

    #[test]
    fn a_model_that_was_logged_with_a_method_that_it_lacks_is_refused() {
        let model = "/tests/tabular/cases/linear_LinearRegression_one_target/model.joblib";
        let mut files = formats::open(format!("{}{model}", env!("CARGO_MANIFEST_DIR")).as_ref()).unwrap();
        let logged =
            "flavors:\n  sklearn: {pickled_model: model.joblib}\n  python_function: {predict_fn: decision_function}\n";
        files.mlflow = Some(mlmodel::read(logged).unwrap());
        let message = load(&files, false).err().unwrap().to_string();
        assert!(message.contains("has no decision_function, which predict_fn in MLmodel asks for"), "{message}");
    }
}
