//! The gRPC front end: `inference.GRPCInferenceService` on the same engine and the same error table.
//!
//! All its calls are unary, which over hyper takes a length in front of a message and trailers behind it. Doing that
//! here, and not in a framework, is what lets a message be counted before it is decoded and its answer until it is
//! written. Source: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{BufMut, Bytes};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use prost::Message;

use super::body::{self, ResponseBody};
use super::context::Context;
use super::repository::{self, Listed};
use super::{EXTENSIONS, SERVER_NAME, Server, Watch};
use crate::engine::admission::Guard;
use crate::error::{Error, Kind, Result};
use crate::model::catalog::Entry;
use crate::protocol::{grpc as codec, open_inference as pb, wire};
use crate::telemetry::metrics::{Protocol, Spent};
use crate::tensor::Excerpt;

const SERVICE: &str = "/inference.GRPCInferenceService/";
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// A flag for compression and the message's length.
const PREFIX_BYTES: usize = 5;
/// Everything but predictions asks in a few bytes: a name and a version.
const MAX_QUESTION_BYTES: usize = 4 << 10;

pub async fn handle(server: &Server, context: &Context, request: Request<Incoming>) -> Response<ResponseBody> {
    let path = request.uri().path().to_owned();
    let answered = match path.strip_prefix(SERVICE) {
        Some("ModelInfer") => return infer(server, context, request).await,
        Some(method) => describe(server, context, method, request).await,
        None => Err(Error::new(Kind::NoRoute, format!("no such service: {}", Excerpt(&path)))),
    };
    answered.map_or_else(|error| refusal(&error), respond)
}

/// Everything but predictions. These are let in also under overload, since the kubelet may be the one who asks.
async fn describe(
    server: &Server,
    context: &Context,
    method: &str,
    request: Request<Incoming>,
) -> Result<ResponseBody> {
    let body = uncompressed(request)?;
    let limits = body::BodyLimits { max_bytes: MAX_QUESTION_BYTES, ..body_limits(server, context) };
    let body = body::read(body, limits, None).await?;
    match method {
        "ServerLive" => {
            let pb::ServerLiveRequest {} = message(&body)?;
            reply(&pb::ServerLiveResponse { live: true })
        }
        "ServerReady" => {
            let pb::ServerReadyRequest {} = message(&body)?;
            reply(&pb::ServerReadyResponse { ready: server.is_ready() })
        }
        "ServerMetadata" => {
            let pb::ServerMetadataRequest {} = message(&body)?;
            reply(&pb::ServerMetadataResponse {
                name: SERVER_NAME.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                extensions: EXTENSIONS.map(str::to_owned).to_vec(),
            })
        }
        "ModelReady" => {
            let pb::ModelReadyRequest { name, version } = message(&body)?;
            let entry = find(server, &name, &version)?;
            reply(&pb::ModelReadyResponse { ready: entry.is_ready() && !server.is_draining() })
        }
        "RepositoryIndex" => {
            let pb::RepositoryIndexRequest { ready, .. } = message(&body)?;
            let models = repository::index(server, ready).into_iter();
            let models = models.map(|Listed { name, version, state, reason }| {
                let state = state.to_owned();
                pb::repository_index_response::ModelIndex { name, version, state, reason }
            });
            reply(&pb::RepositoryIndexResponse { models: models.collect() })
        }
        "RepositoryModelLoad" => {
            let pb::RepositoryModelLoadRequest { repository_name, model_name, parameters } = message(&body)?;
            if !parameters.is_empty() {
                return Err(repository::refuse_parameters());
            }
            let model_name = if model_name.is_empty() { repository_name } else { model_name };
            repository::load(server, context, &model_name).await?;
            reply(&pb::RepositoryModelLoadResponse { model_name, is_loaded: true })
        }
        "RepositoryModelUnload" => {
            let pb::RepositoryModelUnloadRequest { repository_name, model_name, .. } = message(&body)?;
            let model_name = if model_name.is_empty() { repository_name } else { model_name };
            repository::unload(server, context, &model_name).await?;
            reply(&pb::RepositoryModelUnloadResponse { model_name, is_unloaded: true })
        }
        "ModelMetadata" => {
            let pb::ModelMetadataRequest { name, version } = message(&body)?;
            let entry = find(server, &name, &version)?;
            let served = entry.served()?;
            reply(&codec::metadata(&entry.name, &served.version, served.platform, &served.signature))
        }
        _ => Err(Error::new(Kind::NoRoute, format!("no such method: {}", Excerpt(method)))),
    }
}

async fn infer(server: &Server, context: &Context, request: Request<Incoming>) -> Response<ResponseBody> {
    let mut watch = Watch::new(&server.metrics, Protocol::Grpc, context);
    let mut found = None;
    let predicted = predict(server, context, request, |entry| {
        watch.found(entry.metrics());
        found = Some(entry.clone());
    });
    let answered = predicted.await;
    watch.finish(answered).unwrap_or_else(|error| {
        let mut response = refusal(&error);
        found.iter().for_each(|entry| super::name_version(&mut response, &entry.version()));
        response
    })
}

