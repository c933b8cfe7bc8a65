//! A network between a client and a server that have none: each request takes a while to get there, and each
//! connection carries so many bytes of answers a second.
//!
//! Requests have no bodies and wait for the answer before, as those for objects do. Splicing answers from socket to socket
//! takes a third less processor time than copying them, and still carried less: 1.3 GB/s instead of 1.6 from MinIO to
//! curl on two cores (2026-11-20).

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lexopt::prelude::*;

/// What is let through at once: 2.6 milliseconds of a connection of 50 MB/s.
const PIECE_BYTES: usize = 128 << 10;
const MAX_HEAD_BYTES: usize = 64 << 10;

#[derive(Clone, Copy, Debug)]
pub struct Options {
    listen: SocketAddr,
    upstream: SocketAddr,
    delay: Duration,
    bytes_per_second: f64,
}

impl Options {
    pub fn parse(args: &mut lexopt::Parser) -> Result<Self> {
        let (mut listen, mut upstream, mut delay, mut megabytes) = (None, None, None, None);
        while let Some(arg) = args.next()? {
            match arg {
                Long("listen") => listen = Some(args.value()?.parse()?),
                Long("upstream") => upstream = Some(args.value()?.parse()?),
                Long("delay-ms") => delay = Some(Duration::from_millis(args.value()?.parse()?)),
                Long("mbytes-per-second") => megabytes = Some(args.value()?.parse::<u32>()?),
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(Self {
            listen: listen.context("--listen is missing")?,
            upstream: upstream.context("--upstream is missing")?,
            delay: delay.context("--delay-ms is missing")?,
            bytes_per_second: f64::from(megabytes.context("--mbytes-per-second is missing")?) * 1e6,
        })
    }
}

pub fn run(options: &Options) -> Result<()> {
    let listener = TcpListener::bind(options.listen).with_context(|| format!("listening on {}", options.listen))?;
    println!("listening {}", listener.local_addr()?);
    serve(&listener, *options)
}

fn serve(listener: &TcpListener, options: Options) -> Result<()> {
    loop {
        let (client, _) = listener.accept()?;
        thread::spawn(move || {
            if let Err(error) = connect(&client, options) {
                eprintln!("slow-proxy: {error}");
            }
        });
    }
}

/// Carries a connection to its end. Either side may hang up, which ends the other.
fn connect(client: &TcpStream, options: Options) -> io::Result<()> {
    let server = TcpStream::connect(options.upstream)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let line = Line { bytes_per_second: options.bytes_per_second, free: Mutex::new(Instant::now()) };
    let hang_up = || [client, &server].iter().for_each(|side| drop(side.shutdown(Shutdown::Both)));
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = carry_requests(client, &server, &line, options.delay); // an error is one side's end, too
            hang_up();
        });
        let _ = carry_answers(&server, client, &line);
        hang_up();
    });
    Ok(())
}

fn carry_requests(mut client: &TcpStream, mut server: &TcpStream, line: &Line, delay: Duration) -> io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while request.len() < MAX_HEAD_BYTES {
        let read = client.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&buffer[..read]);
        if request.ends_with(b"\r\n\r\n") {
            thread::sleep(delay);
            line.begin();
            server.write_all(&request)?;
            request.clear();
        }
    }
    Ok(())
}

fn carry_answers(mut server: &TcpStream, mut client: &TcpStream, line: &Line) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = server.read(&mut piece)?;
        if read == 0 {
            return Ok(());
        }
        line.carry(read);
        client.write_all(&piece[..read])?;
    }
}

/// When a connection has carried all that it was given. By a schedule and not by pauses, whose errors would add up.
struct Line {
    bytes_per_second: f64,
    free: Mutex<Instant>,
}

impl Line {
    /// What was not used while nobody asked for anything is lost.
    fn begin(&self) {
        let mut free = self.free.lock().expect("no thread panics with it");
        *free = (*free).max(Instant::now());
    }

    /// Waits until so many bytes have arrived on the other side.
    #[allow(clippy::cast_precision_loss)] // bytes of a piece
    fn carry(&self, bytes: usize) {
        let mut free = self.free.lock().expect("no thread panics with it");
        *free += Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        let until = *free;
        drop(free);
        thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers every request with so many bytes that count up.
    fn counting_server(bytes: usize) -> Result<SocketAddr> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        thread::spawn(move || -> io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            let answer: Vec<u8> = (0..=250).cycle().take(bytes).collect();
            let mut request = [0; 64];
            while stream.read(&mut request)? > 0 {
                stream.write_all(&answer)?;
            }
            Ok(())
        });
        Ok(address)
    }

    /// What one request after the other gets through a proxy, and how long that takes.
    fn ask(requests: usize, bytes: usize, delay: Duration, bytes_per_second: f64) -> Result<(Vec<u8>, Duration)> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let listen = listener.local_addr()?;
        let options = Options { listen, upstream: counting_server(bytes)?, delay, bytes_per_second };
        thread::spawn(move || serve(&listener, options));
        let mut stream = TcpStream::connect(listen)?;
        stream.set_nodelay(true)?;
        let mut answer = vec![0; bytes];
        let began = Instant::now();
        for _ in 0..requests {
            // In pieces, which are one request.
            stream.write_all(b"GET / HTTP/1.1\r\n")?;
            stream.write_all(b"\r\n")?;
            stream.read_exact(&mut answer)?;
        }
        Ok((answer, began.elapsed()))
    }

    #[test]
    fn a_connection_is_capped() {
        let (answer, taken) = ask(1, 4_000_000, Duration::ZERO, 20e6).unwrap();
        assert!(answer.iter().zip((0..=250).cycle()).all(|(got, sent)| *got == sent));
        assert!(taken >= Duration::from_millis(200), "{taken:?}");
        assert!(taken < Duration::from_secs(1), "{taken:?}");
    }

    #[test]
    fn a_request_takes_longer() {
        let (_, taken) = ask(20, 10, Duration::from_millis(5), 1e9).unwrap();
        assert!(taken >= Duration::from_millis(100), "{taken:?}");
        assert!(taken < Duration::from_secs(1), "{taken:?}");
    }
}
