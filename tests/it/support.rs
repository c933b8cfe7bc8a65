//! A server on a free port, and plain clients for it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use stoker::app::{Addresses, App, Shutdown};
use stoker::config::Config;
use stoker::protocol::open_inference as pb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Status;

/// Long enough for a slow machine, short enough to fail in.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The reference cases that onnxruntime's Python computed for a model.
pub fn reference(model: &str) -> Vec<Value> {
    let path = repository().join("tests/models").join(model).join("reference.json");
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["cases"].as_array().unwrap().clone()
}

/// A running server; stop it with [`Running::stop`].
pub struct Running {
    pub addresses: Addresses,
    shutdown: oneshot::Sender<Shutdown>,
    pub done: JoinHandle<stoker::error::Result<()>>,
}

pub fn config(model: &str, flags: &[&str]) -> Config {
    let directory = repository().join("tests/models").join(model);
    let mut args = vec![
        "--host=127.0.0.1".to_owned(),
        "--http_port=0".to_owned(),
        "--shutdown_delay_seconds=0".to_owned(),
        format!("--model_name={model}"),
        format!("--model_dir={}", directory.display()),
    ];
    args.extend(flags.iter().map(|flag| (*flag).to_owned()));
    Config::parse(&args, &|_| None).unwrap()
}

impl Running {
    pub fn start(config: Config) -> Running {
        let app = App::bind(config).unwrap();
        let addresses = app.addresses();
        let (shutdown, asked) = oneshot::channel();
        let done = tokio::spawn(app.run(async { asked.await.unwrap_or(Shutdown::Prompt) }));
        Running { addresses, shutdown, done }
    }

    /// Serves one of `tests/models` and waits until it is ready.
    pub async fn serve(model: &str, flags: &[&str]) -> Running {
        let running = Running::start(config(model, flags));
        running.wait_until_ready().await;
        running
    }

    pub async fn wait_until_ready(&self) {
        let ready = async {
            while self.get("/v2/health/ready").await.ok().is_none_or(|reply| reply.status != 200) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.expect("the server becomes ready");
    }

    pub async fn get(&self, path: &str) -> io::Result<Reply> {
        Connection::open(self.addresses.http).await?.send("GET", path, &[], b"").await
    }

    pub async fn post(&self, path: &str, body: &[u8]) -> Reply {
        let mut connection = Connection::open(self.addresses.http).await.unwrap();
        connection.send("POST", path, &[("content-type", "application/json")], body).await.unwrap()
    }

    pub fn grpc(&self) -> Grpc {
        grpc(self.addresses.http)
    }

    /// Asks the server to stop and waits for it.
    pub async fn stop(self, how: Shutdown) -> stoker::error::Result<()> {
        let _ = self.shutdown.send(how);
        tokio::time::timeout(PATIENCE, self.done).await.expect("the server stops").expect("the server does not panic")
    }

    /// Asks the server to stop, without waiting.
    pub fn ask_to_stop(self, how: Shutdown) -> (Addresses, JoinHandle<stoker::error::Result<()>>) {
        let _ = self.shutdown.send(how);
        (self.addresses, self.done)
    }
}

/// A client of `inference.GRPCInferenceService`, on tonic: somebody else's idea of gRPC.
pub struct Grpc(tonic::client::Grpc<Client<HttpConnector, tonic::body::Body>>);

pub fn grpc(address: SocketAddr) -> Grpc {
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let origin = format!("http://{address}").parse().unwrap();
    Grpc(tonic::client::Grpc::with_origin(client, origin).max_decoding_message_size(usize::MAX))
}

impl Grpc {
    /// Calls a method by its name.
    pub async fn call<Q, A>(&mut self, method: &str, request: impl tonic::IntoRequest<Q>) -> Result<A, Status>
    where
        Q: prost::Message + Send + 'static,
        A: prost::Message + Default + Send + 'static,
    {
        self.0.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = format!("/inference.GRPCInferenceService/{method}").parse().unwrap();
        let answer = self.0.unary(request.into_request(), path, tonic_prost::ProstCodec::<Q, A>::default()).await?;
        Ok(answer.into_inner())
    }

    pub async fn infer(
        &mut self,
        request: impl tonic::IntoRequest<pb::ModelInferRequest>,
    ) -> Result<pb::ModelInferResponse, Status> {
        self.call("ModelInfer", request).await
    }
}

/// One answer over HTTP/1.1.
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status, stoker::tensor::Excerpt(&self.text()))
    }
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no error: {}", self.text())).to_owned()
    }
}

/// A kept HTTP/1.1 connection that writes exactly what it is told, right or wrong.
pub struct Connection {
    stream: TcpStream,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> io::Result<Connection> {
        Ok(Connection { stream: TcpStream::connect(address).await? })
    }

    pub async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Reply> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        self.write(format!("{head}\r\n").as_bytes()).await?;
        self.write(body).await?;
        self.read().await
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    pub async fn read(&mut self) -> io::Result<Reply> {
        tokio::time::timeout(PATIENCE, self.read_reply()).await.expect("an answer comes")
    }

    async fn read_reply(&mut self) -> io::Result<Reply> {
        let mut received = Vec::new();
        let (head_end, length) = loop {
            let head_end = received.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = head_end {
                let head = String::from_utf8_lossy(&received[..end]).into_owned();
                let reply = Reply { status: 0, head, body: Vec::new() };
                break (end, reply.header("content-length").map_or(0, |length| length.parse::<usize>().unwrap()));
            }
            if self.stream.read_buf(&mut received).await? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the connection was closed without an answer",
                ));
            }
        };
        while received.len() < head_end + 4 + length {
            if self.stream.read_buf(&mut received).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer was cut off"));
            }
        }
        let head = String::from_utf8_lossy(&received[..head_end]).into_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok(Reply { status, head, body: received[head_end + 4..head_end + 4 + length].to_vec() })
    }
}

/// The value of one sample, as `/metrics` shows it; 0 when it is not there.
pub async fn metric(server: &Running, sample: &str) -> f64 {
    let text = server.get("/metrics").await.unwrap().text();
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

/// Waits until the condition holds.
pub async fn until(condition: impl AsyncFn() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the condition holds in time");
}

/// Sends bytes as a unary gRPC request, right or wrong, and gives the status and its message.
pub async fn grpc_bytes(address: SocketAddr, method: &str, body: Vec<u8>) -> (i32, String) {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = http::Request::post(format!("http://{address}/inference.GRPCInferenceService/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body.into());
    let answer = tokio::time::timeout(PATIENCE, client.request(request.unwrap())).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    let (head, body) = answer.into_parts();
    let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or(head.headers);
    let text = |name| trailers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    (text("grpc-status").parse().unwrap(), text("grpc-message"))
}

/// Puts the length in front of a message, as gRPC wants it.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message].concat()
}

/// splitmix64: small, seeded, and the same everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// Runs futures of one kind together and gives their results in order.
pub async fn futures_join<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for (future, output) in futures.iter_mut().filter(|(_, output)| output.is_none()) {
            match future.as_mut().poll(cx) {
                std::task::Poll::Ready(done) => *output = Some(done),
                std::task::Poll::Pending => pending = true,
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}
