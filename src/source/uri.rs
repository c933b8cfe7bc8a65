//! What a `storageUri` means.

use std::borrow::Cow;
use std::path::{Component, Path, PathBuf};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;

use super::http::Url;
use crate::error::{Error, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceUri {
    /// A directory or file of this machine, served in place.
    Local(PathBuf),
    /// `s3://bucket/prefix`; the prefix has no slash at either end and may be empty.
    S3 {
        bucket: String,
        prefix: String,
    },
    /// One file at an `http://` or `https://` address, and what it is called.
    Web {
        url: Url,
        file: String,
    },
    /// `hf://owner/name@revision/path`: a model of a hub, or a folder or file of it.
    Hub {
        repo: String,
        revision: String,
        path: String,
    },
    Mlflow(MlflowName),
    /// Several, each below a folder of its own.
    Several(Vec<Mounted>),
}

/// One of several sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    pub uri: SourceUri,
    /// The folder of the model that its files go to; empty for the model's own.
    pub below: String,
}

/// What MLflow calls a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MlflowName {
    /// `models:/name/version`
    Version { name: String, version: String },
    /// `models:/name@alias`
    Alias { name: String, alias: String },
    /// `models:/name/latest`: the newest version
    Latest { name: String },
    /// `models:/m-id`
    Model { id: String },
    /// `runs:/id/path`
    Run { id: String, path: String },
}

impl SourceUri {
    /// What it begins with, as metrics call it.
    pub fn scheme(&self) -> &'static str {
        match self {
            SourceUri::Local(_) => "file",
            SourceUri::S3 { .. } => "s3",
            SourceUri::Web { url, .. } if url.origin().https => "https",
            SourceUri::Web { .. } => "http",
            SourceUri::Hub { .. } => "hf",
            SourceUri::Mlflow(MlflowName::Run { .. }) => "runs",
            SourceUri::Mlflow(_) => "models",
            SourceUri::Several(_) => "several",
        }
    }

    /// Whether it names a file, and not a folder that the file is in.
    pub fn is_key(&self, key: &str) -> bool {
        match self {
            SourceUri::Local(_) | SourceUri::Mlflow(_) | SourceUri::Several(_) => false,
            SourceUri::S3 { prefix, .. } => prefix == key,
            SourceUri::Web { .. } => true,
            SourceUri::Hub { path, .. } => path == key,
        }
    }
}

impl std::fmt::Display for SourceUri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SourceUri::Local(path) => path.display().fmt(f),
            SourceUri::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            SourceUri::Web { url, .. } => url.fmt(f),
            SourceUri::Hub { repo, revision, path } if path.is_empty() => write!(f, "hf://{repo}@{revision}"),
            SourceUri::Hub { repo, revision, path } => write!(f, "hf://{repo}@{revision}/{path}"),
            SourceUri::Mlflow(name) => name.fmt(f),
            SourceUri::Several(parts) => {
                let texts = parts.iter().map(|Mounted { uri, below }| match below.as_str() {
                    "" => uri.to_string(),
                    below => format!("{uri} at {below}"),
                });
                f.write_str(&texts.collect::<Vec<_>>().join(" and "))
            }
        }
    }
}

impl std::fmt::Display for MlflowName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MlflowName::Version { name, version } => write!(f, "models:/{name}/{version}"),
            MlflowName::Alias { name, alias } => write!(f, "models:/{name}@{alias}"),
            MlflowName::Latest { name } => write!(f, "models:/{name}/latest"),
            MlflowName::Model { id } => write!(f, "models:/{id}"),
            MlflowName::Run { id, path } => write!(f, "runs:/{id}/{path}"),
        }
    }
}

/// # Errors
/// When the scheme is unknown or the URI is incomplete.
pub fn parse(text: &str) -> Result<SourceUri> {
    // MLflow writes one slash, where others write two.
    if let Some((scheme @ ("models" | "runs"), rest)) = text.split_once(":/") {
        return mlflow(scheme, rest.trim_matches('/')).map(SourceUri::Mlflow).ok_or_else(|| {
            let expected =
                "models:/NAME/VERSION with a number or latest, models:/NAME@ALIAS, models:/m-ID or runs:/ID/PATH";
            Error::load(format!("{text}: expected {expected}"))
        });
    }
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
        "http" | "https" => web(text),
        "hf" => hub(rest).ok_or_else(|| {
            Error::load(format!("{text}: expected hf://owner/name, with :revision or @revision and a /path behind"))
        }),
        _ => Err(Error::load(format!("{text}: scheme \"{scheme}\" is not supported, expected {SCHEMES}"))),
    }
}

