//! Which plots a report has, and what they show.

use super::plot::{Axis, Bars, Guide, Plot, Point, Series, Size, Stroke, guide_swatch, swatch};
use super::scale::Scale;
use super::subjects::{Subject, step_names};
use super::text::{mebibytes, number, percent};
use crate::run::kept::{Measured, Run, Summary};

/// A plot or several under one title.
pub struct Figure {
    pub title: String,
    pub panels: Vec<Panel>,
    pub note: Option<String>,
}

pub struct Panel {
    /// Swatches and names of what is drawn.
    pub legend: Vec<(String, String)>,
    pub drawing: String,
}

/// Figures, or why there are none.
pub type Figures = Result<Vec<Figure>, String>;

const LARGE: Size = (520.0, 310.0);
/// Of those of which there is one for each step.
const SMALL: Size = (350.0, 190.0);

impl Figure {
    fn of(title: &str, plot: &Plot, note: Option<String>) -> Figure {
        Figure { title: title.to_owned(), panels: vec![Panel::of(plot)], note }
    }
}

impl Panel {
    fn of(plot: &Plot) -> Panel {
        let drawn = plot.series.iter().filter(|series| series.pieces.iter().any(|piece| !piece.is_empty()));
        let legend = drawn.map(|series| (swatch(series.colour, series.stroke), series.name.clone())).collect();
        Panel { legend, drawing: plot.svg() }
    }
}

/// What is answered in time, and how late the slowest are, as more is asked.
pub fn rates(subjects: &[Subject], slo: f64) -> Figures {
    let all: Vec<Vec<RatePoint>> = subjects.iter().map(rate_points).collect();
    let tried = |subject: &Subject| {
        let tried = subject.run.steps.iter().flat_map(|step| subject.tried(step));
        tried.copied().collect::<Vec<(f64, f64, f64)>>()
    };
    let tried: Vec<Vec<_>> = subjects.iter().map(tried).collect();
    let mut rates: Vec<f64> = all.iter().flatten().map(|point| point.offered).collect();
    rates.extend(tried.iter().flatten().map(|(rate, ..)| *rate));
    rates.sort_by(f64::total_cmp);
    if rates.first() == rates.last() {
        return Err("no two rates were offered (closed loops have none, and ramps no single one)".to_owned());
    }
    let x = || Axis { label: "offered, requests/s".to_owned(), scale: Scale::linear(rates.iter().copied()) };
    Ok(vec![goodput(subjects, &all, &tried, x()), latency_by_rate(subjects, &all, &tried, x(), slo)])
}

/// A step with a rate.
struct RatePoint<'a> {
    step: &'a str,
    /// Those of one kind lie on one line.
    kind: String,
    offered: f64,
    summary: &'a Summary,
}

impl<'a> RatePoint<'a> {
    fn of(subject: &Subject<'a>, step: &'a Measured) -> Option<RatePoint<'a>> {
        let (offered, summary) = (subject.offered(step)?, subject.summary(step)?);
        Some(RatePoint { step: &step.name, kind: subject.kind(step), offered, summary })
    }
}

/// Ascending.
fn rate_points<'a>(subject: &Subject<'a>) -> Vec<RatePoint<'a>> {
    let mut points: Vec<_> = subject.run.steps.iter().filter_map(|step| RatePoint::of(subject, step)).collect();
    points.sort_by(|a, b| a.offered.total_cmp(&b.offered));
    points
}

