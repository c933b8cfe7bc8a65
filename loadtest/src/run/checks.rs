//! What is wrong with a scenario, all of it at once and before anything is asked of anybody.

use std::ops::RangeInclusive;

use hyper::header::{HeaderName, HeaderValue};
use stoker::tensor::{DType, Shape};

use super::bodies::VARIANTS;
use super::scenario::{Input, Load, Protocol, Scenario, Step, Traffic};

/// More than one thread sends.
pub const MOST_PER_SECOND: f64 = 1e6;
/// Of one step, as each is kept until the step is over: a gigabyte.
pub const MOST_REQUESTS: f64 = 5e7;
const LONGEST_SECONDS: f64 = 86_400.0;
const MOST_ROUNDS: f64 = 1000.0;
const MOST_CONNECTIONS: f64 = 10_000.0;
/// Of all kinds of requests together, with their variants.
const MOST_BYTES: f64 = 1024.0 * 1024.0 * 1024.0;

/// Each names its place and its field; none when the scenario can be played.
pub fn mistakes(scenario: &Scenario) -> Vec<String> {
    let mut found = Vec::new();
    // Requests over HTTP say their deadline in whole milliseconds.
    let shortest = if scenario.send_deadline { 1.0 } else { 0.001 };
    found.extend(outside("slo_milliseconds", scenario.slo_milliseconds, shortest..=3_600_000.0));
    found.extend(outside("rounds", scenario.rounds.into(), 1.0..=MOST_ROUNDS));
    if scenario.traffic.is_empty() || scenario.steps.is_empty() {
        found.push("a scenario has traffic and steps".to_owned());
    }
    let mut at = |place: String, mistakes: Vec<String>| {
        found.extend(mistakes.into_iter().map(|mistake| format!("{place}: {mistake}")));
    };
    let mut bytes = 0.0;
    for (number, traffic) in scenario.traffic.iter().enumerate() {
        let is_twice = scenario.traffic[..number].iter().any(|other| other.name == traffic.name);
        at(format!("traffic \"{}\"", traffic.name), of_traffic(traffic, is_twice));
        bytes += VARIANTS as f64 * traffic.inputs.iter().map(|input| bytes_of(input, traffic.protocol)).sum::<f64>();
    }
    for (number, step) in scenario.steps.iter().enumerate() {
        at(format!("step \"{}\"", step.name), of_step(scenario, number, step));
    }
    if bytes > MOST_BYTES {
        found.push(format!(
            "inputs: {VARIANTS} requests of each traffic are kept, {:.0} MiB in all; at most {:.0} MiB can be",
            bytes / 1_048_576.0,
            MOST_BYTES / 1_048_576.0
        ));
    }
    found
}

/// What a number is that it should not be.
fn outside(field: &str, value: f64, range: RangeInclusive<f64>) -> Option<String> {
    let wrong = || format!("{field} is {value}, and is to be from {} to {}", range.start(), range.end());
    (!range.contains(&value)).then(wrong)
}

fn of_traffic(traffic: &Traffic, is_twice: bool) -> Vec<String> {
    let mut found = Vec::new();
    if is_twice {
        found.push("name: another traffic has it".to_owned());
    }
    found.extend(outside("share", traffic.share, 1e-6..=1e6));
    if traffic.model.is_empty() {
        found.push("model is empty".to_owned());
    }
    for (name, value) in &traffic.headers {
        if HeaderName::try_from(name).is_err() || HeaderValue::try_from(value).is_err() {
            found.push(format!("headers: \"{name}: {value}\" is no header"));
        }
    }
    match (traffic.protocol, &traffic.body) {
        (_, Some(_)) if !traffic.inputs.is_empty() => found.push("either body or inputs, not both".to_owned()),
        (_, None) if traffic.inputs.is_empty() => found.push("inputs are needed, or for V1 a body".to_owned()),
        (Protocol::V1, _) | (_, None) => {}
        (_, Some(_)) => found.push("body is of V1, others have inputs".to_owned()),
    }
    for input in &traffic.inputs {
        let wrong = of_input(input, traffic.protocol);
        found.extend(wrong.into_iter().map(|mistake| format!("input \"{}\": {mistake}", input.name)));
    }
    found
}

