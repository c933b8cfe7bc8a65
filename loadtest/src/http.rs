//! As much HTTP/1.1 as a client needs that always sends the same request.
//!
//! A client library would cost the generator's core as much as hyper costs the server's; a request
//! built once and a response parsed in place leave the server as the bottleneck.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Room for the headers of a response; more than this is an error, not a truncation.
const MAX_HEADERS: usize = 32;

/// How long [`exchange`] waits for a server to accept, to read, or to say more.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);

/// The bytes of a request: a POST of `body` as JSON, or a GET where there is none.
pub fn request(server: SocketAddr, path: &str, body: Option<&str>) -> Vec<u8> {
    match body {
        Some(body) => format!(
            "POST {path} HTTP/1.1\r\nhost: {server}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ),
        None => format!("GET {path} HTTP/1.1\r\nhost: {server}\r\n\r\n"),
    }
    .into_bytes()
}

#[derive(Debug, PartialEq)]
pub struct Response<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

/// Parses `bytes`, everything received since the request was sent. `None` asks for more of it.
pub fn parse_response(bytes: &[u8]) -> Result<Option<Response<'_>>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let body_start = match head.parse(bytes)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };

    let length: usize = head
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok())
        .context("the response has no valid Content-Length")?;
    let received = &bytes[body_start..];
    if received.len() > length {
        bail!("the response is longer than its Content-Length of {length}");
    }
    Ok((received.len() == length)
        .then_some(Response { status: head.code.context("the response has no status")?, body: received }))
}

/// Sends one request on a connection of its own and returns the status and the body.
pub fn exchange(server: SocketAddr, request: &[u8]) -> Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&server, EXCHANGE_TIMEOUT)?;
    stream.set_read_timeout(Some(EXCHANGE_TIMEOUT))?;
    stream.set_write_timeout(Some(EXCHANGE_TIMEOUT))?;
    stream.write_all(request)?;

    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk)? {
            0 => bail!("the server closed the connection before it had answered"),
            length => received.extend_from_slice(&chunk[..length]),
        }
        if let Some(response) = parse_response(&received)? {
            return Ok((response.status, response.body.to_vec()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 2\r\n\r\n{}";

    #[test]
    fn a_response_is_complete_only_with_its_last_byte() {
        for length in 0..OK.len() {
            assert_eq!(parse_response(&OK[..length]).unwrap(), None, "{length}");
        }
        let response = parse_response(OK).unwrap().unwrap();
        assert_eq!((response.status, response.body), (200, &b"{}"[..]));
    }

    #[test]
    fn a_response_without_a_body_ends_with_its_head() {
        let response = parse_response(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
        let response = response.unwrap().unwrap();
        assert_eq!((response.status, response.body), (503, &b""[..]));
    }

    #[test]
    fn what_cannot_be_framed_is_an_error() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: two\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 200 OK",
            b"SSH-2.0-OpenSSH\r\n",
        ] {
            assert!(parse_response(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_request_is_framed_by_its_body() {
        let server = "127.0.0.1:80".parse().unwrap();
        let post = String::from_utf8(request(server, "/p", Some("{}"))).unwrap();
        assert!(post.starts_with("POST /p HTTP/1.1\r\nhost: 127.0.0.1:80\r\n"));
        assert!(post.ends_with("content-length: 2\r\n\r\n{}"));
        assert!(request(server, "/p", None).ends_with(b":80\r\n\r\n"));
    }
}
