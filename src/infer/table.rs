//! Requests to a model that takes rows of a table: one matrix, or one tensor for each column, by name or by place.
//! Whatever form they come in, they leave in the one form that the model's signature lists, so that requests of
//! different forms still share a batch.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::TensorSpec;
use super::columns::{beside, cells, column, nothing, numbers, numeric};
use crate::error::{Error, Result};
use crate::tensor::{DType, Excerpt, Shape, Tensor};

/// The columns that a model was fitted with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSpec {
    /// Empty when any number of columns will do.
    pub columns: Vec<ColumnSpec>,
    pub matching: Matching,
    /// Names of what explanations are of, which may be what a pipeline makes of these columns; empty when not known.
    pub explained: Vec<Arc<str>>,
    /// The form in which requests reach the model: one matrix, or a tensor for each column.
    form: Vec<TensorSpec>,
}

/// What a column may hold. Of several estimators that take the same column, the one that takes most decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Takes {
    #[default]
    Numbers,
    /// Numbers of which the type counts: an integer is answered otherwise than the same number as a fraction.
    Typed,
    /// Text, truth values and numbers.
    Text,
    /// Categories that are numbers, or their codes. A column given by name holds categories, as that of a frame; they
    /// travel as text, for the numbers of a matrix are codes, as those of an array.
    NumericCategories,
}

impl Takes {
    pub const fn text_if(may_hold_text: bool) -> Takes {
        if may_hold_text { Takes::Text } else { Takes::Numbers }
    }

    /// What the column travels as.
    pub const fn dtype(self) -> DType {
        match self {
            Takes::Numbers | Takes::Typed => DType::Fp64,
            Takes::Text | Takes::NumericCategories => DType::Json,
        }
    }
}

/// How the names of a request find the model's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matching {
    /// Whether columns that the model does not know may come along, as a column transformer lets them.
    pub ignores_unknown: bool,
    /// Whether the model's names have `_` where there were spaces, as lightgbm writes them.
    pub underscored: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnSpec {
    /// `None` when the model was fitted without names.
    pub name: Option<Arc<str>>,
    pub takes: Takes,
    /// Whether a request may leave it out.
    pub optional: bool,
    /// Whether it makes no difference what it holds, as that of a column that is dropped.
    pub unused: bool,
    /// The type that clients are told, where a signature declares one.
    pub declared: Option<DType>,
}

impl ColumnSpec {
    /// A JSON scalar of the column when that is given by name.
    pub fn named_cell<'a>(&self, cell: &'a [u8]) -> Cow<'a, [u8]> {
        match cell {
            [b'-' | b'0'..=b'9', ..] if self.takes == Takes::NumericCategories => [b"\"", cell, b"\""].concat().into(),
            _ => cell.into(),
        }
    }
}

/// The name of the one input that is the whole matrix, KServe's for an unnamed tensor.
pub const MATRIX: &str = "input-0";

impl TableSpec {
    pub fn new(columns: Vec<ColumnSpec>, matching: Matching) -> TableSpec {
        let mut table = TableSpec { columns, matching, explained: Vec::new(), form: Vec::new() };
        table.form = if table.is_matrix() {
            let width = (!table.columns.is_empty()).then_some(table.columns.len());
            vec![TensorSpec { name: MATRIX.into(), dtype: DType::Fp64, dims: vec![None, width] }]
        } else {
            table.each_column_form()
        };
        table
    }

    /// Whether all columns travel as one matrix.
    pub fn is_matrix(&self) -> bool {
        self.columns.iter().all(|column| column.takes.dtype() == DType::Fp64)
    }

    /// Whether numbers reach the model in the type in which they came: as one matrix, or each column in its own.
    pub fn keeps_types(&self) -> bool {
        self.columns.iter().any(|column| column.takes == Takes::Typed)
    }

    /// What reaches the model.
    pub fn form(&self) -> &[TensorSpec] {
        &self.form
    }

    /// What clients are told: the columns, when a signature declares them or there is text, else the matrix.
    pub fn inputs(&self) -> Vec<TensorSpec> {
        if self.columns.iter().all(|column| column.declared.is_none()) {
            return self.form.clone();
        }
        self.each_column(|column| column.declared.unwrap_or(column.takes.dtype()))
    }

