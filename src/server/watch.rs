//! Sees one prediction to its end: counts it and logs it, also when its caller goes away half-way.

use std::sync::Arc;

use super::context::Context;
use crate::error::{Error, Result};
use crate::telemetry::metrics::{ModelMetrics, Protocol, Spent};

pub struct Watch<'a> {
    metrics: Arc<ModelMetrics>,
    protocol: Protocol,
    context: &'a Context,
    finished: bool,
}

impl<'a> Watch<'a> {
    pub fn new(metrics: Arc<ModelMetrics>, protocol: Protocol, context: &'a Context) -> Watch<'a> {
        Watch { metrics, protocol, context, finished: false }
    }

    /// Takes note of how it ended, and passes on the answer.
    pub fn finish<T>(&mut self, answered: Result<(T, Spent)>) -> Result<T> {
        self.finished = true;
        let took = self.context.started.elapsed();
        match answered {
            Ok((answer, spent)) => {
                self.metrics.observe_answer(self.protocol, took, spent);
                tracing::debug!(
                    request_id = %self.context.request_id,
                    trace_id = format_args!("{:032x}", self.context.trace.trace_id),
                    span_id = format_args!("{:016x}", self.context.trace.span_id),
                    model = self.metrics.name(),
                    protocol = self.protocol.name(),
                    seconds = took.as_secs_f64(),
                    decode_seconds = spent.decode.as_secs_f64(),
                    infer_seconds = spent.infer.as_secs_f64(),
                    encode_seconds = spent.encode.as_secs_f64(),
                    "request answered"
                );
                Ok(answer)
            }
            Err(error) => {
                self.metrics.observe_failure(self.protocol, took, error.kind());
                self.log_failure(&error, took.as_secs_f64());
                Err(error)
            }
        }
    }

    /// Our failures are worth a line always; a client's mistakes only when somebody looks for them.
    fn log_failure(&self, error: &Error, seconds: f64) {
        macro_rules! event {
            ($level:ident) => {
                tracing::$level!(
                    request_id = %self.context.request_id,
                    trace_id = format_args!("{:032x}", self.context.trace.trace_id),
                    span_id = format_args!("{:016x}", self.context.trace.span_id),
                    model = self.metrics.name(),
                    protocol = self.protocol.name(),
                    code = error.kind().http(),
                    seconds,
                    %error,
                    "request failed"
                )
            };
        }
        if error.kind().http() == 500 { event!(error) } else { event!(debug) }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.metrics.observe_cancelled();
            tracing::debug!(request_id = %self.context.request_id, model = self.metrics.name(), "caller went away");
        }
    }
}
