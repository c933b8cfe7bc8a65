//! One connection, plain or TLS, and the heads of answers that come over it.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::proxy::Proxy;
use super::{Failure, Origin, Patience};

/// Heads of S3 and of model hubs are a tenth of this.
const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 128;
/// Of status 1xx, before an answer.
const MAX_INTERIM: usize = 16;
/// How often a thread that waits looks whether it should stop.
const GLANCE: Duration = Duration::from_millis(200);

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

pub(super) struct Connection {
    stream: Stream,
    /// What came with a head and belongs to what follows it.
    ahead: Vec<u8>,
    /// How much of that is used.
    used: usize,
    patience: Patience,
    opened: Instant,
    stopped: Arc<AtomicBool>,
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub keeps_alive: bool,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

impl Connection {
    pub fn open(
        origin: &Origin,
        proxy: Option<&Proxy>,
        tls: &Arc<ClientConfig>,
        patience: Patience,
        stopped: Arc<AtomicBool>,
    ) -> Result<Connection, Failure> {
        let tcp = match proxy {
            None => connect(origin, patience.connect)?,
            Some(proxy) => connect(&proxy.origin, patience.connect).map_err(|failure| proxy.failed(&failure))?,
        };
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(GLANCE))?;
        tcp.set_write_timeout(Some(patience.silence))?;
        let (stream, opened) = (Stream::Plain(tcp), Instant::now());
        let mut connection = Connection { stream, ahead: Vec::new(), used: 0, patience, opened, stopped };
        if !origin.https {
            return Ok(connection);
        }
        proxy.map_or(Ok(()), |proxy| connection.tunnel(origin, proxy))?;
        connection.encrypt(origin, tls)
    }

    /// Lets the proxy connect this with the server.
    fn tunnel(&mut self, origin: &Origin, proxy: &Proxy) -> Result<(), Failure> {
        let (server, header) = (origin.authority(), proxy.header());
        let said = self.ask_for_tunnel(&server, &header);
        match said.map_err(|failure| proxy.failed(&failure))? {
            200..300 if self.is_clean() => Ok(()),
            status => Err(proxy.refused(status)),
        }
    }

    fn ask_for_tunnel(&mut self, server: &str, header: &str) -> Result<u16, Failure> {
        self.write(format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n{header}\r\n").as_bytes())?;
        Ok(self.read_head()?.status)
    }

    fn encrypt(self, origin: &Origin, tls: &Arc<ClientConfig>) -> Result<Connection, Failure> {
        let wrong = |_| Failure::Protocol(format!("\"{}\" is no name that a certificate could have", origin.name));
        let name = ServerName::try_from(origin.name.clone()).map_err(wrong)?;
        let session = ClientConnection::new(tls.clone(), name).map_err(Failure::Tls)?;
        let stream = match self.stream {
            Stream::Plain(tcp) => Stream::Tls(Box::new(StreamOwned::new(session, tcp))),
            tls @ Stream::Tls(_) => tls,
        };
        Ok(Connection { stream, ..self })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        // TLS shakes hands here, and may have to wait for the other side more than once.
        let since = Instant::now();
        let mut left = bytes;
        while !left.is_empty() {
            let written = match &mut self.stream {
                Stream::Plain(stream) => stream.write(left),
                Stream::Tls(stream) => stream.write(left),
            };
            match written {
                Ok(0) => return Err(Failure::Closed),
                Ok(written) => left = &left[written..],
                Err(error) => self.wait_on(error, since)?,
            }
        }
        let since = Instant::now();
        while let Stream::Tls(stream) = &mut self.stream {
            match stream.flush() {
                Ok(()) => break,
                Err(error) => self.wait_on(error, since)?,
            }
        }
        Ok(())
    }

    /// Some bytes, as many as have come at most; 0 when the other side has closed.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let ahead = &self.ahead[self.used..];
        if !ahead.is_empty() {
            let count = ahead.len().min(buffer.len());
            buffer[..count].copy_from_slice(&ahead[..count]);
            self.used += count;
            return Ok(count);
        }
        self.receive(buffer)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let since = Instant::now();
        loop {
            if self.stopped.load(Ordering::Relaxed) {
                return Err(Failure::Stopped);
            }
            if self.opened.elapsed() >= self.patience.whole {
                return Err(Failure::Silence);
            }
            let read = match &mut self.stream {
                Stream::Plain(stream) => stream.read(buffer),
                Stream::Tls(stream) => stream.read(buffer),
            };
            match read {
                Ok(count) => return Ok(count),
                Err(error) => self.wait_on(error, since)?,
            }
        }
    }