fn of_input(input: &Input, protocol: Protocol) -> Vec<String> {
    let mut found = Vec::new();
    match DType::parse(&input.datatype) {
        Err(error) => found.push(format!("datatype: {error}")),
        Ok(DType::Bytes) if input.text.is_empty() => {
            found.push("text is needed for BYTES: a list, of which each element is one".to_owned());
        }
        Ok(DType::Bytes) => {}
        Ok(DType::Fp16 | DType::Bf16) if protocol == Protocol::V2 => {
            found.push(format!("datatype: V2 has no {} as JSON, use v2-binary or grpc", input.datatype));
        }
        Ok(_) if !input.text.is_empty() => found.push("text is of BYTES".to_owned()),
        Ok(_) => {}
    }
    found.extend(Shape::new(input.shape.clone()).err().map(|error| format!("shape: {error}")));
    found.extend(outside("below", input.below.into(), 1.0..=u32::MAX.into()));
    found
}

/// Of one request, and no less than that.
fn bytes_of(input: &Input, protocol: Protocol) -> f64 {
    let elements: f64 = input.shape.iter().map(|size| *size as f64).product();
    let is_json = matches!(protocol, Protocol::V1 | Protocol::V2);
    let longest = input.text.iter().map(String::len).max().unwrap_or_default();
    let size = match DType::parse(&input.datatype).ok().and_then(DType::size) {
        // A float from 0 to 1 takes about 20 characters with its comma.
        Some(_) if is_json => 20,
        Some(size) => size,
        None => longest + 4,
    };
    elements * size as f64
}

fn of_step(scenario: &Scenario, number: usize, step: &Step) -> Vec<String> {
    let mut found = Vec::new();
    if scenario.steps[..number].iter().any(|other| other.name == step.name) {
        found.push("name: another step has it".to_owned());
    }
    found.extend(outside("seconds", step.seconds, 0.1 * f64::from(scenario.rounds)..=LONGEST_SECONDS));
    found.extend(outside("warmup_seconds", step.warmup_seconds, 0.0..=LONGEST_SECONDS));
    for name in &step.traffic {
        if !scenario.traffic.iter().any(|traffic| traffic.name == *name) {
            found.push(format!("traffic: there is none called \"{name}\""));
        }
    }
    let connections = |connections: usize| outside("connections", connections as f64, 1.0..=MOST_CONNECTIONS);
    match &step.load {
        Load::Closed { connections: of_step } => found.extend(connections(*of_step)),
        Load::Open { rate, of_capacity, connections: of_step, .. } => {
            found.extend(of_step.and_then(connections));
            if rate.is_some() == of_capacity.is_some() {
                found.push("either rate or of_capacity is needed".to_owned());
            }
            if let Some(rate) = rate {
                found.extend(outside("rate", *rate, 0.001..=MOST_PER_SECOND));
                found.extend(too_many(*rate, step));
            }
            found.extend(of_capacity.and_then(|part| outside("of_capacity", part, 0.001..=1000.0)));
            let finds = |step: &Step| matches!(step.load, Load::Closed { .. } | Load::Search { .. });
            if of_capacity.is_some() && !scenario.steps[..number].iter().any(finds) {
                found.push("of_capacity: no step before finds a capacity, as closed and search do".to_owned());
            }
        }
        Load::Search { .. } if scenario.rounds > 1 => found.push("load: a search is of one round".to_owned()),
        Load::Search { quantile, .. } => found.extend(outside("quantile", *quantile, 0.01..=1.0)),
    }
    found
}

/// More requests than can be kept.
pub fn too_many(rate: f64, step: &Step) -> Option<String> {
    let requests = rate * (step.warmup_seconds + step.seconds);
    let wrong = || format!("rate x seconds are {requests} requests, at most {MOST_REQUESTS} can be kept of a step");
    (requests > MOST_REQUESTS).then(wrong)
}

#[cfg(test)]
mod tests {
    use crate::run::scenario::Scenario;

    const SOUND: &str = r#"
        description = ""
        slo_milliseconds = 50
        [[traffic]]
        name = "a"
        share = 1.0
        protocol = "v2"
        model = "m"
        headers = { x-tenant = "a" }
        inputs = [{ name = "x", datatype = "FP32", shape = [1, 4], below = 7 }]
        [[steps]]
        name = "s"
        seconds = 1
        warmup_seconds = 0
        load.open = { arrivals = "constant", rate = 50, connections = 4 }
    "#;

    /// What is said of the sound scenario with one change.
    fn said(old: &str, new: &str) -> String {
        assert!(SOUND.contains(old), "{old}");
        Scenario::parse(&SOUND.replace(old, new)).map_or_else(|error| format!("{error:#}"), |_| "nothing".to_owned())
    }

