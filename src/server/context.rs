//! What a request brings in its headers: its id, its trace, and how long its caller will wait.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::engine::Terms;
use crate::error::{Error, Result};
use crate::telemetry::trace::{RequestId, TraceContext};

#[derive(Clone, Debug)]
pub struct Context {
    pub terms: Terms,
    pub request_id: RequestId,
    pub trace: TraceContext,
    /// A header that says when it has to be answered, and cannot be read.
    mistake: Option<String>,
}

impl Context {
    /// The deadline is the caller's (`grpc-timeout`, `x-request-timeout-ms`, `x-request-deadline`), but never later than
    /// `max_timeout` from now. Requests with the same value of `tenant_header` are of one tenant.
    pub fn of(headers: &HeaderMap, max_timeout: Duration, tenant_header: Option<&HeaderName>) -> Context {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let mut mistake = None;
        let mut read = |name: &'static str, parse: &dyn Fn(&str) -> Option<Duration>, form: &str| {
            let value = headers.get(name)?;
            let time = value.to_str().ok().and_then(parse);
            if time.is_none() {
                mistake = Some(format!("{name}: {value:?} is no {form}"));
            }
            time
        };
        let asked = [
            read("grpc-timeout", &grpc_timeout, "timeout such as 250m: up to 8 digits and a unit of H, M, S, m, u, n"),
            read("x-request-timeout-ms", &milliseconds, "number of milliseconds"),
            read(
                "x-request-deadline",
                &|time| until(time, SystemTime::now()),
                "time of RFC 3339 or number of seconds since 1970",
            ),
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
            mistake,
        }
    }

    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) when a header says when it has to be answered in a way that cannot be
    /// read: to take more time than its caller has is no answer.
    pub fn check(&self) -> Result<()> {
        self.mistake.as_ref().map_or(Ok(()), |mistake| Err(Error::invalid(mistake.clone())))
    }
}

/// The same for the same value, and nothing that somebody else could choose his own value by.
fn tenant(value: Option<&HeaderValue>) -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEYS.hash_one(value.map(HeaderValue::as_bytes))
}

fn milliseconds(text: &str) -> Option<Duration> {
    let millis = text.parse::<f64>().ok().filter(|millis| *millis >= 0.0)?;
    Some(Duration::try_from_secs_f64(millis / 1000.0).unwrap_or(Duration::MAX))
}

/// How long it is until a time, which is in the form of RFC 3339 or in seconds since 1970; nothing when it has passed.
fn until(time: &str, now: SystemTime) -> Option<Duration> {
    /// Beyond them somebody counts in milliseconds.
    const MOST_SECONDS: f64 = 1e11;
    let time = match time.parse::<f64>() {
        Ok(seconds) if seconds > MOST_SECONDS => return None,
        Ok(seconds) => SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?,
        Err(_) => rfc3339(time)?,
    };
    Some(time.duration_since(now).unwrap_or_default())
}

/// A time with `Z`, with an offset such as `+02:00`, or without either, which is taken for UTC.
fn rfc3339(time: &str) -> Option<SystemTime> {
    let time = &time.to_ascii_uppercase();
    // humantime leaves out what it does not know, such as an offset.
    let utc = |time: &str| {
        let is_known = time.bytes().all(|byte| byte.is_ascii_digit() || b"-:.TZ ".contains(&byte));
        if is_known { humantime::parse_rfc3339_weak(time).ok() } else { None }
    };
    let offset_at = time.find('T').and_then(|t| Some(t + time[t..].find(['+', '-'])?));
    let Some((local, offset)) = offset_at.map(|at| time.split_at(at)) else { return utc(time) };
    let (hours, minutes) = offset[1..].split_once(':')?;
    let part = |text: &str, most: u64| text.parse::<u64>().ok().filter(|part| text.len() == 2 && *part <= most);
    let ahead = Duration::from_secs(part(hours, 23)? * 3600 + part(minutes, 59)? * 60);
    if offset.starts_with('+') { utc(local)?.checked_sub(ahead) } else { utc(local)?.checked_add(ahead) }
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
        assert_eq!(timeout("x-request-timeout-ms", "2.5"), Duration::from_micros(2500));
        assert_eq!(timeout("grpc-timeout", "2H"), Duration::from_mins(1));
        assert_eq!(timeout("x-request-deadline", "2020-01-01T00:00:00Z"), Duration::ZERO);
    }

    #[test]
    fn a_time_that_cannot_be_read_is_a_mistake() {
        let check = |name: &'static str, value: &'static str| {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
            Context::of(&headers, Duration::from_mins(1), None).check()
        };
        for (name, value) in [
            ("x-request-timeout-ms", "soon"),
            ("x-request-timeout-ms", "-1"),
            ("x-request-timeout-ms", "3ms"),
            ("x-request-timeout-ms", "nan"),
            ("x-request-deadline", "later"),
            ("x-request-deadline", "-1"),
            ("x-request-deadline", "1700000000250"), // milliseconds
            ("grpc-timeout", "1x"),
        ] {
            let error = check(name, value).unwrap_err();
            assert!(error.message().starts_with(&format!("{name}: \"{value}\" is no ")), "{error}");
        }
        check("x-request-timeout-ms", "50").unwrap();
        check("x-request-id", "soon").unwrap();
    }

    #[test]
    fn a_deadline_is_a_time_of_day() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(until("1700000000.25", now), Some(Duration::from_millis(250)));
        assert_eq!(until("2023-11-14T22:13:21.5Z", now), Some(Duration::from_millis(1500)));
        assert_eq!(until("2023-11-14t22:13:21.5z", now), Some(Duration::from_millis(1500)));
        assert_eq!(until("2023-11-15T00:13:21+02:00", now), Some(Duration::from_secs(1)));
        assert_eq!(until("2023-11-14T17:13:21.5-05:00", now), Some(Duration::from_millis(1500)));
        assert_eq!(until("2023-11-14 22:13:21", now), Some(Duration::from_secs(1)));
        assert_eq!(
            ["+2:00", "+02:60", "+24:00", "+-2:00"].map(|offset| until(&format!("2023-11-15T00:13:21{offset}"), now)),
            [None; 4]
        );
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
