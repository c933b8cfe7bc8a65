//! Bodies: request bodies that are capped, counted and not waited for for ever; response bodies of both front ends.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use crate::engine::admission::Guard;
use crate::error::{Error, Kind, Result};

/// How much of an unwanted body is read and thrown away, so that a client that is still writing gets to read the
/// answer instead of a reset connection.
const DISCARD_BYTES: usize = 256 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(10);

/// A request body within its limits. Every byte is accounted for in the request's [`Guard`].
pub struct LimitedBody {
    inner: Incoming,
    guard: Arc<Guard>,
    max_bytes: usize,
    seen: usize,
    patience: Duration,
    /// Set while the peer owes us data.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl LimitedBody {
    pub fn new(inner: Incoming, guard: Arc<Guard>, max_bytes: usize, patience: Duration) -> LimitedBody {
        LimitedBody { inner, guard, max_bytes, seen: 0, patience, stalled: None }
    }

    /// The whole body in one piece.
    ///
    /// # Errors
    /// [`Kind::TooLarge`], [`Kind::Overloaded`], [`Kind::BodyTimeout`], or [`Kind::Invalid`] when the peer breaks off.
    pub async fn read(mut self) -> Result<Bytes> {
        let collected = self.collect_frames().await;
        if collected.as_ref().is_err_and(|error| matches!(error.kind(), Kind::TooLarge | Kind::Overloaded)) {
            discard(self.inner).await;
        }
        collected
    }

    async fn collect_frames(&mut self) -> Result<Bytes> {
        let declared = self.inner.size_hint().exact().unwrap_or(0);
        if declared > self.max_bytes as u64 {
            return Err(self.too_large());
        }
        // Most bodies come in one frame and are passed on as they are.
        let mut first = Bytes::new();
        let mut joined = BytesMut::new();
        while let Some(frame) = self.frame().await {
            let Ok(data) = frame?.into_data() else { continue }; // trailers mean nothing to us
            if first.is_empty() && joined.is_empty() {
                first = data;
                continue;
            }
            if joined.is_empty() {
                joined.reserve(usize::try_from(declared).unwrap_or(0).max(first.len() + data.len()));
                joined.extend_from_slice(&std::mem::take(&mut first));
            }
            joined.extend_from_slice(&data);
        }
        Ok(if joined.is_empty() { first } else { joined.freeze() })
    }

    fn too_large(&self) -> Error {
        Error::new(
            Kind::TooLarge,
            format!("the request body is larger than {} bytes (--max_body_bytes)", self.max_bytes),
        )
    }
}

/// Reads what is left of a body that nobody wants, within bounds, so that its connection can be used again.
pub async fn discard(mut body: Incoming) {
    let until = Instant::now() + DISCARD_TIME;
    let mut left = DISCARD_BYTES;
    while let Ok(Some(Ok(frame))) = tokio::time::timeout_at(until, body.frame()).await {
        let size = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(size) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

impl Body for LimitedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
            let patience = this.patience;
            let stalled = this.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
            ready!(stalled.as_mut().poll(cx));
            let text = format!("the request body made no progress for {} s", patience.as_secs_f64());
            return Poll::Ready(Some(Err(Error::new(Kind::BodyTimeout, text))));
        };
        this.stalled = None;
        Poll::Ready(match frame {
            None => None,
            Some(Err(error)) => Some(Err(Error::invalid("the request body broke off").with_source(error))),
            Some(Ok(frame)) => {
                let size = frame.data_ref().map_or(0, Bytes::len);
                this.seen += size;
                if this.seen > this.max_bytes {
                    Some(Err(this.too_large()))
                } else {
                    Some(this.guard.grow(size).map(|()| frame))
                }
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What goes back to hyper: a finished REST answer, or whatever tonic streams.
pub enum ResponseBody {
    Rest(Full<Bytes>),
    Grpc(tonic::body::Body),
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        match self.get_mut() {
            ResponseBody::Rest(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            ResponseBody::Grpc(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Rest(body) => body.is_end_stream(),
            ResponseBody::Grpc(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Rest(body) => body.size_hint(),
            ResponseBody::Grpc(body) => body.size_hint(),
        }
    }
}