async fn predict(
    server: &Server,
    context: &Context,
    request: Request<Incoming>,
    found: impl FnOnce(&Arc<Entry>),
) -> Result<(Response<ResponseBody>, Spent)> {
    context.check()?;
    let body = uncompressed(request)?;
    let guard = Arc::new(server.engine.admit(context.terms.started)?);
    let body = body::read(body, body_limits(server, context), Some(&guard)).await?;

    let began = Instant::now();
    let (size, work) = (body.len(), guard.clone());
    let message = super::apart(size, move || decode(&body, &work)).await?;
    let entry = find(server, &message.model_name, &message.model_version)?;
    found(&entry);
    let served = entry.served()?;
    server.engine.turn_away(&served, &context.terms, context.terms.is_deadline_set)?;
    let (request, raw) = super::apart(size, move || codec::decode(message)).await?;
    let decode = began.elapsed();

    let began = Instant::now();
    let answer = server.engine.infer(&entry, &served, request, &context.terms).await?;
    let infer = began.elapsed();

    let began = Instant::now();
    guard.release_bytes(); // the message and its inputs are gone
    guard.grow(answer.data_bytes().saturating_mul(2))?; // as tensors, and as a message
    let encoded = super::apart(answer.data_bytes(), move || frame(&codec::encode(answer, raw))).await?;
    let mut response = respond(ResponseBody::held(encoded, guard));
    super::name_version(&mut response, &served.version);
    Ok((response, Spent { decode, infer, encode: began.elapsed() }))
}

/// Counts what the message will take, then decodes it.
fn decode(body: &Bytes, guard: &Guard) -> Result<pb::ModelInferRequest> {
    let bytes = unframed(body)?;
    guard.grow(wire::infer_request_bytes(&bytes)?)?;
    pb::ModelInferRequest::decode(bytes).map_err(|error| malformed(&error))
}

fn message<M: Message + Default>(body: &Bytes) -> Result<M> {
    M::decode(unframed(body)?).map_err(|error| malformed(&error))
}

fn malformed(error: &prost::DecodeError) -> Error {
    Error::invalid(format!("the message cannot be decoded: {error}"))
}

/// The one message of a unary request.
fn unframed(body: &Bytes) -> Result<Bytes> {
    let Some((prefix, rest)) = body.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(Error::invalid("the request has no message"));
    };
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err(unsupported_encoding("unnamed"));
    }
    let declared = u32::from_be_bytes(length) as usize;
    if declared != rest.len() {
        return Err(Error::invalid(format!("the message is declared with {declared} bytes and has {}", rest.len())));
    }
    Ok(body.slice(PREFIX_BYTES..))
}

/// A stream that is not read to its end disturbs no other.
fn body_limits(server: &Server, context: &Context) -> body::BodyLimits {
    body::BodyLimits { discard_rest: false, ..server.body_limits(context) }
}

fn uncompressed(request: Request<Incoming>) -> Result<Incoming> {
    let encoding = request.headers().get("grpc-encoding").filter(|encoding| *encoding != "identity");
    match encoding {
        Some(encoding) => Err(unsupported_encoding(encoding.to_str().unwrap_or("unknown"))),
        None => Ok(request.into_body()),
    }
}

fn unsupported_encoding(encoding: &str) -> Error {
    let encoding = Excerpt(encoding);
    Error::new(Kind::Unsupported, format!("grpc-encoding {encoding} is not supported: send messages uncompressed"))
}

fn reply(message: &impl Message) -> Result<ResponseBody> {
    frame(message).map(ResponseBody::new)
}

fn frame(message: &impl Message) -> Result<Vec<u8>> {
    let length = message.encoded_len();
    let declared = u32::try_from(length).map_err(|_| {
        Error::new(Kind::TooLarge, "the answer is over the 4 GiB of a gRPC message: ask for fewer rows")
    })?;
    let mut framed = Vec::with_capacity(PREFIX_BYTES + length);
    framed.put_u8(0);
    framed.put_u32(declared);
    message.encode(&mut framed).map_err(|error| Error::internal(format!("cannot encode the answer: {error}")))?;
    Ok(framed)
}

fn respond(body: ResponseBody) -> Response<ResponseBody> {
    let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))]);
    let mut response = Response::new(body.with_trailers(trailers));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// An error is an answer without a message: its status comes with the headers.
fn refusal(error: &Error) -> Response<ResponseBody> {
    /// What `grpc-message` may not hold as it is.
    const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');
    let message = utf8_percent_encode(error.message(), ESCAPED).to_string();
    let mut response = Response::new(ResponseBody::default());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    headers.insert("grpc-status", HeaderValue::from(error.kind().grpc()));
    headers.insert("grpc-message", HeaderValue::from_str(&message).unwrap_or(HeaderValue::from_static("")));
    if let Some(details) = error.retry_after().and_then(|time| HeaderValue::from_str(&status(error, time)).ok()) {
        headers.insert("grpc-status-details-bin", details);
    }
    response
}

/// The error once more, with a `google.rpc.RetryInfo`, as clients' libraries look for it. Source: googleapis,
/// `google/rpc/status.proto` and `google/rpc/error_details.proto`.
fn status(error: &Error, retry_after: Duration) -> String {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Status {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
        #[prost(message, repeated, tag = "3")]
        details: Vec<Any>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Any {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        retry_delay: Option<Delay>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Delay {
        #[prost(int64, tag = "1")]
        seconds: i64,
        #[prost(int32, tag = "2")]
        nanos: i32,
    }
    let seconds = i64::try_from(retry_after.as_secs()).unwrap_or(i64::MAX);
    let delay = Delay { seconds, nanos: retry_after.subsec_nanos().cast_signed() };
    let info = RetryInfo { retry_delay: Some(delay) };
    let detail = Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value: info.encode_to_vec() };
    let status = Status { code: error.kind().grpc(), message: error.message().to_owned(), details: vec![detail] };
    STANDARD_NO_PAD.encode(status.encode_to_vec())
}

/// In gRPC an absent version is an empty string.
fn find(server: &Server, name: &str, version: &str) -> Result<Arc<Entry>> {
    server.engine.catalog().find(name, (!version.is_empty()).then_some(version))
}
