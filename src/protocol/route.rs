//! The whole REST surface on one screen: `(method, path)` to what is asked for.

use std::borrow::Cow;

use crate::error::{Error, Kind, Result};
use crate::tensor::Excerpt;

/// Which model, as the path says it. Names are percent-decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRef<'a> {
    pub name: Cow<'a, str>,
    /// `None` asks for whichever version is served.
    pub version: Option<Cow<'a, str>>,
}

/// Everything that can be asked over REST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    Alive,
    V1Models,
    V1Model(ModelRef<'a>),
    V1Predict(ModelRef<'a>),
    V1Explain(ModelRef<'a>),
    ServerMetadata,
    ServerLive,
    ServerReady,
    V2Models,
    ModelMetadata(ModelRef<'a>),
    ModelReady(ModelRef<'a>),
    ModelInfer(ModelRef<'a>),
    RepositoryIndex,
    RepositoryLoad(ModelRef<'a>),
    RepositoryUnload(ModelRef<'a>),
    Metrics,
}

/// # Errors
/// [`Kind::NoRoute`] for an unknown path, [`Kind::Method`] for a known path asked with another method.
pub fn route<'a>(method: &str, path: &'a str) -> Result<Route<'a>> {
    let shown = Excerpt(path);
    let (allowed, route) = find(path)?.ok_or_else(|| Error::new(Kind::NoRoute, format!("no such path: {shown}")))?;
    // HEAD is GET without the body, which hyper leaves out.
    if method != allowed && !(method == "HEAD" && allowed == "GET") {
        return Err(Error::new(Kind::Method, format!("{shown} takes {allowed}, got {method}")));
    }
    Ok(route)
}

fn find(path: &str) -> Result<Option<(&'static str, Route<'_>)>> {
    const GET: &str = "GET";
    const POST: &str = "POST";
    // A trailing slash changes nothing; deeper than any route, segments are not even looked at.
    let mut segments = path.trim_end_matches('/').split('/').skip(1);
    let mut parts = [""; 7];
    let mut count = 0;
    for (part, segment) in parts.iter_mut().zip(&mut segments) {
        *part = segment;
        count += 1;
    }
    if segments.next().is_some() {
        return Ok(None);
    }
    let found = match &parts[..count] {
        [] if path.is_empty() => return Ok(None), // CONNECT has no path
        [] => (GET, Route::Alive),
        ["metrics"] => (GET, Route::Metrics),
        ["v1", "models"] => (GET, Route::V1Models),
        ["v1", "models", last] => match last.rsplit_once(':') {
            Some((name, "predict")) => (POST, Route::V1Predict(model(name, None)?)),
            Some((name, "explain")) => (POST, Route::V1Explain(model(name, None)?)),
            Some(_) => return Ok(None),
            None => (GET, Route::V1Model(model(last, None)?)),
        },
        ["v2"] => (GET, Route::ServerMetadata),
        ["v2", "health", "live"] => (GET, Route::ServerLive),
        ["v2", "health", "ready"] => (GET, Route::ServerReady),
        ["v2", "models"] => (GET, Route::V2Models),
        ["v2", "repository", "index"] => (POST, Route::RepositoryIndex),
        ["v2", "repository", "models", name, "load"] => (POST, Route::RepositoryLoad(model(name, None)?)),
        ["v2", "repository", "models", name, "unload"] => (POST, Route::RepositoryUnload(model(name, None)?)),
        ["v2", "models", name] => (GET, Route::ModelMetadata(model(name, None)?)),
        ["v2", "models", name, "ready"] => (GET, Route::ModelReady(model(name, None)?)),
        ["v2", "models", name, "infer"] => (POST, Route::ModelInfer(model(name, None)?)),
        ["v2", "models", name, "versions", version] => (GET, Route::ModelMetadata(model(name, Some(version))?)),
        ["v2", "models", name, "versions", version, "ready"] => (GET, Route::ModelReady(model(name, Some(version))?)),
        ["v2", "models", name, "versions", version, "infer"] => (POST, Route::ModelInfer(model(name, Some(version))?)),
        _ => return Ok(None),
    };
    Ok(Some(found))
}

fn model<'a>(name: &'a str, version: Option<&'a str>) -> Result<ModelRef<'a>> {
    Ok(ModelRef { name: percent_decode(name)?, version: version.map(percent_decode).transpose()? })
}

fn percent_decode(segment: &str) -> Result<Cow<'_, str>> {
    percent_encoding::percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| Error::invalid("the path is not UTF-8 after percent-decoding"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn m(version: Option<&'static str>) -> ModelRef<'static> {
        ModelRef { name: "m".into(), version: version.map(Cow::Borrowed) }
    }

    #[test]
    fn every_path_finds_its_route() {
        let cases = [
            ("GET", "/", Route::Alive),
            ("GET", "/metrics", Route::Metrics),
            ("GET", "/v1/models", Route::V1Models),
            ("GET", "/v1/models/m", Route::V1Model(m(None))),
            ("POST", "/v1/models/m:predict", Route::V1Predict(m(None))),
            ("POST", "/v1/models/m:explain", Route::V1Explain(m(None))),
            ("GET", "/v2", Route::ServerMetadata),
            ("HEAD", "/v2", Route::ServerMetadata),
            ("GET", "/v2/", Route::ServerMetadata),
            ("GET", "/v2/health/live", Route::ServerLive),
            ("GET", "/v2/health/ready", Route::ServerReady),
            ("GET", "/v2/models", Route::V2Models),
            ("GET", "/v2/models/m", Route::ModelMetadata(m(None))),
            ("GET", "/v2/models/m/versions/2", Route::ModelMetadata(m(Some("2")))),
            ("GET", "/v2/models/m/ready", Route::ModelReady(m(None))),
            ("GET", "/v2/models/m/versions/2/ready", Route::ModelReady(m(Some("2")))),
            ("POST", "/v2/models/m/infer", Route::ModelInfer(m(None))),
            ("POST", "/v2/repository/index", Route::RepositoryIndex),
            ("POST", "/v2/repository/models/m/load", Route::RepositoryLoad(m(None))),
            ("POST", "/v2/repository/models/m/unload", Route::RepositoryUnload(m(None))),
            ("POST", "/v2/models/m/versions/2/infer", Route::ModelInfer(m(Some("2")))),
        ];
        for (method, path, expected) in cases {
            assert_eq!(route(method, path).unwrap(), expected, "{path}");
        }
    }

    #[test]
    fn unknown_paths_and_methods_are_told_apart() {
        let kind = |method, path| route(method, path).unwrap_err().kind();
        assert_eq!(kind("GET", "/v3"), Kind::NoRoute);
        assert_eq!(kind("GET", "/v1/models/m:explode"), Kind::NoRoute);
        assert_eq!(kind("GET", "/v2/models/m/versions/1/infer/x/y/z"), Kind::NoRoute);
        assert_eq!(kind("GET", "/v2/models/m/infer"), Kind::Method);
        assert_eq!(kind("POST", "/v2"), Kind::Method);
    }

    #[test]
    fn names_are_percent_decoded() {
        let Route::V1Predict(model) = route("POST", "/v1/models/a%20b:predict").unwrap() else { panic!() };
        assert_eq!(model.name, "a b");
        assert_eq!(route("GET", "/v1/models/%ff").unwrap_err().kind(), Kind::Invalid);
    }
}
