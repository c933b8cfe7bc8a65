//! xgboost's models and answers in `tests/tabular/xgboost`, against the reader and the naive predictor.

use serde_json::Value;

use super::{contributions, leaf, xgboost_margins};
use crate::formats::naive::fixtures::{Case, cases, fuzz, models, widths};
use crate::formats::xgboost::{self as xgb, Booster, Forest, Model, Target, Transform};

fn narrow(rows: &[Vec<f64>]) -> Vec<Vec<f32>> {
    rows.iter().map(|row| row.iter().map(|value| *value as f32).collect()).collect()
}

/// Equal to the bit, but that all NaN are one.
fn assert_same(place: &str, got: &[f32], expected: &[f32]) {
    let one_nan = |value: &f32| if value.is_nan() { f32::NAN } else { *value };
    let bits = |values: &[f32]| values.iter().map(|value| one_nan(value).to_bits()).collect::<Vec<_>>();
    assert!(bits(got) == bits(expected), "{place}: got {got:?}, expected {expected:?}");
}

/// The scikit-learn classes' way with dart.
fn inplace_margins(model: &Model, row: &[f32]) -> Vec<f32> {
    let Booster::Forest(forest) = &model.booster else { unreachable!() };
    let Some(weights) = &forest.weights else { return xgboost_margins(model, usize::MAX, row) };
    let wide: Vec<f64> = row.iter().copied().map(f64::from).collect();
    let base = model.base_margins();
    let mut margins = base.clone();
    for (grown, weight) in forest.trees.iter().zip(weights) {
        let Target::Output(output) = grown.target else { unreachable!() };
        let value = grown.tree.leaves[leaf(&grown.tree, &wide)] as f32;
        margins[output] += ((base[output] + value) - base[output]) * weight;
    }
    margins
}

/// Not to the bit: the library sums `f32` in an order of its own.
fn check_contributions(at: &str, model: &Model, forest: &Forest, row: &[f64], expected: &[f64]) {
    let width = model.features + 1;
    let mut sums = vec![0.0; width * model.outputs];
    for (output, base) in model.base_margins().into_iter().enumerate() {
        sums[output * width + model.features] = f64::from(base);
    }
    for (index, grown) in forest.trees.iter().enumerate() {
        let Target::Output(output) = grown.target else { unreachable!() };
        let weight = forest.weights.as_ref().map_or(1.0, |weights| f64::from(weights[index]));
        let contributions = contributions(&grown.tree, model.features, row);
        let sums = &mut sums[output * width..][..width];
        sums.iter_mut().zip(contributions).for_each(|(sum, part)| *sum += part * weight);
    }
    let scale = 1e-5 * expected.iter().fold(1.0, |greatest: f64, value| greatest.max(value.abs()));
    let close = sums.iter().zip(expected).all(|(sum, expected)| (sum - expected).abs() <= scale);
    assert!(close && sums.len() == expected.len(), "{at}: got {sums:?}, expected {expected:?}");
}

fn check(case: &Case, model: &Model) {
    let place = format!("{} {}", case.name, case.format);
    let rows = narrow(&case.numbers("rows"));
    for (index, row) in rows.iter().enumerate() {
        let at = format!("{place} row {index}");
        let expect = |what: &str| narrow(&case.numbers(what))[index].clone();
        let mut margins = xgboost_margins(model, usize::MAX, row);
        assert_same(&at, &margins, &expect("margin"));
        model.objective.transform.apply(&mut margins);
        margins.truncate(model.objective.transform.outputs(model.outputs));
        assert_same(&at, &margins, &expect("prediction"));
        let Booster::Forest(forest) = &model.booster else { continue };
        let wide: Vec<f64> = row.iter().copied().map(f64::from).collect();
        let leaves: Vec<f64> =
            forest.trees.iter().map(|grown| f64::from(grown.leaf_ids[leaf(&grown.tree, &wide)])).collect();
        assert_eq!(leaves, case.numbers("leaves")[index], "{at}");
        if !case.answers["library"].as_str().unwrap().starts_with("xgboost 1.") {
            assert_same(&at, &inplace_margins(model, row), &expect("inplace_margin"));
        }
        if case.answers.get("contributions").is_some() {
            check_contributions(&at, model, forest, &wide, &case.numbers("contributions")[index]);
        }
        if case.answers.get("best_margin").is_some() {
            let trees = forest.trees_until(model.best_iteration().unwrap() + 1);
            assert_same(&at, &xgboost_margins(model, trees, row), &expect("best_margin"));
        }
    }
}

