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

use self::mlmodel::MlModel;
use self::tree::Tree;
use crate::content::{Content, Contents};
use crate::error::{Error, Result};

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

    /// Open Inference's name for what runs it: `platform` in a model's metadata.
    pub const fn platform(self) -> &'static str {
        match self {
            Format::Onnx => "onnxruntime_onnx",
            Format::Sklearn => "stoker_sklearn",
            Format::Xgboost => "stoker_xgboost",
            Format::Lightgbm => "stoker_lightgbm",
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
#[derive(Clone, Debug)]
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
    /// Where they are in memory.
    pub memory: Option<InMemory>,
    /// What a person should know of files that are not read.
    pub note: Option<String>,
}

/// Files of a model that are in memory, or on their way there.
#[derive(Clone, Debug)]
pub struct InMemory {
    contents: Arc<Contents>,
    /// What the file that the backend opens is called there.
    model: String,
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

/// As [`open_tree`], without a look into the model's file.
///
/// # Errors
/// As [`open`].
pub fn recognise(tree: &Tree) -> Result<ModelFiles> {
    find(tree).map(|(files, _)| files)
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
    let memory = memory(tree, &model);
    let config = files.iter().find(|file| file.path.rsplit('/').next() == Some("config.pbtxt"));
    let note = config.map(|file| {
        let path = &file.path;
        format!("{path} is not read: what it says of batches and instances is said by flags of the same names (--help)")
    });
    Ok((ModelFiles { format, model: tree.path(&model), version, bytes, mlflow: None, memory, note }, model))
}

fn memory(tree: &Tree, model: &str) -> Option<InMemory> {
    tree.contents().map(|contents| InMemory { contents: contents.clone(), model: model.to_owned() })
}

/// Whether a file is read from its front to its back, so that this can begin while it comes: all models that are computed
/// here, and what says which file is the model.
pub fn is_read_early(path: &str) -> bool {
    let (_, name) = path.rsplit_once('/').unwrap_or(("", path));
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    let formats = Format::ALL.into_iter().filter(|format| *format != Format::Onnx);
    name == detect::MLMODEL || ending.is_some_and(|ending| formats.flat_map(Format::endings).any(|own| *own == ending))
}

impl ModelFiles {
    /// The bytes of the file that the backend opens.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self) -> Result<Content> {
        match &self.memory {
            None => std::fs::read(&self.model).map(Content::from).map_err(|error| Error::load(error.to_string())),
            Some(InMemory { contents, model }) => {
                contents.get(model).cloned().ok_or_else(|| Error::load("there is no such file"))
            }
        }
    }

    /// Whether [`ModelFiles::read`] gives the bytes, or waits for them: not so of a file that comes to the disk.
    pub fn can_be_read(&self) -> bool {
        self.memory.as_ref().is_none_or(|InMemory { contents, model }| contents.contains_key(model))
    }

    /// Other files that are in memory, below the folder of the model's, by their paths from there.
    pub fn beside(&self) -> impl Iterator<Item = (&str, &Content)> {
        self.memory.iter().flat_map(|InMemory { contents, model }| {
            let folder = &model[..model.rfind('/').map_or(0, |slash| slash + 1)];
            let others = contents.iter().filter(move |(path, _)| *path != model);
            others.filter_map(move |(path, content)| Some((path.strip_prefix(folder)?, content)))
        })
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
    let (format, model, memory) = (mlflow.format, tree.path(&name), memory(tree, &name));
    Ok((ModelFiles { format, model, version: None, bytes, mlflow: Some(mlflow), memory, note: None }, name))
}

/// Computes slowly what others compute fast.
#[cfg(test)]
pub mod naive;
