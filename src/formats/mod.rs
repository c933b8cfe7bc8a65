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
pub mod trees;
pub mod xgboost;
pub mod zip;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use self::mlmodel::MlModel;
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

/// A model on the local file system, recognised but not loaded.
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
}

/// One file below a model directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileEntry {
    /// Relative, with `/` between components.
    pub path: String,
    pub bytes: u64,
}

/// More files than any model we serve has; a bound on the walk below a mistaken `--model_dir /`.
const MAX_FILES: usize = 10_000;
const MAX_DEPTH: usize = 8;

/// Looks at what lies below `path`, a directory or a single model file, and recognises it.
///
/// # Errors
/// [`Kind::Load`](crate::error::Kind::Load) when it does not exist, cannot be read, or holds no model we know.
pub fn open(path: &Path) -> Result<ModelFiles> {
    let files = find(path)?;
    mistakes::check(&head(&files.model)?).map_err(|error| error.context(files.model.display()))?;
    Ok(files)
}

fn find(path: &Path) -> Result<ModelFiles> {
    let failed = |error: std::io::Error| Error::load(format!("{}: {error}", path.display()));
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_dir() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = FileEntry { path: name, bytes: metadata.len() };
        let found = detect::detect(&[file], &|_| head(path)).map_err(|error| error.context(path.display()))?;
        return Ok(ModelFiles::found(path.to_owned(), found));
    }
    let mut files = Vec::new();
    list(path, "", 0, &mut files).map_err(failed)?;
    if let Some(described) = detect::mlmodel(&files) {
        let described = path.join(described);
        return open_mlflow(&described, &files).map_err(|error| error.context(described.display()));
    }
    let head = |file: &str| head(&path.join(file));
    let found = detect::detect(&files, &head).map_err(|error| error.context(path.display()))?;
    Ok(ModelFiles::found(path.join(&found.model), found))
}

impl ModelFiles {
    fn found(model: PathBuf, found: detect::Detected) -> ModelFiles {
        ModelFiles { format: found.format, model, version: found.version, bytes: found.bytes, mlflow: None }
    }
}

/// The model that an `MLmodel` describes.
fn open_mlflow(described: &Path, files: &[FileEntry]) -> Result<ModelFiles> {
    let mut text = String::new();
    let read = File::open(described).and_then(|file| file.take(mlmodel::MAX_BYTES).read_to_string(&mut text));
    read.map_err(|error| Error::load(error.to_string()))?;
    let mlflow = mlmodel::read(&text)?;
    let model = described.with_file_name("").join(&mlflow.file);
    let bytes = files.iter().map(|file| file.bytes).sum();
    Ok(ModelFiles { format: mlflow.format, model, version: None, bytes, mlflow: Some(mlflow) })
}

/// The beginning of a file.
fn head(path: &Path) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    let opened = File::open(path).and_then(|file| file.take(detect::HEAD_BYTES as u64).read_to_end(&mut head));
    opened.map_err(|error| Error::load(format!("{}: {error}", path.display())))?;
    Ok(head)
}

fn list(root: &Path, below: &str, depth: usize, files: &mut Vec<FileEntry>) -> std::io::Result<()> {
    let mut entries = std::fs::read_dir(root.join(below))?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Kubernetes mounts volumes with `..data` links, tools leave dot files: neither is part of a model.
        if name.starts_with('.') {
            continue;
        }
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        // Follows links, as mounts use them.
        let metadata = std::fs::metadata(root.join(&path))
            .map_err(|error| std::io::Error::new(error.kind(), format!("{path}: {error}")))?;
        if files.len() >= MAX_FILES {
            return Err(std::io::Error::other(format!("more than {MAX_FILES} files: is this a model directory?")));
        }
        if !metadata.is_dir() {
            files.push(FileEntry { path, bytes: metadata.len() });
        } else if depth < MAX_DEPTH {
            list(root, &path, depth + 1, files)?;
        }
    }
    Ok(())
}

/// Computes slowly what others compute fast.
#[cfg(test)]
pub mod naive;
