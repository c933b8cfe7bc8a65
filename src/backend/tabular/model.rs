//! An estimator as a [`Model`]: tensors to rows, answers to tensors.

use std::sync::Arc;

use bytes::BufMut;

use super::data::{Cell, Cells, Column, Data, Labels, Matrix, Table};
use super::estimator::{Estimator, Method, Takes};
use crate::backend::Model;
use crate::error::{Error, Result};
use crate::infer::columns::{self, column, numbers};
use crate::infer::table::{ColumnSpec, TableSpec};
use crate::infer::{Signature, TensorSpec};
use crate::tensor::{DType, Shape, Tensor, push_bytes_element};

/// A fitted estimator that answers requests.
pub struct TabularModel {
    estimator: Box<dyn Estimator>,
    signature: Signature,
    /// What each output of the signature is.
    outputs: Vec<Output>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Output {
    method: Method,
    /// Of a classifier of several outputs, whose probabilities do not fit one tensor: which one's.
    part: Option<usize>,
}

/// KServe's name for the output that is given when none is asked for.
const DEFAULT_OUTPUT: &str = "output-0";

impl TabularModel {
    /// The model answers by default with `answer`, under the name `output`, and by name with whatever else the
    /// estimator can.
    ///
    /// # Errors
    /// [`Kind::Load`](crate::error::Kind::Load) when the estimator cannot answer so.
    pub fn new(
        estimator: Box<dyn Estimator>,
        mut table: TableSpec,
        answer: Method,
        output: Option<Arc<str>>,
    ) -> Result<TabularModel> {
        // A transformer alone answers with what it transforms.
        let answer = if estimator.can(answer) || answer != Method::Predict { answer } else { Method::Transform };
        if !estimator.can(answer) {
            return Err(Error::load(format!("the model has no {}", answer.name())));
        }
        table.explained = explained(&*estimator, &table);
        let signature = Signature::new(table.inputs(), Vec::new());
        let mut model = TabularModel { estimator, signature, outputs: Vec::new(), notes: Vec::new() };
        model.signature.table = Some(table);
        let parts = model.probability_parts();
        let outputs_of = |method: Method| match method {
            Method::PredictProba if parts > 1 => (0..parts).map(|part| Output { method, part: Some(part) }).collect(),
            _ => vec![Output { method, part: None }],
        };
        let default = output.unwrap_or_else(|| DEFAULT_OUTPUT.into());
        for (place, output) in outputs_of(answer).into_iter().enumerate() {
            // KServe's names for unnamed tensors: output-0, output-1.
            model.add(if place == 0 { default.to_string() } else { format!("output-{place}") }, output);
        }
        model.signature.default_outputs = model.outputs.len();
        for method in Method::ALL {
            if model.estimator.can(method) {
                for output in outputs_of(method) {
                    let part = output.part.map(|part| format!("_{part}")).unwrap_or_default();
                    model.add(format!("{}{part}", method.name()), output);
                }
            }
        }
        model.learn_outputs();
        Ok(model)
    }

    fn add(&mut self, name: String, output: Output) {
        self.outputs.push(output);
        self.signature.outputs.push(TensorSpec { name: name.into(), dtype: DType::Fp64, dims: vec![None] });
    }

    /// Made-up rows to find things out with.
    fn probes(&self) -> impl Iterator<Item = Data> {
        [1.0, 0.0].into_iter().filter_map(|number| self.rows(&self.example_of(1, number).ok()?).ok())
    }

    /// How many matrices `predict_proba` gives.
    fn probability_parts(&self) -> usize {
        let given = self.probes().find_map(|row| self.estimator.predict_proba(&row).ok());
        given.map_or(1, |matrices| matrices.len())
    }

    /// Finds out the outputs' types and shapes by asking about a made-up row.
    fn learn_outputs(&mut self) {
        let rows: Vec<Data> = self.probes().collect();
        let takes_any_width = self.signature.table.as_ref().is_some_and(|table| table.columns.is_empty());
        for output in 0..self.outputs.len() {
            if self.outputs[output].method == Method::Contributions {
                let outputs = self.estimator.explained_outputs();
                let inner = (outputs > 1).then_some(Some(outputs));
                self.signature.outputs[output].dims = std::iter::once(None).chain(inner).chain([None]).collect();
                continue;
            }
            let learnt = rows.iter().find_map(|row| self.answers(row, &[output]).ok()?.pop());
            let Some(tensor) = learnt else { continue };
            // As many as came in, which may be any number.
            let is_free = self.outputs[output].method == Method::Transform && takes_any_width;
            let inner = tensor.shape().dims().iter().skip(1).map(|size| (!is_free).then_some(*size));
            let dims = std::iter::once(None).chain(inner).collect();
            let spec = &mut self.signature.outputs[output];
            (spec.dtype, spec.dims) = (tensor.dtype(), dims);
        }
    }

