//! Whether the model can be read, and which layer is at fault where it cannot.

use std::error::Error as _;

use super::Finding;
use super::network::{connect, is_well, reach};
use crate::error::{Error, Result};
use crate::source::http::{Proxies, Trust, Url};
use crate::source::s3::explain::AtFault;
use crate::source::s3::settings;
use crate::source::uri::SourceUri;
use crate::source::{Env, Listed, Opened, open, total_bytes};
use crate::text::size;

/// Looks at the servers that the environment names, and at each model.
pub fn look(sources: &[SourceUri], env: Env<'_>) -> Vec<Finding> {
    const OF_S3: [&str; 4] = ["AWS_ENDPOINT_URL", "S3_ENDPOINT", "AWS_ACCESS_KEY_ID", "STORAGE_CONFIG"];
    let is_set = |name: &&str| env(name).is_some_and(|value| !value.is_empty());
    let has_s3 = sources.iter().any(|source| matches!(source, SourceUri::S3 { .. })) || OF_S3.iter().any(is_set);
    let none = || vec![Finding::skipped("dns", "S3", "nothing names a store")];
    let mut findings = if has_s3 { s3(env) } else { none() };
    findings.extend(mlflow(env));
    let can_be_reached = is_well(&findings);
    findings.extend(otlp(env));
    findings.extend(sources.iter().map(|source| model(source, can_be_reached, env)));
    if sources.is_empty() {
        findings.push(Finding::skipped("model", "-", "name one with --storage_uri or --model_dir"));
    }
    findings
}

/// The endpoint and whose the credentials are; whether these are right is only known of a model.
fn s3(env: Env<'_>) -> Vec<Finding> {
    let settings = match settings::from_env(env) {
        Ok(settings) => settings,
        Err(error) => {
            let advice = "KServe sets them from the secret of the pod's service account: \
                          runtimes/inferenceservices/credentials.yaml";
            return vec![Finding::failed("credentials", "S3", error.message(), advice)];
        }
    };
    let Some(endpoint) = &settings.endpoint else {
        return vec![Finding::skipped("dns", "S3", "neither AWS_ENDPOINT_URL nor S3_ENDPOINT is set")];
    };
    let mut findings = match Url::parse(endpoint) {
        Ok(url) => reach("S3", &url, &settings.trust(&url), &settings.proxies),
        Err(error) => vec![Finding::failed("dns", "S3", error.message(), "set AWS_ENDPOINT_URL to http://HOST:PORT")],
    };
    let whose = format!("{}, region {}", settings.credentials, settings.region);
    findings.push(Finding::ok("credentials", "S3", whose));
    findings
}

fn mlflow(env: Env<'_>) -> Vec<Finding> {
    let Some(address) = env("MLFLOW_TRACKING_URI").filter(|address| !address.is_empty()) else {
        return vec![Finding::skipped("dns", "MLflow", "MLFLOW_TRACKING_URI is not set")];
    };
    match Url::parse(&address) {
        Ok(url) => reach("MLflow", &url.below("health", &[]), &Trust::from_env(env), &Proxies::from_env(env)),
        Err(error) => {
            vec![Finding::failed("dns", "MLflow", error.message(), "set MLFLOW_TRACKING_URI to http://HOST:PORT")]
        }
    }
}

/// Where traces go. It speaks gRPC, mostly: that somebody listens is all that is asked.
fn otlp(env: Env<'_>) -> Vec<Finding> {
    let Some(address) = env("OTEL_EXPORTER_OTLP_ENDPOINT").filter(|address| !address.is_empty()) else {
        return vec![Finding::skipped("dns", "OTLP", "OTEL_EXPORTER_OTLP_ENDPOINT is not set")];
    };
    match Url::parse(&address) {
        Ok(url) => connect("OTLP", &url),
        Err(error) => {
            let advice = "set OTEL_EXPORTER_OTLP_ENDPOINT to http://HOST:PORT";
            vec![Finding::failed("dns", "OTLP", error.message(), advice)]
        }
    }
}

/// Lists a model's files and reads a byte of one: what a load begins with.
fn model(source: &SourceUri, can_be_reached: bool, env: Env<'_>) -> Finding {
    let of = source.to_string();
    if !can_be_reached && !matches!(source, SourceUri::Local(_)) {
        return Finding::skipped("model", of, "something before it is at fault");
    }
    match read(source, env) {
        Ok(seen) => Finding::ok("model", of, seen),
        Err(error) => {
            let at_fault = error.source().and_then(|source| source.downcast_ref::<AtFault>());
            let layer = at_fault.map_or("model", |AtFault(layer)| layer);
            Finding::failed(layer, of, error.message(), advice(layer))
        }
    }
}

fn read(source: &SourceUri, env: Env<'_>) -> Result<String> {
    let listed = match open(source, env)? {
        Opened::Elsewhere(found) => Listed::of(source, found)?,
        Opened::Here(path) => {
            let found = std::fs::metadata(&path);
            found.map_err(|error| Error::load(format!("{}: {error}", path.display())))?;
            return Ok("it lies here; stoker inspect says what would be served".to_owned());
        }
    };
    let files = format!("{} files, {}", listed.manifest.len(), size(total_bytes(&listed.manifest)));
    let Some(file) = listed.manifest.iter().filter(|file| file.bytes > 0).min_by_key(|file| file.bytes) else {
        return Ok(files);
    };
    // Whoever may list may not always read.
    let range = if file.whole { 0..file.bytes } else { 0..1 };
    let mut reader = listed.source.open(file, range).map_err(|trouble| trouble.error)?;
    reader.read(&mut [0]).map_err(|trouble| trouble.error)?;
    Ok(format!("{files}, and they can be read"))
}

fn advice(layer: &str) -> &'static str {
    match layer {
        "credentials" => {
            "the secret of the pod's service account holds AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; pods have them from \
             when they began"
        }
        "permission" => "the user's policy has to allow s3:ListBucket on the bucket and s3:GetObject below the prefix",
        "bucket" => "it is another bucket, or another store that has it (AWS_ENDPOINT_URL)",
        "region" => "the secret's annotation serving.kserve.io/s3-region, or AWS_DEFAULT_REGION, says it",
        "clock" => "have chrony or systemd-timesyncd set the node's clock",
        _ => "all before it works: the message says what is missing",
    }
}
