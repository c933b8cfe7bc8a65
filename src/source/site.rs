//! A server that is asked over HTTP: what files on the web, model hubs and tracking servers have in common.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::checksum::Checksum;
use super::http::{self, Client, Failure, Patience, Proxies, Request, Response, Secrets, Trust, Url};
use super::part::Part;
use super::reading::ask;
use super::{Env, RangeReader, RemoteFile, Trouble};
use crate::error::{Error, Result};
use crate::tensor::Excerpt;

/// As S3's are by default.
const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(15), silence: Duration::from_secs(30), whole: Duration::MAX };
/// How often to ask for the same before giving up.
pub const ATTEMPTS: u32 = 3;
/// Lists of a thousand files take a tenth.
const MAX_ANSWER_BYTES: usize = 16 << 20;
const MAX_REFUSAL_BYTES: usize = 64 << 10;

pub struct Site {
    client: Client,
    /// What is read from it, for messages.
    name: String,
    secrets: Secrets,
    meaning: Meaning,
    /// Where redirects led for a path and query, so that not each part of a file asks again.
    places: Mutex<HashMap<String, Url>>,
}

/// What a refusal means to this kind of server, where it has words of its own.
pub type Meaning = fn(&Refusal) -> Option<&'static str>;

/// An answer that is none.
pub struct Refusal {
    pub status: u16,
    /// What the server calls it; empty where it does not.
    pub code: String,
    /// Whether it was told who asks.
    pub authorized: bool,
}

/// The reasons that MLflow gives.
#[derive(Default, Deserialize)]
struct Said {
    #[serde(default)]
    error_code: String,
    #[serde(default)]
    message: String,
}

impl Site {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// When the CA bundle cannot be read.
    pub fn new(name: String, secrets: Secrets, meaning: Meaning, env: Env<'_>) -> Result<Site> {
        // A server without TLS may lead to one with it.
        let trust = Trust::from_env(env);
        Ok(Site {
            client: Client::new(http::tls_config(&trust)?, PATIENCE, Proxies::from_env(env)),
            name,
            secrets,
            meaning,
            places: Mutex::default(),
        })
    }

    pub fn stop(&self) {
        self.client.stop();
    }

