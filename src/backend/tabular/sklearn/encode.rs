//! Encoders of categories. Whatever a category becomes is worked out when the model is read: a request's value is
//! looked up once.

use std::sync::Arc;

use super::cells::{Categories, repr};
use super::decode::{Columns, Decoder, Places};
use super::read;
use crate::backend::tabular::data::{Cell, Data, Matrix, Sparse};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, Takes, irreversible, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::tensor::DType;

pub const CLASSES: &[(&str, Build)] =
    &[("OneHotEncoder", one_hot), ("OrdinalEncoder", ordinal), ("TargetEncoder", target)];

/// What each category of a column becomes.
struct Coding<Code> {
    categories: Categories,
    codes: Vec<Code>,
    /// What values of no category become; `None` refuses them.
    unknown: Option<Code>,
}

impl<Code> Coding<Code> {
    /// The code of each row.
    ///
    /// # Errors
    /// In scikit-learn's words, when a value is of no category and none may be.
    fn of(&self, rows: &Data, column: usize) -> Result<Vec<&Code>> {
        let places = self.categories.places(rows, column)?;
        let code = |(row, place): (usize, Option<usize>)| match place {
            Some(place) => Ok(&self.codes[place]),
            None => self.unknown.as_ref().ok_or_else(|| {
                let found = repr(rows, row, column);
                Error::invalid(format!("Found unknown categories [{found}] in column {column} during transform"))
            }),
        };
        places.into_iter().enumerate().map(code).collect()
    }
}

/// `categories_` of every column, with what infrequent ones are grouped to since 1.1.
struct Grouped<'g> {
    categories: Vec<Categories>,
    /// Of each column, the group of each category.
    groups: Vec<Option<Vec<usize>>>,
    /// Of each column, some infrequent category.
    infrequent: Vec<Option<usize>>,
    node: Node<'g>,
}

impl<'g> Grouped<'g> {
    fn read(node: Node<'g>) -> Result<Grouped<'g>> {
        let categories: Vec<Categories> =
            node.read("categories_", |node| node.items()?.map(Categories::read).collect())?;
        let columns = categories.len();
        let mut grouped = Grouped { groups: vec![None; columns], infrequent: vec![None; columns], categories, node };
        // Only one-hot encoders grouped categories at first.
        let is_one_hot = node.class().is_some_and(|class| *class.name == *"OneHotEncoder");
        let since = if is_one_hot { (1, 1) } else { (1, 3) };
        if read::option_since(since, node, "_infrequent_enabled", Node::bool)? == Some(true) {
            grouped.groups = grouped.of_each_column("_default_to_infrequent_mappings")?;
            let infrequent = grouped.of_each_column("_infrequent_indices")?;
            grouped.infrequent = infrequent.into_iter().map(|places| places?.first().copied()).collect();
        }
        for (column, categories) in grouped.categories.iter().enumerate() {
            let mut places = grouped.groups[column].iter().flatten().chain(&grouped.infrequent[column]);
            if places.any(|place| *place >= categories.count) {
                return Err(Error::load(format!("column {column} groups categories that it does not have")));
            }
        }
        Ok(grouped)
    }

    fn of_each_column(&self, name: &str) -> Result<Vec<Option<Vec<usize>>>> {
        let places = |node: Node<'_>| -> Result<Option<Vec<usize>>> {
            if node.is_none() {
                return Ok(None);
            }
            let numbers = node.numbers()?.vector(None)?;
            Ok(Some(numbers.into_iter().map(|place| if place < 0.0 { usize::MAX } else { place as usize }).collect()))
        };
        let all: Vec<_> = self.node.read(name, |node| node.items()?.map(places).collect::<Result<_>>())?;
        if all.len() != self.categories.len() {
            return Err(Error::load(format!("{name} are of {} columns, not {}", all.len(), self.categories.len())));
        }
        Ok(all)
    }

    /// The group of a category: itself, when they are not grouped.
    fn group(&self, column: usize, category: usize) -> usize {
        self.groups[column].as_ref().map_or(category, |groups| groups.get(category).copied().unwrap_or(category))
    }

    /// `None` when categories are no numbers, or grouped.
    fn decoder(&self, special: &[Option<usize>]) -> Result<Option<Decoder>> {
        if self.groups.iter().any(Option::is_some) { Ok(None) } else { Decoder::read(self.node, special) }
    }

