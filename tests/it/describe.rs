//! A model file's values in the words of `tests/tabular/describe.py`, which described the living object.

use serde_json::{Value as Json, json};
use stoker::formats::graph::{Array, ElementType, Elements, Node, Value};

/// As in describe.py.
const SHORT: usize = 64;

pub fn describe(node: Node<'_>) -> Json {
    Walk { above: Vec::new() }.value(node)
}

struct Walk {
    above: Vec<u32>,
}

impl Walk {
    fn value(&mut self, node: Node<'_>) -> Json {
        if self.above.contains(&node.id().0) {
            return json!({"cycle": true});
        }
        self.above.push(node.id().0);
        let described = self.one(node);
        self.above.pop();
        described
    }

    fn each(&mut self, node: Node<'_>, ids: &[stoker::formats::graph::Id]) -> Vec<Json> {
        ids.iter().map(|id| self.value(node.at(*id))).collect()
    }

    fn one(&mut self, node: Node<'_>) -> Json {
        match node.value() {
            Value::None => Json::Null,
            Value::Bool(value) => json!(value),
            Value::Int(value) => json!(value),
            Value::BigInt(bytes) => json!({"int": big(bytes)}),
            Value::Float(value) => number(*value),
            Value::Text(text) => json!(text),
            Value::Bytes(bytes) => json!({"bytes": bytes.len(), "crc": crc(bytes)}),
            Value::List(items) => Json::Array(self.each(node, items)),
            Value::Tuple(items) => json!({"tuple": self.each(node, items)}),
            Value::Set(items) => {
                let mut items = self.each(node, items);
                items.sort_by_key(Json::to_string);
                json!({"set": items})
            }
            Value::Dict(entries) => json!({"dict": self.pairs(node, entries)}),
            Value::Name(name) => json!({"name": name.to_string()}),
            Value::ElementType(element) => json!({"dtype": element_type(element)}),
            Value::Array(array) => match &array.elements {
                Elements::Plain { element, .. } => {
                    json!({"array": element_type(element), "shape": array.shape, "values": values(array, element)})
                }
                Elements::Objects(items) => {
                    json!({"array": "O", "shape": array.shape, "items": self.each(node, items)})
                }
            },
            Value::Object(object) => {
                let mut described = json!({"class": object.class.to_string()});
                if object.class.module.starts_with("numpy.random.") {
                    return described;
                }
                if !object.args.is_empty() {
                    described["args"] = self.each(node, &object.args).into();
                }
                let state = object.state.map(|state| node.at(state));
                let sparse = object.class.module.starts_with("scipy.sparse");
                if let Some(state) = state.filter(|_| sparse) {
                    let parts = ["data", "indices", "indptr"];
                    let parts: Vec<Json> =
                        parts.iter().map(|name| json!([name, self.value(state.attr(name).unwrap())])).collect();
                    described["state"] = json!({"dict": parts});
                } else if let Some(state) = state {
                    match self.value(state) {
                        empty if empty == json!({"tuple": []}) || empty == json!({"dict": []}) => {}
                        state => described["state"] = state,
                    }
                }
                if !object.items.is_empty() {
                    described["items"] = self.each(node, &object.items).into();
                }
                if !object.entries.is_empty() {
                    described["entries"] = self.pairs(node, &object.entries).into();
                }
                described
            }
        }
    }

    fn pairs(
        &mut self,
        node: Node<'_>,
        entries: &[(stoker::formats::graph::Id, stoker::formats::graph::Id)],
    ) -> Vec<Json> {
        let pair = |(key, value): &(_, _)| json!([self.value(node.at(*key)), self.value(node.at(*value))]);
        entries.iter().map(pair).collect()
    }
}

fn number(value: f64) -> Json {
    if value.is_finite() { json!(value) } else { json!({"float": value.to_string().to_lowercase()}) }
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn element_type(element: &ElementType) -> Json {
    match element {
        ElementType { kind: b'O', .. } => json!("O"),
        ElementType { fields, .. } if !fields.is_empty() => fields
            .iter()
            .map(|field| (field.name.to_string(), json!([element_type(&field.element), field.offset])))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        _ => json!(format!("{}{}", element.kind as char, element.size)),
    }
}

fn values(array: &Array, element: &ElementType) -> Json {
    if !element.fields.is_empty() {
        let field = |name: &str| array.field(name).ok().flatten();
        let fields = element.fields.iter().map(|one| {
            let values = match &one.element.fields[..] {
                [] => field(&one.name).map_or(Json::Null, |values| numbers(&values)),
                // The tests have one record in a record: its bytes, taken apart here.
                _ => {
                    let Elements::Plain { data, .. } = &array.elements else { unreachable!() };
                    let inner = data.chunks(element.size).flat_map(|record| &record[one.offset..][..one.element.size]);
                    let inner: Vec<u8> = inner.copied().collect();
                    let inner = Array::plain(array.shape.clone(), false, one.element.clone(), inner.into()).unwrap();
                    values(&inner, &one.element)
                }
            };
            (one.name.to_string(), values)
        });
        return fields.collect::<serde_json::Map<_, _>>().into();
    }
    match element.kind {
        b'U' | b'S' => json!(array.texts().unwrap()),
        b'b' | b'i' | b'u' | b'f' => numbers(&array.numbers().unwrap().values),
        _ => Json::Null,
    }
}

fn numbers(values: &[f64]) -> Json {
    if values.len() > SHORT {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        return json!({"crc": crc(&bytes)});
    }
    values.iter().map(|value| number(*value)).collect()
}

/// Decimal digits of little-endian two's complement; the tests' numbers fit 128 bits.
fn big(bytes: &[u8]) -> String {
    let negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
    let mut wide = [if negative { 0xff } else { 0 }; 16];
    let length = bytes.len().min(16);
    wide[..length].copy_from_slice(&bytes[..length]);
    i128::from_le_bytes(wide).to_string()
}
