//! What a request brings in its headers: its id, its trace, and how long its caller will wait.

use std::time::{Duration, Instant};

use http::HeaderMap;

use crate::telemetry::trace::{RequestId, TraceContext};

#[derive(Clone, Debug)]
pub struct Context {
    pub started: Instant,
    pub deadline: Instant,
    pub request_id: RequestId,
    pub trace: TraceContext,
}

impl Context {
    /// The deadline is the caller's (`grpc-timeout`, `x-request-timeout-ms`), but never later than `max_timeout`
    /// from now.
    pub fn of(headers: &HeaderMap, max_timeout: Duration) -> Context {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let asked = text("grpc-timeout")
            .and_then(grpc_timeout)
            .or_else(|| text("x-request-timeout-ms").and_then(|millis| millis.parse().ok()).map(Duration::from_millis));
        let started = Instant::now();
        Context {
            started,
            deadline: started + asked.map_or(max_timeout, |asked| asked.min(max_timeout)),
            request_id: RequestId::from_header(text("x-request-id")),
            trace: TraceContext::from_header(text("traceparent")),
        }
    }
}

/// `grpc-timeout`: at most 8 digits and a unit.
/// Source: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests>.
fn grpc_timeout(header: &str) -> Option<Duration> {
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_have_a_unit() {
        assert_eq!(grpc_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(grpc_timeout("99999999H"), Some(Duration::from_hours(99_999_999)));
        for wrong in ["", "m", "12", "-1S", "123456789S", "1x", "1é"] {
            assert_eq!(grpc_timeout(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_caller_can_only_shorten_the_timeout() {
        let timeout = |name: &'static str, value: &'static str| {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
            let context = Context::of(&headers, Duration::from_mins(1));
            context.deadline - context.started
        };
        assert_eq!(timeout("x-request-timeout-ms", "50"), Duration::from_millis(50));
        assert_eq!(timeout("x-request-timeout-ms", "soon"), Duration::from_mins(1));
        assert_eq!(timeout("grpc-timeout", "2H"), Duration::from_mins(1));
    }
}
