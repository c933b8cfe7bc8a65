//! The floor: the least a hyper server can do and still be a correct peer of stoker.
//!
//! It reads the whole request, answers 200 with a fixed JSON body, and keeps the connection open.
//! It has no routing, parsing, limits, timeouts, metrics or HTTP/2, so that what stoker spends
//! beyond this is what stoker's own work costs.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use lexopt::prelude::*;
use tokio::net::TcpListener;
use tokio::runtime;

pub struct Options {
    port: u16,
    body_file: PathBuf,
}

impl Options {
    pub fn parse(args: &mut lexopt::Parser) -> Result<Self> {
        let (mut port, mut body_file) = (None, None);
        while let Some(arg) = args.next()? {
            match arg {
                Long("port") => port = Some(args.value()?.parse()?),
                Long("body-file") => body_file = Some(args.value()?.into()),
                _ => return Err(arg.unexpected().into()),
            }
        }
        Ok(Self { port: port.context("--port is missing")?, body_file: body_file.context("--body-file is missing")? })
    }
}

pub fn run(options: &Options) -> Result<()> {
    let body = std::fs::read(&options.body_file).with_context(|| format!("reading {}", options.body_file.display()))?;

    // On one CPU, which is how it is measured, a second thread would only add hand-overs.
    let mut runtime = match thread::available_parallelism()?.get() {
        1 => runtime::Builder::new_current_thread(),
        _ => runtime::Builder::new_multi_thread(),
    };
    runtime.enable_io().build()?.block_on(serve(options.port, body.into()))
}

async fn serve(port: u16, body: Bytes) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let body = body.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(request, body.clone()));
            // An error here is the peer's: it hung up or did not speak HTTP. The load generator
            // is that peer and reports it.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

async fn answer(request: Request<Incoming>, body: Bytes) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut request_body = request.into_body();
    while request_body.frame().await.is_some() {}

    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
