//! What an S3 failure means for the person who has to mend it: each cause has its own message.

use std::time::Duration;

use super::lender::Signer;
use super::xml;
use crate::error::Error;
use crate::source::Trouble;
use crate::source::http::{Failure, Response};

/// What was being done, for the message.
pub struct Operation<'a> {
    pub step: &'static str,
    pub bucket: &'a str,
    pub key: &'a str,
    pub endpoint: &'a str,
    pub signer: Option<&'a Signer>,
}

/// The step that sends HEAD.
pub const LOOK_UP: &str = "look up";

/// What stores answer to keys that they do not know, or know no longer.
const OF_KEYS: [&str; 4] = ["InvalidAccessKeyId", "ExpiredToken", "InvalidToken", "InvalidTokenId"];

/// Errors are this long; a page that is no error may be longer.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// The layer that a refusal is of, beside the message, which says it to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtFault(pub &'static str);

impl AtFault {
    fn of(code: &str, status: u16) -> AtFault {
        AtFault(match (code, status) {
            ("NoSuchBucket", _) => "bucket",
            ("SignatureDoesNotMatch", _) => "credentials",
            (code, _) if OF_KEYS.contains(&code) => "credentials",
            ("RequestTimeTooSkewed", _) => "clock",
            ("AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException", _)
            | (_, 301) => "region",
            ("AccessDenied", _) | (_, 401 | 403) => "permission",
            _ => "store",
        })
    }
}

impl std::fmt::Display for AtFault {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}

impl std::error::Error for AtFault {}

impl Operation<'_> {
    /// There was no answer.
    pub fn failed(&self, failure: &Failure) -> Trouble {
        self.trouble(&unanswered(failure), failure.may_pass().then_some(Duration::ZERO))
    }

    /// The answer was no.
    pub fn refused(&self, response: &mut Response<'_>) -> Trouble {
        let status = response.status;
        let retry = response.retry();
        let region = response.header("x-amz-bucket-region").map(str::to_owned);
        let body = response.body.read_all(MAX_ERROR_BYTES).unwrap_or_default();
        let said = xml::error(&String::from_utf8_lossy(&body));
        let retry = retry.or((said.code == "RequestTimeout").then_some(Duration::ZERO));
        let meaning = self.service(&said.code, &said.message, status, region.as_deref());
        // Keys that are lent may have been replaced by others.
        let is_of_keys = OF_KEYS.contains(&said.code.as_str());
        let retry = retry.or_else(|| self.signer.filter(|_| is_of_keys)?.refused());
        let lender = self.signer.and_then(Signer::lender).filter(|_| matches!(status, 400 | 401 | 403));
        let lender = lender.map(|lender| format!(" ({lender})")).unwrap_or_default();
        let Trouble { error, retry } = self.trouble(&format!("{meaning}{lender}{}", response.through), retry);
        Trouble { error: error.with_source(AtFault::of(&said.code, status)), retry }
    }

    /// The answer is not of the object as it was listed.
    pub fn other_length(&self, expected: u64, length: u64) -> Trouble {
        self.trouble(&format!("expected {expected} bytes, the answer has {length}"), None)
    }

    /// The list does not come to its end.
    pub fn endless(&self) -> Trouble {
        self.trouble("page after page has no object: is this S3's API?", None)
    }

    /// The answer makes no sense; `through` names the proxy that it may be of.
    pub fn not_s3(&self, status: u16, through: &str) -> Trouble {
        self.trouble(&format!("{}{through}", not_s3(status)), None)
    }

    fn trouble(&self, text: &str, retry: Option<Duration>) -> Trouble {
        let Operation { step, bucket, key, endpoint, .. } = self;
        Trouble { error: Error::load(format!("cannot {step} s3://{bucket}/{key} at {endpoint}: {text}")), retry }
    }

    fn service(&self, code: &str, message: &str, status: u16, region: Option<&str>) -> String {
        let said = if message.is_empty() { "no reason given" } else { message };
        let Operation { bucket, .. } = self;
        let is_lent = self.signer.is_some_and(|signer| signer.lender().is_some());
        let variable = |name: &str| if is_lent { String::new() } else { format!(" ({name})") };
        match (code, status) {
            ("NoSuchBucket", _) => format!("bucket \"{bucket}\" does not exist"),
            ("SignatureDoesNotMatch", _) => {
                format!("the secret access key is wrong{}", variable("AWS_SECRET_ACCESS_KEY"))
            }
            ("InvalidAccessKeyId", _) => format!("the access key is unknown{}", variable("AWS_ACCESS_KEY_ID")),
            ("ExpiredToken" | "InvalidToken" | "InvalidTokenId", _) => {
                format!("the session token has expired or is wrong{}", variable("AWS_SESSION_TOKEN"))
            }
            ("RequestTimeTooSkewed", _) => "the clocks of this machine and of the S3 server disagree".to_owned(),
            ("AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException", _)
            | (_, 301) => {
                let right = region.map(|region| format!(", the bucket is in {region}")).unwrap_or_default();
                format!("the region is wrong (AWS_DEFAULT_REGION){right}: {said}")
            }
            ("PreconditionFailed", _) | (_, 412) => {
                "the object was replaced while it was being read: load again".to_owned()
            }
            ("NoSuchKey", _) => "the object does not exist".to_owned(),
            ("SlowDown" | "ServiceUnavailable", _) | (_, 429 | 503) => {
                "the S3 server is overloaded, also after retries".to_owned()
            }
            ("AccessDenied", _) | (_, 403) => {
                "access is denied: the credentials are wrong or lack the right to list and read".to_owned()
            }
            // Answers to HEAD have no body.
            ("", status) if self.step == LOOK_UP => format!("status {status}, for which HEAD gives no reason"),
            ("", status) => not_s3(status),
            (code, status) => {
                format!("status {status} {code}: {said}")
            }
        }
    }
}

