//! Artifacts that the tracking server hands out itself, from a store that only it knows.

use std::ops::Range;

use serde::Deserialize;

use super::Tracking;
use crate::error::{Error, Result};
use crate::source::http::encode_path;
use crate::source::site::ATTEMPTS;
use crate::source::uri::relative_path;
use crate::source::{RangeReader, RemoteFile, Source, Trouble, check_count};

const ARTIFACTS: &str = "/api/2.0/mlflow-artifacts/artifacts";

/// The files below a path, or the one at it.
pub struct Artifacts {
    pub tracking: Tracking,
    /// As the server calls it.
    pub root: String,
}

#[derive(Default, Deserialize)]
struct Listing {
    #[serde(default)]
    files: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    /// Its name in the folder.
    path: String,
    #[serde(default)]
    is_dir: bool,
    /// Of files.
    file_size: Option<u64>,
}

impl Artifacts {
    fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        let Tracking { site, server } = &self.tracking;
        let (listing, _) = site.json::<Listing>("list", &server.below(ARTIFACTS, &[("path", folder)]))?;
        Ok(listing.files)
    }

    /// The root, when it is no folder.
    fn single_file(&self) -> Result<Vec<RemoteFile>> {
        let Some((folder, name)) = self.root.rsplit_once('/') else { return Ok(Vec::new()) };
        let mut found = self.list(folder)?;
        found.retain(|entry| !entry.is_dir && entry.path == name);
        found.iter().map(|entry| remote_file(name.to_owned(), self.root.clone(), entry)).collect()
    }
}

impl Source for Artifacts {
    fn manifest(&self) -> Result<Vec<RemoteFile>> {
        let mut files = Vec::new();
        let mut listed = 0;
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            let entries = self.list(&folder)?;
            listed += entries.len();
            check_count(listed, format_args!("mlflow-artifacts:/{}", self.root))?;
            for entry in entries {
                let key = format!("{folder}/{}", entry.path);
                match relative_path(&self.root, &key)? {
                    Some(_) if entry.is_dir => folders.push(key),
                    Some(path) => files.push(remote_file(path, key, &entry)?),
                    None => {}
                }
            }
        }
        if files.is_empty() {
            return self.single_file();
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    fn open(&self, file: &RemoteFile, range: Range<u64>) -> Result<Box<dyn RangeReader + '_>, Trouble> {
        let Tracking { site, server } = &self.tracking;
        site.read(&server.below(&format!("{ARTIFACTS}/{}", encode_path(&file.key)), &[]), file, &range, None, None)
    }

    fn attempts(&self) -> u32 {
        ATTEMPTS
    }

    fn stop(&self) {
        self.tracking.site.stop();
    }
}

fn remote_file(path: String, key: String, entry: &Entry) -> Result<RemoteFile> {
    let bytes =
        entry.file_size.ok_or_else(|| Error::load(format!("MLflow does not say the size of artifact {key}")))?;
    // MLflow has no hashes, but paths with the id of a run or a model in them, whose artifacts do not change. For each
    // range of one in a bucket, the server would fetch all of it.
    Ok(RemoteFile { path, tag: key.clone(), key, bytes, whole: true })
}
