//! Recognises a model by what lies in its directory. Pure: it sees a listing and the beginnings of files, not a disk.
//!
//! Accepted: one model file at the top, as KServe's storage initializer leaves it; a version folder (`1/model.onnx`);
//! and a whole Triton repository with one model in it (`NAME/1/model.onnx`). Of several versions the highest wins.
//! A directory with `MLmodel` is MLflow's, and that file says which of the others is the model.

use super::{FileEntry, Format, lightgbm, mistakes, xgboost};
use crate::error::{Error, Result};

/// What was recognised, in terms of the listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detected {
    pub format: Format,
    pub model: String,
    pub version: Option<String>,
    /// Size of the model file and everything beside and below it, which is where external weights lie.
    pub bytes: u64,
}

/// MLflow's description of a model.
pub const MLMODEL: &str = "MLmodel";

/// How much of a file its format is told from.
pub const HEAD_BYTES: usize = 4096;

/// Finds the one model among `files`. `head` gives the first [`HEAD_BYTES`] of a file.
///
/// # Errors
/// [`Kind::Load`](crate::error::Kind::Load) when there is no model or more than one; the message lists what is there.
pub fn detect(files: &[FileEntry], head: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<Detected> {
    let candidates = files.iter().filter_map(|file| Candidate::of(file, head).transpose());
    let candidates: Vec<Candidate> = candidates.collect::<Result<_>>()?;
    let highest = candidates.iter().filter_map(|candidate| candidate.version).max();
    // A model at the top needs no version; versions only compete with each other.
    let top: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.version.is_none()).collect();
    let chosen =
        if top.is_empty() { candidates.iter().filter(|candidate| candidate.version == highest).collect() } else { top };
    match chosen.as_slice() {
        [] => Err(Error::load(format!(
            "no model file found. Supported: one file of {}, also below a version folder (1/model.onnx), or an MLflow \
             model (MLmodel). It holds {}{}",
            supported(),
            show(files.iter().map(|file| file.path.as_str())),
            looks(files, head)
        ))),
        [one] => Ok(Detected {
            format: one.format,
            model: one.path.to_owned(),
            version: one.version.map(|version| version.to_string()),
            bytes: files.iter().filter(|file| file.path.starts_with(one.folder)).map(|file| file.bytes).sum(),
        }),
        several => Err(Error::load(format!(
            "more than one model file is detected, expected exactly one: {}",
            show(several.iter().map(|candidate| candidate.path))
        ))),
    }
}

/// The `MLmodel` that describes the directory: at the top or, where a run's artifacts were given, in the one folder
/// that has it.
pub fn mlmodel(files: &[FileEntry]) -> Option<&str> {
    let described = |depth: usize| {
        let mut found = files
            .iter()
            .map(|file| file.path.as_str())
            .filter(move |path| path.matches('/').count() == depth && path.rsplit('/').next() == Some(MLMODEL));
        let first = found.next();
        first.filter(|_| found.next().is_none())
    };
    described(0).or_else(|| described(1))
}

/// The format of one file, by its ending and, where that leaves it open, by how it begins.
///
/// # Errors
/// When the file cannot be read.
pub fn format(path: &str, head: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<Option<Format>> {
    let ending = ending(path);
    Ok(match ending.as_str() {
        "onnx" => Some(Format::Onnx),
        "joblib" | "pkl" | "pickle" | "skops" => Some(Format::Sklearn),
        shared if SHARED.contains(&shared) => {
            let head = head(path)?;
            if lightgbm::recognise(&head) {
                Some(Format::Lightgbm)
            } else if xgboost::recognise(&head) || ending == "bst" {
                Some(Format::Xgboost)
            } else {
                None
            }
        }
        _ => None,
    })
}

/// Endings that others use, too.
const SHARED: &[&str] = &["bst", "txt", "model", "json", "ubj"];

fn ending(path: &str) -> String {
    path.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase()
}

/// What those files are that could be models by name and place, as far as it can be told.
fn looks(files: &[FileEntry], head: &dyn Fn(&str) -> Result<Vec<u8>>) -> String {
    const SHOWN: usize = 3;
    let possible = files.iter().map(|file| file.path.as_str()).filter(|path| {
        let ending = ending(path);
        place(path).is_some() && SHARED.contains(&ending.as_str())
    });
    let look = |path| Some(format!(". {path} is {}", mistakes::of_none(&head(path).ok()?)?));
    possible.filter_map(look).take(SHOWN).collect()
}

fn supported() -> String {
    let files = |format: Format| {
        let endings: Vec<String> = format.endings().iter().map(|ending| format!("*.{ending}")).collect();
        format!("{} ({})", endings.join(", "), format.name())
    };
    Format::ALL.map(files).join(", ")
}

/// A model file and what its folders say.
struct Candidate<'a> {
    format: Format,
    path: &'a str,
    /// With its `/`, empty at the top.
    folder: &'a str,
    version: Option<u64>,
}

