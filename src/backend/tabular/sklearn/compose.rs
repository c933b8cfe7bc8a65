//! Estimators beside each other: column transformers and unions.

use std::sync::Arc;

use super::beside::beside;
use super::read;
use crate::backend::tabular::data::{Cell, Data, promoted};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, Takes, are_bounded};
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::tensor::{DType, Excerpt};

pub const CLASSES: &[(&str, Build)] = &[("ColumnTransformer", column_transformer), ("FeatureUnion", feature_union)];

/// `"passthrough"` and its old spelling `None`.
pub fn is_passthrough(node: Node<'_>) -> bool {
    node.is_none() || node.text().is_ok_and(|text| text == "passthrough")
}

/// A transformer with the columns it is given and what its result counts.
struct Part {
    name: Arc<str>,
    /// `None` passes the columns through.
    estimator: Option<Box<dyn Estimator>>,
    columns: Vec<usize>,
    weight: f64,
    /// Where its columns begin among those that come out, where that is known.
    start: Option<usize>,
}

/// Different columns through different transformers, results side by side.
struct ColumnTransformer {
    parts: Vec<Part>,
    features: usize,
    sparse: bool,
    naming: Naming,
}

fn column_transformer(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let features = match node.read_some("n_features_in_", Node::usize)? {
        Some(features) => features,
        None => node.read("_n_features", Node::usize)?, // 1.0 and before
    };
    let indices = node.attr("_transformer_to_input_indices")?;
    let mut parts = Vec::new();
    for transformer in node.read("transformers_", Node::items)? {
        let [name, estimator, _] = transformer.tuple()?;
        let name = name.text()?;
        let place = |error: Error| error.context(format_args!("transformer \"{}\"", Excerpt(name)));
        if estimator.text().is_ok_and(|text| text == "drop") {
            continue;
        }
        let columns = indices.read(name, Node::numbers)?.vector(None)?;
        let columns: Vec<usize> = columns.into_iter().map(|column| column as usize).collect();
        if let Some(beyond) = columns.iter().find(|column| **column >= features) {
            return Err(place(Error::load(format!("column {beyond} of {features}"))));
        }
        if columns.is_empty() {
            continue;
        }
        // Fitted "passthrough" is a FunctionTransformer since 1.4.
        let estimator = if is_passthrough(estimator) { None } else { Some(builder.build(estimator).map_err(place)?) };
        parts.push(Part { weight: weight(node, name)?, name: name.into(), estimator, columns, start: None });
    }
    place(&mut parts);
    // Without columns it is not known.
    let sparse = if parts.is_empty() { false } else { node.read("sparse_output_", Node::bool)? };
    Ok(Box::new(ColumnTransformer { parts, features, sparse, naming: Naming::read(node) }))
}

/// Finds out where the columns of each part begin.
fn place(parts: &mut [Part]) {
    let mut start = Some(0);
    for part in parts {
        part.start = start;
        start = start.and_then(|start| Some(start + part.width()?));
    }
}

/// What parts' columns are called when they are side by side.
enum Naming {
    Plain,
    /// With the part's name before them.
    Verbose,
    /// By a function, or a pattern.
    Unknown,
}

impl Naming {
    fn read(node: Node<'_>) -> Naming {
        match node.some("verbose_feature_names_out").map(Node::bool) {
            Some(Ok(false)) => Naming::Plain,
            None | Some(Ok(true)) => Naming::Verbose,
            Some(Err(_)) => Naming::Unknown,
        }
    }

    fn names<'p>(&self, parts: impl Iterator<Item = (&'p Part, Option<Vec<Arc<str>>>)>) -> Option<Vec<Arc<str>>> {
        let mut out = Vec::new();
        for (part, names) in parts {
            match self {
                Naming::Plain => out.extend(names?),
                Naming::Verbose => out.extend(names?.iter().map(|name| Arc::from(format!("{}__{name}", part.name)))),
                Naming::Unknown => return None,
            }
            if !are_bounded(&out) {
                return None;
            }
        }
        Some(out)
    }
}

