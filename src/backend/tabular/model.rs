//! An estimator as a [`Model`]: tensors to rows, answers to tensors.

use std::sync::Arc;

use bytes::BufMut;

use super::data::{Cell, Cells, Column, Data, Labels, Matrix, Table};
use super::estimator::{Estimator, Method};
use crate::backend::Model;
use crate::error::{Error, Kind, Result};
use crate::infer::table::{ColumnSpec, TableSpec};
use crate::infer::{Signature, TensorSpec};
use crate::tensor::{DType, Shape, Tensor, push_bytes_element};

/// A fitted estimator that answers requests.
pub struct TabularModel {
    estimator: Box<dyn Estimator>,
    signature: Signature,
    /// What each output of the signature is.
    methods: Vec<Method>,
}

/// KServe's name for the output that is given when none is asked for.
const DEFAULT_OUTPUT: &str = "output-0";

impl TabularModel {
    /// The model answers by default with `answer`, and by name with whatever else the estimator can.
    ///
    /// # Errors
    /// [`Kind::Load`] when the estimator cannot answer so.
    pub fn new(estimator: Box<dyn Estimator>, table: TableSpec, answer: Method) -> Result<TabularModel> {
        // A transformer alone answers with what it transforms.
        let answer = if estimator.can(answer) || answer != Method::Predict { answer } else { Method::Transform };
        if !estimator.can(answer) {
            return Err(Error::load(format!("the model has no {}", answer.name())));
        }
        let all = [Method::Predict, Method::PredictProba, Method::DecisionFunction, Method::Transform];
        let can: Vec<Method> = all.into_iter().filter(|method| estimator.can(*method)).collect();
        let methods: Vec<Method> = std::iter::once(answer).chain(can).collect();
        let mut model =
            TabularModel { estimator, signature: Signature::new(table.inputs(), Vec::new()), methods: methods.clone() };
        model.signature.table = Some(table);
        model.signature.default_outputs = 1;
        let names = std::iter::once(DEFAULT_OUTPUT).chain(methods.iter().skip(1).map(|method| method.name()));
        let unknown = |name: &str| TensorSpec { name: name.into(), dtype: DType::Fp64, dims: vec![None] };
        model.signature.outputs = names.map(unknown).collect();
        model.learn_outputs();
        Ok(model)
    }

    /// Finds out the outputs' types and shapes by asking about a made-up row.
    fn learn_outputs(&mut self) {
        let Some(table) = &self.signature.table else { return };
        let width = table.columns.len().max(1);
        let row = |number: f64| {
            let cells = |(place, column): (usize, &ColumnSpec)| match self.estimator.example(place) {
                None if column.text => Cells::Mixed(vec![Cell::Text("".into())]),
                None => Cells::Numbers(vec![number]),
                Some(Cell::Number(value)) if !column.text => Cells::Numbers(vec![value]),
                Some(cell) => Cells::Mixed(vec![cell]),
            };
            if table.is_matrix() {
                let values = (0..width).map(|place| match self.estimator.example(place) {
                    Some(Cell::Number(value)) => value,
                    _ => number,
                });
                return Data::Dense(Matrix::new(1, width, values.collect()));
            }
            let columns = table.columns.iter().enumerate();
            let columns = columns.map(|each| Column { name: each.1.name.clone(), cells: cells(each) }).collect();
            Data::Table(Table { rows: 1, columns })
        };
        let rows = [row(1.0), row(0.0)];
        let learnt: Vec<Option<Tensor>> =
            (0..self.methods.len()).map(|output| rows.iter().find_map(|row| self.answer(row, output).ok())).collect();
        for (spec, tensor) in self.signature.outputs.iter_mut().zip(learnt) {
            let Some(tensor) = tensor else { continue };
            spec.dtype = tensor.dtype();
            let inner = tensor.shape().dims().iter().skip(1).map(|size| Some(*size));
            spec.dims = std::iter::once(None).chain(inner).collect();
        }
    }

    fn rows(&self, inputs: &[Tensor]) -> Result<Data> {
        match inputs {
            [matrix] if matrix.shape().dims().len() == 2 => Ok(Data::Dense(to_matrix(matrix))),
            columns => {
                let names = self.signature.table.iter().flat_map(|table| &table.columns).map(|column| &column.name);
                let columns = columns.iter().zip(names).map(|(tensor, name)| {
                    let cells =
                        to_cells(tensor).map_err(|error| error.context(format_args!("\"{}\"", tensor.name())))?;
                    Ok(Column { name: name.clone(), cells })
                });
                let columns = columns.collect::<Result<Vec<_>>>()?;
                Ok(Data::Table(Table { rows: inputs.first().map_or(0, Tensor::rows), columns }))
            }
        }
    }

    fn answer(&self, rows: &Data, output: usize) -> Result<Tensor> {
        let name = self.signature.outputs[output].name.clone();
        match self.methods[output] {
            Method::Predict => {
                let target = self.estimator.predict(rows)?;
                let dims = std::iter::once(rows.rows()).chain(target.columns).collect();
                from_labels(name, dims, &target.values)
            }
            Method::PredictProba => from_probabilities(name, &self.estimator.predict_proba(rows)?),
            Method::DecisionFunction => {
                let scores = self.estimator.decision_function(rows)?;
                let flat = scores.columns == 1;
                let dims = if flat { vec![scores.rows] } else { vec![scores.rows, scores.columns] };
                from_floats(name, dims, &scores.values)
            }
            Method::Transform => {
                let transformed = self.estimator.transform(rows)?;
                let dense = transformed.dense()?;
                from_floats(name, vec![dense.rows, dense.columns], &dense.values)
            }
        }
    }
}

impl Model for TabularModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>> {
        let rows = self.rows(inputs)?;
        outputs.iter().map(|output| self.answer(&rows, *output)).collect()
    }
}

fn to_matrix(tensor: &Tensor) -> Matrix {
    let [rows, columns] = [tensor.shape().dims()[0], tensor.shape().dims()[1]];
    let single = tensor.dtype() == DType::Fp32;
    let values = if single {
        tensor.data().as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect()
    } else {
        doubles(tensor)
    };
    Matrix { rows, columns, values, single }
}

fn doubles(tensor: &Tensor) -> Vec<f64> {
    tensor.data().as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
}

fn to_cells(tensor: &Tensor) -> Result<Cells> {
    if tensor.dtype() != DType::Json {
        return Ok(Cells::Numbers(doubles(tensor)));
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

fn from_floats(name: Arc<str>, dims: Vec<usize>, values: &[f64]) -> Result<Tensor> {
    let mut data = Vec::with_capacity(values.len() * 8);
    values.iter().for_each(|value| data.put_f64_le(*value));
    Tensor::new(name, DType::Fp64, Shape::new(dims)?, data.into())
}

/// `[rows, classes]`, or `[rows, outputs, classes]` for classifiers of several outputs.
fn from_probabilities(name: Arc<str>, outputs: &[Matrix]) -> Result<Tensor> {
    let [first, others @ ..] = outputs else { return Err(Error::internal("a classifier without outputs")) };
    if others.is_empty() {
        return from_floats(name, vec![first.rows, first.columns], &first.values);
    }
    if others.iter().any(|output| output.columns != first.columns) {
        let text = "predict_proba of outputs with different numbers of classes does not fit one tensor";
        return Err(Error::new(Kind::Unsupported, text));
    }
    let rows = (0..first.rows).flat_map(|row| outputs.iter().flat_map(move |output| output.row(row)));
    let values: Vec<f64> = rows.copied().collect();
    from_floats(name, vec![first.rows, outputs.len(), first.columns], &values)
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