/// By kinds, one line each.
fn lines(points: &[RatePoint], point: impl Fn(&RatePoint) -> Option<Point>) -> Vec<Vec<Point>> {
    let mut kinds: Vec<&str> = points.iter().map(|point| point.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let line = |kind: &str| points.iter().filter(|point| point.kind == kind).filter_map(&point).collect();
    kinds.into_iter().map(line).collect()
}

fn goodput(subjects: &[Subject], all: &[Vec<RatePoint>], tried: &[Vec<(f64, f64, f64)>], x: Axis) -> Figure {
    let mut series = Vec::new();
    for (colour, subject) in subjects.iter().enumerate() {
        let points = &all[colour];
        let peak = points.iter().map(|point| point.summary.goodput_per_second).fold(0.0, f64::max);
        let pieces = lines(points, |point| {
            let goodput = point.summary.goodput_per_second;
            let title = format!(
                "{}, step {}: {}/s in time of {}/s offered ({})",
                subject.label,
                point.step,
                number(goodput),
                number(point.offered),
                percent(goodput / point.summary.sent_per_second.max(1e-9))
            );
            Some(Point { x: point.offered, y: goodput, title: Some(title) })
        });
        let name = format!("{}, peak {}/s", subject.label, number(peak));
        series.push(Series { name, colour, stroke: Stroke::Solid, pieces });
        series.push(tries(subject, colour, &tried[colour], |(rate, part, _)| rate * part));
    }
    let highest = series.iter().flat_map(|series| series.pieces.iter().flatten()).map(|point| point.y);
    let y = Axis { label: "answered within the SLO, requests/s".to_owned(), scale: Scale::linear(highest) };
    let plot = Plot { x, y, size: LARGE, guides: vec![Guide::Diagonal], series };
    let mut figure = Figure::of("Goodput against offered load", &plot, None);
    figure.panels[0].legend.push((guide_swatch(), "all that is offered".to_owned()));
    figure
}

fn tries(subject: &Subject, colour: usize, tried: &[(f64, f64, f64)], y: impl Fn((f64, f64, f64)) -> f64) -> Series {
    let point = |&(rate, part, p99): &(f64, f64, f64)| {
        let (rate_shown, p99_shown) = (number(rate), number(p99));
        let title =
            format!("{}, search: at {rate_shown}/s {} in time, p99 {p99_shown} ms", subject.label, percent(part));
        Point { x: rate, y: y((rate, part, p99)), title: Some(title) }
    };
    let pieces = vec![tried.iter().map(point).collect()];
    Series { name: format!("{}, tries of the search", subject.label), colour, stroke: Stroke::None, pieces }
}

fn latency_by_rate(
    subjects: &[Subject],
    all: &[Vec<RatePoint>],
    tried: &[Vec<(f64, f64, f64)>],
    x: Axis,
    slo: f64,
) -> Figure {
    let mut series = Vec::new();
    for (colour, subject) in subjects.iter().enumerate() {
        for (name, stroke) in [("p99", Stroke::Solid), ("p50", Stroke::Dashed)] {
            let pieces = lines(&all[colour], |point| {
                let latency = point.summary.latency(name)?;
                let at = number(point.offered);
                let title = format!("{}, step {}: {name} {} ms at {at}/s", subject.label, point.step, number(latency));
                Some(Point { x: point.offered, y: latency, title: Some(title) })
            });
            series.push(Series { name: format!("{}, {name}", subject.label), colour, stroke, pieces });
        }
        series.push(tries(subject, colour, &tried[colour], |(_, _, p99)| p99));
    }
    let (scale, guide, note) = latencies(series.iter().flat_map(|series| series.pieces.iter().flatten()), slo);
    let y = Axis { label: "of what was answered, ms".to_owned(), scale };
    let guides = guide.map(|label| Guide::Across { y: slo, label }).into_iter().collect();
    Figure::of("Latency against offered load", &Plot { x, y, size: LARGE, guides, series }, note)
}

/// A scale for these latencies (their y), the name of the SLO's line, and a note where the SLO is too far off to draw.
fn latencies<'a>(points: impl Iterator<Item = &'a Point>, slo: f64) -> (Scale, Option<String>, Option<String>) {
    let values: Vec<f64> = points.map(|point| point.y).filter(|value| *value > 0.0).collect();
    let (least, most) = (values.iter().copied().fold(f64::MAX, f64::min), values.iter().copied().fold(0.0, f64::max));
    let label = format!("SLO {} ms", number(slo));
    if slo <= most * 10.0 && slo >= least / 10.0 {
        (Scale::logarithmic(values.into_iter().chain([slo])), Some(label), None)
    } else {
        let where_ = if slo > most { "above" } else { "below" };
        (Scale::logarithmic(values), None, Some(format!("The {label} is far {where_} what is drawn.")))
    }
}