#[test]
fn margins_predictions_and_leaves_are_the_librarys() {
    let mut seen = 0;
    for case in cases("xgboost") {
        let model = xgb::read(&case.bytes).unwrap_or_else(|error| panic!("{} {}: {error}", case.name, case.format));
        check(&case, &model);
        seen += 1;
    }
    assert!(seen > 40, "{seen} cases");
}

/// The same model in another format is the same model.
#[test]
fn formats_agree() {
    let mut known: std::collections::HashMap<String, Model> = std::collections::HashMap::new();
    for case in cases("xgboost") {
        let mut model = xgb::read(&case.bytes).unwrap();
        if let Some(other) = known.get(&case.name) {
            if case.format == "model" {
                // It has no names and no patch version.
                model.version = other.version;
                model.feature_names.clone_from(&other.feature_names);
                model.feature_types.clone_from(&other.feature_types);
            }
            assert_eq!(&model, other, "{} {}", case.name, case.format);
        }
        known.insert(case.name.clone(), model);
    }
}

#[test]
fn binary_models_come_with_and_without_magic_and_inside_pickles() {
    let binary = cases("xgboost").into_iter().find(|case| case.name == "old_dart" && case.format == "model").unwrap();
    let model = xgb::read(&binary.bytes).unwrap();
    assert_eq!(xgb::read(&binary.bytes[4..]).unwrap(), model);
    let mut pickled = b"CONFIG-offset:".to_vec();
    pickled.extend((binary.bytes.len() as u64).to_le_bytes());
    pickled.extend(&binary.bytes);
    pickled.extend(b"{}");
    assert_eq!(xgb::read(&pickled).unwrap(), model);
    let error = xgb::read(&pickled[..200]).unwrap_err();
    assert!(error.message().contains("cut short"), "{error}");
}

#[test]
fn what_a_model_says_is_kept() {
    let model = |name: &str, format: &str| {
        let case = cases("xgboost").into_iter().find(|case| case.name == name && case.format == format);
        xgb::read(&case.unwrap_or_else(|| panic!("{name}")).bytes).unwrap()
    };
    let early = model("early", "json");
    assert!(early.best_iteration().is_some() && early.attributes.contains_key("best_score"));
    assert_eq!(model("old_trees", "model").attributes["note"], "kept");
    let categories = model("categories", "ubj");
    assert_eq!(categories.feature_types, ["q", "q", "q", "c", "c"]);
    assert_eq!((categories.features, categories.outputs, categories.classes), (5, 1, 0));
    let named = model("named", "json");
    assert_eq!(named.feature_names[4], "col \"4\" é");
    assert_eq!(named.feature_types, ["float", "float", "float", "float", "c"]);
    let multi = model("dart_multi", "ubj");
    assert_eq!((multi.outputs, multi.classes, multi.base_scores.len()), (3, 3, 3));
    assert_eq!(multi.objective.transform, Transform::Softmax);
    let Booster::Forest(forest) = &model("forest", "ubj").booster else { unreachable!() };
    assert_eq!((forest.parallel_trees, forest.iterations.as_slice()), (3, &[0, 3, 6][..]));
    let Booster::Forest(forest) = &model("vector", "ubj").booster else { unreachable!() };
    assert!(forest.trees.iter().all(|grown| grown.target == Target::All));
}

/// The same model as JSON, with one thing changed.
fn changed(name: &str, change: impl Fn(&mut Value)) -> String {
    let case = cases("xgboost").into_iter().find(|case| case.name == name && case.format == "json").unwrap();
    let mut model: Value = serde_json::from_slice(&case.bytes).unwrap();
    change(&mut model["learner"]);
    xgb::read(model.to_string().as_bytes()).map_or_else(|error| error.to_string(), |_| "read".to_owned())
}

