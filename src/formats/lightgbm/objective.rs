//! What lightgbm's objectives make of scores.

use crate::error::{Error, Result};
use crate::tensor::Excerpt;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// `regression`, also `regression_l1`, `fair`, `quantile`, `mape`; with `sqrt`, the model is of the target's root.
    Regression {
        sqrt: bool,
    },
    /// It never is of a root.
    Huber,
    /// `poisson`, `gamma`, `tweedie`.
    Log,
    Binary {
        sigmoid: f64,
    },
    Multiclass {
        classes: usize,
    },
    MulticlassOva {
        classes: usize,
        sigmoid: f64,
    },
    CrossEntropy,
    CrossEntropyLambda,
    /// `lambdarank`, `rank_xendcg`.
    Rank,
}

impl Objective {
    /// Reads `binary sigmoid:1`; nothing for `custom`.
    pub(super) fn parse(text: &str) -> Result<Option<Objective>> {
        let mut words = text.split_ascii_whitespace();
        let name = words.next().unwrap_or_default();
        let words: Vec<&str> = words.collect();
        let value = |key: &str| words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix(':'));
        let wrong = |what: &str| Error::load(format!("the objective \"{}\" needs {what}", Excerpt(text)));
        let sigmoid = || {
            let sigmoid = value("sigmoid").and_then(|text| text.parse::<f64>().ok());
            sigmoid.filter(|sigmoid| *sigmoid > 0.0).ok_or_else(|| wrong("a sigmoid greater than 0"))
        };
        let classes = || {
            let classes = value("num_class").and_then(|text| text.parse::<usize>().ok());
            classes.ok_or_else(|| wrong("num_class"))
        };
        Ok(Some(match name {
            "regression"
            | "regression_l2"
            | "mean_squared_error"
            | "mse"
            | "l2"
            | "l2_root"
            | "root_mean_squared_error"
            | "rmse"
            | "regression_l1"
            | "mean_absolute_error"
            | "l1"
            | "mae"
            | "fair"
            | "quantile"
            | "mape"
            | "mean_absolute_percentage_error" => Objective::Regression { sqrt: words.contains(&"sqrt") },
            "huber" => Objective::Huber,
            "poisson" | "gamma" | "tweedie" => Objective::Log,
            "binary" => Objective::Binary { sigmoid: sigmoid()? },
            "multiclass" | "softmax" => Objective::Multiclass { classes: classes()? },
            "multiclassova" | "multiclass_ova" | "ova" | "ovr" => {
                Objective::MulticlassOva { classes: classes()?, sigmoid: sigmoid()? }
            }
            "cross_entropy" | "xentropy" => Objective::CrossEntropy,
            "cross_entropy_lambda" | "xentlambda" => Objective::CrossEntropyLambda,
            "lambdarank" | "rank_xendcg" | "xendcg" | "xe_ndcg" | "xe_ndcg_mart" | "xendcg_mart" => Objective::Rank,
            "custom" | "none" | "null" | "na" | "" => return Ok(None),
            _ => {
                return Err(Error::load(format!(
                    "the objective \"{}\" is not one of lightgbm's that stoker knows",
                    Excerpt(name)
                )));
            }
        }))
    }

    /// Scores per row that it needs, when that is more than one.
    pub(super) fn classes(self) -> Option<usize> {
        match self {
            Objective::Multiclass { classes } | Objective::MulticlassOva { classes, .. } => Some(classes),
            _ => None,
        }
    }

    /// Turns the scores of one row into predictions in place.
    pub fn apply(self, row: &mut [f64]) {
        let each = |row: &mut [f64], what: &dyn Fn(f64) -> f64| row.iter_mut().for_each(|score| *score = what(*score));
        match self {
            Objective::Regression { sqrt: false } | Objective::Huber | Objective::Rank => {}
            Objective::Regression { sqrt: true } => each(row, &|score| sign(score) * score * score),
            Objective::Log => each(row, &f64::exp),
            Objective::Binary { sigmoid } | Objective::MulticlassOva { sigmoid, .. } => {
                each(row, &|score| 1.0 / (1.0 + (-sigmoid * score).exp()));
            }
            Objective::CrossEntropy => each(row, &|score| 1.0 / (1.0 + (-score).exp())),
            Objective::CrossEntropyLambda => each(row, &|score| score.exp().ln_1p()),
            Objective::Multiclass { .. } => {
                let greatest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                each(row, &|score| (score - greatest).exp());
                let sum: f64 = row.iter().fold(0.0, |sum, score| sum + score);
                each(row, &|score| score / sum);
            }
        }
    }
}

fn sign(score: f64) -> f64 {
    f64::from(i8::from(score > 0.0) - i8::from(score < 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read() {
        let parse = |text| Objective::parse(text).unwrap();
        assert_eq!(parse("binary sigmoid:0.7"), Some(Objective::Binary { sigmoid: 0.7 }));
        assert_eq!(parse("multiclassova num_class:3 sigmoid:2").unwrap().classes(), Some(3));
        assert_eq!(parse("quantile sqrt"), Some(Objective::Regression { sqrt: true }));
        assert_eq!(parse("huber sqrt"), Some(Objective::Huber));
        assert_eq!(parse("custom"), None);
        for wrong in ["binary", "binary sigmoid:-1", "multiclass", "multiclass num_class:x", "cox"] {
            assert!(Objective::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn extremes() {
        let apply = |objective: Objective, mut row: Vec<f64>| {
            objective.apply(&mut row);
            row
        };
        assert_eq!(apply(Objective::Multiclass { classes: 2 }, vec![1e300, 1e300]), [0.5, 0.5]);
        assert_eq!(apply(Objective::Regression { sqrt: true }, vec![-3.0]), [-9.0]);
        assert_eq!(apply(Objective::Binary { sigmoid: 1.0 }, vec![-1e300, 1e300]), [0.0, 1.0]);
    }
}
