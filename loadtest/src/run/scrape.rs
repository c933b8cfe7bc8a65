//! What a server says of itself: its metrics before and after, and their difference.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::door::Door;
use super::kept::Batches;
use super::targets::Target;

/// By series, as it is written in the text format.
pub type Samples = BTreeMap<String, f64>;

const PATIENCE: Duration = Duration::from_secs(5);
/// Series of one server.
const MOST_KEPT: usize = 500;

/// The samples of a target's metrics; none when there is no such page, as on a peer that has it elsewhere.
pub async fn scrape(target: &Target) -> Samples {
    let page = tokio::time::timeout(PATIENCE, page(target)).await;
    let page = page.ok().and_then(Result::ok).unwrap_or_default();
    parse(&String::from_utf8_lossy(&page))
}

async fn page(target: &Target) -> Result<Vec<u8>> {
    let io = TokioIo::new(Door::new(target.metrics.clone()).open().await?);
    let (mut connection, driver) = http1::handshake(io).await?;
    tokio::task::spawn_local(driver);
    let request = Request::get(&target.metrics.prefix).header("host", &target.metrics.authority);
    let response = connection.send_request(request.body(Empty::<Bytes>::new())?).await?;
    ensure!(response.status() == 200, "no page of metrics");
    Ok(response.into_body().collect().await?.to_bytes().to_vec())
}

/// Source: Prometheus, "Exposition formats", text format 0.0.4, without timestamps.
fn parse(text: &str) -> Samples {
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        Some((series.to_owned(), value.parse().ok()?))
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

/// What has been added, of what is counted; a gauge as it is.
pub fn difference(before: &Samples, after: &Samples) -> Samples {
    let change = |(series, value): (&String, &f64)| {
        // Less than before: the server was started anew, and counts from 0.
        let counted_before = before.get(series).copied().filter(|before| is_counted(series) && before <= value);
        let change = value - counted_before.unwrap_or_default();
        (change != 0.0).then(|| (series.clone(), change))
    };
    after.iter().filter_map(change).collect()
}

/// By its name, as the servers that are known here choose them. Source for Triton's: its "Metrics" document.
fn is_counted(series: &str) -> bool {
    let name = series.split('{').next().unwrap_or_default();
    let is_triton_s = name.starts_with("nv_inference_") && !name.contains("pending");
    is_triton_s
        || ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end)) && !name.starts_with("nv_")
}

/// Requests by their codes, sums of times: what is counted, without how it is distributed.
pub fn counted(change: &Samples) -> Samples {
    let is_kept = |series: &str| is_counted(series) && !series.contains("_bucket{");
    let kept = change.iter().filter(|(series, _)| is_kept(series)).take(MOST_KEPT);
    kept.map(|(series, value)| (series.clone(), *value)).collect()
}

/// The labels of `stoker_build_info`, where there is one.
pub fn build(samples: &Samples) -> Option<String> {
    let labels = samples.keys().find_map(|series| series.strip_prefix("stoker_build_info{"))?;
    Some(format!("stoker {}", labels.trim_end_matches('}').replace('"', "").replace(',', ", ")))
}

pub fn batches(samples: &Samples) -> Batches {
    Batches { mean_batch_rows: mean_batch_rows(samples), batch_rows: batch_rows(samples) }
}

/// How many batches had how many rows: pairs of an upper bound and the batches up to it that are in no smaller one.
fn batch_rows(samples: &Samples) -> Vec<(String, f64)> {
    let buckets = samples.iter().filter(|(series, _)| series.starts_with("stoker_batch_rows_bucket{"));
    let bound = |series: &str| Some(series.split("le=\"").nth(1)?.split('"').next()?.to_owned());
    let mut sums: Vec<(String, f64)> = Vec::new();
    for (series, count) in buckets {
        let Some(bound) = bound(series) else { continue };
        match sums.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, sum)) => *sum += count,
            None => sums.push((bound, *count)),
        }
    }
    let number = |bound: &str| bound.parse().unwrap_or(f64::INFINITY);
    sums.sort_by(|(a, _), (b, _)| number(a).total_cmp(&number(b)));
    let mut below = 0.0;
    let own = sums.into_iter().map(|(bound, sum)| {
        let own = sum - below;
        below = sum;
        (bound, own)
    });
    own.filter(|(_, batches)| *batches > 0.0).collect()
}

/// Rows of the batches, on average; of Triton, where ours are not to be found.
fn mean_batch_rows(samples: &Samples) -> Option<f64> {
    let sum = |name: &str| {
        let of_name = samples.iter().filter(|(series, _)| series.split('{').next() == Some(name));
        of_name.map(|(_, value)| value).sum::<f64>()
    };
    let mean = |rows: &str, batches: &str| Some(sum(rows) / sum(batches)).filter(|_| sum(batches) > 0.0);
    mean("stoker_batch_rows_sum", "stoker_batch_rows_count")
        .or_else(|| mean("nv_inference_count", "nv_inference_exec_count"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_subtracted() {
        let before = parse("# HELP a b\na_total{x=\"1\"} 3\ng 5\nstoker_batch_rows_bucket{le=\"1.0\"} 1\n");
        let after = parse(
            "a_total{x=\"1\"} 10\ng 4\nstoker_batch_rows_bucket{le=\"1.0\"} 2\nstoker_batch_rows_bucket{le=\"8.0\"} 6\n\
             stoker_batch_rows_bucket{le=\"+Inf\"} 6\nstoker_batch_rows_sum 26\nstoker_batch_rows_count 6\n",
        );
        let change = difference(&before, &after);
        assert_eq!((change["a_total{x=\"1\"}"], change["g"]), (7.0, 4.0));
        let rows = batch_rows(&change);
        assert_eq!(difference(&after, &before)["a_total{x=\"1\"}"], 3.0, "started anew");
        assert_eq!(
            rows.iter().map(|(bound, own)| (bound.as_str(), *own)).collect::<Vec<_>>(),
            [("1.0", 1.0), ("8.0", 5.0)]
        );
        assert_eq!(mean_batch_rows(&after), Some(26.0 / 6.0));
    }

    #[test]
    fn triton_s_batches_are_its_rows_and_executions() {
        let page = |rows, runs| {
            let more = "nv_inference_pending_request_count{model=\"a\"} 4\nnv_gpu_utilization 0.5\n";
            parse(&format!(
                "nv_inference_count{{model=\"a\"}} {rows}\nnv_inference_exec_count{{model=\"a\"}} {runs}\n{more}"
            ))
        };
        let change = difference(&page(100, 50), &page(164, 66));
        assert_eq!(mean_batch_rows(&change), Some(4.0));
        let kept: Vec<_> = counted(&change).into_values().collect();
        assert_eq!(kept, [64.0, 16.0], "no gauges");
    }
}
