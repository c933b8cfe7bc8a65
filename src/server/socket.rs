//! One connection's socket: what its first bytes say, and a peer that stops reading.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};

/// How an HTTP/2 connection with prior knowledge begins (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Waits until the peer has said enough to know what it speaks: hyper waits for ever. Nothing is consumed.
///
/// # Errors
/// When the peer says nothing for `limit`, or goes away.
pub async fn first_bytes(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    let wait = async {
        let mut seen = [0; PREFACE.len()];
        let mut pause = Duration::from_millis(5);
        loop {
            let count = stream.peek(&mut seen).await?;
            let undecided = count > 0 && count < PREFACE.len() && seen[..count] == PREFACE[..count];
            if !undecided {
                return if count > 0 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            // A preface in pieces: peeking does not wait for more, so look again, more and more seldom.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    };
    timeout(limit, wait).await?
}

/// Tells a connection that there are too many, and gives the peer a moment to read it.
pub async fn refuse(stream: &TcpStream) {
    const TEXT: &str = "{\"error\":\"too many connections (--max_connections): try again later\"}";
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{TEXT}",
        TEXT.len()
    );
    let say = async {
        first_bytes(stream, Duration::from_secs(1)).await?;
        stream.writable().await?;
        stream.try_write(answer.as_bytes())?; // a socket that was just opened has room for it
        // What is unread when the socket closes resets the connection before the answer is read.
        let mut rest = [0; 4096];
        for _ in 0..64 {
            stream.readable().await?;
            match stream.try_read(&mut rest) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        io::Result::Ok(())
    };
    let _ = timeout(Duration::from_secs(1), say).await; // the peer may be gone
}

/// A stream whose writes fail when the peer takes nothing for a while: an answer must not be held for ever.
pub struct Patient {
    inner: TokioIo<TcpStream>,
    patience: Duration,
    /// Set while the peer owes us room.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    pub fn new(stream: TcpStream, patience: Duration) -> Patient {
        Patient { inner: TokioIo::new(stream), patience, stalled: None }
    }

    fn or_stalled<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Read for Patient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl Write for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.or_stalled(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, pieces);
        self.or_stalled(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