/// KServe's `storageUris`, as JSON: `[{"uri": "s3://bucket/prefix", "mountPath": "/mnt/models"}, ...]`. The model's
/// folder is what all mount paths have in common.
///
/// # Errors
/// When it is something else, or the paths have nothing in common.
pub fn parse_several(text: &str) -> Result<SourceUri> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct StorageUri {
        uri: String,
        #[serde(rename = "mountPath", default = "usual_mount_path")]
        mount_path: String,
    }
    fn usual_mount_path() -> String {
        "/mnt/models".to_owned()
    }
    let expected = |error: serde_json::Error| {
        Error::load(format!("{error}: expected [{{\"uri\": \"s3://...\", \"mountPath\": \"/mnt/models\"}}, ...]"))
    };
    let parts: Vec<StorageUri> = serde_json::from_str(text).map_err(expected)?;
    let paths: Vec<Vec<&str>> =
        parts.iter().map(|part| part.mount_path.split('/').filter(|name| !name.is_empty()).collect()).collect();
    if let Some(wrong) = parts.iter().find(|part| {
        !part.mount_path.starts_with('/') || part.mount_path.split('/').any(|name| matches!(name, "." | ".."))
    }) {
        return Err(Error::load(format!("mountPath \"{}\" is no absolute path", wrong.mount_path)));
    }
    let mut common = paths.first().map_or(&[][..], |first| &first[..]);
    for path in &paths {
        let same = common.iter().zip(path).take_while(|(one, other)| one == other).count();
        common = &common[..same];
    }
    if common.is_empty() {
        return Err(Error::load("the mount paths have no folder in common but /"));
    }
    let mounted = |(part, path): (&StorageUri, &Vec<&str>)| {
        Ok(Mounted { uri: parse(&part.uri)?, below: path[common.len()..].join("/") })
    };
    Ok(SourceUri::Several(parts.iter().zip(&paths).map(mounted).collect::<Result<_>>()?))
}

const SCHEMES: &str = "s3://, http(s)://, hf://, models:/, runs:/ or file://";

/// What people write into addresses that has to be encoded, beside all that is not ASCII.
const UNWRITABLE: &AsciiSet = &CONTROLS.add(b' ');

fn web(text: &str) -> Result<SourceUri> {
    // Neither the query nor what is in front of the host is quoted: they may hold secrets.
    let incomplete = |_| Error::load("the storage URI is no http:// or https:// address with a host");
    let url = Url::parse(&utf8_percent_encode(text, UNWRITABLE).to_string()).map_err(incomplete)?;
    let authority = text.split(['/', '?', '#']).nth(2).unwrap_or_default();
    if authority.contains('@') {
        let host = &url.origin().name;
        return Err(Error::load(format!("{url}: no credentials in the address, give them as {host}-headers")));
    }
    match decode(url.path().rsplit('/').next().unwrap_or_default()) {
        Some(file) if !file.contains('/') && is_inside(&file) => Ok(SourceUri::Web { file: file.into_owned(), url }),
        _ => Err(Error::load(format!("{url}: its path does not end with the name of a file"))),
    }
}

/// `owner/name:revision/path`, by KServe's contract, or with the hub's own `@`.
fn hub(rest: &str) -> Option<SourceUri> {
    let plain = |name: &&str| {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        is_inside(name) && name.bytes().all(letters)
    };
    let mut parts = rest.splitn(3, '/');
    let owner = parts.next().filter(plain)?;
    let named = parts.next()?;
    let (name, revision) = named.split_once([':', '@']).unwrap_or((named, ""));
    let path = parts.next().unwrap_or_default().trim_matches('/');
    // Slashes in branches have to be encoded.
    let revision = if revision.is_empty() { "main".into() } else { decode(revision)? };
    let valid = plain(&name) && (path.is_empty() || is_inside(path));
    valid.then(|| SourceUri::Hub { repo: format!("{owner}/{name}"), revision: revision.into(), path: path.to_owned() })
}

fn mlflow(scheme: &str, rest: &str) -> Option<MlflowName> {
    let named = |text: &str| (!text.trim().is_empty()).then(|| text.to_owned());
    match (scheme, rest.split_once('/')) {
        ("runs", Some((id, path))) if is_inside(path) => {
            Some(MlflowName::Run { id: named(id)?, path: path.to_owned() })
        }
        ("models", Some((name, version))) if version.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(MlflowName::Version { name: named(name)?, version: version.to_owned() })
        }
        ("models", Some((name, "latest"))) => Some(MlflowName::Latest { name: named(name)? }),
        ("models", None) => match rest.rsplit_once('@') {
            Some((name, alias)) => Some(MlflowName::Alias { name: named(name)?, alias: named(alias)? }),
            None if rest.starts_with("m-") => Some(MlflowName::Model { id: rest.to_owned() }),
            None => None,
        },
        _ => None,
    }
}

fn decode(text: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(text).decode_utf8().ok()
}

/// Linux has no longer ones.
const MAX_PATH_BYTES: usize = 4096;

