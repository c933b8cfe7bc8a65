//! V1's rows of a table straight into tensors: lists of values, objects by column name, or one list for each column.
//! What a value becomes is the model's to say ([`TableSpec`]); nothing is kept but the tensors.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::BufMut;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json;
use crate::error::{Error, Result};
use crate::infer::columns::{from_numbers, number};
use crate::infer::table::{TableSpec, Takes};
use crate::tensor::{DType, Shape, Tensor, push_bytes_element};

/// Reads `[[1, 2], ...]`, `[{"a": 1, "b": 2}, ...]` or, for one column, `["text", ...]`.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid), naming the row and the column.
pub fn list(field: &str, text: &str, table: &TableSpec) -> Result<Vec<Tensor>> {
    if table.is_matrix() {
        let dtype = if table.keeps_types() && !may_be_fractions(text.as_bytes()) { DType::Int64 } else { DType::Fp64 };
        let mut data = Vec::new();
        // Anything but numbers, and text that is a number, takes the longer way.
        if let Ok(dims @ [_, _]) = json::parse(text, dtype, &mut data).as_deref() {
            let shape = Shape::new(dims.to_vec())?;
            return Ok(vec![Tensor::new(table.form()[0].name.clone(), dtype, shape, data.into())?]);
        }
    }
    let mut reader = Reader::new(table);
    let read = serde_json::Deserializer::from_str(text).deserialize_seq(&mut reader);
    // What is wrong with the columns is wrong with all rows.
    let place = if read.is_ok() { field.to_owned() } else { format!("{field}[{}]", reader.rows) };
    reader.finish(read).map_err(|error| error.context(place))
}

/// Reads `{"a": [1, ...], "b": [2, ...]}`.
///
/// # Errors
/// As [`list`].
pub fn columns(field: &str, text: &str, table: &TableSpec) -> Result<Vec<Tensor>> {
    let mut reader = Reader::new(table);
    let read = serde_json::Deserializer::from_str(text).deserialize_map(Whole(&mut reader));
    reader.finish(read).map_err(|error| error.context(field))
}

/// Whether any of these JSON numbers is one that Python reads as a float.
fn may_be_fractions(numbers: &[u8]) -> bool {
    numbers.iter().any(|byte| !matches!(byte, b'-' | b'0'..=b'9' | b'[' | b']' | b',' | b' ' | b'\t' | b'\n' | b'\r'))
}

struct Reader<'a> {
    table: &'a TableSpec,
    /// Of every column, by name: the model's and those that came along.
    places: HashMap<Cow<'a, str>, usize>,
    columns: Vec<Building>,
    rows: usize,
    /// Rows are lists, which numpy brings into one type; columns of objects have their own.
    are_lists: bool,
    /// Our own error, which serde's cannot carry.
    failure: Option<Error>,
}

/// A column that grows.
struct Building {
    name: Arc<str>,
    dtype: DType,
    data: Vec<u8>,
    rows: usize,
    /// Types of all that it holds.
    held: Held,
}

/// Whether there are truth values, integers, and other values.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Held {
    truths: bool,
    integers: bool,
    others: bool,
}

impl Held {
    fn add(&mut self, cell: &[u8]) {
        match cell.first() {
            Some(b't' | b'f') => self.truths = true,
            _ if may_be_fractions(cell) => self.others = true,
            _ => self.integers = true,
        }
    }

    fn and(self, other: Held) -> Held {
        Held {
            truths: self.truths || other.truths,
            integers: self.integers || other.integers,
            others: self.others || other.others,
        }
    }

    /// numpy's type for all of them, unless it is its usual one. In a column of a frame, truths and integers are objects,
    /// which become floats.
    fn dtype(self, are_lists: bool) -> Option<DType> {
        match (self.truths, self.integers, self.others) {
            (true, false, false) => Some(DType::Bool),
            (false, true, false) => Some(DType::Int64),
            (true, true, false) if are_lists => Some(DType::Int64),
            _ => None,
        }
    }
}

/// More columns than any model has, beside the model's own.
const MAX_UNKNOWN: usize = 1024;

