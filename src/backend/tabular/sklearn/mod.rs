//! scikit-learn's estimators, one file a family: how each is read from its attributes and what it computes, side by
//! side. Versions 1.0 to 1.9.

pub mod compose;
pub mod linear;
pub mod read;
pub mod scale;
pub mod trees;