/// What part of the answers took no longer: of one subject all steps together, of several step by step.
pub fn distributions(runs: &[Run], subjects: &[Subject], slo: f64) -> Figures {
    let names = step_names(runs);
    let line = |name: String, colour, summary: &Summary| Series {
        pieces: vec![distribution(summary, &name)],
        name,
        colour,
        stroke: Stroke::Solid,
    };
    let figures: Vec<(String, Vec<Series>)> = match subjects {
        [only] => {
            let steps = names.iter().enumerate().filter_map(|(colour, name)| {
                let step = only.step(name)?;
                Some(line(format!("{name}{}", pace(only, step)), colour, only.summary(step)?))
            });
            vec![("All steps".to_owned(), steps.collect())]
        }
        _ => {
            let figure = |name: &&str| {
                let subjects = subjects.iter().enumerate();
                let lines = subjects.filter_map(|(colour, subject)| {
                    let summary = subject.summary(subject.step(name)?)?;
                    Some(line(subject.label.clone(), colour, summary))
                });
                (format!("Step {name}"), lines.collect())
            };
            names.iter().map(figure).collect()
        }
    };
    let all = || figures.iter().flat_map(|(_, series)| series).flat_map(|series| series.pieces.iter().flatten());
    if all().next().is_none() {
        return Err("nothing was answered".to_owned());
    }
    let turned = |point: &Point| Point { y: point.x, ..point.clone() };
    let (x, guide, note) = latencies(all().map(turned).collect::<Vec<_>>().iter(), slo);
    let y = Scale::nines(all().map(|point| point.y));
    let draw = |(title, series): (String, Vec<Series>)| {
        let plot = Plot {
            x: Axis { label: "latency, ms".to_owned(), scale: x },
            y: Axis { label: "answers that took no longer".to_owned(), scale: y },
            size: LARGE,
            guides: guide.clone().map(|label| Guide::Up { x: slo, label }).into_iter().collect(),
            series,
        };
        Figure::of(&title, &plot, note.clone())
    };
    Ok(figures.into_iter().map(draw).collect())
}

/// Each percentile is at its nines; the slowest of n answers is at 1 - 1/n, which is as much as n can tell.
fn distribution(summary: &Summary, name: &str) -> Vec<Point> {
    let told = 1.0 - 1.0 / summary.answered().max(2) as f64;
    let marked = [0.5, 0.9, 0.99, 0.999, 0.9999];
    let mut points: Vec<Point> = Vec::new();
    for &(latency, part) in
        summary.cdf.iter().filter(|(latency, part)| *latency > 0.0 && (*part <= told || *part == 1.0))
    {
        let is_last = part == 1.0;
        let is_marked = is_last || marked.iter().any(|marked| (marked - part).abs() < 1e-9);
        let what = if is_last { "slowest".to_owned() } else { percent(part) };
        let title = is_marked.then(|| format!("{name}, {what}: {} ms", number(latency)));
        points.push(Point { x: latency, y: part.min(told), title });
    }
    points
}

/// How much was asked, for titles.
fn pace(subject: &Subject, step: &Measured) -> String {
    match (subject.offered(step), step.offered_per_second) {
        (Some(rate), _) => format!(" ({}/s)", number(rate)),
        (None, Some(rate)) => format!(" (to {}/s)", number(rate)),
        (None, None) => String::new(),
    }
}