/// Whether it is a path that leads down, spelled in the one way.
pub fn is_inside(path: &str) -> bool {
    let leads_down = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    let canonical = !path.split('/').any(|part| matches!(part, "" | "." | ".."));
    leads_down && canonical && !path.contains('\0') && path.len() <= MAX_PATH_BYTES
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
    if !is_inside(below) {
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
    fn files_on_the_web_have_names() {
        let name = |text: &str| match parse(text).unwrap() {
            SourceUri::Web { url, file } => (url.target().to_owned(), file),
            other => panic!("{other}"),
        };
        assert_eq!(name("https://h/a/m.onnx?x=/y"), ("/a/m.onnx?x=/y".to_owned(), "m.onnx".to_owned()));
        assert_eq!(name("http://h:1/a%20ü.onnx#z"), ("/a%20%C3%BC.onnx".to_owned(), "a ü.onnx".to_owned()));
        for wrong in [
            "http://h",
            "http://h/",
            "http://h/a/",
            "http://h/..",
            "http://h/%2e%2E",
            "http://h/a%2Fb",
            "http://h/a%00",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        for secret in ["http://u:hush@h/m", "https:// h/m?hush", "http:///m?hush"] {
            let error = parse(secret).unwrap_err();
            assert!(!error.message().contains("hush"), "{error}");
        }
        assert_eq!(parse("https://h/m?hush").unwrap().to_string(), "https://h/m");
    }

    #[test]
    fn models_of_hubs_have_revisions_and_paths() {
        let hub = |repo: &str, revision: &str, path: &str| SourceUri::Hub {
            repo: repo.into(),
            revision: revision.into(),
            path: path.into(),
        };
        let cases = [
            ("hf://o/m", hub("o/m", "main", ""), "hf://o/m@main"),
            ("hf://o/m:", hub("o/m", "main", ""), "hf://o/m@main"),
            ("hf://o/m.x-1:v1.0/", hub("o/m.x-1", "v1.0", ""), "hf://o/m.x-1@v1.0"),
            ("hf://o/m@abc/onnx/model.onnx", hub("o/m", "abc", "onnx/model.onnx"), "hf://o/m@abc/onnx/model.onnx"),
            ("hf://o/m@refs%2Fpr%2F1/onnx", hub("o/m", "refs/pr/1", "onnx"), "hf://o/m@refs/pr/1/onnx"),
        ];
        for (text, uri, shown) in cases {
            assert_eq!(parse(text).unwrap(), uri);
            assert_eq!(uri.to_string(), shown);
        }
        for wrong in ["hf://", "hf://m", "hf://o/", "hf:///m", "hf://../m", "hf://o/..", "hf://o/m?x", "hf://o/m/../x"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn several_sources_are_below_what_their_paths_have_in_common() {
        let below = |text: &str| match parse_several(text).unwrap() {
            SourceUri::Several(parts) => parts.into_iter().map(|part| part.below).collect::<Vec<_>>(),
            other => panic!("{other}"),
        };
        assert_eq!(below(r#"[{"uri": "s3://b/m"}]"#), [""]);
        let two = r#"[{"uri": "s3://b/m"}, {"uri": "hf://o/n", "mountPath": "/mnt/models/deep/er/"}]"#;
        assert_eq!(below(two), ["", "deep/er"]);
        assert_eq!(parse_several(two).unwrap().to_string(), "s3://b/m and hf://o/n@main at deep/er");
        let beside = r#"[{"uri": "/a", "mountPath": "/mnt/models/x"}, {"uri": "/b", "mountPath": "/mnt/models/xy"}]"#;
        assert_eq!(below(beside), ["x", "xy"]);
        for (wrong, message) in [
            ("", "expected [{"),
            ("[]", "have no folder in common"),
            (r#"[{"url": "s3://b/m"}]"#, "expected [{"),
            (r#"[{"uri": "gs://b/m"}]"#, "scheme \"gs\""),
            (r#"[{"uri": "/a", "mountPath": "/"}]"#, "have no folder in common"),
            (r#"[{"uri": "/a", "mountPath": "mnt"}]"#, "is no absolute path"),
            (r#"[{"uri": "/a", "mountPath": "/mnt/../x"}]"#, "is no absolute path"),
            (r#"[{"uri": "/a", "mountPath": "/a"}, {"uri": "/a", "mountPath": "/b"}]"#, "have no folder in common"),
        ] {
            let told = parse_several(wrong).unwrap_err();
            assert!(told.message().contains(message), "{wrong}: {told}");
        }
    }

    #[test]
    fn mlflow_has_names_of_five_kinds() {
        let cases = [
            ("models:/a b/12", MlflowName::Version { name: "a b".into(), version: "12".into() }),
            ("models:/a@champion", MlflowName::Alias { name: "a".into(), alias: "champion".into() }),
            ("models:/a/latest", MlflowName::Latest { name: "a".into() }),
            ("models:/m-1f", MlflowName::Model { id: "m-1f".into() }),
            ("runs:/1f/models/a b", MlflowName::Run { id: "1f".into(), path: "models/a b".into() }),
        ];
        for (text, name) in cases {
            assert_eq!(name.to_string(), text);
            assert_eq!(parse(&text.replace(":/", "://")).unwrap(), SourceUri::Mlflow(name.clone()));
            assert_eq!(parse(&format!("{text}/")).unwrap(), SourceUri::Mlflow(name));
        }
        for wrong in [
            "models:/",
            "models:/a",
            "models:/a/Production",
            "models:/a/1/x",
            "models:/a@",
            "models:/@x",
            "runs:/1f",
            "runs:/1f/../x",
        ] {
            assert!(parse(wrong).unwrap_err().message().contains("expected models:/"), "{wrong}");
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
