//! Whose keys requests are signed with, looked for where boto3 looks: in the environment (and KServe's secrets), from a
//! service account's token ("web identity", as EKS and MinIO know it), in a profile, from the pod's credentials agent.
//! Source: boto3, "Credentials", without what asks a person, a program or the machine: SSO, `credential_process`,
//! `source_profile`, the instance's metadata.

use std::path::PathBuf;

use super::profile::Profile;
use crate::source::http::Url;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Requests are not signed.
    Anonymous,
    Known(Keys),
    /// Keys are lent for a while.
    Lent(Lender),
}

impl std::fmt::Display for Credentials {
    /// Whose they are, without what is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Credentials::Anonymous => f.write_str("none, requests are not signed"),
            Credentials::Known(keys) => write!(f, "the access key {}", keys.access_key_id),
            Credentials::Lent(lender) => write!(f, "{lender}"),
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<String>,
}

impl std::fmt::Debug for Keys {
    /// Never prints the secret: settings end up in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// Whom to ask for keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lender {
    /// The security token service, with a token that Kubernetes writes and renews.
    WebIdentity { token_file: PathBuf, role: String, session: String, endpoint: String },
    /// An agent beside the pod: EKS Pod Identity, ECS.
    Agent { url: String, authorization: Authorization },
}

impl std::fmt::Display for Lender {
    /// What is lent, for messages: without what may be secret in an address.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plain = |address: &str| Url::parse(address).map_or_else(|_| "?".to_owned(), |url| url.to_string());
        match self {
            Lender::WebIdentity { role, endpoint, .. } => write!(f, "credentials for {role} from {}", plain(endpoint)),
            Lender::Agent { url, .. } => write!(f, "credentials from the agent at {}", plain(url)),
        }
    }
}

/// What the agent is told.
#[derive(Clone, PartialEq, Eq)]
pub enum Authorization {
    Nothing,
    Text(String),
    /// In a file that is renewed.
    File(PathBuf),
}

impl std::fmt::Debug for Authorization {
    /// Never prints the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Authorization::Nothing => "Nothing",
            Authorization::Text(_) => "Text",
            Authorization::File(_) => "File",
        })
    }
}

/// Where the agent of an ECS task is.
const AGENT: &str = "http://169.254.170.2";

