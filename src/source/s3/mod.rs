//! S3 and MinIO, with KServe's environment ([`settings`]): the three requests that reading a model takes.
//!
//! Why not AWS's SDK: it cannot read into a buffer of ours, and brings 80 crates; signing is as many lines.

mod credentials;
pub mod explain;
pub mod handover;
mod lender;
mod profile;
pub mod settings;
mod sign;
mod stored;
mod xml;

use std::ops::Range;
use std::time::SystemTime;

use self::explain::{LOOK_UP, Operation};
use self::lender::Signer;
use self::settings::Settings;
use super::checksum::Checksum;
use super::http::{self, Client, Request, Response, Trust, Url};
use super::part::Part;
use super::reading::ask;
use super::uri::{SourceUri, relative_path};
use super::{RangeReader, RemoteFile, Source, Trouble, check_count};
use crate::error::Result;

/// A page of a thousand objects takes a tenth.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// In a row; one page without objects may be followed by others for ever.
const MOST_EMPTY_PAGES: usize = 20;

/// The objects below a prefix of a bucket.
pub struct S3 {
    client: Client,
    settings: Settings,
    signer: Signer,
    /// Where the bucket is: with its name in the host, or as the path's first part.
    base: Url,
    trust: Trust,
    bucket: String,
    prefix: String,
    /// Where requests go, for error messages.
    endpoint: String,
}

impl S3 {
    /// Makes a client. The store is not asked yet; who lends keys is.
    ///
    /// # Errors
    /// When the CA bundle cannot be read, the bucket's name is none, or nobody lends keys.
    pub fn new(settings: &Settings, bucket: &str, prefix: &str) -> Result<S3> {
        let region = &settings.region;
        let endpoint = settings.endpoint.as_ref().unwrap_or(&settings.aws);
        // AWS's certificates are of names with one part more, in which a bucket's dots would be further parts.
        let path_style = settings.path_style || (settings.endpoint.is_none() && bucket.contains('.'));
        let base = match (path_style, endpoint.split_once("://")) {
            (false, Some((scheme, rest))) => Url::parse(&format!("{scheme}://{bucket}.{rest}"))?,
            _ => Url::parse(endpoint)?,
        };
        let trust = settings.trust(&base);
        Ok(S3 {
            client: Client::new(http::tls_config(&trust)?, settings.patience(), settings.proxies.clone()),
            signer: Signer::new(settings)?,
            settings: Settings { path_style, ..settings.clone() },
            base,
            trust,
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: settings.endpoint.clone().unwrap_or_else(|| format!("the AWS region {region}")),
        })
    }

    fn operation<'a>(&'a self, step: &'static str, key: &'a str) -> Operation<'a> {
        Operation { step, bucket: &self.bucket, key, endpoint: &self.endpoint, signer: Some(&self.signer) }
    }

    /// Where an object is below the endpoint, encoded.
    fn path_of(&self, key: &str) -> String {
        let below = self.base.target().trim_end_matches('/');
        let path =
            if self.settings.path_style { format!("{below}/{}/{key}", self.bucket) } else { format!("{below}/{key}") };
        http::encode_path(&path)
    }

    /// Sends a request, signed unless the bucket is public.
    fn send(
        &self,
        method: &'static str,
        key: &str,
        parameters: &[(&str, &str)],
        headers: &[(&'static str, String)],
    ) -> Result<Response<'_>, http::Failure> {
        let (path, query) = (self.path_of(key), http::encode_query(parameters));
        let mut headers = headers.to_vec();
        if let Some(keys) = self.signer.keys() {
            let signable =
                sign::Signable { method, host: self.base.host(), path: &path, query: &query, headers: &headers };
            let added = sign::sign(&signable, &self.settings.region, &keys, SystemTime::now());
            headers.extend(added);
        }
        let target = if query.is_empty() { path } else { format!("{path}?{query}") };
        self.client.send(&Request { method, url: &self.base.with_target(target), headers: &headers, body: "" })
    }

    fn page(&self, listed: &str, next: Option<&str>) -> Result<xml::Page, Trouble> {
        let operation = self.operation("list", listed);
        let mut parameters = vec![("list-type", "2"), ("prefix", listed)];
        parameters.extend(next.map(|next| ("continuation-token", next)));
        let mut response = self.send("GET", "", &parameters, &[]).map_err(|failure| operation.failed(&failure))?;
        if response.status != 200 {
            return Err(operation.refused(&mut response));
        }
        let body = response.body.read_all(MAX_ANSWER_BYTES).map_err(|failure| operation.failed(&failure))?;
        xml::page(&String::from_utf8_lossy(&body)).ok_or_else(|| operation.not_s3(200, &response.through))
    }

    /// What the headers of an answer say of the whole object. Sums of parts cost a request for the size of these.
    fn stored(&self, file: &RemoteFile, response: &Response<'_>) -> Result<Option<Checksum>, Trouble> {
        let Some(stored) = stored::stored(|name| response.header(name), self.settings.verify_etag) else {
            return Ok(None);
        };
        let part_bytes = match stored.parts {
            None => None,
            Some(1) => Some(file.bytes),
            Some(parts) => {
                let part = self.head(file, &[("partNumber", "1")])?;
                let bytes = part.header("content-length").and_then(|length| length.parse::<u64>().ok());
                // Parts of several sizes cannot be told apart.
                match bytes.filter(|bytes| *bytes > 0 && file.bytes.div_ceil(*bytes) == parts) {
                    None => return Ok(None),
                    known => known,
                }
            }
        };
        Ok(Some(stored.with_part(part_bytes)))
    }

    fn head(&self, file: &RemoteFile, parameters: &[(&str, &str)]) -> Result<Response<'_>, Trouble> {
        let operation = self.operation(LOOK_UP, &file.key);
        let headers = [("if-match", file.tag.clone()), checksum_mode()];
        let mut response =
            self.send("HEAD", &file.key, parameters, &headers).map_err(|failure| operation.failed(&failure))?;
        if !matches!(response.status, 200 | 206) {
            return Err(operation.refused(&mut response));
        }
        Ok(response)
    }

    /// The prefix named one object instead of a folder of them.
    fn single_object(&self) -> Result<Vec<RemoteFile>> {
        ask(self.settings.max_attempts, || {
            let operation = self.operation(LOOK_UP, &self.prefix);
            let mut response =
                self.send("HEAD", &self.prefix, &[], &[]).map_err(|failure| operation.failed(&failure))?;
            match response.status {
                404 => return Ok(Vec::new()),
                200 => {}
                _ => return Err(operation.refused(&mut response)),
            }
            let bytes = response.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            let tag = response.header("etag").unwrap_or_default();
            let object = xml::Object { key: self.prefix.clone(), bytes, etag: tag.to_owned() };
            let file = remote_file(&self.prefix, object).map_err(|error| Trouble { error, retry: None })?;
            Ok(file.into_iter().collect())
        })
    }
}

