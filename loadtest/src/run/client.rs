//! Sends requests to a V1, V2 or gRPC server, on as many connections as it takes.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::Mutex;

use super::bodies::Prepared;
use super::door::Door;
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
    /// What a refusal says, its beginning.
    pub reason: String,
}

pub struct Client {
    target: Target,
    rest: Door,
    grpc: Door,
    idle: RefCell<Vec<http1::SendRequest<Full<Bytes>>>>,
    channels: [Channel; CHANNELS],
    next: Cell<usize>,
}

/// Connections for gRPC: one carries hundreds of requests at once.
const CHANNELS: usize = 4;
/// Bytes of a reason.
const MOST_SAID: usize = 300;

type Channel = Mutex<Option<http2::SendRequest<Full<Bytes>>>>;

impl Client {
    pub fn new(target: Target) -> Client {
        let [rest, grpc] = [&target.rest, &target.grpc].map(|address| Door::new(address.clone()));
        Client { target, rest, grpc, idle: RefCell::default(), channels: Default::default(), next: Cell::new(0) }
    }

    /// Sends one request and reads the whole answer.
    pub async fn send(
        &self,
        protocol: Protocol,
        prepared: &Prepared,
        variant: usize,
        deadline: Option<Duration>,
    ) -> Result<Answer> {
        let mut request = if protocol == Protocol::Grpc {
            let grpc = &self.target.grpc;
            Request::post(format!("{}://{}{}", grpc.scheme(), grpc.authority, prepared.path))
        } else {
            let rest = &self.target.rest;
            Request::post(format!("{}{}", rest.prefix, prepared.path)).header("host", &rest.authority)
        };
        for (name, value) in &prepared.headers {
            request = request.header(name, value);
        }
        if let Some(deadline) = deadline {
            request = match protocol {
                // Of 8 digits at the most.
                Protocol::Grpc => request.header("grpc-timeout", format!("{}m", deadline.as_millis())),
                _ => request.header("x-request-timeout-ms", deadline.as_millis().to_string()),
            };
        }
        let body = &prepared.bodies[variant % prepared.bodies.len()];
        if let Some(length) = body.json_length {
            request = request.header("inference-header-content-length", length);
        }
        let request = request.body(Full::new(body.bytes.clone()))?;
        if protocol == Protocol::Grpc { self.stream(request).await } else { self.exchange(request).await }
    }

    async fn exchange(&self, mut request: Request<Full<Bytes>>) -> Result<Answer> {
        loop {
            let idle = self.idle();
            let is_new = idle.is_none();
            let mut connection = match idle {
                Some(connection) => connection,
                None => {
                    let (connection, driver) = http1::handshake(TokioIo::new(self.rest.open().await?)).await?;
                    tokio::task::spawn_local(driver);
                    connection
                }
            };
            match connection.try_send_request(request).await {
                Ok(response) => {
                    let mut answer = answer_of(response.status().as_u16(), &response);
                    let body = response.into_body().collect().await?.to_bytes();
                    if answer.status != 200 {
                        answer.reason = String::from_utf8_lossy(&body[..body.len().min(MOST_SAID)]).into_owned();
                    }
                    self.idle.borrow_mut().push(connection);
                    return Ok(answer);
                }
                Err(error) => request = unsent(error, is_new)?,
            }
        }
    }

    /// A connection on which a request can be sent; those that were closed meanwhile are forgotten.
    fn idle(&self) -> Option<http1::SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.borrow_mut();
        std::iter::from_fn(|| idle.pop()).find(http1::SendRequest::is_ready)
    }

    async fn stream(&self, mut request: Request<Full<Bytes>>) -> Result<Answer> {
        self.next.set(self.next.get().wrapping_add(1));
        let channel = &self.channels[self.next.get() % CHANNELS];
        loop {
            let (mut connection, is_new) = self.channel(channel).await?;
            match connection.try_send_request(request).await {
                Ok(response) => return grpc_answer(response).await,
                Err(error) => request = unsent(error, is_new)?,
            }
        }
    }

    /// The connection of a channel, and whether it was made just now: there was none, or it was closed.
    async fn channel(&self, channel: &Channel) -> Result<(http2::SendRequest<Full<Bytes>>, bool)> {
        let mut channel = channel.lock().await; // one is made, not one for each request that waits
        if let Some(connection) = &mut *channel
            && connection.ready().await.is_ok()
        {
            return Ok((connection.clone(), false));
        }
        *channel = None;
        let io = TokioIo::new(self.grpc.open().await?);
        let (connection, driver) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::task::spawn_local(driver);
        Ok((channel.insert(connection).clone(), true))
    }
}

/// The request, when nothing of it was sent because the connection had been closed before.
fn unsent(mut error: TrySendError<Request<Full<Bytes>>>, is_new: bool) -> Result<Request<Full<Bytes>>> {
    match error.take_message() {
        Some(request) if !is_new => Ok(request),
        _ => Err(error.into_error().into()),
    }
}

async fn grpc_answer(response: Response<Incoming>) -> Result<Answer> {
    if response.status() != 200 {
        bail!("HTTP status {} for a gRPC call", response.status());
    }
    let mut answer = answer_of(200, &response);
    let mut told = response.headers().clone();
    if let Some(trailers) = response.into_body().collect().await?.trailers() {
        told.extend(trailers.clone());
    }
    let code = told.get("grpc-status").context("the answer has no grpc-status")?;
    if let Some(message) = told.get("grpc-message") {
        answer.reason = String::from_utf8_lossy(&message.as_bytes()[..message.len().min(MOST_SAID)]).into_owned();
    }
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

fn answer_of(status: u16, response: &Response<Incoming>) -> Answer {
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Answer {
        status,
        version: header("x-model-version").filter(|version| !version.is_empty()),
        says_when_to_retry: header("retry-after").or_else(|| header("grpc-status-details-bin")).is_some(),
        reason: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hyper::service::service_fn;
    use hyper_util::server::conn::auto;
    use tokio::net::TcpListener;
    use tokio::task::LocalSet;

    use super::*;
    use crate::run::bodies::Body;

    /// Answers one request on each connection and closes it then.
    async fn one_each(listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answered = std::rc::Rc::new(tokio::sync::Notify::new());
            let done = answered.clone();
            let service = service_fn(move |_| {
                answered.notify_one();
                let answer = Response::builder().header("grpc-status", "0").body(Full::<Bytes>::default());
                std::future::ready(Ok::<_, Infallible>(answer.unwrap()))
            });
            let server = auto::Builder::new(TokioExecutor::new());
            let serving = server.serve_connection(TokioIo::new(stream), service);
            let soon = async {
                done.notified().await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            tokio::select! {
                _ = serving => {}
                () = soon => {}
            }
        }
    }

    #[tokio::test]
    async fn a_connection_that_broke_is_made_anew() {
        let play = async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = Target::parse(&format!("http://{}", listener.local_addr().unwrap()), 0).unwrap();
            tokio::task::spawn_local(one_each(listener));
            let bodies = vec![Body { bytes: Bytes::new(), json_length: None }];
            let prepared = Prepared { path: "/".to_owned(), headers: Vec::new(), bodies };
            for protocol in [Protocol::V2, Protocol::Grpc] {
                let client = Client::new(target.clone());
                for _ in 0..2 * CHANNELS + 1 {
                    assert_eq!(client.send(protocol, &prepared, 0, None).await.unwrap().status, 200, "{protocol:?}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        LocalSet::new().run_until(play).await;
    }
}
