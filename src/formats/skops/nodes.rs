//! What each of skops' nodes stands for.

use super::json::Json;
use super::{Reader, damaged, plain};
use crate::error::{Error, Result};
use crate::formats::graph::{Array, ElementType, Elements, Id, Name, Node, Object, Value};
use crate::formats::{names, npy};
use crate::tensor::Excerpt;

/// Reads a node that has not been seen.
pub fn read(reader: &mut Reader, node: &Json<'_>) -> Result<Id> {
    let loader = node.get("__loader__").and_then(Json::text).ok_or_else(|| damaged("a node's __loader__"))?;
    match loader {
        "JsonNode" => plain::from_text(reader, content(node)?.text().ok_or_else(|| damaged("a JsonNode's content"))?),
        "DictNode" => dict(reader, node),
        "DefaultDictNode" | "_DictWithDeprecatedKeysNode" => reader.node(part(content(node)?, "main")?),
        "ListNode" | "TupleNode" | "SetNode" => {
            let items = items(reader, content(node)?)?;
            let subclass = subclass(node)?;
            reader.push(match (loader, subclass) {
                ("ListNode", None) => Value::List(items),
                ("TupleNode", None) => Value::Tuple(items),
                ("ListNode", Some(class)) => {
                    Value::Object(Box::new(Object { items, ..Object::new(class, Vec::new()) }))
                }
                // A namedtuple's constructor has its elements.
                ("TupleNode", Some(class)) => Value::Object(Box::new(Object::new(class, items))),
                _ => Value::Set(items),
            })
        }
        "BytesNode" | "BytearrayNode" => {
            let bytes = reader.zip.read(file(node)?)?;
            reader.push(Value::Bytes(bytes))
        }
        "TypeNode" => {
            let class = class(node)?;
            name(reader, class)
        }
        "FunctionNode" => function(reader, node),
        "NdArrayNode" => {
            let array = |reader: &mut Reader| array(reader, node).map(Array::into_value);
            if node.get("file").is_some() {
                once(reader, file(node)?, array)
            } else {
                array(reader).and_then(|array| reader.push(array))
            }
        }
        "SparseMatrixNode" => {
            let matrix = |reader: &mut Reader| sparse(reader, node).map(|object| Value::Object(Box::new(object)));
            once(reader, file(node)?, matrix)
        }
        "DTypeNode" => {
            let array = array(reader, content(node)?)?;
            let element = match array.elements {
                Elements::Plain { element, .. } => element,
                Elements::Objects(_) => ElementType::plain(b'O', 8),
            };
            reader.push(Value::ElementType(Box::new(element)))
        }
        _ => {
            let object = object(reader, node, loader)?;
            reader.push(Value::Object(Box::new(object)))
        }
    }
}

/// The value of a member, which is read for the first node that is of it.
fn once(reader: &mut Reader, file: &str, read: impl FnOnce(&mut Reader) -> Result<Value>) -> Result<Id> {
    if let Some(id) = reader.files.get(file) {
        return Ok(*id);
    }
    let value = read(reader)?;
    let id = reader.push(value)?;
    reader.files.insert(file.into(), id);
    Ok(id)
}