impl<'a> Reader<'a> {
    fn new(table: &'a TableSpec) -> Self {
        let mut reader =
            Reader { table, places: HashMap::new(), columns: Vec::new(), rows: 0, are_lists: false, failure: None };
        for (place, column) in table.columns.iter().enumerate() {
            let name = column.name.clone().unwrap_or_else(|| place.to_string().into());
            let dtype = column.takes.dtype();
            reader.columns.push(Building::new(name, dtype));
            if let Some(name) = &column.name {
                reader.places.insert(Cow::Borrowed(name), place);
            }
        }
        reader
    }

    /// The place of a column by name; where the model has no names, the order of appearance is the order.
    fn place(&mut self, name: &str) -> Result<usize> {
        if let Some(place) = self.places.get(name) {
            return Ok(*place);
        }
        // Not as it is written, but with underscores for spaces.
        if let Some(place) = self.table.position(name) {
            self.places.insert(Cow::Owned(name.to_owned()), place);
            return Ok(place);
        }
        let known = self.columns.len();
        let place = if self.table.has_names() { known } else { self.places.len() };
        if place > self.table.columns.len() + MAX_UNKNOWN {
            return Err(Error::invalid(format!("more than {MAX_UNKNOWN} unknown columns")));
        }
        self.places.insert(Cow::Owned(name.to_owned()), place);
        if place >= known {
            self.columns.push(Building::new(name.into(), DType::Fp64));
        }
        Ok(place)
    }

    fn put_named(&mut self, name: &str, cell: &[u8]) -> Result<()> {
        let place = self.place(name)?;
        let cell = match self.table.columns.get(place) {
            Some(column) => column.named_cell(cell),
            None => cell.into(),
        };
        self.put(place, &cell)
    }

    fn put(&mut self, place: usize, cell: &[u8]) -> Result<()> {
        let rows = self.rows;
        let is_read = self.table.columns.get(place).map_or(self.table.columns.is_empty(), |column| !column.unused);
        let Some(column) = self.columns.get_mut(place) else {
            if !self.table.columns.is_empty() || rows > 0 {
                return Err(self.table.wrong_width(place + 1));
            }
            let name = place.to_string().into();
            self.columns.push(Building::new(name, DType::Fp64));
            return self.put(place, cell);
        };
        if column.rows > rows {
            return Err(Error::invalid(format!("\"{}\": is given more than once", column.name)));
        }
        if matches!(cell.first(), Some(b'[' | b'{')) {
            return Err(Error::invalid(format!("\"{}\": expected a value, got a list or an object", column.name)));
        }
        column.fill(rows)?;
        column.held.add(cell);
        // What makes no difference is only counted.
        column.push(if is_read { cell } else { b"null" })
    }

    fn finish(mut self, read: Result<(), serde_json::Error>) -> Result<Vec<Tensor>> {
        // Only the words: a place within this one value would mislead.
        read.map_err(|error| self.failure.take().unwrap_or_else(|| Error::invalid(bare(&error))))?;
        let known = if self.table.columns.is_empty() { self.columns.len() } else { self.table.columns.len() };
        let beyond = self.columns.split_off(known.min(self.columns.len()));
        let unknown: Vec<&str> = beyond.iter().map(|column| &*column.name).collect();
        if !self.table.has_names() && !unknown.is_empty() {
            return Err(self.table.wrong_width(known + unknown.len()));
        }
        let missing = self.table.missing(|place| self.columns[place].rows > 0);
        if !self.table.has_names() && !missing.is_empty() {
            return Err(self.table.wrong_width(known - missing.len()));
        }
        self.table.check_names(&missing, &unknown)?;
        let (rows, table, are_lists) = (self.rows, self.table, self.are_lists);
        self.columns.iter_mut().try_for_each(|column| column.fill(rows))?;
        let all = self.columns.iter().map(|column| column.held).reduce(Held::and).unwrap_or_default();
        let finished = self.columns.into_iter().enumerate().map(|(place, column)| {
            let held = if are_lists { all } else { column.held };
            // Of lists with text numpy makes text.
            let keeps_type = table.keeps_types() && (table.is_matrix() || !are_lists);
            let is_typed = table.columns.get(place).is_some_and(|column| column.takes == Takes::Typed);
            let tensor = Tensor::new(column.name, column.dtype, Shape::new(vec![rows])?, column.data.into())?;
            match held.dtype(are_lists).filter(|_| keeps_type && is_typed) {
                Some(dtype) => from_numbers(&tensor, dtype),
                None => Ok(tensor),
            }
        });
        finished.collect()
    }

