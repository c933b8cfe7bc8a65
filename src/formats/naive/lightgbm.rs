//! lightgbm's models and answers in `tests/tabular/lightgbm`, against the reader and the naive predictor.

use serde_json::Value;

use super::{contributions, lightgbm_scores};
use crate::formats::lightgbm::{self as lgb, Model, Objective};
use crate::formats::naive::fixtures::{Case, cases, fuzz, models, widths};
use crate::formats::trees::ZERO;

fn assert_close(place: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    let close = |(got, expected): (&f64, &f64)| {
        got == expected || (got.is_nan() && expected.is_nan()) || (got - expected).abs() <= tolerance * expected.abs()
    };
    let equal = got.len() == expected.len() && got.iter().zip(expected).all(close);
    assert!(equal, "{place}: got {got:?}, expected {expected:?}");
}

fn check(case: &Case, model: &Model) {
    let [rows, raw, predictions, leaves] = ["rows", "raw", "prediction", "leaves"].map(|what| case.numbers(what));
    // Sums of leaves are equal to the bit; the products of linear leaves and exp may be contracted or rounded
    // otherwise by the library's compiler.
    let tolerance = if model.trees.iter().any(|tree| !tree.linear.is_empty()) { 1e-12 } else { 0.0 };
    for (index, row) in rows.iter().enumerate() {
        let at = format!("{} row {index}", case.name);
        let (mut scores, found) = lightgbm_scores(model, row);
        let found: Vec<f64> = found.into_iter().map(|leaf| leaf as f64).collect();
        assert_eq!(found, leaves[index], "{at}");
        assert_close(&at, &scores, &raw[index], tolerance);
        if case.answers.get("contributions").is_some() {
            check_contributions(&at, model, row, &case.numbers("contributions")[index]);
        }
        model.apply(&mut scores);
        assert_close(&at, &scores, &predictions[index], 1e-12);
    }
}

fn check_contributions(at: &str, model: &Model, row: &[f64], expected: &[f64]) {
    let width = model.features + 1;
    let mut sums = vec![0.0; width * model.trees_per_iteration];
    let row: Vec<f64> = row.iter().map(|value| if value.abs() <= ZERO { 0.0 } else { *value }).collect();
    for (index, tree) in model.trees.iter().enumerate() {
        let sums = &mut sums[index % model.trees_per_iteration * width..][..width];
        let contributions = contributions(tree, model.features, &row);
        sums.iter_mut().zip(contributions).for_each(|(sum, part)| *sum += part);
    }
    let scale = 1e-10 * expected.iter().fold(1.0, |greatest: f64, value| greatest.max(value.abs()));
    let close = sums.iter().zip(expected).all(|(sum, expected)| (sum - expected).abs() <= scale);
    assert!(close && sums.len() == expected.len(), "{at}: got {sums:?}, expected {expected:?}");
}

#[test]
fn scores_predictions_and_leaves_are_the_librarys() {
    let mut seen = 0;
    for case in cases("lightgbm") {
        let model = lgb::read(&case.bytes).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        assert!(lgb::recognise(&case.bytes));
        check(&case, &model);
        seen += 1;
    }
    assert!(seen > 30, "{seen} cases");
}

fn text(name: &str) -> String {
    let case = cases("lightgbm").into_iter().find(|case| case.name == name).unwrap_or_else(|| panic!("{name}"));
    String::from_utf8(case.bytes).unwrap()
}

#[test]
fn what_a_model_says_is_kept() {
    let model = |name: &str| lgb::read(text(name).as_bytes()).unwrap();
    let pandas = model("pandas");
    assert_eq!(pandas.feature_names[0], "column_0", "lightgbm's own names have no spaces");
    let [categories] = pandas.pandas_categorical.as_slice() else { panic!() };
    assert!(categories.contains(&Value::from("kind é 3")));
    let ova = model("multiclassova");
    assert_eq!(ova.objective, Some(Objective::MulticlassOva { classes: 3, sigmoid: 1.0 }));
    assert_eq!((ova.trees_per_iteration, ova.iterations(), ova.trees.len()), (3, 2, 6));
    let forest = model("forest");
    assert!(forest.average_output && forest.parameters["boosting"] == "rf");
    assert_eq!(model("custom").objective, None);
    assert_eq!(model("old_forest").version, "v3");
    assert_eq!(model("binary").version, "v4");
    let mut short = model("multiclassova");
    short.keep_iterations(1);
    assert_eq!((short.iterations(), short.trees.len()), (1, 3));
}

#[test]
fn windows_line_ends_are_taken() {
    let text = text("categories");
    let windows = text.replace('\n', "\r\n");
    assert_eq!(lgb::read(windows.as_bytes()).unwrap(), lgb::read(text.as_bytes()).unwrap());
}

