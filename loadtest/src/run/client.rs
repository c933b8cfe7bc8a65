//! Sends requests to a V1, V2 or gRPC server, on as many connections as it takes.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::bodies::Prepared;
use super::scenario::Protocol;
use super::targets::Target;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// HTTP's, also for what gRPC says in its own words.
    pub status: u16,
    /// The model's version that answered, where the server says it.
    pub version: Option<String>,
    pub says_when_to_retry: bool,
}

pub struct Client {
    target: Target,
    idle: RefCell<Vec<http1::SendRequest<Full<Bytes>>>>,
    streams: RefCell<Vec<http2::SendRequest<Full<Bytes>>>>,
    next: Cell<usize>,
}

/// Connections for gRPC: one carries hundreds of requests at once.
const CHANNELS: usize = 4;

impl Client {
    pub fn new(target: Target) -> Client {
        Client { target, idle: RefCell::default(), streams: RefCell::default(), next: Cell::new(0) }
    }

    /// Sends one request and reads the whole answer.
    pub async fn send(
        &self,
        protocol: Protocol,
        prepared: &Prepared,
        variant: usize,
        deadline: Option<Duration>,
    ) -> Result<Answer> {
        let mut request = Request::post(if protocol == Protocol::Grpc {
            format!("http://{}{}", self.target.authority, prepared.path)
        } else {
            prepared.path.clone()
        });
        request = request.header("host", &self.target.authority);
        for (name, value) in &prepared.headers {
            request = request.header(name, value);
        }
        if let Some(deadline) = deadline {
            request = match protocol {
                Protocol::Grpc => request.header("grpc-timeout", format!("{}u", deadline.as_micros())),
                _ => request.header("x-request-timeout-ms", deadline.as_millis().to_string()),
            };
        }
        let request = request.body(Full::new(prepared.bodies[variant % prepared.bodies.len()].clone()))?;
        if protocol == Protocol::Grpc { self.stream(request).await } else { self.exchange(request).await }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer> {
        let idle = self.idle.borrow_mut().pop();
        let mut connection = match idle.filter(http1::SendRequest::is_ready) {
            Some(connection) => connection,
            None => {
                let (connection, driver) = http1::handshake(TokioIo::new(connect(self.target.address).await?)).await?;
                tokio::task::spawn_local(driver);
                connection
            }
        };
        let response = connection.send_request(request).await?;
        let answer = answer_of(response.status().as_u16(), &response);
        response.into_body().collect().await?;
        self.idle.borrow_mut().push(connection);
        Ok(answer)
    }

    async fn stream(&self, request: Request<Full<Bytes>>) -> Result<Answer> {
        while self.streams.borrow().len() < CHANNELS {
            let io = TokioIo::new(connect(self.target.address).await?);
            let (connection, driver) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::task::spawn_local(driver);
            self.streams.borrow_mut().push(connection);
        }
        self.next.set(self.next.get().wrapping_add(1));
        let mut connection = self.streams.borrow()[self.next.get() % CHANNELS].clone();
        connection.ready().await?;
        let response = connection.send_request(request).await?;
        if response.status() != 200 {
            bail!("HTTP status {} for a gRPC call", response.status());
        }
        let mut answer = answer_of(200, &response);
        let early = response.headers().get("grpc-status").cloned();
        let body = response.into_body().collect().await?;
        let late = body.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
        let code = early.or(late).context("the answer has no grpc-status")?;
        answer.status = match code.to_str().unwrap_or_default() {
            "0" => 200,
            "3" => 400,
            "4" => 504,
            "5" => 404,
            "8" => 429,
            "14" => 503,
            _ => 500,
        };
        Ok(answer)
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn answer_of(status: u16, response: &Response<Incoming>) -> Answer {
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Answer {
        status,
        version: header("x-model-version"),
        says_when_to_retry: header("retry-after").or_else(|| header("grpc-status-details-bin")).is_some(),
    }
}
