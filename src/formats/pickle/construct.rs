//! What a pickle would call. A fixed set of constructors of plain data is carried out here; anything else becomes an
//! object that says what would have been called.

use super::machine::object;
use super::numpy;
use super::store::Store;
use crate::error::{Error, Result};
use crate::formats::graph::{Id, Name, Value};

/// `class(*args)`.
pub fn call(store: &mut Store, class: Id, args: Vec<Id>) -> Result<Id> {
    let class = store.class(class)?;
    let known = match &*class.module {
        "builtins" => builtin(store, &class.name, &args)?,
        "collections" => Some(mapping(store, &class.name, &args)?),
        "copyreg" => Some(copyreg(store, &class.name, &args)?),
        "_codecs" => Some(encode(store, &args)?),
        // Cython's way to make an instance before its state.
        _ if class.name.starts_with("__pyx_unpickle_") => Some(cython(store, &args)?),
        module if module.starts_with("numpy") => numpy::construct(store, &class.name, &args)?,
        _ if &*class.name == "newObj" => Some(empty(store, &args)?),
        _ => None,
    };
    known.map_or_else(|| object(store, class, args), Ok)
}

/// `class(*args, **keywords)`: no class that we know has keywords here.
pub fn call_with_keywords(store: &mut Store, class: Id, args: Id, keywords: Id) -> Result<Id> {
    if !matches!(store.value(keywords), Value::Dict(entries) if entries.is_empty()) {
        let class = store.class(class)?;
        return Err(Error::load(format!("{class} is made with keyword arguments, which stoker does not read")));
    }
    let args = store.items(args)?;
    call(store, class, args)
}

fn builtin(store: &mut Store, name: &str, args: &[Id]) -> Result<Option<Id>> {
    let value = match (name, args) {
        ("set" | "frozenset", []) => Value::Set(Vec::new()),
        ("set" | "frozenset", [items]) => Value::Set(store.items(*items)?),
        ("list", []) => Value::List(Vec::new()),
        ("list", [items]) => Value::List(store.items(*items)?),
        ("tuple", []) => Value::Tuple(Vec::new()),
        ("tuple", [items]) => Value::Tuple(store.items(*items)?),
        ("dict", _) => return mapping(store, "dict", args).map(Some),
        ("bytes" | "bytearray", []) => Value::Bytes(bytes::Bytes::new()),
        // With "latin-1" as second argument in protocols before 3.
        ("bytes" | "bytearray", [bytes] | [bytes, _]) => match store.value(*bytes) {
            Value::List(_) | Value::Tuple(_) => {
                let items = store.items(*bytes)?;
                let bytes = items.iter().map(|id| {
                    let value = store.node(*id).int()?;
                    u8::try_from(value).map_err(|_| Error::load(format!("{value} is not a byte")))
                });
                Value::Bytes(bytes.collect::<Result<Vec<u8>>>()?.into())
            }
            _ => Value::Bytes(store.raw(*bytes)?),
        },
        // type(None)
        ("type", [value]) if matches!(store.value(*value), Value::None) => {
            return store.name("builtins", "NoneType").map(Some);
        }
        _ => return Ok(None),
    };
    store.push(value).map(Some)
}

/// dict, `OrderedDict` and defaultdict, whose factory nothing needs: empty, or of a dict or a list of pairs.
fn mapping(store: &mut Store, name: &str, args: &[Id]) -> Result<Id> {
    let content = if name == "defaultdict" { args.get(1) } else { args.first() };
    let entries = match content.map(|id| (*id, store.value(*id))) {
        None => Vec::new(),
        Some((_, Value::Dict(entries))) => {
            let entries = entries.clone();
            store.charge(size_of_val(entries.as_slice()))?;
            entries
        }
        Some((id, _)) => {
            let pairs = store.items(id)?;
            let pairs = pairs.iter().map(|pair| {
                let [key, value] = store.node(*pair).tuple()?;
                Ok((key.id(), value.id()))
            });
            pairs.collect::<Result<Vec<_>>>()?
        }
    };
    store.push(Value::Dict(entries))
}

fn copyreg(store: &mut Store, name: &str, args: &[Id]) -> Result<Id> {
    // Calls that call themselves would nest as deep as the file likes.
    if args.first().is_some_and(|class| store.class(*class).is_ok_and(|class| &*class.module == "copyreg")) {
        return Err(Error::load("a call of copyreg within another"));
    }
    match (name, args) {
        ("__newobj__", [class, args @ ..]) => call(store, *class, args.to_vec()),
        ("__newobj_ex__", [class, args, keywords]) => call_with_keywords(store, *class, *args, *keywords),
        ("_reconstructor", [class, base, content]) => {
            let base = store.class(*base)?;
            let made = call(store, *class, Vec::new())?;
            let is_sequence = matches!(&*base.name, "list" | "tuple");
            let items = if is_sequence { store.items(*content)? } else { Vec::new() };
            let entries = match store.value(*content) {
                Value::Dict(entries) if &*base.name == "dict" => entries.clone(),
                _ => Vec::new(),
            };
            store.charge(size_of_val(items.as_slice()) + size_of_val(entries.as_slice()))?;
            match store.graph.value_mut(made) {
                Value::Object(object) => {
                    object.items = items;
                    object.entries = entries;
                }
                Value::Dict(dict) => *dict = entries,
                Value::List(list) => *list = items,
                _ => {}
            }
            Ok(made)
        }
        _ => Err(Error::load(format!("copyreg.{name} with {} arguments", args.len()))),
    }
}

/// How protocols before 3 write bytes: `_codecs.encode(text, "latin1")`.
fn encode(store: &mut Store, args: &[Id]) -> Result<Id> {
    let [text, encoding] = args else { return Err(Error::load("_codecs.encode without an encoding")) };
    if !matches!(store.node(*encoding).text()?, "latin1" | "latin-1") {
        return Err(Error::load("_codecs.encode with an encoding other than latin1"));
    }
    let bytes = store.raw(*text)?;
    store.push(Value::Bytes(bytes))
}

/// `__pyx_unpickle_X(class, checksum, state)`: the state, a tuple, stands for the constructor's arguments.
fn cython(store: &mut Store, args: &[Id]) -> Result<Id> {
    let [class, _checksum, rest @ ..] = args else { return Err(Error::load("an unpickle function without a class")) };
    let class: Name = store.class(*class)?;
    let args = match rest.first().map(|state| (*state, store.value(*state))) {
        None | Some((_, Value::None)) => Vec::new(),
        Some((state, _)) => store.items(state)?,
    };
    object(store, class, args)
}

/// `newObj(class)`
fn empty(store: &mut Store, args: &[Id]) -> Result<Id> {
    let [class] = args else { return Err(Error::load("newObj without a class")) };
    let class = store.class(*class)?;
    object(store, class, Vec::new())
}
