//! joblib's arrays: in place of each the pickle has a wrapper, after whose BUILD the raw bytes lie in the stream.

use super::machine;
use super::numpy::dimensions;
use super::store::Store;
use crate::error::{Error, Result};
use crate::formats::graph::{Array, Id, Value};
use crate::formats::npy;

/// The array behind a wrapper that has just got its state.
pub fn read_array(store: &mut Store, wrapper: Id, depth: usize) -> Result<Value> {
    store.input.leave_frame()?;
    let node = store.node(wrapper);
    let (shape, element) = (node.attr("shape")?.id(), node.attr("dtype")?.id());
    let fortran = node.read("order", |order| order.text().map(|order| order == "F"))?;
    // joblib since 1.1 pads, so that the file can be mapped into memory; the padding's length comes first.
    let padded = node.some("numpy_array_alignment_bytes").is_some();
    let shape = dimensions(store, shape)?;
    let element = store.element_type(element)?;
    if npy::has_objects(&element) {
        let nested = machine::run(store, depth + 1)?;
        // The wrapper's number stands for the array from here on.
        let value = std::mem::replace(store.graph.value_mut(nested), Value::None);
        return if matches!(value, Value::Array(_)) { Ok(value) } else { Err(store.node(nested).expected("an array")) };
    }
    if padded {
        let padding = store.input.length::<1>()?;
        store.input.take(padding)?;
    }
    let size = shape.iter().try_fold(element.size, |product, size| product.checked_mul(*size));
    let size = size.ok_or_else(|| Error::load(format!("an array of shape {shape:?}")))?;
    let data = store.input.take(size)?;
    Array::plain(shape, fortran, element, data).map(Array::into_value)
}
