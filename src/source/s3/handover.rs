//! A model's objects handed over: their addresses, signed for a while, so that whoever reads them needs no credentials.
//! KServe gives these to a pod's init container alone. `stoker pull stoker+s3://bucket/prefix DIR` lists and signs there,
//! in milliseconds, and leaves a file; a server whose model directory holds it reads the objects by itself.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::credentials::Keys;
use super::explain::Operation;
use super::{S3, checksum_mode, sign, stored};
use crate::error::{Error, Result};
use crate::source::checksum::Checksum;
use crate::source::digest::{self, ModelDigest};
use crate::source::http::{self, Client, Patience, Proxies, Request, Trust, Url};
use crate::source::part::Part;
use crate::source::transfer::PART_BYTES;
use crate::source::uri::{self, SourceUri, is_inside};
use crate::source::{Env, RangeReader, RemoteFile, Source, Trouble};

/// What the file is called.
pub const NAME: &str = "stoker-handover.json";
/// The longest that a signature of version 4 may be valid.
pub const MOST_SECONDS: u64 = 7 * 24 * 3600;

#[derive(Serialize, Deserialize)]
pub struct Handover {
    /// Where the objects are.
    uri: String,
    base: String,
    /// What messages call it.
    endpoint: String,
    trust: Trusted,
    connect_seconds: u64,
    read_seconds: u64,
    attempts: u32,
    /// Since 1970; `None` when nothing is signed.
    expires: Option<u64>,
    /// What the files have to sum up to.
    digest: Option<String>,
    files: Vec<Handed>,
}

/// Whose certificates the server is to trust: the init container's bundle may not be there for it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Trusted {
    Nobody,
    System,
    Anyone,
    /// PEM.
    Roots(String),
}

#[derive(Serialize, Deserialize)]
struct Handed {
    path: String,
    key: String,
    bytes: u64,
    etag: String,
    /// Path and query of its address, with the signature.
    target: String,
    /// What it sums up to, of an object that is read in parts: `crc32 1a2b3c4d`, and the bytes of a part when that is a
    /// sum of sums.
    checksum: Option<(String, Option<u64>)>,
}

impl S3 {
    /// Hands these objects over for so many seconds, pinned when there is a digest.
    ///
    /// # Errors
    /// When the CA bundle cannot be read, or the store does not say the checksum of an object that comes in parts.
    pub fn hand_over(&self, files: &[RemoteFile], seconds: u64, digest: Option<ModelDigest>) -> Result<Handover> {
        let now = SystemTime::now();
        let keys = self.signer.keys();
        let asked_until = now + Duration::from_secs(seconds);
        // What lent keys have signed ends with them.
        let signed_until = self.signer.until().map_or(asked_until, |until| until.min(asked_until));
        let expires = signed_until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let hand = |file: &RemoteFile| -> Result<Handed> {
            let sum = if file.bytes > PART_BYTES { self.checksum(file)? } else { None };
            Ok(Handed {
                path: file.path.clone(),
                key: file.key.clone(),
                bytes: file.bytes,
                etag: file.tag.clone(),
                target: self.signed_target(&file.key, keys.as_deref(), seconds, now),
                checksum: sum.map(|sum| (sum.to_string(), sum.part_bytes)),
            })
        };
        Ok(Handover {
            uri: SourceUri::S3 { bucket: self.bucket.clone(), prefix: self.prefix.clone() }.to_string(),
            base: self.base.to_string(),
            endpoint: self.endpoint.clone(),
            trust: trusted(&self.trust)?,
            connect_seconds: self.settings.connect_timeout.as_secs(),
            read_seconds: self.settings.read_timeout.as_secs(),
            attempts: self.settings.max_attempts,
            expires: keys.as_ref().map(|_| expires),
            digest: digest.map(|digest| digest.to_string()),
            files: files.iter().map(hand).collect::<Result<_>>()?,
        })
    }

    fn signed_target(&self, key: &str, keys: Option<&Keys>, seconds: u64, now: SystemTime) -> String {
        let path = self.path_of(key);
        let Some(keys) = keys else { return path };
        let headers = [checksum_mode()];
        let request =
            sign::Signable { method: "GET", host: self.base.host(), path: &path, query: "", headers: &headers };
        format!("{path}?{}", sign::presign(&request, &self.settings.region, keys, now, seconds))
    }
}

fn trusted(trust: &Trust) -> Result<Trusted> {
    Ok(match trust {
        Trust::Nobody => Trusted::Nobody,
        Trust::System => Trusted::System,
        Trust::Anyone => Trusted::Anyone,
        Trust::Given(pem) => Trusted::Roots(pem.clone()),
        Trust::Bundle { variable, path } => Trusted::Roots(
            std::fs::read_to_string(path)
                .map_err(|error| Error::load(format!("{variable} {}: {error}", path.display())))?,
        ),
    })
}

impl Handover {
    /// Leaves it in a directory, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let failed = |error: std::io::Error| Error::load(format!("{}: {error}", directory.join(NAME).display()));
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
        serde_json::to_writer(&mut file, self).map_err(|error| failed(error.into()))?;
        // Another user may read it than the one who wrote it: both containers of the pod choose.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(everybody).map_err(failed)?;
        file.persist(directory.join(NAME)).map_err(|error| failed(error.error))?;
        Ok(())
    }
}

/// Objects that were handed over.
pub struct HandedOver {
    handover: Handover,
    /// Where in it a file is, by its key.
    places: HashMap<String, usize>,
    digest: Option<ModelDigest>,
    client: Client,
    base: Url,
    place: SourceUri,
    bucket: String,
}