    /// Nothing, when the error only means that there is nothing yet.
    fn wait_on(&self, error: io::Error, since: Instant) -> Result<(), Failure> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(Failure::Stopped);
        }
        let waits = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        let goes_on = error.kind() == io::ErrorKind::Interrupted || (waits && since.elapsed() < self.patience.silence);
        if goes_on { Ok(()) } else { Err(error.into()) }
    }

    /// Reads up to and including the next line feed.
    pub fn read_line(&mut self, most: usize) -> Result<Vec<u8>, Failure> {
        let mut searched = self.used;
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.ahead[searched..]) {
                let line = self.ahead[self.used..=searched + end].to_vec();
                self.used = searched + end + 1;
                return Ok(line);
            }
            searched = self.ahead.len();
            if searched - self.used > most {
                return Err(Failure::Protocol(format!("a line of more than {most} bytes")));
            }
            let dropped = self.fill()?;
            searched -= dropped;
        }
    }

    /// The head of an answer, after those of status 1xx.
    pub fn read_head(&mut self) -> Result<Head, Failure> {
        let mut interim = 0;
        loop {
            if let Some((head, bytes)) = parse(&self.ahead[self.used..])? {
                self.used += bytes;
                if !(100..200).contains(&head.status) {
                    return Ok(head);
                }
                interim += 1;
                if interim > MAX_INTERIM {
                    return Err(Failure::Protocol(format!("more than {MAX_INTERIM} answers that are none yet (1xx)")));
                }
                continue;
            }
            if self.ahead.len() - self.used > MAX_HEAD_BYTES {
                return Err(Failure::Protocol(format!("an answer whose head is longer than {MAX_HEAD_BYTES} bytes")));
            }
            self.fill()?;
        }
    }

    /// Reads more ahead; how many used bytes were dropped for it.
    fn fill(&mut self) -> Result<usize, Failure> {
        const STEP: usize = 8 << 10;
        let dropped = self.used;
        self.ahead.drain(..dropped);
        self.used = 0;
        let have = self.ahead.len();
        let mut ahead = std::mem::take(&mut self.ahead);
        ahead.resize(have + STEP, 0);
        let read = self.receive(&mut ahead[have..]);
        ahead.truncate(have + *read.as_ref().unwrap_or(&0));
        self.ahead = ahead;
        if read? == 0 { Err(Failure::Closed) } else { Ok(dropped) }
    }

    /// Whether nothing is left over from the last answer.
    pub fn is_clean(&self) -> bool {
        self.used == self.ahead.len()
    }
}

fn connect(origin: &Origin, patience: Duration) -> Result<TcpStream, Failure> {
    let addresses = (origin.name.as_str(), origin.port).to_socket_addrs().map_err(Failure::Name)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(Failure::Connect(last))
}

/// A head and its length; `None` when it is not all there.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(Failure::Protocol(format!("what came is no HTTP ({error})"))),
    };
    let own = |header: &httparse::Header<'_>| {
        (header.name.to_owned(), String::from_utf8_lossy(header.value).trim().to_owned())
    };
    let headers: Vec<(String, String)> = parsed.headers.iter().map(own).collect();
    let mut head = Head { status: parsed.code.unwrap_or(0), headers, keeps_alive: false };
    let says = head.header("connection").unwrap_or_default().to_ascii_lowercase();
    head.keeps_alive = if parsed.version == Some(1) { !says.contains("close") } else { says.contains("keep-alive") };
    Ok(Some((head, length)))
}