#[test]
fn a_tree_of_another_size_than_the_file_says_is_refused() {
    let good = text("categories");
    let read = |text: &str| lgb::read(text.as_bytes()).map_err(|error| error.message().to_owned());
    let leaf = good.find("leaf_value=").unwrap() + "leaf_value=".len() + 1;
    let lost = [&good[..leaf], &good[leaf + 1..]].concat();
    for text in [&lost, &lost.replace('\n', "\r\n"), &good.replacen("\n\n\nTree=1", "\n\n\n\nTree=1", 1)] {
        assert!(read(text).unwrap_err().contains("by tree_sizes: was the file edited?"));
    }
    let last = good.replacen("\n\nend of trees", "\n0=\n\nend of trees", 1);
    assert!(read(&last).unwrap_err().starts_with("tree 3: it has"));
    // As lightgbm 2.1 wrote.
    let end = good.find("end of trees").unwrap()..good.find("feature_importances:").unwrap();
    let old = good.replacen("version=v4", "version=v2", 1).replacen(&good[end], "\n", 1);
    let old = old.replacen("feature_importances:", "feature importances:", 1);
    assert_eq!(read(&old).unwrap().trees, read(&good).unwrap().trees);
    assert!(read(&old.replacen("\nfeature", "feature", 1)).is_err());
}

/// Replaces the value of the first line with this key.
fn with(text: &str, key: &str, value: &str) -> String {
    let begin = text.find(&format!("\n{key}=")).unwrap_or_else(|| panic!("{key}")) + 1;
    let end = begin + text[begin..].find('\n').unwrap();
    format!("{}{key}={value}{}", &text[..begin], &text[end..])
}

#[test]
fn what_is_wrong_is_named() {
    let good = text("categories");
    let read = |text: &str| lgb::read(text.as_bytes()).map_or_else(|error| error.to_string(), |_| "read".to_owned());
    assert_eq!(read(&good), "read");
    for (key, value, expected) in [
        ("version", "v5", "\"v5\""),
        ("max_feature_idx", "9223372036854775807", "at most 1048576 are supported"),
        ("num_tree_per_iteration", "0", "num_tree_per_iteration is 0"),
        ("num_tree_per_iteration", "18446744073709551615", "an iteration has 18446744073709551615"),
        ("objective", "cox", "\"cox\""),
        ("num_leaves", "9223372036854775807", "tree 0: leaf_value has"),
        ("num_leaves", "0", "tree 0: leaf_value has"),
        ("left_child", "0 0 0 0 0", "tree 0: node 0: its child is the root"),
        ("left_child", "9 0 0 0 0", "tree 0: split 0: its child 9 does not exist"),
        ("right_child", "-9 0 0 0 0", "tree 0: split 0: its child -9 does not exist"),
        ("split_feature", "0 0 0 0 5", "splits on feature 5, but the model has 5"),
        ("threshold", "nan nan nan nan nan", "tree 0: "),
        ("num_cat", "18446744073709551615", "cat_boundaries"),
        ("tree_sizes", "756", "there are 4 of 1 trees"),
    ] {
        let error = read(&with(&good, key, value));
        assert!(error.contains(expected), "{key}={value}: {error:?} lacks {expected:?}");
    }
    assert!(read("").contains("begins with \"tree\""));
    for cut in (0..good.len()).filter(|cut| good.is_char_boundary(*cut)) {
        let complete = good[..cut].contains("end of trees");
        let result = lgb::read(&good.as_bytes()[..cut]);
        // What comes after the trees, but for pandas' categories, is for information.
        assert!(result.is_err() || complete, "cut at {cut}");
    }
}

fn without_sizes(model: Vec<u8>) -> Vec<u8> {
    let text = String::from_utf8(model).unwrap();
    text.split_inclusive('\n').filter(|line| !line.starts_with("tree_sizes=")).collect::<String>().into()
}

#[test]
fn mutated_models_are_read_or_refused() {
    let texts: &[&[u8]] = &[b"-1", b"1e999", b"nan", b"inf", b"4294967296", b"9223372036854775807", b"0 0", b""];
    // With them hardly a changed tree would come to be used.
    let corpus: Vec<Vec<u8>> = models("lightgbm").into_iter().map(without_sizes).collect();
    fuzz(&corpus, texts, |bytes| {
        let model = lgb::read(bytes)?;
        let row: Vec<f64> = [0.5, f64::NAN, -3.0, 1e300, 2.0].into_iter().cycle().take(model.features).collect();
        model.apply(&mut lightgbm_scores(&model, &row).0);
        Ok(())
    });
}

/// See the one for xgboost.
#[test]
#[ignore = "needs a folder of cases"]
fn random_models() {
    let mut failures = Vec::new();
    let cases = cases("lightgbm");
    for case in &cases {
        let checked = std::panic::catch_unwind(|| check(case, &lgb::read(&case.bytes).unwrap()));
        failures.extend(checked.is_err().then(|| case.name.clone()));
    }
    println!("{} cases, {:?}", cases.len(), widths(&cases));
    assert!(failures.is_empty(), "{failures:?}");
}
