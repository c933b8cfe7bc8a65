//! Sees one prediction to its end: counts it and logs it, also when its caller goes away half-way.

use std::sync::Arc;

use super::context::Context;
use crate::error::{Error, Result};
use crate::telemetry::metrics::{Metrics, ModelMetrics, Protocol, Spent};

pub struct Watch<'a> {
    metrics: &'a Metrics,
    /// `None` until it is known, and for good when the request names no model that we have.
    model: Option<Arc<ModelMetrics>>,
    protocol: Protocol,
    context: &'a Context,
    finished: bool,
}

impl<'a> Watch<'a> {
    pub fn new(metrics: &'a Metrics, protocol: Protocol, context: &'a Context) -> Watch<'a> {
        Watch { metrics, model: None, protocol, context, finished: false }
    }

    /// The request is for this model, or for one of which too little is known to count.
    pub fn found(&mut self, model: Option<Arc<ModelMetrics>>) {
        self.model = model;
    }

    /// Takes note of how it ended, and passes on the answer.
    pub fn finish<T>(mut self, answered: Result<(T, Spent)>) -> Result<T> {
        self.finished = true;
        let took = self.context.terms.started.elapsed();
        match (&answered, &self.model) {
            (Ok((_, spent)), Some(model)) => model.observe_answer(self.protocol, took, *spent),
            (Err(error), Some(model)) => model.observe_failure(self.protocol, took, error.kind()),
            (Err(error), None) => self.metrics.observe_stray(self.protocol, error.kind()),
            (Ok(_), None) => unreachable!("an answer comes from a model"),
        }
        match answered {
            Ok((answer, spent)) => {
                tracing::debug!(
                    request_id = %self.context.request_id,
                    trace_id = self.context.trace.trace_id_text(),
                    span_id = self.context.trace.span_id_text(),
                    model = self.model_name(),
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
                    trace_id = self.context.trace.trace_id_text(),
                    span_id = self.context.trace.span_id_text(),
                    model = self.model_name(),
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

    fn model_name(&self) -> &str {
        self.model.as_ref().map_or("", |model| model.name())
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        match &self.model {
            Some(model) => model.observe_cancelled(),
            None => self.metrics.observe_stray_cancelled(),
        }
        tracing::debug!(request_id = %self.context.request_id, model = self.model_name(), "caller went away");
    }
}