fn not_s3(status: u16) -> String {
    format!("the answer (status {status}) is not S3's: does the endpoint lead to the S3 API, with the right scheme?")
}

/// Nothing came back: name the layer that failed, and S3's variables where they matter.
fn unanswered(failure: &Failure) -> String {
    match failure {
        Failure::Name(_) => "the endpoint's host name cannot be resolved (AWS_ENDPOINT_URL, S3_ENDPOINT)".to_owned(),
        Failure::Connect(error) => {
            format!("the endpoint cannot be reached ({error}): is the address right and the server up?")
        }
        Failure::Tls(rustls::Error::InvalidCertificate(reason)) => format!(
            "the server's certificate is not trusted ({reason:?}): name its CA with AWS_CA_BUNDLE, or set \
             S3_VERIFY_SSL=0 in a lab"
        ),
        Failure::Silence => "no answer in time (S3_READ_TIMEOUT): is the server overloaded or stalled?".to_owned(),
        Failure::Protocol(what) => {
            format!("{what}: does the endpoint lead to the S3 API, with the right scheme?")
        }
        Failure::Tls(_) | Failure::Closed | Failure::Io(_) | Failure::Proxy { .. } | Failure::Stopped => {
            failure.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation() -> Operation<'static> {
        Operation { step: "list", bucket: "b", key: "k/", endpoint: "http://minio:9000", signer: None }
    }

    #[test]
    fn each_cause_has_its_own_message() {
        let cases = [
            ("NoSuchBucket", 404, "bucket \"b\" does not exist"),
            ("SignatureDoesNotMatch", 403, "AWS_SECRET_ACCESS_KEY"),
            ("InvalidAccessKeyId", 403, "AWS_ACCESS_KEY_ID"),
            ("AccessDenied", 403, "access is denied"),
            ("", 403, "access is denied"),
            ("PreconditionFailed", 412, "was replaced"),
            ("AuthorizationHeaderMalformed", 400, "region is wrong"),
            ("SlowDown", 503, "overloaded"),
            ("Odd", 418, "status 418 Odd"),
        ];
        for (code, status, part) in cases {
            let text = operation().service(code, "", status, None);
            assert!(text.contains(part), "{text}");
        }
        let layers = cases.map(|(code, status, _)| AtFault::of(code, status).0);
        assert_eq!(layers[..6], ["bucket", "credentials", "credentials", "permission", "permission", "store"]);
        assert_eq!(layers[6..], ["region", "store", "store"]);
    }

    #[test]
    fn connection_failures_name_the_layer() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "Connection refused (os error 111)");
        let untrusted = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let twice = std::io::Error::other(std::io::Error::new(std::io::ErrorKind::InvalidData, untrusted));
        let plain = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        let plain = std::io::Error::new(std::io::ErrorKind::InvalidData, plain);
        let cases = [
            (Failure::Connect(refused), true, "cannot be reached"),
            (Failure::Name(std::io::Error::other("no such host")), false, "cannot be resolved"),
            (Failure::from(twice), false, "AWS_CA_BUNDLE"),
            (Failure::from(plain), false, "does the server speak https"),
            (Failure::from(std::io::Error::from(std::io::ErrorKind::WouldBlock)), true, "S3_READ_TIMEOUT"),
        ];
        for (failure, may_pass, part) in cases {
            let trouble = operation().failed(&failure);
            assert!(trouble.error.message().contains(part), "{}", trouble.error);
            assert_eq!(trouble.retry.is_some(), may_pass, "{}", trouble.error);
        }
    }
}
