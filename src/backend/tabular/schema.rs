//! Which columns a model takes, found in its description.

use std::sync::Arc;

use super::estimator::Estimator;
use crate::error::Result;
use crate::formats::graph::Node;
use crate::infer::table::{ColumnSpec, TableSpec};

/// The columns of a fitted estimator.
///
/// # Errors
/// When the names are not those of its columns.
pub fn of_estimator(root: Node<'_>, estimator: &dyn Estimator) -> Result<TableSpec> {
    let first = first_step(root);
    let names = first.find("feature_names_in_").or_else(|| root.find("feature_names_in_"));
    let names: Option<Vec<Arc<str>>> =
        names.map(|names| names.items()?.map(|name| name.text().map(Arc::from)).collect()).transpose()?;
    let features = estimator.features().or(names.as_ref().map(Vec::len));
    // Vectorizers take one column of text and do not count it.
    let count = features.unwrap_or(usize::from(estimator.takes_text(0)));
    let names = names.filter(|names| names.len() == count);
    let columns = (0..count).map(|place| ColumnSpec {
        name: names.as_ref().map(|names| names[place].clone()),
        text: estimator.takes_text(place),
        required: estimator.uses(place),
    });
    let ignores_unknown = first.class().is_some_and(|class| &*class.name == "ColumnTransformer");
    Ok(TableSpec { columns: columns.collect(), ignores_unknown })
}

/// The object that a request reaches first: down through pipelines and searches, which keep no names of their own.
fn first_step(root: Node<'_>) -> Node<'_> {
    const MAX_DEPTH: usize = 16;
    let mut node = root;
    for _ in 0..MAX_DEPTH {
        let inner = match node.class().map(|class| &*class.name) {
            Some("Pipeline") => node.find("steps").and_then(|steps| {
                let first = steps.items().ok()?.next()?;
                first.tuple::<2>().ok().map(|[_, estimator]| estimator)
            }),
            Some(_) => node.some("best_estimator_"),
            None => None,
        };
        match inner {
            Some(inner) if inner.class().is_some() => node = inner,
            _ => break,
        }
    }
    node
}