#[test]
fn what_is_wrong_is_named() {
    let tree = |change: fn(&mut Value)| {
        changed("reg_gamma", |learner| change(&mut learner["gradient_booster"]["model"]["trees"][1]))
    };
    let model =
        |name: &str, change: fn(&mut Value)| changed(name, |learner| change(&mut learner["gradient_booster"]["model"]));
    assert_eq!(tree(|_| ()), "read");
    for (change, expected) in [
        (tree(|tree| tree["left_children"][0] = 0.into()), "trees: 1: node 0: its child 0 has a parent already"),
        (tree(|tree| tree["left_children"][0] = 99.into()), "its child 99 is none of the"),
        (tree(|tree| tree["right_children"][0] = (-1).into()), "its child -1 is none of the"),
        (tree(|tree| tree["split_indices"][0] = 5.into()), "tree 1: node 0: splits on feature 5, but the model has 5"),
        (tree(|tree| tree["split_conditions"] = vec![1.0].into()), "split_conditions has 1 values for"),
        (tree(|tree| tree["split_conditions"][0] = "x".into()), "split_conditions: 0: at byte"),
        (tree(|tree| tree["id"] = 7.into()), "with id 1"),
        (tree(|tree| tree["split_type"][0] = 1.into()), "by category, but has no categories"),
        (tree(|tree| tree["tree_param"]["num_nodes"] = "1".into()), "num_nodes is 1"),
        (changed("reg_gamma", |learner| learner["objective"]["name"] = "reg:x".into()), "\"reg:x\""),
        (changed("reg_gamma", |learner| learner["learner_model_param"]["base_score"] = "[1,2]".into()), "base_score"),
        (
            changed("linear", |learner| learner["learner_model_param"]["num_feature"] = "99999999999".into()),
            "at most 1048576",
        ),
        (changed("reg_gamma", |learner| learner["gradient_booster"]["name"] = "gbtreee".into()), "gbtreee"),
        (changed("reg_gamma", |learner| learner["learner_model_param"]["num_target"] = "0".into()), "num_target is 0"),
        (
            model("reg_gamma", |model| model["gbtree_model_param"]["num_parallel_tree"] = "0".into()),
            "num_parallel_tree is 0",
        ),
        (
            model("vector", |model| model["trees"][0]["tree_param"]["size_leaf_vector"] = "1".into()),
            "base_weights has 39 values for 13 nodes",
        ),
    ] {
        assert!(change.contains(expected), "{change:?} lacks {expected:?}");
    }
    let read = |bytes: &[u8]| xgb::read(bytes).unwrap_err().to_string();
    assert!(read(b"").contains("cut short"));
    assert!(read(b"{}").contains("no xgboost model"));
    assert!(read(b"{\"learner\": 3}").contains("learner: at byte 12"));
    assert!(read(&[0x7f; 300]).contains("not a model of xgboost"));
    // Lengths near 2^63.
    let huge = [b"{L".as_slice(), &i64::MAX.to_be_bytes(), b"x"].concat();
    assert!(read(&huge).contains("9223372036854775807"));
    let mut binary = vec![0; 136];
    binary.extend(u64::MAX.to_le_bytes());
    assert!(read(&binary).contains("18446744073709551615"));
}

/// One whose name lost a bit would have another's default: other answers, where xgboost refuses the file.
#[test]
fn fields_that_every_version_writes_are_required() {
    let without = |name: &str, path: &str, key: &str| {
        changed(name, |learner| {
            let object = learner.pointer_mut(path).and_then(Value::as_object_mut).unwrap();
            let value = object.remove(key).unwrap();
            object.insert(format!("{key}~"), value);
        })
    };
    let model = "/gradient_booster/model";
    let tree = "/gradient_booster/model/trees/0";
    for name in ["reg_gamma", "old_trees"] {
        for (path, key) in [
            ("", "attributes"),
            ("/learner_model_param", "base_score"),
            ("/learner_model_param", "num_class"),
            ("/learner_model_param", "num_feature"),
            ("/gradient_booster/model/gbtree_model_param", "num_trees"),
            (model, "tree_info"),
            (tree, "id"),
            (tree, "tree_param"),
            (tree, "sum_hessian"),
            (tree, "loss_changes"),
            ("/gradient_booster/model/trees/0/tree_param", "num_nodes"),
            ("/gradient_booster/model/trees/0/tree_param", "size_leaf_vector"),
        ] {
            let error = without(name, path, key);
            assert!(error.contains(&format!(" {key}")), "{name} without {key}: {error}");
        }
        for (path, key) in [("/learner_model_param", "num_target"), (tree, "split_type")] {
            assert_eq!(without(name, path, key), "read", "{key} is of later versions");
        }
    }
}

