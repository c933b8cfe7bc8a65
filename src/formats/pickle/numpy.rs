//! numpy's arrays, scalars and element types out of the calls that a pickle makes for them.

use super::store::Store;
use crate::error::{Error, Result};
use crate::formats::graph::{Array, ElementType, Field, Id, Name, Object, Value};
use crate::formats::npy;
use crate::tensor::Excerpt;

/// Carries out numpy's constructors of plain values; `None` for anything else that has numpy's name.
pub fn construct(store: &mut Store, name: &str, args: &[Id]) -> Result<Option<Id>> {
    match (name, args) {
        ("dtype", [what, ..]) => {
            let element = match store.value(*what) {
                Value::Name(class) => class_element(class)?,
                Value::ElementType(_) => store.element_type(*what)?,
                _ => npy::element_type(store.node(*what).text()?)?,
            };
            store.push(Value::ElementType(Box::new(element))).map(Some)
        }
        ("scalar", [element]) => {
            let element = store.element_type(*element)?;
            let data = vec![0; element.size.min(64)].into();
            Array::plain(Vec::new(), false, element, data).and_then(|array| store.array(array)).map(Some)
        }
        ("scalar", [element, data]) => {
            let element = store.element_type(*element)?;
            let array = if element.is_object() {
                Array::objects(Vec::new(), vec![*data])
            } else {
                Array::plain(Vec::new(), false, element, store.raw(*data)?)
            };
            store.array(array?).map(Some)
        }
        // How numpy named its functions of arrays long ago.
        ("_ufunc_reconstruct", [module, name]) => {
            let [module, name] = [module, name].map(|id| store.node(*id).text().map(Box::<str>::from));
            store.name(&module?, &name?).map(Some)
        }
        ("_frombuffer", [buffer, element, shape, order, rest @ ..]) => {
            let data = store.raw(*buffer)?;
            let element = store.element_type(*element)?;
            let mut shape = dimensions(store, *shape)?;
            let fortran = match (store.node(*order).text()?, rest) {
                ("C", _) => false,
                ("F", _) => true,
                // In memory as the shape says, then with its axes in another order.
                ("K", [axes]) if !store.node(*axes).is_none() => {
                    let axes = dimensions(store, *axes)?;
                    if axes.iter().copied().eq(0..shape.len()) {
                        false
                    } else if axes.iter().copied().eq((0..shape.len()).rev()) {
                        shape.reverse();
                        true
                    } else {
                        return Err(Error::load(
                            "an array's axes are in an order that is neither C's nor Fortran's: make it contiguous \
                             (numpy.ascontiguousarray) and save the model again",
                        ));
                    }
                }
                (order, _) => return Err(Error::load(format!("an array of order \"{}\"", Excerpt(order)))),
            };
            Array::plain(shape, fortran, element, data).and_then(|array| store.array(array)).map(Some)
        }
        _ => Ok(None),
    }
}

/// A scalar's class as element type: `numpy.dtype(numpy.float64)`.
fn class_element(class: &Name) -> Result<ElementType> {
    npy::element_type(match &*class.name {
        "float64" | "double" | "float" => "f8",
        "float32" | "single" => "f4",
        "float16" | "half" => "f2",
        "int64" | "int" => "i8",
        "int32" => "i4",
        "int16" => "i2",
        "int8" => "i1",
        "uint64" => "u8",
        "uint32" => "u4",
        "uint16" => "u2",
        "uint8" => "u1",
        "bool" | "bool_" => "b1",
        "object_" | "object" => "O",
        "str_" | "str" => "U",
        "bytes_" | "bytes" => "S",
        // Its size comes with its state.
        "void" | "record" => "V",
        _ => return Err(Error::load(format!("{class} as an element type"))),
    })
}

/// A tuple of counts: a shape, or axes.
pub fn dimensions(store: &Store, shape: Id) -> Result<Vec<usize>> {
    let node = store.node(shape);
    let sizes = match node.value() {
        Value::Int(_) => vec![node],
        _ => node.items()?.collect(),
    };
    if sizes.len() > npy::MAX_DIMENSIONS {
        return Err(Error::load(format!("an array of {} dimensions", sizes.len())));
    }
    sizes.into_iter().map(crate::formats::graph::Node::usize).collect()
}

