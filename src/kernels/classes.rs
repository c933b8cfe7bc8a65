//! What classifiers answer, on a GPU: `kernels/classes.cu`.

use super::{Grid, Machine, Plain, bytes_mut, number};
use crate::error::{Error, Result};

#[derive(Clone, Copy)]
#[repr(C)]
struct Args {
    scores: u64,
    probabilities: u64,
    greatest: u64,
    which: u64,
    rows: u32,
    classes: u32,
    k: u32,
    unused: u32,
}

// SAFETY: u64 before u32, of which there are an even number.
unsafe impl Plain for Args {}

/// What is made of scores.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    /// `[rows, classes]`, when asked for: `exp(score)` over the sum of those of the row.
    pub probabilities: Vec<f32>,
    /// `[rows, k]`: the greatest scores, descending.
    pub greatest: Vec<f32>,
    /// `[rows, k]`: which those are; of equal ones the first comes first. NaN is less than everything.
    pub which: Vec<u32>,
}

/// Of scores `[rows, classes]` the `k` greatest of each row, 1 for its class alone, and the probabilities if they are asked
/// for. [`reference`] says the same but for the last bits of probabilities.
///
/// # Errors
/// When there are fewer than `k` classes; else as [`Machine::allocate`] and [`Machine::launch`].
pub fn classes<M: Machine>(
    machine: &M,
    scores: &[f32],
    classes: usize,
    k: usize,
    probabilities: bool,
) -> Result<Answer> {
    let rows = rows(scores, classes, k)?;
    let mut answer = Answer {
        probabilities: vec![0.0; if probabilities { scores.len() } else { 0 }],
        greatest: vec![0.0; rows * k],
        which: vec![0; rows * k],
    };
    if rows == 0 {
        return Ok(answer);
    }
    let on_machine = machine.upload(scores)?;
    let all = if probabilities { Some(machine.allocate(size_of_val(scores))?) } else { None };
    let (greatest, which) = (machine.allocate(rows * k * 4)?, machine.allocate(rows * k * 4)?);
    let args = Args {
        scores: machine.address(&on_machine),
        probabilities: all.as_ref().map_or(0, |buffer| machine.address(buffer)),
        greatest: machine.address(&greatest),
        which: machine.address(&which),
        rows: number(rows),
        classes: number(classes),
        k: number(k),
        unused: 0,
    };
    /// A score and its place, for each thread.
    const FOUND: u32 = 8;
    let threads = number(classes.next_power_of_two().clamp(32, 256));
    let grid = Grid { blocks: number(rows.min(1 << 16)), threads, shared_bytes: threads * FOUND };
    // SAFETY: `Args` is the kernel's `Classes`; its buffers have these sizes and live until they are read.
    unsafe { machine.launch("classes", grid, &args) }?;
    machine.read(&greatest, bytes_mut(&mut answer.greatest))?;
    machine.read(&which, bytes_mut(&mut answer.which))?;
    if let Some(all) = all {
        machine.read(&all, bytes_mut(&mut answer.probabilities))?;
    }
    Ok(answer)
}

/// The same without any kernel.
///
/// # Errors
/// As there.
pub fn reference(scores: &[f32], classes: usize, k: usize, probabilities: bool) -> Result<Answer> {
    rows(scores, classes, k)?;
    let mut answer = Answer::default();
    for row in scores.chunks_exact(classes) {
        let order = |score: f32| if score.is_nan() { f32::NEG_INFINITY } else { score };
        let mut places: Vec<usize> = (0..classes).collect();
        places.sort_by(|one, other| order(row[*other]).partial_cmp(&order(row[*one])).expect("no NaN is left"));
        answer.greatest.extend(places[..k].iter().map(|place| row[*place]));
        answer.which.extend(places[..k].iter().map(|place| number(*place)));
        if probabilities {
            let powers: Vec<f32> = row.iter().map(|score| (score - order(row[places[0]])).exp()).collect();
            let sum: f32 = powers.iter().sum();
            answer.probabilities.extend(powers.iter().map(|power| power / sum));
        }
    }
    Ok(answer)
}

fn rows(scores: &[f32], classes: usize, k: usize) -> Result<usize> {
    if k == 0 || k > classes {
        return Err(Error::invalid(format!("the {k} greatest of {classes} classes: there must be 1 to {classes}")));
    }
    Ok(scores.len() / classes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::on_machines;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]

        #[test]
        fn kernels_say_what_the_reference_says(
            (classes, k) in (1..70_usize).prop_flat_map(|classes| (Just(classes), 1..=classes.min(5))),
            rows in 0..4_usize,
            seed in proptest::collection::vec(prop_oneof![8 => -9.0..9.0_f32, 2 => Just(2.0), 1 => Just(f32::NEG_INFINITY)], 70 * 4),
        ) {
            let scores = &seed[..classes * rows];
            let expected = reference(scores, classes, k, true).unwrap();
            on_machines!(machine => {
                let answer = super::classes(machine, scores, classes, k, true).unwrap();
                prop_assert_eq!((&answer.greatest, &answer.which), (&expected.greatest, &expected.which));
                for (one, other) in answer.probabilities.iter().zip(&expected.probabilities) {
                    prop_assert!((one - other).abs() < 1e-6 || (one.is_nan() && other.is_nan()), "{one}, not {other}");
                }
            });
        }
    }

    #[test]
    fn nan_is_less_than_everything_and_too_many_are_refused() {
        let scores = [f32::NAN, 1.0, 3.0, 3.0];
        on_machines!(machine => {
            let answer = super::classes(machine, &scores, 4, 4, false).unwrap();
            assert_eq!((answer.which, answer.probabilities.len()), (vec![2, 3, 1, 0], 0));
            let refused = super::classes(machine, &scores, 4, 5, false).unwrap_err().to_string();
            assert!(refused.contains("the 5 greatest of 4 classes"), "{refused}");
        });
    }
}
