//! Transformers that know missing values: `SimpleImputer` and `MissingIndicator`.

use std::borrow::Cow;
use std::sync::Arc;

use super::cells::{cell, cells};
use super::{beside, read};
use crate::backend::tabular::data::{Cell, Cells, Column, Data, Matrix, Sparse, Table, is_float, stored};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, Takes, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::{Node, Value};
use crate::tensor::DType;

pub const CLASSES: &[(&str, Build)] = &[("SimpleImputer", simple), ("MissingIndicator", indicator)];

/// Which values are missing.
#[derive(Clone, Debug, PartialEq)]
pub enum Missing {
    /// NaN and None, both of which JSON calls null.
    Null,
    Is(Cell),
}

impl Missing {
    /// Reads the option `missing_values`.
    pub fn read(node: Node<'_>) -> Result<Missing> {
        let cell = node.read("missing_values", cell)?;
        Ok(if cell.is_missing() { Missing::Null } else { Missing::Is(cell) })
    }

    pub fn number(&self, value: f64) -> bool {
        match self {
            Missing::Null => value.is_nan(),
            Missing::Is(Cell::Number(missing)) => value == *missing,
            Missing::Is(Cell::Bool(missing)) => value == f64::from(u8::from(*missing)),
            Missing::Is(_) => false,
        }
    }

    fn cell(&self, cell: &Cell) -> bool {
        match (self, cell) {
            (Missing::Null, cell) => cell.is_missing(),
            (_, Cell::Number(value)) => self.number(*value),
            (_, Cell::Bool(value)) => self.number(f64::from(u8::from(*value))),
            (Missing::Is(missing), cell) => missing == cell,
        }
    }

    /// scikit-learn's check of numbers: NaN may be there only when it means missing.
    fn check(&self, rows: &Matrix) -> Result<()> {
        if *self == Missing::Null { rows.check_not_infinite() } else { rows.check_finite() }
    }

    /// The rows of imputers that compute, which take no sparse ones.
    pub fn checked<'a>(&self, rows: &'a Data) -> Result<Cow<'a, Matrix>> {
        if let Data::Sparse(_) = rows {
            return Err(read::sparse());
        }
        let dense = rows.dense()?;
        self.check(&dense)?;
        Ok(dense)
    }

    /// Whether a value is missing in each row of a column.
    fn column(&self, rows: &Data, column: usize, keeps_none: bool) -> Vec<bool> {
        match rows {
            Data::Dense(matrix) | Data::Typed(matrix, _) => {
                matrix.iter_rows().map(|row| self.number(row[column])).collect()
            }
            Data::Sparse(sparse) => {
                let at = |row| sparse.row(row).find(|(at, _)| *at == column).is_some_and(|(_, v)| self.number(v));
                (0..sparse.rows).map(at).collect()
            }
            Data::Table(table) => match &table.columns[column].cells {
                Cells::Numbers(values) => values.iter().map(|value| self.number(*value)).collect(),
                Cells::Mixed(cells) => {
                    cells.iter().map(|cell| self.cell(cell) && !(keeps_none && *cell == Cell::None)).collect()
                }
            },
        }
    }
}

/// A column of each feature that had missing values: 1 where one is missing.
pub struct MissingIndicator {
    missing: Missing,
    features: usize,
    columns: Vec<usize>,
    /// Of each feature, whether None is a value: see [`Estimator::keep_none`].
    keeps_none: Vec<bool>,
    /// `None` for whatever the rows are.
    sparse: Option<bool>,
    /// Refuses missing values in other columns.
    error_on_new: bool,
    takes_text: bool,
}

