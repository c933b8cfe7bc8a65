//! Pickles, and joblib's files, which are pickles with raw arrays in between: from bytes to inert values.
//!
//! A pickle is a program for a machine with a stack. It is run here with one difference: where Python would import
//! and call, a value is made that says what would have been called with what. Only constructors of plain data
//! (arrays, dicts and the like, [`construct`]) are carried out, by code of our own.

use crate::content::Content;
use crate::error::{Error, Result};
use crate::formats::detect::HEAD_BYTES;
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
pub fn read(content: impl Into<Content>) -> Result<(Graph, Id)> {
    let content = content.into();
    let compressed = content.len();
    let content = compression::unpack(content)?;
    let counted = compression::counted(compressed, content.len());
    mistakes::check_pickle(content.upto(HEAD_BYTES))?;
    let mut store = store::Store::new(content.clone(), counted)?;
    let root = machine::run(&mut store, 0).map_err(|error| match store.input.position() {
        at if mistakes::is_prose(content.all(), at) => {
            Error::load("this is a text file, not a pickle: save the model with joblib.dump")
        }
        at => error.context(format_args!("byte {at}")),
    })?;
    Ok((store.graph, root))
}
