//! JSON as a lean tree: members in their order, texts borrowed from the file where they hold no escapes.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::error::{Error, Result};
use crate::formats::budget::Budget;

#[derive(Debug)]
pub enum Json<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// Also integers beyond 64 bits, which skops keeps as text.
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Map(Vec<(Cow<'a, str>, Json<'a>)>),
}

impl<'a> Json<'a> {
    /// # Errors
    /// serde's, which say line and column; when nested deeper than serde's 128 levels; when the budget is spent.
    pub fn parse(text: &'a [u8], budget: &mut Budget) -> Result<Json<'a>> {
        let budget = RefCell::new(budget);
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let parsed = Reader(&budget).deserialize(&mut deserializer);
        let parsed = parsed.and_then(|json| deserializer.end().map(|()| json));
        parsed.map_err(|error| Error::load(error.to_string()))
    }

    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        match self {
            Json::Map(members) => members.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Reads values and members' names, borrowed where serde's own `Cow` would not be.
#[derive(Clone, Copy)]
struct Reader<'b, 'm>(&'b RefCell<&'m mut Budget>);

impl Reader<'_, '_> {
    /// Pays for an element that came into a container, which doubles when it is full.
    fn pay<T, E: serde::de::Error>(self) -> std::result::Result<(), E> {
        self.0.borrow_mut().charge(2 * size_of::<T>()).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_, '_> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_, '_> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> std::result::Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Json<'de>, E> {
        Ok(Json::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Json<'de>, E> {
        #[allow(clippy::cast_precision_loss)] // as said above
        Ok(i64::try_from(value).map_or(Json::Float(value as f64), Json::Int))
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Json<'de>, E> {
        Ok(Json::Float(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> std::result::Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Json<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            self.pay::<Json<'_>, A::Error>()?;
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> std::result::Result<Json<'de>, A::Error> {
        let mut map = Vec::new();
        while let Some((key, value)) = members.next_entry_seed(self, self)? {
            self.pay::<(Cow<'_, str>, Json<'_>), A::Error>()?;
            let Json::Text(key) = key else { return Err(serde::de::Error::custom("expected text")) };
            map.push((key, value));
        }
        Ok(Json::Map(map))
    }
}
