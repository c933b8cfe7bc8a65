//! What xgboost's objectives make of margins. Losses matter to training only, so that all of them share six ways.

use crate::error::{Error, Result};
use crate::tensor::Excerpt;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Objective {
    /// As in xgboost's parameters, `binary:logistic`.
    pub name: String,
    pub transform: Transform,
    link: Link,
}

/// From margins to predictions, of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transform {
    Identity,
    Sigmoid,
    Exp,
    /// 1 when positive, otherwise 0 (`binary:hinge`).
    Step,
    Softmax,
    /// The first greatest margin's index, in place of all margins (`multi:softmax`).
    Argmax,
}

/// From a base score to a margin; not always the transform's inverse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Link {
    Identity,
    Logit,
    Log,
}

impl Objective {
    pub(super) fn named(name: &str) -> Result<Objective> {
        let (transform, link) = match name {
            "reg:squarederror"
            | "reg:linear"
            | "reg:squaredlogerror"
            | "reg:pseudohubererror"
            | "reg:absoluteerror"
            | "reg:quantileerror"
            | "binary:logitraw"
            | "rank:pairwise"
            | "rank:ndcg"
            | "rank:map" => (Transform::Identity, Link::Identity),
            "reg:logistic" | "binary:logistic" => (Transform::Sigmoid, Link::Logit),
            "reg:gamma" | "reg:tweedie" | "count:poisson" | "survival:cox" | "survival:aft" => {
                (Transform::Exp, Link::Log)
            }
            "binary:hinge" => (Transform::Step, Link::Identity),
            "multi:softprob" => (Transform::Softmax, Link::Identity),
            "multi:softmax" => (Transform::Argmax, Link::Identity),
            _ => {
                return Err(Error::load(format!(
                    "the objective \"{}\" is not one of xgboost's that stoker knows",
                    Excerpt(name)
                )));
            }
        };
        Ok(Objective { name: name.to_owned(), transform, link })
    }

    /// Where the margin begins for a base score.
    pub fn margin(&self, base_score: f32) -> f32 {
        const EPSILON: f32 = 1e-6;
        match self.link {
            Link::Identity => base_score,
            Link::Logit => -(1.0 / base_score.clamp(EPSILON, 1.0 - EPSILON) - 1.0).ln(),
            Link::Log => base_score.ln(),
        }
    }
}

impl Transform {
    /// Predictions per row for this many margins.
    pub fn outputs(self, margins: usize) -> usize {
        if self == Transform::Argmax { 1 } else { margins }
    }

    /// Turns the margins of one row into predictions in place, of which there are then [`Transform::outputs`].
    pub fn apply(self, row: &mut [f32]) {
        match self {
            Transform::Identity => {}
            Transform::Sigmoid => row.iter_mut().for_each(|value| *value = sigmoid(*value)),
            Transform::Exp => row.iter_mut().for_each(|value| *value = value.exp()),
            Transform::Step => row.iter_mut().for_each(|value| *value = f32::from(u8::from(*value > 0.0))),
            Transform::Softmax => softmax(row),
            Transform::Argmax => {
                let mut best = 0;
                for (index, value) in row.iter().enumerate() {
                    if *value > row[best] {
                        best = index;
                    }
                }
                #[allow(clippy::cast_precision_loss)] // the library's answer is a float, too
                if let Some(first) = row.first_mut() {
                    *first = best as f32;
                }
            }
        }
    }
}

/// The bound keeps `exp` finite. NaN stays NaN.
fn sigmoid(margin: f32) -> f32 {
    const BOUND: f32 = 88.7;
    const EPSILON: f32 = 1e-16;
    let power = if BOUND < -margin { BOUND } else { -margin };
    1.0 / (power.exp() + 1.0 + EPSILON)
}

/// The sum is an `f64`, rounded once to divide by.
#[allow(clippy::cast_possible_truncation)]
fn softmax(row: &mut [f32]) {
    let greatest = row.iter().copied().fold(f32::NAN, f32::max);
    let mut sum = 0.0_f64;
    for value in row.iter_mut() {
        *value = (*value - greatest).exp();
        sum += f64::from(*value);
    }
    for value in row {
        *value /= sum as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes() {
        let apply = |transform: Transform, row: &[f32]| {
            let mut row = row.to_vec();
            transform.apply(&mut row);
            row.truncate(transform.outputs(row.len()));
            row
        };
        let sigmoids = apply(Transform::Sigmoid, &[-1e30, 0.0, 1e30, f32::INFINITY]);
        assert!(sigmoids[0] > 0.0 && sigmoids[0] < 1e-38);
        assert_eq!(sigmoids[1..], [0.5, 1.0, 1.0]);
        assert!(apply(Transform::Sigmoid, &[f32::NAN])[0].is_nan());
        assert_eq!(apply(Transform::Step, &[-0.0, 1e-40, f32::NAN]), [0.0, 1.0, 0.0]);
        assert_eq!(apply(Transform::Argmax, &[1.0, 3.0, 3.0]), [1.0]);
        assert_eq!(apply(Transform::Softmax, &[1e30, 1e30, -1e30]), [0.5, 0.5, 0.0]);
        assert!(Objective::named("reg:logistic").unwrap().margin(0.5).abs() < f32::MIN_POSITIVE);
        assert!(Objective::named("reg:logistic").unwrap().margin(0.0).is_finite());
    }

    #[test]
    fn unknown_objectives_are_named() {
        let error = Objective::named(&"x".repeat(100)).unwrap_err();
        assert!(error.message().contains("xxx") && error.message().len() < 150, "{error}");
    }
}