    fn fail<E: serde::de::Error>(&mut self, error: Error) -> E {
        let told = E::custom(error.message());
        self.failure = Some(error);
        told
    }
}

impl Building {
    fn new(name: Arc<str>, dtype: DType) -> Building {
        Building { name, dtype, data: Vec::new(), rows: 0, held: Held::default() }
    }

    /// Values that rows before this one did not bring are missing, as in a pandas frame made of such rows.
    fn fill(&mut self, rows: usize) -> Result<()> {
        while self.rows < rows {
            self.held.others = true;
            self.push(b"null")?;
        }
        Ok(())
    }

    fn push(&mut self, cell: &[u8]) -> Result<()> {
        match self.dtype {
            DType::Json => push_bytes_element(&mut self.data, cell)?,
            _ => {
                let value = number(cell);
                self.data.put_f64_le(value.map_err(|error| error.context(format_args!("\"{}\"", self.name)))?);
            }
        }
        self.rows += 1;
        Ok(())
    }
}

impl<'de> Visitor<'de> for &mut Reader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        while rows.next_element_seed(Row(self))?.is_some() {
            self.rows += 1;
        }
        Ok(())
    }
}

/// A key, borrowed from the text unless it has escapes.
#[derive(serde::Deserialize)]
struct Key<'k>(#[serde(borrow)] Cow<'k, str>);

struct Row<'r, 'a>(&'r mut Reader<'a>);

impl<'de> DeserializeSeed<'de> for Row<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let raw: &RawValue = serde::Deserialize::deserialize(deserializer)?;
        let text = raw.get();
        let mut inner = serde_json::Deserializer::from_str(text);
        let read = match text.as_bytes()[0] {
            b'[' => inner.deserialize_seq(Cells(self.0)),
            b'{' => inner.deserialize_map(Cells(self.0)),
            // One value is a row where rows have one.
            _ if self.0.table.columns.len() == 1 => self.0.put(0, text.as_bytes()).map_err(serde_json::Error::custom),
            _ => Err(serde_json::Error::custom(
                "Expected 2D array, got 1D array instead: each instance is a list of values or an object by column name",
            )),
        };
        read.map_err(D::Error::custom)
    }
}

/// serde adds a place within the row, which would mislead.
fn bare(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rfind(" at line ").map_or(text.clone(), |end| text[..end].to_owned())
}

/// The values of one row.
struct Cells<'r, 'a>(&'r mut Reader<'a>);

impl<'de> Visitor<'de> for Cells<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of values or an object by column name")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut cells: A) -> Result<(), A::Error> {
        self.0.are_lists = true;
        // A model that takes any width still takes rows of one width.
        let is_first = self.0.rows == 0 && self.0.table.columns.is_empty();
        let mut width = 0;
        while let Some(cell) = cells.next_element::<&RawValue>()? {
            self.0.put(width, cell.get().as_bytes()).map_err(|error| self.0.fail::<A::Error>(error))?;
            width += 1;
        }
        if is_first || width == self.0.columns.len() {
            return Ok(());
        }
        let error = self.0.table.wrong_width(width);
        Err(self.0.fail(error))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut cells: A) -> Result<(), A::Error> {
        while let Some(Key(name)) = cells.next_key()? {
            let cell: &RawValue = cells.next_value()?;
            self.0.put_named(&name, cell.get().as_bytes()).map_err(|error| self.0.fail::<A::Error>(error))?;
        }
        Ok(())
    }
}

/// Whole columns.
struct Whole<'r, 'a>(&'r mut Reader<'a>);

impl<'de> Visitor<'de> for Whole<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a list of values for each column")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut columns: A) -> Result<(), A::Error> {
        let mut length = None;
        while let Some(Key(name)) = columns.next_key()? {
            self.0.rows = 0;
            columns.next_value_seed(WholeColumn(self.0, &name))?;
            let rows = self.0.rows;
            if *length.get_or_insert(rows) != rows {
                let text = format!("\"{name}\" has {rows} values, others have {}", length.unwrap_or(0));
                return Err(self.0.fail(Error::invalid(text)));
            }
        }
        self.0.rows = length.unwrap_or(0);
        Ok(())
    }
}

