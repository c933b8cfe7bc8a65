//! What was said of how models compute, whatever batches they get.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Values, batching, boolean, bytes};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackendOptions {
    /// Threads that all instances of a model compute with; `None`: as many as there are CPUs.
    pub threads: Option<usize>,
    /// Of a model, which run at the same time.
    pub instances: usize,
    pub onnxruntime_library: Option<PathBuf>,
    /// Whether classifiers answer with probabilities unless asked otherwise.
    pub predict_proba: bool,
    pub gpu: OnnxOnGpu,
}

impl Default for BackendOptions {
    fn default() -> BackendOptions {
        let gpu = OnnxOnGpu::default();
        BackendOptions { threads: None, instances: 1, onnxruntime_library: None, predict_proba: false, gpu }
    }
}

/// How ONNX models run on GPUs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct OnnxOnGpu {
    /// Bytes of its memory that an instance may take at most.
    pub memory_limit: Option<usize>,
    pub tensorrt: Option<TensorRt>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct TensorRt {
    /// Whether it may compute with half of the precision.
    pub is_half: bool,
}

pub fn backend_options(values: &mut Values) -> BackendOptions {
    let threads = values.or("threads", 0, |text| text.parse::<usize>().map_err(|_| "is no whole number".to_owned()));
    BackendOptions {
        threads: (threads > 0).then_some(threads),
        instances: values.or("instances", 1, batching::instances),
        predict_proba: values.or("predict_proba", false, boolean),
        onnxruntime_library: values.optional("onnxruntime_library", |text| Ok(PathBuf::from(text))),
        gpu: OnnxOnGpu { memory_limit: values.optional("gpu_mem_limit", bytes), tensorrt: tensorrt(values) },
    }
}

fn tensorrt(values: &mut Values) -> Option<TensorRt> {
    let is_wanted = values.optional("gpu_execution_accelerator", |text| match text {
        "tensorrt" => Ok(()),
        _ => Err("is not tensorrt, the only one there is".to_owned()),
    });
    let is_half = values.or("precision_mode", false, |text| match text {
        "FP32" => Ok(false),
        "FP16" => Ok(true),
        _ => Err("is neither FP32 nor FP16".to_owned()),
    });
    if is_half && is_wanted.is_none() {
        values.problem("precision_mode", "FP16 is for --gpu_execution_accelerator=tensorrt");
    }
    is_wanted.map(|()| TensorRt { is_half })
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::error::Result;

    fn parse(args: &[&str]) -> Result<Config> {
        let args: Vec<String> = ["--model_dir=/m"].iter().chain(args).map(|arg| (*arg).to_owned()).collect();
        Config::parse(&args, &|_| None)
    }

    #[test]
    fn tensorrt_is_used_when_it_is_named() {
        let gpu = |args| parse(args).unwrap().model.backend.gpu;
        let (plain, limited) = (gpu(&[]), gpu(&["--gpu_mem_limit=2Gi"]));
        assert!(plain.memory_limit.is_none() && plain.tensorrt.is_none() && limited.memory_limit == Some(2 << 30));
        let is_half = |args| gpu(args).tensorrt.unwrap().is_half;
        assert!(!is_half(&["--gpu_execution_accelerator=tensorrt"]));
        assert!(is_half(&["--gpu_execution_accelerator=tensorrt", "--precision_mode=FP16"]));
        for wrong in [
            "--gpu_execution_accelerator=openvino",
            "--precision_mode=INT8",
            "--precision_mode=FP16",
            "--gpu_mem_limit=0",
        ] {
            assert!(parse(&[wrong]).is_err(), "{wrong}");
        }
    }
}
