//! What a pickle or a skops file says, as inert data: Python's plain values, numpy's arrays, and objects that are
//! nothing but a class name with constructor arguments and a state. Nothing here can be called.
//!
//! Values refer to each other by number, as a pickle's memo does, so they may share and even contain themselves:
//! whoever walks down a graph bounds its own depth.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::tensor::Excerpt;

pub mod array;

pub use array::{Array, ElementType, Elements, Field, Numbers};

/// Place of a value in its [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id(pub u32);

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits, little-endian two's complement.
    BigInt(Bytes),
    Float(f64),
    Text(Box<str>),
    Bytes(Bytes),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Set(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or a function, by name only.
    Name(Name),
    Object(Box<Object>),
    Array(Box<Array>),
    ElementType(Box<ElementType>),
}

impl Value {
    /// In Python's words, for error messages.
    fn kind(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool(_) => "a bool",
            Value::Int(_) | Value::BigInt(_) => "an int",
            Value::Float(_) => "a float",
            Value::Text(_) => "a str",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "a list",
            Value::Tuple(_) => "a tuple",
            Value::Set(_) => "a set",
            Value::Dict(_) => "a dict",
            Value::Name(_) => "a class",
            Value::Object(_) => "an object",
            Value::Array(_) => "an array",
            Value::ElementType(_) => "a dtype",
        }
    }
}

/// `sklearn.linear_model._base` and `LinearRegression`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    // Shared, as every object has its class's.
    pub module: Arc<str>,
    pub name: Arc<str>,
}

impl Name {
    pub fn new(module: &str, name: &str) -> Name {
        Name { module: module.into(), name: name.into() }
    }

    /// The library: `sklearn`.
    pub fn package(&self) -> &str {
        self.module.split('.').next().unwrap_or_default()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", Excerpt(&self.module), Excerpt(&self.name))
    }
}

/// An instance, or the outcome of a call that was not made.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// The class, or the function that would have built it.
    pub class: Name,
    /// What the constructor or function would have been given.
    pub args: Vec<Id>,
    /// What `__setstate__` would have been given; mostly the attributes as a dict.
    pub state: Option<Id>,
    /// Elements appended, for subclasses of list.
    pub items: Vec<Id>,
    /// Items set, for subclasses of dict.
    pub entries: Vec<(Id, Id)>,
}

impl Object {
    pub fn new(class: Name, args: Vec<Id>) -> Object {
        Object { class, args, state: None, items: Vec::new(), entries: Vec::new() }
    }
}

/// All values of one file.
#[derive(Debug, Default)]
pub struct Graph {
    values: Vec<Value>,
}

/// More values than any model we serve has; with some 50 bytes each, a bound on what a hostile file can take.
pub const MAX_VALUES: usize = 1 << 25;

impl Graph {
    /// # Errors
    /// When there are more than [`MAX_VALUES`].
    pub fn push(&mut self, value: Value) -> Result<Id> {
        if self.values.len() >= MAX_VALUES {
            return Err(Error::load(format!("more than {MAX_VALUES} values")));
        }
        self.values.push(value);
        #[allow(clippy::cast_possible_truncation)] // bounded by MAX_VALUES
        Ok(Id(self.values.len() as u32 - 1))
    }

    pub fn value(&self, id: Id) -> &Value {
        &self.values[id.0 as usize]
    }

    pub fn value_mut(&mut self, id: Id) -> &mut Value {
        &mut self.values[id.0 as usize]
    }

    pub fn node(&self, id: Id) -> Node<'_> {
        Node { graph: self, id }
    }

    /// The dict of attributes in a state: a class with slots has `(None, {...})`.
    pub fn attributes(&self, state: Id) -> Id {
        match self.value(state) {
            Value::Tuple(parts) => match parts.as_slice() {
                [first, second]
                    if matches!((self.value(*first), self.value(*second)), (Value::None, Value::Dict(_))) =>
                {
                    *second
                }
                _ => state,
            },
            _ => state,
        }
    }

    /// Every value, in the order in which they were read.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        #[allow(clippy::cast_possible_truncation)] // bounded by MAX_VALUES
        (0..self.values.len() as u32).map(|id| self.node(Id(id)))
    }
}

/// A list may name the same long value a million times with a few bytes each. Long rows of numbers are arrays, and a
/// million categories have some 40 bytes each.
const MAX_LISTED_NUMBERS: usize = 1 << 22;
const MAX_LISTED_TEXT: usize = 1 << 27;

