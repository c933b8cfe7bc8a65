//! Estimators made of others: pipelines, column transformers, unions.

use std::sync::Arc;

use crate::backend::tabular::data::{Cell, Cells, Column, Data, Matrix, Sparse, Table, Target};
use crate::backend::tabular::estimator::{Build, Builder, Contributions, Estimator, Method, Names, Takes, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::tensor::{DType, Excerpt};

pub const CLASSES: &[(&str, Build)] =
    &[("Pipeline", pipeline), ("ColumnTransformer", column_transformer), ("FeatureUnion", feature_union)];

/// Steps one after another; the last one answers.
struct Pipeline {
    steps: Vec<Box<dyn Estimator>>,
}

fn pipeline(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let mut steps = Vec::new();
    for step in node.read("steps", Node::items)? {
        let [name, estimator] = step.tuple()?;
        let name = name.text()?;
        if !is_passthrough(estimator) {
            let place = |error: Error| error.context(format_args!("step \"{}\"", Excerpt(name)));
            steps.push(builder.build(estimator).map_err(place)?);
        }
    }
    Ok(Box::new(Pipeline { steps }))
}

/// `"passthrough"` and its old spelling `None`.
fn is_passthrough(node: Node<'_>) -> bool {
    node.is_none() || node.text().is_ok_and(|text| text == "passthrough")
}

impl Pipeline {
    fn up_to_last<T>(&self, rows: &Data, answer: impl FnOnce(&dyn Estimator, &Data) -> Result<T>) -> Result<T> {
        let (last, before) = self.steps.split_last().ok_or_else(|| Error::internal("a pipeline without steps"))?;
        let Some((first, rest)) = before.split_first() else { return answer(&**last, rows) };
        let mut data = first.transform(rows)?;
        for step in rest {
            data = step.transform(&data)?;
        }
        answer(&**last, &data)
    }
}

impl Estimator for Pipeline {
    fn can(&self, method: Method) -> bool {
        self.steps.last().map_or(method == Method::Transform, |last| last.can(method))
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        self.up_to_last(rows, |last, data| last.predict(data))
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        self.up_to_last(rows, |last, data| last.predict_proba(data))
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        self.up_to_last(rows, |last, data| last.decision_function(data))
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        if self.steps.is_empty() {
            return Ok(rows.clone());
        }
        self.up_to_last(rows, |last, data| last.transform(data))
    }

    fn gives(&self) -> Option<DType> {
        self.steps.last()?.gives()
    }

    /// Of the features that the last step sees.
    fn contributions(&self, rows: &Data) -> Result<Contributions> {
        self.up_to_last(rows, |last, data| last.contributions(data))
    }

    fn inverse_transform(&self, rows: &Matrix) -> Result<Matrix> {
        self.steps.iter().rev().try_fold(rows.clone(), |rows, step| step.inverse_transform(&rows))
    }

    fn features(&self) -> Option<usize> {
        self.steps.first()?.features()
    }

    fn names(&self) -> Names<'_> {
        self.steps.first().map(|step| step.names()).unwrap_or_default()
    }

    fn explained_outputs(&self) -> usize {
        self.steps.last().map_or(1, |step| step.explained_outputs())
    }

    fn explains_input(&self) -> bool {
        matches!(self.steps.as_slice(), [only] if only.explains_input())
    }

    fn takes(&self, column: usize) -> Takes {
        self.steps.first().map(|step| step.takes(column)).unwrap_or_default()
    }

    fn example(&self, column: usize) -> Option<Cell> {
        // Steps before an encoder mostly leave columns in their places.
        self.steps.iter().find_map(|step| step.example(column))
    }

    fn uses(&self, column: usize) -> bool {
        self.steps.first().is_none_or(|step| step.uses(column))
    }
}

/// A transformer with the columns it is given and what its result counts.
struct Part {
    name: Arc<str>,
    /// `None` passes the columns through.
    estimator: Option<Box<dyn Estimator>>,
    columns: Vec<usize>,
    weight: f64,
}

/// Different columns through different transformers, results side by side.
struct ColumnTransformer {
    parts: Vec<Part>,
    features: usize,
    sparse: bool,
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
        parts.push(Part { weight: weight(node, name)?, name: name.into(), estimator, columns });
    }
    Ok(Box::new(ColumnTransformer { parts, features, sparse: node.read("sparse_output_", Node::bool)? }))
}

fn weight(node: Node<'_>, name: &str) -> Result<f64> {
    let weights = node.some("transformer_weights");
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
        parts.push(Part { weight: weight(node, name)?, name: name.into(), estimator, columns: Vec::new() });
    }
    Ok(Box::new(FeatureUnion(parts)))
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

    fn uses(&self, column: usize) -> bool {
        self.parts.iter().any(|part| part.columns.contains(&column))
    }
}