impl MissingIndicator {
    pub fn read(node: Node<'_>) -> Result<MissingIndicator> {
        let features = node.read("_n_features", Node::usize)?;
        let columns = node.read("features_", |node| node.array()?.integers())?;
        let columns = columns.into_iter().map(|column| usize::try_from(column).ok().filter(|it| *it < features));
        let columns = columns.collect::<Option<Vec<_>>>();
        let sparse = node.read("sparse", |node| match node.value() {
            Value::Text(_) => Ok(None),
            _ => node.bool().map(Some),
        })?;
        let error_on_new = node.read("error_on_new", Node::bool)?;
        Ok(MissingIndicator {
            missing: Missing::read(node)?,
            features,
            keeps_none: Vec::new(),
            columns: columns.ok_or_else(|| Error::load("features_ are not of the columns"))?,
            sparse,
            error_on_new: error_on_new && node.read("features", Node::text)? == "missing-only",
            takes_text: node.read("missing_values", |node| Ok(matches!(node.value(), Value::None | Value::Text(_))))?,
        })
    }

    /// The indicator that an imputer was fitted with when it adds one.
    pub fn added(node: Node<'_>, features: usize) -> Result<Option<MissingIndicator>> {
        if !node.read("add_indicator", Node::bool)? {
            return Ok(None);
        }
        let indicator = node.read("indicator_", MissingIndicator::read)?;
        if indicator.features != features {
            return Err(Error::load(format!("indicator_ is of {} columns, not {features}", indicator.features)));
        }
        Ok(Some(indicator))
    }

    /// The columns that an imputer filled, and those that it adds.
    pub fn beside(indicator: Option<&MissingIndicator>, filled: Data, rows: &Data) -> Result<Data> {
        let Some(indicator) = indicator else { return Ok(filled) };
        let mask = match (&filled, indicator.mask(rows)?) {
            (Data::Table(_), _) => indicator.objects(rows),
            (Data::Dense(filled), Data::Dense(mask)) => Data::Dense(Matrix { single: filled.single, ..mask }),
            (_, mask) => mask,
        };
        let sparse = matches!(filled, Data::Sparse(_));
        beside::beside(rows.rows(), vec![filled, mask], sparse)
    }

    /// Of the columns that an imputer keeps, and of those that it adds.
    pub fn names_beside(
        indicator: Option<&MissingIndicator>,
        kept: impl Iterator<Item = usize>,
        names: &[Arc<str>],
    ) -> Vec<Arc<str>> {
        let added = indicator.and_then(|indicator| indicator.names_out(names)).unwrap_or_default();
        kept.map(|column| names[column].clone()).chain(added).collect()
    }

    fn missing(&self, rows: &Data, column: usize) -> Vec<bool> {
        self.missing.column(rows, column, self.keeps_none.get(column) == Some(&true))
    }

    /// Truth values beside text.
    fn objects(&self, rows: &Data) -> Data {
        let column = |column: &usize| {
            let missing = self.missing(rows, *column).into_iter();
            Column { name: None, cells: Cells::Mixed(missing.map(Cell::Bool).collect()), dtype: None }
        };
        Data::Table(Table { rows: rows.rows(), columns: self.columns.iter().map(column).collect() })
    }

    fn mask(&self, rows: &Data) -> Result<Data> {
        if self.error_on_new {
            for column in (0..self.features).filter(|column| !self.columns.contains(column)) {
                if self.missing(rows, column).contains(&true) {
                    return Err(Error::invalid(format!(
                        "The features [{column}] have missing values in transform but have no missing values in fit."
                    )));
                }
            }
        }
        if self.sparse.unwrap_or(matches!(rows, Data::Sparse(_))) {
            let masks: Vec<Vec<bool>> = self.columns.iter().map(|column| self.missing(rows, *column)).collect();
            let mut out = Sparse::with_columns(masks.len());
            for row in 0..rows.rows() {
                masks.iter().enumerate().for_each(|(column, mask)| out.push(column, f64::from(u8::from(mask[row]))));
                out.end_row();
            }
            return Ok(Data::Sparse(out));
        }
        let mut out = Matrix::zeros(rows.rows(), self.columns.len());
        for (place, column) in self.columns.iter().enumerate() {
            for (row, missing) in self.missing(rows, *column).into_iter().enumerate() {
                out.row_mut(row)[place] = f64::from(u8::from(missing));
            }
        }
        Ok(Data::Dense(out))
    }
}