/// Nodes that are objects: a class with arguments or a state.
fn object(reader: &mut Reader, node: &Json<'_>, loader: &str) -> Result<Object> {
    let plain = |name: &str, class: &str| Object::new(Name::new(name, class), Vec::new());
    Ok(match loader {
        "ObjectNode" => {
            let state = node.get("content").filter(|content| !matches!(content, Json::Null));
            let state = state.map(|content| reader.node(content)).transpose()?;
            with_state(reader, Object::new(class(node)?, Vec::new()), state)
        }
        "ConstructorFromReduceNode" => Object::new(class(node)?, arguments(reader, content(node)?)?),
        "OperatorFuncNode" => Object::new(class(node)?, arguments(reader, part(node, "attrs")?)?),
        // Trees, losses (of SGD alone in older files): arguments of the constructor, and a state that may be
        // empty.
        "TreeNode" | "LossNode" | "SGDNode" | "QuantileForestNode" => {
            let made = Object::new(class(node)?, arguments(reader, part(part(node, "__reduce__")?, "args")?)?);
            let state = reader.node(content(node)?)?;
            let empty = match reader.graph.value(state) {
                Value::Dict(entries) => entries.is_empty(),
                Value::Tuple(items) => items.is_empty(),
                value => *value == Value::None,
            };
            with_state(reader, made, (!empty).then_some(state))
        }
        "PartialNode" => {
            let parts = content(node)?;
            let mut state = Vec::new();
            for name in ["func", "args", "kwds", "namespace"] {
                state.push(reader.node(part(parts, name)?)?);
            }
            let made = Object::new(Name::new("functools", "partial"), vec![state[0]]);
            let state = reader.push(Value::Tuple(state))?;
            with_state(reader, made, Some(state))
        }
        "SliceNode" => {
            let parts = content(node)?;
            let mut args = Vec::new();
            for name in ["start", "stop", "step"] {
                args.push(plain::value(reader, part(parts, name)?)?);
            }
            Object::new(Name::new("builtins", "slice"), args)
        }
        "MaskedArrayNode" => {
            let parts = content(node)?;
            let mut entries = Vec::new();
            for name in ["data", "mask"] {
                entries.push((reader.text(name)?, reader.node(part(parts, name)?)?));
            }
            let state = reader.push(Value::Dict(entries))?;
            with_state(reader, plain("numpy.ma", "MaskedArray"), Some(state))
        }
        // Random states are named by what a pickle would build them with; their content serves no one.
        "RandomStateNode" => {
            let state = reader.node(content(node)?)?;
            with_state(reader, plain("numpy.random._pickle", "__randomstate_ctor"), Some(state))
        }
        "RandomGeneratorNode" => {
            let generator = part(content(node)?, "bit_generator")?;
            // Protocol 0 has the generator's state as plain JSON.
            let state = if generator.get("__loader__").is_some() {
                reader.node(generator)?
            } else {
                plain::value(reader, generator)?
            };
            with_state(reader, plain("numpy.random._pickle", "__generator_ctor"), Some(state))
        }
        "MethodNode" => {
            return Err(Error::load(format!(
                "{} has a method of an object as attribute, which is code that stoker does not run: convert the model \
                 to ONNX (skl2onnx) and serve that",
                class(node)?
            )));
        }
        "CachedNode" => return Err(damaged("what a CachedNode refers to")),
        _ => return Err(Error::load(format!("a node of type \"{}\", which stoker does not know", Excerpt(loader)))),
    })
}

fn with_state(reader: &Reader, object: Object, state: Option<Id>) -> Object {
    let graph = &reader.graph;
    let state = state.filter(|state| *graph.value(*state) != Value::None);
    let state = state.map(|state| graph.attributes(state));
    Object { state, ..object }
}

fn part<'j, 'a>(json: &'j Json<'a>, name: &str) -> Result<&'j Json<'a>> {
    json.get(name).ok_or_else(|| damaged(&format!("a node's {name}")))
}

fn content<'j, 'a>(node: &'j Json<'a>) -> Result<&'j Json<'a>> {
    part(node, "content")
}

fn file<'j>(node: &'j Json<'_>) -> Result<&'j str> {
    part(node, "file")?.text().ok_or_else(|| damaged("a node's file"))
}

/// The class that a node names, which the table must know.
fn class(node: &Json<'_>) -> Result<Name> {
    let text = |name: &str| part(node, name)?.text().ok_or_else(|| damaged(&format!("a node's {name}")));
    names::resolve(text("__module__")?, text("__class__")?)
}

/// The class of a list, tuple or dict that is more than that.
fn subclass(node: &Json<'_>) -> Result<Option<Name>> {
    let class = class(node)?;
    Ok((!matches!(&*class.module, "builtins" | "collections")).then_some(class))
}

fn name(reader: &mut Reader, class: Name) -> Result<Id> {
    if let Some(id) = reader.names.get(&class) {
        return Ok(*id);
    }
    let id = reader.push(Value::Name(class.clone()))?;
    reader.names.insert(class, id);
    Ok(id)
}

