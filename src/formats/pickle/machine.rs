//! The pickle machine: a stack, its marks and a memo, all of them numbers of values.

use super::store::Store;
use super::{construct, joblib, literal, numpy};
use crate::error::{Error, Result};
use crate::formats::graph::{Id, Object, Value};

/// joblib puts a pickle into the stream for an array of objects, which may hold such arrays again.
const MAX_NESTED: usize = 16;

/// Python itself writes nothing deeper than its recursion limit, a thousand by default.
const MAX_MARKS: usize = 1 << 16;

/// Runs one pickle up to its `STOP` and gives what it leaves on the stack.
pub fn run(store: &mut Store, depth: usize) -> Result<Id> {
    if depth > MAX_NESTED {
        return Err(Error::load(format!("pickles are nested deeper than {MAX_NESTED}")));
    }
    let mut machine = Machine { store, depth, stack: Vec::new(), marks: Vec::new(), memo: Vec::new() };
    while machine.step()? {}
    machine.pop()
}

struct Machine<'s> {
    store: &'s mut Store,
    depth: usize,
    stack: Vec<Id>,
    /// The stack's height at each open mark; nothing below the last one can be reached.
    marks: Vec<usize>,
    memo: Vec<Option<Id>>,
}

impl Machine<'_> {
    /// Runs one opcode; `false` when it is `STOP`.
    fn step(&mut self) -> Result<bool> {
        let opcode = self.store.input.opcode()?;
        if let Some(id) = literal::read(self.store, opcode)? {
            self.push(id)?;
            return Ok(true);
        }
        match opcode {
            b'.' => {
                self.store.input.leave_frame()?;
                return Ok(false);
            }
            // PROTO: nothing that we would do differently.
            0x80 => _ = self.store.input.byte()?,
            0x95 => self.store.input.frame()?,
            b'(' if self.marks.len() == MAX_MARKS => {
                return Err(Error::load(format!("tuples or lists are nested deeper than {MAX_MARKS}")));
            }
            b'(' => self.marks.push(self.stack.len()),
            // POP, which also drops a mark, POP_MARK, DUP
            b'0' if self.marks.last() == Some(&self.stack.len()) => _ = self.marks.pop(),
            b'0' => _ = self.pop()?,
            b'1' => _ = self.pop_to_mark()?,
            b'2' => self.push(self.top()?)?,
            // PUT, GET and MEMOIZE
            b'p' | b'q' | b'r' => {
                let index = self.memo_index(opcode == b'p', opcode == b'q')?;
                self.remember(index)?;
            }
            0x94 => self.remember(self.memo.len())?,
            b'g' | b'h' | b'j' => {
                let index = self.memo_index(opcode == b'g', opcode == b'h')?;
                let id = self.memo.get(index).copied().flatten();
                self.push(id.ok_or_else(|| Error::load(format!("memo entry {index} is not set")))?)?;
            }
            b't' | 0x85 | 0x86 | 0x87 | b'l' | b'd' | 0x91 => self.gather(opcode)?,
            b'a' | b'e' | b's' | b'u' | 0x90 => self.extend(opcode)?,
            b'c' | 0x93 | b'i' | b'o' | b'R' | 0x81 | 0x92 => self.call(opcode)?,
            b'b' => self.build()?,
            b'P' | b'Q' => {
                return Err(Error::load(
                    "the pickle refers to objects outside of the file (persistent ids), as no joblib or pickle dump \
                     of a scikit-learn model does: save it with joblib.dump",
                ));
            }
            0x82..=0x84 => {
                return Err(Error::load(
                    "the pickle names classes by numbers of a registry (copyreg extensions) that is not in the file: \
                     save it with joblib.dump",
                ));
            }
            0x97 | 0x98 => {
                return Err(Error::load(
                    "the pickle has its arrays in buffers outside of the file (buffer_callback): save it without, \
                     with joblib.dump",
                ));
            }
            _ => {
                return Err(Error::load(format!(
                    "0x{opcode:02x} is not an instruction of a pickle: is this a .pkl or .joblib file?"
                )));
            }
        }
        Ok(true)
    }

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or_default()
    }

    fn top(&self) -> Result<Id> {
        self.stack[self.floor()..].last().copied().ok_or_else(underflow)
    }

    /// Paid for by the value that will have it as an element, too.
    fn push(&mut self, id: Id) -> Result<()> {
        self.store.charge(size_of::<Id>())?;
        self.stack.push(id);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(underflow)?;
        Ok(self.stack.split_off(mark))
    }

    fn memo_index(&mut self, text: bool, short: bool) -> Result<usize> {
        if text {
            let index = self.store.input.line_text()?;
            index.parse().map_err(|_| Error::load("a damaged memo index"))
        } else if short {
            self.store.input.length::<1>()
        } else {
            self.store.input.length::<4>()
        }
    }

    fn remember(&mut self, index: usize) -> Result<()> {
        let top = self.top()?;
        // Indices are counted up with each use, so none is larger than the number of bytes so far.
        if index > self.store.input.position() {
            return Err(Error::load(format!("memo index {index} is out of place")));
        }
        if index >= self.memo.len() {
            self.store.charge((index + 1 - self.memo.len()) * size_of::<Option<Id>>())?;
            self.memo.resize(index + 1, None);
        }
        self.memo[index] = Some(top);
        Ok(())
    }

    /// TUPLE, LIST, DICT, FROZENSET: a new value of what is on the stack.
    fn gather(&mut self, opcode: u8) -> Result<()> {
        let items = match opcode {
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let start = self.stack.len().checked_sub(count).filter(|start| *start >= self.floor());
                self.stack.split_off(start.ok_or_else(underflow)?)
            }
            _ => self.pop_to_mark()?,
        };
        let id = match opcode {
            b'l' => self.store.push(Value::List(items))?,
            b'd' => self.store.push(Value::Dict(pairs(&items)?))?,
            0x91 => self.store.push(Value::Set(items))?,
            _ => self.store.tuple(items)?,
        };
        self.push(id)
    }

    /// APPEND, APPENDS, SETITEM, SETITEMS, ADDITEMS: more for a value that is there.
    fn extend(&mut self, opcode: u8) -> Result<()> {
        let items = match opcode {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_to_mark()?,
        };
        let target = self.top()?;
        match (self.store.graph.value_mut(target), opcode) {
            (Value::List(list), b'a' | b'e') => list.extend(items),
            (Value::Object(object), b'a' | b'e') => object.items.extend(items),
            (Value::Dict(dict), b's' | b'u') => dict.extend(pairs(&items)?),
            (Value::Object(object), b's' | b'u') => object.entries.extend(pairs(&items)?),
            (Value::Set(set), 0x90) => set.extend(items),
            (_, b'a' | b'e') => return Err(self.store.node(target).expected("a list to append to")),
            (_, 0x90) => return Err(self.store.node(target).expected("a set to add to")),
            _ => return Err(self.store.node(target).expected("a dict to set items of")),
        }
        Ok(())
    }

    /// `GLOBAL` and `STACK_GLOBAL`, which name a class; `INST`, `OBJ`, `REDUCE`, `NEWOBJ`, `NEWOBJ_EX`, which would call
    /// one.
    fn call(&mut self, opcode: u8) -> Result<()> {
        let id = match opcode {
            b'c' => self.global()?,
            0x93 => {
                let name = self.pop()?;
                let module = self.pop()?;
                let texts = [module, name].map(|id| self.store.node(id).text().map(Box::<str>::from));
                let [module, name] = texts;
                self.store.name(&module?, &name?)?
            }
            b'i' => {
                let class = self.global()?;
                let args = self.pop_to_mark()?;
                construct::call(self.store, class, args)?
            }
            b'o' => {
                let items = self.pop_to_mark()?;
                let (class, args) = items.split_first().ok_or_else(underflow)?;
                construct::call(self.store, *class, args.to_vec())?
            }
            0x92 => {
                let keywords = self.pop()?;
                let args = self.pop()?;
                let class = self.pop()?;
                construct::call_with_keywords(self.store, class, args, keywords)?
            }
            _ => {
                let args = self.pop()?;
                let class = self.pop()?;
                let args = self.store.items(args)?;
                construct::call(self.store, class, args)?
            }
        };
        self.push(id)
    }

    fn global(&mut self) -> Result<Id> {
        let module: Box<str> = self.store.input.line_text()?.into();
        let name: Box<str> = self.store.input.line_text()?.into();
        self.store.name(&module, &name)
    }

    /// BUILD: gives an object its state, in place, as the memo may have the object already.
    fn build(&mut self) -> Result<()> {
        let state = self.pop()?;
        let target = self.top()?;
        let class = match self.store.value(target) {
            Value::ElementType(_) => return numpy::build_element_type(self.store, target, state),
            Value::Object(object) if object.state.is_none() => object.class.clone(),
            Value::Object(_) => return Err(Error::load("an object is given a state twice")),
            // An OrderedDict or the like with attributes, which nothing needs.
            Value::Dict(_) | Value::List(_) | Value::Set(_) => return Ok(()),
            _ => return Err(self.store.node(target).expected("an object to give a state to")),
        };
        if &*class.name == "_reconstruct" && class.package() == "numpy" {
            return numpy::build_array(self.store, target, state);
        }
        if &*class.name == "_mareconstruct" && class.package() == "numpy" {
            return numpy::build_masked(self.store, target, state);
        }
        let state = self.store.graph.attributes(state);
        if let Value::Object(object) = self.store.graph.value_mut(target) {
            object.state = Some(state);
        }
        if &*class.name == "NumpyArrayWrapper" && class.package() == "joblib" {
            let value = joblib::read_array(self.store, target, self.depth)?;
            *self.store.graph.value_mut(target) = value;
        }
        Ok(())
    }
}

/// Keys and values that follow each other.
pub fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Error::load("a dict's key has no value"));
    }
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}

/// An object of a class with arguments and nothing else yet.
pub fn object(store: &mut Store, class: crate::formats::graph::Name, args: Vec<Id>) -> Result<Id> {
    store.push(Value::Object(Box::new(Object::new(class, args))))
}

fn underflow() -> Error {
    Error::load("an instruction has too few operands")
}