    fn codings<Code>(
        self,
        mut code: impl FnMut(&Grouped<'g>, usize) -> Result<(Vec<Code>, Option<Code>)>,
    ) -> Result<Vec<Coding<Code>>> {
        let codes = (0..self.categories.len()).map(|column| code(&self, column)).collect::<Result<Vec<_>>>()?;
        let coding = |(categories, (codes, unknown))| Coding { categories, codes, unknown };
        Ok(self.categories.into_iter().zip(codes).map(coding).collect())
    }
}

/// A column for each category, or group of infrequent ones, except those that are dropped.
struct OneHot {
    /// The column out that is 1, none when the category was dropped.
    codings: Vec<Coding<Option<u32>>>,
    columns: usize,
    /// Of each column, the column out that stands for infrequent categories.
    infrequent: Vec<Option<u32>>,
    /// `None` when categories are no numbers, or grouped.
    back: Option<Columns>,
    /// Columns out are named after their categories.
    named: bool,
    sparse: bool,
    gives: Option<DType>,
}

fn one_hot(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let grouped = Grouped::read(node)?;
    let features = grouped.categories.len();
    let unknown = node.read("handle_unknown", Node::text)?;
    // `drop_idx_` was of groups until 1.2 said so with a name of its own.
    let name = if read::version(node) < (1, 2) { "drop_idx_" } else { "_drop_idx_after_grouping" };
    let dropped = read::option(node, name, places)?.unwrap_or_else(|| vec![None; features]);
    if dropped.len() != features {
        return Err(Error::load(format!("drop_idx_ is of {} columns, not {features}", dropped.len())));
    }
    let decoder = grouped.decoder(&dropped)?;
    let back = decoder.map(|decoder| Columns { decoder, dropped: dropped.clone(), strict: unknown == "error" });
    let (mut columns, mut infrequent) = (0_usize, Vec::new());
    let codings = grouped.codings(|grouped, column| {
        let count = grouped.categories[column].count;
        let kept = (0..count).map(|category| grouped.group(column, category)).max().map_or(0, |most| most + 1);
        let drop = dropped[column];
        let code = |category: usize| {
            let group = grouped.group(column, category);
            let shift = match drop {
                Some(drop) if group == drop => return None,
                Some(drop) => usize::from(group > drop),
                None => 0,
            };
            Some((columns + group - shift) as u32)
        };
        infrequent.push(grouped.infrequent[column].and_then(code));
        let unknown = match unknown {
            "error" => None,
            "ignore" => Some(None),
            "infrequent_if_exist" | "warn" => Some(infrequent[column]),
            other => return Err(unsupported("handle_unknown", other)),
        };
        let codes = (0..count).map(code).collect();
        columns += kept - usize::from(drop.is_some_and(|drop| drop < kept));
        Ok((codes, unknown))
    })?;
    // `sparse` was renamed in 1.2, and the old name stayed until 1.4.
    let sparse = match node.find("sparse_output") {
        Some(_) => node.read("sparse_output", Node::bool)?,
        None => node.read("sparse", Node::bool)?,
    };
    let named = node.some("feature_name_combiner").is_none_or(|given| given.text().is_ok_and(|it| it == "concat"));
    Ok(Box::new(OneHot { codings, columns, infrequent, back, named, sparse, gives: read::dtype(node) }))
}

/// Places, of which some may be None.
fn places(node: Node<'_>) -> Result<Vec<Option<usize>>> {
    let array = node.array()?;
    match array.integers() {
        Ok(places) => places.into_iter().map(|place| Ok(usize::try_from(place).ok())).collect(),
        Err(_) => node.items()?.map(|item| if item.is_none() { Ok(None) } else { item.usize().map(Some) }).collect(),
    }
}

impl Estimator for OneHot {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let codings = self.codings.iter().enumerate();
        let codes = codings.map(|(column, coding)| coding.of(rows, column)).collect::<Result<Vec<_>>>()?;
        let ones = |row: usize| codes.iter().filter_map(move |codes| *codes[row]);
        if self.sparse {
            let mut out = Sparse::with_columns(self.columns);
            for row in 0..rows.rows() {
                ones(row).for_each(|column| out.push(column as usize, 1.0));
                out.end_row();
            }
            return Ok(Data::Sparse(out));
        }
        let mut out = Matrix { single: self.gives == Some(DType::Fp32), ..Matrix::zeros(rows.rows(), self.columns) };
        for row in 0..out.rows {
            ones(row).for_each(|column| out.row_mut(row)[column as usize] = 1.0);
        }
        Ok(Data::Dense(out))
    }

    fn can_invert(&self) -> bool {
        self.back.is_some()
    }

    fn inverse_transform(&self, rows: &Matrix) -> Result<Matrix> {
        self.back.as_ref().ok_or_else(irreversible)?.invert(rows)
    }

    fn inverse_gives(&self) -> Option<DType> {
        self.back.as_ref().map(|back| back.decoder.gives)
    }

    fn gives(&self) -> Option<DType> {
        self.gives
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        let mut out = vec![Arc::from(""); self.columns];
        for ((coding, infrequent), name) in self.codings.iter().zip(&self.infrequent).zip(names) {
            for (category, code) in coding.categories.names.iter().zip(&coding.codes) {
                let Some(code) = code else { continue };
                let category = if Some(*code) == *infrequent { "infrequent_sklearn" } else { category };
                out[*code as usize] = format!("{name}_{category}").into();
            }
        }
        self.named.then_some(out)
    }

    fn features(&self) -> Option<usize> {
        Some(self.codings.len())
    }

    fn takes(&self, column: usize) -> Takes {
        Takes::text_if(self.codings.get(column).is_some_and(|coding| coding.categories.has_text()))
    }

    fn example(&self, column: usize) -> Option<Cell> {
        self.codings.get(column)?.categories.example.clone()
    }

