//! Columns of pandas' type `category`. Boosters see codes 0, 1, .. in place of the categories, which their files list.
//! A request gives either: text is a category; a number is a category where categories are numbers and the column is
//! given by name, as in a frame, else a code, as in an array.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::data::{Cell, Cells, Data, Matrix, bits};
use super::estimator::Takes;
use crate::error::{Error, Result};
use crate::tensor::Excerpt;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Category {
    Text(Arc<str>),
    Bool(bool),
    /// The bits of an `f64`.
    Number(u64),
}

impl Category {
    pub fn number(value: f64) -> Category {
        Category::Number(bits(value))
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Category::Text(text) => write!(f, "\"{}\"", Excerpt(text)),
            Category::Bool(value) => write!(f, "{value}"),
            Category::Number(bits) => write!(f, "{}", f64::from_bits(*bits)),
        }
    }
}

/// What becomes of a category that training did not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// It counts as missing: lightgbm's way.
    Missing,
    /// It is refused: xgboost's way.
    Refused,
    /// All are, since the file does not tell the categories.
    Untold,
}

/// The categories of one column.
#[derive(Clone, Debug)]
pub struct Categories {
    codes: HashMap<Category, usize>,
    unseen: Unseen,
    takes: Takes,
}

impl Categories {
    /// The categories in the order of their codes.
    ///
    /// # Errors
    /// [`Kind::Load`](crate::error::Kind::Load) when one is there twice, or they are of several kinds.
    pub fn new(categories: impl IntoIterator<Item = Category>, unseen: Unseen) -> Result<Categories> {
        let mut codes = HashMap::new();
        let (mut numbers, mut are_codes) = (0, true);
        for (code, category) in categories.into_iter().enumerate() {
            numbers += usize::from(matches!(category, Category::Number(_)));
            are_codes &= category == Category::number(code as f64);
            if let Some(first) = codes.insert(category.clone(), code) {
                return Err(Error::load(format!("categories {first} and {code} are both {category}")));
            }
        }
        let takes = match numbers {
            0 => Takes::Text,
            _ if numbers != codes.len() => {
                return Err(Error::load("the categories of a column are numbers and others: train with text for all"));
            }
            // To whom any number will do, codes and categories are the same.
            _ if are_codes && unseen != Unseen::Refused => Takes::Numbers,
            _ => Takes::NumericCategories,
        };
        Ok(Categories { codes, unseen, takes })
    }

    pub fn takes(&self) -> Takes {
        self.takes
    }

    /// The code of a cell, NaN for a missing one.
    ///
    /// # Errors
    /// When a number should be a code and is none, or a category is unseen and that is refused.
    fn code(&self, cell: &Cell) -> Result<f64> {
        let category = match cell {
            Cell::None => return Ok(f64::NAN),
            Cell::Number(number) => return self.checked(*number),
            Cell::Bool(value) => Category::Bool(*value),
            Cell::Text(text) => match text.trim().parse() {
                Ok(number) if self.takes != Takes::Text => Category::number(number),
                _ => Category::Text(text.clone()),
            },
        };
        match (self.codes.get(&category), self.unseen) {
            (Some(code), _) => Ok(*code as f64),
            (None, Unseen::Missing) => Ok(f64::NAN),
            (None, Unseen::Untold) => Err(Error::invalid(
                "the model's file does not tell what its categories were called (xgboost garbles names that are not \
                 ASCII): give their codes",
            )),
            (None, Unseen::Refused) => Err(Error::invalid(format!("{category} is no category of the training set"))),
        }
    }

    /// Where categories are numbers, too, one that cannot be a code is most likely a category. (Negative codes are
    /// pandas' for missing values.)
    fn checked(&self, code: f64) -> Result<f64> {
        let is_code = code.is_nan() || (code.fract() == 0.0 && code < self.codes.len() as f64);
        if is_code || self.takes != Takes::NumericCategories {
            return Ok(code);
        }
        let last = self.codes.len().saturating_sub(1);
        Err(Error::invalid(format!("{code} is no code from 0 to {last}: to give categories, name the columns")))
    }
}

/// For each column its categories, if it has some.
#[derive(Clone, Debug)]
pub struct Coding(Vec<Option<Categories>>);

