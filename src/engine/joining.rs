//! How several requests become one batch, and its outputs their answers again. Pure.

use std::borrow::Cow;

use super::padding::Padding;
use super::ragged::{Ragged, RaggedBatching};
use super::stack;
use super::times::size_class;
use crate::error::Result;
use crate::infer::{Signature, TensorSpec};
use crate::tensor::Tensor;

/// What a model lets be joined.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Joining {
    /// Rows of the same shape.
    #[default]
    Alike,
    /// Rows of different lengths, too: the shorter ones are filled up.
    Padded(Padding),
    /// Rows of any length, one behind the other.
    Ragged(Ragged),
}

/// What an operator says of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// Inputs whose rows may be filled up, and with what.
    pub padding: Vec<(String, f64)>,
    pub ragged: RaggedBatching,
}

/// A batch for the model.
#[derive(Debug)]
pub struct Joined {
    pub inputs: Vec<Tensor>,
    /// Elements that are there only to fill rows up.
    pub padding: usize,
    /// Of each request's rows, if they were filled up, and of the batch's.
    lengths: Option<(Vec<usize>, usize)>,
}

impl Joining {
    /// For a model of this signature; and the signature that callers see.
    ///
    /// # Errors
    /// As [`Padding::of`] and [`Ragged::of`].
    pub fn of<'a>(model: &'a Signature, said: &Said) -> Result<(Joining, Cow<'a, Signature>)> {
        if !said.ragged.inputs.is_empty() {
            let (ragged, signature) = Ragged::of(model, &said.ragged)?;
            return Ok((Joining::Ragged(ragged), Cow::Owned(signature)));
        }
        let is_padded = !said.padding.is_empty();
        let joining = if is_padded { Joining::Padded(Padding::of(model, &said.padding)?) } else { Joining::Alike };
        Ok((joining, Cow::Borrowed(model)))
    }

    /// The same for requests that are joined although their rows differ in length; `None` where they must not.
    pub fn length_class(&self, inputs: &[Tensor]) -> Option<usize> {
        match self {
            Joining::Alike => None,
            Joining::Padded(padding) => padding.length(inputs).map(size_class),
            Joining::Ragged(_) => Some(0),
        }
    }

    /// Whether an axis of an input need not be the same for requests that are joined, if these have a length class.
    pub fn is_length(&self, input: usize, axis: usize) -> bool {
        match self {
            Joining::Alike => false,
            Joining::Padded(padding) => padding.axis(input) == Some(axis),
            Joining::Ragged(ragged) => ragged.is_flat(input),
        }
    }

    /// Joins requests' inputs, which are in the order of the callers' signature.
    ///
    /// # Errors
    /// As [`stack::join`].
    pub fn join(&self, jobs: &[&[Tensor]]) -> Result<Joined> {
        let whole = |inputs| Ok(Joined { inputs, padding: 0, lengths: None });
        let padding = match self {
            Joining::Alike => return stack::join(jobs).and_then(whole),
            Joining::Ragged(ragged) => return ragged.join(jobs).and_then(whole),
            Joining::Padded(padding) => padding,
        };
        let lengths: Option<Vec<usize>> = jobs.iter().map(|inputs| padding.length(inputs)).collect();
        let lengths = lengths.and_then(|lengths| {
            let longest = *lengths.iter().max()?;
            lengths.iter().any(|length| *length < longest).then_some((lengths, longest))
        });
        let Some((_, longest)) = lengths else { return stack::join(jobs).and_then(whole) };
        let filled = jobs.iter().map(|inputs| padding.fill(inputs, longest)).collect::<Result<Vec<_>>>()?;
        let inputs = stack::join(&filled.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        let elements = |tensors: &[Tensor]| tensors.iter().map(|tensor| tensor.shape().elements()).sum::<usize>();
        let own: usize = jobs.iter().map(|inputs| elements(inputs)).sum();
        Ok(Joined { padding: elements(&inputs) - own, inputs, lengths })
    }

    /// Shares the outputs out, of which `wanted` says which of the signature's they are, to the requests that were joined,
    /// of so many rows each.
    ///
    /// # Errors
    /// As [`stack::split`], and when an output does not have the length of its rows.
    pub fn split(
        &self,
        jobs: &[&[Tensor]],
        joined: &Joined,
        outputs: Vec<Tensor>,
        wanted: &[usize],
        rows: &[usize],
    ) -> Result<Vec<Vec<Tensor>>> {
        match (self, &joined.lengths) {
            (Joining::Ragged(ragged), _) => {
                let mut answers: Vec<Vec<Tensor>> = jobs.iter().map(|_| Vec::with_capacity(outputs.len())).collect();
                for (output, index) in outputs.iter().zip(wanted) {
                    let parts = ragged.scatter(output, *index, jobs);
                    let by_rows = || match rows {
                        [_] => Ok(vec![output.clone()]),
                        _ => Ok(stack::split(std::slice::from_ref(output), rows)?.into_iter().flatten().collect()),
                    };
                    let parts = parts.unwrap_or_else(by_rows)?;
                    answers.iter_mut().zip(parts).for_each(|(answer, part)| answer.push(part));
                }
                Ok(answers)
            }
            (Joining::Padded(padding), Some((lengths, longest))) => {
                let answers = stack::split(&outputs, rows)?.into_iter().zip(lengths);
                answers.map(|(answer, length)| padding.cut(&answer, wanted, *longest, *length)).collect()
            }
            _ if rows.len() == 1 => Ok(vec![outputs]),
            _ => stack::split(&outputs, rows),
        }
    }
}

/// Tokens of one row: the largest product of an input's free inner dimensions.
pub fn tokens(signature: &Signature, inputs: &[Tensor]) -> usize {
    if !signature.has_free_inner_dims() {
        return 1;
    }
    let of_input = |(input, spec): (&Tensor, &TensorSpec)| {
        let dims = input.shape().dims().iter().zip(&spec.dims).skip(1);
        dims.filter(|(_, spec)| spec.is_none()).map(|(size, _)| *size).product::<usize>()
    };
    inputs.iter().zip(&signature.inputs).map(of_input).max().unwrap_or(1).max(1)
}