    #[test]
    fn each_mistake_is_named_with_its_place() {
        assert_eq!(said("rate = 50", "rate = 60"), "nothing");
        for (old, field, values) in [
            ("rate = 50", "step \"s\": rate", &["0", "-5", "nan", "inf", "1e9"][..]),
            ("rate = 50", "step \"s\": of_capacity", &["0.5"]),
            ("seconds = 1\n", "step \"s\": seconds", &["0", "-1", "nan", "inf", "1e5"]),
            ("warmup_seconds = 0", "step \"s\": warmup_seconds", &["-1", "nan", "inf"]),
            ("connections = 4", "step \"s\": connections", &["0", "1000000"]),
            ("slo_milliseconds = 50", "slo_milliseconds", &["0", "-5", "nan", "inf"]),
            ("share = 1.0", "traffic \"a\": share", &["0", "-1", "nan"]),
            ("shape = [1, 4]", "traffic \"a\": input \"x\": shape", &["[4000000000, 4000000000, 4000000000]"]),
            ("shape = [1, 4]", "inputs", &["[1, 4000000]"]),
            ("below = 7", "traffic \"a\": input \"x\": below", &["0"]),
            ("datatype = \"FP32\"", "traffic \"a\": input \"x\": datatype", &["\"FP99\""]),
            ("below = 7", "traffic \"a\": input \"x\": text", &["[\"of a number\"]"]),
            ("datatype = \"FP32\"", "traffic \"a\": input \"x\": datatype", &["\"FP16\""]),
            ("datatype = \"FP32\"", "traffic \"a\": input \"x\": text", &["[], datatype = \"BYTES\""]),
            ("headers = { x-tenant = \"a\" }", "traffic \"a\": headers", &["{ \"x y\" = \"a\" }"]),
        ] {
            for value in values {
                let key = field.rsplit(' ').next().unwrap();
                let changed = if key == "inputs" { "shape" } else { key };
                let end = if old.ends_with('\n') { "\n" } else { "" };
                let said = said(old, &format!("{changed} = {value}{end}"));
                assert!(said.lines().any(|line| line.starts_with(field)), "{key} = {value}: {said}");
            }
        }
    }

    #[test]
    fn a_step_has_a_part_in_each_round() {
        let rounds = |rounds: &str| said("slo_milliseconds = 50", &format!("slo_milliseconds = 50\nrounds = {rounds}"));
        assert_eq!(rounds("10"), "nothing");
        assert!(rounds("0").contains("rounds is 0"));
        assert!(rounds("11").contains("step \"s\": seconds is 1, and is to be from 1.1"));
        let search = SOUND.replace(
            "load.open = { arrivals = \"constant\", rate = 50, connections = 4 }",
            "load.search = { arrivals = \"constant\" }",
        );
        assert!(Scenario::parse(&search).is_ok());
        let error = Scenario::parse(&search.replace("seconds = 50", "seconds = 50\nrounds = 2")).unwrap_err();
        assert!(error.to_string().contains("a search is of one round"), "{error}");
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let text = SOUND.replace("rate = 50", "rate = -5").replace("share = 1.0", "share = nan");
        let error = Scenario::parse(&(text + "traffic = [\"b\"]")).unwrap_err().to_string();
        for part in ["share is NaN", "rate is -5, and is to be from 0.001 to 1000000", "none called \"b\""] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn names_are_not_given_twice() {
        let traffic = "[[traffic]]\nname = \"a\"\nprotocol = \"v1\"\nmodel = \"m\"\nbody = \"b\"\n";
        assert!(said("[[steps]]", &format!("{traffic}[[steps]]")).contains("traffic \"a\": name: another"));
        let step = "[[steps]]\nname = \"s\"\nseconds = 1\nload.closed = { connections = 1 }\n";
        assert!(said("[[steps]]", &format!("{step}[[steps]]")).contains("step \"s\": name: another"));
    }

    #[test]
    fn a_rate_and_a_time_can_be_too_much_together() {
        assert!(said("seconds = 1\n", "seconds = 80000\n").contains("nothing"));
        assert!(said("rate = 50", "rate = 900000").contains("nothing"));
        let both = SOUND.replace("seconds = 1\n", "seconds = 80000\n").replace("rate = 50", "rate = 900000");
        assert!(Scenario::parse(&both).unwrap_err().to_string().contains("rate x seconds are 72000000000 requests"));
    }
}
