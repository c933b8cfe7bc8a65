//! The environment that KServe gives to whoever reads S3, resolved and checked.
//! Source: kserve `pkg/credentials/s3/s3_secret.go` and `python/storage/kserve_storage/kserve_storage.py`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use super::credentials::{self, Credentials};
use super::profile::Profile;
use crate::error::{Error, Result};
use crate::source::Env;
use crate::source::http::{Patience, Proxies, Trust, Url, named_bundle};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// With scheme; `None` is AWS itself.
    pub endpoint: Option<String>,
    /// AWS's own.
    pub aws: String,
    pub region: String,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
    /// Whether the server's certificate is checked.
    pub verify_tls: bool,
    /// The roots of trust instead of the system's, PEM, and the variable that named them.
    pub ca_bundle: Option<(&'static str, PathBuf)>,
    pub credentials: Credentials,
    pub proxies: Proxies,
    pub connect_timeout: Duration,
    pub read_timeout: Duration,
    pub max_attempts: u32,
    /// Whether an `ETag` that looks like the content's MD5 is taken for it, where no checksum was stored.
    pub verify_etag: bool,
}

impl Settings {
    /// Whose certificates are trusted on the way to the store.
    pub fn trust(&self, store: &Url) -> Trust {
        if store.origin().https && !self.verify_tls { Trust::Anyone } else { self.trust_of_lender(store) }
    }

    /// As [`trust`](Self::trust), to whoever is told a token: never just anyone.
    pub fn trust_of_lender(&self, lender: &Url) -> Trust {
        match &self.ca_bundle {
            _ if !lender.origin().https => Trust::Nobody,
            Some((variable, path)) => Trust::Bundle { variable, path: path.clone() },
            None => Trust::System,
        }
    }

    pub fn patience(&self) -> Patience {
        Patience { connect: self.connect_timeout, silence: self.read_timeout, whole: Duration::MAX }
    }
}

/// Reads the settings from an environment.
///
/// # Errors
/// When a number, the endpoint or a profile does not parse, or credentials are missing without
/// `awsAnonymousCredential`; most problems are reported at once.
pub fn from_env(env: Env<'_>) -> Result<Settings> {
    let mut problems = Vec::new();
    let spec = storage_spec(env)?;
    let profile = Profile::from_env(env)?;
    let get_own = |name: &str| spec.get(name).cloned().or_else(|| env(name)).filter(|value| !value.is_empty());
    let get = |name: &str| {
        let of_profile =
            || PROFILE_FIELDS.iter().find(|(_, own)| *own == name).and_then(|(field, _)| profile.get(field));
        get_own(name).or_else(of_profile)
    };
    // As KServe has it: some are on unless they are switched off, others off unless they are switched on.
    let unless_off =
        |name: &str| !get(name).is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "0" | "false"));
    let when_on = |name: &str| get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let mut number = |name: &str, default: u32| match get(name).map(|value| (value.trim().parse::<u32>(), value)) {
        None => default,
        Some((Ok(number), _)) => number.max(1),
        Some((_, value)) => {
            problems.push(format!("{name}: \"{value}\" is not a whole number"));
            default
        }
    };
    let connect_timeout = Duration::from_secs(number("S3_CONNECT_TIMEOUT", 15).into());
    let read_timeout = Duration::from_secs(number("S3_READ_TIMEOUT", 30).into());
    let max_attempts = number("S3_MAX_ATTEMPTS", 3);

    // AWS_ENDPOINT_URL carries its scheme; S3_ENDPOINT may not, and then S3_USE_HTTPS decides.
    let endpoint = get("AWS_ENDPOINT_URL").or_else(|| {
        get("S3_ENDPOINT").map(|endpoint| match endpoint.contains("://") {
            true => endpoint,
            false if unless_off("S3_USE_HTTPS") => format!("https://{endpoint}"),
            false => format!("http://{endpoint}"),
        })
    });
    let of_s3 = || get("AWS_ENDPOINT_URL_S3").filter(|_| !when_on("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"));
    let endpoint = endpoint.or_else(of_s3);
    // It would be quoted in messages.
    if endpoint.as_deref().is_some_and(|endpoint| endpoint.contains('?')) {
        problems.push("no query in the S3 endpoint: buckets and keys are added to it".to_owned());
    } else if endpoint.as_deref().is_some_and(|endpoint| endpoint.contains('@')) {
        problems.push(
            "no credentials in the S3 endpoint: give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned(),
        );
    } else if let Some(endpoint) = &endpoint {
        let parsed = endpoint.parse::<::http::Uri>();
        if !parsed.is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()) {
            problems.push(format!("the S3 endpoint \"{endpoint}\" is no http:// or https:// address"));
        }
    }
    // boto3 knows AWS_DEFAULT_REGION alone, others AWS_REGION.
    let own_region = get_own("AWS_DEFAULT_REGION").or_else(|| get_own("AWS_REGION"));
    let region = own_region.or_else(|| profile.get("region")).unwrap_or_else(|| "us-east-1".to_owned());
    let credentials = if when_on("awsAnonymousCredential") {
        Credentials::Anonymous
    } else {
        credentials::find(&get, &profile, &region).unwrap_or_else(|missing| {
            problems.push(missing);
            Credentials::Anonymous
        })
    };
    if !problems.is_empty() {
        return Err(Error::load(problems.join("; ")));
    }
    // AWS's address of before there were regions only knows the buckets of one.
    let endpoint = endpoint.filter(|endpoint| endpoint.trim_end_matches('/') != "https://s3.amazonaws.com");
    let accelerated = when_on("S3_USE_ACCELERATE");
    let endpoint = if accelerated {
        endpoint.or_else(|| Some("https://s3-accelerate.amazonaws.com".to_owned()))
    } else {
        endpoint
    };
    let in_host = when_on("S3_USER_VIRTUAL_BUCKET") || accelerated;
    let aws = aws_endpoint(&region, when_on("AWS_USE_FIPS_ENDPOINT"), when_on("AWS_USE_DUALSTACK_ENDPOINT"));
    Ok(Settings {
        // KServe spells it S3_USER_VIRTUAL_BUCKET; MinIO and its like want the bucket in the path.
        path_style: endpoint.is_some() && !in_host,
        endpoint,
        aws,
        region,
        verify_tls: unless_off("S3_VERIFY_SSL"),
        ca_bundle: named_bundle(get),
        credentials,
        proxies: Proxies::from_env(env),
        connect_timeout,
        read_timeout,
        max_attempts,
        verify_etag: unless_off("S3_VERIFY_ETAG"),
    })
}

