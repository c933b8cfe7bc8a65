//! Models that are computed here: trees, linear models and their kin, from the files of scikit-learn, xgboost and
//! lightgbm.

// Numeric code: conversions and exact comparisons are meant, and the kernels' pieces must be inlined.
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
#![allow(clippy::float_cmp, clippy::inline_always, clippy::many_single_char_names)]
#![allow(clippy::manual_midpoint, clippy::needless_for_each)]

pub mod data;
pub mod estimator;
pub mod forest;
pub mod labels;
pub mod registry;
pub mod sklearn;