    fn each_column(&self, dtype: impl Fn(&ColumnSpec) -> DType) -> Vec<TensorSpec> {
        let spec = |(place, column): (usize, &ColumnSpec)| TensorSpec {
            name: column.name.clone().unwrap_or_else(|| format!("input-{place}").into()),
            dtype: dtype(column),
            dims: vec![None],
        };
        self.columns.iter().enumerate().map(spec).collect()
    }

    /// The column of this name.
    pub fn position(&self, name: &str) -> Option<usize> {
        let find = |name: &str| self.columns.iter().position(|column| column.name.as_deref() == Some(name));
        find(name)
            .or_else(|| (self.matching.underscored && name.contains(' ')).then(|| find(&name.replace(' ', "_")))?)
    }

    /// Whether columns are told apart by name.
    pub fn has_names(&self) -> bool {
        self.columns.iter().any(|column| column.name.is_some())
    }

    /// Brings a request's tensors into the signature's form: `FP64`, or `FP32` when the whole matrix came so, or any
    /// type of numbers where it counts.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid), in scikit-learn's words where it has some.
    pub fn arrange(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let arranged = match inputs {
            [] => return Err(Error::invalid("the request has no inputs")),
            [matrix] if matrix.shape().dims().len() == 2 && !self.is_column(matrix) => self.arrange_matrix(matrix)?,
            columns => self.arrange_columns(columns)?,
        };
        match arranged.iter().find(|tensor| tensor.rows() != arranged[0].rows()) {
            Some(other) => Err(Error::invalid(format!(
                "inputs disagree on the number of rows: \"{}\" has {}, \"{}\" has {}",
                arranged[0].name(),
                arranged[0].rows(),
                other.name(),
                other.rows()
            ))),
            None if arranged[0].rows() == 0 => {
                Err(Error::invalid("Found array with 0 sample(s) while a minimum of 1 is required."))
            }
            None => Ok(arranged),
        }
    }

    /// A single tensor of shape [n, 1] is a matrix of one column just as well, unless it says whose column it is.
    fn is_column(&self, tensor: &Tensor) -> bool {
        tensor.shape().dims()[1] == 1 && self.columns.len() != 1 && self.position(tensor.name()).is_some()
    }

    fn arrange_matrix(&self, matrix: &Tensor) -> Result<Vec<Tensor>> {
        let [rows, width] = [matrix.shape().dims()[0], matrix.shape().dims()[1]];
        if !self.columns.is_empty() && width != self.columns.len() {
            return Err(self.wrong_width(width));
        }
        let place = |error: Error| error.context(format_args!("input \"{}\"", Excerpt(matrix.name())));
        let is_text = matrix.dtype().size().is_none();
        if self.is_matrix() && !(is_text && self.columns.iter().any(|column| column.unused)) {
            let (dtype, data) = match matrix.dtype() {
                DType::Fp64 | DType::Fp32 => (matrix.dtype(), matrix.data().clone()),
                dtype if self.keeps_types() && !is_text && dtype != DType::Bf16 => (dtype, matrix.data().clone()),
                _ => (DType::Fp64, numbers(matrix).map_err(place)?.into()),
            };
            let shape = matrix.shape().clone();
            return Ok(vec![Tensor::new(self.form[0].name.clone(), dtype, shape, data)?]);
        }
        let cells: Vec<Bytes> = cells(matrix).map_err(place)?;
        let columns = self.each_column_form().into_iter().enumerate().map(|(place, spec)| {
            if self.columns[place].unused {
                return nothing(&spec, rows);
            }
            column(&spec, rows, cells.iter().skip(place).step_by(width).map(|cell| &**cell))
        });
        self.joined(columns.collect::<Result<_>>()?)
    }

    /// Columns in the form that reaches the model.
    fn joined(&self, columns: Vec<Tensor>) -> Result<Vec<Tensor>> {
        if self.is_matrix() { Ok(vec![beside(&self.form[0], &columns)?]) } else { Ok(columns) }
    }

    /// One spec for each column, also where they travel as a matrix.
    fn each_column_form(&self) -> Vec<TensorSpec> {
        self.each_column(|column| column.takes.dtype())
    }