    /// An answer of any status.
    pub fn send(
        &self,
        step: &str,
        method: &'static str,
        url: &Url,
        headers: &[(&str, String)],
    ) -> Result<Response<'_>, Trouble> {
        // Sizes are those of files, not of what a server may make of them on the way.
        let mut all = vec![("accept-encoding", "identity".to_owned())];
        all.extend_from_slice(headers);
        let request = Request { method, url, headers: &all, body: "" };
        self.client.follow(&request, &self.secrets).map_err(|failure| self.failed(step, &failure))
    }

    /// An answer of one of these statuses.
    pub fn get(
        &self,
        step: &str,
        url: &Url,
        headers: &[(&str, String)],
        statuses: &[u16],
    ) -> Result<Response<'_>, Trouble> {
        let response = self.send(step, "GET", url, headers)?;
        if statuses.contains(&response.status) { Ok(response) } else { Err(self.refused(step, response)) }
    }

    /// A small answer in JSON, and where the next page of it is.
    ///
    /// # Errors
    /// After as many attempts as make sense.
    pub fn json<T: DeserializeOwned>(&self, step: &str, url: &Url) -> Result<(T, Option<Url>)> {
        ask(ATTEMPTS, || {
            let mut response = self.get(step, url, &[], &[200])?;
            let body = response.body.read_all(MAX_ANSWER_BYTES).map_err(|failure| self.failed(step, &failure))?;
            let wrong = |what: &str| self.trouble(step, &format!("the answer of {url} {what}"), None);
            let content = serde_json::from_slice(&body)
                .map_err(|error| wrong(&format!("is not what was asked for ({error}): is this the right server?")))?;
            let next = response.header("link").and_then(next_page).map(|next| url.join(next));
            Ok((content, next.transpose().map_err(|_| wrong("has a next page that is no address"))?))
        })
    }

    /// Begins to read a range of a file, by an answer with this [`validator`] where there should be one. The checksum is
    /// the whole file's, when that is what is read.
    pub fn read(
        &self,
        url: &Url,
        file: &RemoteFile,
        range: &Range<u64>,
        tag: Option<&str>,
        checksum: Option<Checksum>,
    ) -> Result<Box<dyn RangeReader + '_>, Trouble> {
        let known = self.places().get(url.target()).cloned();
        if let Some(place) = known {
            // An address that was signed for a while fails after it.
            if let Ok((reader, _)) = self.read_at(&place, file, range, tag, checksum.clone()) {
                return Ok(reader);
            }
            self.places().remove(url.target());
        }
        let (reader, place) = self.read_at(url, file, range, tag, checksum)?;
        if place != *url {
            self.places().insert(url.target().to_owned(), place);
        }
        Ok(reader)
    }

    fn places(&self) -> MutexGuard<'_, HashMap<String, Url>> {
        self.places.lock().expect("no thread panics with it")
    }

    /// A reader, and where it reads.
    fn read_at(
        &self,
        url: &Url,
        file: &RemoteFile,
        range: &Range<u64>,
        tag: Option<&str>,
        checksum: Option<Checksum>,
    ) -> Result<(Box<dyn RangeReader + '_>, Url), Trouble> {
        let step = format!("read {} of", file.path);
        let mut headers = Vec::new();
        let whole = *range == (0..file.bytes);
        if !whole {
            headers.push(("range", format!("bytes={}-{}", range.start, range.end - 1)));
            headers.extend(tag.map(|tag| ("if-range", tag.to_owned())));
        }
        let response = self.get(&step, url, &headers, if whole { &[200] } else { &[200, 206] })?;
        if let Some(wrong) = mismatch(&|name| response.header(name), file.bytes, (!whole).then_some(range), tag) {
            return Err(self.trouble(&step, &wrong, None));
        }
        let failed = Box::new(move |failure: &Failure| self.failed(&step, failure));
        let part = Part { body: response.body, left: range.end - range.start, checksum, failed };
        Ok((Box::new(part), response.url))
    }

    /// There was no answer, or not all of it.
    pub fn failed(&self, step: &str, failure: &Failure) -> Trouble {
        self.trouble(step, &failure.to_string(), failure.may_pass().then_some(Duration::ZERO))
    }

    /// The answer was no.
    pub fn refused(&self, step: &str, mut response: Response<'_>) -> Trouble {
        let retry = response.retry();
        let body = response.body.read_all(MAX_REFUSAL_BYTES).unwrap_or_default();
        let said: Said = serde_json::from_slice(&body).unwrap_or_default();
        let header = |name| response.header(name).unwrap_or_default();
        let own = |ours: &str, theirs: String| if ours.is_empty() { theirs } else { ours.to_owned() };
        let code = own(header("x-error-code"), said.error_code);
        let message = own(header("x-error-message"), said.message);
        let refusal = Refusal { status: response.status, code, authorized: !self.secrets.headers.is_empty() };
        let mut text = format!("status {}", refusal.status);
        let is_here = *response.url.origin() == self.secrets.origin;
        let own_meaning = is_here.then(|| (self.meaning)(&refusal)).flatten();
        if !is_here {
            text += &format!(" from {}", response.url);
        }
        if let Some(meaning) = own_meaning.or_else(|| usual_meaning(refusal.status)) {
            text += &format!(": {meaning}");
        }
        if let Some(said) = message.lines().next() {
            text += &format!(": {}", Excerpt(said));
        }
        text += &response.through;
        self.trouble(step, &text, retry)
    }

    pub fn trouble(&self, step: &str, text: &str, retry: Option<Duration>) -> Trouble {
        Trouble { error: Error::load(format!("cannot {step} {}: {text}", self.name)), retry }
    }
}

