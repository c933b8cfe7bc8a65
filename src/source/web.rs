//! One file at an `http://` or `https://` address, by the contract of KServe's storage initializer: headers come from
//! the variable `<host>-headers`. Source: kserve `python/storage/kserve_storage/kserve_storage.py`, `_download_from_uri`.
//!
//! Parts of it are only read where the server promises that they belong together: ranges, under a strong `ETag`. A
//! file whose size nobody says, or that nothing identifies, is read once, into a temporary file, for its manifest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use super::http::{Secrets, Url};
use super::reading::{BUFFER_BYTES, ask};
use super::site::{ATTEMPTS, Site, validator};
use super::{Env, RangeReader, RemoteFile, Source, Trouble, hex};
use crate::error::{Error, Result};

pub struct Web {
    site: Site,
    url: Url,
    /// What it is called.
    file: String,
    /// Its content, when it was read for its manifest.
    content: OnceLock<File>,
}

impl Web {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// When the variable with headers holds none, or the CA bundle cannot be read.
    pub fn new(url: &Url, file: &str, env: Env<'_>) -> Result<Web> {
        let variable = format!("{}-headers", url.origin().name);
        let headers = env(&variable).map_or(Ok(Vec::new()), |text| headers(&variable, &text))?;
        let secrets = Secrets { origin: url.origin().clone(), headers };
        let site = Site::new(url.to_string(), secrets, |_| None, env)?;
        Ok(Web { site, url: url.clone(), file: file.to_owned(), content: OnceLock::new() })
    }

    fn look(&self) -> Result<Found, Trouble> {
        let mut response = self.site.send("look up", "HEAD", &self.url, &[])?;
        if response.status != 200 {
            // Not every server knows HEAD, and a signed address is for GET alone. The body is left unread.
            response = self.site.get("look up", &self.url, &[], &[200])?;
        }
        let found = found(&|name| response.header(name));
        if found.is_page && !self.file.contains(".htm") {
            let text = "the answer is a web page, not a file: is a login needed, or another address?";
            return Err(self.site.trouble("read", text, None));
        }
        Ok(found)
    }

    /// Reads it all, into a file that goes with the process; its size, and a tag by its content.
    fn download(&self) -> Result<(File, u64, String), Trouble> {
        let unwritable = |error| self.site.trouble("keep", &format!("the temporary folder: {error}"), None);
        let mut file = tempfile::tempfile().map_err(unwritable)?;
        let mut response = self.site.get("read", &self.url, &[], &[200])?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        loop {
            let read = response.body.read(&mut buffer).map_err(|failure| self.site.failed("read", &failure))?;
            if read == 0 {
                return Ok((file, bytes, hex(&hash.finalize())));
            }
            hash.update(&buffer[..read]);
            bytes += read as u64;
            file.write_all(&buffer[..read]).map_err(unwritable)?;
        }
    }
}

impl Source for Web {
    fn manifest(&self) -> Result<Vec<RemoteFile>> {
        let found = ask(ATTEMPTS, || self.look())?;
        // A query may say which file it is. It may be a secret, too, so that it is not kept as it is.
        let query = self.url.query_unsigned();
        let key = if query.is_empty() { self.file.clone() } else { format!("{}?{}", self.file, digest_of(&query)) };
        let file =
            |bytes, tag, whole| Ok(vec![RemoteFile { path: self.file.clone(), key: key.clone(), bytes, tag, whole }]);
        if let Found { bytes: Some(bytes), tag: Some(tag), has_ranges, .. } = found {
            return file(bytes, tag, !has_ranges);
        }
        let (content, bytes, tag) = ask(ATTEMPTS, || self.download())?;
        let _ = self.content.set(content); // a second manifest keeps what the first one said
        file(bytes, tag, false)
    }

