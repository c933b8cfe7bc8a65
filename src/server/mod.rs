//! Sockets. One listener speaks HTTP/1.1, HTTP/2 with prior knowledge (h2c) and gRPC, because Knative allows one
//! port; a second one with the same service may stand beside it.

mod body;
mod context;
mod grpc;
mod repository;
mod rest;
mod socket;
mod watch;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, Version, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::body::{Answers, BodyLimits, ResponseBody};
use self::context::Context;
use self::socket::{Patient, first_bytes, refuse};
use self::watch::Watch;
use crate::config::ServerConfig;
use crate::engine::Engine;
use crate::engine::queue::Depth;
use crate::error::{Error, Kind, Result};
use crate::model::fleet::Fleet;
use crate::telemetry::metrics::{Metrics, Protocol};

/// What we tell clients we are.
const SERVER_NAME: &str = "stoker";
/// Only what is really supported.
const EXTENSIONS: [&str; 2] = ["binary_tensor_data", "model_repository"];

/// Largest request head: a path, an id and a trace context fit many times over.
const MAX_HEAD_BYTES: u32 = 32 << 10;
/// Requests at once on one HTTP/2 connection; a busy gRPC channel uses a hundred, more wait their turn at the client.
const MAX_STREAMS: u32 = 256;
/// How often an HTTP/2 peer is asked whether it is still there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Connections beyond `--max_connections` that wait for a place, and for how long.
const MAX_WAITING: usize = 256;
const MAX_WAIT: Duration = Duration::from_secs(1);

/// What every connection shares.
pub struct Server {
    engine: Arc<Engine>,
    metrics: Arc<Metrics>,
    config: ServerConfig,
    fleet: Arc<Fleet>,
    draining: AtomicBool,
    connections: Arc<Semaphore>,
    /// Of those that wait for a place among the others.
    waiting: Arc<Semaphore>,
}

impl Server {
    pub fn new(engine: Arc<Engine>, metrics: Arc<Metrics>, config: ServerConfig, fleet: Arc<Fleet>) -> Arc<Server> {
        Arc::new(Server {
            connections: Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS))),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            engine,
            metrics,
            config,
            fleet,
            draining: AtomicBool::new(false),
        })
    }

    /// Turns unready for good; requests are still answered.
    pub fn start_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    fn is_ready(&self) -> bool {
        !self.is_draining() && self.fleet.is_ready()
    }

    fn body_limits(&self, context: &Context) -> BodyLimits {
        let ServerConfig { max_body_bytes: max_bytes, body_timeout: patience, .. } = self.config;
        BodyLimits { max_bytes, patience, deadline: context.terms.deadline, discard_rest: true }
    }

    /// Gauges are read when somebody asks, not kept up to date on every request.
    fn sample_gauges(&self) {
        self.metrics.observe_inflight(self.engine.inflight());
        for entry in self.engine.catalog().entries() {
            let depth = entry.served().map_or_else(|_| Depth::default(), |served| served.queue.depth());
            if let Some(metrics) = entry.metrics() {
                metrics.observe_queue(depth);
            }
        }
    }

    /// Accepts connections for ever; drop the future to stop. Connections go on under `graceful`'s watch. When there are as
    /// many as may be, one more waits a moment for a place, and is told then that there is none.
    pub async fn accept(self: Arc<Self>, listener: TcpListener, graceful: Arc<GracefulShutdown>) {
        loop {
            let waits = self.waiting.clone().acquire_owned().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (server, graceful) = (self.clone(), graceful.watcher());
                    tokio::spawn(async move {
                        let place = timeout(MAX_WAIT, server.connections.clone().acquire_owned()).await;
                        if place.is_err() {
                            server.metrics.observe_stray(Protocol::V2, Kind::Overloaded);
                            return refuse(&stream).await;
                        }
                        drop(waits);
                        server.serve(stream, graceful).await;
                        drop(place);
                    });
                }
                // Out of file descriptors, or a peer that was gone at once: the next accept may work.
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, graceful: Watcher) {
        if let Err(error) = first_bytes(&stream, self.config.keep_alive).await {
            tracing::debug!(%error, "connection without a request");
            return;
        }
        let _ = stream.set_nodelay(true); // an error here only costs latency
        let stream = Patient::new(stream, self.config.body_timeout);
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // hyper's header timeout runs from the end of one request, so it is the keep-alive timeout as well.
        builder.http1().timer(TokioTimer::new()).header_read_timeout(self.config.keep_alive).max_buf_size(64 << 10);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD_BYTES)
            .adaptive_window(true);
        let answers = Arc::new(Answers::default());
        let (watched, patience) = (answers.clone(), self.config.body_timeout);
        let service = hyper::service::service_fn(move |request| self.clone().handle(request, answers.clone()));
        let connection = graceful.watch(builder.serve_connection(stream, service).into_owned());
        tokio::select! {
            ended = connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended early");
                }
            }
            () = watched.stalled(patience) => tracing::debug!("connection closed: its peer does not read its answers"),
        }
    }

    async fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        answers: Arc<Answers>,
    ) -> Result<Response<ResponseBody>, Infallible> {
        let version = request.version();
        let context = Context::of(request.headers(), self.config.request_timeout, self.config.tenant_header.as_ref());
        let mut response = if is_grpc(&request) {
            grpc::handle(&self, &context, request).await
        } else {
            rest::handle(&self, &context, request).await
        };
        if version == Version::HTTP_2 {
            response.body_mut().watch(&answers); // on HTTP/1.1 the socket itself tells
        }
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(context.request_id.as_str()) {
            headers.insert("x-request-id", id);
        }
        // Who sent a trace context hears which span of it was ours.
        if let Some(trace) = context.trace.continued().and_then(|trace| HeaderValue::from_str(&trace).ok()) {
            headers.insert("traceparent", trace);
        }
        Ok(response)
    }
}

/// So that a canary's share of the traffic, and of what becomes of it, can be counted by its callers. Before the files have
/// said it there is none.
fn name_version(response: &mut Response<ResponseBody>, version: &str) {
    if let Ok(version) = HeaderValue::from_str(version)
        && !version.is_empty()
    {
        response.headers_mut().insert("x-model-version", version);
    }
}

/// Over HTTP/1.1 there are no trailers to put gRPC's status into: there it is a media type like any other.
fn is_grpc(request: &Request<Incoming>) -> bool {
    let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = media_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    request.version() == Version::HTTP_2
        && request.method() == Method::POST
        && matches!(essence, "application/grpc" | "application/grpc+proto")
}

/// Work on this many bytes takes long enough to hold up everybody else.
const LARGE_BYTES: usize = 256 << 10;

/// Decodes or encodes: on the spot when it is little, on a thread apart when it is much, so that health checks and
/// small requests are answered meanwhile.
async fn apart<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    if bytes < LARGE_BYTES {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::internal(format!("a codec failed: {error}"))))
}