fn usual_meaning(status: u16) -> Option<&'static str> {
    Some(match status {
        401 | 403 => "access is denied",
        404 | 410 => "it does not exist",
        412 | 416 => REPLACED,
        429 | 503 => "the server is overloaded, also after retries",
        _ => return None,
    })
}

const REPLACED: &str = "the file was replaced while it was being read: load again";

/// What tells whether a file has changed.
pub fn validator<'a>(header: &impl Fn(&str) -> Option<&'a str>) -> Option<&'a str> {
    header("etag").or_else(|| header("last-modified"))
}

/// What is wrong with an answer that should be a file of so many bytes, or a range of it.
fn mismatch<'a>(
    header: &impl Fn(&str) -> Option<&'a str>,
    bytes: u64,
    range: Option<&Range<u64>>,
    tag: Option<&str>,
) -> Option<String> {
    if tag.is_some() && validator(header) != tag {
        return Some(REPLACED.to_owned());
    }
    let expected = range.map_or(bytes, |range| range.end - range.start);
    let has_length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(expected);
    let place = |range: &Range<u64>| format!("bytes {}-{}/{bytes}", range.start, range.end - 1);
    match (range.map(place), header("content-range")) {
        (Some(asked), Some(got)) if asked != got => Some(format!("asked for {asked}, got {got}")),
        (Some(asked), None) => Some(format!("asked for {asked}, got all: the server has no ranges, or another file")),
        _ if has_length != expected => Some(format!("expected {expected} bytes, the answer has {has_length}")),
        _ => None,
    }
}

/// The reference in a `Link` header that leads to the next page (RFC 8288).
fn next_page(links: &str) -> Option<&str> {
    links.split('<').skip(1).find_map(|link| {
        let (target, parameters) = link.split_once('>')?;
        let is_next = |parameter: &str| {
            let (name, value) = parameter.split_once('=').unwrap_or_default();
            let value = value.trim().trim_end_matches(',').trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("rel") && value.split(' ').any(|relation| relation == "next")
        };
        parameters.split(';').any(is_next).then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found() {
        let cases = [
            ("<https://hub/api?cursor=a%3D>; rel=\"next\"", Some("https://hub/api?cursor=a%3D")),
            ("</first>; rel=first, </a,b;c>; title=x; REL=next", Some("/a,b;c")),
            ("</p>; rel=\"prev\", </n>; rel=\"last next\" ", Some("/n")),
            ("</p>; rel=\"prev\"", None),
            ("</p; rel=next", None),
            ("", None),
        ];
        for (links, next) in cases {
            assert_eq!(next_page(links), next, "{links}");
        }
    }

    #[test]
    fn only_the_same_bytes_of_the_same_file_will_do() {
        let range = 5..8;
        let wrong = |headers: &'static [(&str, &str)], range, tag| {
            let header = |name: &str| headers.iter().find(|(own, _)| *own == name).map(|(_, value)| *value);
            mismatch(&header, 10, range, tag)
        };
        let part: &[_] = &[("etag", "\"a\""), ("content-range", "bytes 5-7/10"), ("content-length", "3")];
        assert_eq!(wrong(part, Some(&range), Some("\"a\"")), None);
        assert_eq!(wrong(part, Some(&range), None), None);
        assert_eq!(wrong(part, Some(&range), Some("\"b\"")).as_deref(), Some(REPLACED));
        assert_eq!(wrong(&[("content-length", "10"), ("last-modified", "x")], None, Some("x")), None);
        assert_eq!(wrong(&[], None, None), None, "a body without a length ends where it ends");
        assert_eq!(wrong(&[], None, Some("x")).as_deref(), Some(REPLACED));
        assert!(wrong(&[("content-length", "9")], None, None).unwrap().contains("has 9"));
        assert!(wrong(&[("content-length", "10")], Some(&range), None).unwrap().contains("got all"));
        assert!(wrong(&[("content-range", "bytes 0-2/10")], Some(&range), None).unwrap().contains("got bytes 0-2"));
        assert!(wrong(&[("content-range", "bytes 5-7/11")], Some(&range), None).unwrap().contains("bytes 5-7/11"));
    }
}