fn indicator(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    Ok(Box::new(MissingIndicator::read(node)?))
}

impl Estimator for MissingIndicator {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        if let Data::Dense(matrix) | Data::Typed(matrix, _) = rows {
            self.missing.check(matrix)?;
        }
        self.mask(rows)
    }

    fn gives(&self) -> Option<DType> {
        Some(DType::Bool)
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        Some(self.columns.iter().map(|column| format!("missingindicator_{}", names[*column]).into()).collect())
    }

    fn features(&self) -> Option<usize> {
        Some(self.features)
    }

    fn takes(&self, _column: usize) -> Takes {
        Takes::text_if(self.takes_text)
    }
}

/// A value of the column in place of each that is missing.
struct SimpleImputer {
    missing: Missing,
    /// Columns that are kept, with what is put into them. Those without any value are dropped.
    fills: Vec<(usize, Cell)>,
    features: usize,
    /// It was fitted with text, or with a mixture. 1.0 does not say: then it is as the rows are.
    objects: Option<bool>,
    strategy: Box<str>,
    indicator: Option<MissingIndicator>,
    /// As [`MissingIndicator`]'s.
    keeps_none: Vec<bool>,
}

fn simple(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let statistics = node.read("statistics_", cells)?;
    let features = statistics.len();
    let strategy = node.read("strategy", |node| match node.value() {
        Value::Text(text) => Ok(text.clone()),
        _ => Err(unsupported("strategy", "a function")),
    })?;
    // A constant stood for columns without any value too, until 1.8.
    let keeps = read::option_since((1, 2), node, "keep_empty_features", Node::bool)? == Some(true)
        || (*strategy == *"constant" && read::version(node) < (1, 8));
    let is_nan = |cell: &Cell| matches!(cell, Cell::Number(value) if value.is_nan());
    let fills = statistics.into_iter().enumerate().filter(|(_, cell)| keeps || !is_nan(cell)).collect();
    let objects = read::option_since((1, 1), node, "_fit_dtype", |node| match node.value() {
        Value::ElementType(element) => Ok(element.is_object()),
        _ => Err(node.expected("a dtype")),
    })?;
    let objects = objects.or(matches!(&*strategy, "mean" | "median").then_some(false));
    let indicator = MissingIndicator::added(node, features)?;
    Ok(Box::new(SimpleImputer {
        missing: Missing::read(node)?,
        fills,
        features,
        objects,
        strategy,
        indicator,
        keeps_none: Vec::new(),
    }))
}

impl SimpleImputer {
    fn dense(&self, rows: &Matrix) -> Result<Data> {
        self.missing.check(rows)?;
        let fills = self.fills.iter().map(|(column, fill)| Ok((*column, fill.number()?)));
        let fills = fills.collect::<Result<Vec<_>>>()?;
        let mut values = Vec::with_capacity(rows.rows * fills.len());
        for row in rows.iter_rows() {
            let filled = fills.iter().map(|(column, fill)| (row[*column], *fill));
            values.extend(filled.map(|(value, fill)| if self.missing.number(value) { fill } else { value }));
        }
        let mut out = Matrix { rows: rows.rows, columns: fills.len(), values, single: rows.single };
        out.rounded();
        Ok(Data::Dense(out))
    }

