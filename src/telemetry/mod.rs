//! What an operator sees: metrics, logs, and the thread that ties a request to both.

mod exposition;
pub mod devices;
pub mod loads;
pub mod log;
pub mod metrics;
mod process;
pub mod trace;
