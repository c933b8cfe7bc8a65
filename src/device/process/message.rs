//! What a server asks of a process that computes for it, and the answers. Pure.

use std::path::PathBuf;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::config::{BackendOptions, LogConfig};
use crate::device::DeviceId;
use crate::error::{Error, Kind, Result};
use crate::infer::Signature;
use crate::tensor::{DType, Shape, Tensor};

#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// First of all, and once. Files that are in memory follow as parts.
    Load { files: Files, options: BackendOptions, device: Box<DeviceId>, log: LogConfig },
    /// A batch of a model's inputs, in the signature's order, for these of the signature's outputs.
    Run { inputs: Vec<Head>, outputs: Vec<usize> },
    /// Inputs of so many rows that it can answer.
    Example { rows: usize },
}

/// Where a model's files are.
#[derive(Debug, Serialize, Deserialize)]
pub enum Files {
    Disk(PathBuf),
    /// Paths and sizes.
    Memory(Vec<(String, usize)>),
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    Loaded(Box<Loaded>),
    /// Tensors, in the order asked for.
    Ran(Vec<Head>),
    /// If there are such.
    Example(Option<Vec<Head>>),
    Failed {
        kind: Kind,
        message: String,
    },
}

/// A model that another process has loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    pub signature: Signature,
    pub notes: Vec<String>,
}

/// A tensor whose data is a part of the message.
#[derive(Debug, Serialize, Deserialize)]
pub struct Head {
    name: String,
    dtype: DType,
    dims: Vec<usize>,
    pub bytes: usize,
}

impl Head {
    pub fn of(tensor: &Tensor) -> Head {
        Head {
            name: tensor.name().to_string(),
            dtype: tensor.dtype(),
            dims: tensor.shape().dims().to_vec(),
            bytes: tensor.data().len(),
        }
    }

    /// # Errors
    /// When the data does not fit.
    pub fn tensor(self, data: Bytes) -> Result<Tensor> {
        Tensor::new(self.name, self.dtype, Shape::new(self.dims)?, data)
    }
}

/// What a message has to say of tensors, and their data.
pub fn heads(tensors: &[Tensor]) -> (Vec<Head>, Vec<&[u8]>) {
    tensors.iter().map(|tensor| (Head::of(tensor), &tensor.data()[..])).unzip()
}

impl From<&Error> for Answer {
    fn from(error: &Error) -> Answer {
        Answer::Failed { kind: error.kind(), message: error.message().to_owned() }
    }
}
