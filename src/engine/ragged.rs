//! Rows of different lengths in one batch, one behind the other: a model that takes them so is told by further inputs
//! where each ends. Nothing is filled up. Pure.
//!
//! Source of the names and of what they mean: Triton's `docs/user_guide/ragged_batching.md` and `BatchInput` and
//! `BatchOutput` in `model_config.proto`. Counted are rows; Triton counts requests, which is the same for one row each.

use std::sync::Arc;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::infer::{Signature, TensorSpec};
use crate::tensor::{DType, Shape, Tensor};

/// What an operator says of a model that takes rows one behind the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RaggedBatching {
    /// Inputs whose rows lie one behind the other.
    pub inputs: Vec<String>,
    pub batch_inputs: Vec<BatchInput>,
    /// Outputs that have as many elements as an input, each row as many as there.
    pub scattered: Vec<Scattered>,
}

/// An input that callers do not give: it says where rows end.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchInput {
    pub kind: BatchInputKind,
    pub target: String,
    pub source: String,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum BatchInputKind {
    /// Of each row the number of its elements: `[rows]`.
    #[serde(rename = "BATCH_ELEMENT_COUNT")]
    ElementCount,
    /// The sum of these up to each row and with it: `[rows]`.
    #[serde(rename = "BATCH_ACCUMULATED_ELEMENT_COUNT")]
    AccumulatedElementCount,
    /// The same behind a zero: `[rows + 1]`.
    #[serde(rename = "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO")]
    AccumulatedElementCountWithZero,
    /// As many zeros as the longest row has elements.
    #[serde(rename = "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE")]
    MaxElementCountAsShape,
    /// The shape of each row: `[rows, dimensions of a row]`.
    #[serde(rename = "BATCH_ITEM_SHAPE")]
    ItemShape,
    /// The same one behind the other: `[rows * dimensions of a row]`.
    #[serde(rename = "BATCH_ITEM_SHAPE_FLATTEN")]
    ItemShapeFlatten,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Scattered {
    pub target: String,
    pub source: String,
}

/// How requests become the inputs of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Ragged {
    /// In the model's order: from which of the callers' inputs, and how.
    inputs: Vec<(usize, Source)>,
    /// By output: the callers' input that says how long its rows are.
    scattered: Vec<Option<usize>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Source {
    /// As it is, rows of one shape.
    Alike,
    Flat,
    Batch {
        name: Arc<str>,
        dtype: DType,
        kind: BatchInputKind,
    },
}

impl Ragged {
    /// For a model of this signature; and the signature that callers see: without the inputs that say where rows end, rows
    /// of any length as `[-1, -1]`.
    ///
    /// # Errors
    /// When something is named that the model does not have, or that has another shape or type than it would need.
    pub fn of(model: &Signature, said: &RaggedBatching) -> Result<(Ragged, Signature)> {
        let wrong = |flag: &str, name: &str, why: &str| Error::load(format!("--{flag}: \"{name}\" {why}"));
        let known = |specs: &[TensorSpec], flag, name: &str| {
            let found = specs.iter().position(|spec| *spec.name == *name);
            found.ok_or_else(|| wrong(flag, name, "is none of the model's"))
        };
        let any_length = |spec: &TensorSpec| TensorSpec { dims: vec![None, None], ..spec.clone() };
        let mut sources = vec![Source::Alike; model.inputs.len()];
        let mut specs = model.inputs.clone();
        for name in &said.inputs {
            let index = known(&model.inputs, "allow_ragged_batch", name)?;
            let spec = &model.inputs[index];
            if spec.dims != [None] || spec.dtype.size().is_none() {
                return Err(wrong("allow_ragged_batch", name, "would have to be numbers of shape [-1] in the model"));
            }
            (sources[index], specs[index]) = (Source::Flat, any_length(spec));
        }
        let mut from = vec![None; model.inputs.len()];
        for BatchInput { kind, target, source } in &said.batch_inputs {
            let index = known(&model.inputs, "batch_input", target)?;
            let TensorSpec { name, dtype, .. } = &model.inputs[index];
            if number(*dtype, 0).is_none() {
                return Err(wrong("batch_input", target, "would have to be of FP32, FP64, INT32 or INT64"));
            }
            from[index] = Some(known(&model.inputs, "batch_input", source)?);
            sources[index] = Source::Batch { name: name.clone(), dtype: *dtype, kind: *kind };
        }
        // Where callers give it, among what they give.
        let places: Vec<Option<usize>> = from
            .iter()
            .scan(0, |next, from| Some(from.is_none().then(|| std::mem::replace(next, *next + 1))))
            .collect();
        let given = |index: usize, flag, name: &str| {
            places[index].ok_or_else(|| wrong(flag, name, "comes from an input that callers do not give"))
        };
        let inputs = sources.into_iter().enumerate().map(|(index, source)| {
            let place = given(from[index].unwrap_or(index), "batch_input", &model.inputs[index].name)?;
            Ok((place, source))
        });
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let mut outputs = model.outputs.clone();
        let mut scattered = vec![None; model.outputs.len()];
        for Scattered { target, source } in &said.scattered {
            let index = known(&model.outputs, "batch_output", target)?;
            let source = known(&model.inputs, "batch_output", source)?;
            if outputs[index].dims != [None] || outputs[index].dtype.size().is_none() {
                return Err(wrong("batch_output", target, "would have to be numbers of shape [-1] in the model"));
            }
            outputs[index] = any_length(&outputs[index]);
            scattered[index] = Some(given(source, "batch_output", target)?);
        }
        let specs = specs.into_iter().zip(&from).filter(|(_, from)| from.is_none()).map(|(spec, _)| spec).collect();
        let signature = Signature { inputs: specs, outputs, ..model.clone() };
        Ok((Ragged { inputs, scattered }, signature))
    }

    /// Whether rows of this input lie one behind the other.
    pub fn is_flat(&self, input: usize) -> bool {
        self.inputs.iter().any(|(place, source)| *place == input && *source == Source::Flat)
    }

    /// The model's inputs for several requests.
    ///
    /// # Errors
    /// When that is more than a tensor can hold.
    pub fn join(&self, jobs: &[&[Tensor]]) -> Result<Vec<Tensor>> {
        let input = |(place, source): &(usize, Source)| {
            let parts: Vec<&Tensor> = jobs.iter().map(|inputs| &inputs[*place]).collect();
            let total = |of: fn(&Tensor) -> usize| parts.iter().map(|part| of(part)).sum::<usize>();
            match source {
                Source::Alike => concatenated(&parts, parts[0].shape().with_rows(total(Tensor::rows))),
                Source::Flat => concatenated(&parts, Shape::new(vec![total(|part| part.shape().elements())])?),
                Source::Batch { name, dtype, kind } => batch_input(name, *dtype, *kind, &parts),
            }
        };
        self.inputs.iter().map(input).collect()
    }

    /// An output's rows for each request, where they are as long as those of an input; `None` where each is one row.
    pub fn scatter(&self, output: &Tensor, index: usize, jobs: &[&[Tensor]]) -> Option<Result<Vec<Tensor>>> {
        let place = (*self.scattered.get(index)?)?;
        let shapes: Vec<&Shape> = jobs.iter().map(|inputs| inputs[place].shape()).collect();
        let total: usize = shapes.iter().map(|shape| shape.elements()).sum();
        if output.shape().dims() != [total] {
            let (name, shape) = (output.name(), output.shape());
            let text = format!("output \"{name}\" has shape {shape} for rows of {total} elements: see --batch_output");
            return Some(Err(Error::internal(text)));
        }
        let mut rest = output.data().clone();
        let size = output.dtype().size().unwrap_or(1);
        let part = |shape: &Shape| {
            let data = rest.split_to(shape.elements() * size);
            Tensor::new(output.name().clone(), output.dtype(), shape.clone(), data)
        };
        Some(shapes.into_iter().map(part).collect())
    }
}

fn concatenated(parts: &[&Tensor], shape: Shape) -> Result<Tensor> {
    let data = parts.iter().map(|part| part.data().as_ref()).collect::<Vec<_>>().concat();
    Tensor::new(parts[0].name().clone(), parts[0].dtype(), shape, data.into())
}

fn batch_input(name: &Arc<str>, dtype: DType, kind: BatchInputKind, parts: &[&Tensor]) -> Result<Tensor> {
    let rows: usize = parts.iter().map(|part| part.rows()).sum();
    let items = || parts.iter().flat_map(|part| std::iter::repeat_n(&part.shape().dims()[1..], part.rows()));
    let counts = || items().map(|dims| dims.iter().product::<usize>());
    let accumulated = || {
        counts().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        })
    };
    let item_dims = parts[0].shape().dims().len() - 1;
    let (numbers, dims): (Vec<usize>, Vec<usize>) = match kind {
        BatchInputKind::ElementCount => (counts().collect(), vec![rows]),
        BatchInputKind::AccumulatedElementCount => (accumulated().collect(), vec![rows]),
        BatchInputKind::AccumulatedElementCountWithZero => {
            ([0].into_iter().chain(accumulated()).collect(), vec![rows + 1])
        }
        BatchInputKind::MaxElementCountAsShape => {
            let longest = counts().max().unwrap_or(0);
            (vec![0; longest], vec![longest])
        }
        BatchInputKind::ItemShape => (items().flatten().copied().collect(), vec![rows, item_dims]),
        BatchInputKind::ItemShapeFlatten => (items().flatten().copied().collect(), vec![rows * item_dims]),
    };
    let data: Vec<u8> = numbers.into_iter().filter_map(|count| number(dtype, count)).flatten().collect();
    Tensor::new(name.clone(), dtype, Shape::new(dims)?, data.into())
}

