//! From a `storageUri` to a model that is ready: [`loader`] drives it through the states of [`state`], and
//! [`catalog`] is where requests find it.

pub mod catalog;
pub mod loader;
pub mod state;
pub mod warmup;
