//! What a prediction is, apart from any protocol: request, response, and the signature that a request must fit.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::tensor::{DType, Excerpt, Tensor};

pub mod columns;
pub mod table;

use table::TableSpec;

/// The output of a model that explains itself: `[rows, features + 1]`, or `[rows, outputs, features + 1]`, of Shapley
/// values, the last of which is the base value.
pub const EXPLANATION: &str = "shap_values";

/// One prediction asked of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct InferRequest {
    /// Echoed to the caller when given; never made up, because clients compare it with what they sent.
    pub id: Option<String>,
    pub inputs: Vec<Tensor>,
    /// Names of the outputs wanted; empty means all of them.
    pub outputs: Vec<String>,
    pub schedule: Schedule,
}

/// What a request says of when it is to run. Source: Triton's `protocol/extension_schedule_policy.md`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// From 1, which is the first; `None` for the model's default.
    pub priority: Option<u32>,
    /// In which the answer has to be there.
    pub timeout: Option<Duration>,
}

impl Schedule {
    /// Of the parameters `priority` and `timeout` (in microseconds), of which 0 says nothing.
    pub fn of(priority: Option<u64>, timeout: Option<u64>) -> Schedule {
        Schedule {
            priority: priority.filter(|level| *level > 0).map(|level| u32::try_from(level).unwrap_or(u32::MAX)),
            timeout: timeout.filter(|micros| *micros > 0).map(Duration::from_micros),
        }
    }
}

/// The answer to one [`InferRequest`], outputs in the order asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct InferResponse {
    pub model: Arc<str>,
    pub version: Arc<str>,
    pub id: Option<String>,
    pub outputs: Vec<Tensor>,
}

impl InferResponse {
    /// Bytes of tensor data, which is what encoding takes its time for.
    pub fn data_bytes(&self) -> usize {
        self.outputs.iter().map(|output| output.data().len()).sum()
    }
}

/// One input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    pub name: Arc<str>,
    pub dtype: DType,
    /// Size of each dimension, outermost first; `None` where any size will do.
    pub dims: Vec<Option<usize>>,
}

impl TensorSpec {
    /// The dimensions as the protocols write them: -1 where any size will do.
    pub fn protocol_shape(&self) -> impl Iterator<Item = i64> {
        self.dims.iter().map(|dim| dim.map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX)))
    }

    fn check(&self, tensor: &Tensor) -> Result<()> {
        let name = &self.name;
        if tensor.dtype() != self.dtype {
            let got = if tensor.dtype() == DType::Json { "null among text" } else { tensor.dtype().name() };
            return Err(Error::invalid(format!("input \"{name}\": expected {}, got {got}", self.dtype)));
        }
        let dims = tensor.shape().dims();
        let fits = dims.len() == self.dims.len()
            && self.dims.iter().zip(dims).all(|(expected, got)| expected.is_none_or(|size| size == *got));
        if !fits {
            return Err(Error::invalid(format!(
                "input \"{name}\": expected shape {}, got {}",
                DimsSpec(&self.dims),
                tensor.shape()
            )));
        }
        if dims.contains(&0) {
            return Err(Error::invalid(format!("input \"{name}\": shape {} has no elements", tensor.shape())));
        }
        Ok(())
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.dtype, DimsSpec(&self.dims))
    }
}

struct DimsSpec<'a>(&'a [Option<usize>]);

impl fmt::Display for DimsSpec<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, dim) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            match dim {
                Some(size) => write!(f, "{separator}{size}")?,
                None => write!(f, "{separator}-1")?,
            }
        }
        f.write_str("]")
    }
}

/// The inputs a model takes and the outputs it gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    /// How many of the outputs, from the first one, are given to who asks for none by name.
    pub default_outputs: usize,
    /// For models that take rows of a table, in other forms than the one that `inputs` lists, too.
    pub table: Option<TableSpec>,
}

/// Inputs that fit a [`Signature`], in its order.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedInputs {
    pub inputs: Vec<Tensor>,
    /// Rows along the batch axis; 1 when the model cannot be batched.
    pub rows: usize,
}

