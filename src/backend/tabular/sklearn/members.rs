//! What ensembles have in common: members with the columns that they see, the classes that a member knows, and
//! members that are trees as one forest.

use std::collections::HashMap;

use super::read;
use super::trees::{normalise, read_tree, seen};
use crate::backend::tabular::data::{Data, Labels, Matrix, bits};
use crate::backend::tabular::estimator::{Builder, Contributions, Estimator, Method, Takes};
use crate::backend::tabular::forest::{Forest, Grown, InputPrecision};
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::formats::trees::{Kind, Tree};

/// A fitted estimator of an ensemble, not yet built.
pub struct Member<'g> {
    pub node: Node<'g>,
    /// The columns that it sees; `None` for all of them.
    pub columns: Option<Vec<usize>>,
}

impl<'g> Member<'g> {
    /// Those of `estimators_`, of which each sees all columns.
    pub fn all(node: Node<'g>) -> Result<Vec<Member<'g>>> {
        let nodes = node.read("estimators_", Node::items)?;
        let members: Vec<Member<'g>> = nodes.map(|node| Member { node, columns: None }).collect();
        if members.is_empty() { Err(Error::load("estimators_ is empty")) } else { Ok(members) }
    }

    /// Those of `estimators_` with their columns in `estimators_features_`.
    pub fn with_columns(node: Node<'g>, features: usize) -> Result<Vec<Member<'g>>> {
        let mut members = Member::all(node)?;
        let subsets: Vec<Node<'g>> = node.read("estimators_features_", Node::items)?.collect();
        if subsets.len() != members.len() {
            return Err(Error::load(format!("{} estimators with {} features", members.len(), subsets.len())));
        }
        for (number, (member, subset)) in members.iter_mut().zip(subsets).enumerate() {
            let subset = subset.numbers()?.vector(None)?;
            if let Some(beyond) = subset.iter().find(|column| !(0.0..features as f64).contains(*column)) {
                return Err(Error::load(format!("estimators_features_[{number}]: column {beyond} of {features}")));
            }
            let subset: Vec<usize> = subset.into_iter().map(|column| column as usize).collect();
            member.columns = (!subset.iter().copied().eq(0..features)).then_some(subset);
        }
        Ok(members)
    }

    /// Makes a tree that sees only the member's columns see all of them.
    pub fn rename(&self, tree: &mut Tree) -> Result<()> {
        let Some(columns) = &self.columns else { return Ok(()) };
        for node in &mut tree.nodes {
            if let Kind::Split { feature: seen, .. } = &mut node.kind {
                let column = columns.get(*seen as usize);
                *seen = *column.ok_or_else(|| Error::load(format!("feature {seen} of {}", columns.len())))? as u32;
            }
        }
        Ok(())
    }

    fn is_tree(&self) -> bool {
        let name = self.node.class().map(|class| &*class.name);
        matches!(
            name,
            Some("DecisionTreeClassifier" | "DecisionTreeRegressor" | "ExtraTreeClassifier" | "ExtraTreeRegressor")
        )
    }
}

/// A member that was built.
pub struct Built {
    estimator: Box<dyn Estimator>,
    columns: Option<Vec<usize>>,
}

impl Built {
    pub fn all(members: Vec<Member<'_>>, builder: &mut Builder) -> Result<Vec<Built>> {
        let estimators = builder.build_all(members.iter().map(|member| member.node))?;
        let columns = members.into_iter().map(|member| member.columns);
        Ok(estimators.into_iter().zip(columns).map(|(estimator, columns)| Built { estimator, columns }).collect())
    }

    pub fn can(&self, method: Method) -> bool {
        self.estimator.can(method)
    }

    /// Asks it about the columns that it sees.
    pub fn ask<T>(&self, rows: &Data, answer: impl FnOnce(&dyn Estimator, &Data) -> Result<T>) -> Result<T> {
        match &self.columns {
            None => answer(&*self.estimator, rows),
            Some(columns) => answer(&*self.estimator, &rows.select(columns)),
        }
    }

    pub fn takes(&self, column: usize) -> Takes {
        match &self.columns {
            None => self.estimator.takes(column),
            Some(columns) => columns
                .iter()
                .position(|own| *own == column)
                .map(|place| self.estimator.takes(place))
                .unwrap_or_default(),
        }
    }
}

/// Trees whose leaves say what each contributes to an ensemble's sums.
pub struct Trees {
    forest: Box<Forest>,
    knows_missing: bool,
}

impl Trees {
    /// Makes a forest of an ensemble's members when all are trees of one output. Each adds `width` values from output
    /// `first(member)` on, which `contribute(member, values)` makes of a leaf's mean or shares of classes; those are
    /// `width` already, or this is `None` too.
    pub fn of(
        members: &[Member<'_>],
        features: usize,
        (outputs, width): (usize, usize),
        first: impl Fn(usize) -> usize,
        mut contribute: impl FnMut(usize, &mut [f64]),
    ) -> Result<Option<Trees>> {
        if !members.iter().all(Member::is_tree) {
            return Ok(None);
        }
        let mut trees = Vec::with_capacity(members.len());
        let mut knows_missing = true;
        for (number, member) in members.iter().enumerate() {
            let place = |error: Error| error.context(format_args!("tree {number}"));
            let read = member.node.read("tree_", read_tree).map_err(place)?;
            if read.width != width || member.node.read("n_outputs_", Node::usize)? != 1 {
                return Ok(None);
            }
            let mut tree = read.tree;
            if read::has_classes(member.node) && !read::holds_shares(member.node)? {
                normalise(&mut tree.leaves, width);
            }
            tree.leaves.chunks_exact_mut(width).for_each(|values| contribute(number, values));
            member.rename(&mut tree).map_err(place)?;
            knows_missing &= read.knows_missing;
            trees.push((tree, first(number)));
        }
        let grown = Grown { features, outputs, width, input: InputPrecision::Single, trees };
        Ok(Some(Trees { forest: Box::new(Forest::compile(grown)?), knows_missing }))
    }

    /// As [`Estimator::visit_forests`].
    pub fn visit_forests(&mut self, visit: &mut dyn FnMut(&mut Forest) -> Result<()>) -> Result<()> {
        visit(&mut self.forest)
    }

    /// The sums of what the trees contribute, a row for each row.
    pub fn sums(&self, rows: &Data) -> Result<Matrix> {
        let dense = seen(rows, self.knows_missing)?;
        let outputs = self.forest.outputs();
        Ok(Matrix::new(dense.rows, outputs, self.forest.sums(&dense.values, &vec![0.0; outputs])?))
    }

    /// What each feature contributes to the means of what the trees contribute.
    pub fn explain_mean(&self, rows: &Data) -> Result<Contributions> {
        let dense = seen(rows, self.knows_missing)?;
        let mut parts = self.forest.explain(&dense, &vec![0.0; self.forest.outputs()])?;
        parts.values.iter_mut().for_each(|value| *value /= self.forest.trees() as f64);
        Ok(parts)
    }
}

/// The classes that an estimator knows, which pipelines and the like keep in the estimator inside.
pub fn classes(node: Node<'_>) -> Result<Labels> {
    read::classes(classifier(node)?)
}

/// The estimator that keeps the classes.
pub fn classifier(node: Node<'_>) -> Result<Node<'_>> {
    let mut node = node;
    for _ in 0..32 {
        if read::has_classes(node) {
            return Ok(node);
        }
        let inner = ["best_estimator_", "final_estimator_", "estimator_", "estimator"];
        node = if let Some(steps) = node.some("steps") {
            let last = steps.items()?.last().ok_or_else(|| Error::load("steps is empty"))?;
            let [_, last] = last.tuple()?;
            last
        } else {
            let inner = inner.iter().find_map(|name| node.some(name));
            inner.ok_or_else(|| Error::load("attribute \"classes_\" is missing (is the model fitted?)"))?
        };
    }
    Err(Error::load("estimators contain themselves"))
}

/// Places among `estimators` and names of those that were not dropped.
pub fn kept(node: Node<'_>) -> Result<Vec<(usize, &str)>> {
    let mut kept = Vec::new();
    for (place, estimator) in node.read("estimators", Node::items)?.enumerate() {
        let [name, estimator] = estimator.tuple()?;
        if !estimator.text().is_ok_and(|text| text == "drop") {
            kept.push((place, name.text()?));
        }
    }
    Ok(kept)
}

/// For members that were fitted with the numbers of all classes of an ensemble.
///
/// # Errors
/// When one knows of more or fewer.
pub fn check_classes(member: Node<'_>, expected: usize) -> Result<()> {
    match classes(member) {
        Ok(own) if own.len() != expected => {
            Err(Error::load(format!("an estimator of {} classes where classes_ are {expected}", own.len())))
        }
        _ => Ok(()),
    }
}

/// Finds labels among classes.
pub struct Places<'c> {
    texts: HashMap<&'c str, usize>,
    numbers: HashMap<u64, usize>,
}

impl<'c> Places<'c> {
    pub fn of(classes: &'c Labels) -> Places<'c> {
        let (mut texts, mut numbers) = (HashMap::new(), HashMap::new());
        match classes {
            Labels::Text(values) => texts.extend(values.iter().enumerate().map(|(place, text)| (&**text, place))),
            other => {
                let values = other.numbers().unwrap_or_default(); // only text may fail
                numbers.extend(values.iter().enumerate().map(|(place, value)| (bits(*value), place)));
            }
        }
        Places { texts, numbers }
    }

    /// The place of each label; `None` for one that is no class.
    pub fn find(&self, labels: &Labels) -> Vec<Option<usize>> {
        match labels {
            Labels::Text(values) => values.iter().map(|text| self.texts.get(&**text).copied()).collect(),
            other => {
                let values = other.numbers().unwrap_or_default();
                values.iter().map(|value| self.numbers.get(&bits(*value)).copied()).collect()
            }
        }
    }
}

/// Classes by number, as members of ensembles that number them predict.
///
/// # Errors
/// When a number is not that of a class.
pub fn numbered(labels: &Labels, classes: usize) -> Result<Vec<usize>> {
    let place = |value: f64| {
        if (0.0..classes as f64).contains(&value) {
            Ok(value as usize)
        } else {
            Err(Error::internal(format!("a member predicts class {value} of {classes}")))
        }
    };
    labels.numbers()?.into_iter().map(place).collect()
}

/// Checks that a member's answer has the shape that the ensemble counts on.
///
/// # Errors
/// [`Kind::Internal`](crate::error::Kind::Internal): the file does not fit together.
pub fn check_shape(answer: &Matrix, rows: usize, columns: usize) -> Result<()> {
    if (answer.rows, answer.columns) == (rows, columns) {
        return Ok(());
    }
    Err(Error::internal(format!(
        "an estimator inside gives {} rows of {} columns where {rows} of {columns} are expected",
        answer.rows, answer.columns
    )))
}

/// The one matrix of an estimator of one output.
///
/// # Errors
/// As [`check_shape`]; also when there are several outputs.
pub fn probabilities(estimator: &dyn Estimator, rows: &Data, columns: usize) -> Result<Matrix> {
    let mut answer = estimator.predict_proba(rows)?;
    let (Some(only), true) = (answer.pop(), answer.is_empty()) else {
        return Err(Error::internal("an estimator inside has several outputs"));
    };
    check_shape(&only, rows.rows(), columns)?;
    Ok(only)
}
