//! Models that lost one attribute: each is refused, or answers as before. Never is one that is in use taken for one that
//! is off.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value as Json;
use stoker::backend::tabular::data::Data;
use stoker::backend::tabular::estimator::{Estimator, Method};
use stoker::backend::tabular::sklearn;
use stoker::formats::graph::{Graph, Value};
use stoker::formats::pickle;
use stoker::tensor::DType;

use crate::estimators::{ask, dtype, rows};
use crate::hostile_models::named_corpus;

/// Attributes that make a difference though they may be missing, each with its reason.
const MAY_BE_MISSING: [(&str, &str); 1] = [
    // The only mark of lightgbm 4.7's classifiers: without it they are older ones, which calibrate otherwise.
    ("_fitted_with_feature_names", "boosters_lightgbm_calibrated"),
];

/// Names of attributes of all objects in a file.
fn attributes(graph: &Graph) -> BTreeSet<String> {
    let states = graph.nodes().filter_map(|node| Some(node.at(graph.attributes(node.object().ok()?.state?))));
    let keys = states.filter_map(|state| state.entries().ok()).flatten().map(|(key, _)| key);
    let names = keys.filter_map(|key| match key.value() {
        Value::Text(name) => Some(String::from(&**name)),
        _ => None,
    });
    names.collect()
}

/// The file with an attribute of another name in place of this one, wherever it is.
fn without(bytes: &[u8], name: &str) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let written = [&[0x8c, name.len() as u8], name.as_bytes()].concat(); // SHORT_BINUNICODE
    let places: Vec<usize> = memchr::memmem::find_iter(&bytes, &written).collect();
    for place in places {
        bytes[place + written.len() - 1] = b'Q';
    }
    bytes
}

/// What a model says of these rows, by each method, with its type; `None` where it refuses them.
fn answers(model: &dyn Estimator, rows: &Data) -> Vec<Option<(Json, DType)>> {
    let answer = |method| Some((ask(model, method, rows).ok()?, dtype(model, method, rows)));
    Method::ALL.into_iter().map(|method| model.can(method).then(|| answer(method)).flatten()).collect()
}

#[test]
fn an_attribute_that_is_missing_is_not_off() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tabular/cases");
    let (mut wrong, mut refused) = (Vec::new(), 0);
    for (name, bytes) in named_corpus() {
        let case: Json = serde_json::from_slice(&std::fs::read(cases.join(&name).join("case.json")).unwrap()).unwrap();
        let model = sklearn::load(bytes.clone().into()).unwrap();
        let rows = rows(&case["rows"], &*model);
        let expected = answers(&*model, &rows);
        let (graph, _) = pickle::read(bytes.clone()).unwrap();
        for attribute in attributes(&graph) {
            if MAY_BE_MISSING.iter().any(|(known, start)| *known == attribute && name.starts_with(start)) {
                continue;
            }
            let Ok(damaged) = sklearn::load(without(&bytes, &attribute).into()) else {
                refused += 1;
                continue;
            };
            let given = answers(&*damaged, &rows);
            if given.iter().zip(&expected).any(|(given, expected)| given.is_some() && given != expected) {
                wrong.push(format!("{name} answers otherwise without {attribute}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(refused > 4000, "only {refused} are refused: attributes are not found");
}
