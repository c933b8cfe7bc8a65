//! A model of a hub that speaks Hugging Face's HTTP API, at one commit of its repository.
//! Source: `huggingface_hub`'s `snapshot_download` and `list_repo_tree`.

use std::ops::Range;

use serde::Deserialize;

use super::checksum::Checksum;
use super::http::{Secrets, Url, encode_part, encode_path};
use super::site::{ATTEMPTS, Refusal, Site};
use super::uri::relative_path;
use super::{Env, RangeReader, RemoteFile, Source, Trouble, check_count};
use crate::error::{Error, Result};

const ENDPOINT: &str = "https://huggingface.co";

pub struct Hub {
    site: Site,
    endpoint: Url,
    /// `owner/name`
    repo: String,
    /// The folder or file that is wanted of it.
    path: String,
    commit: String,
}

impl Hub {
    /// Asks which commit the revision is, once: all that is read is of that one.
    ///
    /// # Errors
    /// When the endpoint is no address, or the hub does not say.
    pub fn new(repo: &str, revision: &str, path: &str, env: Env<'_>) -> Result<Hub> {
        let set = |name: &str| env(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let endpoint = Url::parse(&endpoint).map_err(|error| error.context("HF_ENDPOINT"))?;
        let token = set("HF_TOKEN").map(|token| ("authorization".to_owned(), format!("Bearer {token}")));
        let secrets = Secrets { origin: endpoint.origin().clone(), headers: token.into_iter().collect() };
        let site = Site::new(format!("hf://{repo}@{revision} at {endpoint}"), secrets, meaning, env)?;
        let commit = if is_commit(revision) {
            revision.to_owned()
        } else {
            let asked = format!("/api/models/{repo}/revision/{}", encode_part(revision));
            let (info, _) = site.json::<Info>("look up", &endpoint.below(&asked, &[]))?;
            if !is_commit(&info.sha) {
                return Err(site.trouble("look up", "the hub names no commit for it", None).error);
            }
            tracing::info!(uri = %format_args!("hf://{repo}@{revision}"), resolved = info.sha, "model resolved");
            info.sha
        };
        Ok(Hub { site, endpoint, repo: repo.to_owned(), path: path.to_owned(), commit })
    }
}

impl Hub {
    /// The commit that the revision was.
    pub fn commit(&self) -> &str {
        &self.commit
    }
}

impl Source for Hub {
    fn manifest(&self) -> Result<Vec<RemoteFile>> {
        let tree = format!("/api/models/{}/tree/{}", self.repo, self.commit);
        let mut next = Some(self.endpoint.below(&tree, &[("recursive", "true")]));
        let (mut files, mut listed) = (Vec::new(), 0);
        while let Some(url) = next {
            let (entries, more) = self.site.json::<Vec<Entry>>("list", &url)?;
            listed += entries.len().max(1); // even empty pages come to an end
            check_count(listed, format_args!("hf://{}", self.repo))?;
            for entry in entries {
                files.extend(remote_file(&self.path, entry)?);
            }
            next = more;
        }
        if files.is_empty() && !self.path.is_empty() {
            let path = &self.path;
            return Err(Error::load(format!("hf://{} has no \"{path}\" at commit {}", self.repo, self.commit)));
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    fn open(&self, file: &RemoteFile, range: Range<u64>) -> Result<Box<dyn RangeReader + '_>, Trouble> {
        let url =
            self.endpoint.below(&format!("/{}/resolve/{}/{}", self.repo, self.commit, encode_path(&file.key)), &[]);
        let checksum = (range == (0..file.bytes)).then(|| checksum(file)).flatten();
        self.site.read(&url, file, &range, None, checksum)
    }

    fn checksum(&self, file: &RemoteFile) -> Result<Option<Checksum>> {
        Ok(checksum(file))
    }

    fn attempts(&self) -> u32 {
        ATTEMPTS
    }

    fn stop(&self) {
        self.site.stop();
    }
}

#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    sha: String,
}

/// Of a repository's tree.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    /// Of git, or what stands in for it.
    oid: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    /// The content's sha256.
    oid: String,
    size: u64,
}

