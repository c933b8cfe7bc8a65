//! ONNX models on ONNX Runtime, through the `ort` crate with the library loaded at run time.

pub mod library;
mod operators;
mod values;

use std::sync::Arc;

use ort::ep::{self, ExecutionProviderDispatch};
use ort::error::ErrorCode;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::ValueType;

use super::{Backend, Model};
use crate::config::{BackendOptions, OnnxOnGpu, TensorRt};
use crate::device::{DeviceId, host};
use crate::error::{Error, Kind, Result};
use crate::formats::ModelFiles;
use crate::infer::{Signature, TensorSpec};
use crate::tensor::Tensor;

pub struct OnnxBackend {
    environment: ort::environment::Environment,
    threads: usize,
    gpu: OnnxOnGpu,
}

impl OnnxBackend {
    /// Finds and loads ONNX Runtime; at once from the second call on.
    ///
    /// # Errors
    /// When the library is not where it is looked for, or cannot be loaded.
    pub fn new(options: &BackendOptions) -> Result<OnnxBackend> {
        let environment = library::environment(options.onnxruntime_library.as_deref())?;
        let threads = options.threads.unwrap_or_else(host::cpus).div_ceil(options.instances);
        Ok(OnnxBackend { environment, threads, gpu: options.gpu.clone() })
    }

    fn session(&self, files: &ModelFiles, device: &DeviceId) -> Result<Session, ort::Error> {
        let mut builder = Session::builder(&self.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(self.threads)?
            // Idle threads that spin take the very cores that the server reads and answers with.
            .with_intra_op_spinning(false)?;
        if let DeviceId::Gpu(gpu) = device {
            builder = builder.with_config_entry(operators::RECORD, "1")?;
            builder = builder.with_execution_providers(providers(&self.gpu)).map_err(|error| {
                let why = one_line(error.message());
                ort::Error::new(format!("{gpu} cannot be used: {why} (--device cpu runs it without)", gpu = gpu.name))
            })?;
        }
        if files.memory.is_none() {
            return builder.commit_from_file(&files.model);
        }
        for (path, content) in files.beside() {
            let content = content.shared().ok_or_else(|| ort::Error::new(format!("{path} is missing")))?;
            builder = builder.with_external_initializer_file_in_memory(path, content)?;
        }
        let model = files.read().map_err(|error| ort::Error::new(error.message()))?;
        builder.commit_from_memory(model.all())
    }
}

impl Backend for OnnxBackend {
    fn load(&self, files: &ModelFiles, device: &DeviceId) -> Result<Box<dyn Model>> {
        let path = &files.model;
        let failed = |error: ort::Error| {
            Error::load(format!("{}: ONNX Runtime cannot load it: {}", path.display(), one_line(error.message())))
        };
        let session = self.session(files, device).map_err(failed)?;
        let (signature, mut notes) = signature(&session).map_err(|error| error.context(path.display()))?;
        if matches!(device, DeviceId::Gpu(_)) {
            notes.extend(operators::left_on_cpu(&operators::operators(&session).map_err(failed)?));
        }
        let selector =
            signature.outputs.iter().fold(OutputSelector::no_default(), |chosen, spec| chosen.with(&*spec.name));
        let run_options = RunOptions::new().map_err(failed)?.with_outputs(selector);
        Ok(Box::new(OnnxModel { session, run_options, signature, notes }))
    }
}

/// ONNX Runtime's providers for the process's only device, those that are asked first before others. Whoever asks for a GPU
/// gets it, or an error.
fn providers(options: &OnnxOnGpu) -> Vec<ExecutionProviderDispatch> {
    let mut cuda = ep::CUDA::default()
        .with_device_id(0)
        .with_conv_algorithm_search(ep::cuda::ConvAlgorithmSearch::Heuristic)
        .with_arena_extend_strategy(ep::ArenaExtendStrategy::SameAsRequested);
    if let Some(bytes) = options.memory_limit {
        cuda = cuda.with_memory_limit(bytes);
    }
    let tensorrt = options.tensorrt.map(|TensorRt { is_half }| {
        let tensorrt = ep::TensorRT::default().with_device_id(0).with_fp16(is_half);
        options.memory_limit.map_or(tensorrt.clone(), |bytes| tensorrt.with_max_workspace_size(bytes)).build()
    });
    tensorrt.into_iter().chain([cuda.build()]).map(ExecutionProviderDispatch::error_on_failure).collect()
}

/// What the graph declares. Outputs that are no tensors cannot travel in any protocol we speak: they are left out
/// and said so.
fn signature(session: &Session) -> Result<(Signature, Vec<String>)> {
    let mut notes = Vec::new();
    let mut inputs = Vec::new();
    for input in session.inputs() {
        let spec = tensor_spec(input.name(), input.dtype())
            .map_err(|reason| Error::load(format!("input \"{}\" {reason}, which cannot be served", input.name())))?;
        inputs.push(spec);
    }
    let mut outputs = Vec::new();
    for output in session.outputs() {
        match tensor_spec(output.name(), output.dtype()) {
            Ok(spec) => outputs.push(spec),
            Err(reason) => notes.push(format!("output \"{}\" {reason}: it is left out", output.name())),
        }
    }
    if outputs.is_empty() {
        return Err(Error::load(format!("no output can be served: {}", notes.join("; "))));
    }
    if !notes.is_empty() {
        notes.push("export from scikit-learn with options={\"zipmap\": False} to have all outputs".to_owned());
    }
    Ok((Signature::new(inputs, outputs), notes))
}

fn tensor_spec(name: &str, value_type: &ValueType) -> Result<TensorSpec, String> {
    let ValueType::Tensor { ty, shape, .. } = value_type else {
        return Err(format!("is no tensor but {value_type}"));
    };
    let dtype = values::dtype(*ty).ok_or_else(|| format!("has element type {ty}"))?;
    // Dimensions that are symbolic come as -1.
    let dims = shape.iter().map(|dim| usize::try_from(*dim).ok()).collect();
    Ok(TensorSpec { name: Arc::from(name), dtype, dims })
}

struct OnnxModel {
    session: Session,
    run_options: RunOptions<HasSelectedOutputs>,
    signature: Signature,
    notes: Vec<String>,
}

impl Model for OnnxModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>> {
        let values: Vec<(&str, SessionInputValue)> =
            inputs.iter().map(|tensor| Ok((&**tensor.name(), values::to_ort(tensor)?))).collect::<Result<_>>()?;
        let answers = self.session.run_with_options(values, &self.run_options).map_err(|error| run_error(&error))?;
        let outputs = outputs.iter().map(|output| {
            let spec = &self.signature.outputs[*output];
            let value = answers
                .get(&spec.name)
                .ok_or_else(|| Error::internal(format!("ONNX Runtime gave no output \"{}\"", spec.name)))?;
            values::from_ort(spec, value)
        });
        outputs.collect()
    }
}

