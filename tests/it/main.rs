//! Integration tests: the whole server, booted in this process on a free port, asked over real sockets.
//!
//! One binary, because every binary would link the whole dependency tree again.

// Numbers in tests are small and exact.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::float_cmp,
    clippy::large_stack_arrays
)]

mod arriving;
mod attributes;
mod batching;
mod deadlines;
mod describe;
mod devices;
mod estimators;
mod golden;
mod hostile;
mod hostile_files;
mod hostile_models;
mod lifecycle;
mod limits;
mod overload;
mod phases;
mod place;
mod processes;
mod scheduling;
mod simulation;
mod support;
mod tabular;
mod virtual_time;
mod wide;
