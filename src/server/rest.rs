//! The REST front end: routes to answers.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, EXPECT, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::{Body, Incoming};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::body::{self, ResponseBody, discard};
use super::context::Context;
use super::repository::{self, Listed};
use super::{Server, Watch};
use crate::engine::admission::Guard;
use crate::error::{Error, Kind, Result};
use crate::infer::{EXPLANATION, InferRequest, Signature};
use crate::model::catalog::Entry;
use crate::protocol::route::{ModelRef, Route, route};
use crate::protocol::{json as json_text, v1, v2};
use crate::telemetry::metrics::{Protocol, Spent};
use crate::tensor::Excerpt;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What is asked of a model, and in which form.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    V1,
    V1Explain,
    V2,
}

impl Form {
    const fn protocol(self) -> Protocol {
        match self {
            Form::V1 | Form::V1Explain => Protocol::V1,
            Form::V2 => Protocol::V2,
        }
    }
}

pub async fn handle(server: &Server, context: &Context, request: Request<Incoming>) -> Response<ResponseBody> {
    let path = request.uri().path().to_owned();
    let answered = match route(request.method().as_str(), &path) {
        Ok(Route::V1Predict(model)) => infer(server, context, Form::V1, &model, request).await,
        Ok(Route::V1Explain(model)) => infer(server, context, Form::V1Explain, &model, request).await,
        Ok(Route::ModelInfer(model)) => infer(server, context, Form::V2, &model, request).await,
        Ok(Route::RepositoryIndex) => index(server, context, request).await,
        Ok(Route::RepositoryLoad(model)) => load(server, context, &model, request).await,
        Ok(Route::RepositoryUnload(model)) => unload(server, context, &model, request).await,
        other => {
            let described = other.and_then(|route| describe(server, &route, request.headers()));
            leave_unread(request).await;
            described
        }
    };
    answered.unwrap_or_else(|error| refusal(&error))
}