/// Names, dtypes and declared shapes were checked before, so a node of a CPU model that fails does so over what the
/// signature leaves open: an index out of bounds, a free dimension that does not fit the weights. That is the
/// caller's mistake; only running out of memory is ours.
fn run_error(error: &ort::Error) -> Error {
    let text = one_line(error.message());
    let kind = match error.code() {
        ErrorCode::InvalidArgument | ErrorCode::GenericFailure | ErrorCode::RuntimeException
            if !["alloc", "memory"].iter().any(|word| text.contains(word)) =>
        {
            Kind::Invalid
        }
        _ => Kind::Internal,
    };
    Error::new(kind, format!("the model cannot compute this input: {}", without_cpp(&text)))
}

/// Leaves out where in ONNX Runtime's sources it happened, which tells a caller nothing.
fn without_cpp(text: &str) -> &str {
    let reason = text.split_once("Status Message: ").map_or(text, |(_, reason)| reason);
    if !reason.starts_with('/') {
        return reason;
    }
    // "/file.h:624 void f(...) const [with T = float] what went wrong" or "... condition was false. what went wrong"
    let end = |mark: &str| reason.rfind(mark).map(|at| at + mark.len());
    let words = end("was false. ").or_else(|| end("] ")).or_else(|| end(") ")).map_or(reason, |at| &reason[at..]);
    if words.is_empty() { reason } else { words }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_wrong_is_left_of_a_message() {
        let cases = [
            ("indices out of bounds", "indices out of bounds"),
            ("Non-zero status code. Status Message: idx=99 must be in range", "idx=99 must be in range"),
            (
                "x Status Message: /a/b.h:1 void f(int) const [with T = float] One path requests 3",
                "One path requests 3",
            ),
            ("x Status Message: /a/b.cc:1 static f(a, b) left == right was false. 1 by 2", "1 by 2"),
        ];
        for (text, words) in cases {
            assert_eq!(without_cpp(text), words);
        }
    }

    /// Where there is no other provider they are all on the CPU.
    #[test]
    fn operators_are_found_where_they_are() {
        let options = BackendOptions { threads: Some(1), ..BackendOptions::default() };
        let backend = OnnxBackend::new(&options).unwrap();
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/slow/model.onnx");
        let session = |builder: ort::session::builder::SessionBuilder| { builder }.commit_from_file(model).unwrap();
        let builder = || Session::builder(&backend.environment).unwrap();
        let recorded = session(builder().with_config_entry(operators::RECORD, "1").unwrap());
        let found = operators::operators(&recorded).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["CPUExecutionProvider"]);
        assert!(found["CPUExecutionProvider"].values().sum::<usize>() > 0, "{found:?}");
        assert!(operators::operators(&session(builder())).is_err(), "it was not recorded");
    }
}
