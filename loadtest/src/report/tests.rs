//! Pages of a run that was kept before there were pages.

use quick_xml::Reader;
use quick_xml::events::Event;
use serde_json::{Value, json};

use super::page;
use crate::run::kept::Run;

/// As it was kept, with changes.
fn kept(change: impl FnOnce(&mut Value)) -> Run {
    let mut run = serde_json::from_str(include_str!("tests/kept.json")).unwrap();
    change(&mut run);
    serde_json::from_value(run).unwrap()
}

/// Names of all elements, in order; fails if one is not closed.
fn elements(page: &str) -> Vec<String> {
    let mut reader = Reader::from_str(page);
    let (mut names, mut open) = (Vec::new(), 0);
    loop {
        let event = reader.read_event().unwrap();
        match &event {
            Event::Start(element) | Event::Empty(element) => {
                element.attributes().for_each(|attribute| drop(attribute.unwrap()));
                names.push(element.name().as_ref().to_owned());
                open += u32::from(matches!(event, Event::Start(_)));
            }
            Event::End(_) => open -= 1,
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(open, 0);
    names
}

fn count(names: &[String], name: &str) -> usize {
    names.iter().filter(|other| *other == name).count()
}

#[test]
fn a_page_tells_of_its_run_and_loads_nothing() {
    let page = page(&[kept(|_| {})]);
    let said =
        ["Two shapes of one model.", ">closed</th>", ">half</th>", ">whole</th>", "5\u{a0}ms", "AMD EPYC", "f16ce6e"];
    for text in
        said.iter().chain(&["traffic three rows", "loadtest run tiny.toml", "2026-11-21T", "429: ", "peak 409/s"])
    {
        assert!(page.contains(text), "{text}");
    }
    let names = elements(&page);
    assert_eq!(count(&names, "figure"), 2 + 1 + 3 + 3, "rates, a distribution, seconds and batches of each step");
    assert!(["script", "link", "img", "image", "iframe", "use"].iter().all(|name| count(&names, name) == 0));
    assert!(["src=", "href=", "url(", "@import"].iter().all(|loads| !page.contains(loads)));
}

#[test]
fn foreign_text_does_nothing() {
    let evil = "<script>alert('a')</script>&\"]]>";
    let run = kept(|run| {
        run["label"] = json!(evil);
        run["name"] = json!(evil);
        run["command"] = json!(evil);
        run["commit"] = json!(evil);
        run["cpu"] = json!(evil);
        run["targets"] = json!([{"name": evil, "url": evil, "build": evil}]);
        run["scenario"]["description"] = json!(evil);
        run["scenario"]["steps"][1]["name"] = json!(evil);
        run["steps"][1]["name"] = json!(evil);
        run["steps"][1]["traffic"][0][0] = json!(evil);
        run["steps"][1]["all"]["outcomes"][evil] = json!(3);
    });
    let page = page(&[run, kept(|_| {})]);
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;alert(&#39;a&#39;)"));
    elements(&page);
}

#[test]
fn runs_stand_beside_each_other() {
    let other = kept(|run| run["label"] = json!("triton"));
    let same = page(&[kept(|_| {}), other]);
    assert!(same.contains("<h1>tiny: tiny and triton</h1>") && same.contains("triton, p99"));
    assert!(!same.contains("did not play the same scenario"));
    assert_eq!(count(&elements(&same), "figure"), 2 + 3 + 3 + 3, "distributions step by step");
    let stricter = kept(|run| run["scenario"]["slo_milliseconds"] = json!(1));
    assert!(page(&[kept(|_| {}), stricter]).contains("did not play the same scenario"));
}

#[test]
fn targets_are_told_apart_with_the_verdict_before_all_else() {
    let page = page(&[kept(|run| {
        let target = |name: &str| json!({"name": name, "url": "http://x", "build": null});
        run["targets"] = json!([target("stable"), target("canary")]);
        for step in run["steps"].as_array_mut().unwrap() {
            step["targets"] = json!([["stable", step["all"]], ["canary", step["all"]]]);
        }
        let one = json!({"seen": 1.0, "low": 0.9, "high": 1.1});
        run["comparison"] = json!([{
            "step": "half", "baseline": "stable", "candidate": "canary", "p50_ratio": one, "p99_ratio": null,
            "error_difference": one, "share": one, "verdict": "worse", "sentence": "canary is worse than stable.",
        }]);
    })]);
    let verdict = page.find("Step half: canary is worse than stable.").unwrap();
    assert!(verdict < page.find("Step by step").unwrap());
    assert!(page.contains("target canary") && page.contains("canary, p99"));
}

#[test]
fn what_is_not_known_is_left_out_with_a_reason() {
    let bare = kept(|run| {
        run["steps"].as_array_mut().unwrap().truncate(1);
        run["steps"][0]["batch_rows"] = json!([]);
        run["steps"][0]["all"]["timeline"] = json!([]);
        run["steps"][0]["all"]["cdf"] = json!([]);
    });
    let page = page(&[bare]);
    for reason in ["no two rates were offered", "nothing was answered", "no step took longer", "no server has told"] {
        assert!(page.contains(&format!("Left out: {reason}")), "{reason}");
    }
    assert_eq!(count(&elements(&page), "figure"), 0);
}

#[test]
fn a_late_generator_is_warned_of() {
    let late = |milliseconds: f64| {
        let change = |step: &mut Value| step["sent_late_milliseconds"] = json!([milliseconds, 0.01]);
        page(&[kept(|run| run["steps"].as_array_mut().unwrap().iter_mut().for_each(change))])
    };
    assert!(late(1.3).contains("The generator itself was late"));
    assert!(!late(1.2).contains("The generator itself was late"));
}

#[test]
fn a_host_that_gave_much_to_others_is_warned_of() {
    let stolen = |part: Value| {
        let change = |step: &mut Value| step["stolen"] = part.clone();
        page(&[kept(|run| run["steps"].as_array_mut().unwrap().iter_mut().for_each(change))])
    };
    assert!(stolen(json!(0.13)).contains("to others in these steps: closed (13 %), half (13 %), whole (13 %)."));
    assert!(!stolen(json!(0.04)).contains("to others") && !stolen(Value::Null).contains("to others"));
}

#[test]
fn a_run_that_failed_says_so_before_all_else() {
    let page = page(&[kept(|run| run["failure"] = json!("step \"half\": the server is gone."))]);
    let at = |text: &str| page.find(text).unwrap();
    assert!(at("was not played to its end: step &quot;half&quot;: the server is gone.") < at("Step by step"));
}

#[test]
fn steps_without_an_answer_are_told() {
    let page = page(&[kept(|run| {
        for step in run["steps"].as_array_mut().unwrap() {
            step["all"] = json!({"sent_per_second": 5.0, "goodput_per_second": 0.0, "answered_per_second": 0.0,
                "outcomes": {"no answer": 10}, "versions": {}, "told_when_to_retry": 0, "milliseconds": {},
                "refusal_milliseconds": {}, "cdf": [], "timeline": [[5, 0, 0.0, 0.0], [5, 0, 0.0, 0.0]]});
            step["capacity_per_second"] = json!(0.0);
            step["unanswered"] = json!({"connection refused": 10});
        }
    })]);
    elements(&page);
    assert!(page.contains("no answer: 10") && page.contains("connection refused (10 times)") && !page.contains("NaN"));
}

#[test]
fn long_steps_show_their_drift() {
    let run = kept(|run| {
        run["steps"][1]["drift"] = json!({"p50": [1.0, 1.0], "p99": [2.0, 3.0]});
        let memory = json!([[0.0, 1_048_576.0], [60.0, 2_097_152.0]]);
        run["steps"][1]["servers"] = json!([{"mean_batch_rows": null, "batch_rows": [], "memory": memory}]);
    });
    let page = page(&[run]);
    assert!(
        page.contains("× 1.5") && page.contains("1\u{a0}MiB to 2\u{a0}MiB") && page.contains("resident memory, MiB")
    );
}
