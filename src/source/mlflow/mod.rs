//! Models by the names that MLflow gives them. The tracking server is asked once, through its REST API, where the
//! artifacts of that name are; they are read from there, and serving never needs it again.

mod artifacts;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use self::artifacts::Artifacts;
use super::http::{Secrets, Url, basic, encode_part};
use super::site::{Refusal, Site};
use super::uri::{self, MlflowName, SourceUri};
use super::{Env, Opened};
use crate::error::{Error, Result};

/// Finds where the artifacts of a name are.
///
/// # Errors
/// When a setting is missing or wrong, the name means nothing, or nothing here can read that place.
pub fn open(name: &MlflowName, env: Env<'_>) -> Result<Opened> {
    let tracking = Tracking::new(name, env)?;
    let place = tracking.locate(name)?;
    tracing::info!(uri = %name, resolved = place, "model resolved");
    let unreadable = |error: Error| error.context(format_args!("{name}: its artifacts are at {place}"));
    if let Some(path) = place.strip_prefix("mlflow-artifacts:") {
        let root = served_path(path, tracking.server.host()).map_err(unreadable)?;
        return Ok(Opened::Elsewhere(Box::new(Artifacts { tracking, root })));
    }
    match uri::parse(&place).map_err(unreadable)? {
        SourceUri::Local(path) if !path.exists() => {
            Err(unreadable(Error::load("there is no such path on this machine: mount it, or log to s3://")))
        }
        found @ (SourceUri::Local(_) | SourceUri::S3 { .. }) => super::find(&found, env).map_err(unreadable),
        _ => Err(unreadable(Error::load("expected s3://, mlflow-artifacts:/ or a path"))),
    }
}

/// The name of the version that a name means now.
///
/// # Errors
/// As [`open`].
pub fn exact(name: &MlflowName, env: Env<'_>) -> Result<MlflowName> {
    let (MlflowName::Alias { name: model, .. } | MlflowName::Latest { name: model }) = name else {
        return Ok(name.clone());
    };
    let version = Tracking::new(name, env)?.number(name)?;
    Ok(MlflowName::Version { name: model.clone(), version })
}

/// The path in `mlflow-artifacts:/path` or `mlflow-artifacts://host/path`, the latter only of this host.
fn served_path(text: &str, host: &str) -> Result<String> {
    let path = match text.strip_prefix("//") {
        None => text,
        Some(rest) => match rest.split_once('/').unwrap_or((rest, "")) {
            (named, path) if named.is_empty() || named == host => path,
            (other, _) => return Err(Error::load(format!("{other} is not MLFLOW_TRACKING_URI's server"))),
        },
    };
    Ok(path.trim_matches('/').to_owned())
}

struct Tracking {
    site: Site,
    server: Url,
}

impl Tracking {
    fn new(name: &MlflowName, env: Env<'_>) -> Result<Tracking> {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        let missing = || Error::load(format!("{name}: set MLFLOW_TRACKING_URI to the address of the tracking server"));
        let text = set("MLFLOW_TRACKING_URI").ok_or_else(missing)?;
        let server = Url::parse(&text).map_err(|error| error.context("MLFLOW_TRACKING_URI"))?;
        let user = text.split_once("//").and_then(|(_, rest)| rest.split('/').next()?.rsplit_once('@'));
        let of_address = || user.map(|(user, _)| basic(user));
        let authorization = authorization(&set).or_else(of_address).map(|value| ("authorization".to_owned(), value));
        let secrets = Secrets { origin: server.origin().clone(), headers: authorization.into_iter().collect() };
        let site = Site::new(format!("{name} at {server}"), secrets, meaning, env)?;
        Ok(Tracking { site, server })
    }

    fn ask<T: DeserializeOwned>(&self, what: &str, query: &[(&str, &str)]) -> Result<T> {
        let url = self.server.below(&format!("/api/2.0/mlflow/{what}"), query);
        self.site.json("look up", &url).map(|(answer, _)| answer)
    }

    /// Where the artifacts are that the name means now.
    fn locate(&self, name: &MlflowName) -> Result<String> {
        match name {
            MlflowName::Version { name, version } => self.version(name, version),
            MlflowName::Alias { name: model, .. } | MlflowName::Latest { name: model } => {
                self.version(model, &self.number(name)?)
            }
            MlflowName::Model { id } => Ok(self.model(id)?.artifact_uri),
            MlflowName::Run { id, path } => self.of_run(id, path),
        }
    }

    /// The number of the version that an alias means, or of the newest one.
    fn number(&self, name: &MlflowName) -> Result<String> {
        match name {
            MlflowName::Alias { name, alias } => {
                let query = [("name", name.as_str()), ("alias", alias)];
                let aliased: Aliased = self.ask("registered-models/alias", &query)?;
                Ok(aliased.model_version.version)
            }
            MlflowName::Latest { name: model } => {
                let quote = if model.contains('\'') { '"' } else { '\'' };
                let filter = format!("name = {quote}{model}{quote}");
                let query = [("filter", &*filter), ("order_by", "version_number DESC"), ("max_results", "1")];
                let found: Versions = self.ask("model-versions/search", &query)?;
                let newest = found.model_versions.into_iter().next();
                Ok(newest.ok_or_else(|| Error::load(format!("{name}: the model has no versions")))?.version)
            }
            _ => Err(Error::internal("a name without a version's number")),
        }
    }