#[test]
fn thresholds_that_are_not_numbers_are_refused() {
    let case = cases("xgboost").into_iter().find(|case| case.name == "stump" && case.format == "json").unwrap();
    let text = String::from_utf8(case.bytes).unwrap();
    let text = text.replace("\"left_children\":[-1]", "\"left_children\":[1,-1,-1]");
    assert!(text.contains("\"right_children\":[-1]"));
    let text = text.replace("\"right_children\":[-1]", "\"right_children\":[2,-1,-1]");
    let mut wide = text.replace("\"num_nodes\":\"1\"", "\"num_nodes\":\"3\"");
    for name in [
        "split_indices",
        "split_conditions",
        "default_left",
        "sum_hessian",
        "loss_changes",
        "split_type",
        "base_weights",
    ] {
        let begin = wide.find(&format!("\"{name}\":[")).unwrap();
        let end = begin + wide[begin..].find(']').unwrap();
        let values = if name == "split_conditions" { "NaN,1,Infinity" } else { "0,0,0" };
        wide.replace_range(begin..end, &format!("\"{name}\":[{values}"));
    }
    let error = xgb::read(wide.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("tree 0: node 0: its threshold is not a number"), "{error}");
    let Booster::Forest(forest) = xgb::read(wide.replace("NaN", "-Infinity").as_bytes()).unwrap().booster else {
        unreachable!()
    };
    // Nothing is below -inf, everything but NaN is below inf.
    let tree = &forest.trees[0].tree;
    assert_eq!(tree.leaves, [1.0, f64::INFINITY]);
    assert_eq!([f64::NEG_INFINITY, 0.0, f64::NAN].map(|value| leaf(tree, &[value])), [1, 1, 1]);
}

#[test]
fn deep_nesting_costs_nothing() {
    for deep in [format!("{{\"x\": {}", "[".repeat(1 << 20)), format!("{{\"x\": {}", "{\"a\":".repeat(1 << 20))] {
        assert!(xgb::read(deep.as_bytes()).is_err());
    }
    let deep = [b"{L\0\0\0\0\0\0\0\x01x".as_slice(), &b"[".repeat(1 << 20)].concat();
    assert!(xgb::read(&deep).unwrap_err().message().contains("nested deeper"));
}

#[test]
fn mutated_models_are_read_or_refused() {
    let texts: &[&[u8]] =
        &[b"-1", b"1e39", b"NaN", b"Infinity", b"4294967296", b"[", b"]", b"\"", b"9223372036854775807"];
    fuzz(&models("xgboost"), texts, |bytes| match xgb::read(bytes) {
        Ok(model) => {
            // What was read can be computed with.
            let row = [0.5, f32::NAN, -3.0, 1e30, 2.0];
            let mut margins = xgboost_margins(&model, 100, &row[..model.features.min(5)]);
            model.objective.transform.apply(&mut margins);
            Ok(())
        }
        Err(error) => Err(error),
    });
}

/// `BOOSTER_CASES=DIR cargo test --lib naive -- --ignored`, with cases of `make_boosters.py random`.
#[test]
#[ignore = "needs a folder of cases"]
fn random_models() {
    let mut failures = Vec::new();
    let cases = cases("xgboost");
    for case in &cases {
        let checked = std::panic::catch_unwind(|| check(case, &xgb::read(&case.bytes).unwrap()));
        failures.extend(checked.is_err().then(|| format!("{} {}", case.name, case.format)));
    }
    println!("{} cases, {:?}", cases.len(), widths(&cases));
    assert!(failures.is_empty(), "{failures:?}");
}