/// Latencies and rates from second to second, step by step.
pub fn timelines(runs: &[Run], subjects: &[Subject], slo: f64) -> Figures {
    let timelines: Vec<_> = step_names(runs).into_iter().map(|name| Timeline::of(name, subjects)).collect();
    if timelines.iter().all(|timeline| timeline.rates.iter().all(|series| series.pieces.concat().len() < 2)) {
        return Err("no step took longer than a second".to_owned());
    }
    let all = timelines.iter().flat_map(|timeline| &timeline.latency).flat_map(|series| series.pieces.iter().flatten());
    let (scale, guide, note) = latencies(all, slo);
    let draw = |Timeline { title, seconds, latency, rates }: Timeline| {
        let x = |label: &str| Axis { label: label.to_owned(), scale: Scale::Linear { high: seconds } };
        let guides = guide.clone().map(|label| Guide::Across { y: slo, label }).into_iter().collect();
        let y = Axis { label: format!("{}, ms", if subjects.len() > 1 { "p99" } else { "latency" }), scale };
        let upper = Plot { x: x(""), y, size: SMALL, guides, series: latency };
        let highest = rates.iter().flat_map(|series| series.pieces.iter().flatten()).map(|point| point.y);
        let rate = if subjects.len() > 1 { "answered within the SLO, requests/s" } else { "requests/s" };
        let y = Axis { label: rate.to_owned(), scale: Scale::linear(highest) };
        let lower = Plot { x: x("s"), y, size: SMALL, guides: Vec::new(), series: rates };
        Figure { title, panels: vec![Panel::of(&upper), Panel::of(&lower)], note: note.clone() }
    };
    Ok(timelines.into_iter().map(draw).collect())
}

struct Timeline {
    title: String,
    seconds: f64,
    latency: Vec<Series>,
    rates: Vec<Series>,
}

impl Timeline {
    /// Of one subject the median too, and what was sent; of several, what sets them apart.
    fn of(name: &str, subjects: &[Subject]) -> Timeline {
        let mut timeline =
            Timeline { title: format!("Step {name}"), seconds: 1.0, latency: Vec::new(), rates: Vec::new() };
        for (colour, subject) in subjects.iter().enumerate() {
            let Some(step) = subject.step(name) else { continue };
            let Some(summary) = subject.summary(step) else { continue };
            timeline.seconds = timeline.seconds.max(step.seconds);
            let moments = moments(summary, step.seconds);
            let line = |what: &str, unit, stroke, value: fn(&Moment) -> f64| {
                let name = if subjects.len() > 1 { subject.label.clone() } else { what.to_owned() };
                Series { pieces: pieces(&moments, &name, unit, value), name, colour, stroke }
            };
            timeline.latency.push(line("p99", " ms", Stroke::Solid, |moment| moment.p99));
            if subjects.len() == 1 {
                timeline.title += &pace(subject, step);
                timeline.latency.push(line("p50", " ms", Stroke::Dashed, |moment| moment.p50));
                timeline.rates.push(line("sent", "/s", Stroke::Dashed, |moment| moment.sent));
            }
            timeline.rates.push(line("in time", "/s", Stroke::Solid, |moment| moment.in_time));
        }
        timeline
    }
}

/// A latency is 0 where nothing was answered: a gap. A rate of 0 is one.
fn pieces(moments: &[Moment], name: &str, unit: &str, value: fn(&Moment) -> f64) -> Vec<Vec<Point>> {
    let point = |moment: &Moment| {
        let title = format!("{name} at {} s: {}{unit}", number(moment.at), number(value(moment)));
        Point { x: moment.at, y: value(moment), title: Some(title) }
    };
    let is_gap = |moment: &Moment| unit == " ms" && value(moment) == 0.0;
    moments.split(is_gap).filter(|piece| !piece.is_empty()).map(|piece| piece.iter().map(point).collect()).collect()
}

/// Some seconds of a step.
struct Moment {
    at: f64,
    sent: f64,
    in_time: f64,
    p50: f64,
    p99: f64,
}

/// As many as can be told apart: of several seconds the mean rates and median, and the worst p99.
fn moments(summary: &Summary, seconds: f64) -> Vec<Moment> {
    let whole = &summary.timeline[..summary.timeline.len().min(seconds.floor().max(1.0) as usize)];
    let together = whole.len().div_ceil(90).max(1);
    let moment = |(number, chunk): (usize, &[(u64, u64, f64, f64)])| {
        let mean = |value: fn(&(u64, u64, f64, f64)) -> f64| chunk.iter().map(value).sum::<f64>() / chunk.len() as f64;
        Moment {
            at: (number * together) as f64 + chunk.len() as f64 / 2.0,
            sent: mean(|second| second.0 as f64),
            in_time: mean(|second| second.1 as f64),
            p50: mean(|second| second.2),
            p99: chunk.iter().map(|second| second.3).fold(0.0, f64::max),
        }
    };
    whole.chunks(together).enumerate().map(moment).collect()
}

