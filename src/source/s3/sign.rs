//! AWS Signature Version 4, in headers. Source: AWS, "Signature Version 4 for authenticating requests", whose example
//! is the test.

use std::fmt::Write as _;
use std::time::SystemTime;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::credentials::Keys;
use crate::source::hex;
use crate::source::http::encode_query;

/// What is signed.
pub struct Signable<'a> {
    pub method: &'a str,
    pub host: &'a str,
    /// Encoded.
    pub path: &'a str,
    /// Encoded and sorted.
    pub query: &'a str,
    /// Names in lower case, in order, without `host` and those that signing adds.
    pub headers: &'a [(&'a str, String)],
}

/// The query that signs an address for so many seconds, to be asked for with the headers that are signed with it.
pub fn presign(request: &Signable<'_>, region: &str, keys: &Keys, now: SystemTime, seconds: u64) -> String {
    let time = amz_date(now);
    let scope = format!("{}/{region}/s3/aws4_request", &time[..8]);
    let mut signed: Vec<(&str, &str)> = vec![("host", request.host)];
    signed.extend(request.headers.iter().map(|(name, value)| (*name, value.as_str())));
    let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let (credential, seconds) = (format!("{}/{scope}", keys.access_key_id), seconds.to_string());
    let mut parameters = vec![
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-Credential", &credential),
        ("X-Amz-Date", &time),
        ("X-Amz-Expires", &seconds),
    ];
    parameters.extend(keys.session_token.as_deref().map(|token| ("X-Amz-Security-Token", token)));
    parameters.push(("X-Amz-SignedHeaders", &names));
    let query = encode_query(&parameters);
    let canonical = canonical(&Signable { query: &query, ..*request }, &signed, &names, "UNSIGNED-PAYLOAD");
    format!("{query}&X-Amz-Signature={}", signature(&canonical, &time, region, keys))
}

/// The headers that a signed request has more than others. Its body is empty.
pub fn sign(request: &Signable<'_>, region: &str, keys: &Keys, now: SystemTime) -> Vec<(&'static str, String)> {
    let time = amz_date(now);
    let nothing = hex(&Sha256::digest([]));
    let mut added = vec![("x-amz-content-sha256", nothing.clone()), ("x-amz-date", time.clone())];
    added.extend(keys.session_token.iter().map(|token| ("x-amz-security-token", token.clone())));
    let mut signed: Vec<(&str, &str)> = vec![("host", request.host)];
    signed.extend(request.headers.iter().map(|(name, value)| (*name, value.as_str())));
    signed.extend(added.iter().map(|(name, value)| (*name, value.as_str())));
    signed.sort_unstable();
    let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let signature = signature(&canonical(request, &signed, &names, &nothing), &time, region, keys);
    let (day, access) = (&time[..8], &keys.access_key_id);
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={access}/{day}/{region}/s3/aws4_request, SignedHeaders={names}, Signature={signature}"
    );
    added.push(("authorization", authorization));
    added
}

/// A request as it is signed: with these headers, in order, and the hash of its body.
fn canonical(request: &Signable<'_>, signed: &[(&str, &str)], names: &str, body: &str) -> String {
    let mut canonical = format!("{}\n{}\n{}\n", request.method, request.path, request.query);
    for (name, value) in signed {
        let _ = writeln!(canonical, "{name}:{}", value.trim());
    }
    let _ = write!(canonical, "\n{names}\n{body}");
    canonical
}

fn signature(canonical: &str, time: &str, region: &str, keys: &Keys) -> String {
    let day = &time[..8];
    let scope = format!("{day}/{region}/s3/aws4_request");
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let key = [day, region, "s3", "aws4_request"]
        .iter()
        .fold(format!("AWS4{}", keys.secret_access_key).into_bytes(), |key, part| mac(&key, part));
    hex(&mac(&key, &to_sign))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("keys of any length will do");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// `20130524T000000Z`.
fn amz_date(now: SystemTime) -> String {
    humantime::format_rfc3339_seconds(now).to_string().replace(['-', ':'], "")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::source::http::encode_path;

    /// "Authenticating requests: using query parameters" of AWS's documentation.
    #[test]
    fn the_signed_address_of_the_documentation() {
        let keys = Keys {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            session_token: None,
        };
        let (host, path) = ("examplebucket.s3.amazonaws.com", "/test.txt");
        let request = Signable { method: "GET", host, path, query: "", headers: &[] };
        let now = UNIX_EPOCH + Duration::from_hours(380_376);
        assert_eq!(
            presign(&request, "us-east-1", &keys, now, 86_400),
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2F\
             aws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&\
             X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        );
    }

    /// "Example: GET Object" of AWS's documentation.
    #[test]
    fn the_signature_of_the_documentation() {
        let keys = Keys {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            session_token: None,
        };
        let request = Signable {
            method: "GET",
            host: "examplebucket.s3.amazonaws.com",
            path: &encode_path("/test.txt"),
            query: "",
            headers: &[("range", "bytes=0-9".to_owned())],
        };
        let now = UNIX_EPOCH + Duration::from_hours(380_376);
        let added = sign(&request, "us-east-1", &keys, now);
        let (_, authorization) = added.last().unwrap();
        assert!(
            authorization.ends_with("Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
            "{authorization}"
        );
    }
}