    fn table(&self, rows: &Data) -> Result<Data> {
        let columns = beside::columns(rows)?;
        let column = |(column, fill): &(usize, Cell)| {
            let Column { name, cells, dtype } = &columns[*column];
            let cells = match (cells, fill) {
                (Cells::Numbers(values), Cell::Number(fill)) => {
                    let filled = |value: &f64| if self.missing.number(*value) { *fill } else { *value };
                    Cells::Numbers(values.iter().map(filled).collect())
                }
                (cells, fill) => {
                    let cells = (0..cells.len()).map(|row| cells.get(row));
                    let keeps_none = self.keeps_none.get(*column) == Some(&true) || *fill == Cell::None;
                    let is_missing = |cell: &Cell| self.missing.cell(cell) && !(keeps_none && *cell == Cell::None);
                    Cells::Mixed(cells.map(|cell| if is_missing(&cell) { fill.clone() } else { cell }).collect())
                }
            };
            Column { name: name.clone(), cells, dtype: *dtype }
        };
        Ok(Data::Table(Table { rows: rows.rows(), columns: self.fills.iter().map(column).collect() }))
    }

    fn sparse(&self, rows: &Sparse) -> Result<Data> {
        if self.missing.number(0.0) {
            return Err(Error::invalid(
                "Imputation not possible when missing_values == 0 and input is sparse. Provide a dense array instead.",
            ));
        }
        let kept: Vec<usize> = self.fills.iter().map(|(column, _)| *column).collect();
        let fills = self.fills.iter().map(|(_, fill)| fill.number()).collect::<Result<Vec<_>>>()?;
        let Data::Sparse(kept) = Data::Sparse(rows.clone()).select(&kept) else { return Err(read::sparse()) };
        let fill = |column: usize, value| if self.missing.number(value) { fills[column] } else { value };
        Ok(Data::Sparse(kept.map_nonzero(fill)))
    }
}

impl Estimator for SimpleImputer {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let filled = match rows {
            Data::Sparse(sparse) => self.sparse(sparse)?,
            rows if self.objects.unwrap_or(rows.has_text()) => self.table(rows)?,
            rows => {
                let numbers = rows.dense().map_err(|error| {
                    error.context(format_args!("Cannot use {} strategy with non-numeric data", self.strategy))
                })?;
                match (self.dense(&numbers)?, rows.dtype()) {
                    // Others than means keep the type of the rows, also of what is put in.
                    (Data::Dense(mut filled), dtype)
                        if !matches!(&*self.strategy, "mean" | "median") && !is_float(dtype) =>
                    {
                        filled.values.iter_mut().for_each(|value| *value = stored(*value, dtype));
                        Data::of_type(filled, dtype)
                    }
                    (filled, _) => filled,
                }
            }
        };
        MissingIndicator::beside(self.indicator.as_ref(), filled, rows)
    }

    fn keep_none(&mut self, columns: &[bool]) {
        if self.missing != Missing::Null {
            return;
        }
        // Of the columns that come out, those that are kept are first.
        self.keeps_none = vec![false; self.features];
        self.fills.iter().zip(columns).for_each(|((column, _), keeps)| self.keeps_none[*column] = *keeps);
        self.indicator.iter_mut().for_each(|indicator| indicator.keeps_none.clone_from(&self.keeps_none));
    }

    /// Only an imputer that marks what it fills can say what it filled. What marks for regressed numbers mean is not
    /// for us to say, so there is an inverse where nothing was missing.
    fn can_invert(&self) -> bool {
        self.indicator.as_ref().is_some_and(|indicator| indicator.columns.is_empty())
    }

    fn inverse_transform(&self, rows: &Matrix) -> Result<Matrix> {
        rows.check_columns(self.features)?;
        Ok(Matrix { single: false, ..rows.clone() })
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        let kept = self.fills.iter().map(|(column, _)| *column);
        Some(MissingIndicator::names_beside(self.indicator.as_ref(), kept, names))
    }

    fn features(&self) -> Option<usize> {
        Some(self.features)
    }

    fn takes(&self, column: usize) -> Takes {
        let any_text = || self.fills.iter().any(|(_, fill)| matches!(fill, Cell::Text(_) | Cell::None));
        let keeps_none = self.keeps_none.get(column) == Some(&true);
        Takes::text_if(keeps_none || self.objects.unwrap_or_else(any_text))
    }
}