    /// Rows in the table's form: `number`, but for columns of which the estimator takes nothing but what it knows.
    fn example_of(&self, rows: usize, number: f64) -> Result<Vec<Tensor>> {
        let Some(table) = &self.signature.table else { return Ok(Vec::new()) };
        let cell = |place: usize| match self.estimator.example(place) {
            Some(Cell::Text(text)) => serde_json::to_string(&*text).expect("text is plain data"),
            Some(Cell::Number(value)) if value.is_finite() => value.to_string(),
            Some(Cell::Bool(value)) => value.to_string(),
            Some(_) => "null".to_owned(),
            None if table.columns.get(place).is_some_and(|column| column.takes == Takes::Text) => "\"\"".to_owned(),
            None => number.to_string(),
        };
        let cells: Vec<String> = (0..table.columns.len().max(1)).map(cell).collect();
        if !table.is_matrix() {
            let columns = table.form().iter().zip(&cells);
            let columns = columns.map(|(spec, cell)| column(spec, rows, std::iter::repeat_n(cell.as_bytes(), rows)));
            return columns.collect();
        }
        let row = cells.iter().map(|cell| columns::number(cell.as_bytes())).collect::<Result<Vec<f64>>>()?;
        let name = table.form()[0].name.clone();
        Ok(vec![from_floats(name, vec![rows, row.len()], &row.repeat(rows))?])
    }

    fn rows(&self, inputs: &[Tensor]) -> Result<Data> {
        match inputs {
            [matrix] if matrix.shape().dims().len() == 2 => to_rows(matrix),
            columns => {
                let names = self.signature.table.iter().flat_map(|table| &table.columns).map(|column| &column.name);
                let columns = columns.iter().zip(names).map(|(tensor, name)| {
                    let cells =
                        to_cells(tensor).map_err(|error| error.context(format_args!("\"{}\"", tensor.name())))?;
                    let dtype = Some(tensor.dtype()).filter(|dtype| !matches!(dtype, DType::Fp64 | DType::Json));
                    Ok(Column { name: name.clone(), cells, dtype })
                });
                let columns = columns.collect::<Result<Vec<_>>>()?;
                Ok(Data::Table(Table { rows: inputs.first().map_or(0, Tensor::rows), columns }))
            }
        }
    }

    /// Each output of the rows; what several outputs are made of is computed once.
    fn answers(&self, rows: &Data, outputs: &[usize]) -> Result<Vec<Tensor>> {
        let mut known: Vec<(Method, Vec<Tensor>)> = Vec::new();
        let answer = |output: &usize| {
            let Output { method, part } = self.outputs[*output];
            let place = match known.iter().position(|(other, _)| *other == method) {
                Some(place) => place,
                None => {
                    known.push((method, self.compute(rows, method)?));
                    known.len() - 1
                }
            };
            let tensor = known[place].1.get(part.unwrap_or(0)).ok_or_else(|| Error::internal("too few outputs"))?;
            Ok(tensor.clone().renamed(self.signature.outputs[*output].name.clone()))
        };
        outputs.iter().map(answer).collect()
    }

