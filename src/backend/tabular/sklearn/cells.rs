//! Values that may be numbers, text, or missing: as the file has them, and how a request's are found among them.

use std::collections::HashMap;
use std::sync::Arc;

use super::read;
use crate::backend::tabular::data::{Cell, Cells, Data, bits};
use crate::error::{Error, Result};
use crate::formats::graph::{Elements, Node, Value};

/// One value as Python has it. A number of numpy counts as Python's.
pub fn cell(node: Node<'_>) -> Result<Cell> {
    match node.value() {
        Value::None => Ok(Cell::None),
        Value::Bool(value) => Ok(Cell::Bool(*value)),
        Value::Text(text) => Ok(Cell::Text(Arc::from(&**text))),
        Value::Array(array) if array.is_scalar() => {
            let mut cells = cells(node)?;
            cells.pop().ok_or_else(|| node.expected("a value"))
        }
        _ => Ok(Cell::Number(node.float()?)),
    }
}

/// The values of an array of numbers, bools, text or objects, or of a list.
pub fn cells(node: Node<'_>) -> Result<Vec<Cell>> {
    let Value::Array(array) = node.value() else { return node.items()?.map(cell).collect() };
    match &array.elements {
        Elements::Objects(items) => items.iter().map(|id| cell(node.at(*id))).collect(),
        Elements::Plain { element, .. } if matches!(element.kind, b'U' | b'S') => {
            Ok(array.texts()?.into_iter().map(|text| Cell::Text(text.into())).collect())
        }
        Elements::Plain { element, .. } => {
            let is_bool = element.kind == b'b';
            let cell = |value| if is_bool { Cell::Bool(value != 0.0) } else { Cell::Number(value) };
            Ok(array.numbers()?.values.into_iter().map(cell).collect())
        }
    }
}

/// The categories of one column, found by value as Python compares: `True` is 1, and JSON's null is whichever of NaN
/// and None there is.
pub struct Categories {
    pub count: usize,
    /// One of them, which is not missing if there is one.
    pub example: Option<Cell>,
    texts: HashMap<Arc<str>, usize>,
    numbers: HashMap<u64, usize>,
    /// What Python's `str()` makes of each, in order.
    pub names: Vec<Arc<str>>,
    none: Option<usize>,
    nan: Option<usize>,
}

impl Categories {
    /// Reads one array of `categories_`.
    ///
    /// # Errors
    /// When it holds something that is no category, or whole numbers that an `f64` does not tell apart.
    pub fn read(node: Node<'_>) -> Result<Categories> {
        let cells = cells(node)?;
        let integers = are_integers(node, cells.len());
        let greatest = |cell: &Cell| matches!(cell, Cell::Number(value) if value.abs() > GREATEST_INTEGER);
        if let Some(place) = (0..cells.len()).find(|place| integers[*place] && greatest(&cells[*place])) {
            return Err(Error::load(format!(
                "category {} is a number beyond 2^53, which requests cannot tell from its neighbours: train with text",
                cells[place].text()
            )));
        }
        let mut categories = Categories {
            count: cells.len(),
            names: names(&cells, &integers),
            example: cells.iter().find(|cell| !cell.is_missing()).or(cells.first()).cloned(),
            texts: HashMap::new(),
            numbers: HashMap::new(),
            none: None,
            nan: None,
        };
        for (place, cell) in cells.into_iter().enumerate() {
            match cell {
                Cell::None => categories.none = Some(place),
                Cell::Number(value) if value.is_nan() => categories.nan = Some(place),
                Cell::Number(value) => drop(categories.numbers.entry(bits(value)).or_insert(place)),
                Cell::Bool(value) => {
                    categories.numbers.entry(bits(f64::from(u8::from(value)))).or_insert(place);
                }
                Cell::Text(text) => drop(categories.texts.entry(text).or_insert(place)),
            }
        }
        Ok(categories)
    }

    /// Whether None is one of them.
    pub fn has_none(&self) -> bool {
        self.none.is_some()
    }

    /// Whether there are others than numbers.
    pub fn has_text(&self) -> bool {
        !self.texts.is_empty() || self.none.is_some()
    }

    fn number(&self, value: f64) -> Option<usize> {
        if value.is_nan() { self.nan.or(self.none) } else { self.numbers.get(&bits(value)).copied() }
    }

    fn find(&self, cell: &Cell) -> Option<usize> {
        match cell {
            Cell::None => self.none.or(self.nan),
            Cell::Number(value) => self.number(*value),
            Cell::Bool(value) => self.number(f64::from(u8::from(*value))),
            Cell::Text(text) => self.texts.get(text).copied(),
        }
    }

    /// The category of each row's value in a column; `None` where there is no such category.
    ///
    /// # Errors
    /// When a number is infinite, or the rows are sparse.
    pub fn places(&self, rows: &Data, column: usize) -> Result<Vec<Option<usize>>> {
        let number = |value: f64| {
            if value.is_infinite() {
                return Err(Error::invalid("Input contains infinity or a value too large for dtype('float64')."));
            }
            Ok(self.number(value))
        };
        match rows {
            Data::Dense(matrix) | Data::Typed(matrix, _) => matrix.iter_rows().map(|row| number(row[column])).collect(),
            Data::Sparse(_) => Err(read::sparse()),
            Data::Table(table) => match &table.columns[column].cells {
                Cells::Numbers(values) => values.iter().map(|value| number(*value)).collect(),
                Cells::Mixed(cells) => {
                    let is_number = |cell: &Cell| matches!(cell, Cell::Number(_) | Cell::Bool(_));
                    // numpy does not compare a column of numbers with text, but one of both.
                    if !self.texts.is_empty() && self.numbers.is_empty() && cells.iter().all(is_number) {
                        return Err(Error::invalid(format!(
                            "column {column} holds numbers where it held text in training: send them as text"
                        )));
                    }
                    Ok(cells.iter().map(|cell| self.find(cell)).collect())
                }
            },
        }
    }
}

/// Beyond it lie more integers than numbers of `f64`.
const GREATEST_INTEGER: f64 = (1_u64 << 53) as f64;

/// Of each value of an array, whether Python has it as an integer.
fn are_integers(node: Node<'_>, count: usize) -> Vec<bool> {
    let integers = matches!(node.value(), Value::Array(array)
        if matches!(&array.elements, Elements::Plain { element, .. } if matches!(element.kind, b'i' | b'u')));
    let is_integer = |place: usize| {
        let item = || match node.value() {
            Value::Array(array) if let Elements::Objects(items) = &array.elements => Some(node.at(*items.get(place)?)),
            _ => None,
        };
        integers || item().is_some_and(|item| matches!(item.value(), Value::Int(_)))
    };
    (0..count).map(is_integer).collect()
}

/// What Python's `str()` makes of values.
fn names(cells: &[Cell], integers: &[bool]) -> Vec<Arc<str>> {
    let name = |(cell, is_integer): (&Cell, &bool)| match cell {
        Cell::Number(value) if *is_integer => (*value as i64).to_string().into(),
        other => other.text(),
    };
    cells.iter().zip(integers).map(name).collect()
}

/// The value of a row in a column, as Python would print it.
pub fn repr(rows: &Data, row: usize, column: usize) -> String {
    let cell = match rows {
        Data::Dense(matrix) | Data::Typed(matrix, _) => Cell::Number(matrix.row(row)[column]),
        Data::Table(table) => table.columns[column].cells.get(row),
        Data::Sparse(_) => Cell::None,
    };
    match cell {
        Cell::Text(text) => format!("'{}'", crate::tensor::Excerpt(&text)),
        other => other.text().to_string(),
    }
}