impl Coding {
    pub fn new(columns: Vec<Option<Categories>>) -> Coding {
        Coding(columns)
    }

    pub fn takes(&self, column: usize) -> Takes {
        self.0.get(column).and_then(Option::as_ref).map_or(Takes::Numbers, Categories::takes)
    }

    /// Rows with codes in place of categories.
    ///
    /// # Errors
    /// When a value is neither a category nor a number, in the words of [`Categories`] and of Python.
    pub fn coded<'a>(&self, rows: &'a Data) -> Result<Cow<'a, Matrix>> {
        let Data::Table(table) = rows else { return rows.dense() };
        let mut table = table.clone();
        for (place, (column, categories)) in table.columns.iter_mut().zip(&self.0).enumerate() {
            if let (Some(categories), Cells::Mixed(cells)) = (categories, &column.cells) {
                let codes = cells.iter().map(|cell| categories.code(cell)).collect::<Result<_>>();
                let name = column.name.clone().unwrap_or_else(|| place.to_string().into());
                column.cells = Cells::Numbers(codes.map_err(|error| error.context(format_args!("column \"{name}\"")))?);
            }
        }
        Ok(Cow::Owned(Data::Table(table).dense()?.into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::tabular::data::{Column, Table};

    fn coding(categories: Vec<Category>, unseen: Unseen) -> Coding {
        Coding::new(vec![Some(Categories::new(categories, unseen).unwrap())])
    }

    fn code(coding: &Coding, cell: Cell) -> Result<f64> {
        let column = Column { name: None, cells: Cells::Mixed(vec![cell]), dtype: None };
        Ok(coding.coded(&Data::Table(Table { rows: 1, columns: vec![column] }))?.values[0])
    }

    fn text(text: &str) -> Cell {
        Cell::Text(text.into())
    }

    #[test]
    fn text_is_a_category_and_a_number_its_code() {
        let words = coding(vec![Category::Text("a".into()), Category::Text("7".into())], Unseen::Missing);
        assert_eq!(words.takes(0), Takes::Text);
        assert_eq!([text("7"), Cell::Number(1.0), text("a")].map(|cell| code(&words, cell).unwrap()), [1.0, 1.0, 0.0]);
        assert!(code(&words, text("b")).unwrap().is_nan() && code(&words, Cell::None).unwrap().is_nan());
        let numbers = coding([30.0, 7.5].map(Category::number).to_vec(), Unseen::Refused);
        assert_eq!(numbers.takes(0), Takes::NumericCategories);
        assert_eq!([text("7.50"), Cell::Number(0.0)].map(|cell| code(&numbers, cell).unwrap()), [1.0, 0.0]);
        assert_eq!(
            code(&numbers, text("8")).unwrap_err().message(),
            "column \"0\": 8 is no category of the training set"
        );
        let told = "column \"0\": 30 is no code from 0 to 1: to give categories, name the columns";
        assert_eq!(code(&numbers, Cell::Number(30.0)).unwrap_err().message(), told);
        let codes = coding([0.0, 1.0].map(Category::number).to_vec(), Unseen::Missing);
        assert_eq!(codes.takes(0), Takes::Numbers);
        let refusing = coding([0.0, 1.0].map(Category::number).to_vec(), Unseen::Refused);
        assert_eq!(refusing.takes(0), Takes::NumericCategories);
        assert!(code(&refusing, text("7")).unwrap_err().message().contains("7 is no category"));
        let garbled = coding(Vec::new(), Unseen::Untold);
        assert_eq!((garbled.takes(0), code(&garbled, Cell::Number(4.0)).unwrap()), (Takes::Text, 4.0));
        assert!(code(&garbled, text("K")).unwrap_err().message().contains("give their codes"));
    }

    #[test]
    fn categories_that_cannot_be_told_apart_are_refused() {
        for (categories, told) in [
            (vec![Category::number(0.0), Category::number(-0.0)], "categories 0 and 1 are both 0"),
            (vec![Category::number(1.0), Category::Text("1".into())], "numbers and others"),
        ] {
            assert!(Categories::new(categories, Unseen::Missing).unwrap_err().message().contains(told), "{told}");
        }
    }
}
