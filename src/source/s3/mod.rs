//! S3 and MinIO, through aws-sdk-s3 with KServe's environment ([`settings`]) and our own TLS ([`http`]).

mod explain;
mod http;
pub mod settings;

use std::ops::Range;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::operation::head_object::HeadObjectError;
use bytes::Bytes;

use self::explain::Operation;
use self::settings::Settings;
use super::uri::relative_path;
use super::{RemoteFile, Source};
use crate::error::{Error, Result};

/// More objects than any model has; a bound on what a mistaken prefix costs.
const MAX_OBJECTS: usize = 100_000;

/// The objects below a prefix of a bucket.
pub struct S3 {
    client: Client,
    bucket: String,
    prefix: String,
    /// Where requests go, for error messages.
    endpoint: String,
}

impl S3 {
    /// Makes a client; nothing is sent yet.
    ///
    /// # Errors
    /// When the CA bundle cannot be read, or there are neither credentials nor leave to go without.
    pub fn new(settings: &Settings, bucket: &str, prefix: &str) -> Result<S3> {
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(settings.region.clone()))
            .force_path_style(settings.path_style)
            .http_client(http::client(settings)?)
            .retry_config(RetryConfig::standard().with_max_attempts(settings.max_attempts))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(settings.connect_timeout)
                    .read_timeout(settings.read_timeout)
                    .build(),
            )
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled().grace_period(settings.read_timeout).build(),
            )
            // Not every S3 server knows the newer checksum headers; they are used where an operation demands them.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        config.set_endpoint_url(settings.endpoint.clone());
        let config = match &settings.credentials {
            None => config.allow_no_auth(),
            Some(keys) => config.credentials_provider(Credentials::new(
                &keys.access_key_id,
                &keys.secret_access_key,
                keys.session_token.clone(),
                None,
                "environment",
            )),
        };
        let endpoint = settings.endpoint.clone().unwrap_or_else(|| format!("the AWS region {}", settings.region));
        let client = Client::from_conf(config.build());
        Ok(S3 { client, bucket: bucket.to_owned(), prefix: prefix.to_owned(), endpoint })
    }

    fn operation(&self, step: &'static str, key: &str) -> Operation {
        Operation { step, bucket: self.bucket.clone(), key: key.to_owned(), endpoint: self.endpoint.clone() }
    }

    /// The prefix named one object instead of a folder of them.
    async fn single_object(&self) -> Result<Vec<RemoteFile>> {
        let head = self.client.head_object().bucket(&self.bucket).key(&self.prefix).send().await;
        let head = match head {
            Ok(head) => head,
            Err(error) if error.as_service_error().is_some_and(HeadObjectError::is_not_found) => return Ok(Vec::new()),
            Err(error) => return Err(self.operation("look up", &self.prefix).explain(&error)),
        };
        let file = remote_file(&self.prefix, &self.prefix, head.content_length(), head.e_tag())?;
        Ok(file.into_iter().collect())
    }
}

impl Source for S3 {
    async fn manifest(&self) -> Result<Vec<RemoteFile>> {
        // With the slash, so that "model" does not list "model2" as well.
        let listed = if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
        let mut pages = self.client.list_objects_v2().bucket(&self.bucket).prefix(&listed).into_paginator().send();
        let mut files = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.operation("list", &listed).explain(&error))?;
            for object in page.contents() {
                let Some(key) = object.key() else { continue };
                files.extend(remote_file(&self.prefix, key, object.size(), object.e_tag())?);
            }
            if files.len() > MAX_OBJECTS {
                let place = super::uri::SourceUri::S3 { bucket: self.bucket.clone(), prefix: self.prefix.clone() };
                return Err(Error::load(format!("{place}: more than {MAX_OBJECTS} objects: is this one model?")));
            }
        }
        if files.is_empty() && !self.prefix.is_empty() {
            return self.single_object().await;
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    async fn read(&self, file: &RemoteFile, range: Range<u64>) -> Result<Bytes> {
        let explain = || self.operation("read", &file.key);
        let mut request = self.client.get_object().bucket(&self.bucket).key(&file.key).if_match(&file.tag);
        if range != (0..file.bytes) {
            request = request.range(format!("bytes={}-{}", range.start, range.end - 1));
        }
        let answer = request.send().await.map_err(|error| explain().explain(&error))?;
        let body = answer.body.collect().await;
        body.map(aws_sdk_s3::primitives::AggregatedBytes::into_bytes).map_err(|error| {
            Error::load(format!("cannot read s3://{}/{} to its end", self.bucket, file.key)).with_source(error)
        })
    }
}

fn remote_file(prefix: &str, key: &str, size: Option<i64>, tag: Option<&str>) -> Result<Option<RemoteFile>> {
    let file = |path| RemoteFile {
        path,
        key: key.to_owned(),
        bytes: size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
        tag: tag.unwrap_or_default().to_owned(),
    };
    Ok(relative_path(prefix, key)?.map(file))
}
