//! From a request to a batch and back: admission, queueing, batching, running, sharing out.
//!
//! [`Engine`] is the only door: both front ends call [`Engine::infer`] and nothing else in here.
//!
//! What runs when is decided by what batches have taken so far ([`times`]), not by a timer:
//! - a request whose answer would come after its deadline is refused when it comes, with the time after which it would not
//!   ([`batch`], `outlook`); one that waits and no longer can be in time is answered without being run;
//! - a free worker runs at once what waits, as many rows as get most done in a second. Batches grow by themselves when
//!   requests come faster than they are answered. When deadlines do not allow that, the batch that answers most of them in
//!   time is taken ([`choice`]);
//! - requests of other shapes wait in other lines, those of other tenants take turns ([`line`], [`shares`]); rows of
//!   other lengths are filled up where that is right and takes less than a batch of their own ([`joining`],
//!   [`padding`], [`ragged`]);
//! - instances that share what not all can have at once take turns ([`resources`], [`limiter`]);
//! - everything that waits is bounded ([`policy`], [`admission`]).

pub mod admission;
pub mod batch;
mod choice;
mod core;
mod demand;
pub mod instance;
pub mod joining;
pub mod limiter;
mod line;
pub mod padding;
pub mod policy;
pub mod queue;
pub mod ragged;
pub mod resources;
mod shares;
pub mod stack;
mod times;

pub use self::core::{Engine, Served, Terms};

#[allow(clippy::cast_precision_loss)] // rows, jobs and tenants are few
fn as_f64(count: usize) -> f64 {
    count as f64
}