/// Source: AWS General Reference, "Amazon S3 endpoints and quotas".
fn aws_endpoint(region: &str, fips: bool, dual_stack: bool) -> String {
    let (fips, dual_stack) = (if fips { "-fips" } else { "" }, if dual_stack { ".dualstack" } else { "" });
    format!("https://s3{fips}{dual_stack}.{region}.{}", credentials::aws_domain(region))
}

/// What a profile of AWS's files says of the store, by the variables that come before it.
const PROFILE_FIELDS: [(&str, &str); 2] = [("endpoint_url", "AWS_ENDPOINT_URL_S3"), ("ca_bundle", "AWS_CA_BUNDLE")];

/// What KServe's storage spec says (a secret's entry as JSON, and parameters of the `InferenceService` that replace some
/// of it), by the variables that stand for the same.
fn storage_spec(env: Env<'_>) -> Result<HashMap<&'static str, String>> {
    const FIELDS: [(&str, &str); 7] = [
        ("endpoint_url", "AWS_ENDPOINT_URL"),
        ("access_key_id", "AWS_ACCESS_KEY_ID"),
        ("secret_access_key", "AWS_SECRET_ACCESS_KEY"),
        ("region", "AWS_DEFAULT_REGION"),
        ("ca_bundle", "AWS_CA_BUNDLE"),
        ("verify_ssl", "S3_VERIFY_SSL"),
        ("anonymous", "awsAnonymousCredential"),
    ];
    let mut spec = HashMap::new();
    for variable in ["STORAGE_CONFIG", "STORAGE_OVERRIDE_CONFIG"] {
        let Some(text) = env(variable).filter(|text| !text.trim().is_empty()) else { continue };
        let fields: HashMap<String, serde_json::Value> = serde_json::from_str(&text)
            // Not serde's words, which quote what may be a secret.
            .map_err(|_| Error::load(format!("{variable} should be a JSON object, as in KServe's storage-config")))?;
        spec.extend(fields);
    }
    if spec.get("type").and_then(serde_json::Value::as_str) != Some("s3") {
        return Ok(HashMap::new());
    }
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Ok(FIELDS.into_iter().filter_map(|(field, variable)| Some((variable, text(spec.get(field)?)))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(vars: &[(&str, &str)]) -> Result<Settings> {
        let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "s")];
        let vars: Vec<_> = keys.iter().chain(vars).copied().collect();
        from_env(&move |name| vars.iter().rev().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn endpoints_follow_kserves_variables() {
        let endpoint = |vars: &[_]| settings(vars).unwrap().endpoint;
        assert_eq!(endpoint(&[]), None);
        assert_eq!(endpoint(&[("S3_ENDPOINT", "minio:9000")]).as_deref(), Some("https://minio:9000"));
        assert_eq!(
            endpoint(&[("S3_ENDPOINT", "minio:9000"), ("S3_USE_HTTPS", "0")]).as_deref(),
            Some("http://minio:9000")
        );
        assert_eq!(endpoint(&[("S3_ENDPOINT", "http://minio:9000")]).as_deref(), Some("http://minio:9000"));
        let secret = settings(&[("AWS_ENDPOINT_URL", "http://u:hush@minio")]).unwrap_err();
        assert!(secret.message().contains("no credentials in") && !secret.message().contains("hush"), "{secret}");
        let both = [("S3_ENDPOINT", "other"), ("AWS_ENDPOINT_URL", "http://minio:9000")];
        assert_eq!(endpoint(&both).as_deref(), Some("http://minio:9000"));
    }

    #[test]
    fn custom_endpoints_get_the_bucket_in_the_path() {
        let minio = ("AWS_ENDPOINT_URL", "http://minio:9000");
        assert!(!settings(&[]).unwrap().path_style);
        assert!(settings(&[minio]).unwrap().path_style);
        assert!(!settings(&[minio, ("S3_USER_VIRTUAL_BUCKET", "true")]).unwrap().path_style);
    }

    #[test]
    fn the_storage_spec_replaces_variables() {
        let config =
            r#"{"type": "s3", "endpoint_url": "http://a:1", "region": "eu", "verify_ssl": "0", "bucket": "b"}"#;
        let change = r#"{"region": "us", "anonymous": true}"#;
        let all = [("STORAGE_CONFIG", config), ("STORAGE_OVERRIDE_CONFIG", change), ("AWS_ENDPOINT_URL", "http://z")];
        let spec = settings(&all).unwrap();
        assert_eq!((spec.endpoint.as_deref(), spec.region.as_str()), (Some("http://a:1"), "us"));
        assert_eq!((spec.verify_tls, spec.credentials), (false, Credentials::Anonymous));
        let regions = [("AWS_REGION", "z"), ("AWS_DEFAULT_REGION", "eu")];
        assert_eq!(settings(&regions).unwrap().region, "eu");
        assert_eq!(settings(&regions[..1]).unwrap().region, "z");
        // Of another kind of store.
        let other = settings(&[("STORAGE_CONFIG", r#"{"type": "hdfs", "region": "eu"}"#)]).unwrap();
        assert_eq!(other.region, "us-east-1");
        let wrong = settings(&[("STORAGE_CONFIG", "{\"secret_access_key\": hush}")]).unwrap_err();
        assert!(
            wrong.message().starts_with("STORAGE_CONFIG should be") && !wrong.message().contains("hush"),
            "{wrong}"
        );
    }

    #[test]
    fn bundles_and_addresses_of_aws_follow_kserve() {
        let mounted = [("CA_BUNDLE_CONFIGMAP_NAME", "ca"), ("CA_BUNDLE_VOLUME_MOUNT_POINT", "/etc/certs")];
        let bundle = settings(&mounted).unwrap().ca_bundle.unwrap();
        assert_eq!(bundle, ("CA_BUNDLE_VOLUME_MOUNT_POINT", "/etc/certs/cabundle.crt".into()));
        let own = [mounted[0], mounted[1], ("AWS_CA_BUNDLE", "/own.pem")];
        assert_eq!(settings(&own).unwrap().ca_bundle.unwrap(), ("AWS_CA_BUNDLE", "/own.pem".into()));
        let old = settings(&[("AWS_ENDPOINT_URL", "https://s3.amazonaws.com")]).unwrap();
        assert_eq!((old.endpoint, old.path_style), (None, false));
        let aws = |vars: &[_]| settings(vars).unwrap().aws;
        assert_eq!(aws(&[("AWS_DEFAULT_REGION", "cn-north-1")]), "https://s3.cn-north-1.amazonaws.com.cn");
        let strict = [("AWS_USE_FIPS_ENDPOINT", "true"), ("AWS_USE_DUALSTACK_ENDPOINT", "true")];
        assert_eq!(aws(&strict), "https://s3-fips.dualstack.us-east-1.amazonaws.com");
        let fast = settings(&[("S3_USE_ACCELERATE", "true")]).unwrap();
        assert_eq!((fast.endpoint.as_deref(), fast.path_style), (Some("https://s3-accelerate.amazonaws.com"), false));
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let error = settings(&[("AWS_ACCESS_KEY_ID", ""), ("S3_READ_TIMEOUT", "x"), ("S3_ENDPOINT", "ftp://a")]);
        let message = error.unwrap_err().message().to_owned();
        for part in ["credentials are missing", "S3_READ_TIMEOUT: \"x\"", "\"ftp://a\" is no http"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn anonymous_access_needs_no_keys_and_secrets_are_not_printed() {
        let anonymous = settings(&[("AWS_ACCESS_KEY_ID", ""), ("awsAnonymousCredential", "true")]).unwrap();
        assert_eq!(anonymous.credentials, Credentials::Anonymous);
        let printed = format!("{:?}", settings(&[("AWS_SECRET_ACCESS_KEY", "hush")]).unwrap());
        assert!(!printed.contains("hush"), "{printed}");
    }
}