impl Signature {
    /// A signature of tensors that come just as listed.
    pub fn new(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> Signature {
        Signature { inputs, default_outputs: outputs.len(), outputs, table: None }
    }

    /// Whether requests may be joined: every input and output has a free outermost dimension.
    pub fn batches(&self) -> bool {
        let mut specs = self.inputs.iter().chain(&self.outputs);
        !self.inputs.is_empty() && specs.all(|spec| matches!(spec.dims.first(), Some(None)))
    }

    /// Whether any dimension but the batch axis is free, so that requests may differ in shape.
    pub fn has_free_inner_dims(&self) -> bool {
        let batch_axis = usize::from(self.batches());
        self.inputs.iter().any(|spec| spec.dims.iter().skip(batch_axis).any(Option::is_none))
    }

    /// Checks names, dtypes and shapes, and puts the inputs in the model's order.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid), naming the input, what was expected and what came.
    pub fn check(&self, mut inputs: Vec<Tensor>) -> Result<CheckedInputs> {
        if let Some(table) = &self.table {
            let inputs = table.arrange(&inputs)?;
            return Ok(CheckedInputs { rows: inputs[0].rows(), inputs });
        }
        if let Some(unknown) = inputs.iter().find(|tensor| !self.inputs.iter().any(|spec| spec.name == *tensor.name()))
        {
            return Err(Error::invalid(format!(
                "unknown input \"{}\", the model takes {}",
                Excerpt(unknown.name()),
                list(&self.inputs)
            )));
        }
        let mut ordered = Vec::with_capacity(self.inputs.len());
        for spec in &self.inputs {
            let Some(position) = inputs.iter().position(|tensor| *tensor.name() == spec.name) else {
                return Err(Error::invalid(format!("missing input \"{}\" ({spec})", spec.name)));
            };
            let tensor = inputs.swap_remove(position);
            spec.check(&tensor)?;
            // The signature's own name: shared by all requests instead of one allocation each.
            ordered.push(tensor.renamed(spec.name.clone()));
        }
        if let Some(twice) = inputs.first() {
            return Err(Error::invalid(format!("input \"{}\" is given more than once", twice.name())));
        }
        let rows = self.rows(&ordered)?;
        Ok(CheckedInputs { inputs: ordered, rows })
    }

    /// Positions of the wanted outputs among the model's.
    ///
    /// # Errors
    /// When a name is unknown or asked for twice.
    pub fn select_outputs(&self, wanted: &[String]) -> Result<Vec<usize>> {
        if wanted.is_empty() {
            return Ok((0..self.default_outputs).collect());
        }
        let mut selected = Vec::with_capacity(wanted.len().min(self.outputs.len()));
        for name in wanted {
            let Some(index) = self.outputs.iter().position(|spec| *spec.name == **name) else {
                return Err(Error::invalid(format!(
                    "unknown output \"{}\", the model gives {}",
                    Excerpt(name),
                    list(&self.outputs)
                )));
            };
            if selected.contains(&index) {
                return Err(Error::invalid(format!("output \"{name}\" is asked for more than once")));
            }
            selected.push(index);
        }
        Ok(selected)
    }

    fn rows(&self, inputs: &[Tensor]) -> Result<usize> {
        if !self.batches() {
            return Ok(1);
        }
        let (first, others) = inputs.split_first().expect("a signature that batches has an input");
        match others.iter().find(|tensor| tensor.rows() != first.rows()) {
            None => Ok(first.rows()),
            Some(other) => Err(Error::invalid(format!(
                "inputs disagree on the batch size: \"{}\" has {} rows, \"{}\" has {}",
                first.name(),
                first.rows(),
                other.name(),
                other.rows()
            ))),
        }
    }
}

/// `"a" FP32 [-1, 4], "b" INT64 [-1]`, bounded, for error messages.
fn list(specs: &[TensorSpec]) -> String {
    const SHOWN: usize = 16;
    let mut names: Vec<String> = specs.iter().take(SHOWN).map(|spec| format!("\"{}\"", spec.name)).collect();
    if specs.len() > SHOWN {
        names.push(format!("and {} more", specs.len() - SHOWN));
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Shape;

    fn spec(name: &str, dims: &[Option<usize>]) -> TensorSpec {
        TensorSpec { name: name.into(), dtype: DType::Uint8, dims: dims.to_vec() }
    }

    fn tensor(name: &str, dims: &[usize]) -> Tensor {
        let shape = Shape::new(dims.to_vec()).unwrap();
        let data = vec![0; shape.elements()].into();
        Tensor::new(name, DType::Uint8, shape, data).unwrap()
    }

    fn signature() -> Signature {
        Signature::new(
            vec![spec("a", &[None, Some(2)]), spec("b", &[None])],
            vec![spec("y", &[None]), spec("z", &[None])],
        )
    }

    #[test]
    fn inputs_come_out_in_the_models_order() {
        let checked = signature().check(vec![tensor("b", &[3]), tensor("a", &[3, 2])]).unwrap();
        assert_eq!(checked.rows, 3);
        assert_eq!(checked.inputs.iter().map(|t| t.name().as_ref()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn each_mistake_is_named() {
        let cases = [
            (vec![tensor("a", &[1, 2])], "missing input \"b\" (b UINT8 [-1])"),
            (vec![tensor("c", &[1])], "unknown input \"c\", the model takes \"a\", \"b\""),
            (vec![tensor("a", &[1, 3]), tensor("b", &[1])], "input \"a\": expected shape [-1, 2], got [1, 3]"),
            (vec![tensor("a", &[2]), tensor("b", &[1])], "input \"a\": expected shape [-1, 2], got [2]"),
            (vec![tensor("a", &[0, 2]), tensor("b", &[0])], "input \"a\": shape [0, 2] has no elements"),
            (
                vec![tensor("a", &[1, 2]), tensor("b", &[2])],
                "inputs disagree on the batch size: \"a\" has 1 rows, \"b\" has 2",
            ),
            (vec![tensor("a", &[1, 2]), tensor("b", &[1]), tensor("b", &[1])], "input \"b\" is given more than once"),
        ];
        for (inputs, message) in cases {
            assert_eq!(signature().check(inputs).unwrap_err().message(), message);
        }
    }

    #[test]
    fn outputs_are_selected_by_name() {
        let select =
            |names: &[&str]| signature().select_outputs(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        assert_eq!(select(&[]).unwrap(), [0, 1]);
        assert_eq!(select(&["z"]).unwrap(), [1]);
        assert!(select(&["z", "z"]).unwrap_err().message().contains("more than once"));
        assert!(select(&["q"]).unwrap_err().message().contains("the model gives \"y\", \"z\""));
    }

    #[test]
    fn a_fixed_outermost_dimension_forbids_batching() {
        let mut fixed = signature();
        fixed.outputs[0].dims = vec![Some(1)];
        assert!(!fixed.batches());
        assert!(signature().batches());
    }
}
