//! Following redirects, and what only the first server may be told.

use super::{Client, Failure, Origin, Request, Response, Url};

/// Headers for one server alone, such as a token.
pub struct Secrets {
    pub origin: Origin,
    pub headers: Vec<(String, String)>,
}

impl Secrets {
    /// Whether this is that server: the same port of the same host, or its own TLS instead of none.
    fn are_for(&self, origin: &Origin) -> bool {
        let own = &self.origin;
        let with_tls = Origin { https: true, port: 443, name: own.name.clone() };
        own == origin || (!own.https && own.port == 80 && *origin == with_tls)
    }
}

/// Nobody's detours are longer.
const MAX_REDIRECTS: usize = 10;
/// Of the page that says in words where to go.
const MAX_PAGE_BYTES: usize = 64 << 10;

impl Client {
    /// Sends a request, and again to where the answers lead. Once that is another server, the secrets stay behind.
    ///
    /// # Errors
    /// As [`Client::send`], and when the way leads in circles, to plain http or to no address.
    pub fn follow(&self, request: &Request<'_>, secrets: &Secrets) -> Result<Response<'_>, Failure> {
        let mut url = request.url.clone();
        let mut trusted = true;
        for _ in 0..=MAX_REDIRECTS {
            trusted &= secrets.are_for(url.origin());
            let mut headers = request.headers.to_vec();
            if trusted {
                headers.extend(secrets.headers.iter().map(|(name, value)| (name.as_str(), value.clone())));
            }
            let mut response = self.send(&Request { url: &url, headers: &headers, ..*request })?;
            let Some(next) = next(&url, response.status, response.header("location"))? else { return Ok(response) };
            // Read to its end, the connection serves again; when that fails, another one does.
            let _ = response.body.read_all(MAX_PAGE_BYTES);
            url = next;
        }
        Err(Failure::Protocol(format!("more than {MAX_REDIRECTS} redirects")))
    }
}

/// Where an answer leads; `None` when it is the answer.
fn next(from: &Url, status: u16, location: Option<&str>) -> Result<Option<Url>, Failure> {
    let (301 | 302 | 303 | 307 | 308, Some(location)) = (status, location) else { return Ok(None) };
    let nowhere = |_| Failure::Protocol("a redirect to what is no http:// or https:// address".to_owned());
    let to = from.join(location).map_err(nowhere)?;
    if from.origin().https && !to.origin().https {
        return Err(Failure::Protocol(format!("a redirect from https to plain http, {to}")));
    }
    Ok(Some(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn redirects_lead_on_but_not_out_of_tls() {
        let next = |from, status, to| next(&url(from), status, to).map_err(|failure| failure.to_string());
        assert_eq!(next("http://a/x", 302, Some("/y")), Ok(Some(url("http://a/y"))));
        assert_eq!(next("http://a/x", 307, Some("https://b/y")), Ok(Some(url("https://b/y"))));
        assert_eq!(next("http://a/x", 200, Some("/y")), Ok(None));
        assert_eq!(next("http://a/x", 304, Some("/y")), Ok(None));
        assert_eq!(next("http://a/x", 301, None), Ok(None));
        assert!(next("https://a/x", 302, Some("http://a/y?token")).unwrap_err().ends_with("plain http, http://a/y"));
        assert!(next("http://a/x", 302, Some("ftp://a/y")).unwrap_err().contains("no http://"));
    }

    #[test]
    fn secrets_stay_with_their_server() {
        let told = |own: &str, other: &str| {
            Secrets { origin: url(own).origin().clone(), headers: Vec::new() }.are_for(url(other).origin())
        };
        assert!(told("https://hub/a", "https://HUB:443/b"));
        assert!(told("http://hub/a", "https://hub/b"));
        let others = [
            ("https://hub/", "http://hub/"),
            ("https://hub/", "https://hub.evil/"),
            ("https://hub/", "https://cdn.hub/"),
            ("http://hub:1/", "http://hub:2/"),
            ("http://hub:1/", "https://hub/"),
        ];
        for (own, other) in others {
            assert!(!told(own, other), "{own} {other}");
        }
    }
}
