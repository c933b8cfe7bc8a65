//! What runs a model. One [`Backend`] per library or engine; features of the build are decided here and only here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::config::BackendOptions;
use crate::device::DeviceId;
use crate::device::process::pulse::Pulse;
use crate::error::{Error, Result};
use crate::formats::{Format, ModelFiles};
use crate::infer::Signature;
use crate::tensor::Tensor;

pub mod echo;
pub mod tabular;
#[cfg(feature = "onnx")]
pub mod onnx;

/// Loads ONNX Runtime, and says which it is.
///
/// # Errors
/// When it is missing, cannot be loaded, or this stoker was built without it.
pub fn onnx_runtime(configured: Option<&std::path::Path>) -> Result<String> {
    #[cfg(feature = "onnx")]
    return onnx::library::environment(configured).map(|_| onnx::library::FILE_NAME.to_owned());
    #[cfg(not(feature = "onnx"))]
    {
        let _ = configured; // only that has any
        Err(crate::error::Error::load("this stoker was built without the feature \"onnx\""))
    }
}

/// Turns model files into a model on a device.
pub trait Backend: Send + Sync {
    /// Loads the model; may take seconds and block.
    ///
    /// # Errors
    /// [`Kind::Load`](crate::error::Kind::Load), naming the file and the reason.
    fn load(&self, files: &ModelFiles, device: &DeviceId) -> Result<Box<dyn Model>>;
}

/// A loaded model. It belongs to one worker, so it needs no locks.
pub trait Model: Send {
    fn signature(&self) -> &Signature;

    /// What a person should know: outputs left out, operators on another device.
    fn notes(&self) -> &[String] {
        &[]
    }

    /// Inputs of this many rows that it can answer, where made-up numbers may not do: categories that it knows.
    fn example(&self, _rows: usize) -> Option<Vec<Tensor>> {
        None
    }

    /// Whether it is there, of one that is in a process of its own.
    fn pulse(&self) -> Option<Arc<Pulse>> {
        None
    }

    /// Runs one batch. Inputs come in the signature's order and fit it; `outputs` says which of the signature's outputs
    /// are wanted, and the answer has them in that order.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) when the values are at fault,
    /// [`Kind::Lost`](crate::error::Kind::Lost) when the process that computed them has ended,
    /// [`Kind::NotReady`](crate::error::Kind::NotReady) when it had done so before, else
    /// [`Kind::Internal`](crate::error::Kind::Internal).
    fn run(&mut self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>>;
}

/// [`Model::run`] of a backend that may have bugs: a panic in it must cost one batch, not the process.
///
/// # Errors
/// As [`Model::run`].
pub fn run(model: &mut dyn Model, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>> {
    catch_unwind(AssertUnwindSafe(|| model.run(inputs, outputs)))
        .unwrap_or_else(|_| Err(Error::internal("the model's backend panicked; see the server's log")))
}

/// The backend for a format. One format has one backend: there is nothing to fall back to silently.
///
/// # Errors
/// When this build lacks the backend, or the library it stands on cannot be loaded.
pub fn for_files(files: &ModelFiles, options: &BackendOptions) -> Result<Box<dyn Backend>> {
    match files.format {
        Format::Sklearn | Format::Xgboost | Format::Lightgbm => Ok(Box::new(tabular::TabularBackend::new(options))),
        #[cfg(feature = "onnx")]
        Format::Onnx => Ok(Box::new(onnx::OnnxBackend::new(options)?)),
        #[cfg(not(feature = "onnx"))]
        Format::Onnx => {
            let _ = options; // only that backend has any
            let model = files.model.display();
            Err(crate::error::Error::load(format!("{model}: this stoker was built without the feature \"onnx\"")))
        }
    }
}
