//! Proxies that lead out of a private network, by the variables that curl, Go and Python read: `http_proxy`,
//! `https_proxy`, `all_proxy` and `no_proxy`, in small letters or, unless the small ones are set, in capitals.

use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;

use super::{Failure, Origin, Url};
use crate::source::Env;

/// Which proxy leads to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// To servers without TLS. What makes no sense only matters to whoever needs it.
    http: Option<Result<Proxy, String>>,
    /// To those with it.
    https: Option<Result<Proxy, String>>,
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
    /// As the environment names them.
    pub fn from_env(env: Env<'_>) -> Proxies {
        let named = |name: &str| {
            let large = name.to_ascii_uppercase();
            env(name).map(|value| (name.to_owned(), value)).or_else(|| Some((large.clone(), env(&large)?)))
        };
        let proxy = |name: &str| {
            let (variable, value) = named(name).or_else(|| named("all_proxy"))?;
            // An empty one in small letters undoes the one in capitals.
            (!value.trim().is_empty()).then(|| Proxy::parse(variable, value.trim()))
        };
        let direct = named("no_proxy").map(|(_, list)| list.split(',').filter_map(Direct::parse).collect());
        Proxies { http: proxy("http_proxy"), https: proxy("https_proxy"), direct: direct.unwrap_or_default() }
    }

    /// The one on the way to a server, if any. This machine is never asked for by a detour.
    ///
    /// # Errors
    /// When its address makes no sense, or it is of another kind than `http://`.
    pub(super) fn to(&self, origin: &Origin) -> Result<Option<&Proxy>, Failure> {
        let proxy = if origin.https { &self.https } else { &self.http };
        let Some(proxy) = proxy else { return Ok(None) };
        if origin.is_loopback() || self.direct.iter().any(|direct| direct.is_meant(origin)) {
            return Ok(None);
        }
        let failed = |reason: &String| Failure::Proxy { reason: reason.clone(), may_pass: false };
        proxy.as_ref().map(Some).map_err(failed)
    }
}

impl Proxy {
    /// # Errors
    /// As text.
    fn parse(variable: String, text: &str) -> Result<Proxy, String> {
        let address = match text.split_once("//") {
            None => text,
            Some(("http:" | "", address)) => address,
            // What is no kind may be a password.
            Some((scheme, _)) => {
                let kind =
                    scheme.strip_suffix(':').filter(|kind| kind.bytes().all(|byte| byte.is_ascii_alphanumeric()));
                let kind = kind.map(|kind| format!(" of kind {kind}://")).unwrap_or_default();
                return Err(format!("of {variable} is an address{kind}, expected http://"));
            }
        };
        let (user, host) = match address.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, address),
        };
        let host = host.split(['/', '?', '#']).next().unwrap_or_default();
        // Not the text, which may hold a password.
        let wrong = |_| format!("of {variable} has no http:// address");
        let origin = Url::parse(&format!("http://{host}")).map_err(wrong)?.origin().clone();
        let authorization = user.map(basic);
        Ok(Proxy { origin, authorization, variable })
    }

    /// A line of a request's head that says who asks, where that has to be said.
    pub(super) fn header(&self) -> String {
        self.authorization.as_ref().map(|value| format!("Proxy-Authorization: {value}\r\n")).unwrap_or_default()
    }

    /// There is no way to it, or it does not answer.
    pub(super) fn failed(&self, failure: &Failure) -> Failure {
        Failure::Proxy { reason: format!("{self}: {failure}"), may_pass: failure.may_pass() }
    }

    /// Its own answer, instead of the server's.
    pub(super) fn refused(&self, status: u16) -> Failure {
        let meaning = match status {
            407 if self.authorization.is_some() => ": the user or the password is wrong",
            407 => ": who asks has to be said, as http://user:password@proxy",
            403 => ": it does not lead there",
            502..=504 => ": it finds no way there",
            _ => "",
        };
        let reason = format!("{self} answers with status {status}{meaning}; what needs no proxy belongs into no_proxy");
        Failure::Proxy { reason, may_pass: matches!(status, 429 | 502..=504) }
    }
}

/// The value of a header that says `user:password`, as it is written in front of an address.
pub fn basic(user: &str) -> String {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let (name, password) = (percent_decode_str(name), percent_decode_str(password));
    let decoded: Vec<u8> = name.chain(b":".iter().copied()).chain(password).collect();
    format!("Basic {}", BASE64_STANDARD.encode(decoded))
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

    fn proxies(vars: &[(&str, &str)]) -> Proxies {
        Proxies::from_env(&|name| vars.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned()))
    }

    fn on_the_way(vars: &[(&str, &str)], url: &str) -> Option<String> {
        proxies(vars).to(Url::parse(url).unwrap().origin()).unwrap().map(ToString::to_string)
    }

    #[test]
    fn each_scheme_has_its_variable() {
        let both = [("http_proxy", "//plain:3128"), ("HTTPS_PROXY", "tls:8080/")];
        assert_eq!(on_the_way(&both, "http://hub/").as_deref(), Some("plain:3128 (http_proxy)"));
        assert_eq!(on_the_way(&both, "https://hub/").as_deref(), Some("tls:8080 (HTTPS_PROXY)"));
        assert_eq!(on_the_way(&[("ALL_PROXY", "p")], "https://hub/").as_deref(), Some("p:80 (ALL_PROXY)"));
        assert_eq!(on_the_way(&both[..1], "https://hub/"), None);
        assert_eq!(on_the_way(&[("HTTP_PROXY", "p"), ("http_proxy", "")], "http://hub/"), None);
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
        let proxy = proxies(&[("http_proxy", "http://a%40b:p%3A#w@p:1")]).http.unwrap().unwrap();
        assert_eq!(proxy.authorization.as_deref(), Some("Basic YUBiOnA6I3c="));
        assert!(!format!("{proxy:?}").contains("p%3A") && !format!("{proxy:?}").contains("YUBi"));
        let (plain, tls) = (Url::parse("http://hub/").unwrap(), Url::parse("https://hub/").unwrap());
        for wrong in ["socks5://u:hush@p", "https://u:hush@p", "http://u:hush@", "http://p:99999"] {
            let proxies = proxies(&[("http_proxy", wrong)]);
            let message = proxies.to(plain.origin()).unwrap_err().to_string();
            assert!(message.contains("http_proxy") && !message.contains("hush"), "{message}");
            assert_eq!(proxies.to(tls.origin()).unwrap(), None);
        }
    }
}
