//! `stoker place`: plans for recorded machines, from files to files.

use std::path::Path;
use std::process::{Command, Output};

const DEMANDS: &str = r#"[
    {"model": "forest", "weights": 50000000, "wants": {"prefer": "cpu"}},
    {"model": "cnn", "weights": 100000000, "workspace": 900000000, "workspace_per_row": 8000000, "max_rows": 32,
     "wants": {"only": "gpu"}, "replicas": 2, "busy": {"gpu": 30}},
    {"model": "large", "weights": 30000000000, "wants": {"only": "gpu"}}
]"#;

fn place(args: &[&str], machine: &str) -> Output {
    let recording = format!("--recording={}/tests/topologies/{machine}.json", env!("CARGO_MANIFEST_DIR"));
    Command::new(env!("CARGO_BIN_EXE_stoker")).arg("place").args(args).arg(recording).output().unwrap()
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_plan_is_explained_and_can_be_gone_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let demands = format!("--demands={}", file(folder.path(), "demands.json", DEMANDS));
    let explained = place(&[&demands, "--explain"], "a100-mig-balanced");
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(explained.status.success(), "{text}");
    for line in [
        "MODEL   COPY  MEMORY    DEVICE",
        "forest  0     47.7 MiB  cpu",
        "large   0     27.9 GiB  gpu0/2/0",
        "large (0): gpu0/2/0: the only one with room for 27.9 GiB",
        "cnn (0): gpu0/2/0: the least busy (0.36; gpu0/3/0 0.54) of 4 with room for 1.2 GiB",
        "cnn (1): gpu0/3/0: the least busy (0.54; gpu0/9/0 1.07) of 3 with room for 1.2 GiB",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\nin\n{text}");
    }
    let planned = place(&[&demands, "--json"], "a100-mig-balanced");
    let current = file(folder.path(), "current.json", &String::from_utf8(planned.stdout).unwrap());
    let again = place(&[&demands, &format!("--current={current}"), "--explain"], "a100-mig-balanced");
    let text = String::from_utf8(again.stdout).unwrap();
    assert_eq!(text.matches(": it runs there").count(), 4, "{text}");
}

#[test]
fn what_has_no_place_is_told_and_so_is_a_file_that_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let demands = format!("--demands={}", file(folder.path(), "demands.json", DEMANDS));
    let said = |args: &[&str], machine| {
        let output = place(args, machine);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let text = said(&[&demands], "h100-mig-7x1g");
    assert!(text.starts_with("stoker: 1 of 4 copies of models have no place\n"), "{text}");
    assert!(
        text.contains("large (0): no device has room for 27.9 GiB (weights)\n  cpu: it is to run on a GPU\n"),
        "{text}"
    );
    assert!(!text.contains("cnn (0):"), "{text}");
    let twice = file(folder.path(), "twice.json", r#"[{"model": "a", "weights": 1}, {"model": "a", "weights": 2}]"#);
    assert!(said(&[&format!("--demands={twice}")], "none").contains("twice.json: a is there twice"));
    let wrong = file(folder.path(), "wrong.json", r#"[{"model": "a", "weight": 1}]"#);
    assert!(said(&[&format!("--demands={wrong}")], "none").contains("unknown field `weight`"));
    assert!(said(&[], "none").contains("expected stoker place --demands=FILE"));
}