/// A count as one element of a type that such inputs may have.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // counts are far smaller
fn number(dtype: DType, count: usize) -> Option<Vec<u8>> {
    match dtype {
        DType::Fp32 => Some((count as f32).to_le_bytes().to_vec()),
        DType::Fp64 => Some((count as f64).to_le_bytes().to_vec()),
        DType::Int32 => Some((count as i32).to_le_bytes().to_vec()),
        DType::Int64 => Some((count as i64).to_le_bytes().to_vec()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dims: &[usize]) -> Tensor {
        let shape = Shape::new(dims.to_vec()).unwrap();
        let data: Vec<u8> = (0_u8..).take(shape.elements()).flat_map(|value| f32::from(value).to_le_bytes()).collect();
        Tensor::new("values", DType::Fp32, shape, data.into()).unwrap()
    }

    #[test]
    fn each_kind_says_where_rows_end() {
        let (one, two) = (tensor(&[1, 3]), tensor(&[2, 4]));
        let expected: [(BatchInputKind, &[usize], &[i32]); 6] = [
            (BatchInputKind::ElementCount, &[3], &[3, 4, 4]),
            (BatchInputKind::AccumulatedElementCount, &[3], &[3, 7, 11]),
            (BatchInputKind::AccumulatedElementCountWithZero, &[4], &[0, 3, 7, 11]),
            (BatchInputKind::MaxElementCountAsShape, &[4], &[0, 0, 0, 0]),
            (BatchInputKind::ItemShape, &[3, 1], &[3, 4, 4]),
            (BatchInputKind::ItemShapeFlatten, &[3], &[3, 4, 4]),
        ];
        for (kind, dims, numbers) in expected {
            let joined = batch_input(&"ends".into(), DType::Int32, kind, &[&one, &two]).unwrap();
            let data: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            assert_eq!((joined.shape().dims(), &joined.data()[..]), (dims, &data[..]), "{kind:?}");
        }
    }

    #[test]
    fn what_does_not_fit_the_model_is_named() {
        let spec =
            |name: &str, dtype, dims: &[Option<usize>]| TensorSpec { name: name.into(), dtype, dims: dims.to_vec() };
        let inputs = vec![
            spec("values", DType::Fp32, &[None]),
            spec("ends", DType::Uint8, &[None]),
            spec("image", DType::Fp32, &[None, Some(4)]),
        ];
        let model = Signature::new(inputs, vec![spec("y", DType::Fp32, &[None])]);
        let ragged = |input: &str, target: &str| RaggedBatching {
            inputs: vec![input.to_owned()],
            batch_inputs: vec![BatchInput {
                kind: BatchInputKind::ElementCount,
                target: target.to_owned(),
                source: "values".to_owned(),
            }],
            scattered: Vec::new(),
        };
        let wrong = |said: RaggedBatching| Ragged::of(&model, &said).unwrap_err().to_string();
        assert!(wrong(ragged("image", "ends")).contains("\"image\" would have to be numbers of shape [-1]"));
        assert!(wrong(ragged("values", "ends")).contains("\"ends\" would have to be of FP32"));
        assert!(wrong(ragged("values", "starts")).contains("\"starts\" is none of the model's"));
        assert!(wrong(ragged("values", "values")).contains("comes from an input that callers do not give"));
    }
}