    fn knows_none(&self, column: usize) -> bool {
        self.codings.get(column).is_some_and(|coding| coding.categories.has_none())
    }
}

/// Some numbers for each category.
struct Numbered {
    codings: Vec<Coding<Vec<f64>>>,
    /// Numbers of a category.
    width: usize,
    /// What each of them is called when there are several.
    classes: Vec<Arc<str>>,
    /// Of places; `None` when categories are no numbers, or grouped.
    back: Option<Places>,
    gives: Option<DType>,
}

/// A category's place among the others.
fn ordinal(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let grouped = Grouped::read(node)?;
    let unknown = match node.read("handle_unknown", Node::text)? {
        "error" => None,
        "use_encoded_value" => Some(vec![node.read("unknown_value", Node::float)?]),
        other => return Err(unsupported("handle_unknown", other)),
    };
    // Before 1.1 the missing stayed missing.
    let missing = read::option_since((1, 1), node, "encoded_missing_value", Node::float)?.unwrap_or(f64::NAN);
    let mut missing_at = vec![None; grouped.categories.len()];
    for (column, place) in node.read("_missing_indices", Node::entries)? {
        if let Some(column) = missing_at.get_mut(column.usize()?) {
            *column = Some(place.usize()?);
        }
    }
    let code_of_unknown = unknown.as_ref().map(|unknown| unknown[0]);
    let back = grouped.decoder(&missing_at)?.map(|decoder| Places {
        decoder,
        missing,
        missing_at: missing_at.clone(),
        unknown: code_of_unknown,
    });
    let codings = grouped.codings(|grouped, column| {
        let code = |category: usize| {
            let is_missing = missing_at[column] == Some(category);
            vec![if is_missing { missing } else { grouped.group(column, category) as f64 }]
        };
        Ok(((0..grouped.categories[column].count).map(code).collect(), unknown.clone()))
    })?;
    Ok(Box::new(Numbered { codings, width: 1, classes: Vec::new(), back, gives: read::dtype(node) }))
}

/// A category's mean target, drawn towards the mean of all; one for each class when there are more than two.
fn target(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let grouped = Grouped::read(node)?;
    let classes = match node.read("target_type_", Node::text)? {
        "multiclass" => node.read("classes_", Categories::read)?.names,
        _ => Vec::new(),
    };
    let width = if classes.is_empty() { 1 } else { classes.len() };
    let means = node.read("target_mean_", |node| node.numbers()?.vector(Some(width)))?;
    let encodings: Vec<Vec<f64>> = node.read("encodings_", |node| {
        node.items()?.map(|encoding| encoding.numbers()?.vector(None)).collect::<Result<_>>()
    })?;
    if encodings.len() != grouped.categories.len() * width {
        return Err(Error::load(format!(
            "{} encodings_ for {} columns and {width} classes",
            encodings.len(),
            grouped.categories.len()
        )));
    }
    let codings = grouped.codings(|grouped, column| {
        let (count, encodings) = (grouped.categories[column].count, &encodings[column * width..][..width]);
        if encodings.iter().any(|encoding| encoding.len() != count) {
            return Err(Error::load(format!("encodings_ of column {column} are not of {count} categories")));
        }
        let code = |category: usize| encodings.iter().map(|encoding| encoding[category]).collect();
        Ok(((0..count).map(code).collect(), Some(means.clone())))
    })?;
    Ok(Box::new(Numbered { codings, width, classes, back: None, gives: None }))
}

impl Estimator for Numbered {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let mut out = Matrix::zeros(rows.rows(), self.codings.len() * self.width);
        for (column, coding) in self.codings.iter().enumerate() {
            for (row, code) in coding.of(rows, column)?.into_iter().enumerate() {
                out.row_mut(row)[column * self.width..][..self.width].copy_from_slice(code);
            }
        }
        out.single = self.gives == Some(DType::Fp32);
        out.rounded();
        Ok(Data::Dense(out))
    }

    fn can_invert(&self) -> bool {
        self.back.is_some()
    }

    fn inverse_transform(&self, rows: &Matrix) -> Result<Matrix> {
        self.back.as_ref().ok_or_else(irreversible)?.invert(rows)
    }

    fn inverse_gives(&self) -> Option<DType> {
        self.back.as_ref().map(|back| back.decoder.gives)
    }

    fn gives(&self) -> Option<DType> {
        self.gives
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        if self.classes.is_empty() {
            return Some(names.to_vec());
        }
        let classes = |name: &Arc<str>| {
            let name = name.clone();
            self.classes.iter().map(move |class| format!("{name}_{class}").into())
        };
        Some(names.iter().flat_map(classes).collect())
    }

    fn features(&self) -> Option<usize> {
        Some(self.codings.len())
    }

    fn takes(&self, column: usize) -> Takes {
        Takes::text_if(self.codings.get(column).is_some_and(|coding| coding.categories.has_text()))
    }

    fn example(&self, column: usize) -> Option<Cell> {
        self.codings.get(column)?.categories.example.clone()
    }

    fn knows_none(&self, column: usize) -> bool {
        self.codings.get(column).is_some_and(|coding| coding.categories.has_none())
    }
}
