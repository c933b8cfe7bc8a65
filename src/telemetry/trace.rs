//! What a request is called: its id and its W3C trace context, taken from the caller or made up.
//! Source: W3C Trace Context, <https://www.w3.org/TR/trace-context/#traceparent-header>.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

/// Longest `x-request-id` taken over; a longer one is replaced, since it goes into every log line of the request.
const MAX_REQUEST_ID: usize = 128;

/// Taken from `x-request-id`, or made: 16 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// The caller's id when it is printable ASCII of reasonable length, a fresh one otherwise.
    pub fn from_header(header: Option<&str>) -> RequestId {
        let usable =
            |id: &&str| !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.bytes().all(|byte| byte.is_ascii_graphic());
        RequestId(header.filter(usable).map_or_else(|| format!("{:016x}", random()), str::to_owned))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where this request stands in the caller's trace, or in a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: u128,
    /// Our own span; its parent is the caller's.
    pub span_id: u64,
    pub parent_id: Option<u64>,
    pub sampled: bool,
}

impl TraceContext {
    /// Continues the trace of a `traceparent` header; a missing or malformed one begins a new trace.
    pub fn from_header(header: Option<&str>) -> TraceContext {
        let span_id = random().max(1);
        match header.and_then(parse) {
            Some((trace_id, parent, sampled)) => TraceContext { trace_id, span_id, parent_id: Some(parent), sampled },
            None => {
                let trace_id = (u128::from(random()) << 64 | u128::from(random())).max(1);
                TraceContext { trace_id, span_id, parent_id: None, sampled: false }
            }
        }
    }
}

impl TraceContext {
    /// 32 hexadecimal digits.
    pub fn trace_id_text(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// 16 hexadecimal digits.
    pub fn span_id_text(&self) -> String {
        format!("{:016x}", self.span_id)
    }

    /// As a `traceparent` header with our span as the parent of what comes after; `None` when the trace began here.
    pub fn continued(&self) -> Option<String> {
        self.parent_id?;
        let flags = u8::from(self.sampled);
        Some(format!("00-{}-{}-{flags:02x}", self.trace_id_text(), self.span_id_text()))
    }
}

/// `version-traceid-parentid-flags`, all lower-case hexadecimal of fixed width. Later versions may append fields.
fn parse(header: &str) -> Option<(u128, u64, bool)> {
    let hex = |text: &str, width: usize| {
        let lower = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        (lower && text.len() == width).then(|| u128::from_str_radix(text, 16).ok()).flatten()
    };
    let mut fields = header.trim().split('-');
    let version = hex(fields.next()?, 2)?;
    let trace_id = hex(fields.next()?, 32)?;
    let parent_id = u64::try_from(hex(fields.next()?, 16)?).ok()?;
    let flags = hex(fields.next()?, 2)?;
    let well_formed = version != 0xff && (version != 0 || fields.next().is_none());
    (well_formed && trace_id != 0 && parent_id != 0).then_some((trace_id, parent_id, flags & 1 == 1))
}

/// Unique in this process and unlikely to recur in another: for names, not for secrets.
fn random() -> u64 {
    static STATE: AtomicU64 = AtomicU64::new(0);
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15; // splitmix64, <https://prng.di.unimi.it/splitmix64.c>
    if STATE.load(Relaxed) == 0 {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos());
        #[allow(clippy::cast_possible_truncation)] // the low bits are the ones that vary
        let seed = (nanos as u64) ^ (u64::from(std::process::id()) << 48);
        let _ = STATE.compare_exchange(0, seed | 1, Relaxed, Relaxed);
    }
    let mut mixed = STATE.fetch_add(STEP, Relaxed).wrapping_add(STEP);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_trace_is_continued_under_a_span_of_our_own() {
        let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::from_header(Some(header));
        assert_eq!(context.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(context.parent_id, Some(0x00f0_67aa_0ba9_02b7));
        assert!(context.sampled);
        let onward = context.continued().unwrap();
        assert!(onward.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && onward.ends_with("-01"), "{onward}");
        assert_ne!(onward, header);
        assert!(parse(&onward).is_some());
    }

    #[test]
    fn malformed_headers_begin_a_new_trace() {
        for header in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
        ] {
            assert_eq!(TraceContext::from_header(Some(header)).parent_id, None, "{header}");
        }
    }

    #[test]
    fn ids_are_taken_over_or_made() {
        assert_eq!(RequestId::from_header(Some("abc-1")).as_str(), "abc-1");
        for unusable in [None, Some(""), Some("a b"), Some("a\nb")] {
            assert_eq!(RequestId::from_header(unusable).as_str().len(), 16, "{unusable:?}");
        }
        assert_ne!(RequestId::from_header(None), RequestId::from_header(None));
    }
}