fn repeated() -> Error {
    Error::load("a list repeats long values: this is not a model")
}

/// Copies texts, up to a bound.
fn own<'g>(items: impl Iterator<Item = Node<'g>>) -> Result<Vec<String>> {
    let mut total = 0;
    let texts = items.map(|item| {
        let text = item.text()?;
        total += text.len();
        if total > MAX_LISTED_TEXT { Err(repeated()) } else { Ok(text.to_owned()) }
    });
    texts.collect()
}

/// One value, seen together with those it refers to. Getters fail with what was expected and what is there; callers
/// add the attribute's name.
#[derive(Clone, Copy)]
pub struct Node<'g> {
    graph: &'g Graph,
    id: Id,
}

impl<'g> Node<'g> {
    pub fn value(self) -> &'g Value {
        self.graph.value(self.id)
    }

    pub fn id(self) -> Id {
        self.id
    }

    #[must_use]
    pub fn at(self, id: Id) -> Node<'g> {
        Node { graph: self.graph, id }
    }

    pub fn is_none(self) -> bool {
        matches!(self.value(), Value::None)
    }

    pub fn expected(self, what: &str) -> Error {
        let class = self.class().map(|class| format!(" of {class}")).unwrap_or_default();
        Error::load(format!("expected {what}, got {}{class}", self.value().kind()))
    }

    /// The class of an object.
    pub fn class(self) -> Option<&'g Name> {
        match self.value() {
            Value::Object(object) => Some(&object.class),
            _ => None,
        }
    }

    pub fn object(self) -> Result<&'g Object> {
        match self.value() {
            Value::Object(object) => Ok(object),
            _ => Err(self.expected("an object")),
        }
    }

    /// An attribute (or, for a dict, the entry of that name) when it is there; it may be None.
    pub fn find(self, name: &str) -> Option<Node<'g>> {
        let named = |entries: &'g [(Id, Id)]| {
            let found =
                entries.iter().find(|(key, _)| matches!(self.graph.value(*key), Value::Text(key) if **key == *name));
            found.map(|(_, value)| self.at(*value))
        };
        match self.value() {
            Value::Dict(entries) => named(entries),
            Value::Object(object) => match object.state.map(|state| self.graph.value(state)) {
                Some(Value::Dict(state)) => named(state).or_else(|| named(&object.entries)),
                _ => named(&object.entries),
            },
            _ => None,
        }
    }

    /// An attribute that must be there; it may be None.
    pub fn attr(self, name: &str) -> Result<Node<'g>> {
        self.find(name).ok_or_else(|| {
            let fitted = if name.ends_with('_') { " (is the model fitted?)" } else { "" };
            Error::load(format!("attribute \"{name}\" is missing{fitted}"))
        })
    }

    /// An attribute that is there and not None.
    pub fn some(self, name: &str) -> Option<Node<'g>> {
        self.find(name).filter(|value| !value.is_none())
    }

    /// Reads an attribute and puts its name in front of what goes wrong.
    pub fn read<T>(self, name: &str, read: impl FnOnce(Node<'g>) -> Result<T>) -> Result<T> {
        read(self.attr(name)?).map_err(|error| error.context(name))
    }

    /// As [`Node::read`], `None` when the attribute is absent or None.
    pub fn read_some<T>(self, name: &str, read: impl FnOnce(Node<'g>) -> Result<T>) -> Result<Option<T>> {
        self.some(name).map(read).transpose().map_err(|error| error.context(name))
    }

    pub fn bool(self) -> Result<bool> {
        match self.value() {
            Value::Bool(value) => Ok(*value),
            Value::Array(array) if array.is_scalar() => Ok(array.numbers()?.values[0] != 0.0),
            _ => Err(self.expected("a bool")),
        }
    }

    pub fn int(self) -> Result<i64> {
        match self.value() {
            Value::Int(value) => Ok(*value),
            Value::Bool(value) => Ok(i64::from(*value)),
            Value::Array(array) if array.is_scalar() => array.integers().map(|values| values[0]),
            _ => Err(self.expected("an int")),
        }
    }

    pub fn usize(self) -> Result<usize> {
        let value = self.int()?;
        usize::try_from(value).map_err(|_| Error::load(format!("expected a count, got {value}")))
    }

    pub fn float(self) -> Result<f64> {
        #[allow(clippy::cast_precision_loss)] // as Python's float()
        match self.value() {
            Value::Float(value) => Ok(*value),
            Value::Int(value) => Ok(*value as f64),
            Value::Bool(value) => Ok(f64::from(u8::from(*value))),
            Value::Array(array) if array.shape.iter().product::<usize>() == 1 => Ok(array.numbers()?.values[0]),
            _ => Err(self.expected("a float")),
        }
    }

    pub fn text(self) -> Result<&'g str> {
        match self.value() {
            Value::Text(text) => Ok(text),
            Value::Array(array) if array.is_scalar() => match &array.elements {
                Elements::Objects(items) => self.at(items[0]).text(),
                Elements::Plain { .. } => Err(self.expected("a str")),
            },
            _ => Err(self.expected("a str")),
        }
    }

    /// Elements of a list, a tuple, a set or a one-dimensional array of objects.
    pub fn items(self) -> Result<impl ExactSizeIterator<Item = Node<'g>>> {
        let items = match self.value() {
            Value::List(items) | Value::Tuple(items) | Value::Set(items) => items,
            Value::Array(array) => match &array.elements {
                Elements::Objects(items) => items,
                Elements::Plain { .. } => return Err(self.expected("a list")),
            },
            Value::Object(object) if !object.items.is_empty() => &object.items,
            _ => return Err(self.expected("a list")),
        };
        Ok(items.iter().map(move |id| self.at(*id)))
    }

    /// A list or an array of texts.
    pub fn texts(self) -> Result<Vec<String>> {
        match self.value() {
            Value::Array(array) => match &array.elements {
                Elements::Plain { .. } => array.texts(),
                Elements::Objects(_) => self.items().and_then(own),
            },
            _ => self.items().and_then(own),
        }
    }

    /// A tuple or list of exactly `N` elements.
    pub fn tuple<const N: usize>(self) -> Result<[Node<'g>; N]> {
        let items: Vec<Node<'g>> = self.items()?.collect();
        let got = items.len();
        items.try_into().map_err(|_| Error::load(format!("expected {N} elements, got {got}")))
    }

    /// Keys and values of a dict or an object that is one.
    pub fn entries(self) -> Result<impl ExactSizeIterator<Item = (Node<'g>, Node<'g>)>> {
        let entries = match self.value() {
            Value::Dict(entries) => entries,
            Value::Object(object) => &object.entries,
            _ => return Err(self.expected("a dict")),
        };
        Ok(entries.iter().map(move |(key, value)| (self.at(*key), self.at(*value))))
    }

    pub fn array(self) -> Result<&'g Array> {
        match self.value() {
            Value::Array(array) => Ok(array),
            _ => Err(self.expected("an array")),
        }
    }

    /// An array of numbers, or (nested) lists of numbers, or one number.
    pub fn numbers(self) -> Result<Numbers> {
        match self.value() {
            Value::Array(array) => match &array.elements {
                Elements::Plain { .. } => array.numbers(),
                Elements::Objects(items) => {
                    let values = items.iter().map(|id| self.at(*id).float()).collect::<Result<_>>()?;
                    Ok(Numbers { shape: array.shape.clone(), values })
                }
            },
            Value::List(_) | Value::Tuple(_) => {
                if self.items()?.all(Node::is_number) {
                    return self.row();
                }
                let mut total = 0;
                let rows = self.items()?.map(|item| {
                    let row = item.row()?;
                    total += row.values.len();
                    if total > MAX_LISTED_NUMBERS { Err(repeated()) } else { Ok(row) }
                });
                Numbers::stacked(&rows.collect::<Result<Vec<Numbers>>>()?)
            }
            _ => Ok(Numbers { shape: Vec::new(), values: vec![self.float()?] }),
        }
    }

    fn is_number(self) -> bool {
        match self.value() {
            Value::Array(array) => array.is_scalar(),
            Value::List(_) | Value::Tuple(_) => false,
            _ => true,
        }
    }

    /// What a list of numbers may hold: numbers, or lists and arrays of them, no deeper.
    fn row(self) -> Result<Numbers> {
        match self.value() {
            Value::List(_) | Value::Tuple(_) => {
                let values = self.items()?.map(Node::float).collect::<Result<Vec<f64>>>()?;
                Ok(Numbers { shape: vec![values.len()], values })
            }
            Value::Array(_) => self.numbers(),
            _ => Ok(Numbers { shape: Vec::new(), values: vec![self.float()?] }),
        }
    }
}