/// Where AWS's services of a region are.
pub fn aws_domain(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

/// The credentials that settings lead to, or what to do to have some. `get` is the environment and what replaces it.
///
/// # Errors
/// As text: what is missing.
pub fn find(get: &dyn Fn(&str) -> Option<String>, profile: &Profile, region: &str) -> Result<Credentials, String> {
    let keys = |id: Option<String>, secret: Option<String>, session_token: Option<String>| {
        Some(Credentials::Known(Keys { access_key_id: id?, secret_access_key: secret?, session_token }))
    };
    if get("AWS_ACCESS_KEY_ID").is_some() && get("AWS_SECRET_ACCESS_KEY").is_none() {
        return Err("AWS_ACCESS_KEY_ID is set, AWS_SECRET_ACCESS_KEY is not: set both or none".to_owned());
    }
    let token = get("AWS_SESSION_TOKEN").or_else(|| get("AWS_SECURITY_TOKEN"));
    let of_environment = keys(get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY"), token);
    if let Some(known) = of_environment {
        return Ok(known);
    }
    let of_profile = || {
        let [id, secret, token, older] =
            ["aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_security_token"]
                .map(|field| profile.get(field));
        keys(id, secret, token.or(older))
    };
    let web_identity = || -> Result<_, String> {
        let either = |variable: &str, field: &str| get(variable).or_else(|| profile.get(field));
        // The token is sent nowhere that was only said to be a store.
        let is_ignored = get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|set| set.eq_ignore_ascii_case("true"));
        let named = get("AWS_ENDPOINT_URL_STS").or_else(|| either("AWS_ENDPOINT_URL", "endpoint_url"));
        let named = named.filter(|_| !is_ignored);
        // AWS's store is no token service.
        let endpoint = named.filter(|endpoint| !endpoint.contains("s3.") || !endpoint.contains(".amazonaws.com"));
        let fips =
            if get("AWS_USE_FIPS_ENDPOINT").is_some_and(|set| set.eq_ignore_ascii_case("true")) { "-fips" } else { "" };
        let Some(token_file) = either("AWS_WEB_IDENTITY_TOKEN_FILE", "web_identity_token_file") else {
            return Ok(None);
        };
        Ok(Some(Credentials::Lent(Lender::WebIdentity {
            token_file: token_file.into(),
            role: either("AWS_ROLE_ARN", "role_arn")
                .ok_or("AWS_WEB_IDENTITY_TOKEN_FILE is set, AWS_ROLE_ARN is not")?,
            session: either("AWS_ROLE_SESSION_NAME", "role_session_name").unwrap_or_else(|| "stoker".to_owned()),
            endpoint: endpoint.unwrap_or_else(|| format!("https://sts{fips}.{region}.{}", aws_domain(region))),
        })))
    };
    if let Some(lent) = web_identity()? {
        return Ok(lent);
    }
    // What the profile asks for goes before the keys that it has, which may be those of somebody else.
    let unread = ["role_arn", "credential_process", "credential_source", "sso_session", "sso_start_url"];
    if let Some(field) = unread.iter().find(|field| profile.get(field).is_some()) {
        let name = profile.name();
        return Err(format!(
            "the AWS profile \"{name}\" has {field}, which is not read: give keys, or another profile"
        ));
    }
    let agent = || {
        let relative = get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        let relative = relative.map(|path| format!("{AGENT}/{}", path.trim_start_matches('/')));
        let url = relative.or_else(|| get("AWS_CONTAINER_CREDENTIALS_FULL_URI"))?;
        let file = get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(|path| Authorization::File(path.into()));
        let text = || get("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(Authorization::Text);
        let authorization = file.or_else(text).unwrap_or(Authorization::Nothing);
        Some(Credentials::Lent(Lender::Agent { url, authorization }))
    };
    of_profile().or_else(agent).ok_or_else(|| {
        "S3 credentials are missing: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or awsAnonymousCredential=true for a \
         public bucket"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "s")];
    const TOKEN: [(&str, &str); 2] = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"), ("AWS_ROLE_ARN", "arn")];

    fn found(vars: &[(&str, &str)]) -> Result<Credentials, String> {
        let get = |name: &str| vars.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        find(&get, &Profile::default(), "eu")
    }

    #[test]
    fn the_environment_comes_before_tokens_and_agents() {
        let agent = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1/");
        let all = [&KEYS[..], &TOKEN[..], &[agent]].concat();
        assert!(matches!(found(&all), Ok(Credentials::Known(_))));
        assert!(matches!(found(&all[1..]), Ok(Credentials::Lent(Lender::WebIdentity { .. }))));
        assert!(matches!(found(&all[3..]), Ok(Credentials::Lent(Lender::Agent { .. }))));
        assert!(found(&all[..1]).unwrap_err().contains("set both or none"));
        assert!(found(&TOKEN[..1]).unwrap_err().contains("AWS_ROLE_ARN is not"));
        assert!(found(&[]).unwrap_err().contains("AWS_SECRET_ACCESS_KEY"));
    }

    #[test]
    fn the_token_goes_where_all_of_awss_services_are_said_to_be() {
        let endpoint = |more: &[(&str, &str)]| match found(&[&TOKEN[..], more].concat()) {
            Ok(Credentials::Lent(Lender::WebIdentity { endpoint, .. })) => endpoint,
            other => panic!("{other:?}"),
        };
        let minio = ("AWS_ENDPOINT_URL", "http://minio:9000");
        assert_eq!(endpoint(&[]), "https://sts.eu.amazonaws.com");
        assert_eq!(endpoint(&[("AWS_ENDPOINT_URL_S3", "http://minio"), ("S3_ENDPOINT", "minio")]), endpoint(&[]));
        assert_eq!(endpoint(&[minio]), "http://minio:9000");
        assert_eq!(endpoint(&[minio, ("AWS_ENDPOINT_URL_STS", "http://sts")]), "http://sts");
        assert_eq!(endpoint(&[minio, ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")]), endpoint(&[]));
    }

    #[test]
    fn agents_are_told_who_asks() {
        let path = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x");
        let text = ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "hush");
        let found = found(&[path, text]).unwrap();
        assert!(!format!("{found:?}").contains("hush"));
        let url = "http://169.254.170.2/v2/x".to_owned();
        assert_eq!(found, Credentials::Lent(Lender::Agent { url, authorization: Authorization::Text("hush".into()) }));
    }
}
