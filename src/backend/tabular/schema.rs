//! Which columns a model takes, found in its description.

use std::sync::Arc;

use super::estimator::{Estimator, Names, Takes};
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::formats::mlmodel;
use crate::formats::trees::check_features;
use crate::infer::table::{ColumnSpec, Matching, TableSpec};
use crate::tensor::DType;

/// The columns of a fitted scikit-learn estimator.
///
/// # Errors
/// When `feature_names_in_` holds no names.
pub fn of_estimator(root: Node<'_>, estimator: &dyn Estimator) -> Result<TableSpec> {
    let first = first_step(root);
    let stored = first.read_some("feature_names_in_", Node::texts)?;
    let names = stored.as_ref().map_or_else(|| estimator.names(), |list| Names { list, underscored: false });
    check_features(estimator.features().unwrap_or(0))?;
    let ignores_unknown = first.class().is_some_and(|class| &*class.name == "ColumnTransformer");
    Ok(columns(estimator, names, ignores_unknown))
}

/// The columns of an estimator whose names, if any, are known. Names that are not as many as its columns are none.
pub fn columns(estimator: &dyn Estimator, names: Names<'_>, ignores_unknown: bool) -> TableSpec {
    let Names { list: names, underscored } = names;
    let known = estimator.features().or((!names.is_empty()).then_some(names.len()));
    // Vectorizers take one column of text and do not count it.
    let count = known.unwrap_or(usize::from(estimator.takes(0).dtype() == DType::Json));
    let columns = (0..count).map(|place| ColumnSpec {
        name: names.get(place).filter(|_| names.len() == count).map(|name| Arc::from(&**name)),
        takes: estimator.takes(place),
        optional: !estimator.demands(place),
        unused: !estimator.uses(place) && estimator.passes(place).is_none(),
        ..ColumnSpec::default()
    });
    TableSpec::new(columns.collect(), Matching { ignores_unknown, underscored })
}

/// With what MLflow's signature says of the columns: names where the model has none, types that clients are told. Columns
/// beyond may come along, which `mlflow.pyfunc` leaves out.
///
/// # Errors
/// When the signature has another number of columns than the model.
pub fn with_signature(table: TableSpec, signature: &[mlmodel::Column]) -> Result<TableSpec> {
    if signature.is_empty() {
        return Ok(table);
    }
    let mut columns = table.columns;
    if columns.is_empty() {
        columns = vec![ColumnSpec::default(); signature.len()];
    }
    let names_known = columns.iter().any(|column| column.name.is_some());
    if !names_known && columns.len() != signature.len() {
        return Err(Error::load(format!(
            "the signature in MLmodel has {} columns, but the model takes {}",
            signature.len(),
            columns.len()
        )));
    }
    for (place, declared) in signature.iter().enumerate() {
        let column = match columns.iter().position(|column| column.name.as_ref() == Some(&declared.name)) {
            Some(place) => &mut columns[place],
            // A column of the training frame that the model itself never saw.
            None if names_known => continue,
            None => &mut columns[place],
        };
        column.name = Some(declared.name.clone());
        // mlflow.pyfunc brings integers into the type that the signature has.
        if column.takes == Takes::Typed && !declared.dtype.is_integer() {
            column.takes = Takes::Numbers;
        }
        column.optional |= !declared.required;
        column.declared = Some(if column.takes == Takes::Text { DType::Bytes } else { declared.dtype });
    }
    Ok(TableSpec::new(columns, Matching { ignores_unknown: true, ..table.matching }))
}

/// With numbers of which the type does not count, for they are all made floats.
pub fn of_fractions(table: TableSpec) -> TableSpec {
    let mut columns = table.columns;
    columns.iter_mut().filter(|column| column.takes == Takes::Typed).for_each(|column| column.takes = Takes::Numbers);
    TableSpec::new(columns, table.matching)
}

/// The object that says what a request's columns are: the first that looks at them, down through pipelines and searches,
/// which keep no names of their own.
fn first_step(root: Node<'_>) -> Node<'_> {
    const MAX_DEPTH: usize = 16;
    looks_first(root, MAX_DEPTH)
}

fn looks_first(node: Node<'_>, depth: usize) -> Node<'_> {
    let class = node.class().map(|class| &*class.name);
    let Some(depth) = depth.checked_sub(1) else { return node };
    let found = match class {
        Some("Pipeline") => steps(node, "steps").and_then(|mut steps| {
            let first = looks_first(steps.next()?, depth);
            // It hands on whatever frame it is given, and until 1.1 kept no names.
            let hands_on = first.class().is_some_and(|class| &*class.name == "FunctionTransformer");
            let later = if hands_on { steps.next().map(|step| looks_first(step, depth)) } else { None };
            Some(later.filter(has_names).unwrap_or(first))
        }),
        Some("FeatureUnion") => steps(node, "transformer_list").and_then(|parts| {
            let parts: Vec<_> = parts.map(|part| looks_first(part, depth)).collect();
            parts.iter().copied().find(has_names).or(parts.first().copied())
        }),
        Some(_) => inside(node).map(|inner| looks_first(inner, depth)).filter(|inner| !hides_names(*inner, node)),
        None => None,
    };
    found.filter(|found| found.class().is_some()).unwrap_or(node)
}

/// The estimator that one hands its rows to without looking at them.
fn inside(node: Node<'_>) -> Option<Node<'_>> {
    let class = node.class()?;
    let first = |list: &str| node.find(list)?.items().ok()?.find(|item| item.class().is_some());
    match &*class.name {
        "VotingClassifier" | "VotingRegressor" | "StackingClassifier" | "StackingRegressor" => first("estimators_"),
        "CalibratedClassifierCV" => {
            let pair = first("calibrated_classifiers_")?;
            pair.some("estimator").or_else(|| pair.some("base_estimator"))
        }
        "TransformedTargetRegressor" => node.some("regressor_"),
        _ => node.some("best_estimator_"),
    }
}

/// Whether the outer one knows names that the inner one has not.
fn hides_names(inner: Node<'_>, outer: Node<'_>) -> bool {
    has_names(&outer) && !has_names(&inner)
}

fn has_names(node: &Node<'_>) -> bool {
    node.some("feature_names_in_").is_some()
}

/// The estimators of a list of names and estimators: what only passes columns on keeps no names either.
fn steps<'g>(node: Node<'g>, list: &str) -> Option<impl Iterator<Item = Node<'g>>> {
    let steps = node.find(list)?.items().ok()?;
    Some(steps.filter_map(|step| step.items().ok()?.nth(1)).filter(|step| step.class().is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_names_columns_and_lets_others_come_along() {
        let declared = |name: &str| mlmodel::Column { name: name.into(), dtype: DType::Int64, required: true };
        let signature = [declared("a"), declared("b")];
        let unnamed = TableSpec::new(vec![ColumnSpec::default(); 2], Matching::default());
        let table = with_signature(unnamed.clone(), &signature).unwrap();
        assert_eq!(table.position("b"), Some(1));
        assert_eq!(table.columns[0].declared, Some(DType::Int64));
        assert!(table.check_names(&[], &["note"]).is_ok() && unnamed.check_names(&[], &["note"]).is_err());
        assert!(with_signature(unnamed, &signature[..1]).is_err());
    }
}
