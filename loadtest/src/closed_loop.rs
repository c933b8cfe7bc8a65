//! A closed-loop generator of load: each connection sends its next request when the last one is
//! answered, so the server sets the pace and the result is its capacity.
//!
//! One thread drives every connection through epoll directly. A request costs it one read, one
//! write and a share of an epoll_wait, which no async runtime undercuts, because the generator
//! has one core and must not be slower than the servers it measures.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::http;

/// Latencies are held to three digits, up to a minute.
const LONGEST_LATENCY_NS: u64 = 60_000_000_000;

const INITIAL_BUFFER: usize = 4096;

/// What is sent on every connection, and the only right answer to it.
pub struct Load<'a> {
    pub server: SocketAddr,
    pub request: &'a [u8],
    pub expected_body: &'a [u8],
    pub connections: usize,
}

/// What one call of [`ClosedLoop::drive`] saw.
pub struct Window {
    pub elapsed: Duration,
    /// Nanoseconds from sending a request to having its whole right answer, one for each.
    pub latencies: Histogram<u64>,
    /// Answers that were not 200 with the expected body.
    pub wrong: u64,
}

pub struct ClosedLoop<'a> {
    load: Load<'a>,
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
}

struct Connection {
    stream: TcpStream,
    sent_at: Instant,
    buffer: Vec<u8>,
    filled: usize,
}

impl<'a> ClosedLoop<'a> {
    /// Opens the connections and sends the first request on each.
    pub fn connect(load: Load<'a>) -> Result<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(load.connections);
        for token in 0..load.connections {
            // Connecting blocks, so that the first write below cannot come too early.
            let stream = std::net::TcpStream::connect(load.server).context("connecting")?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut connection = Connection {
                stream: TcpStream::from_std(stream),
                sent_at: Instant::now(),
                buffer: vec![0; INITIAL_BUFFER],
                filled: 0,
            };
            poll.registry().register(&mut connection.stream, Token(token), Interest::READABLE)?;
            connection.send(load.request, Instant::now())?;
            connections.push(connection);
        }
        Ok(Self { events: Events::with_capacity(load.connections), load, poll, connections })
    }

    /// Keeps every connection busy for `duration`. Requests in flight carry over to the next call,
    /// so a call that warms up and a call that measures are one uninterrupted load.
    pub fn drive(&mut self, duration: Duration) -> Result<Window> {
        let mut latencies = Histogram::new_with_bounds(1, LONGEST_LATENCY_NS, 3)?;
        let mut wrong = 0;
        let start = Instant::now();
        let end = start + duration;
        let mut now = start;
        while now < end {
            match self.poll.poll(&mut self.events, Some(end - now)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => result?,
            }
            for event in &self.events {
                let connection = &mut self.connections[event.token().0];
                let Some(right) = connection.receive(self.load.expected_body)? else {
                    continue;
                };

                // One reading of the clock ends this request and starts the next.
                now = Instant::now();
                if right {
                    let latency = now.duration_since(connection.sent_at);
                    latencies.saturating_record(u64::try_from(latency.as_nanos())?);
                } else {
                    wrong += 1;
                }
                connection.send(self.load.request, now)?;
            }
            now = Instant::now();
        }
        let stalled = |connection: &Connection| connection.sent_at < start;
        ensure!(!self.connections.iter().any(stalled), "a request was not answered within {duration:?}");
        Ok(Window { elapsed: now.duration_since(start), latencies, wrong })
    }
}

impl Connection {
    /// Sends a request in one write. The server has read everything before it, so the socket's
    /// buffer is empty and holds any request of a sensible size whole.
    fn send(&mut self, request: &[u8], now: Instant) -> Result<()> {
        self.sent_at = now;
        self.filled = 0;
        let written = self.stream.write(request).context("sending a request")?;
        ensure!(written == request.len(), "a request of {} bytes does not fit the socket's buffer", request.len());
        Ok(())
    }

    /// Reads until the response is whole and says whether it is the right one, or reads until the
    /// socket has no more for now and says nothing.
    ///
    /// Events are edge-triggered, so a response that is still partial must be read until the
    /// socket would block; once it is whole there is nothing left to read, and that call is saved.
    fn receive(&mut self, expected_body: &[u8]) -> Result<Option<bool>> {
        loop {
            if self.filled == self.buffer.len() {
                self.buffer.resize(2 * self.filled, 0);
            }
            match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => bail!("the server closed a connection"),
                Ok(length) => self.filled += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error).context("receiving a response"),
            }
            if let Some(response) = http::parse_response(&self.buffer[..self.filled])? {
                let right = response.status == 200 && response.body == expected_body;
                return Ok(Some(right));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use super::*;

    /// Answers the requests of one connection with `answers`, over and over, sending each in two
    /// parts far enough apart to be read separately.
    fn serve(answers: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            let mut request = [0; 64];
            for answer in answers.iter().cycle() {
                // The generator hangs up when it has seen enough.
                let Ok(1..) = stream.read(&mut request) else {
                    return;
                };
                let (first, rest) = answer.split_at(answer.len() / 2);
                let _ = stream.write_all(first.as_bytes());
                thread::sleep(Duration::from_millis(2));
                let _ = stream.write_all(rest.as_bytes());
            }
        });
        address
    }

    fn drive(server: SocketAddr) -> Result<Window> {
        ClosedLoop::connect(Load { server, request: b"ping", expected_body: b"pong", connections: 1 })?
            .drive(Duration::from_millis(200))
    }

    #[test]
    fn split_answers_are_joined_and_timed() {
        let window = drive(serve(&["HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\npong"])).unwrap();
        assert!(window.latencies.len() > 1);
        assert!(window.latencies.min() >= 2_000_000);
        assert_eq!(window.wrong, 0);
    }

    #[test]
    fn a_wrong_status_or_body_is_counted_apart() {
        let window = drive(serve(&[
            "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\npong",
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\npang",
        ]))
        .unwrap();
        assert!(window.wrong > 1);
        assert_eq!(window.latencies.len(), 0);
    }

    #[test]
    fn a_server_that_stalls_is_an_error() {
        let error = drive(serve(&["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npong"]));
        assert!(error.err().unwrap().to_string().contains("not answered"));
    }
}
