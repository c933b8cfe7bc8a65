//! Proxies that lead out of a private network, by the variables that curl, Go and Python read: `http_proxy`,
//! `https_proxy`, `all_proxy` and `no_proxy`, in small letters or, unless the small ones are set, in capitals.

use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;

use super::{Failure, Origin, Url};
use crate::error::{Error, Result};
use crate::source::Env;

/// Which proxy leads to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// To servers without TLS.
    http: Option<Proxy>,
    /// To those with it.
    https: Option<Proxy>,
    direct: Vec<Direct>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    pub(super) origin: Origin,
    /// The value of `Proxy-Authorization`.
    pub(super) authorization: Option<String>,
    /// What messages call it.
    variable: String,
}

impl std::fmt::Debug for Proxy {
    /// Never prints the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl std::fmt::Display for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.origin.authority(), self.variable)
    }
}

/// Whom no proxy is needed for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Direct {
    Everybody,
    /// A name and all below it, perhaps of one port alone.
    Name(String, Option<u16>),
    /// Addresses that begin with so many bits of this one.
    Network(IpAddr, u32),
}

impl Proxies {
    /// # Errors
    /// When a proxy's address makes no sense, or it is of another kind than `http://`.
    pub fn from_env(env: Env<'_>) -> Result<Proxies> {
        let set = |name: &str| env(name).filter(|value| !value.trim().is_empty());
        let named = |name: &str| {
            let large = name.to_ascii_uppercase();
            set(name).map(|value| (name.to_owned(), value)).or_else(|| Some((large.clone(), set(&large)?)))
        };
        let proxy = |name: &str| {
            let found = named(name).or_else(|| named("all_proxy"));
            found.map(|(variable, value)| Proxy::parse(variable, value.trim())).transpose()
        };
        let (http, https) = (proxy("http_proxy")?, proxy("https_proxy")?);
        let direct = named("no_proxy").map(|(_, list)| list.split(',').filter_map(Direct::parse).collect());
        Ok(Proxies { http, https, direct: direct.unwrap_or_default() })
    }

    /// The one on the way to a server, if any. This machine is never asked for by a detour.
    pub(super) fn to(&self, origin: &Origin) -> Option<&Proxy> {
        let proxy = if origin.https { &self.https } else { &self.http }.as_ref()?;
        let is_direct = origin.is_loopback() || self.direct.iter().any(|direct| direct.is_meant(origin));
        (!is_direct).then_some(proxy)
    }
}

impl Proxy {
    fn parse(variable: String, text: &str) -> Result<Proxy> {
        // Not the text, which may hold a password.
        let wrong = || Error::load(format!("{variable}: no http:// address of a proxy"));
        let address = match text.split_once("://") {
            None => text,
            Some(("http", address)) => address,
            Some((scheme, _)) => {
                return Err(Error::load(format!("{variable}: a proxy of kind {scheme}:// is not known, only http://")));
            }
        };
        let authority = address.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let origin = Url::parse(&format!("http://{host}")).map_err(|_| wrong())?.origin().clone();
        let authorization = user.map(|user| {
            let decoded: Vec<u8> = match user.split_once(':') {
                Some((name, password)) => {
                    percent_decode_str(name).chain(b":".iter().copied()).chain(percent_decode_str(password)).collect()
                }
                None => percent_decode_str(user).chain(b":".iter().copied()).collect(),
            };
            format!("Basic {}", BASE64_STANDARD.encode(decoded))
        });
        Ok(Proxy { origin, authorization, variable })
    }
}

impl Proxy {
    /// A line of a request's head that says who asks, where that has to be said.
    pub(super) fn header(&self) -> String {
        self.authorization.as_ref().map(|value| format!("Proxy-Authorization: {value}\r\n")).unwrap_or_default()
    }

    /// There is no way to it.
    pub(super) fn unreachable(&self, failure: &Failure) -> Failure {
        Failure::Proxy { reason: format!("{self}: {failure}"), may_pass: failure.may_pass() }
    }

    /// Its own answer, instead of the server's.
    pub(super) fn refused(&self, status: u16) -> Failure {
        let meaning = match status {
            407 => ": who asks has to be said, as http://user:password@proxy",
            403 => ": it does not lead there",
            502..=504 => ": it finds no way there",
            _ => "",
        };
        let reason = format!("{self} answers with status {status}{meaning}; what needs no proxy belongs into no_proxy");
        Failure::Proxy { reason, may_pass: matches!(status, 429 | 502..=504) }
    }
}

