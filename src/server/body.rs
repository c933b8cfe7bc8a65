//! Bodies: request bodies that are capped, counted and not waited for for ever; answers that are counted until their
//! last byte is written.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::engine::admission::Guard;
use crate::error::{Error, Kind, Result};

/// How much of an unwanted body is read and thrown away, so that a client that is still writing gets to read the
/// answer instead of a reset connection.
const DISCARD_BYTES: usize = 256 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(10);

/// What a request body may be.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    pub max_bytes: usize,
    /// How long it may make no progress.
    pub patience: Duration,
    /// When it must be complete.
    pub deadline: std::time::Instant,
    /// Whether what is too much is read all the same and thrown away, as HTTP/1.1 needs to use the connection again.
    pub discard_rest: bool,
}

/// Reads a whole body. Every byte is accounted for in `guard`.
///
/// # Errors
/// [`Kind::TooLarge`], [`Kind::Overloaded`], [`Kind::BodyTimeout`], [`Kind::Deadline`], or [`Kind::Invalid`] when the peer breaks off.
pub async fn read(body: Incoming, limits: BodyLimits, guard: Option<&Guard>) -> Result<Bytes> {
    let mut reader = Reader { inner: body, limits, stalled: None };
    let read = reader.read(guard).await;
    let refused = read.as_ref().is_err_and(|error| matches!(error.kind(), Kind::TooLarge | Kind::Overloaded));
    if refused && limits.discard_rest {
        discard(reader.inner).await;
    }
    read
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

pub fn too_large(max_bytes: usize) -> Error {
    Error::new(Kind::TooLarge, format!("the request body is larger than {max_bytes} bytes (--max_body_bytes)"))
}

struct Reader {
    inner: Incoming,
    limits: BodyLimits,
    /// Set while the peer owes us data.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Reader {
    async fn read(&mut self, guard: Option<&Guard>) -> Result<Bytes> {
        let max_bytes = self.limits.max_bytes;
        let declared = usize::try_from(self.inner.size_hint().exact().unwrap_or(0)).unwrap_or(usize::MAX);
        if declared > max_bytes {
            return Err(too_large(max_bytes));
        }
        let mut counted = declared;
        guard.map_or(Ok(()), |guard| guard.grow(declared))?;
        // Most bodies come in one frame and are passed on as they are.
        let mut first = Bytes::new();
        let mut joined = BytesMut::new();
        let mut seen = 0;
        while let Some(frame) = self.frame().await? {
            let Ok(data) = frame.into_data() else { continue }; // trailers mean nothing to us
            seen += data.len();
            if seen > max_bytes {
                return Err(too_large(max_bytes));
            }
            if let Some(beyond) = seen.checked_sub(counted) {
                guard.map_or(Ok(()), |guard| guard.grow(beyond))?;
                counted = seen;
            }
            if first.is_empty() && joined.is_empty() {
                first = data;
                continue;
            }
            if joined.is_empty() {
                joined.reserve(declared.max(first.len() + data.len()));
                joined.extend_from_slice(&std::mem::take(&mut first));
            }
            joined.extend_from_slice(&data);
        }
        Ok(if joined.is_empty() { first } else { joined.freeze() })
    }

    async fn frame(&mut self) -> Result<Option<Frame<Bytes>>> {
        std::future::poll_fn(|cx| self.poll_frame(cx)).await
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>>> {
        let BodyLimits { patience, deadline, .. } = self.limits;
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
            let until = || (Instant::now() + patience).min(deadline.into());
            let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep_until(until())));
            ready!(stalled.as_mut().poll(cx));
            let error = if deadline <= std::time::Instant::now() {
                Error::new(Kind::Deadline, "the request body was not complete by the request's deadline")
            } else {
                let text = format!("the request body made no progress for {} s", patience.as_secs_f64());
                Error::new(Kind::BodyTimeout, text)
            };
            return Poll::Ready(Err(error));
        };
        self.stalled = None;
        Poll::Ready(match frame {
            None => Ok(None),
            Some(Ok(frame)) => Ok(Some(frame)),
            Some(Err(error)) => Err(Error::invalid("the request body broke off").with_source(error)),
        })
    }
}

/// An answer: its data, and for gRPC the trailers after it.
#[derive(Default)]
pub struct ResponseBody {
    data: Bytes,
    trailers: Option<HeaderMap>,
    progress: Option<Arc<Progress>>,
}

/// How much of an answer is handed to hyper at once: each piece that is taken shows that the peer still reads.
const PIECE_BYTES: usize = 256 << 10;

/// Owns bytes that hyper has not written yet, and whatever must live as long as they do.
struct Held<T> {
    data: Bytes,
    #[allow(dead_code)] // only there to be dropped
    until_written: T,
}

impl<T> AsRef<[u8]> for Held<T> {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl ResponseBody {
    pub fn new(data: Vec<u8>) -> ResponseBody {
        ResponseBody { data: data.into(), ..ResponseBody::default() }
    }

    /// Data whose request counts as in flight until hyper has written it.
    pub fn held(data: Vec<u8>, guard: Arc<Guard>) -> ResponseBody {
        let data = Bytes::from_owner(Held { data: data.into(), until_written: guard });
        ResponseBody { data, ..ResponseBody::default() }
    }

    #[must_use]
    pub fn with_trailers(self, trailers: HeaderMap) -> ResponseBody {
        ResponseBody { trailers: Some(trailers), ..self }
    }

    /// Lets `answers` see whether this one gets on.
    pub fn watch(&mut self, answers: &Answers) {
        self.progress = Some(answers.add());
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.data.is_empty() {
            return Poll::Ready(self.trailers.take().map(Frame::trailers).map(Ok));
        }
        let size = self.data.len().min(PIECE_BYTES);
        let mut piece = self.data.split_to(size);
        if let Some(progress) = &self.progress {
            progress.made();
            piece = Bytes::from_owner(Held { data: piece, until_written: progress.clone() });
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.len() as u64)
    }
}

/// The answers of one HTTP/2 connection that are not written yet. Flow control lets a peer leave one unread for ever
/// while the connection is in the best of health.
#[derive(Default)]
pub struct Answers(Mutex<Vec<Weak<Progress>>>);

/// When an answer last got on.
pub struct Progress(Mutex<Instant>);

impl Progress {
    fn made(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl Answers {
    fn add(&self) -> Arc<Progress> {
        let progress = Arc::new(Progress(Mutex::new(Instant::now())));
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() == answers.capacity() {
            answers.retain(|answer| answer.strong_count() > 0); // so that the list stays as long as what is open
        }
        answers.push(Arc::downgrade(&progress));
        progress
    }

    /// Comes back when an answer has not got on for as long as `patience`.
    pub async fn stalled(&self, patience: Duration) {
        loop {
            tokio::time::sleep(patience / 2).await;
            let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            answers.retain(|answer| answer.strong_count() > 0);
            let since = |progress: Arc<Progress>| *progress.0.lock().unwrap_or_else(PoisonError::into_inner);
            if answers.iter().filter_map(Weak::upgrade).any(|answer| since(answer).elapsed() > patience) {
                return;
            }
        }
    }
}
