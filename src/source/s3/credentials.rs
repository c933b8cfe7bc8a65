//! Whose keys requests are signed with, looked for where boto3 looks: in the environment (and KServe's secrets), from a
//! service account's token ("web identity", as EKS and MinIO know it), in a profile, from the pod's credentials agent.
//! Source: boto3, "Credentials", without what asks a person, a program or the machine: SSO, `credential_process`,
//! `source_profile`, the instance's metadata.

use std::path::PathBuf;

use super::profile::Profile;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Requests are not signed.
    Anonymous,
    Known(Keys),
    /// Keys are lent for a while.
    Lent(Lender),
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

/// The credentials that settings lead to, or what to do to have some. `get` is the environment and what replaces it.
///
/// # Errors
/// As text: what is missing.
pub fn find(
    get: &dyn Fn(&str) -> Option<String>,
    profile: &Profile,
    endpoint: Option<&str>,
    region: &str,
) -> Result<Credentials, String> {
    let keys = |id: Option<String>, secret: Option<String>, session_token: Option<String>| {
        Some(Credentials::Known(Keys { access_key_id: id?, secret_access_key: secret?, session_token }))
    };
    if get("AWS_ACCESS_KEY_ID").is_some() && get("AWS_SECRET_ACCESS_KEY").is_none() {
        return Err("AWS_ACCESS_KEY_ID is set, AWS_SECRET_ACCESS_KEY is not: set both or none".to_owned());
    }
    let of_environment = keys(get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY"), get("AWS_SESSION_TOKEN"));
    if let Some(known) = of_environment {
        return Ok(known);
    }
    let of_profile = || {
        let [id, secret, token] =
            ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"].map(|field| profile.get(field));
        keys(id, secret, token)
    };
    let web_identity = || -> Result<_, String> {
        let either = |variable: &str, field: &str| get(variable).or_else(|| profile.get(field));
        let endpoint = get("AWS_ENDPOINT_URL_STS").or_else(|| endpoint.map(str::to_owned));
        let china = if region.starts_with("cn-") { ".cn" } else { "" };
        let Some(token_file) = either("AWS_WEB_IDENTITY_TOKEN_FILE", "web_identity_token_file") else {
            return Ok(None);
        };
        Ok(Some(Credentials::Lent(Lender::WebIdentity {
            token_file: token_file.into(),
            role: either("AWS_ROLE_ARN", "role_arn")
                .ok_or("AWS_WEB_IDENTITY_TOKEN_FILE is set, AWS_ROLE_ARN is not")?,
            session: either("AWS_ROLE_SESSION_NAME", "role_session_name").unwrap_or_else(|| "stoker".to_owned()),
            endpoint: endpoint.unwrap_or_else(|| format!("https://sts.{region}.amazonaws.com{china}")),
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
        let relative = get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").map(|path| format!("{AGENT}{path}"));
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

    fn found(vars: &[(&str, &str)], endpoint: Option<&str>) -> Result<Credentials, String> {
        let get = |name: &str| vars.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        find(&get, &Profile::default(), endpoint, "eu")
    }

    #[test]
    fn the_environment_comes_before_tokens_and_agents() {
        let agent = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1/");
        let all = [&KEYS[..], &TOKEN[..], &[agent]].concat();
        assert!(matches!(found(&all, None), Ok(Credentials::Known(_))));
        assert!(matches!(found(&all[1..], None), Ok(Credentials::Lent(Lender::WebIdentity { .. }))));
        assert!(matches!(found(&all[3..], None), Ok(Credentials::Lent(Lender::Agent { .. }))));
        assert!(found(&all[..1], None).unwrap_err().contains("set both or none"));
        assert!(found(&TOKEN[..1], None).unwrap_err().contains("AWS_ROLE_ARN is not"));
        assert!(found(&[], None).unwrap_err().contains("AWS_SECRET_ACCESS_KEY"));
    }

    #[test]
    fn the_token_service_is_beside_the_store() {
        let endpoint = |vars: &[_], own| match found(vars, own) {
            Ok(Credentials::Lent(Lender::WebIdentity { endpoint, .. })) => endpoint,
            other => panic!("{other:?}"),
        };
        assert_eq!(endpoint(&TOKEN, None), "https://sts.eu.amazonaws.com");
        assert_eq!(endpoint(&TOKEN, Some("http://minio:9000")), "http://minio:9000");
        let other = [TOKEN[0], TOKEN[1], ("AWS_ENDPOINT_URL_STS", "http://sts")];
        assert_eq!(endpoint(&other, Some("http://minio:9000")), "http://sts");
    }

    #[test]
    fn agents_are_told_who_asks() {
        let path = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x");
        let text = ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "hush");
        let found = found(&[path, text], None).unwrap();
        assert!(!format!("{found:?}").contains("hush"));
        let url = "http://169.254.170.2/v2/x".to_owned();
        assert_eq!(found, Credentials::Lent(Lender::Agent { url, authorization: Authorization::Text("hush".into()) }));
    }
}
