//! A report as one page that needs nothing else: no scripts, fonts or pictures from elsewhere.

use super::charts::{self, Figure, Figures, Panel};
use super::subjects::{servers, subjects};
use super::tables;
use super::text::{escape, number};
use crate::run::comparison::{Comparison, Verdict};
use crate::run::kept::{Measured, Run};

const STYLE: &str = include_str!("style.css");

/// More of the processors' time than that does not go unsaid.
const MUCH_STOLEN: f64 = 0.05;

/// Of one run or of several beside each other; of none, nothing.
pub fn page(runs: &[Run]) -> String {
    let Some(first) = runs.first() else { return String::new() };
    let slo = first.scenario.slo_milliseconds;
    let (subjects, servers) = (subjects(runs), servers(runs));
    let mut body = head(runs);
    body += &warnings(runs);
    body += &comparisons(runs);
    body += "<h2>Step by step</h2>";
    body += &tables::summary(runs);
    body += &figures("As more is asked", "", charts::rates(&subjects, slo));
    body += &figures("How long answers take", "", charts::distributions(runs, &subjects, slo));
    body += &figures("From second to second", " small", charts::timelines(runs, &subjects, slo));
    body += &figures("Sizes of batches", " small", charts::batches(runs, &servers));
    let drift = tables::drift(runs, &servers);
    if !drift.is_empty() {
        body += &format!("<h2>Drift in long steps</h2>{drift}");
        body += &grid(" small", &charts::memory(runs, &servers));
    }
    body += &notes(runs);
    let title = escape(&title(runs));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\" />\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\
         <title>{title}</title><style>{STYLE}</style></head>\n<body>{body}</body></html>\n"
    )
}

fn title(runs: &[Run]) -> String {
    let mut labels: Vec<&str> = runs.iter().map(Run::label).collect();
    labels.dedup();
    let name = runs.first().map_or("", |run| &run.name);
    if labels == [name] { name.to_owned() } else { format!("{name}: {}", labels.join(" and ")) }
}

