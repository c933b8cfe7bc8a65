//! Reads every model file below a directory, for checks against many versions and estimators:
//! `STOKER_MODELS=dir cargo test --test it -- --ignored wide`

use std::path::Path;
use std::time::Instant;

use stoker::formats::{pickle, skops};

use crate::describe::describe;
use crate::tabular::{difference, sorted};

#[test]
#[ignore = "needs a directory of model files"]
fn wide() {
    let root = std::env::var("STOKER_MODELS").expect("STOKER_MODELS names a directory");
    let (mut read, mut failed, mut different) = (0, 0, 0);
    let mut entries: Vec<_> = std::fs::read_dir(Path::new(&root)).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let bytes = std::fs::read(&path).unwrap();
        let begun = Instant::now();
        let outcome = match path.extension().and_then(|extension| extension.to_str()) {
            Some("pkl" | "joblib") => pickle::read(bytes),
            Some("skops") => skops::read(bytes),
            _ => continue,
        };
        match outcome {
            Ok((graph, root)) => {
                read += 1;
                // What skops saved is what joblib saved.
                let joblib = path.with_extension("joblib");
                if path.extension().is_some_and(|extension| extension == "skops") && joblib.exists() {
                    let (other, other_root) = pickle::read(std::fs::read(&joblib).unwrap()).unwrap();
                    let [ours, other] =
                        [(&graph, root), (&other, other_root)].map(|(graph, id)| describe(graph.node(id)));
                    if let Some(difference) = difference("", &sorted(ours), &sorted(other)) {
                        different += 1;
                        println!("{}: {}", path.display(), difference.chars().take(400).collect::<String>());
                    }
                }
                if std::env::var_os("STOKER_SHOW").is_some() {
                    println!("{} {:?} {:?}", path.display(), graph.node(root).class(), begun.elapsed());
                }
            }
            Err(error) => {
                failed += 1;
                println!("{}: {error}", path.display());
            }
        }
    }
    println!("{read} read, {failed} failed, {different} differ");
    assert_eq!(failed, 0);
}
