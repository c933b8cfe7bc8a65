//! The gRPC front end: `inference.GRPCInferenceService` on the same engine and the same error table.

use std::sync::{Arc, Weak};
use std::time::Instant;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tonic::{Code, Status};
use tower_service::Service as _;

use super::body::{LimitedBody, ResponseBody};
use super::context::Context;
use super::{EXTENSIONS, SERVER_NAME, Server, Watch};
use crate::config::ServerConfig;
use crate::engine::admission::Guard;
use crate::error::{Error, Result};
use crate::model::catalog::Entry;
use crate::protocol::grpc as codec;
use crate::protocol::open_inference as pb;
use crate::telemetry::metrics::{Protocol, Spent};
use pb::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};

pub type Service = GrpcInferenceServiceServer<Rpcs>;

/// The service for one server, which owns it: hence the weak reference back. Messages are limited by
/// [`LimitedBody`], as on REST.
pub fn service(server: Weak<Server>) -> Service {
    GrpcInferenceServiceServer::new(Rpcs(server)).max_decoding_message_size(usize::MAX)
}

pub async fn handle(server: &Arc<Server>, context: Context, mut request: Request<Incoming>) -> Response<ResponseBody> {
    // A refusal before the message is whole: no model is known yet, so none is blamed.
    let started = context.started;
    let refuse = move |server: &Server, error: &Error| {
        server.unknown_model().observe_failure(Protocol::Grpc, started.elapsed(), error.kind());
        status(error)
    };
    let guard = match server.engine.admit() {
        Ok(guard) => Arc::new(guard),
        Err(error) => return refuse(server, &error).into_http().map(ResponseBody::Grpc),
    };
    request.extensions_mut().insert(context);
    request.extensions_mut().insert(guard.clone());
    let ServerConfig { max_body_bytes, body_timeout, .. } = server.config;
    let counting = server.clone();
    let request = request.map(|body| {
        let limited = LimitedBody::new(body, guard, max_body_bytes, body_timeout);
        limited.map_err(move |error| refuse(&counting, &error))
    });
    match server.grpc.clone().call(request).await {
        Ok(response) => response.map(ResponseBody::Grpc),
        Err(never) => match never {},
    }
}

pub struct Rpcs(Weak<Server>);

impl Rpcs {
    fn server(&self) -> Result<Arc<Server>, Status> {
        self.0.upgrade().ok_or_else(|| Status::unavailable("the server is going away"))
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Rpcs {
    async fn server_live(
        &self,
        _: tonic::Request<pb::ServerLiveRequest>,
    ) -> Result<tonic::Response<pb::ServerLiveResponse>, Status> {
        Ok(tonic::Response::new(pb::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: tonic::Request<pb::ServerReadyRequest>,
    ) -> Result<tonic::Response<pb::ServerReadyResponse>, Status> {
        Ok(tonic::Response::new(pb::ServerReadyResponse { ready: self.server()?.is_ready() }))
    }

    async fn model_ready(
        &self,
        request: tonic::Request<pb::ModelReadyRequest>,
    ) -> Result<tonic::Response<pb::ModelReadyResponse>, Status> {
        let pb::ModelReadyRequest { name, version } = request.into_inner();
        let server = self.server()?;
        let entry = find(&server, &name, &version).map_err(|error| status(&error))?;
        Ok(tonic::Response::new(pb::ModelReadyResponse { ready: entry.is_ready() && !server.is_draining() }))
    }

    async fn server_metadata(
        &self,
        _: tonic::Request<pb::ServerMetadataRequest>,
    ) -> Result<tonic::Response<pb::ServerMetadataResponse>, Status> {
        Ok(tonic::Response::new(pb::ServerMetadataResponse {
            name: SERVER_NAME.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).to_vec(),
        }))
    }

    async fn model_metadata(
        &self,
        request: tonic::Request<pb::ModelMetadataRequest>,
    ) -> Result<tonic::Response<pb::ModelMetadataResponse>, Status> {
        let pb::ModelMetadataRequest { name, version } = request.into_inner();
        let entry = find(&*self.server()?, &name, &version).map_err(|error| status(&error))?;
        let served = entry.served().map_err(|error| status(&error))?;
        let metadata = codec::metadata(&entry.name, &served.version, served.platform, &served.signature);
        Ok(tonic::Response::new(metadata))
    }

    async fn model_infer(
        &self,
        request: tonic::Request<pb::ModelInferRequest>,
    ) -> Result<tonic::Response<pb::ModelInferResponse>, Status> {
        let server = self.server()?;
        let (_, extensions, message) = request.into_parts();
        let missing = || Status::internal("a request came past the server's front door");
        let context = extensions.get::<Context>().ok_or_else(missing)?;
        let guard = extensions.get::<Arc<Guard>>().ok_or_else(missing)?;
        let entry = find(&server, &message.model_name, &message.model_version);
        let mut watch = Watch::new(server.metrics_of(&entry), Protocol::Grpc, context);
        let answered = match &entry {
            Ok(entry) => predict(&server, context, guard, entry, message).await,
            Err(error) => Err(error.replicate()),
        };
        watch.finish(answered).map(tonic::Response::new).map_err(|error| status(&error))
    }
}

async fn predict(
    server: &Server,
    context: &Context,
    guard: &Guard,
    entry: &Entry,
    message: pb::ModelInferRequest,
) -> Result<(pb::ModelInferResponse, Spent)> {
    let served = entry.served()?;
    let began = Instant::now();
    let (request, raw) = codec::decode(message)?;
    if !raw {
        guard.grow(request.inputs.iter().map(|input| input.data().len()).sum())?;
    }
    let decode = began.elapsed();

    let began = Instant::now();
    let answer = server.engine.infer(entry, &served, request, context.deadline).await?;
    let infer = began.elapsed();

    let began = Instant::now();
    let response = codec::encode(answer, raw);
    Ok((response, Spent { decode, infer, encode: began.elapsed() }))
}

/// In gRPC an absent version is an empty string.
fn find(server: &Server, name: &str, version: &str) -> Result<Arc<Entry>> {
    server.engine.catalog().find(name, (!version.is_empty()).then_some(version))
}

fn status(error: &Error) -> Status {
    Status::new(Code::from_i32(error.kind().grpc()), error.message())
}