    fn open(&self, file: &RemoteFile, range: Range<u64>) -> Result<Box<dyn RangeReader + '_>, Trouble> {
        match self.content.get() {
            Some(content) => Ok(Box::new(Kept { site: &self.site, content, at: range.start })),
            None => self.site.read(&self.url, file, &range, Some(&file.tag), None),
        }
    }

    fn attempts(&self) -> u32 {
        ATTEMPTS
    }

    fn stop(&self) {
        self.site.stop();
    }
}

fn digest_of(text: &str) -> String {
    hex(&Sha256::digest(text)[..8])
}

/// A part of what was read before.
struct Kept<'s> {
    site: &'s Site,
    content: &'s File,
    at: u64,
}

impl RangeReader for Kept<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Trouble> {
        let failed = |error| self.site.trouble("keep", &format!("the temporary folder: {error}"), None);
        self.content.read_exact_at(buffer, self.at).map_err(failed)?;
        self.at += buffer.len() as u64;
        Ok(buffer.len())
    }
}

/// What an answer says about the file.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    bytes: Option<u64>,
    /// What changes when the file does.
    tag: Option<String>,
    /// Whether ranges of it are sure to belong together.
    has_ranges: bool,
    is_page: bool,
}

fn found<'a>(header: &impl Fn(&str) -> Option<&'a str>) -> Found {
    let says = |name: &str, prefix: &str| {
        header(name)
            .is_some_and(|value| value.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)))
    };
    Found {
        bytes: header("content-length").and_then(|length| length.parse().ok()),
        tag: validator(header).map(str::to_owned),
        has_ranges: says("accept-ranges", "bytes") && says("etag", "\""),
        is_page: says("content-type", "text/html"),
    }
}

/// A JSON object of headers.
fn headers(variable: &str, text: &str) -> Result<Vec<(String, String)>> {
    // The values are secrets: no message may quote them.
    let parsed: BTreeMap<String, String> = serde_json::from_str(text)
        .map_err(|_| Error::load(format!("{variable} should be a JSON object of header names and values")))?;
    match parsed.keys().find(|name| name.parse::<::http::HeaderName>().is_err()) {
        Some(_) => Err(Error::load(format!("{variable} has a name that no header can have"))),
        None => Ok(parsed.into_iter().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_need_a_strong_tag() {
        let found = |headers: &'static [(&str, &str)]| {
            found(&|name: &str| headers.iter().find(|(own, _)| *own == name).map(|(_, value)| *value))
        };
        let of = |bytes, tag: Option<&str>, has_ranges| Found {
            bytes,
            tag: tag.map(str::to_owned),
            has_ranges,
            is_page: false,
        };
        assert_eq!(
            found(&[("content-length", "7"), ("accept-ranges", "Bytes"), ("etag", "\"a\"")]),
            of(Some(7), Some("\"a\""), true)
        );
        assert_eq!(found(&[("accept-ranges", "bytes"), ("etag", "W/\"a\"")]), of(None, Some("W/\"a\""), false));
        assert_eq!(found(&[("accept-ranges", "none"), ("etag", "\"a\"")]), of(None, Some("\"a\""), false));
        assert_eq!(found(&[("accept-ranges", "bytes"), ("last-modified", "then")]), of(None, Some("then"), false));
        assert_eq!(found(&[]), of(None, None, false));
        assert!(found(&[("content-type", "Text/HTML; charset=utf-8")]).is_page);
    }

    #[test]
    fn headers_are_json_and_are_not_printed() {
        let expected = vec![("Authorization".to_owned(), "Bearer x".to_owned())];
        assert_eq!(headers("h-headers", r#"{"Authorization": "Bearer x"}"#).unwrap(), expected);
        assert_eq!(headers("h-headers", "{}").unwrap(), Vec::new());
        for wrong in ["hush", r#"["hush"]"#, r#"{"a": 7}"#, r#"{"a: b\nhush": "x"}"#] {
            let error = headers("h-headers", wrong).unwrap_err();
            assert!(error.message().starts_with("h-headers ") && !error.message().contains("hush"), "{error}");
        }
    }
}