    /// What a method gives: one tensor, or one for each part.
    fn compute(&self, rows: &Data, method: Method) -> Result<Vec<Tensor>> {
        let name: Arc<str> = Arc::from(method.name());
        let tensor = match method {
            Method::Predict => {
                let target = self.estimator.predict(rows)?;
                let dims = std::iter::once(rows.rows()).chain(target.columns).collect();
                from_labels(name, dims, &target.values)
            }
            Method::PredictProba => {
                let parts = self.estimator.predict_proba(rows)?;
                let tensor = |part: &Matrix| from_matrix(name.clone(), vec![part.rows, part.columns], part);
                return parts.iter().map(tensor).collect();
            }
            Method::DecisionFunction => {
                let scores = self.estimator.decision_function(rows)?;
                let flat = scores.columns == 1;
                let dims = if flat { vec![scores.rows] } else { vec![scores.rows, scores.columns] };
                from_matrix(name, dims, &scores)
            }
            Method::Contributions => {
                let parts = self.estimator.contributions(rows)?;
                let outputs = (parts.outputs > 1).then_some(parts.outputs);
                let dims = std::iter::once(parts.rows).chain(outputs).chain([parts.columns]).collect();
                from_floats(name, dims, &parts.values)
            }
            Method::Transform => {
                let transformed = self.estimator.transform(rows)?;
                let columns = (!self.estimator.gives_vector()).then_some(transformed.columns());
                let dims = std::iter::once(transformed.rows()).chain(columns).collect();
                from_labels(name, dims, &Labels::of(transformed, self.estimator.gives())?)
            }
        };
        Ok(vec![tensor?])
    }
}

/// Names of what explanations are of; without names of columns, those that earlier steps make.
fn explained(estimator: &dyn Estimator, table: &TableSpec) -> Vec<Arc<str>> {
    if !estimator.can(Method::Contributions) {
        return Vec::new();
    }
    let name =
        |(place, column): (usize, &ColumnSpec)| column.name.clone().unwrap_or_else(|| format!("x{place}").into());
    let names: Vec<Arc<str>> = table.columns.iter().enumerate().map(name).collect();
    let explained = estimator.explained(&names).unwrap_or_default();
    if table.has_names() || explained != names { explained } else { Vec::new() }
}

impl Model for TabularModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn example(&self, rows: usize) -> Option<Vec<Tensor>> {
        self.example_of(rows, 1.0).ok()
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>> {
        self.answers(&self.rows(inputs)?, outputs)
    }
}

fn to_rows(tensor: &Tensor) -> Result<Data> {
    let [rows, columns] = [tensor.shape().dims()[0], tensor.shape().dims()[1]];
    Ok(match tensor.dtype() {
        DType::Fp64 => Data::Dense(Matrix::new(rows, columns, doubles(tensor))),
        DType::Fp32 => {
            let singles = tensor.data().as_chunks::<4>().0.iter();
            let values = singles.map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect();
            Data::Dense(Matrix { single: true, ..Matrix::new(rows, columns, values) })
        }
        dtype => Data::Typed(Matrix::new(rows, columns, all_doubles(tensor)?), dtype),
    })
}

/// Numbers of any type.
fn all_doubles(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(numbers(tensor)?.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
}

fn doubles(tensor: &Tensor) -> Vec<f64> {
    tensor.data().as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
}

fn to_cells(tensor: &Tensor) -> Result<Cells> {
    match tensor.dtype() {
        DType::Json => {}
        DType::Fp64 => return Ok(Cells::Numbers(doubles(tensor))),
        _ => return Ok(Cells::Numbers(all_doubles(tensor)?)),
    }
    Ok(Cells::Mixed(tensor.bytes_elements().map(to_cell).collect::<Result<_>>()?))
}

fn to_cell(json: &[u8]) -> Result<Cell> {
    let text = std::str::from_utf8(json).unwrap_or_default();
    let wrong = || Error::invalid(format!("expected a value, got {}", crate::tensor::Excerpt(text)));
    match json.first() {
        Some(b'n') => Ok(Cell::None),
        Some(b't') => Ok(Cell::Bool(true)),
        Some(b'f') => Ok(Cell::Bool(false)),
        Some(b'"') => {
            let text: std::borrow::Cow<'_, str> = serde_json::from_str(text).map_err(|_| wrong())?;
            Ok(Cell::Text(Arc::from(text)))
        }
        _ => text.parse().map(Cell::Number).map_err(|_| wrong()),
    }
}

/// `FP32` when the numbers are singles.
fn from_matrix(name: Arc<str>, dims: Vec<usize>, matrix: &Matrix) -> Result<Tensor> {
    if !matrix.single {
        return from_floats(name, dims, &matrix.values);
    }
    let singles = Labels::Single(matrix.values.iter().map(|value| *value as f32).collect());
    from_labels(name, dims, &singles)
}

fn from_floats(name: Arc<str>, dims: Vec<usize>, values: &[f64]) -> Result<Tensor> {
    let mut data = Vec::with_capacity(values.len() * 8);
    values.iter().for_each(|value| data.put_f64_le(*value));
    Tensor::new(name, DType::Fp64, Shape::new(dims)?, data.into())
}

fn from_labels(name: Arc<str>, dims: Vec<usize>, labels: &Labels) -> Result<Tensor> {
    let mut data = Vec::with_capacity(labels.len() * 8);
    match labels {
        Labels::Float(values) => return from_floats(name, dims, values),
        Labels::Single(values) => values.iter().for_each(|value| data.put_f32_le(*value)),
        Labels::Bool(values) => values.iter().for_each(|value| data.put_u8(u8::from(*value))),
        Labels::Text(values) => {
            for value in values {
                push_bytes_element(&mut data, value.as_bytes())?;
            }
        }
        Labels::Int(values, dtype) => {
            let size = dtype.size().unwrap_or(8);
            values.iter().for_each(|value| data.extend_from_slice(&value.to_le_bytes()[..size]));
        }
    }
    Tensor::new(name, labels.dtype(), Shape::new(dims)?, data.into())
}
