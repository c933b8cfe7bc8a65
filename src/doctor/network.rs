//! Whether an HTTP server can be reached, and which layer on the way is at fault where it cannot.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::{Finding, State};
use crate::source::http::{self, Client, Failure, Patience, Proxies, Request, Trust, Url};

const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(5), silence: Duration::from_secs(10), whole: Duration::from_secs(20) };

/// On the way to an answer, in this order.
const LAYERS: [&str; 4] = ["dns", "connect", "tls", "http"];

/// Asks for a page there, whatever it answers; says how far that came. The last one has failed, if any.
pub fn reach(of: &str, url: &Url, trust: &Trust, proxies: &Proxies) -> Vec<Finding> {
    let of = format!("{of} ({})", url.origin().authority());
    let tls = match http::tls_config(trust) {
        Ok(tls) => tls,
        Err(error) => {
            let advice = "the file of certificates that the environment names is the one to mend: AWS_CA_BUNDLE, or \
                          caBundleConfigMapName of KServe's configuration";
            return vec![Finding::failed("tls", of, error.message(), advice)];
        }
    };
    let client = Client::new(tls, PATIENCE, proxies.clone());
    let request = Request { method: "GET", url, headers: &[], body: "" };
    let (last, end) = match client.send(&request) {
        Ok(response) => ("http", Finding::ok("http", &of, format!("answers, with status {}", response.status))),
        Err(failure) => {
            let (layer, advice) = at_fault(&failure, url);
            (layer, Finding::failed(layer, &of, failure.to_string(), &advice))
        }
    };
    let before =
        LAYERS.into_iter().take_while(|layer| *layer != last).filter(|layer| *layer != "tls" || url.origin().https);
    let passed = |layer: &'static str| Finding::ok(layer, &of, seen(layer, url));
    // A proxy resolves names and connects by itself.
    if last == "proxy" { vec![end] } else { before.map(passed).chain([end]).collect() }
}

/// Whether somebody listens there, whatever he speaks.
pub fn connect(of: &str, url: &Url) -> Vec<Finding> {
    let of = format!("{of} ({})", url.origin().authority());
    let failed = |failure: &Failure| {
        let (layer, advice) = at_fault(failure, url);
        Finding::failed(layer, &of, failure.to_string(), &advice)
    };
    let addresses = match url.origin().authority().to_socket_addrs() {
        Ok(addresses) => addresses,
        Err(error) => return vec![failed(&Failure::Name(error))],
    };
    let tried = addresses.map(|address| TcpStream::connect_timeout(&address, PATIENCE.connect));
    // Of several addresses one will do.
    let end = match tried.reduce(Result::or) {
        Some(Err(error)) => failed(&Failure::Connect(error)),
        _ => Finding::ok("connect", &of, seen("connect", url)),
    };
    vec![Finding::ok("dns", &of, seen("dns", url)), end]
}

fn seen(layer: &str, url: &Url) -> String {
    let addresses = || {
        let addresses =
            url.origin().authority().to_socket_addrs().map(|found| found.map(|address| address.ip().to_string()));
        addresses.map_or_else(|_| "a proxy resolves it".to_owned(), |found| found.collect::<Vec<_>>().join(", "))
    };
    match layer {
        "dns" => addresses(),
        "tls" => "its certificate is trusted".to_owned(),
        _ => "somebody listens".to_owned(),
    }
}

/// The layer, and what to do.
fn at_fault(failure: &Failure, url: &Url) -> (&'static str, String) {
    let port = url.origin().port;
    match failure {
        Failure::Name(_) => (
            "dns",
            "services of a cluster are NAME.NAMESPACE.svc: does that service exist, and may this pod ask kube-dns (port 53, UDP \
             and TCP, of a NetworkPolicy's egress)?"
                .to_owned(),
        ),
        Failure::Connect(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => (
            "connect",
            format!("the host is there, and nobody listens at port {port}: is the port right, and are the service's pods ready?"),
        ),
        Failure::Connect(_) => (
            "connect",
            format!("nothing comes back from port {port}: a NetworkPolicy's egress or a firewall on the way, or no route"),
        ),
        Failure::Tls(_) => (
            "tls",
            "trust the authority that signed its certificate: AWS_CA_BUNDLE, or the secret's annotation \
             serving.kserve.io/s3-cabundle; or the endpoint's scheme is http"
                .to_owned(),
        ),
        Failure::Proxy { .. } => {
            ("proxy", "http_proxy, https_proxy and no_proxy say which way leads there; inside a cluster mostly none".to_owned())
        }
        _ => ("http", format!("who listens at port {port} does not speak {}: is the scheme right?", scheme(url))),
    }
}

fn scheme(url: &Url) -> &'static str {
    if url.origin().https { "HTTPS" } else { "HTTP" }
}

/// Whether all of it works.
pub fn is_well(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.state != State::Failed)
}