    fn arrange_columns(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let mut given: Vec<Option<&Tensor>> = vec![None; self.columns.len()];
        let mut unknown = Vec::new();
        for (place, tensor) in inputs.iter().enumerate() {
            let dims = tensor.shape().dims();
            if !matches!(dims, [_] | [_, 1]) {
                return Err(Error::invalid(format!(
                    "input \"{}\": expected a column of shape [rows] or [rows, 1], got {}",
                    Excerpt(tensor.name()),
                    tensor.shape()
                )));
            }
            let by_place = || (!self.has_names() && place < given.len()).then_some(place);
            match self.position(tensor.name()).or_else(by_place) {
                Some(known) if given[known].is_some() => {
                    return Err(Error::invalid(format!(
                        "input \"{}\" is given more than once",
                        Excerpt(tensor.name())
                    )));
                }
                Some(known) => given[known] = Some(tensor),
                None => unknown.push(tensor.name().as_ref()),
            }
        }
        if self.columns.is_empty() {
            let columns =
                inputs.iter().map(|tensor| numeric(tensor.name().clone(), tensor)).collect::<Result<Vec<_>>>()?;
            return Ok(vec![beside(&self.form[0], &columns)?]);
        }
        if !self.has_names() && inputs.len() != self.columns.len() {
            return Err(self.wrong_width(inputs.len()));
        }
        let missing: Vec<&str> = self.missing(|place| given[place].is_some());
        self.check_names(&missing, &unknown)?;
        let rows = inputs.first().map_or(0, Tensor::rows);
        let columns = self.each_column_form().into_iter().enumerate().map(|(place, spec)| match given[place] {
            Some(tensor) if self.columns[place].unused => nothing(&spec, tensor.rows()),
            // V1's rows are cells already.
            Some(tensor) if spec.dtype == DType::Json && tensor.dtype() == DType::Json => {
                column(&spec, tensor.rows(), tensor.bytes_elements())
            }
            Some(tensor) if spec.dtype == DType::Json => {
                let cells = cells(tensor)?;
                let cells = cells.iter().map(|cell| self.columns[place].named_cell(cell));
                let cells: Vec<Cow<'_, [u8]>> = cells.collect();
                column(&spec, tensor.rows(), cells.iter().map(|cell| &**cell))
            }
            Some(tensor) if self.keeps_type(place, tensor.dtype()) => {
                let shape = Shape::new(vec![tensor.rows()])?;
                Tensor::new(spec.name.clone(), tensor.dtype(), shape, tensor.data().clone())
            }
            Some(tensor) => numeric(spec.name.clone(), tensor),
            None => nothing(&spec, rows),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let keep_their_types = columns.iter().any(|column| is_whole(column.dtype()));
        match columns.as_slice() {
            [only] if keep_their_types => {
                let shape = Shape::new(vec![only.rows(), 1])?;
                Ok(vec![Tensor::new(self.form[0].name.clone(), only.dtype(), shape, only.data().clone())?])
            }
            _ if keep_their_types => Ok(columns),
            _ => self.joined(columns),
        }
    }

    /// Whether the type in which a column comes counts: that of singles does everywhere.
    fn keeps_type(&self, place: usize, dtype: DType) -> bool {
        dtype == DType::Fp32 || (self.columns[place].takes == Takes::Typed && is_whole(dtype))
    }

    /// Names of required columns that are not given.
    pub fn missing(&self, is_given: impl Fn(usize) -> bool) -> Vec<&str> {
        let missing = self.columns.iter().enumerate().filter(|(place, column)| !column.optional && !is_given(*place));
        missing.map(|(_, column)| column.name.as_deref().unwrap_or("?")).collect()
    }

    /// # Errors
    /// When columns are missing, or unknown and not to be ignored.
    pub fn check_names(&self, missing: &[&str], unknown: &[&str]) -> Result<()> {
        if self.matching.ignores_unknown {
            return if missing.is_empty() {
                Ok(())
            } else {
                Err(Error::invalid(format!("columns are missing: {}", list(missing))))
            };
        }
        let mut text = String::new();
        if !unknown.is_empty() {
            text += &format!(" Feature names unseen at fit time: {}.", list(unknown));
        }
        if !missing.is_empty() {
            text += &format!(" Feature names seen at fit time, yet now missing: {}.", list(missing));
        }
        if text.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(format!("The feature names should match those that were passed during fit.{text}")))
    }

    pub fn wrong_width(&self, width: usize) -> Error {
        if self.columns.is_empty() {
            return Error::invalid("expected rows of equal length");
        }
        Error::invalid(format!(
            "X has {width} features, but the model is expecting {} features as input",
            self.columns.len()
        ))
    }
}

/// Whether these are numbers that numpy has in a type without fractions.
fn is_whole(dtype: DType) -> bool {
    dtype.is_integer() || dtype == DType::Bool
}

/// Names in quotes, bounded.
fn list(names: &[&str]) -> String {
    const SHOWN: usize = 16;
    let mut shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("\"{}\"", Excerpt(name))).collect();
    if names.len() > SHOWN {
        shown.push(format!("and {} more", names.len() - SHOWN));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::push_bytes_element;

    fn spec(columns: &[(&str, bool)]) -> TableSpec {
        let column = |(name, text): &(&str, bool)| ColumnSpec {
            name: (!name.is_empty()).then(|| (*name).into()),
            takes: Takes::text_if(*text),
            ..ColumnSpec::default()
        };
        TableSpec::new(columns.iter().map(column).collect(), Matching::default())
    }

    fn tensor(name: &str, dims: &[usize], values: &[f32]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::new(name, DType::Fp32, Shape::new(dims.to_vec()).unwrap(), data.into()).unwrap()
    }

    fn text(name: &str, dims: &[usize], values: &[&str]) -> Tensor {
        let mut data = Vec::new();
        values.iter().for_each(|value| push_bytes_element(&mut data, value.as_bytes()).unwrap());
        Tensor::new(name, DType::Bytes, Shape::new(dims.to_vec()).unwrap(), data.into()).unwrap()
    }

    fn arrange(spec: &TableSpec, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        spec.arrange(inputs)
    }

    fn doubles(tensor: &Tensor) -> Vec<f64> {
        numbers(tensor).unwrap().as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
    }

    #[test]
    fn columns_by_name_or_place_become_the_matrix_that_a_matrix_is() {
        let named = spec(&[("a", false), ("b", false)]);
        let swapped = vec![tensor("b", &[2], &[3.0, 4.0]), tensor("a", &[2, 1], &[1.0, 2.0])];
        let arranged = arrange(&named, &swapped).unwrap();
        assert_eq!((arranged[0].name().as_ref(), doubles(&arranged[0])), (MATRIX, vec![1.0, 3.0, 2.0, 4.0]));
        assert_eq!(arranged[0].dtype(), DType::Fp32, "as of singles alone");
        let placed = vec![text("x", &[2], &["1", " 2 "]), tensor("y", &[2], &[3.0, 4.0])];
        let placed = arrange(&spec(&[("", false), ("", false)]), &placed).unwrap();
        assert_eq!((placed[0].dtype(), doubles(&placed[0])), (DType::Fp64, doubles(&arranged[0])));
        let matrix = arrange(&named, &[tensor("whatever", &[2, 2], &[1.0, 3.0, 2.0, 4.0])]).unwrap();
        assert_eq!((matrix[0].dtype(), matrix[0].name().as_ref()), (DType::Fp32, MATRIX));
    }

    #[test]
    fn columns_that_may_hold_text_travel_as_json() {
        let mixed = spec(&[("city", true), ("age", false)]);
        let columns = vec![text("city", &[2], &["Köln", "a\"b"]), tensor("age", &[2], &[1.5, f32::NAN])];
        let arranged = arrange(&mixed, &columns).unwrap();
        let cells: Vec<_> = arranged[0].bytes_elements().map(|cell| std::str::from_utf8(cell).unwrap()).collect();
        assert_eq!(cells, ["\"Köln\"", "\"a\\\"b\""]);
        assert!(doubles(&arranged[1])[1].is_nan());
        let arranged = arrange(&mixed, &[text("m", &[1, 2], &["Ulm", "7"])]).unwrap();
        assert_eq!(doubles(&arranged[1]), [7.0]);
    }

    #[test]
    fn numbers_are_categories_by_name_and_codes_by_place() {
        let mut stores = spec(&[("store", false), ("age", false)]).columns;
        stores[0].takes = Takes::NumericCategories;
        let stores = TableSpec::new(stores, Matching::default());
        let cells = |inputs: &[Tensor]| {
            let arranged = arrange(&stores, inputs).unwrap();
            arranged[0].bytes_elements().map(|cell| String::from_utf8_lossy(cell).into_owned()).collect::<Vec<_>>()
        };
        let columns = [tensor("age", &[2], &[1.0, 2.0]), tensor("store", &[2], &[30.0, f32::NAN])];
        assert_eq!(cells(&columns), ["\"30.0\"", "null"]);
        assert_eq!(cells(&[tensor("x", &[1, 2], &[0.0, 1.0])]), ["0.0"]);
    }

    #[test]
    fn integers_keep_their_type_where_it_counts() {
        let mut columns = spec(&[("a", false), ("b", false)]).columns;
        columns[0].takes = Takes::Typed;
        let typed = TableSpec::new(columns, Matching::default());
        let short = |name: &str, dims: &[usize], dtype, data: &'static [u8]| {
            Tensor::new(name, dtype, Shape::new(dims.to_vec()).unwrap(), data.into()).unwrap()
        };
        let matrix = short("m", &[1, 2], DType::Int8, &[1, 0xff]);
        assert_eq!(arrange(&typed, std::slice::from_ref(&matrix)).unwrap()[0].dtype(), DType::Int8);
        let columns = [short("b", &[1], DType::Int8, &[0xff]), short("a", &[1], DType::Uint8, &[1])];
        let types =
            |columns: &[Tensor]| arrange(&typed, columns).unwrap().iter().map(Tensor::dtype).collect::<Vec<_>>();
        assert_eq!(types(&columns), [DType::Uint8, DType::Fp64], "each in its own, of those that it counts of");
        let fraction = [columns[0].clone(), tensor("a", &[1], &[1.0])];
        assert_eq!(types(&fraction), [DType::Fp64], "as one matrix");
        assert_eq!(arrange(&spec(&[("", false), ("", false)]), &[matrix]).unwrap()[0].dtype(), DType::Fp64);
    }

