//! From OpenMetrics to Prometheus's classic text format 0.0.4.
//! Sources: the OpenMetrics 1.0 specification and Prometheus's "Exposition formats".

use std::fmt::Write;

/// OpenMetrics names a counter without its `_total` and an info without its `_info` in the metadata; the classic
/// format names each sample as it is, has no info type, no units and no end mark.
pub fn classic(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len() + openmetrics.len() / 16);
    let mut help: Option<(&str, &str)> = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, help)) = help.take().filter(|(of, _)| *of == name) {
                let _ = writeln!(out, "# HELP {name}{suffix} {help}");
            }
            let _ = writeln!(out, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with("# ") {
            out.push_str(line.split_once(" # {").map_or(line, |(sample, _exemplar)| sample));
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exemplars_are_left_out_of_the_classic_format() {
        assert_eq!(classic("a_bucket{le=\"1\"} 2 # {trace_id=\"x\"} 0.5\n# EOF\n"), "a_bucket{le=\"1\"} 2\n");
    }
}
