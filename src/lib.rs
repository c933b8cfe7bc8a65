//! stoker: an inference server that runs as the predictor of a KServe InferenceService.
//!
//! # One prediction
//!
//! ```text
//! bytes in   server          body capped and counted, media type and deadline read
//!   -> protocol::{v1,v2,grpc}::decode     InferRequest, and the form the answer goes back in
//!   -> engine::Engine::infer              signature check (names, dtypes, shapes), output selection
//!   -> engine::queue + engine::batch      waits its turn; skipped when its caller is gone or it is too late
//!   -> engine::instance                   stack::join -> backend::Model::run -> stack::split, on the model's thread
//!   -> protocol::{v1,v2,grpc}::encode -> bytes out
//! ```
//!
//! V1 and V2 share everything but decode and encode; REST and gRPC share everything from `InferRequest` inward, and
//! the error table in [`error`].
//!
//! # One model load
//!
//! ```text
//! storageUri -> source::uri::parse -> Source::manifest -> source::fetch (atomic rename)
//!   -> formats::detect -> Backend::load -> warm-up batches -> catalog -> Ready
//! ```
//!
//! [`model::loader`] drives it; each step is a [`model::state::State`], a timed metric and part of one log line.
//!
//! # The rooms, in flow order
//!
//! Pure modules decide and are tested without a runtime; shells act and are thin. `tests/tidy.rs` holds the line.
//! The queue is a lock around the pure batcher from which free workers *pull*: a batch is put together when its
//! worker is free, not before, and there is no task in between to wake.

pub mod app;
pub mod backend;
pub mod config;
pub mod device;
pub mod engine;
pub mod error;
pub mod formats;
pub mod infer;
pub mod inspect;
pub mod model;
pub mod protocol;
pub mod serve;
pub mod server;
pub mod source;
pub mod telemetry;
pub mod tensor;
