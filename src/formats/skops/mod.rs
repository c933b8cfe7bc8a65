//! skops files: a zip archive with `schema.json`, a tree of nodes, each of which says by its loader what it is, and
//! with one `.npy` member per array. They become the same values that the model's pickle becomes.

use std::collections::HashMap;

use crate::content::Content;
use crate::error::{Error, Result};
use crate::formats::budget::Budget;
use crate::formats::graph::{Graph, Id, Name, Value};
use crate::formats::zip::Zip;
use crate::formats::{compression, mistakes};

mod json;
mod nodes;
mod plain;

use json::Json;

/// The newest protocol that we know; newer files are read as long as their nodes look as they did.
const PROTOCOL: i64 = 2;

/// Whether these bytes begin as a `.skops` file does.
pub fn recognise(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04")
}

/// Reads a `.skops` file.
///
/// # Errors
/// [`Kind::Load`](crate::error::Kind::Load) when it is damaged, or names a class that no model has.
pub fn read(content: impl Into<Content>) -> Result<(Graph, Id)> {
    let content = content.into();
    let mut graph = Graph::default();
    let compressed = content.len();
    graph.limit_reading(compressed);
    // An archive's list of members is at its end.
    let bytes = content.slice(0..compressed).ok_or_else(|| Error::load("the file is cut short"))?;
    let zip = Zip::open(bytes).map_err(|error| error.context("skops file"))?;
    let text = zip.find("schema.json")?;
    let text = text.ok_or_else(|| Error::load(format!("this is {}", mistakes::of_zip(zip.names()))))?;
    let mut budget = Budget::of(compression::counted(compressed, text.len()));
    let schema = Json::parse(&text, &mut budget).map_err(|error| error.context("schema.json"))?;
    let protocol = match schema.get("protocol") {
        Some(Json::Int(protocol)) => *protocol,
        _ => return Err(Error::load("schema.json: no protocol number: is this a skops file?")),
    };
    let mut reader =
        Reader { zip, graph, budget, shared: HashMap::new(), names: HashMap::new(), files: HashMap::new() };
    let root = reader.node(&schema).map_err(|error| {
        let newer =
            if protocol > PROTOCOL { format!(" of protocol {protocol}, newer than {PROTOCOL}") } else { String::new() };
        error.context(format_args!("schema.json{newer}"))
    })?;
    Ok((reader.graph, root))
}

struct Reader {
    zip: Zip,
    graph: Graph,
    budget: Budget,
    /// By Python's `id` at the time of saving: every object is written out at each place, and is still one object.
    shared: HashMap<i64, Id>,
    names: HashMap<Name, Id>,
    /// Arrays and matrices by member, as several nodes may be of one.
    files: HashMap<Box<str>, Id>,
}

impl Reader {
    fn push(&mut self, value: Value) -> Result<Id> {
        self.graph.push(value)
    }

    fn text(&mut self, text: &str) -> Result<Id> {
        self.push(Value::Text(text.into()))
    }

    /// The value of a node.
    fn node(&mut self, node: &Json<'_>) -> Result<Id> {
        let known = match node.get("__id__") {
            Some(Json::Int(id)) if *id != 0 => Some(*id),
            _ => None,
        };
        if let Some(id) = known.and_then(|known| self.shared.get(&known)) {
            return Ok(*id);
        }
        let id = nodes::read(self, node)?;
        if let Some(known) = known {
            self.shared.insert(known, id);
        }
        Ok(id)
    }
}

fn damaged(what: &str) -> Error {
    Error::load(format!("{what} is missing or not as skops writes it"))
}
