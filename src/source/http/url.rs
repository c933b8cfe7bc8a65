//! Addresses: `http://host:port/path?query`, path and query encoded.

use std::fmt;
use std::net::IpAddr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::error::{Error, Result};

/// Whom a connection leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    pub https: bool,
    /// A name in lower case or an address, without the brackets of IPv6.
    pub name: String,
    pub port: u16,
}

impl Origin {
    /// When it is an address instead of a name.
    pub fn address(&self) -> Option<IpAddr> {
        self.name.parse().ok()
    }

    /// Whether it is this machine.
    pub fn is_loopback(&self) -> bool {
        self.name == "localhost" || self.address().is_some_and(|address| address.is_loopback())
    }

    /// `name:port`, where the port always stands.
    pub fn authority(&self) -> String {
        let Origin { name, port, .. } = self;
        if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    origin: Origin,
    /// As it was written, for the `Host` header.
    host: String,
    /// Path and query.
    target: String,
}

impl Url {
    /// # Errors
    /// When it is no `http://` or `https://` address with a host.
    pub fn parse(text: &str) -> Result<Url> {
        // What may hold a password is not quoted.
        let quoted = if text.contains(['@', '?']) { "it".to_owned() } else { format!("\"{text}\"") };
        let wrong = || Error::load(format!("{quoted} is no http:// or https:// address"));
        let uri: ::http::Uri = text.parse().map_err(|_| wrong())?;
        let https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or_else(wrong)?;
        let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let host = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host).to_owned();
        let port = match host.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']')) {
            None | Some("") => {
                if https {
                    443
                } else {
                    80
                }
            }
            Some(port) => port.parse().map_err(|_| wrong())?,
        };
        let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        Ok(Url { origin: Origin { https, name, port }, host, target })
    }

    /// The same server with another path and query, which are encoded.
    #[must_use]
    pub fn with_target(&self, target: String) -> Url {
        Url { target, ..self.clone() }
    }

    /// What lies at an encoded path below this address, which may have a path of its own.
    #[must_use]
    pub fn below(&self, path: &str, query: &[(&str, &str)]) -> Url {
        let query = encode_query(query);
        let mark = if query.is_empty() { "" } else { "?" };
        self.with_target(format!("{}{}{mark}{query}", self.path().trim_end_matches('/'), path))
    }

    /// Where a reference in an answer from this address leads (RFC 3986, section 5.2).
    ///
    /// # Errors
    /// When that is no `http://` or `https://` address.
    pub fn join(&self, reference: &str) -> Result<Url> {
        let end_of_scheme = reference.find([':', '/', '?', '#']).unwrap_or(reference.len());
        if reference[end_of_scheme..].starts_with(':') {
            return Url::parse(reference);
        }
        let scheme = if self.origin.https { "https" } else { "http" };
        if reference.starts_with("//") {
            return Url::parse(&format!("{scheme}:{reference}"));
        }
        let path = self.path();
        let target = match reference.chars().next() {
            None | Some('#') => self.target.clone(),
            Some('?') => format!("{path}{reference}"),
            Some('/') => without_dots(reference),
            Some(_) => without_dots(&format!("{}{reference}", &path[..=path.rfind('/').unwrap_or(0)])),
        };
        Url::parse(&format!("{scheme}://{}{target}", self.host))
    }

    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn target(&self) -> &str {
        &self.target
    }

    /// What follows the path, without the parameters that sign an address for a while; empty where nothing is left.
    pub fn query_unsigned(&self) -> String {
        // What signs it, and then goes with that: CloudFront's and older S3's, Azure's.
        const SIGNED: [(&str, &[&str]); 2] = [
            ("signature", &["expires", "awsaccesskeyid", "key-pair-id", "policy"]),
            (
                "sig",
                &[
                    "sv", "ss", "sr", "srt", "sp", "st", "se", "spr", "sip", "skoid", "sktid", "skt", "ske", "sks",
                    "skv",
                ],
            ),
        ];
        let (_, query) = self.target.split_once('?').unwrap_or_default();
        let name = |parameter: &str| parameter.split('=').next().unwrap_or_default().to_ascii_lowercase();
        let has = |signature: &str| query.split('&').any(|parameter| name(parameter) == signature);
        let signs = |parameter: &&str| {
            let name = name(parameter);
            let is_of = |(signature, others): &(&str, &[&str])| {
                name == *signature || (others.contains(&name.as_str()) && has(signature))
            };
            name.starts_with("x-amz-") || name.starts_with("x-goog-") || SIGNED.iter().any(is_of)
        };
        query.split('&').filter(|parameter| !signs(parameter)).collect::<Vec<_>>().join("&")
    }

    /// The path alone, encoded.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// What RFC 3986 calls unreserved stays.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const RESERVED_IN_PATHS: &AsciiSet = &RESERVED.remove(b'/');