fn weight(node: Node<'_>, name: &str) -> Result<f64> {
    let weights = read::option(node, "transformer_weights", Ok)?;
    weights.and_then(|weights| weights.find(name)).map_or(Ok(1.0), Node::float)
}

/// All columns through several transformers.
fn feature_union(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let mut parts = Vec::new();
    for transformer in node.read("transformer_list", Node::items)? {
        let [name, estimator] = transformer.tuple()?;
        let name = name.text()?;
        if estimator.text().is_ok_and(|text| text == "drop") || estimator.is_none() {
            continue;
        }
        let estimator = if is_passthrough(estimator) { None } else { Some(builder.build(estimator)?) };
        parts.push(Part {
            weight: weight(node, name)?,
            name: name.into(),
            estimator,
            columns: Vec::new(),
            start: None,
        });
    }
    Ok(Box::new(FeatureUnion { parts, naming: Naming::read(node) }))
}

impl Estimator for ColumnTransformer {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let results = self.parts.iter().map(|part| part.transform(&rows.select(&part.columns)));
        beside(rows.rows(), results.collect::<Result<_>>()?, self.sparse)
    }

    fn gives(&self) -> Option<DType> {
        gives(&self.parts)
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        self.naming.names(self.parts.iter().map(|part| {
            let seen: Vec<Arc<str>> = part.columns.iter().map(|column| names[*column].clone()).collect();
            (part, part.names_out(&seen))
        }))
    }

    fn passes(&self, column: usize) -> Option<usize> {
        self.parts.iter().find_map(|part| {
            let place = part.columns.iter().position(|own| *own == column)?;
            part.passed(place)
        })
    }

    fn features(&self) -> Option<usize> {
        Some(self.features)
    }

    fn takes(&self, column: usize) -> Takes {
        let taken = self.parts.iter().filter_map(|part| {
            let place = part.columns.iter().position(|own| *own == column)?;
            Some(part.estimator.as_ref()?.takes(place))
        });
        taken.max().unwrap_or_default()
    }

    fn example(&self, column: usize) -> Option<Cell> {
        self.parts.iter().find_map(|part| {
            let place = part.columns.iter().position(|own| *own == column)?;
            part.estimator.as_ref()?.example(place)
        })
    }

    fn counts_types(&self) -> bool {
        self.parts.iter().any(Part::counts_types)
    }

    fn demands(&self, column: usize) -> bool {
        self.parts.iter().any(|part| part.columns.contains(&column))
    }

    fn uses(&self, column: usize) -> bool {
        let passed = self.passes(column);
        self.parts.iter().any(|part| {
            let places = part.columns.iter().enumerate().filter(|(_, own)| **own == column);
            // Also where nobody knows to which place.
            let is_elsewhere =
                |place| part.passes(place).is_some() && part.passed(place).is_none_or(|place| Some(place) != passed);
            places.map(|(place, _)| place).any(|place| part.uses(place) || is_elsewhere(place))
        })
    }
}

impl Part {
    fn counts_types(&self) -> bool {
        self.estimator.as_ref().is_some_and(|estimator| estimator.counts_types())
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        self.estimator.as_ref().map_or_else(|| Some(names.to_vec()), |estimator| estimator.names_out(names))
    }

    /// How many columns come out.
    fn width(&self) -> Option<usize> {
        let count = self.columns.len();
        let passes_all = || (0..count).all(|place| self.passes(place).is_some()).then_some(count);
        passes_all().or_else(|| Some(self.names_out(&vec![Arc::from(""); count])?.len()))
    }

    /// Where the column at this place is among all that come out, when it is passed on.
    fn passed(&self, place: usize) -> Option<usize> {
        Some(self.start? + self.passes(place)?)
    }

