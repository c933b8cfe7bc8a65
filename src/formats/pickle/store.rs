//! Where the values of a pickle go: the graph, the names seen, and the account of what may be spent.

use std::collections::HashMap;

use bytes::Bytes;

use super::input::Input;
use crate::content::Content;
use crate::error::{Error, Result};
use crate::formats::budget::Budget;
use crate::formats::graph::{Array, ElementType, Graph, Id, Name, Node, Value};
use crate::formats::names;

pub struct Store {
    pub input: Input,
    pub graph: Graph,
    names: HashMap<(Box<str>, Box<str>), Id>,
    budget: Budget,
    /// Values that opcodes of one byte stand for, made once.
    pub none: Id,
    bools: [Id; 2],
    bytes: Vec<Id>,
    empty: Id,
}

impl Store {
    /// For a pickle of whose bytes so many [count](crate::formats::compression::counted).
    pub fn new(content: Content, counted: usize) -> Result<Store> {
        let budget = Budget::of(counted);
        let mut graph = Graph::default();
        graph.limit_reading(counted);
        let none = graph.push(Value::None)?;
        let bools = [graph.push(Value::Bool(false))?, graph.push(Value::Bool(true))?];
        let empty = graph.push(Value::Tuple(Vec::new()))?;
        let bytes_made = (0..256).map(|value| graph.push(Value::Int(value))).collect::<Result<_>>()?;
        Ok(Store {
            input: Input::new(content),
            graph,
            names: HashMap::new(),
            budget,
            none,
            bools,
            bytes: bytes_made,
            empty,
        })
    }

    /// Spends memory or time on something other than reading on.
    pub fn charge(&mut self, bytes: usize) -> Result<()> {
        self.budget.charge(bytes)
    }

    pub fn push(&mut self, value: Value) -> Result<Id> {
        let behind = match &value {
            Value::Object(_) => 128,
            Value::Array(_) => 160,
            Value::Text(text) => text.len(),
            Value::ElementType(element) => weight(element),
            _ => 0,
        };
        self.charge(size_of::<Value>() + behind)?;
        self.graph.push(value)
    }

    pub fn bool(&self, value: bool) -> Id {
        self.bools[usize::from(value)]
    }

    pub fn int(&mut self, value: i64) -> Result<Id> {
        match usize::try_from(value).ok().and_then(|value| self.bytes.get(value)) {
            Some(id) => Ok(*id),
            None => self.push(Value::Int(value)),
        }
    }

    pub fn tuple(&mut self, items: Vec<Id>) -> Result<Id> {
        if items.is_empty() { Ok(self.empty) } else { self.push(Value::Tuple(items)) }
    }

    /// A class or function, which the table must know.
    pub fn name(&mut self, module: &str, name: &str) -> Result<Id> {
        let key = (module.into(), name.into());
        if let Some(id) = self.names.get(&key) {
            return Ok(*id);
        }
        let resolved = names::resolve(module, name)?;
        if resolved.package() == "joblib" && resolved.name.ends_with("NDArrayWrapper") {
            return Err(Error::load(
                "joblib before 0.10 wrote this model, with its arrays in files of their own: load it there and save it \
                 again with a current joblib",
            ));
        }
        self.charge(2 * (module.len() + name.len()) + 200)?;
        let id = self.push(Value::Name(resolved))?;
        self.names.insert(key, id);
        Ok(id)
    }

    pub fn value(&self, id: Id) -> &Value {
        self.graph.value(id)
    }

    pub fn node(&self, id: Id) -> Node<'_> {
        self.graph.node(id)
    }

    pub fn class(&self, id: Id) -> Result<Name> {
        match self.value(id) {
            Value::Name(name) => Ok(name.clone()),
            _ => Err(self.node(id).expected("a class")),
        }
    }

    /// The elements of a list, tuple or set, copied.
    pub fn items(&mut self, id: Id) -> Result<Vec<Id>> {
        let items = match self.graph.value(id) {
            Value::List(items) | Value::Tuple(items) | Value::Set(items) => items.clone(),
            Value::Dict(entries) => entries.iter().map(|(key, _)| *key).collect(),
            _ => return Err(self.node(id).expected("a list")),
        };
        self.charge(size_of_val(items.as_slice()))?;
        Ok(items)
    }

    /// The bytes of a bytes object, or of text that Python 2 or `latin1` made of bytes.
    pub fn raw(&mut self, id: Id) -> Result<Bytes> {
        match self.graph.value(id) {
            Value::Bytes(bytes) => Ok(bytes.clone()),
            Value::Text(text) => {
                self.budget.charge(text.len())?;
                let bytes: Option<Vec<u8>> = if text.is_ascii() {
                    Some(text.as_bytes().to_vec())
                } else {
                    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
                };
                bytes.map(Bytes::from).ok_or_else(|| Error::load("expected bytes, got text beyond latin1"))
            }
            _ => Err(self.node(id).expected("bytes")),
        }
    }

    pub fn element_type(&mut self, id: Id) -> Result<ElementType> {
        let Value::ElementType(element) = self.graph.value(id) else { return Err(self.node(id).expected("a dtype")) };
        let element = (**element).clone();
        self.charge(weight(&element))?;
        Ok(element)
    }

    pub fn array(&mut self, array: Array) -> Result<Id> {
        self.push(array.into_value())
    }
}

/// Bytes that a copy of an element type takes.
fn weight(element: &ElementType) -> usize {
    element.fields.iter().map(|field| 96 + field.name.len() + weight(&field.element)).sum()
}