/// How many rows the server's batches had, step by step.
pub fn batches(runs: &[Run], servers: &[Subject]) -> Figures {
    let names = step_names(runs);
    let of = |server: &Subject, name: &str| server.step(name).and_then(|step| server.batches(step).cloned());
    let all = names.iter().flat_map(|name| servers.iter().filter_map(|server| of(server, name)));
    let mut bounds: Vec<f64> = all.flat_map(|batches| batches.batch_rows).map(|(bound, _)| upper(&bound)).collect();
    bounds.sort_by(f64::total_cmp);
    bounds.dedup();
    if bounds.is_empty() {
        return Err("no server has told of them (stoker_batch_rows in its /metrics)".to_owned());
    }
    let category = |bound: &f64| match *bound {
        1.0 => "1".to_owned(),
        f64::INFINITY => "more".to_owned(),
        bound => format!("≤ {}", number(bound)),
    };
    let figure = |name: &&str| {
        let (mut groups, mut legend) = (Vec::new(), Vec::new());
        for (colour, server) in servers.iter().enumerate() {
            let Some(batches) = of(server, name) else { continue };
            let count: f64 = batches.batch_rows.iter().map(|(_, batches)| batches).sum();
            let bar = |bound: &f64| {
                let own = batches.batch_rows.iter().filter(|(named, _)| upper(named) == *bound);
                let own: f64 = own.map(|(_, batches)| batches).sum();
                let part = own / count.max(1.0);
                (
                    part * 100.0,
                    format!(
                        "{}: {} batches of {} rows ({})",
                        server.label,
                        number(own),
                        category(bound),
                        percent(part)
                    ),
                )
            };
            groups.push((colour, bounds.iter().map(bar).collect()));
            let mean = batches.mean_batch_rows.map_or("unknown".to_owned(), number);
            legend.push((swatch(colour, Stroke::Fill), format!("{}, mean {mean}", server.label)));
        }
        let y = Axis { label: "of the batches, %".to_owned(), scale: Scale::Linear { high: 100.0 } };
        let categories = bounds.iter().map(category).collect();
        let bars = Bars { x_label: "rows".to_owned(), y, size: SMALL, categories, groups };
        Figure { title: format!("Step {name}"), panels: vec![Panel { legend, drawing: bars.svg() }], note: None }
    };
    Ok(names.iter().map(figure).collect())
}

fn upper(bound: &str) -> f64 {
    bound.parse().unwrap_or(f64::INFINITY)
}

/// The memory of servers over the steps that are long enough to tell a leak.
pub fn memory(runs: &[Run], servers: &[Subject]) -> Vec<Figure> {
    let figure = |name: &str| {
        let line = |(colour, server): (usize, &Subject)| {
            let step = server.step(name).filter(|step| step.drift.is_some())?;
            let point = |&(at, bytes): &(f64, f64)| {
                let title = format!("{} at {} s: {}", server.label, number(at), mebibytes(bytes));
                Point { x: at, y: bytes / f64::from(1 << 20), title: Some(title) }
            };
            let pieces = vec![server.server(step)?.memory.iter().map(point).collect()];
            Some(Series { name: server.label.clone(), colour, stroke: Stroke::Solid, pieces })
        };
        let series: Vec<_> = servers.iter().enumerate().filter_map(line).collect();
        let points = || series.iter().flat_map(|series| series.pieces.iter().flatten());
        points().next()?;
        let x = Axis { label: "s".to_owned(), scale: Scale::linear(points().map(|point| point.x)) };
        let y = Axis { label: "resident memory, MiB".to_owned(), scale: Scale::linear(points().map(|point| point.y)) };
        let plot = Plot { x, y, size: SMALL, guides: Vec::new(), series };
        Some(Figure::of(&format!("Step {name}"), &plot, None))
    };
    step_names(runs).into_iter().filter_map(figure).collect()
}