fn function(reader: &mut Reader, node: &Json<'_>) -> Result<Id> {
    let class = match node.get("content") {
        // Protocol 0 named functions in the content.
        Some(content @ Json::Map(_)) => {
            let text = |name: &str| part(content, name)?.text().ok_or_else(|| damaged("a function's name"));
            names::resolve(text("module_path")?, text("function")?)?
        }
        _ => class(node)?,
    };
    name(reader, class)
}

fn items(reader: &mut Reader, list: &Json<'_>) -> Result<Vec<Id>> {
    let Json::List(items) = list else { return Err(damaged("a node's list")) };
    items.iter().map(|item| reader.node(item)).collect()
}

/// A node of a tuple or a list as arguments.
fn arguments(reader: &mut Reader, node: &Json<'_>) -> Result<Vec<Id>> {
    let id = reader.node(node)?;
    match reader.graph.value(id) {
        Value::Tuple(items) | Value::List(items) => Ok(items.clone()),
        _ => Err(damaged("a constructor's arguments")),
    }
}

/// A dict, or an `OrderedDict`: JSON has its keys as text, and their types beside them.
fn dict(reader: &mut Reader, node: &Json<'_>) -> Result<Id> {
    let Json::Map(members) = content(node)? else { return Err(damaged("a dict's content")) };
    let Some(Json::List(types)) = part(node, "key_types")?.get("content") else {
        return Err(damaged("a dict's key_types"));
    };
    if types.len() != members.len() {
        return Err(damaged("a dict's key_types"));
    }
    let mut entries = Vec::with_capacity(members.len());
    for ((key, value), key_type) in members.iter().zip(types) {
        let kind = key_type.get("__class__").and_then(Json::text).unwrap_or_default();
        let key = match kind {
            "str" | "str_" => reader.text(key)?,
            _ => plain::from_text(reader, key)?,
        };
        entries.push((key, reader.node(value)?));
    }
    let value = match subclass(node)? {
        None => Value::Dict(entries),
        // sklearn's Bunch
        Some(class) => Value::Object(Box::new(Object { entries, ..Object::new(class, Vec::new()) })),
    };
    reader.push(value)
}

fn array(reader: &mut Reader, node: &Json<'_>) -> Result<Array> {
    match part(node, "type")?.text() {
        Some("numpy") => npy::read(&reader.zip.read(file(node)?)?),
        Some("json") => {
            let shape = reader.node(part(node, "shape")?)?;
            let shape = reader.graph.node(shape).items()?.map(Node::usize).collect::<Result<Vec<_>>>()?;
            if shape.len() > npy::MAX_DIMENSIONS {
                return Err(damaged("an array's shape"));
            }
            // Of more than one dimension: lists within lists, down to the elements.
            let Json::List(rows) = content(node)? else { return Err(damaged("an array's content")) };
            let mut level: Vec<&Json<'_>> = rows.iter().collect();
            for _ in 1..shape.len() {
                let mut inner = Vec::new();
                for row in level {
                    let Json::List(row) = content(row)? else { return Err(damaged("an array's content")) };
                    inner.extend(row);
                }
                level = inner;
            }
            let items = level.into_iter().map(|item| reader.node(item)).collect::<Result<_>>()?;
            Array::objects(shape, items)
        }
        _ => Err(damaged("an array's type")),
    }
}

/// scipy's `.npz`, a zip archive in the archive. The attributes are named as in the pickle of the matrix.
fn sparse(reader: &mut Reader, node: &Json<'_>) -> Result<Object> {
    let inner = reader.zip.nested(file(node)?)?;
    let mut entries = Vec::new();
    let shape = npy::read(&inner.read("shape.npy")?)?.integers()?;
    let shape = shape.into_iter().map(|size| reader.push(Value::Int(size))).collect::<Result<_>>()?;
    entries.push((reader.text("_shape")?, reader.push(Value::Tuple(shape))?));
    for name in ["data", "indices", "indptr", "row", "col", "offsets"] {
        let Some(bytes) = inner.find(&format!("{name}.npy"))? else { continue };
        let array = npy::read(&bytes)?;
        entries.push((reader.text(name)?, reader.push(Value::Array(Box::new(array)))?));
    }
    let state = reader.push(Value::Dict(entries))?;
    Ok(Object { state: Some(state), ..Object::new(class(node)?, Vec::new()) })
}
