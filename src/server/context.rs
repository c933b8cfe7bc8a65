//! What a request brings in its headers: its id, its trace, and how long its caller will wait.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::engine::Terms;
use crate::telemetry::trace::{RequestId, TraceContext};

#[derive(Clone, Debug)]
pub struct Context {
    pub terms: Terms,
    pub request_id: RequestId,
    pub trace: TraceContext,
}

impl Context {
    /// The deadline is the caller's (`grpc-timeout`, `x-request-timeout-ms`, `x-request-deadline`), but never later than
    /// `max_timeout` from now. Requests with the same value of `tenant_header` are of one tenant.
    pub fn of(headers: &HeaderMap, max_timeout: Duration, tenant_header: Option<&HeaderName>) -> Context {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let asked = [
            text("grpc-timeout").and_then(grpc_timeout),
            text("x-request-timeout-ms").and_then(|millis| millis.parse().ok()).map(Duration::from_millis),
            text("x-request-deadline").and_then(|time| until(time, SystemTime::now())),
        ];
        let asked = asked.into_iter().flatten().min();
        let started = Instant::now();
        Context {
            terms: Terms {
                started,
                deadline: started + asked.map_or(max_timeout, |asked| asked.min(max_timeout)),
                is_deadline_set: asked.is_some(),
                tenant: tenant_header.map_or(0, |name| tenant(headers.get(name))),
            },
            request_id: RequestId::from_header(text("x-request-id")),
            trace: TraceContext::from_header(text("traceparent")),
        }
    }
}

/// The same for the same value, and nothing that somebody else could choose his own value by.
fn tenant(value: Option<&HeaderValue>) -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEYS.hash_one(value.map(HeaderValue::as_bytes))
}

/// How long it is until a time, which is in the form of RFC 3339 or in seconds since 1970; nothing when it has passed.
fn until(time: &str, now: SystemTime) -> Option<Duration> {
    let seconds = time.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let time = match seconds {
        Some(seconds) => SystemTime::UNIX_EPOCH.checked_add(seconds)?,
        None => humantime::parse_rfc3339_weak(time).ok()?,
    };
    Some(time.duration_since(now).unwrap_or_default())
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
            let terms = Context::of(&headers, Duration::from_mins(1), None).terms;
            terms.deadline - terms.started
        };
        assert_eq!(timeout("x-request-timeout-ms", "50"), Duration::from_millis(50));
        assert_eq!(timeout("x-request-timeout-ms", "soon"), Duration::from_mins(1));
        assert_eq!(timeout("grpc-timeout", "2H"), Duration::from_mins(1));
        assert_eq!(timeout("x-request-deadline", "2020-01-01T00:00:00Z"), Duration::ZERO);
        assert_eq!(timeout("x-request-deadline", "later"), Duration::from_mins(1));
    }

    #[test]
    fn a_deadline_is_a_time_of_day() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(until("1700000000.25", now), Some(Duration::from_millis(250)));
        assert_eq!(until("2023-11-14T22:13:21.5Z", now), Some(Duration::from_millis(1500)));
        assert_eq!(until("1600000000", now), Some(Duration::ZERO));
        assert_eq!([until("", now), until("-1", now), until("nan", now)], [None; 3]);
    }

    #[test]
    fn requests_with_the_same_header_are_of_one_tenant() {
        let name = HeaderName::from_static("x-tenant");
        let tenant = |value: Option<&'static str>| {
            let value = value.map(|value| (name.clone(), HeaderValue::from_static(value)));
            Context::of(&value.into_iter().collect(), Duration::from_mins(1), Some(&name)).terms.tenant
        };
        assert_eq!(tenant(Some("a")), tenant(Some("a")));
        assert_ne!(tenant(Some("a")), tenant(Some("b")));
        assert_ne!(tenant(None), tenant(Some("a")));
        assert_eq!(tenant(None), tenant(None));
    }
}