fn head(runs: &[Run]) -> String {
    let mut descriptions: Vec<&str> = runs.iter().map(|run| run.scenario.description.as_str()).collect();
    descriptions.dedup();
    let leads = descriptions.iter().map(|description| format!(r#"<p class="lead">{}</p>"#, escape(description)));
    format!("<h1>{}</h1>{}{}", escape(&title(runs)), leads.collect::<String>(), tables::provenance(runs))
}

fn warnings(runs: &[Run]) -> String {
    let mut warnings = Vec::new();
    let planned = |run: &Run| serde_json::to_value(&run.scenario).ok();
    if runs.windows(2).any(|pair| planned(&pair[0]) != planned(&pair[1])) {
        warnings
            .push("These runs did not play the same scenario: what they differ in may be what was asked.".to_owned());
    }
    for run in runs {
        let whose = if runs.len() > 1 { format!(" of {}", run.label()) } else { String::new() };
        if let Some(failure) = &run.failure {
            warnings.push(format!("The run{whose} was not played to its end: {failure}"));
        }
        for step in run.steps.iter().filter(|step| !step.unanswered.is_empty()) {
            let reasons = step.unanswered.iter().map(|(reason, count)| format!("{reason} ({count} times)"));
            let reasons = reasons.collect::<Vec<_>>().join("; ");
            warnings.push(format!("Requests of step {}{whose} had no answer: {reasons}.", step.name));
        }
        let slo = run.scenario.slo_milliseconds;
        let late = run.steps.iter().filter(|step| tables::is_late(step, slo)).map(|step| {
            let (most, mean) = step.sent_late_milliseconds;
            let median = step.all.latency("p50").unwrap_or_default();
            let [mean, most, median] = [mean, most, median].map(number);
            format!("{} ({mean} ms in the mean, {most} at most, where the median is {median})", step.name)
        });
        let late: Vec<_> = late.collect();
        if !late.is_empty() {
            warnings.push(format!(
                "The generator itself was late in these steps{whose}: {}. Latencies and goodput include that.",
                late.join(", ")
            ));
        }
        let stolen = |step: &Measured| step.stolen.filter(|part| *part > MUCH_STOLEN);
        let stolen =
            run.steps.iter().filter_map(|step| Some(format!("{} ({:.0} %)", step.name, stolen(step)? * 100.0)));
        let stolen: Vec<_> = stolen.collect();
        if !stolen.is_empty() {
            warnings.push(format!(
                "The machine's host gave much of its processors' time to others in these steps{whose}: {}. Compare what was \
                 measured at the same moments.",
                stolen.join(", ")
            ));
        }
    }
    warnings.iter().map(|warning| format!(r#"<p class="warning">⚠ {}</p>"#, escape(warning))).collect()
}

fn comparisons(runs: &[Run]) -> String {
    let compared: Vec<_> = runs.iter().flat_map(|run| run.comparison.iter().map(move |of| (run, of))).collect();
    if compared.is_empty() {
        return String::new();
    }
    let said = compared.iter().map(|(run, Comparison { step, share, sentence, verdict, .. })| {
        let class = match verdict {
            Verdict::Better => " better",
            Verdict::Worse => " worse",
            Verdict::Mixed => " mixed",
            Verdict::NoDifferenceShown => "",
        };
        let whose = if runs.len() > 1 { format!(" of {}", run.label()) } else { String::new() };
        let share = [share.seen, share.low, share.high].map(|part| format!("{:.1}", part * 100.0));
        let [seen, low, high] = share;
        let text = format!("Step {step}{whose}: {sentence} Its share of the requests: {seen} % ({low} to {high}).");
        format!(r#"<p class="verdict{class}">{}</p>"#, escape(&text))
    });
    let said: String = said.collect();
    format!(
        "<h2>One against the other, at the same time</h2>{said}<p class=\"faint\">In brackets: where the ratios and the \
         difference of errors lie, in each step all three with 95 % confidence together. A latency is called better or worse \
         when all of that is more than 2 % away.</p>"
    )
}

fn figures(heading: &str, size: &str, figures: Figures) -> String {
    let content = match figures {
        Ok(figures) => grid(size, &figures),
        Err(reason) => format!(r#"<p class="absent">Left out: {}.</p>"#, escape(&reason)),
    };
    format!("<h2>{heading}</h2>{content}")
}

fn grid(size: &str, figures: &[Figure]) -> String {
    let figures: String = figures.iter().map(figure).collect();
    format!(r#"<div class="figures{size}">{figures}</div>"#)
}

fn figure(Figure { title, panels, note }: &Figure) -> String {
    let panels = panels.iter().map(|Panel { legend, drawing }| {
        let entry = |(swatch, name): &(String, String)| format!("<li>{swatch}{}</li>", escape(name));
        format!(r#"<ul class="legend">{}</ul>{drawing}"#, legend.iter().map(entry).collect::<String>())
    });
    let note = note.as_ref().map(|note| format!("<p>{}</p>", escape(note))).unwrap_or_default();
    format!("<figure><figcaption>{}</figcaption>{}{note}</figure>", escape(title), panels.collect::<String>())
}

fn notes(runs: &[Run]) -> String {
    let mut notes = vec![
        "Latencies count from when a request was due, whether or not it could be sent then, to the end of its answer; \
         percentiles are of answers with status 200. In time means such an answer within the SLO.",
    ];
    if runs.iter().flat_map(|run| &run.steps).any(|step| !step.tried.is_empty()) {
        notes.push("A search is shown by its highest rate that held the SLO; the batches are those of all its tries.");
    }
    if runs.len() > 1 {
        notes.push("Runs were made one after the other: what changed on the machine meanwhile is in their difference.");
    }
    if runs.iter().any(|run| run.steps.iter().any(|step| step.seconds > 90.0)) {
        notes.push("Where a mark stands for several seconds, it is their mean rate, mean median and worst p99.");
    }
    let notes: String = notes.iter().map(|note| format!(r#"<p class="faint">{note}</p>"#)).collect();
    format!("<h2>How to read it</h2>{notes}")
}