/// A path as it is sent, and as S3 wants it signed: each byte encoded once, slashes kept.
pub fn encode_path(path: &str) -> String {
    utf8_percent_encode(path, RESERVED_IN_PATHS).to_string()
}

/// Text as one part of a path, whatever it has in it.
pub fn encode_part(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// A query as it is sent, and as S3 wants it signed: encoded and sorted.
pub fn encode_query(parameters: &[(&str, &str)]) -> String {
    let encode = |(name, value): &(&str, &str)| format!("{}={}", encode_part(name), encode_part(value));
    let mut pairs: Vec<String> = parameters.iter().map(encode).collect();
    pairs.sort();
    pairs.join("&")
}

/// A path, and perhaps a query behind it, whose `.` and `..` have been followed.
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut kept = Vec::new();
    let mut parts = path.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        if part == ".." {
            kept.pop();
        }
        match part {
            "." | ".." if parts.peek().is_none() => kept.push(""),
            "." | ".." => {}
            part => kept.push(part),
        }
    }
    format!("/{}{query}", kept.join("/"))
}

impl fmt::Display for Url {
    /// Without the query, which may hold a signature or a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http{}://{}{}", if self.origin.https { "s" } else { "" }, self.host, self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_resolved() {
        let from = Url::parse("https://hub:8443/a/b?x=1").unwrap();
        let cases = [
            ("http://cdn/f?y#z", "http://cdn", "/f?y"),
            ("//cdn/f", "https://cdn", "/f"),
            ("http://[::1]/f", "http://[::1]", "/f"),
            ("/f?y", "https://hub:8443", "/f?y"),
            ("f", "https://hub:8443", "/a/f"),
            ("../../../f/./g/..", "https://hub:8443", "/f/"),
            ("?y=../z", "https://hub:8443", "/a/b?y=../z"),
            ("", "https://hub:8443", "/a/b?x=1"),
            ("f?at=10:30", "https://hub:8443", "/a/f?at=10:30"),
        ];
        for (reference, server, target) in cases {
            let to = from.join(reference).unwrap();
            let scheme = if to.origin().https { "https" } else { "http" };
            assert_eq!((format!("{scheme}://{}", to.host()).as_str(), to.target()), (server, target), "{reference}");
        }
        for wrong in
            ["ftp://cdn/f", "https://", "https://cdn:99999/f", "http://cdn:x/f", "/a b", "file:/etc/passwd", "/\u{1}"]
        {
            assert!(from.join(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn odd_names_are_encoded_once() {
        assert_eq!(encode_path("/a b/c+d/100%25/ü"), "/a%20b/c%2Bd/100%2525/%C3%BC");
        assert_eq!(encode_query(&[("prefix", "a/b="), ("list-type", "2")]), "list-type=2&prefix=a%2Fb%3D");
        let below = Url::parse("http://HUB/mirror/").unwrap().below("/api/a%20b", &[("path", "x/y")]);
        assert_eq!((below.target(), below.origin().name.as_str()), ("/mirror/api/a%20b?path=x%2Fy", "hub"));
        assert_eq!(below.to_string(), "http://HUB/mirror/api/a%20b");
    }

    proptest::proptest! {
        #[test]
        fn any_reference_is_resolved_or_refused(reference: String) {
            let _ = Url::parse("http://hub/a/b").unwrap().join(&reference);
        }
    }

    #[test]
    fn what_signs_an_address_is_not_part_of_what_it_means() {
        for (query, meaning) in [
            ("", ""),
            ("?a=1&b", "a=1&b"),
            ("?X-Amz-Signature=s&versionId=7&x-amz-date=d", "versionId=7"),
            ("?Expires=1&Signature=s&Key-Pair-Id=k&v=2", "v=2"),
            ("?sv=1&sp=r&sig=s&st=t", ""),
            ("?expires=1&sr=2&token=t", "expires=1&sr=2&token=t"),
        ] {
            assert_eq!(Url::parse(&format!("http://h/m{query}")).unwrap().query_unsigned(), meaning, "{query}");
        }
    }
}
