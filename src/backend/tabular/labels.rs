//! What a model answers: class labels and predicted values, with the types that numpy has for them.

use std::sync::Arc;

use super::data::{Cell, Data};
use crate::error::Result;
use crate::tensor::DType;

/// Class labels or predicted values, with the type that numpy has for them.
#[derive(Clone, Debug, PartialEq)]
pub enum Labels {
    Float(Vec<f64>),
    /// `f32`, as xgboost predicts.
    Single(Vec<f32>),
    /// With numpy's width: one of the integer types.
    Int(Vec<i64>, DType),
    Bool(Vec<bool>),
    Text(Vec<Arc<str>>),
}

impl Labels {
    pub fn len(&self) -> usize {
        match self {
            Labels::Float(values) => values.len(),
            Labels::Single(values) => values.len(),
            Labels::Int(values, _) => values.len(),
            Labels::Bool(values) => values.len(),
            Labels::Text(values) => values.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn dtype(&self) -> DType {
        match self {
            Labels::Float(_) => DType::Fp64,
            Labels::Single(_) => DType::Fp32,
            Labels::Int(_, dtype) => *dtype,
            Labels::Bool(_) => DType::Bool,
            Labels::Text(_) => DType::Bytes,
        }
    }

    /// Numbers as another type has them.
    pub fn cast(values: Vec<f64>, dtype: DType) -> Labels {
        match dtype {
            DType::Fp64 => Labels::Float(values),
            DType::Fp32 => Labels::Single(values.into_iter().map(|value| value as f32).collect()),
            DType::Bool => Labels::Bool(values.into_iter().map(|value| value != 0.0).collect()),
            _ => Labels::Int(values.into_iter().map(|value| value as i64).collect(), dtype),
        }
    }

    /// All values, row by row: numbers of the type that [`Estimator::gives`](super::estimator::Estimator::gives) names,
    /// else of their own, and text where there is any, the rest then as Python's `str()` has it.
    ///
    /// # Errors
    /// When there are too many of them.
    pub fn of(data: Data, gives: Option<DType>) -> Result<Labels> {
        if data.has_text()
            && let Data::Table(table) = &data
        {
            let row = |row| table.columns.iter().map(move |column| column.cells.get(row).text());
            return Ok(Labels::Text((0..table.rows).flat_map(row).collect()));
        }
        // Nobody answers in halves.
        let own = Some(data.dtype()).filter(|dtype| *dtype != DType::Fp16).unwrap_or(DType::Fp64);
        let numbers = data.into_dense()?;
        Ok(Labels::cast(numbers.values, gives.unwrap_or(own)))
    }

    /// The labels at these places: class indices to classes.
    #[must_use]
    pub fn pick(&self, places: impl Iterator<Item = usize>) -> Labels {
        match self {
            Labels::Float(values) => Labels::Float(places.map(|place| values[place]).collect()),
            Labels::Single(values) => Labels::Single(places.map(|place| values[place]).collect()),
            Labels::Int(values, dtype) => Labels::Int(places.map(|place| values[place]).collect(), *dtype),
            Labels::Bool(values) => Labels::Bool(places.map(|place| values[place]).collect()),
            Labels::Text(values) => Labels::Text(places.map(|place| values[place].clone()).collect()),
        }
    }

    /// One after another, in the type that numpy finds for all of them.
    ///
    /// # Errors
    /// When some are text and others are not, and it is no number.
    pub fn concat(parts: &[Labels]) -> Result<Labels> {
        macro_rules! all {
            ($kind:ident) => {
                parts.iter().map(|part| if let Labels::$kind(values) = part { Some(&values[..]) } else { None })
            };
        }
        if let Some(texts) = all!(Text).collect::<Option<Vec<_>>>() {
            return Ok(Labels::Text(texts.concat()));
        }
        if let Some(bools) = all!(Bool).collect::<Option<Vec<_>>>() {
            return Ok(Labels::Bool(bools.concat()));
        }
        if let Some(singles) = all!(Single).collect::<Option<Vec<_>>>() {
            return Ok(Labels::Single(singles.concat()));
        }
        let integers = parts.iter().map(|part| match part {
            Labels::Int(values, dtype) => Some((values.clone(), *dtype)),
            Labels::Bool(values) => Some((values.iter().map(|value| i64::from(*value)).collect(), DType::Int64)),
            _ => None,
        });
        if let Some((values, dtypes)) = integers.collect::<Option<(Vec<Vec<i64>>, Vec<DType>)>>() {
            let same = dtypes.iter().all(|dtype| *dtype == dtypes[0]);
            return Ok(Labels::Int(values.concat(), if same { dtypes[0] } else { DType::Int64 }));
        }
        Ok(Labels::Float(parts.iter().map(Labels::numbers).collect::<Result<Vec<_>>>()?.concat()))
    }

    /// As numbers, for the steps that compute with another estimator's predictions.
    ///
    /// # Errors
    /// When they are text that is no number.
    pub fn numbers(&self) -> Result<Vec<f64>> {
        match self {
            Labels::Float(values) => Ok(values.clone()),
            Labels::Single(values) => Ok(values.iter().map(|value| f64::from(*value)).collect()),
            Labels::Int(values, _) => Ok(values.iter().map(|value| *value as f64).collect()),
            Labels::Bool(values) => Ok(values.iter().map(|value| f64::from(u8::from(*value))).collect()),
            Labels::Text(values) => values.iter().map(|text| Cell::Text(text.clone()).number()).collect(),
        }
    }
}

/// What `predict` gives: one value a row, or several for models of several outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub values: Labels,
    /// Values of a row; `None` for one value that is not in a list of its own (numpy's one dimension).
    pub columns: Option<usize>,
}

impl Target {
    pub fn one(values: Labels) -> Target {
        Target { values, columns: None }
    }

    /// Numbers of one dimension.
    pub fn floats(values: Vec<f64>) -> Target {
        Target::one(Labels::Float(values))
    }
}
