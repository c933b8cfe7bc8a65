//! Bytes to and from [`crate::infer`], and nothing else: no sockets, no models, no clock.
//!
//! V1 and V2 over REST share `envelope` and [`json`]; gRPC has its generated messages in [`open_inference`], and [`wire`] to
//! count them before they are decoded. Which path means
//! what is one screen in [`route`].

mod envelope;
pub mod grpc;
pub mod json;
mod objects;
mod rows;
#[rustfmt::skip]
#[allow(clippy::all, clippy::pedantic, missing_docs)]
pub mod open_inference;
pub mod route;
pub mod v1;
pub mod v2;
pub mod wire;
