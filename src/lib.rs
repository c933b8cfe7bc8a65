//! stoker: an inference server that runs as the predictor of a KServe InferenceService.
//!
//! # One prediction
//!
//! ```text
//! bytes in   server          body capped and counted, media type and deadline read
//!   -> protocol::{v1,v2,grpc}::decode     InferRequest, and the form the answer goes back in
//!   -> engine::Engine::infer              signature check (names, dtypes, shapes), output selection
//!   -> engine::queue + engine::batch      waits its turn; skipped when its caller is gone or it is too late
//!   -> engine::instance                   stack::join -> backend::Model::run -> stack::split, on the model's worker
//!   -> protocol::{v1,v2,grpc}::encode -> bytes out
//! ```
//!
//! V1 and V2 share everything but decode and encode; REST and gRPC share everything from `InferRequest` inward, and
//! the error table in [`error`].
//!
//! # One model load
//!
//! ```text
//! storageUri -> source::uri::parse -> source::open -> Source::manifest -> source::cache (source::transfer, atomic rename)
//!   -> formats::detect -> model::site (model::placement) -> Backend::load -> warm-up batches -> catalog -> Ready
//! ```
//!
//! The second line begins while the first goes on ([`model::early`], [`content`]): models that are computed here are read
//! as they come, and ONNX Runtime is loaded meanwhile.
//!
//! ONNX models are run by ONNX Runtime (`backend::onnx`). Models of scikit-learn, xgboost and lightgbm are read as
//! inert data and computed here ([`backend::tabular`]): `formats::{pickle, skops, xgboost, lightgbm}` ->
//! `backend::tabular::registry` (which class is built how) -> estimators, whose trees share one engine
//! (`backend::tabular::forest`).
//!
//! [`model::fleet`] has a task for each model, [`model::loader`] drives its load; each step is a [`model::state::State`], a timed metric and part of one log line.
//!
//! # The rooms
//!
//! In flow order below. Pure modules decide and are tested without a runtime; shells act and are thin;
//! `tests/tidy.rs` holds the line. Two things are not as one might expect. The queue is a lock around the pure batcher
//! from which free workers *pull*, so a batch is put together when its worker is free, not before. And a model that
//! takes microseconds computes inside the runtime, since handing it over would cost more ([`device::worker`]). A model that
//! may crash, hang or exhaust memory can be put into a process of its own, which is begun anew ([`device::process`]).

pub mod serve;
pub mod worker;
pub mod inspect;
pub mod pin;
pub mod pull;
pub mod bench;
pub mod devices;
pub mod doctor;
pub mod place;
pub mod app;
pub mod config;
pub mod error;
pub mod tensor;
pub mod content;
pub mod infer;
pub mod server;
pub mod protocol;
pub mod engine;
pub mod model;
pub mod source;
pub mod formats;
pub mod backend;
pub mod device;
pub mod kernels;
pub mod telemetry;
pub mod text;
