//! One error type for the whole server, and the one table that says what each kind means to a client.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub type Result<T, E = Error> = std::result::Result<T, E>;
type Source = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong, as the caller must know it. Whose mistake it is decides the status: nothing a client
/// sends may be answered with [`Kind::Internal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// The request contradicts the protocol or the model's signature.
    Invalid,
    /// No such model or version.
    NotFound,
    /// No such path.
    NoRoute,
    /// The path exists, the method does not.
    Method,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body is over the cap.
    TooLarge,
    /// The body is of a media type we do not read.
    MediaType,
    /// A queue or a byte budget is full.
    Overloaded,
    /// What waits takes so long that the answer would come after the deadline.
    Busy,
    /// A bug or a failing model.
    Internal,
    /// What is asked for exists in the protocol, but not for this model.
    Unsupported,
    /// The model or the server is loading or draining.
    NotReady,
    /// The process that computed it has ended.
    Lost,
    /// The deadline passed before the answer was there.
    Deadline,
    /// A model could not be fetched, recognised or loaded. Ends the process, so clients never see it.
    Load,
}

impl Kind {
    /// HTTP status and gRPC status code (google.rpc.Code), side by side so that they cannot drift.
    pub const fn codes(self) -> (u16, i32) {
        match self {
            Kind::Invalid => (400, 3),      // INVALID_ARGUMENT
            Kind::NotFound => (404, 5),     // NOT_FOUND
            Kind::NoRoute => (404, 12),     // UNIMPLEMENTED
            Kind::Method => (405, 12),      // UNIMPLEMENTED
            Kind::BodyTimeout => (408, 4),  // DEADLINE_EXCEEDED
            Kind::TooLarge => (413, 8),     // RESOURCE_EXHAUSTED
            Kind::MediaType => (415, 3),    // INVALID_ARGUMENT
            Kind::Overloaded => (429, 8),   // RESOURCE_EXHAUSTED
            Kind::Busy => (429, 8),         // RESOURCE_EXHAUSTED
            Kind::Internal => (500, 13),    // INTERNAL
            Kind::Unsupported => (501, 12), // UNIMPLEMENTED
            Kind::NotReady => (503, 14),    // UNAVAILABLE
            Kind::Lost => (503, 14),        // UNAVAILABLE
            Kind::Deadline => (504, 4),     // DEADLINE_EXCEEDED
            Kind::Load => (500, 13),        // INTERNAL
        }
    }

    pub const fn http(self) -> u16 {
        self.codes().0
    }

    pub const fn grpc(self) -> i32 {
        self.codes().1
    }

    /// The `reason` label of `stoker_rejected_total`; `None` when the request was accepted and then failed.
    pub const fn rejection(self) -> Option<&'static str> {
        match self {
            Kind::Invalid
            | Kind::NotFound
            | Kind::NoRoute
            | Kind::Method
            | Kind::MediaType
            | Kind::BodyTimeout
            | Kind::Unsupported => Some("invalid"),
            Kind::TooLarge => Some("too_large"),
            Kind::Overloaded => Some("queue_full"),
            Kind::NotReady => Some("not_ready"),
            Kind::Busy | Kind::Deadline => Some("deadline"),
            Kind::Internal | Kind::Lost | Kind::Load => None,
        }
    }
}

/// An error whose message is written for the person who can act on it: it names what was wrong and what to do.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Source>,
    retry_after: Option<Duration>,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), source: None, retry_after: None }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Error::new(Kind::Invalid, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Error::new(Kind::Internal, message)
    }

    pub fn load(message: impl Into<String>) -> Self {
        Error::new(Kind::Load, message)
    }

    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says in how long the same could be answered.
    #[must_use]
    pub fn with_retry_after(mut self, time: Duration) -> Self {
        self.retry_after = Some(time);
        self
    }

    /// In how long the same could be answered, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Says where the error happened, in front of what happened: `input "x": expected FP32`.
    #[must_use]
    pub fn context(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message alone, as a client sees it.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// A copy for each of several callers that failed together; the source stays with the original, which is logged.
    #[must_use]
    pub fn replicate(&self) -> Self {
        Error::new(self.kind, self.message.clone())
    }
}

impl fmt::Display for Error {
    /// The message and its causes on one line, as logs and the termination message want it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let text = error.to_string();
            // Many libraries repeat their source in their own message: once is enough.
            if !self.message.contains(&text) {
                write!(f, ": {text}")?;
            }
            cause = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
