//! Model files of scikit-learn, written by its libraries (`tests/tabular/make_files.py`): what is read is what was
//! saved, whatever the protocol, compression or format.

use std::path::PathBuf;

use serde_json::Value as Json;
use stoker::error::Result;
use stoker::formats::graph::{Graph, Id};
use stoker::formats::{pickle, skops};

use crate::describe::describe;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tabular/files")
}

/// Names and contents of all model files.
pub fn files() -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> = entries
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
        .filter(|(name, _)| !name.ends_with(".json"))
        .map(|(name, path)| (name, std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

pub fn read(name: &str, bytes: Vec<u8>) -> Result<(Graph, Id)> {
    if name.ends_with(".skops") { skops::read(bytes) } else { pickle::read(bytes) }
}

fn expected(model: &str) -> Json {
    serde_json::from_slice(&std::fs::read(folder().join(format!("{model}.json"))).unwrap()).unwrap()
}

/// Where two descriptions part, for messages one can read.
pub fn difference(path: &str, got: &Json, expected: &Json) -> Option<String> {
    match (got, expected) {
        (Json::Object(a), Json::Object(b)) if a.keys().eq(b.keys()) => {
            a.iter().find_map(|(key, value)| difference(&format!("{path}.{key}"), value, &b[key]))
        }
        (Json::Array(a), Json::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(i, (a, b))| difference(&format!("{path}[{i}]"), a, b))
        }
        (Json::Number(a), Json::Number(b)) if a.as_f64() == b.as_f64() => None,
        _ if got == expected => None,
        _ => Some(format!("{path}: got {got}, expected {expected}")),
    }
}

#[test]
fn what_is_read_is_what_was_saved() {
    let files = files();
    assert!(files.len() > 40);
    let mut wrong = Vec::new();
    for (name, bytes) in files {
        let model = name.split('.').next().unwrap();
        if model.starts_with("refused") {
            continue;
        }
        let different = match read(&name, bytes) {
            Ok((graph, root)) => difference("", &sorted(describe(graph.node(root))), &sorted(expected(model))),
            Err(error) => Some(error.to_string()),
        };
        wrong.extend(different.map(|different| format!("{name}: {different}\n")));
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

/// Sets are in any order.
pub fn sorted(json: Json) -> Json {
    match json {
        Json::Object(members) => {
            let mut members: serde_json::Map<_, _> =
                members.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            if let Some(Json::Array(items)) = members.get_mut("set") {
                items.sort_by_key(Json::to_string);
            }
            Json::Object(members)
        }
        Json::Array(items) => Json::Array(items.into_iter().map(sorted).collect()),
        json => json,
    }
}