/// `(version, byte order, subarray, names, fields, size, alignment, flags)`
pub fn build_element_type(store: &mut Store, target: Id, state: Id) -> Result<()> {
    let mut element = store.element_type(target)?;
    let parts = store.items(state)?;
    let [version, order, subarray, _names, fields, size, ..] = parts.as_slice() else {
        return Err(Error::load("a dtype with a state of another version"));
    };
    if !matches!(store.node(*version).int()?, 3 | 4) {
        return Err(Error::load("a dtype with a state of another version"));
    }
    element.big_endian = store.node(*order).text()? == ">";
    if matches!(element.kind, b'V' | b'U' | b'S') {
        // -1 for types of fixed size
        if let Ok(size) = store.node(*size).usize() {
            element.size = size;
        }
    }
    if let Value::Dict(entries) = store.value(*fields) {
        let entries = entries.clone();
        store.charge(size_of_val(entries.as_slice()))?;
        let mut fields = Vec::with_capacity(entries.len());
        for (name, described) in entries {
            // With a title as third element.
            let described = store.items(described)?;
            let [part, offset, ..] = described.as_slice() else {
                return Err(Error::load("a dtype with a damaged field"));
            };
            let name: Box<str> = store.node(name).text()?.into();
            let offset = store.node(*offset).usize()?;
            fields.push(Field { name, offset, element: store.element_type(*part)? });
        }
        fields.sort_by_key(|field| field.offset);
        element = ElementType { big_endian: element.big_endian, ..npy::record(element.size, fields)? };
    } else if !store.node(*subarray).is_none() {
        element = ElementType::plain(b'V', element.size);
    }
    *store.graph.value_mut(target) = Value::ElementType(Box::new(element));
    Ok(())
}

/// `(version, shape, dtype, is fortran, data)`
pub fn build_array(store: &mut Store, target: Id, state: Id) -> Result<()> {
    let parts = store.items(state)?;
    let (shape, element, fortran, data) = match parts.as_slice() {
        [_, shape, element, fortran, data] | [shape, element, fortran, data] => (*shape, *element, *fortran, *data),
        _ => return Err(Error::load("an array with a state of another version")),
    };
    let shape = dimensions(store, shape)?;
    let fortran = store.node(fortran).int()? != 0;
    let element = store.element_type(element)?;
    let array = if element.is_object() {
        Array::objects(shape, store.items(data)?)?
    } else if npy::has_objects(&element) {
        return Err(Error::load("an array of records that hold Python objects"));
    } else {
        Array::plain(shape, fortran, element, store.raw(data)?)?
    };
    *store.graph.value_mut(target) = array.into_value();
    Ok(())
}

/// A masked array becomes an object with `data` and `mask`:
/// `(version, shape, dtype, is fortran, data, mask, fill value)`.
pub fn build_masked(store: &mut Store, target: Id, state: Id) -> Result<()> {
    let parts = store.items(state)?;
    let [_, shape, element, fortran, data, mask, ..] = *parts.as_slice() else {
        return Err(Error::load("a masked array with a state of another version"));
    };
    let shape = dimensions(store, shape)?;
    let fortran = store.node(fortran).int()? != 0;
    let element = store.element_type(element)?;
    let data = match store.value(data) {
        Value::List(_) => Array::objects(shape.clone(), store.items(data)?)?,
        _ => Array::plain(shape.clone(), fortran, element, store.raw(data)?)?,
    };
    let mask = Array::plain(shape, fortran, ElementType::plain(b'b', 1), store.raw(mask)?)?;
    let mut entries = Vec::new();
    for (name, array) in [("data", data), ("mask", mask)] {
        let name = store.push(Value::Text(name.into()))?;
        entries.push((name, store.array(array)?));
    }
    let state = store.push(Value::Dict(entries))?;
    let object = Object { state: Some(state), ..Object::new(Name::new("numpy.ma", "MaskedArray"), Vec::new()) };
    *store.graph.value_mut(target) = Value::Object(Box::new(object));
    Ok(())
}
