//! The first batches of a model, before any caller waits for one: they pay for lazy initialisation, tell how long a
//! batch takes, and find out whether requests may share one.
//!
//! That the outermost dimension is free does not make it a batch axis: it is time in a model that accumulates along
//! it. So three different rows are run alone and together; only when that makes no difference are requests joined.

mod lengths;

use std::time::{Duration, Instant};

use crate::backend::Model;
use crate::engine::joining::{Joining, Said};
use crate::engine::stack;
use crate::error::Result;
use crate::infer::{Signature, TensorSpec};
use crate::tensor::{DType, Shape, Tensor, push_bytes_element};

/// A model that has run.
pub struct WarmedUp {
    pub model: Box<dyn Model>,
    /// Most rows that requests may be joined to; 1 when each must run alone and whole.
    pub max_rows: usize,
    /// How they are.
    pub joining: Joining,
    /// What callers see of it.
    pub signature: Signature,
    /// What its largest batch took once everything was initialised; very long when that could not be found out.
    pub longest_batch: Duration,
    /// What batches took.
    pub timed: Vec<Timed>,
    /// What a person should know: why it is not batched, what could not be tried.
    pub note: Option<String>,
}

/// What a batch took of so many rows of so many elements each.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    pub elements: usize,
    pub rows: usize,
    pub took: Duration,
}

/// Runs the model on made-up values, with batches of up to `max_rows` rows, which are joined as somebody `said`.
///
/// # Errors
/// As [`Joining::of`], and when the model then gives something else for rows of several lengths.
pub fn warm_up(mut model: Box<dyn Model>, max_rows: usize, said: &Said) -> Result<WarmedUp> {
    let (joining, signature) = Joining::of(model.signature(), said)?;
    let signature = signature.into_owned();
    if joining != Joining::Alike {
        lengths::check(&mut *model, &signature, &joining)?;
    }
    let (max_rows, note) = if !signature.batches() || max_rows == 1 {
        (1, None)
    } else if signature.table.is_some() || joining != Joining::Alike {
        (max_rows, None) // each row of a table is a prediction of its own; the other was looked at just now
    } else {
        match shares(&mut *model, &signature) {
            Ok(true) => (max_rows, None),
            Ok(false) => (1, Some("not batched: rows that run together do not give what they give alone".to_owned())),
            Err(error) => (1, Some(format!("not batched: it could not be tried on made-up values: {error}"))),
        }
    };
    let timed = time_batches(&mut *model, &signature, max_rows, &joining);
    let note = note.or_else(|| timed.as_ref().err().map(|error| format!("could not be warmed up: {error}")));
    let timed = timed.unwrap_or_default();
    // With free inner dimensions a caller may send far more than what was tried.
    let known = timed.last().filter(|_| !signature.has_free_inner_dims()).map(|longest| longest.took);
    Ok(WarmedUp { model, max_rows, joining, signature, longest_batch: known.unwrap_or(Duration::MAX), timed, note })
}

/// Whether three rows give the same together as alone, in either order. They rise and fall, within each and from one
/// to the next, so that sums, sorting and clipping along the axis show. Some models take nothing but ones and zeros.
fn shares(model: &mut dyn Model, signature: &Signature) -> Result<bool> {
    let row = |seed| {
        let of_all = signature.inputs.iter().map(|spec| made_up(spec, 1, 1, Values::of(seed)));
        of_all.collect::<Result<Vec<_>>>()
    };
    let varied = share(model, &[row(2)?, row(5)?, row(3)?]);
    varied.or_else(|_| share(model, &[row(1)?, row(0)?, row(1)?]))
}