    fn version(&self, name: &str, version: &str) -> Result<String> {
        let found: Place = self.ask("model-versions/get-download-uri", &[("name", name), ("version", version)])?;
        Ok(found.artifact_uri)
    }

    fn model(&self, id: &str) -> Result<Model> {
        let found: Logged = self.ask(&format!("logged-models/{}", encode_part(id)), &[])?;
        Ok(found.model.info)
    }

    /// Since MLflow 3, a run's models are beside its artifacts; a path that begins with a model's name means that.
    fn of_run(&self, id: &str, path: &str) -> Result<String> {
        let run = self.ask::<Ran>("runs/get", &[("run_id", id)])?.run;
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        let models = run.outputs.model_outputs.iter().map(|output| self.model(&output.model_id));
        let models = models.collect::<Result<Vec<Model>>>()?;
        let named = models.into_iter().filter(|model| model.name == first);
        let (root, rest) = match named.max_by_key(|model| model.creation_timestamp_ms) {
            Some(model) => (model.artifact_uri, rest),
            None => (run.info.artifact_uri, path),
        };
        Ok(format!("{}/{rest}", root.trim_end_matches('/')))
    }
}

#[derive(Deserialize)]
struct Place {
    artifact_uri: String,
}

#[derive(Deserialize)]
struct Aliased {
    model_version: Version,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Versions {
    #[serde(default)]
    model_versions: Vec<Version>,
}

#[derive(Deserialize)]
struct Logged {
    model: LoggedModel,
}

#[derive(Deserialize)]
struct LoggedModel {
    info: Model,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    name: String,
    artifact_uri: String,
    #[serde(default)]
    creation_timestamp_ms: u64,
}

#[derive(Deserialize)]
struct Ran {
    run: Run,
}

#[derive(Deserialize)]
struct Run {
    info: Place,
    #[serde(default)]
    outputs: Outputs,
}

#[derive(Default, Deserialize)]
struct Outputs {
    #[serde(default)]
    model_outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Output {
    model_id: String,
}

/// As MLflow's own client: a name and a password before a token.
fn authorization(set: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    match (set("MLFLOW_TRACKING_USERNAME"), set("MLFLOW_TRACKING_PASSWORD"), set("MLFLOW_TRACKING_TOKEN")) {
        (Some(name), Some(password), _) => {
            Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}"))))
        }
        (.., Some(token)) => Some(format!("Bearer {token}")),
        _ => None,
    }
}

fn meaning(refusal: &Refusal) -> Option<&'static str> {
    Some(match (refusal.status, refusal.authorized, refusal.code.as_str()) {
        (401 | 403, false, _) => {
            "access is denied: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        }
        (401 | 403, true, _) => {
            "access is denied: the MLFLOW_TRACKING_ credentials are wrong, or lack the right to read"
        }
        (404, _, "") => "there is no MLflow at this address: is MLFLOW_TRACKING_URI right?",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_go_before_tokens() {
        let with = |set: &'static [(&str, &str)]| {
            authorization(&|name| {
                let found = set.iter().find(|(own, _)| *own == name.trim_start_matches("MLFLOW_TRACKING_"));
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let basic = Some("Basic dXNlcjpwYXNz".to_owned());
        assert_eq!(with(&[("USERNAME", "user"), ("PASSWORD", "pass"), ("TOKEN", "t")]), basic);
        assert_eq!(with(&[("USERNAME", "user"), ("TOKEN", "t")]).as_deref(), Some("Bearer t"));
        assert_eq!(with(&[("PASSWORD", "pass")]), None);
    }

    #[test]
    fn artifacts_are_asked_of_the_tracking_server_alone() {
        let path = |text| served_path(text, "mlflow:5000");
        for same in ["/0/m-1/artifacts", "///0/m-1/artifacts/", "//mlflow:5000/0/m-1/artifacts"] {
            assert_eq!(path(same).unwrap(), "0/m-1/artifacts", "{same}");
        }
        assert!(path("//other:5000/0/m-1/artifacts").unwrap_err().message().contains("other:5000 is not"));
    }

    #[test]
    fn answers_are_read_as_mlflow_writes_them() {
        let run = r#"{"run": {"info": {"run_id": "r", "artifact_uri": "s3://b/0/r/artifacts"}, "data": {},
            "outputs": {"model_outputs": [{"model_id": "m-1", "step": 0}]}}}"#;
        let run = serde_json::from_str::<Ran>(run).unwrap().run;
        assert_eq!(run.outputs.model_outputs[0].model_id, "m-1");
        let old = r#"{"run": {"info": {"artifact_uri": "/mlruns/0/r/artifacts"}, "inputs": {}}}"#;
        assert!(serde_json::from_str::<Ran>(old).unwrap().run.outputs.model_outputs.is_empty());
    }
}
