//! Pickles, and joblib's files, which are pickles with raw arrays in between: from bytes to inert values.
//!
//! A pickle is a program for a machine with a stack. It is run here with one difference: where Python would import
//! and call, a value is made that says what would have been called with what. Only constructors of plain data
//! (arrays, dicts and the like, [`construct`]) are carried out, by code of our own.

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::formats::graph::{Graph, Id};
use crate::formats::{compression, mistakes};

mod construct;
mod input;
mod joblib;
pub(super) mod literal;
mod machine;
mod numpy;
mod store;

/// Reads a `.pkl`, `.pickle` or `.joblib` file, compressed or not.
///
/// # Errors
/// [`Kind::Load`](crate::error::Kind::Load) when it is damaged, or names a class that no model has.
pub fn read(bytes: Bytes) -> Result<(Graph, Id)> {
    let compressed = bytes.len();
    let bytes = compression::unpack(bytes)?;
    let counted = compression::counted(compressed, bytes.len());
    mistakes::check_pickle(&bytes)?;
    let mut store = store::Store::new(bytes.clone(), counted)?;
    let root = machine::run(&mut store, 0).map_err(|error| match store.input.position() {
        at if mistakes::is_prose(&bytes, at) => {
            Error::load("this is a text file, not a pickle: save the model with joblib.dump")
        }
        at => error.context(format_args!("byte {at}")),
    })?;
    Ok((store.graph, root))
}
