//! Whether rows of different lengths may be joined, as somebody said: three give the same alone and together.

use super::{Values, close, made_up, run_defaults};
use crate::backend::Model;
use crate::engine::joining::Joining;
use crate::error::{Error, Result};
use crate::infer::Signature;
use crate::tensor::Tensor;

/// Looks whether it makes a difference for a model whose callers see this signature.
///
/// Some integers only switch others on and off (a mask of ones and zeros), and which do is not known: each set of integer
/// inputs in turn is made up of ones, the others vary. It is enough that one such set shows no difference, for positive
/// and for negative floats: what is wrong in general is wrong for all of them.
///
/// # Errors
/// When it does make a difference, or cannot be tried.
pub fn check(model: &mut dyn Model, signature: &Signature, joining: &Joining) -> Result<()> {
    /// More of them are not told apart: there are twice as many sets for each.
    const FEW: usize = 6;
    let is_integer = |index: &usize| signature.inputs[*index].dtype.is_integer();
    let integers: Vec<usize> = (0..signature.inputs.len()).filter(is_integer).take(FEW).collect();
    let mut problem = None;
    for set in 0..1_usize << integers.len() {
        let ones: Vec<usize> =
            integers.iter().zip(0..).filter(|(_, bit)| set >> bit & 1 == 1).map(|(at, _)| *at).collect();
        if ones.len() == signature.inputs.len() {
            continue; // nothing would vary
        }
        match [0.25, -0.25].map(|factor| is_same(model, signature, joining, &ones, factor)) {
            [Ok(true), Ok(true)] => return Ok(()),
            [Err(error), _] | [_, Err(error)] => problem = Some(error),
            _ => {}
        }
    }
    let text = match joining {
        Joining::Ragged(_) => {
            "--allow_ragged_batch: rows of different lengths that run together do not give what they give alone"
        }
        Joining::Alike | Joining::Padded(_) => {
            "--pad_variable_length_inputs: the model gives something else for rows that are filled up than for the same \
             rows alone; which inputs may be filled up, with what, and does it mask what is?"
        }
    };
    Err(problem.map_or_else(|| Error::load(text), |error| Error::load(format!("{text}: {error}"))))
}

/// Whether three rows give the same alone and together, in either order.
fn is_same(
    model: &mut dyn Model,
    signature: &Signature,
    joining: &Joining,
    ones: &[usize],
    factor: f32,
) -> Result<bool> {
    let row = |(seed, length): (usize, usize)| {
        let inputs = signature.inputs.iter().enumerate().map(|(index, spec)| {
            let values = if ones.contains(&index) { Values::All(1) } else { Values::Varied { seed, factor } };
            made_up(spec, 1, length, values)
        });
        inputs.collect::<Result<Vec<Tensor>>>()
    };
    let rows = [(2, 3), (5, 7), (3, 4)].map(row).into_iter().collect::<Result<Vec<_>>>()?;
    let wanted: Vec<usize> = (0..signature.default_outputs).collect();
    let mut run = |order: &[usize]| {
        let jobs: Vec<&[Tensor]> = order.iter().map(|index| rows[*index].as_slice()).collect();
        let joined = joining.join(&jobs)?;
        let outputs = run_defaults(model, &joined.inputs)?;
        joining.split(&jobs, &joined, outputs, &wanted, &vec![1; order.len()])
    };
    let alone = [run(&[0])?, run(&[1])?, run(&[2])?].concat();
    for order in [[0, 1, 2], [2, 1, 0]] {
        let Ok(together) = run(&order) else { return Ok(false) };
        let mut pairs = order.iter().flat_map(|index| &alone[*index]).zip(together.iter().flatten());
        if !pairs.all(|(alone, joined)| close(alone, joined)) {
            return Ok(false);
        }
    }
    Ok(true)
}