    /// As [`Estimator::uses`].
    fn uses(&self, place: usize) -> bool {
        let weighs = self.weight != 1.0;
        self.estimator
            .as_ref()
            .map_or(weighs, |estimator| estimator.uses(place) || (weighs && estimator.passes(place).is_some()))
    }

    fn passes(&self, place: usize) -> Option<usize> {
        if self.weight != 1.0 {
            return None;
        }
        self.estimator.as_ref().map_or(Some(place), |estimator| estimator.passes(place))
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let place = |error: Error| error.context(format_args!("transformer \"{}\"", self.name));
        let result = match &self.estimator {
            Some(estimator) => estimator.transform(rows).map_err(place)?,
            None => rows.clone(),
        };
        if self.weight == 1.0 {
            return Ok(result);
        }
        match result {
            Data::Sparse(mut sparse) => {
                sparse.values.iter_mut().for_each(|value| *value *= self.weight);
                Ok(Data::Sparse(sparse))
            }
            numbers => {
                let mut numbers = numbers.into_dense().map_err(place)?;
                numbers.values.iter_mut().for_each(|value| *value *= self.weight);
                Ok(Data::Dense(numbers))
            }
        }
    }
}

/// Parts that all see all columns.
struct FeatureUnion {
    parts: Vec<Part>,
    naming: Naming,
}

impl FeatureUnion {
    fn estimators(&self) -> impl Iterator<Item = &dyn Estimator> {
        self.parts.iter().filter_map(|part| part.estimator.as_deref())
    }
}

impl Estimator for FeatureUnion {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let results = self.parts.iter().map(|part| part.transform(rows)).collect::<Result<Vec<_>>>()?;
        let sparse = results.iter().any(|result| matches!(result, Data::Sparse(_)));
        beside(rows.rows(), results, sparse)
    }

    fn gives(&self) -> Option<DType> {
        gives(&self.parts)
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        self.naming.names(self.parts.iter().map(|part| (part, part.names_out(names))))
    }

    fn counts_types(&self) -> bool {
        self.parts.iter().any(Part::counts_types)
    }

    /// By the first part: where the columns of others begin is not known.
    fn passes(&self, column: usize) -> Option<usize> {
        self.parts.first()?.passes(column)
    }

    fn uses(&self, column: usize) -> bool {
        let is_used =
            |(number, part): (usize, &Part)| part.uses(column) || (number > 0 && part.passes(column).is_some());
        self.parts.iter().enumerate().any(is_used)
    }

    fn features(&self) -> Option<usize> {
        self.estimators().find_map(Estimator::features)
    }

    fn takes(&self, column: usize) -> Takes {
        self.estimators().map(|estimator| estimator.takes(column)).max().unwrap_or_default()
    }

    fn example(&self, column: usize) -> Option<Cell> {
        self.estimators().find_map(|estimator| estimator.example(column))
    }
}

/// What numpy makes of the types of several parts; none where that is what it makes of their matrices.
fn gives(parts: &[Part]) -> Option<DType> {
    let of = |part: &Part| if part.weight == 1.0 { part.estimator.as_ref()?.gives() } else { None };
    parts.iter().map(of).reduce(|one, other| Some(promoted(one?, other?)))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::tabular::sklearn::pipeline::through;

    #[test]
    fn names_that_double_at_each_step_are_not_told() {
        let part = || Part { name: "p".into(), estimator: None, columns: Vec::new(), weight: 1.0, start: None };
        let doubling = || -> Box<dyn Estimator> {
            Box::new(FeatureUnion { parts: vec![part(), part()], naming: Naming::Verbose })
        };
        let named = |steps| through(&(0..steps).map(|_| doubling()).collect::<Vec<_>>(), &["x".into()]);
        assert_eq!(named(2).unwrap()[3].as_ref(), "p__p__x");
        assert_eq!(named(64), None);
    }
}