impl HandedOver {
    /// All that [`Handover::write`] has left below a directory, and in which folders of it.
    ///
    /// # Errors
    /// When there is such a file that makes no sense.
    pub fn find_below(directory: &Path, env: Env<'_>) -> Result<Vec<(String, HandedOver)>> {
        // What cannot be listed is told by whoever serves it.
        let names = digest::names(directory).map(|(_, names)| names).unwrap_or_default();
        let folder = |name: &String| match name.strip_suffix(NAME)? {
            "" => Some(String::new()),
            folder => folder.strip_suffix('/').map(str::to_owned),
        };
        let read = |folder: String| {
            let path = directory.join(&folder).join(NAME);
            let text = std::fs::read(&path).map_err(|error| Error::load(error.to_string()));
            let handed = text.and_then(|text| HandedOver::read(&text, env));
            handed.map(|handed| (folder, handed)).map_err(|error| error.context(path.display()))
        };
        names.iter().filter_map(folder).map(read).collect()
    }

    fn read(text: &[u8], env: Env<'_>) -> Result<HandedOver> {
        let handover: Handover = serde_json::from_slice(text).map_err(|error| Error::load(error.to_string()))?;
        if let Some(file) = handover.files.iter().find(|file| !is_inside(&file.path)) {
            return Err(Error::load(format!("\"{}\" is no path below the model directory", file.path)));
        }
        let place = uri::parse(&handover.uri)?;
        let SourceUri::S3 { bucket, .. } = &place else { return Err(Error::load("the objects are not in S3")) };
        let trust = match &handover.trust {
            Trusted::Nobody => Trust::Nobody,
            Trusted::System => Trust::System,
            Trusted::Anyone => Trust::Anyone,
            Trusted::Roots(pem) => Trust::Given(pem.clone()),
        };
        let patience = Patience {
            connect: Duration::from_secs(handover.connect_seconds),
            silence: Duration::from_secs(handover.read_seconds),
            whole: Duration::MAX,
        };
        let client = Client::new(http::tls_config(&trust)?, patience, Proxies::from_env(env));
        let (base, bucket) = (Url::parse(&handover.base)?, bucket.clone());
        let digest = handover.digest.as_deref().map(ModelDigest::parse).transpose()?;
        let places = handover.files.iter().enumerate().map(|(place, file)| (file.key.clone(), place)).collect();
        Ok(HandedOver { handover, places, digest, client, base, place, bucket })
    }

    fn handed(&self, file: &RemoteFile) -> Result<&Handed, Trouble> {
        let found = self.places.get(&file.key).map(|place| &self.handover.files[*place]);
        found.ok_or_else(|| Trouble { error: Error::internal("a file that was not handed over"), retry: None })
    }

    /// Nobody here can sign anew.
    fn expired(&self, status: u16) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        matches!(status, 400 | 401 | 403) && self.handover.expires.is_some_and(|expires| expires <= now)
    }
}

impl Source for HandedOver {
    fn manifest(&self) -> Result<Vec<RemoteFile>> {
        let file = |handed: &Handed| RemoteFile {
            path: handed.path.clone(),
            key: handed.key.clone(),
            bytes: handed.bytes,
            tag: handed.etag.clone(),
            whole: false,
        };
        Ok(self.handover.files.iter().map(file).collect())
    }

    fn open(&self, file: &RemoteFile, range: Range<u64>) -> Result<Box<dyn RangeReader + '_>, Trouble> {
        let handed = self.handed(file)?;
        let key = handed.key.as_str();
        let operation =
            |step| Operation { step, bucket: &self.bucket, key, endpoint: &self.handover.endpoint, signer: None };
        let whole = range == (0..file.bytes);
        let mut headers = vec![checksum_mode(), ("if-match", file.tag.clone())];
        if !whole {
            headers.push(("range", format!("bytes={}-{}", range.start, range.end - 1)));
        }
        let url = self.base.with_target(handed.target.clone());
        let request = Request { method: "GET", url: &url, headers: &headers, body: "" };
        let mut response = self.client.send(&request).map_err(|failure| operation("read").failed(&failure))?;
        if self.expired(response.status) {
            let text = "its signed address has expired: start the pod anew, whose init container signs again";
            let error = operation("read").refused(&mut response).error;
            return Err(Trouble { error: Error::load(format!("{}: {text}", error.message())), retry: None });
        }
        if response.status != if whole { 200 } else { 206 } {
            return Err(operation("read").refused(&mut response));
        }
        let expected = range.end - range.start;
        if let Some(length) = response.body.length().filter(|length| *length != expected) {
            return Err(operation("read").other_length(expected, length));
        }
        // Of sums of parts, those of large objects are known from the init container.
        let told = stored::stored(|name| response.header(name), false).filter(|stored| stored.parts.is_none());
        let checksum = told.filter(|_| whole).map(|stored| stored.with_part(None));
        let failed = Box::new(move |failure: &http::Failure| operation("read").failed(failure));
        Ok(Box::new(Part { body: response.body, left: expected, checksum, failed }))
    }

    fn checksum(&self, file: &RemoteFile) -> Result<Option<Checksum>> {
        let handed = self.handed(file).map_err(|trouble| trouble.error)?;
        let known = handed.checksum.as_ref();
        Ok(known.and_then(|(sum, part_bytes)| Some(Checksum { part_bytes: *part_bytes, ..Checksum::parse(sum)? })))
    }

    fn place(&self) -> Option<SourceUri> {
        Some(self.place.clone())
    }

    fn pinned(&self) -> Option<ModelDigest> {
        self.digest
    }

    fn attempts(&self) -> u32 {
        self.handover.attempts
    }

    fn stop(&self) {
        self.client.stop();
    }
}