struct WholeColumn<'r, 'a, 'n>(&'r mut Reader<'a>, &'n str);

impl<'de> DeserializeSeed<'de> for WholeColumn<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for WholeColumn<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of values for \"{}\"", self.1)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut cells: A) -> Result<(), A::Error> {
        while let Some(cell) = cells.next_element::<&RawValue>()? {
            self.0.put_named(self.1, cell.get().as_bytes()).map_err(|error| self.0.fail::<A::Error>(error))?;
            self.0.rows += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::table::{ColumnSpec, Matching};

    fn table(columns: &[(&str, bool)]) -> TableSpec {
        let column = |(name, text): &(&str, bool)| ColumnSpec {
            name: (!name.is_empty()).then(|| (*name).into()),
            takes: Takes::text_if(*text),
            ..ColumnSpec::default()
        };
        TableSpec::new(columns.iter().map(column).collect(), Matching::default())
    }

    /// What arrives at the model, as text.
    fn read(table: &TableSpec, text: &str) -> Result<Vec<String>> {
        let tensors = match text.as_bytes()[0] {
            b'{' => columns("inputs", text, table)?,
            _ => list("instances", text, table)?,
        };
        let show = |tensor: Tensor| match tensor.dtype() {
            DType::Json => {
                let cells: Vec<_> = tensor.bytes_elements().map(String::from_utf8_lossy).collect();
                format!("{} {}", tensor.name(), cells.join(" "))
            }
            _ => {
                let values: Vec<f64> =
                    tensor.data().as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
                format!("{} {values:?}", tensor.name())
            }
        };
        Ok(table.arrange(&tensors)?.into_iter().map(show).collect())
    }

    #[test]
    fn all_forms_give_the_same_matrix() {
        let named = table(&[("a", false), ("b", false)]);
        for text in [
            "[[1, 2], [3, null]]",
            r#"[[1, "2"], ["3", null]]"#,
            r#"[{"b": 2, "a": 1}, {"a": 3, "b": null}]"#,
            r#"[{"b": 2, "a": 1}, {"a": 3}]"#,
            r#"{"b": [2, null], "a": [true, 3.0]}"#,
        ] {
            assert_eq!(read(&named, text).unwrap(), ["input-0 [1.0, 2.0, 3.0, NaN]"], "{text}");
        }
        let unnamed = table(&[("", false), ("", false)]);
        assert_eq!(
            read(&unnamed, r#"[{"x": 1, "y": 2}, {"y": 4, "x": 3}]"#).unwrap(),
            ["input-0 [1.0, 2.0, 3.0, 4.0]"]
        );
    }

    #[test]
    fn a_model_of_any_width_takes_rows_of_one_width() {
        let any = table(&[]);
        for text in ["[[1, 2], [3, null]]", r#"[[true, "2"], [3, null]]"#, r#"[{"a": 1, "b": 2}, {"b": null, "a": 3}]"#]
        {
            assert_eq!(read(&any, text).unwrap(), ["input-0 [1.0, 2.0, 3.0, NaN]"], "{text}");
        }
        assert_eq!(
            read(&any, "[[1, 2], [true]]").unwrap_err().message(),
            "instances[1]: expected rows of equal length"
        );
    }

    #[test]
    fn text_stays_what_it_was() {
        let mixed = table(&[("city", true), ("age", false)]);
        for text in [
            r#"[["Köln", 7], [null, 8]]"#,
            r#"[{"city": "Köln", "age": 7}, {"age": 8}]"#,
            r#"{"age": [7, "8"], "city": ["Köln", null]}"#,
        ] {
            assert_eq!(read(&mixed, text).unwrap(), [r#"city "Köln" null"#, "age [7.0, 8.0]"], "{text}");
        }
        let words = table(&[("", true)]);
        assert_eq!(read(&words, r#"["a b", "c"]"#).unwrap(), [r#"input-0 "a b" "c""#]);
        assert_eq!(read(&words, r#"[["a b"], ["c"]]"#).unwrap(), [r#"input-0 "a b" "c""#]);
    }

    #[test]
    fn numbers_are_categories_by_name_and_codes_by_place() {
        let column = |name: &str, takes| ColumnSpec { name: Some(name.into()), takes, ..ColumnSpec::default() };
        let columns = vec![column("store", Takes::NumericCategories), column("age", Takes::Numbers)];
        let stores = TableSpec::new(columns, Matching::default());
        for (text, expected) in [
            (r#"[{"store": 30, "age": 7}, {"age": 8, "store": null}]"#, r#"store "30" null"#),
            (r#"{"age": [7, 8], "store": [-1.5, "30"]}"#, r#"store "-1.5" "30""#),
            ("[[0, 7], [null, 8]]", "store 0 null"),
        ] {
            assert_eq!(read(&stores, text).unwrap(), [expected, "age [7.0, 8.0]"], "{text}");
        }
    }

    #[test]
    fn integers_stay_integers_where_that_counts() {
        let column = |name: &str| ColumnSpec { name: Some(name.into()), takes: Takes::Typed, ..ColumnSpec::default() };
        let typed = TableSpec::new(vec![column("a"), column("b")], Matching::default());
        let read = |table: &TableSpec, text: &str| {
            let tensors = match text.as_bytes()[0] {
                b'{' => columns("inputs", text, table).unwrap(),
                _ => list("instances", text, table).unwrap(),
            };
            let arranged = table.arrange(&tensors).unwrap();
            (arranged[0].dtype(), arranged.iter().map(|tensor| tensor.data().to_vec()).collect::<Vec<_>>().concat())
        };
        for text in ["[[1, -2]]", r#"[{"b": -2, "a": 1}]"#, r#"{"a": [1], "b": [-2]}"#] {
            let integers: Vec<u8> = [1_i64, -2].iter().flat_map(|value| value.to_le_bytes()).collect();
            assert_eq!(read(&typed, text), (DType::Int64, integers), "{text}");
            assert_eq!(read(&table(&[("a", false), ("b", false)]), text).0, DType::Fp64);
        }
        // Lists are of one type, objects' columns each of their own.
        for (text, dtype) in [
            ("[[1, -2.0]]", DType::Fp64),
            (r#"[{"b": 1, "a": -2e0}]"#, DType::Fp64),
            (r#"[{"b": -2e0, "a": 1}]"#, DType::Int64),
            (r#"{"a": [null], "b": [1]}"#, DType::Fp64),
            (r#"[[1, "2"]]"#, DType::Fp64),
            ("[[true, false]]", DType::Bool),
            ("[[true, 2]]", DType::Int64),
            (r#"[{"a": true, "b": 1}, {"a": 2, "b": 1}]"#, DType::Fp64),
        ] {
            assert_eq!(read(&typed, text).0, dtype, "{text}");
        }
    }

    #[test]
    fn each_mistake_is_named() {
        let named = table(&[("a", false), ("b", false)]);
        let cases = [
            ("[[1]]", "X has 1 features, but the model is expecting 2 features as input"),
            ("[[1, 2], [1, 2, 3]]", "instances[1]: X has 3 features, but the model is expecting 2 features as input"),
            (r#"[[1, "x"]]"#, r#"instances[0]: "b": could not convert string to float: 'x'"#),
            (r#"[{"a": 1, "a": 2}]"#, r#"instances[0]: "a": is given more than once"#),
            (r#"[{"a": [1], "b": 2}]"#, r#"instances[0]: "a": expected a value, got a list or an object"#),
            (
                r#"[{"a": 1, "c": 2}]"#,
                r#"instances: The feature names should match those that were passed during fit. Feature names unseen at fit time: "c". Feature names seen at fit time, yet now missing: "b"."#,
            ),
            (r#"{"a": [1], "b": [1, 2]}"#, r#"inputs: "b" has 2 values, others have 1"#),
            (
                "[1, 2]",
                "instances[0]: Expected 2D array, got 1D array instead: each instance is a list of values or an object by column name",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(read(&named, text).unwrap_err().message(), message, "{text}");
        }
    }
}
