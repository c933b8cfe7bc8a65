//! What a `storageUri` means.

use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceUri {
    /// A directory or file of this machine, served in place.
    Local(PathBuf),
    /// `s3://bucket/prefix`; the prefix has no slash at either end and may be empty.
    S3 { bucket: String, prefix: String },
}

impl SourceUri {
    /// Whether it names a file, and not a folder that the file is in.
    pub fn is_key(&self, key: &str) -> bool {
        match self {
            SourceUri::Local(_) => false,
            SourceUri::S3 { prefix, .. } => prefix == key,
        }
    }
}

impl std::fmt::Display for SourceUri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SourceUri::Local(path) => path.display().fmt(f),
            SourceUri::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

/// # Errors
/// When the scheme is unknown or the URI is incomplete.
pub fn parse(text: &str) -> Result<SourceUri> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return match text {
            "" => Err(Error::load("the storage URI is empty")),
            path => Ok(SourceUri::Local(path.into())),
        };
    };
    match scheme {
        "s3" => {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(Error::load(format!("{text}: the bucket is missing, expected s3://bucket/prefix")));
            }
            Ok(SourceUri::S3 { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
        }
        "file" if rest.starts_with('/') => Ok(SourceUri::Local(rest.into())),
        "file" => Err(Error::load(format!("{text}: expected an absolute path, as in file:///mnt/models"))),
        _ => Err(Error::load(format!("{text}: scheme \"{scheme}\" is not supported, expected s3:// or file://"))),
    }
}

/// Where the object `key` goes below the model directory when `prefix` is what was asked for: `None` for what does
/// not lie below it and for directory markers.
///
/// # Errors
/// When the name would leave the model directory.
pub fn relative_path(prefix: &str, key: &str) -> Result<Option<String>> {
    let below = match key.strip_prefix(prefix) {
        Some("") => key.rsplit('/').next().unwrap_or(key), // the object itself was asked for
        Some(rest) if prefix.is_empty() => rest,
        Some(rest) if rest.starts_with('/') => &rest[1..],
        _ => return Ok(None), // "model2/x" is not below "model"
    };
    if below.is_empty() || below.ends_with('/') {
        return Ok(None);
    }
    let inside = Path::new(below).components().all(|part| matches!(part, Component::Normal(_)));
    let canonical = !below.split('/').any(|part| matches!(part, "" | "." | ".."));
    if !inside || !canonical || below.contains('\0') {
        return Err(Error::load(format!("object \"{key}\" has a name that is no path below the model directory")));
    }
    Ok(Some(below.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_told_apart() {
        let s3 = |bucket: &str, prefix: &str| SourceUri::S3 { bucket: bucket.into(), prefix: prefix.into() };
        assert_eq!(parse("s3://b/models/iris/").unwrap(), s3("b", "models/iris"));
        assert_eq!(parse("s3://b").unwrap(), s3("b", ""));
        assert_eq!(parse("file:///mnt/models").unwrap(), SourceUri::Local("/mnt/models".into()));
        assert_eq!(parse("/mnt/models").unwrap(), SourceUri::Local("/mnt/models".into()));
        for wrong in ["", "s3://", "s3:///x", "file://models", "gs://b/x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_what_lies_below_the_prefix_is_taken() {
        let path = |prefix, key| relative_path(prefix, key).unwrap();
        assert_eq!(path("model", "model/a/b.onnx").as_deref(), Some("a/b.onnx"));
        assert_eq!(path("model", "model2/b.onnx"), None);
        assert_eq!(path("model", "model/"), None);
        assert_eq!(path("model", "model/dir/"), None);
        assert_eq!(path("dir/m.onnx", "dir/m.onnx").as_deref(), Some("m.onnx"));
        assert_eq!(path("", "m.onnx").as_deref(), Some("m.onnx"));
        for hostile in ["model/../../etc/passwd", "model//etc/passwd", "model/./x", "model/a/../b", "model/a\0b"] {
            assert!(relative_path("model", hostile).is_err(), "{hostile}");
        }
    }
}
