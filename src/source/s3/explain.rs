//! What an S3 failure means for the person who has to mend it: each cause has its own message.

use std::error::Error as StdError;
use std::fmt::Debug;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::error::Error;

/// What was being done, for the message.
pub struct Operation {
    pub step: &'static str,
    pub bucket: String,
    pub key: String,
    pub endpoint: String,
}

impl Operation {
    pub fn explain<E>(self, error: &SdkError<E, HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + StdError + Debug + Send + Sync + 'static,
    {
        let Operation { step, bucket, key, endpoint } = &self;
        let place = format!("cannot {step} s3://{bucket}/{key} at {endpoint}");
        let status = error.raw_response().map(|response| response.status().as_u16());
        let text = match error {
            SdkError::ServiceError(service) => {
                self.service(service.err().code(), service.err().message(), status.unwrap_or(0))
            }
            SdkError::TimeoutError(_) => stalled(),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => stalled(),
            SdkError::DispatchFailure(failure) => {
                dispatch(failure.as_connector_error().map(|error| error as &(dyn StdError + 'static)))
            }
            SdkError::ResponseError(_) => not_s3(status.unwrap_or(0)),
            _ => "the request could not be made".to_owned(),
        };
        Error::load(format!("{place}: {text}"))
    }

    fn service(&self, code: Option<&str>, message: Option<&str>, status: u16) -> String {
        let Operation { bucket, .. } = self;
        match (code.unwrap_or_default(), status) {
            ("NoSuchBucket", _) => format!("bucket \"{bucket}\" does not exist"),
            ("SignatureDoesNotMatch", _) => "the secret access key is wrong (AWS_SECRET_ACCESS_KEY)".to_owned(),
            ("InvalidAccessKeyId", _) => "the access key is unknown (AWS_ACCESS_KEY_ID)".to_owned(),
            ("ExpiredToken" | "InvalidToken" | "InvalidTokenId", _) => {
                "the session token has expired or is wrong (AWS_SESSION_TOKEN)".to_owned()
            }
            ("RequestTimeTooSkewed", _) => "the clocks of this machine and of the S3 server disagree".to_owned(),
            ("AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException", _)
            | (_, 301) => {
                let said = message.unwrap_or("no reason given");
                format!("the region is wrong (AWS_DEFAULT_REGION): {said}")
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
            ("", status) => not_s3(status),
            (code, status) => {
                format!("status {status} {code}: {}", message.unwrap_or("no reason given"))
            }
        }
    }
}

fn stalled() -> String {
    "no answer in time (S3_READ_TIMEOUT): is the server overloaded or stalled?".to_owned()
}

fn not_s3(status: u16) -> String {
    format!("the answer (status {status}) is not S3's: does the endpoint lead to the S3 API, with the right scheme?")
}

/// Nothing came back: name the layer that failed.
fn dispatch(error: Option<&(dyn StdError + 'static)>) -> String {
    let mut causes = Vec::new();
    let mut next = error;
    while let Some(cause) = next {
        causes.push(cause.to_string());
        if let Some(rustls::Error::InvalidCertificate(reason)) = tls_error(cause) {
            return format!(
                "the server's certificate is not trusted ({reason:?}): name its CA with AWS_CA_BUNDLE, \
                 or set S3_VERIFY_SSL=0 in a lab"
            );
        }
        if let Some(reason) = tls_error(cause) {
            return format!("TLS failed ({reason}): does the endpoint speak https?");
        }
        next = cause.source();
    }
    let chain = causes.join(": ");
    if chain.contains("dns error") || chain.contains("failed to lookup address") {
        return "the endpoint's host name cannot be resolved (AWS_ENDPOINT_URL, S3_ENDPOINT)".to_owned();
    }
    if chain.contains("Connection refused") || chain.contains("tcp connect error") {
        let last = causes.last().map_or("", String::as_str);
        return format!("the endpoint cannot be reached ({last}): is the address right and the server up?");
    }
    format!("the connection failed: {chain}")
}

/// rustls's own error, at whatever depth `io::Error`s are wrapped around it: their `source` skips what they hold.
fn tls_error<'a>(mut error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    while let Some(inner) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        error = inner;
    }
    error.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation() -> Operation {
        Operation { step: "list", bucket: "b".into(), key: "k/".into(), endpoint: "http://minio:9000".into() }
    }

    #[test]
    fn each_cause_has_its_own_message() {
        let cases = [
            (Some("NoSuchBucket"), 404, "bucket \"b\" does not exist"),
            (Some("SignatureDoesNotMatch"), 403, "AWS_SECRET_ACCESS_KEY"),
            (Some("InvalidAccessKeyId"), 403, "AWS_ACCESS_KEY_ID"),
            (Some("AccessDenied"), 403, "access is denied"),
            (None, 403, "access is denied"),
            (Some("PreconditionFailed"), 412, "was replaced"),
            (Some("AuthorizationHeaderMalformed"), 400, "region is wrong"),
            (Some("SlowDown"), 503, "overloaded"),
            (Some("Odd"), 418, "status 418 Odd"),
        ];
        for (code, status, part) in cases {
            let text = operation().service(code, None, status);
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn connection_failures_name_the_layer() {
        let io = |kind, text: &'static str| std::io::Error::new(kind, text);
        let refused = io(std::io::ErrorKind::ConnectionRefused, "Connection refused (os error 111)");
        assert!(dispatch(Some(&refused)).contains("cannot be reached"));
        let dns = io(std::io::ErrorKind::Other, "dns error");
        assert!(dispatch(Some(&dns)).contains("cannot be resolved"));
        let untrusted = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let wrapped = std::io::Error::new(std::io::ErrorKind::InvalidData, untrusted);
        let twice = std::io::Error::other(wrapped); // as hyper-rustls hands it over
        assert!(dispatch(Some(&twice)).contains("AWS_CA_BUNDLE"));
        let plain = std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
        );
        assert!(dispatch(Some(&plain)).contains("does the endpoint speak https"));
    }
}