impl<'a> Candidate<'a> {
    fn of(file: &'a FileEntry, head: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<Option<Candidate<'a>>> {
        let path = file.path.as_str();
        let Some((folder, version)) = place(path) else { return Ok(None) };
        Ok(format(path, head)?.map(|format| Candidate { format, path, folder, version }))
    }
}

/// The folder and the version of a file that lies where a model may.
fn place(path: &str) -> Option<(&str, Option<u64>)> {
    let folders = path.matches('/').count();
    let folder = &path[..path.rfind('/').map_or(0, |slash| slash + 1)];
    let version = folder.trim_end_matches('/').rsplit('/').next().and_then(|name| name.parse().ok());
    (folders == 0 || (folders <= 2 && version.is_some())).then_some((folder, version))
}

fn show<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 10;
    let names: Vec<&str> = names.collect();
    match names.len() {
        0 => "nothing".to_owned(),
        count if count > SHOWN => format!("{} and {} more", names[..SHOWN].join(", "), count - SHOWN),
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(paths: &[&str]) -> Vec<FileEntry> {
        paths.iter().map(|path| FileEntry { path: (*path).to_owned(), bytes: 10 }).collect()
    }

    fn detect_paths(paths: &[&str]) -> Result<Detected> {
        detect(&entries(paths), &|_| Ok(Vec::new()))
    }

    #[test]
    fn every_accepted_layout_is_recognised() {
        let cases = [
            (&["model.onnx", "weights.bin", "README.md"][..], "model.onnx", None, 30),
            (&["anything.onnx"], "anything.onnx", None, 10),
            (&["config.pbtxt", "1/model.onnx", "1/model.onnx.data"], "1/model.onnx", Some("1"), 20),
            (&["2/model.onnx", "10/model.onnx"], "10/model.onnx", Some("10"), 10),
            (&["iris/config.pbtxt", "iris/1/model.onnx"], "iris/1/model.onnx", Some("1"), 10),
            (&["forest.joblib", "requirements.txt"], "forest.joblib", None, 20),
            (&["model.PKL"], "model.PKL", None, 10),
        ];
        for (paths, model, version, bytes) in cases {
            let detected = detect_paths(paths).unwrap();
            assert_eq!(detected.model, model);
            assert_eq!(detected.version.as_deref(), version);
            assert_eq!(detected.bytes, bytes);
        }
    }

    #[test]
    fn what_is_there_is_listed_when_it_is_not_one_model() {
        let message = |paths: &[&str]| detect_paths(paths).unwrap_err().message().to_owned();
        assert!(message(&[]).contains("It holds nothing"));
        assert!(message(&["model.pt", "a.txt"]).contains("It holds model.pt, a.txt"));
        assert!(message(&["a.onnx", "b.onnx"]).contains("exactly one: a.onnx, b.onnx"));
        assert!(message(&["a.pkl", "b.joblib"]).contains("exactly one: a.pkl, b.joblib"));
        assert!(message(&["x/1/model.onnx", "y/1/model.onnx"]).contains("exactly one: x/1/model.onnx, y/1/model.onnx"));
        assert!(message(&["deep/er/1/model.onnx"]).contains("no model file found"));
    }

    #[test]
    fn what_looks_like_no_model_is_said_with_what_to_do() {
        let head = |path: &str| {
            Ok(match path.rsplit('/').next().unwrap() {
                "lfs.json" => b"version https://git-lfs.github.com/spec/v1\n".to_vec(),
                "page.ubj" => b"<!doctype html>".to_vec(),
                "marked.json" => b"\xef\xbb\xbf{\"learner\": {}}".to_vec(),
                "notes.txt" => b"numpy\n".to_vec(),
                _ => Vec::new(),
            })
        };
        let message = |paths: &[&str]| detect(&entries(paths), &head).unwrap_err().message().to_owned();
        assert!(message(&["lfs.json"]).contains("It holds lfs.json. lfs.json is a Git LFS pointer"));
        assert!(message(&["1/page.ubj"]).contains(". 1/page.ubj is an HTML page: "));
        assert!(message(&["marked.json"]).contains("byte order mark"));
        assert!(
            message(&["notes.txt", "a.txt"])
                .ends_with("a.txt is an empty file: was it written and uploaded completely?")
        );
        let many = message(&["a.txt", "b.json", "c.ubj", "d.model", "notes.txt", "sub/e.json", "f.bin"]);
        assert_eq!(many.matches(" is an empty file").count(), 3, "{many}");
        assert!(message(&["sub/e.json", "f.bin"]).ends_with("It holds sub/e.json, f.bin"));
    }

    #[test]
    fn mlflows_description_is_found_at_the_top_or_in_the_one_folder_that_has_it() {
        assert_eq!(mlmodel(&entries(&["MLmodel", "code/MLmodel", "model.pkl"])), Some("MLmodel"));
        assert_eq!(mlmodel(&entries(&["model/MLmodel", "model/model.pkl"])), Some("model/MLmodel"));
        assert_eq!(mlmodel(&entries(&["a/MLmodel", "b/MLmodel"])), None);
        assert_eq!(mlmodel(&entries(&["xMLmodel"])), None);
    }
}