impl Direct {
    /// `*`, `name`, `.name`, `name:port`, `address` or `address/bits`; `None` where nothing stands.
    fn parse(text: &str) -> Option<Direct> {
        let text = text.trim().trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
        let address = |text: &str| text.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        let bits = |address: &IpAddr| if address.is_ipv4() { 32 } else { 128 };
        if text.is_empty() {
            return None;
        }
        if text == "*" {
            return Some(Direct::Everybody);
        }
        if let Some(address) = address(&text) {
            return Some(Direct::Network(address, bits(&address)));
        }
        if let Some((network, count)) = text.split_once('/')
            && let (Some(address), Ok(count)) = (address(network), count.parse())
        {
            return Some(Direct::Network(address, bits(&address).min(count)));
        }
        let with_port =
            text.rsplit_once(':').and_then(|(name, port)| Some((name.to_owned(), Some(port.parse().ok()?))));
        let (name, port) = with_port.unwrap_or((text, None));
        Some(Direct::Name(name, port))
    }

    fn is_meant(&self, origin: &Origin) -> bool {
        match self {
            Direct::Everybody => true,
            Direct::Name(name, port) => {
                let above = origin.name.strip_suffix(name.as_str());
                let is_below = above.is_some_and(|above| above.is_empty() || above.ends_with('.'));
                is_below && port.is_none_or(|port| port == origin.port)
            }
            Direct::Network(network, bits) => {
                origin.address().is_some_and(|address| first_bits(address, *bits) == first_bits(*network, *bits))
            }
        }
    }
}

/// The kind of an address and its first bits, the others 0.
fn first_bits(address: IpAddr, bits: u32) -> (bool, u128) {
    let (value, width) = match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    (address.is_ipv4(), value.checked_shr(width - bits).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(vars: &[(&str, &str)]) -> Result<Proxies> {
        Proxies::from_env(&|name| vars.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned()))
    }

    fn on_the_way(vars: &[(&str, &str)], url: &str) -> Option<String> {
        let proxies = proxies(vars).unwrap();
        proxies.to(Url::parse(url).unwrap().origin()).map(ToString::to_string)
    }

    #[test]
    fn each_scheme_has_its_variable() {
        let both = [("http_proxy", "http://plain:3128"), ("HTTPS_PROXY", "tls:8080/"), ("https_proxy", "")];
        assert_eq!(on_the_way(&both, "http://hub/").as_deref(), Some("plain:3128 (http_proxy)"));
        assert_eq!(on_the_way(&both, "https://hub/").as_deref(), Some("tls:8080 (HTTPS_PROXY)"));
        assert_eq!(on_the_way(&[("ALL_PROXY", "p")], "https://hub/").as_deref(), Some("p:80 (ALL_PROXY)"));
        assert_eq!(on_the_way(&both[..1], "https://hub/"), None);
    }

    #[test]
    fn some_need_none() {
        let is_direct = |list: &str, url: &str| on_the_way(&[("all_proxy", "p"), ("no_proxy", list)], url).is_none();
        for (list, url) in [
            ("*", "http://hub/"),
            ("hub", "http://HUB/"),
            ("a, .svc ,", "http://minio.models.svc:9000/"),
            ("*.svc", "http://minio.models.svc/"),
            ("minio:9000", "http://minio:9000/"),
            ("10.0.0.0/8", "http://10.96.0.7/"),
            ("10.96.0.7", "https://10.96.0.7:9000/"),
            ("fd00::/8", "http://[fd12::1]/"),
            ("0.0.0.0/0", "http://9.9.9.9/"),
            ("", "http://127.0.0.1:9000/"),
            ("", "http://localhost/"),
            ("", "http://[::1]/"),
        ] {
            assert!(is_direct(list, url), "{list} {url}");
        }
        for (list, url) in [
            ("", "http://hub/"),
            ("hub", "http://github/"),
            ("minio:9000", "http://minio:9001/"),
            ("10.0.0.0/8", "http://11.0.0.1/"),
            ("10.0.0.0/33", "http://10.0.0.1/"),
            ("0.0.0.0/0", "http://[fd12::1]/"),
            ("hub.example/x", "http://hub/"),
        ] {
            assert!(!is_direct(list, url), "{list} {url}");
        }
    }

    #[test]
    fn who_asks_is_told_and_not_printed() {
        let proxy = proxies(&[("http_proxy", "http://a%40b:p%3Aw@p:1")]).unwrap().http.unwrap();
        assert_eq!(proxy.authorization.as_deref(), Some("Basic YUBiOnA6dw=="));
        assert!(!format!("{proxy:?}").contains("p%3Aw") && !format!("{proxy:?}").contains("YUBi"));
        for wrong in ["socks5://u:hush@p", "https://u:hush@p", "http://u:hush@", "http://p:99999"] {
            let message = proxies(&[("http_proxy", wrong)]).unwrap_err().to_string();
            assert!(message.contains("http_proxy: ") && !message.contains("hush"), "{message}");
        }
    }
}