impl Part {
    fn transform(&self, rows: &Data) -> Result<Data> {
        let Some(estimator) = &self.estimator else { return Ok(rows.clone()) };
        let mut result =
            estimator.transform(rows).map_err(|error| error.context(format_args!("transformer \"{}\"", self.name)))?;
        if self.weight != 1.0 {
            match &mut result {
                Data::Dense(matrix) => matrix.values.iter_mut().for_each(|value| *value *= self.weight),
                Data::Sparse(sparse) => sparse.values.iter_mut().for_each(|value| *value *= self.weight),
                Data::Table(_) => return Err(unsupported("transformer_weights", "on text")),
            }
        }
        Ok(result)
    }
}

/// Parts that all see all columns.
struct FeatureUnion(Vec<Part>);

impl FeatureUnion {
    fn estimators(&self) -> impl Iterator<Item = &dyn Estimator> {
        self.0.iter().filter_map(|part| part.estimator.as_deref())
    }
}

impl Estimator for FeatureUnion {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let results = self.0.iter().map(|part| part.transform(rows)).collect::<Result<Vec<_>>>()?;
        let sparse = results.iter().any(|result| matches!(result, Data::Sparse(_)));
        beside(rows.rows(), results, sparse)
    }

    fn gives(&self) -> Option<DType> {
        gives(&self.0)
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
    let is_integer = |dtype: DType| !matches!(dtype, DType::Fp32 | DType::Fp64);
    let common = |one: Option<DType>, other: Option<DType>| match (one, other) {
        _ if one == other => one,
        (Some(DType::Bool), wider) | (wider, Some(DType::Bool)) => wider,
        (Some(one), Some(other)) if is_integer(one) && is_integer(other) => Some(DType::Int64),
        _ => None,
    };
    parts.iter().map(of).reduce(common)?
}

/// Results side by side, as one of what they are.
///
/// # Errors
/// When text would have to become numbers, or there are too many of them.
pub fn beside(rows: usize, mut parts: Vec<Data>, sparse: bool) -> Result<Data> {
    if parts.len() == 1 && !sparse {
        return Ok(parts.swap_remove(0));
    }
    if sparse {
        return Ok(Data::Sparse(sparse_beside(rows, &parts)?));
    }
    // A part that stays text makes the whole a table.
    if parts.iter().any(Data::has_text) {
        let columns = parts.iter().map(columns).collect::<Result<Vec<_>>>()?.concat();
        return Ok(Data::Table(Table { rows, columns }));
    }
    let matrices = parts.iter().map(|part| Ok(part.dense()?.into_owned())).collect::<Result<Vec<Matrix>>>()?;
    if matrices.is_empty() {
        return Ok(Data::Dense(Matrix::zeros(rows, 0)));
    }
    Ok(Data::Dense(Matrix::beside(&matrices)))
}

pub fn columns(data: &Data) -> Result<Vec<Column>> {
    match data {
        Data::Table(table) => Ok(table.columns.clone()),
        data => Ok(numbered(data.dense()?.as_ref())),
    }
}

/// A matrix as columns without names.
fn numbered(matrix: &Matrix) -> Vec<Column> {
    let column = |column: usize| {
        let values = matrix.iter_rows().map(|row| row[column]).collect();
        Column { name: None, cells: Cells::Numbers(values) }
    };
    (0..matrix.columns).map(column).collect()
}

fn sparse_beside(rows: usize, parts: &[Data]) -> Result<Sparse> {
    enum Part<'a> {
        Sparse(&'a Sparse),
        Dense(std::borrow::Cow<'a, Matrix>),
    }
    fn read(data: &Data) -> Result<Part<'_>> {
        match data {
            Data::Sparse(sparse) => Ok(Part::Sparse(sparse)),
            other => Ok(Part::Dense(other.dense()?)),
        }
    }
    let widths: Vec<usize> = parts.iter().map(Data::columns).collect();
    let parts = parts.iter().map(read).collect::<Result<Vec<_>>>()?;
    let mut joined = Sparse { rows, columns: widths.iter().sum(), starts: vec![0], ..Sparse::default() };
    for row in 0..rows {
        let mut offset = 0;
        for (part, width) in parts.iter().zip(&widths) {
            let mut push = |(column, value): (usize, f64)| {
                joined.indices.push((offset + column) as u32);
                joined.values.push(value);
            };
            match part {
                Part::Sparse(sparse) => sparse.row(row).for_each(&mut push),
                Part::Dense(matrix) => {
                    matrix.row(row).iter().copied().enumerate().filter(|(_, value)| *value != 0.0).for_each(&mut push);
                }
            }
            offset += width;
        }
        joined.starts.push(joined.indices.len());
    }
    Ok(joined)
}
