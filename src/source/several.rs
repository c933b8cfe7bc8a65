//! Several sources as one: each below a folder of its own, as KServe's `storageUris` mount them.

use std::collections::BTreeMap;
use std::ops::Range;

use super::checksum::Checksum;
use super::disk::Disk;
use super::uri::Mounted;
use super::{Env, Opened, RangeReader, RemoteFile, Source, Trouble, archive, open};
use crate::error::{Error, Result};

/// Sources, and the folder that the files of each go to; empty for the model's own.
pub struct Several(pub Vec<(String, Box<dyn Source>)>);

impl Several {
    /// # Errors
    /// As [`open`].
    pub fn open(parts: &[Mounted], env: Env<'_>) -> Result<Several> {
        let part = |Mounted { uri, below }: &Mounted| {
            let source: Box<dyn Source> = match open(uri, env)? {
                Opened::Here(path) => Box::new(Disk(path)),
                Opened::Elsewhere(source) => source,
            };
            Ok((below.clone(), source))
        };
        Ok(Several(parts.iter().map(part).collect::<Result<_>>()?))
    }

    /// Whose file it is, and what it is called there.
    fn part(&self, file: &RemoteFile) -> Result<(&dyn Source, RemoteFile)> {
        let own = file.key.split_once(':').and_then(|(number, key)| {
            let (below, source) = self.0.get(number.parse::<usize>().ok()?)?;
            let path = file.path.strip_prefix(below.as_str())?.trim_start_matches('/');
            Some((&**source, RemoteFile { path: path.to_owned(), key: key.to_owned(), ..file.clone() }))
        });
        own.ok_or_else(|| Error::internal(format!("\"{}\" is of no source", file.key)))
    }
}

impl Source for Several {
    fn manifest(&self) -> Result<Vec<RemoteFile>> {
        let mut files: BTreeMap<String, RemoteFile> = BTreeMap::new();
        for (number, (below, source)) in self.0.iter().enumerate() {
            let manifest = source.manifest()?;
            if let Some(archive) = archive::single(&manifest) {
                let key = &archive.key;
                return Err(Error::load(format!(
                    "{key}: an archive that is one of several sources is not unpacked: let stoker pull bring it, or \
                     unpack it in the store"
                )));
            }
            for file in manifest {
                let path = if below.is_empty() { file.path } else { format!("{below}/{}", file.path) };
                let key = format!("{number}:{}", file.key);
                let added = RemoteFile { path: path.clone(), key, ..file };
                if files.insert(path.clone(), added).is_some() {
                    return Err(Error::load(format!("\"{path}\" comes from two of the sources: mount them apart")));
                }
            }
        }
        Ok(files.into_values().collect())
    }

    fn open(&self, file: &RemoteFile, range: Range<u64>) -> Result<Box<dyn RangeReader + '_>, Trouble> {
        let (source, own) = self.part(file).map_err(|error| Trouble { error, retry: None })?;
        source.open(&own, range)
    }

    fn checksum(&self, file: &RemoteFile) -> Result<Option<Checksum>> {
        let (source, own) = self.part(file)?;
        source.checksum(&own)
    }

    fn version(&self, file: &RemoteFile) -> Result<Option<String>> {
        let (source, own) = self.part(file)?;
        source.version(&own)
    }

    fn attempts(&self) -> u32 {
        self.0.iter().map(|(_, source)| source.attempts()).max().unwrap_or(1)
    }

    fn stop(&self) {
        self.0.iter().for_each(|(_, source)| source.stop());
    }
}
