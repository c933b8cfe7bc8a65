//! The first batches of a model, before any caller waits for one: they pay for lazy initialisation, tell how long a
//! batch takes, and find out whether requests may share one.
//!
//! That the outermost dimension is free does not make it a batch axis: it is time in a model that accumulates along
//! it. So two different rows are run alone and together; only when that makes no difference are requests joined.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::backend::Model;
use crate::engine::stack;
use crate::error::Result;
use crate::infer::{Signature, TensorSpec};
use crate::tensor::{DType, Shape, Tensor, push_bytes_element};

/// A model that has run.
pub struct WarmedUp {
    pub model: Box<dyn Model>,
    /// Most rows that requests may be joined to; 1 when each must run alone and whole.
    pub max_rows: usize,
    /// What its largest batch took once everything was initialised; very long when that could not be found out.
    pub longest_batch: Duration,
    /// What a person should know: why it is not batched, what could not be tried.
    pub note: Option<String>,
}

/// Runs the model on made-up values, with batches of up to `max_rows` rows.
pub fn warm_up(mut model: Box<dyn Model>, max_rows: usize) -> WarmedUp {
    let signature = model.signature().clone();
    let (max_rows, note) = if !signature.batches() || max_rows == 1 {
        (1, None)
    } else {
        match shares(&mut *model, &signature) {
            Ok(true) => (max_rows, None),
            Ok(false) => (1, Some("not batched: rows that run together do not give what they give alone".to_owned())),
            Err(error) => (max_rows, Some(format!("batching could not be tried on made-up values: {error}"))),
        }
    };
    let timed = longest_batch(&mut *model, &signature, max_rows);
    let note = note.or_else(|| timed.as_ref().err().map(|error| format!("could not be warmed up: {error}")));
    // With free inner dimensions a caller may send far more than what was tried.
    let known = timed.ok().filter(|_| !signature.has_free_inner_dims());
    WarmedUp { model, max_rows, longest_batch: known.unwrap_or(Duration::MAX), note }
}

/// Whether two rows give the same together as alone. Nearly every model takes ones; not every one takes twos.
fn shares(model: &mut dyn Model, signature: &Signature) -> Result<bool> {
    let row = |value| signature.inputs.iter().map(|spec| made_up(spec, 1, value)).collect::<Result<Vec<_>>>();
    let mut tried = Ok(true);
    for (first, second) in [(1, 2), (1, 0), (0, 0)] {
        tried = share(model, &row(first)?, &row(second)?);
        if tried.is_ok() {
            break;
        }
    }
    tried
}

fn share(model: &mut dyn Model, first: &[Tensor], second: &[Tensor]) -> Result<bool> {
    let alone = [model.run(first)?, model.run(second)?];
    let together = model.run(&stack::join(&[first, second])?)?;
    let Ok(apart) = stack::split(&together, &[1, 1]) else { return Ok(false) };
    Ok(alone.iter().flatten().zip(apart.iter().flatten()).all(|(a, b)| close(a, b)))
}

fn longest_batch(model: &mut dyn Model, signature: &Signature, max_rows: usize) -> Result<Duration> {
    let inputs =
        |value| signature.inputs.iter().map(move |spec| made_up(spec, max_rows, value)).collect::<Result<Vec<_>>>();
    let (ones, zeros) = (inputs(1)?, inputs(0)?);
    // The first run still pays for what comes later; the second one counts.
    let inputs = if model.run(&ones).is_ok() { ones } else { zeros };
    model.run(&inputs)?;
    let began = Instant::now();
    model.run(&inputs)?;
    Ok(began.elapsed())
}

/// An input of `rows` rows (where its outermost dimension is free), every element `value`, text `"1"` for 1; free
/// inner dimensions are 1.
fn made_up(spec: &TensorSpec, rows: usize, value: u8) -> Result<Tensor> {
    let mut dims: Vec<usize> = spec.dims.iter().map(|dim| dim.unwrap_or(1)).collect();
    if let (Some(first), Some(None)) = (dims.first_mut(), spec.dims.first()) {
        *first = rows;
    }
    let shape = Shape::new(dims)?;
    let data: Bytes = match element(spec.dtype, value) {
        Some(bytes) => bytes.repeat(shape.elements()).into(),
        None => {
            let mut data = Vec::new();
            (0..shape.elements()).try_for_each(|_| push_bytes_element(&mut data, value.to_string().as_bytes()))?;
            data.into()
        }
    };
    Tensor::new(spec.name.clone(), spec.dtype, shape, data)
}

fn element(dtype: DType, value: u8) -> Option<Vec<u8>> {
    Some(match dtype {
        DType::Bytes => return None,
        DType::Bool => vec![value & 1],
        DType::Fp16 => half::f16::from(value).to_le_bytes().to_vec(),
        DType::Bf16 => half::bf16::from(value).to_le_bytes().to_vec(),
        DType::Fp32 => f32::from(value).to_le_bytes().to_vec(),
        DType::Fp64 => f64::from(value).to_le_bytes().to_vec(),
        integer => {
            let mut bytes = vec![0; integer.size().unwrap_or(1)];
            bytes[0] = value;
            bytes
        }
    })
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
