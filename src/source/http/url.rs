//! Addresses: `http://host:port/path?query`, path and query encoded.

use std::fmt;

use crate::error::{Error, Result};

/// Whom a connection leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    pub https: bool,
    /// A name or an address, without the brackets of IPv6.
    pub name: String,
    pub port: u16,
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
        let wrong = || Error::load(format!("\"{text}\" is no http:// or https:// address"));
        let uri: ::http::Uri = text.parse().map_err(|_| wrong())?;
        let https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or_else(wrong)?;
        let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
        let host = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host).to_owned();
        let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        Ok(Url { origin: Origin { https, name, port }, host, target })
    }

    /// The same server with another path and query, which are encoded.
    #[must_use]
    pub fn with_target(&self, target: String) -> Url {
        Url { target, ..self.clone() }
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
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http{}://{}{}", if self.origin.https { "s" } else { "" }, self.host, self.target)
    }
}
