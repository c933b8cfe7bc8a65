//! Where a server is asked: a URL in its parts.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

#[derive(Clone)]
pub struct Address {
    /// As it stands in the URL: gateways route by it.
    pub authority: String,
    pub socket: SocketAddr,
    /// What each path begins with; empty, or with a slash before it and none behind it.
    pub prefix: String,
    pub tls: Option<Tls>,
}

/// Of `https`.
#[derive(Clone)]
pub struct Tls {
    pub connector: TlsConnector,
    pub name: ServerName<'static>,
}

impl Address {
    /// `http://HOST[:PORT][/PREFIX]`, `https://...`, or without a scheme, which is http.
    ///
    /// `protocol` is that which is spoken over TLS, by its name there: `http/1.1` or `h2`.
    pub fn parse(url: &str, protocol: &str) -> Result<Address> {
        let (is_tls, rest) = match url.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some((scheme, rest)) => {
                ensure!(scheme == "http", "{url}: http:// and https:// are known, not {scheme}://");
                (false, rest)
            }
            None => (false, url),
        };
        ensure!(!rest.contains(['?', '#', '@']), "{url}: only a host, a port and a path can be named");
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_matches('/');
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !authority.ends_with(']') => {
                (host, port.parse().with_context(|| format!("{url}: \"{port}\" is no port"))?)
            }
            _ => (authority, if is_tls { 443 } else { 80 }),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let mut sockets = (host, port).to_socket_addrs().with_context(|| format!("{url}: who is {host}?"))?;
        Ok(Address {
            authority: authority.to_owned(),
            socket: sockets.next().with_context(|| format!("{url}: {host} has no address"))?,
            prefix: if path.is_empty() { String::new() } else { format!("/{path}") },
            tls: if is_tls { Some(Tls::new(host, protocol)?) } else { None },
        })
    }

    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

impl Tls {
    /// Trusts whom this system trusts, or the certificates in the file that SSL_CERT_FILE names.
    fn new(host: &str, protocol: &str) -> Result<Tls> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let name = ServerName::try_from(host.to_owned()).with_context(|| format!("{host} is no name of a server"))?;
        Ok(Tls { connector: TlsConnector::from(Arc::new(config)), name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> (String, String, String, bool) {
        let Address { authority, socket, prefix, tls } = Address::parse(url, "h2").unwrap();
        (authority, socket.to_string(), prefix, tls.is_some())
    }

    #[test]
    fn a_url_is_taken_apart() {
        for (url, authority, socket, prefix, is_tls) in [
            ("http://127.0.0.1", "127.0.0.1", "127.0.0.1:80", "", false),
            ("127.0.0.1:8001", "127.0.0.1:8001", "127.0.0.1:8001", "", false),
            ("http://127.0.0.1:81/", "127.0.0.1:81", "127.0.0.1:81", "", false),
            ("http://127.0.0.1:81/a/b/", "127.0.0.1:81", "127.0.0.1:81", "/a/b", false),
            ("https://127.0.0.1", "127.0.0.1", "127.0.0.1:443", "", true),
            ("http://[::1]", "[::1]", "[::1]:80", "", false),
            ("https://[::1]:8443/x", "[::1]:8443", "[::1]:8443", "/x", true),
        ] {
            assert_eq!(parsed(url), (authority.to_owned(), socket.to_owned(), prefix.to_owned(), is_tls), "{url}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused_by_name() {
        for (url, reason) in [
            ("http://127.0.0.1:port", "\"port\" is no port"),
            ("ftp://127.0.0.1", "not ftp://"),
            ("http://127.0.0.1/a?b", "only a host"),
            ("http://user@127.0.0.1", "only a host"),
            ("http://", "who is"),
        ] {
            let error = Address::parse(url, "h2").err().unwrap().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