fn refusal(error: &Error) -> Response<ResponseBody> {
    let status = StatusCode::from_u16(error.kind().http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = respond(status, JSON, json_text::error_body(error.message()));
    if let Some(time) = error.retry_after() {
        // In whole seconds, of which none would be an invitation to hammer.
        let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    response
}

/// Everything but predictions: health, metadata, metrics.
fn describe(server: &Server, route: &Route<'_>, headers: &HeaderMap) -> Result<Response<ResponseBody>> {
    let catalog = server.engine.catalog();
    let names = || catalog.entries().iter().map(|entry| entry.name.to_string()).collect::<Vec<_>>();
    let find = |model: &ModelRef| catalog.find(&model.name, model.version.as_deref());
    let ready = |model: &ModelRef| -> Result<Arc<Entry>> {
        let entry = find(model)?;
        entry.served()?;
        if server.is_draining() {
            let text = format!("Model with name {} is not ready. The server is shutting down.", entry.name);
            return Err(Error::new(Kind::NotReady, text));
        }
        Ok(entry)
    };
    let ok = |value: serde_json::Value| respond(StatusCode::OK, JSON, value.to_string().into_bytes());
    Ok(match route {
        Route::Alive => ok(json!({"status": "alive"})),
        Route::V1Models | Route::V2Models => ok(json!({"models": names()})),
        Route::V1Model(model) | Route::ModelReady(model) => ok(json!({"name": *ready(model)?.name, "ready": true})),
        Route::ServerMetadata => ok(json!({
            "name": super::SERVER_NAME,
            "version": env!("CARGO_PKG_VERSION"),
            "extensions": super::EXTENSIONS,
        })),
        Route::ServerLive => ok(json!({"live": true})),
        Route::ServerReady => {
            let ready = server.is_ready();
            let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            respond(status, JSON, json!({"ready": ready}).to_string().into_bytes())
        }
        Route::ModelMetadata(model) => {
            let entry = find(model)?;
            let served = entry.served()?;
            let body = v2::encode_metadata(&entry.name, &served.version, served.platform, &served.signature);
            respond(StatusCode::OK, JSON, body)
        }
        Route::Metrics => metrics(server, headers),
        Route::V1Predict(_)
        | Route::V1Explain(_)
        | Route::ModelInfer(_)
        | Route::RepositoryIndex
        | Route::RepositoryLoad(_)
        | Route::RepositoryUnload(_) => unreachable!("what takes a body is handled apart"),
    })
}

async fn index(server: &Server, context: &Context, request: Request<Incoming>) -> Result<Response<ResponseBody>> {
    #[derive(Default, Deserialize)]
    struct Asked {
        #[serde(default)]
        ready: bool,
    }
    let Asked { ready } = question(server, context, request).await?;
    let models = repository::index(server, ready).into_iter();
    let models = models.map(|Listed { name, version, state, reason }| {
        json!({"name": name, "version": version, "state": state, "reason": reason})
    });
    Ok(respond(StatusCode::OK, JSON, models.collect::<serde_json::Value>().to_string().into_bytes()))
}

async fn load(
    server: &Server,
    context: &Context,
    model: &ModelRef<'_>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>> {
    #[derive(Default, Deserialize)]
    struct Asked {
        parameters: Option<serde_json::Map<String, serde_json::Value>>,
    }
    let Asked { parameters } = question(server, context, request).await?;
    if parameters.is_some_and(|parameters| !parameters.is_empty()) {
        return Err(repository::refuse_parameters());
    }
    repository::load(server, context, &model.name).await?;
    Ok(respond(StatusCode::OK, JSON, json!({"name": model.name, "load": true}).to_string().into_bytes()))
}

async fn unload(
    server: &Server,
    context: &Context,
    model: &ModelRef<'_>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>> {
    // What clients say of models that depend on it means nothing here: none does.
    let _: serde_json::Map<String, serde_json::Value> = question(server, context, request).await?;
    repository::unload(server, context, &model.name).await?;
    Ok(respond(StatusCode::OK, JSON, json!({"name": model.name, "unload": true}).to_string().into_bytes()))
}

/// A small body of JSON, or none.
async fn question<T: Default + DeserializeOwned>(
    server: &Server,
    context: &Context,
    request: Request<Incoming>,
) -> Result<T> {
    const MAX_QUESTION_BYTES: usize = 64 << 10;
    let limits = server.body_limits(context);
    let limits = body::BodyLimits { max_bytes: limits.max_bytes.min(MAX_QUESTION_BYTES), ..limits };
    let body = body::read(request.into_body(), limits, None).await?;
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body).map_err(|error| Error::invalid(format!("the body is not what is expected: {error}")))
}

fn metrics(server: &Server, headers: &HeaderMap) -> Response<ResponseBody> {
    server.sample_gauges();
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (media_type, text) = if accept.contains("application/openmetrics-text") {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", server.metrics.openmetrics())
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", server.metrics.prometheus_text())
    };
    respond(StatusCode::OK, HeaderValue::from_static(media_type), text.into_bytes())
}

async fn infer(
    server: &Server,
    context: &Context,
    form: Form,
    model: &ModelRef<'_>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>> {
    let mut watch = Watch::new(&server.metrics, form.protocol(), context);
    let entry = server.engine.catalog().find(&model.name, model.version.as_deref());
    match entry {
        Ok(entry) => {
            watch.found(entry.metrics());
            let answered = watch.finish(predict(server, context, form, &entry, request).await);
            Ok(answered.unwrap_or_else(|error| {
                let mut response = refusal(&error);
                super::name_version(&mut response, &entry.version());
                response
            }))
        }
        Err(error) => {
            leave_unread(request).await;
            watch.finish(Err(error))
        }
    }
}

async fn predict(
    server: &Server,
    context: &Context,
    form: Form,
    entry: &Entry,
    request: Request<Incoming>,
) -> Result<(Response<ResponseBody>, Spent)> {
    let media_type = media_type(request.headers(), form.protocol());
    // A V2 body may have a timeout of its own.
    let is_deadline_known = form != Form::V2 || context.terms.is_deadline_set;
    let turned_away = context.check().and_then(|()| match entry.served() {
        Ok(served) => server.engine.turn_away(&served, &context.terms, is_deadline_known),
        Err(_) => Ok(()), // it is told when it has been read
    });
    if let Err(error) = turned_away {
        leave_unread(request).await;
        return Err(error);
    }
    let (body, guard) = read_body(server, context, request).await?;
    let served = entry.served()?;
    if form == Form::V1Explain && !served.signature.outputs.iter().any(|output| &*output.name == EXPLANATION) {
        let text = format!("Model with name {} has no explainer.", entry.name);
        return Err(Error::new(Kind::Unsupported, text));
    }
    let json_length = media_type?;

    let began = Instant::now();
    let (model, work) = (served.clone(), guard.clone());
    let decoding = move || decode(&body, json_length, form, &model.signature, &work);
    let (decoded, binary) = super::apart(guard.bytes(), decoding).await?;
    let decode = began.elapsed();

    let began = Instant::now();
    let answer = server.engine.infer(entry, &served, decoded, &context.terms).await?;
    let infer = began.elapsed();

    let began = Instant::now();
    // Body and inputs are gone. The answer is there as tensors, and once more in the body: the same bytes, or text of up to four times as many.
    let answer_bytes = answer.data_bytes();
    guard.release_bytes();
    guard.grow(answer_bytes.saturating_mul(if binary.are_all() { 2 } else { 5 }))?;
    let model = served.clone();
    let encoding = move || match form {
        Form::V2 => v2::encode(&answer, &binary),
        Form::V1 => v1::encode(&answer).map(v2::Encoded::text),
        Form::V1Explain => v1::encode_explanations(&answer, &model.signature).map(v2::Encoded::text),
    };
    let v2::Encoded { body, json_length } = super::apart(answer_bytes, encoding).await?;
    let mut response = Response::new(ResponseBody::held(body, guard));
    let headers = response.headers_mut();
    match json_length {
        None => headers.insert(CONTENT_TYPE, JSON),
        Some(length) => {
            headers.insert(v2::JSON_LENGTH_HEADER, HeaderValue::from(length));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
        }
    };
    super::name_version(&mut response, &served.version);
    Ok((response, Spent { decode, infer, encode: began.elapsed() }))
}

fn decode(
    body: &Bytes,
    json_length: Option<usize>,
    form: Form,
    signature: &Signature,
    guard: &Guard,
) -> Result<(InferRequest, v2::BinaryOutputs)> {
    // Numbers can take several times the room of their text: a digit and a comma become eight bytes.
    let json = &body[..json_length.unwrap_or(body.len()).min(body.len())];
    guard.grow(8 * memchr::memchr_iter(b',', json).count())?;
    let outputs = match form {
        Form::V2 => return v2::decode(body, json_length),
        Form::V1 => Vec::new(),
        Form::V1Explain => vec![EXPLANATION.to_owned()],
    };
    Ok((InferRequest { outputs, ..v1::decode(body, signature)? }, v2::BinaryOutputs::default()))
}

/// Reads the body under the server's limits. The guard keeps the bytes accounted for: hold it as long as them.
async fn read_body(server: &Server, context: &Context, request: Request<Incoming>) -> Result<(Bytes, Arc<Guard>)> {
    let limits = server.body_limits(context);
    if asks_first(&request) && request.body().size_hint().lower() > limits.max_bytes as u64 {
        return Err(body::too_large(limits.max_bytes));
    }
    match server.engine.admit(context.terms.started) {
        Ok(guard) => Ok((body::read(request.into_body(), limits, Some(&guard)).await?, Arc::new(guard))),
        Err(full) => {
            leave_unread(request).await;
            Err(full)
        }
    }
}

/// Whether the caller sends his body only when he has been told to: he gets a refusal before.
fn asks_first(request: &Request<Incoming>) -> bool {
    request.headers().contains_key(EXPECT)
}

/// Of a request that is answered without its body, which others may be sending already.
async fn leave_unread(request: Request<Incoming>) {
    if !asks_first(&request) {
        discard(request.into_body()).await;
    }
}

/// Checks the media type and gives the length of the JSON when binary tensors follow it.
fn media_type(headers: &HeaderMap, protocol: Protocol) -> Result<Option<usize>> {
    let json_length = match headers.get(v2::JSON_LENGTH_HEADER).filter(|_| protocol == Protocol::V2) {
        None => None,
        Some(value) => {
            let length = value.to_str().ok().and_then(|text| text.parse().ok());
            Some(length.ok_or_else(|| Error::invalid("Inference-Header-Content-Length is no whole number"))?)
        }
    };
    if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        let encoding = encoding.to_str().unwrap_or_default();
        let text = format!("Content-Encoding is \"{}\", expected an uncompressed body", Excerpt(encoding));
        return Err(Error::new(Kind::MediaType, text));
    }
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(json_length) };
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        // The last one is what curl -d says of any data; if it is no JSON, the decoder will say so.
        "application/json" | "application/ld+json" | "application/x-www-form-urlencoded" => Ok(json_length),
        "application/octet-stream" if json_length.is_some() => Ok(json_length),
        "application/octet-stream" if protocol == Protocol::V2 => {
            Err(Error::invalid("application/octet-stream needs the header Inference-Header-Content-Length"))
        }
        _ => Err(Error::new(
            Kind::MediaType,
            format!("Content-Type is \"{}\", expected application/json", Excerpt(text)),
        )),
    }
}

fn respond(status: StatusCode, media_type: HeaderValue, body: Vec<u8>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}