fn share(model: &mut dyn Model, rows: &[Vec<Tensor>; 3]) -> Result<bool> {
    let [a, b, c] = rows;
    let mut run = |inputs: &[Tensor]| run_defaults(model, inputs);
    let alone = [run(a)?, run(b)?, run(c)?];
    for order in [[0, 1, 2], [2, 1, 0]] {
        let together = run(&stack::join(&order.map(|index| rows[index].as_slice()))?)?;
        let Ok(apart) = stack::split(&together, &[1, 1, 1]) else { return Ok(false) };
        let pairs = order.iter().flat_map(|index| &alone[*index]).zip(apart.iter().flatten());
        if !pairs.into_iter().all(|(alone, joined)| close(alone, joined)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Batches of one row, of two, of four and so on, and of as many as there may be, which are the sizes that a batcher
/// chooses from.
fn time_batches(
    model: &mut dyn Model,
    signature: &Signature,
    max_rows: usize,
    joining: &Joining,
) -> Result<Vec<Timed>> {
    /// After that, sizes in between are left out.
    const LONG: Duration = Duration::from_secs(5);
    /// Of rows that may have any: as of texts.
    const LENGTHS: [usize; 3] = [1, 16, 128];
    let begun = Instant::now();
    let lengths = if *joining == Joining::Alike { &LENGTHS[..1] } else { &LENGTHS };
    let sizes = std::iter::successors(Some(1), |rows: &usize| rows.checked_mul(2)).take_while(|rows| *rows < max_rows);
    let mut timed = Vec::new();
    for rows in sizes.chain([max_rows]) {
        if rows < max_rows && begun.elapsed() > LONG {
            continue;
        }
        for length in lengths {
            let inputs = match model.example(rows) {
                Some(example) => example,
                None => match ones_or_zeros(model, signature, joining, rows, *length) {
                    Err(_) if *length > 1 => continue, // longer than the model takes
                    inputs => inputs?,
                },
            };
            // The first run still pays for what comes later; the second one counts.
            run_defaults(model, &inputs)?;
            let began = Instant::now();
            run_defaults(model, &inputs)?;
            let elements = inputs.iter().map(|input| input.shape().elements()).sum::<usize>() / rows;
            timed.push(Timed { elements, rows, took: began.elapsed() });
        }
    }
    Ok(timed)
}

/// Some models take nothing but zeros: indices of a table with one entry.
fn ones_or_zeros(
    model: &mut dyn Model,
    signature: &Signature,
    joining: &Joining,
    rows: usize,
    length: usize,
) -> Result<Vec<Tensor>> {
    let inputs = |seed| {
        let of_all = signature.inputs.iter().map(move |spec| made_up(spec, rows, length, Values::of(seed)));
        Ok(joining.join(&[&of_all.collect::<Result<Vec<_>>>()?])?.inputs)
    };
    let ones = inputs(1)?;
    if run_defaults(model, &ones).is_ok() { Ok(ones) } else { inputs(0) }
}

fn run_defaults(model: &mut dyn Model, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    let outputs: Vec<usize> = (0..model.signature().default_outputs).collect();
    model.run(inputs, &outputs)
}

/// What is made up.
#[derive(Clone, Copy)]
enum Values {
    /// Every element is that number, text its digit.
    All(u8),
    /// Vary with the seed and from element to element, integers from 0 to 4, floats the same times a factor.
    Varied { seed: usize, factor: f32 },
}

impl Values {
    /// Seeds of 0 and 1 mean that number; from 2 on values vary, floats by quarters from 0 to 1.
    fn of(seed: usize) -> Values {
        match u8::try_from(seed) {
            Ok(number @ 0..2) => Values::All(number),
            _ => Values::Varied { seed, factor: 0.25 },
        }
    }
}

/// An input of `rows` rows (where its outermost dimension is free), free inner dimensions of size `length`.
fn made_up(spec: &TensorSpec, rows: usize, length: usize, values: Values) -> Result<Tensor> {
    let mut dims: Vec<usize> = spec.dims.iter().map(|dim| dim.unwrap_or(length)).collect();
    if let (Some(first), Some(None)) = (dims.first_mut(), spec.dims.first()) {
        *first = rows;
    }
    let shape = Shape::new(dims)?;
    let mut data = Vec::new();
    for index in 0..shape.elements() {
        let (value, factor) = match values {
            Values::All(number) => (number, 1.0),
            Values::Varied { seed, factor } => (u8::try_from((seed + index * 2) % 5).unwrap_or(0), factor),
        };
        put(&mut data, spec.dtype, value, factor)?;
    }
    Tensor::new(spec.name.clone(), spec.dtype, shape, data.into())
}

fn put(data: &mut Vec<u8>, dtype: DType, value: u8, factor: f32) -> Result<()> {
    let float = f32::from(value) * factor;
    match dtype {
        DType::Bytes | DType::Json => return push_bytes_element(data, value.to_string().as_bytes()),
        DType::Bool => data.push(value & 1),
        DType::Fp16 => data.extend(half::f16::from_f32(float).to_le_bytes()),
        DType::Bf16 => data.extend(half::bf16::from_f32(float).to_le_bytes()),
        DType::Fp32 => data.extend(float.to_le_bytes()),
        DType::Fp64 => data.extend(f64::from(float).to_le_bytes()),
        integer => {
            data.push(value);
            data.resize(data.len() + integer.size().unwrap_or(1) - 1, 0);
        }
    }
    Ok(())
}

/// Equal, floats up to what another order of summation changes.
#[allow(clippy::float_cmp)] // infinities are equal or not
fn close(a: &Tensor, b: &Tensor) -> bool {
    macro_rules! within {
        ($type:ty, $tolerance:expr) => {{
            let values = |tensor: &Tensor| tensor.data().as_chunks::<{ size_of::<$type>() }>().0.to_vec();
            let near = |(a, b): ([u8; _], [u8; _])| {
                let [a, b] = [a, b].map(|bytes| f64::from(<$type>::from_le_bytes(bytes)));
                a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= $tolerance * (1.0 + a.abs().max(b.abs()))
            };
            a.shape() == b.shape() && values(a).into_iter().zip(values(b)).all(near)
        }};
    }
    match a.dtype() {
        DType::Fp16 => within!(half::f16, 1e-2),
        DType::Bf16 => within!(half::bf16, 5e-2),
        DType::Fp32 => within!(f32, 1e-4),
        DType::Fp64 => within!(f64, 1e-8),
        _ => a.shape() == b.shape() && a.data() == b.data(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    type Compute = fn(&[f32]) -> Result<Vec<f32>>;

    /// A model of one free dimension, computed by a function of all its values.
    struct Fake {
        signature: Signature,
        compute: Compute,
    }

    impl Model for Fake {
        fn signature(&self) -> &Signature {
            &self.signature
        }

        fn run(&mut self, inputs: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>> {
            let values: Vec<f32> = inputs[0].data().as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
            let answers = (self.compute)(&values)?;
            let data: Vec<u8> = answers.iter().flat_map(|answer| answer.to_le_bytes()).collect();
            Ok(vec![Tensor::new("y", DType::Fp32, Shape::new(vec![answers.len()])?, data.into())?])
        }
    }

    fn warmed(compute: Compute) -> (usize, Option<String>) {
        let spec = |name: &str| TensorSpec { name: name.into(), dtype: DType::Fp32, dims: vec![None] };
        let signature = Signature::new(vec![spec("x")], vec![spec("y")]);
        let WarmedUp { max_rows, note, .. } =
            warm_up(Box::new(Fake { signature, compute }), 8, &Said::default()).unwrap();
        (max_rows, note)
    }

    fn running_sums(values: &[f32]) -> Vec<f32> {
        let sum = |sum: &mut f32, value: &f32| {
            *sum += value;
            Some(*sum)
        };
        values.iter().scan(0.0, sum).collect()
    }

    #[test]
    fn rows_that_do_not_mind_company_are_batched() {
        assert_eq!(warmed(|values| Ok(values.iter().map(|value| value * 2.0).collect())), (8, None));
        // Another order of summation in a larger batch is no reason not to.
        let slightly: Compute = |values| {
            let error = if values.len() > 1 { 1e-6 } else { 0.0 };
            Ok(values.iter().map(|value| value + error).collect())
        };
        assert_eq!(warmed(slightly).0, 8);
    }

    #[test]
    fn rows_that_do_mind_are_not() {
        let mixing: [Compute; 5] = [
            |values| Ok(running_sums(values)),
            |values| Ok(running_sums(values).into_iter().map(|sum| sum.clamp(0.0, 1.0)).collect()),
            |values| {
                let mut sorted = values.to_vec();
                sorted.sort_by(f32::total_cmp);
                Ok(sorted)
            },
            |values| Ok(vec![values.iter().sum(); values.len()]),
            |values| Ok(values.iter().copied().filter(|value| *value > 0.0).collect()),
        ];
        for compute in mixing {
            let (max_rows, note) = warmed(compute);
            assert_eq!(max_rows, 1);
            assert!(note.unwrap().starts_with("not batched: rows that run together"));
        }
    }

    #[test]
    fn what_cannot_be_tried_is_not_batched_but_served() {
        let (max_rows, note) = warmed(|_| Err(Error::invalid("only 7 and 8")));
        assert_eq!(max_rows, 1);
        assert!(note.unwrap().contains("only 7 and 8"));
    }
}
