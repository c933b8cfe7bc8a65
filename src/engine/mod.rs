//! From a request to a batch and back: admission, queueing, batching, running, sharing out.
//!
//! [`Engine`] is the only door: both front ends call [`Engine::infer`] and nothing else in here.

pub mod admission;
pub mod batch;
mod core;
pub mod instance;
pub mod queue;
pub mod stack;

pub use self::core::{Engine, Served};
