//! The tables of a report, as HTML.

use super::subjects::{Subject, step_names};
use super::text::{escape, mebibytes, number, percent};
use crate::run::kept::{Measured, Run, Summary};
use crate::run::scenario::Load;

/// What each step has shown: of each run, and under it of its targets, versions and kinds of traffic.
pub fn summary(runs: &[Run]) -> String {
    let slo = runs.first().map_or(f64::MAX, |run| run.scenario.slo_milliseconds);
    let steps = || runs.iter().flat_map(|run| &run.steps);
    let has_parts = runs.len() > 1 || steps().any(|step| parts(step).next().is_some());
    let who = if has_parts { r#"<th class="name">of</th>"# } else { "" };
    let columns = [
        ("offered", "1/s"),
        ("sent", "1/s"),
        ("goodput", "1/s"),
        ("in time", "of sent"),
        ("answered", "1/s"),
        ("p50", "ms"),
        ("p95", "ms"),
        ("p99", "ms"),
        ("p99.9", "ms"),
    ];
    let refused = r#"<th class="name">refused, failed<span class="unit">by status</span></th>"#;
    let last = head("batch", "mean rows") + &head("sent late", "mean / most, ms");
    let heads = columns.map(|(name, unit)| head(name, unit)).concat() + refused + &last;
    let mut bodies = String::new();
    for name in step_names(runs) {
        let mut rows = Vec::new();
        for run in runs {
            let Some(step) = run.steps.iter().find(|step| step.name == name) else { continue };
            let label = if runs.len() > 1 { run.label() } else { "all" };
            let own = format!("{}{}", rows_a_batch(step.batches.mean_batch_rows), late(step, slo));
            rows.push(row("", label, &offered(run, step), &step.all, slo, &own));
            rows.extend(parts(step).map(|(kind, part, summary)| {
                let server = step.targets.iter().position(|(target, _)| kind == "target" && target == part);
                let mean = server.and_then(|server| step.servers.get(server)?.batches.mean_batch_rows);
                let own = if server.is_some() { rows_a_batch(mean) } else { "<td></td>".to_owned() };
                row("part", &format!("{kind} {part}"), "", summary, slo, &format!("{own}<td></td>"))
            }));
        }
        bodies += r#"<tbody class="step">"#;
        for (number, Row { class, label, cells }) in rows.iter().enumerate() {
            let step = if number == 0 { escape(name) } else { String::new() };
            let who = if has_parts { format!(r#"<td class="name">{label}</td>"#) } else { String::new() };
            bodies += &format!(r#"<tr class="{class}"><th class="name">{step}</th>{who}{cells}</tr>"#);
        }
        bodies += "</tbody>";
    }
    scrolled(&format!(r#"<th class="name">step</th>{who}{heads}"#), &bodies)
}

fn head(name: &str, unit: &str) -> String {
    format!(r#"<th>{name}<span class="unit">{unit}</span></th>"#)
}

fn scrolled(heads: &str, bodies: &str) -> String {
    format!(r#"<div class="scroll" tabindex="0"><table><thead><tr>{heads}</tr></thead>{bodies}</table></div>"#)
}

/// What is told apart within a step: its kind, its name, and what it has shown.
fn parts(step: &Measured) -> impl Iterator<Item = (&'static str, &str, &Summary)> {
    let several_kinds = if step.traffic.len() > 1 { &step.traffic[..] } else { &[] };
    let kinds = [("target", &step.targets[..]), ("version", &step.versions[..]), ("traffic", several_kinds)];
    kinds.into_iter().flat_map(|(kind, parts)| parts.iter().map(move |(name, summary)| (kind, name.as_str(), summary)))
}

struct Row {
    class: &'static str,
    /// Escaped.
    label: String,
    cells: String,
}

fn row(class: &'static str, label: &str, offered: &str, summary: &Summary, slo: f64, own: &str) -> Row {
    let (sent, goodput) = (summary.sent_per_second, summary.goodput_per_second);
    let in_time = if sent > 0.0 { percent(goodput / sent) } else { "–".to_owned() };
    // Of fewer answers a percentile is their slowest.
    let latency = |(name, fewest)| match summary.latency(name).filter(|_| summary.answered() >= fewest) {
        Some(latency) if latency > slo => format!(r#"<td class="over">{}</td>"#, number(latency)),
        Some(latency) => cell(&number(latency)),
        None => cell("–"),
    };
    let rates = [offered, &number(sent), &number(goodput), &in_time, &number(summary.answered_per_second)].map(cell);
    let latencies = [("p50", 1), ("p95", 20), ("p99", 100), ("p99.9", 1000)].map(latency);
    let refused = format!(r#"<td class="status">{}</td>"#, refused(summary));
    Row { class, label: escape(label), cells: rates.concat() + &latencies.concat() + &refused + own }
}

fn cell(text: &str) -> String {
    format!("<td>{}</td>", escape(text))
}

/// Everything but answers with 200, by what it was.
fn refused(summary: &Summary) -> String {
    let others = summary.outcomes.iter().filter(|(outcome, _)| *outcome != "200");
    let told = |(outcome, count): (&String, &u64)| {
        let part = percent(*count as f64 / summary.sent().max(1) as f64);
        escape(&format!("{outcome}: {} ({part})", number(*count as f64)))
    };
    others.map(told).collect::<Vec<_>>().join("<br />")
}

fn rows_a_batch(mean: Option<f64>) -> String {
    cell(&mean.map_or("–".to_owned(), number))
}

fn offered(run: &Run, step: &Measured) -> String {
    let load = run.scenario.steps.iter().find(|planned| planned.name == step.name).map(|planned| &planned.load);
    match (load, step.offered_per_second) {
        (Some(Load::Closed { connections }), _) => format!("closed, {connections}"),
        (Some(Load::Open { ramp: true, .. }), Some(rate)) => format!("0 to {}", number(rate)),
        (_, Some(rate)) => number(rate),
        (_, None) => "closed".to_owned(),
    }
}

fn late(step: &Measured, slo: f64) -> String {
    let (most, mean) = step.sent_late_milliseconds;
    match (step.offered_per_second, is_late(step, slo)) {
        (None, _) => cell("–"),
        (_, false) => cell(&format!("{} / {}", number(mean), number(most))),
        (_, true) => format!(r#"<td class="over">⚠ {} / {}</td>"#, number(mean), number(most)),
    }
}

/// Whether the generator's lateness is a part of the latencies that can be seen: in many, or in the slowest.
pub fn is_late(step: &Measured, slo: f64) -> bool {
    let (most, mean) = step.sent_late_milliseconds;
    mean > slo / 100.0 || most > slo / 4.0 || step.all.latency("p50").is_some_and(|median| mean > median / 4.0)
}

/// Of long steps, their first tenth against their last; empty where there are none.
pub fn drift(runs: &[Run], servers: &[Subject]) -> String {
    let change = |(first, last): (f64, f64), write: fn(f64) -> String| {
        let ratio = if first > 0.0 { number(last / first) } else { "–".to_owned() };
        [write(first), write(last), format!("× {ratio}")].map(|text| cell(&text)).concat()
    };
    let mut rows = String::new();
    for name in step_names(runs) {
        for run in runs {
            let Some(step) = run.steps.iter().find(|step| step.name == name) else { continue };
            let Some(drift) = &step.drift else { continue };
            let latencies = change(drift.p50, number) + &change(drift.p99, number);
            let (name, label) = (escape(name), escape(run.label()));
            rows += &format!(r#"<tr><th class="name">{name}</th><td class="name">{label}</td>{latencies}"#);
            let of_run: Vec<_> = servers.iter().filter(|server| std::ptr::eq(server.run, run)).collect();
            let memory = of_run.iter().filter_map(|server| {
                let memory = &server.server(step)?.memory;
                let (_, first) = memory.first()?;
                let (_, last) = memory.last()?;
                let who = if of_run.len() > 1 { format!("{}: ", server.label) } else { String::new() };
                Some(format!("{who}{} to {}", mebibytes(*first), mebibytes(*last)))
            });
            let memory = memory.collect::<Vec<_>>().join(", ");
            rows += &cell(if memory.is_empty() { "not told" } else { &memory });
            rows += "</tr>";
        }
    }
    if rows.is_empty() {
        return rows;
    }
    let heads =
        ["p50", "p99"].map(|name| head(name, "first tenth, ms") + &head(name, "last, ms") + &head(name, "change"));
    let heads =
        format!(r#"<th class="name">step</th><th class="name">of</th>{}<th>resident memory</th>"#, heads.concat());
    scrolled(&heads, &format!("<tbody>{rows}</tbody>"))
}

/// Where each run comes from.
pub fn provenance(runs: &[Run]) -> String {
    let mut heads = String::from(r#"<th class="name"></th>"#);
    runs.iter().for_each(|run| heads += &format!(r#"<th class="name">{}</th>"#, escape(run.label())));
    let line = |name: &str, value: &dyn Fn(&Run) -> String| {
        let values = runs.iter().map(|run| format!(r#"<td class="wide">{}</td>"#, value(run)));
        format!(r#"<tr><th class="name">{name}</th>{}</tr>"#, values.collect::<String>())
    };
    let asked = |run: &Run| {
        let asked = run.targets.iter().map(|target| {
            let build = target.build.as_deref().unwrap_or("does not say what it is");
            let name = if run.targets.len() > 1 { format!("{}: ", target.name) } else { String::new() };
            escape(&format!("{name}{} ({build})", target.url))
        });
        asked.collect::<Vec<_>>().join("<br />")
    };
    let machine = |run: &Run| {
        let from = &run.provenance;
        escape(&format!("{}, {} cores, Linux {}", from.cpu, from.cores, from.kernel))
    };
    let lines = [
        line("scenario", &|run| escape(&run.name)),
        line("SLO", &|run| format!("{}\u{a0}ms", number(run.scenario.slo_milliseconds))),
        line("when", &|run| escape(&run.provenance.date)),
        line("server", &asked),
        line("generator", &machine),
        line("commit", &|run| escape(run.provenance.commit.as_deref().unwrap_or("unknown"))),
        line("command", &|run| format!("<code>{}</code>", escape(&run.provenance.command))),
    ];
    let heads = if runs.len() > 1 { heads } else { String::new() };
    scrolled(&heads, &format!("<tbody>{}</tbody>", lines.concat()))
}
