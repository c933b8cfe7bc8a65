//! Bytes of model files to typed descriptions, and the recognition of what lies in a directory.
//!
//! Python's files ([`pickle`], [`skops`]) become inert values ([`graph`]); boosters' files ([`xgboost`], [`lightgbm`])
//! become trees ([`trees`]) and what surrounds them; MLflow's [`mlmodel`] says which file of a directory is the model.
//! Nothing here computes, and nothing here calls what a file names.

pub mod budget;
pub mod compression;
pub mod detect;
pub mod graph;
pub mod lightgbm;
pub mod mistakes;
pub mod mlmodel;
pub mod names;
pub mod npy;
pub mod pickle;
pub mod skops;
pub mod tree;
pub mod trees;
pub mod xgboost;
pub mod zip;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use self::mlmodel::MlModel;
use self::tree::Tree;
use crate::error::{Error, Result};
use crate::source::direct::Contents;

/// What kind of model a directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    Onnx,
    Sklearn,
    Xgboost,
    Lightgbm,
}

impl Format {
    pub const ALL: [Format; 4] = [Format::Onnx, Format::Sklearn, Format::Xgboost, Format::Lightgbm];

    /// Endings of its files. Some are shared; how a file begins decides then.
    pub const fn endings(self) -> &'static [&'static str] {
        match self {
            Format::Onnx => &["onnx"],
            Format::Sklearn => &["joblib", "pkl", "pickle", "skops"],
            Format::Xgboost => &["json", "ubj", "bst", "model"],
            Format::Lightgbm => &["txt", "bst"],
        }
    }

    /// KServe's `modelFormat` name.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Onnx => "onnx",
            Format::Sklearn => "sklearn",
            Format::Xgboost => "xgboost",
            Format::Lightgbm => "lightgbm",
        }
    }
}

/// A model on this machine, recognised but not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFiles {
    pub format: Format,
    /// The file that the backend opens.
    pub model: PathBuf,
    /// The version that the directory layout says, e.g. `2` for `2/model.onnx`.
    pub version: Option<String>,
    /// Size of all files that belong to the model.
    pub bytes: u64,
    /// What MLflow says of it.
    pub mlflow: Option<MlModel>,
    /// All files, where they are in memory; `model` is then a path among these.
    pub memory: Option<Arc<Contents>>,
}

/// One file below a model directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileEntry {
    /// Relative, with `/` between components.
    pub path: String,
    pub bytes: u64,
}

/// Looks at what lies below a path, a directory or a single model file, and recognises it.
///
/// # Errors
/// [`Kind::Load`](crate::error::Kind::Load) when it does not exist, cannot be read, or holds no model we know.
pub fn open(path: &Path) -> Result<ModelFiles> {
    open_tree(&Tree::Disk(path.to_owned()))
}

/// As [`open`], wherever the files are.
///
/// # Errors
/// As [`open`].
pub fn open_tree(tree: &Tree) -> Result<ModelFiles> {
    let (files, name) = find(tree)?;
    mistakes::check(&tree.head(&name, detect::HEAD_BYTES)?).map_err(|error| error.context(files.model.display()))?;
    Ok(files)
}

/// The model, and what it is called in the tree.
fn find(tree: &Tree) -> Result<(ModelFiles, String)> {
    let files = match tree.single()? {
        Some(file) => vec![file],
        None => tree.list()?,
    };
    if let Some(described) = detect::mlmodel(&files) {
        let place = tree.path(described);
        return open_mlflow(tree, described, &files).map_err(|error| error.context(place.display()));
    }
    let head = |file: &str| tree.head(file, detect::HEAD_BYTES);
    let of_place = |error: Error| match tree.place() {
        Some(place) => error.context(place.display()),
        None => error,
    };
    let found = detect::detect(&files, &head).map_err(of_place)?;
    let detect::Detected { format, model, version, bytes } = found;
    Ok((ModelFiles { format, model: tree.path(&model), version, bytes, mlflow: None, memory: memory(tree) }, model))
}

fn memory(tree: &Tree) -> Option<Arc<Contents>> {
    match tree {
        Tree::Disk(_) => None,
        Tree::Memory(contents) => Some(contents.clone()),
    }
}

impl ModelFiles {
    /// The bytes of the file that the backend opens.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self) -> Result<Bytes> {
        match &self.memory {
            None => std::fs::read(&self.model).map(Bytes::from).map_err(|error| Error::load(error.to_string())),
            Some(contents) => {
                let name = self.model.to_string_lossy();
                let content = contents.get(name.as_ref()).ok_or_else(|| Error::load("there is no such file"))?;
                Ok(Bytes::from_owner(content.clone()))
            }
        }
    }

    /// Other files that are in memory, below the folder of the model's, by their paths from there.
    pub fn beside(&self) -> impl Iterator<Item = (&str, &Arc<[u8]>)> {
        let folder = self.model.parent().map(|folder| folder.to_string_lossy().into_owned()).unwrap_or_default();
        let folder = if folder.is_empty() { folder } else { format!("{folder}/") };
        let others = self.memory.iter().flat_map(|contents| contents.iter());
        others
            .filter(|(path, _)| *path.as_str() != *self.model.to_string_lossy())
            .filter_map(move |(path, content)| Some((path.strip_prefix(&folder)?, content)))
    }
}

/// The model that an `MLmodel` describes, and what it is called in the tree.
fn open_mlflow(tree: &Tree, described: &str, files: &[FileEntry]) -> Result<(ModelFiles, String)> {
    let text = tree.head(described, mlmodel::MAX_BYTES)?;
    let text = String::from_utf8(text).map_err(|_| Error::load("it is not UTF-8"))?;
    let mlflow = mlmodel::read(&text)?;
    let folder = described.rsplit_once('/').map(|(folder, _)| format!("{folder}/")).unwrap_or_default();
    let name = format!("{folder}{}", mlflow.file);
    let bytes = files.iter().map(|file| file.bytes).sum();
    let (format, model, memory) = (mlflow.format, tree.path(&name), memory(tree));
    Ok((ModelFiles { format, model, version: None, bytes, mlflow: Some(mlflow), memory }, name))
}

/// Computes slowly what others compute fast.
#[cfg(test)]
pub mod naive;