    #[test]
    fn names_with_spaces_match_underscores_only_where_these_were_lost() {
        let columns = spec(&[("a_b", false)]).columns;
        let [kept, lost] = [false, true].map(|underscored| {
            let matching = Matching { underscored, ..Matching::default() };
            TableSpec::new(columns.clone(), matching).position("a b")
        });
        assert_eq!((kept, lost), (None, Some(0)));
    }

    #[test]
    fn each_mistake_is_named() {
        let named = spec(&[("a", false), ("b", false)]);
        let cases = [
            (vec![], "the request has no inputs"),
            (vec![tensor("x", &[1, 3], &[0.0; 3])], "X has 3 features, but the model is expecting 2 features as input"),
            (
                vec![tensor("a", &[1], &[0.0]), tensor("c", &[1], &[0.0])],
                "The feature names should match those that were passed during fit. Feature names unseen at fit time: \"c\". Feature names seen at fit time, yet now missing: \"b\".",
            ),
            (
                vec![text("a", &[1], &["x"]), tensor("b", &[1], &[0.0])],
                "column \"a\": could not convert string to float: 'x'",
            ),
            (
                vec![tensor("a", &[1], &[0.0]), tensor("b", &[2], &[0.0; 2])],
                "inputs disagree on the number of rows: \"a\" has 1, others 2",
            ),
            (vec![tensor("a", &[1], &[0.0]), tensor("a", &[1], &[0.0])], "input \"a\" is given more than once"),
            (
                vec![tensor("a", &[1, 2, 1], &[0.0; 2])],
                "input \"a\": expected a column of shape [rows] or [rows, 1], got [1, 2, 1]",
            ),
            (vec![tensor("x", &[0, 2], &[])], "Found array with 0 sample(s) while a minimum of 1 is required."),
        ];
        for (inputs, message) in cases {
            assert_eq!(arrange(&named, &inputs).unwrap_err().message(), message);
        }
    }
}