impl Source for S3 {
    fn manifest(&self) -> Result<Vec<RemoteFile>> {
        // With the slash, so that "model" does not list "model2" as well.
        let listed = if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
        let (mut files, mut empty) = (Vec::new(), 0);
        let mut next = None;
        loop {
            let page = ask(self.settings.max_attempts, || self.page(&listed, next.as_deref()))?;
            empty = if page.objects.is_empty() { empty + 1 } else { 0 };
            if empty > MOST_EMPTY_PAGES {
                return Err(self.operation("list", &listed).endless().error);
            }
            for object in page.objects {
                files.extend(remote_file(&self.prefix, object)?);
            }
            check_count(files.len(), format_args!("s3://{}/{}", self.bucket, self.prefix))?;
            match page.next {
                Some(token) => next = Some(token),
                None => break,
            }
        }
        if files.is_empty() && !self.prefix.is_empty() {
            return self.single_object();
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    fn open(&self, file: &RemoteFile, range: Range<u64>) -> Result<Box<dyn RangeReader + '_>, Trouble> {
        let key = file.key.clone();
        let operation = self.operation("read", &file.key);
        let whole = range == (0..file.bytes);
        let wanted =
            if whole { checksum_mode() } else { ("range", format!("bytes={}-{}", range.start, range.end - 1)) };
        let headers = [("if-match", file.tag.clone()), wanted];
        let mut response = self.send("GET", &file.key, &[], &headers).map_err(|failure| operation.failed(&failure))?;
        if response.status != if whole { 200 } else { 206 } {
            return Err(operation.refused(&mut response));
        }
        let checksum = if whole { self.stored(file, &response)? } else { None };
        let expected = range.end - range.start;
        match response.body.length() {
            Some(length) if length != expected => Err(operation.other_length(expected, length)),
            _ => {
                let failed = Box::new(move |failure: &http::Failure| self.operation("read", &key).failed(failure));
                Ok(Box::new(Part { body: response.body, left: expected, checksum, failed }))
            }
        }
    }

    fn checksum(&self, file: &RemoteFile) -> Result<Option<Checksum>> {
        ask(self.settings.max_attempts, || self.stored(file, &self.head(file, &[])?))
    }

    fn version(&self, file: &RemoteFile) -> Result<Option<String>> {
        ask(self.settings.max_attempts, || {
            let response = self.head(file, &[])?;
            Ok(response.header("x-amz-version-id").map(str::to_owned))
        })
    }

    fn place(&self) -> Option<SourceUri> {
        Some(SourceUri::S3 { bucket: self.bucket.clone(), prefix: self.prefix.clone() })
    }

    fn attempts(&self) -> u32 {
        self.settings.max_attempts
    }

    fn stop(&self) {
        self.client.stop();
    }
}

/// Asks for the object's checksum beside its content.
fn checksum_mode() -> (&'static str, String) {
    ("x-amz-checksum-mode", "ENABLED".to_owned())
}

fn remote_file(prefix: &str, object: xml::Object) -> Result<Option<RemoteFile>> {
    let path = relative_path(prefix, &object.key)?;
    Ok(path.map(|path| RemoteFile { path, key: object.key, bytes: object.bytes, tag: object.etag, whole: false }))
}