fn remote_file(wanted: &str, entry: Entry) -> Result<Option<RemoteFile>> {
    if entry.kind != "file" {
        return Ok(None);
    }
    let path = relative_path(wanted, &entry.path)?;
    // What git keeps is small, and not every mirror knows ranges of it.
    let whole = entry.lfs.is_none();
    let (bytes, tag) = entry.lfs.map_or((entry.size, entry.oid), |lfs| (lfs.size, lfs.oid));
    Ok(path.map(|path| RemoteFile { path, key: entry.path, bytes, tag, whole }))
}

/// LFS names a file by its content's sha256; what git names it by has more in it than that.
fn checksum(file: &RemoteFile) -> Option<Checksum> {
    Checksum::parse(&format!("sha256 {}", file.tag)).filter(|_| !file.whole)
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn meaning(refusal: &Refusal) -> Option<&'static str> {
    Some(match (refusal.code.as_str(), refusal.status, refusal.authorized) {
        ("RevisionNotFound", ..) => "there is no such revision",
        ("EntryNotFound", ..) => "there is no such file",
        ("GatedRepo", _, false) => "the repository is gated: accept its terms at the hub and set HF_TOKEN",
        ("GatedRepo", _, true) => "the repository is gated, and HF_TOKEN's owner has not been granted access",
        (_, 401 | 403, false) => "the repository is private, or there is none: set HF_TOKEN",
        (_, 401 | 403, true) => "HF_TOKEN is wrong, has expired, or may not read this repository",
        (_, 404, _) => "there is no such repository",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_a_tree_become_files() {
        let tree = r#"[{"type": "directory", "oid": "d", "path": "onnx"},
            {"type": "file", "oid": "g", "size": 7, "path": "onnx/config.json"},
            {"type": "file", "oid": "g2", "size": 134, "path": "onnx/m.onnx",
             "lfs": {"oid": "sha", "size": 900, "pointerSize": 134}, "xetHash": "x"}]"#;
        let files = |wanted| {
            let entries: Vec<Entry> = serde_json::from_str(tree).unwrap();
            let files = entries.into_iter().filter_map(|entry| remote_file(wanted, entry).unwrap());
            files.map(|file| (file.path, file.bytes, file.tag)).collect::<Vec<_>>()
        };
        let config = |path: &str| (path.to_owned(), 7, "g".to_owned());
        let model = |path: &str| (path.to_owned(), 900, "sha".to_owned());
        assert_eq!(files(""), [config("onnx/config.json"), model("onnx/m.onnx")]);
        assert_eq!(files("onnx"), [config("config.json"), model("m.onnx")]);
        assert_eq!(files("onnx/m.onnx"), [model("m.onnx")]);
        assert_eq!(files("onn"), []);
    }

    #[test]
    fn only_lfs_tells_a_checksum() {
        let of = |tag: &str, whole| {
            let path = "m.onnx".to_owned();
            checksum(&RemoteFile { key: path.clone(), path, bytes: 1, tag: tag.to_owned(), whole })
        };
        let sha256 = "0a".repeat(32);
        assert_eq!(of(&sha256, false).unwrap().to_string(), format!("sha256 {sha256}"));
        for (tag, whole) in
            [(sha256.as_str(), true), (&"0a".repeat(20), false), (&"zz".repeat(32), false), (&"ü".repeat(32), false)]
        {
            assert_eq!(of(tag, whole), None, "{tag}");
        }
    }

    #[test]
    fn each_refusal_has_its_message() {
        let said = |status, code: &str, authorized| {
            meaning(&Refusal { status, code: code.to_owned(), authorized }).unwrap_or_default()
        };
        let cases = [
            (401, "RepoNotFound", false, "is private, or there is none"),
            (401, "", true, "HF_TOKEN is wrong"),
            (403, "GatedRepo", false, "accept its terms"),
            (403, "GatedRepo", true, "has not been granted"),
            (404, "RepoNotFound", true, "no such repository"),
            (404, "RevisionNotFound", true, "no such revision"),
            (404, "EntryNotFound", false, "no such file"),
            (500, "", false, ""),
        ];
        for (status, code, authorized, part) in cases {
            assert!(said(status, code, authorized).contains(part), "{status} {code}");
        }
    }
}
