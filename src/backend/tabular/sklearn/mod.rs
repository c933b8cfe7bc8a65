//! scikit-learn's estimators, one file a family: how each is read from its attributes and what it computes, side by
//! side. Versions 1.0 to 1.9.

use bytes::Bytes;

use super::estimator::{Builder, Estimator};
use crate::error::Result;
use crate::formats::{pickle, skops};

pub mod adaboost;
pub mod affine;
pub mod bayes;
mod beside;
pub mod boosting;
pub mod calibrate;
pub mod cells;
pub mod cluster;
pub mod compose;
pub mod covariance;
mod decode;
pub mod decompose;
pub mod discretize;
pub mod discriminant;
pub mod distances;
pub mod dummy;
pub mod encode;
pub mod ensembles;
pub mod function;
pub mod gaussian_process;
pub mod histogram;
mod importance;
mod importance_boosters;
pub mod impute;
pub mod impute_iterative;
pub mod impute_knn;
pub mod input;
pub mod isolation;
pub mod kernel_maps;
pub mod kernels;
pub mod label;
pub mod linear;
pub mod members;
pub mod mixture;
pub mod multi;
pub mod neighbors;
pub mod neural;
pub mod outputs;
pub mod pipeline;
pub mod polynomial;
pub mod power;
pub mod read;
pub mod scale;
pub mod search;
pub mod select;
mod special;
pub mod stacking;
mod stop_words;
pub mod svm;
pub mod targets;
pub mod text;
mod tokens;
pub mod trees;
pub mod wrappers;

/// Reads a fitted estimator from a `.joblib`, `.pkl` or `.pickle` file, or a `.skops` one.
///
/// # Errors
/// [`Kind::Load`](crate::error::Kind::Load) when the file is damaged, or holds something that is not supported.
pub fn load(bytes: Bytes) -> Result<Box<dyn Estimator>> {
    let (graph, root) = if skops::recognise(&bytes) { skops::read(bytes)? } else { pickle::read(bytes)? };
    Builder::default().build(graph.node(root))
}
