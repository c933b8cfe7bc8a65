//! Steps one after another.

use std::sync::Arc;

use super::compose::is_passthrough;
use crate::backend::tabular::data::{Cell, Data, Matrix, Target};
use crate::backend::tabular::estimator::{Build, Builder, Contributions, Estimator, MOST_NAMES, Method, Names, Takes};
use crate::backend::tabular::forest::Forest;
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::tensor::{DType, Excerpt};

pub const CLASSES: &[(&str, Build)] = &[("Pipeline", pipeline)];

/// Steps one after another; the last one answers.
struct Pipeline {
    steps: Vec<Box<dyn Estimator>>,
}

fn pipeline(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let mut steps: Vec<Box<dyn Estimator>> = Vec::new();
    for step in node.read("steps", Node::items)? {
        let [name, estimator] = step.tuple()?;
        let name = name.text()?;
        if !is_passthrough(estimator) {
            let place = |error: Error| error.context(format_args!("step \"{}\"", Excerpt(name)));
            steps.push(builder.build(estimator).map_err(place)?);
        }
    }
    for place in 1..steps.len() {
        let (before, after) = steps.split_at_mut(place);
        if let (Some(step), Some(next)) = (before.last_mut(), after.first())
            && let Some(features) = next.features().filter(|features| *features <= MOST_NAMES)
        {
            let known: Vec<bool> = (0..features).map(|column| next.knows_none(column)).collect();
            step.keep_none(&known);
        }
    }
    Ok(Box::new(Pipeline { steps }))
}

impl Pipeline {
    fn up_to_last<T>(&self, rows: &Data, answer: impl FnOnce(&dyn Estimator, &Data) -> Result<T>) -> Result<T> {
        let (last, before) = self.steps.split_last().ok_or_else(|| Error::internal("a pipeline without steps"))?;
        let Some((first, rest)) = before.split_first() else { return answer(&**last, rows) };
        let mut data = first.transform(rows)?;
        for step in rest {
            data = step.transform(&data)?;
        }
        answer(&**last, &data)
    }

    /// The steps that see the column as it came, and where.
    fn seeing(&self, column: usize) -> impl Iterator<Item = (&dyn Estimator, usize)> {
        self.steps.iter().scan(Some(column), |place, step| {
            let seen = (*place)?;
            *place = step.passes(seen);
            Some((&**step, seen))
        })
    }
}

impl Estimator for Pipeline {
    fn visit_forests(&mut self, visit: &mut dyn FnMut(&mut Forest) -> Result<()>) -> Result<()> {
        self.steps.iter_mut().try_for_each(|step| step.visit_forests(visit))
    }

    fn can(&self, method: Method) -> bool {
        self.steps.last().map_or(method == Method::Transform, |last| last.can(method))
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        self.up_to_last(rows, |last, data| last.predict(data))
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        self.up_to_last(rows, |last, data| last.predict_proba(data))
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        self.up_to_last(rows, |last, data| last.decision_function(data))
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        if self.steps.is_empty() {
            return Ok(rows.clone());
        }
        self.up_to_last(rows, |last, data| last.transform(data))
    }

    fn gives(&self) -> Option<DType> {
        self.steps.last()?.gives()
    }

    fn gives_vector(&self) -> bool {
        self.steps.last().is_some_and(|last| last.gives_vector())
    }

    /// Of the features that the last step sees.
    fn contributions(&self, rows: &Data) -> Result<Contributions> {
        self.up_to_last(rows, |last, data| last.contributions(data))
    }

    fn can_invert(&self) -> bool {
        self.steps.iter().all(|step| step.can_invert())
    }

    fn inverse_transform(&self, rows: &Matrix) -> Result<Matrix> {
        self.steps.iter().rev().try_fold(rows.clone(), |rows, step| step.inverse_transform(&rows))
    }

    fn inverse_gives(&self) -> Option<DType> {
        self.steps.first()?.inverse_gives()
    }

    fn features(&self) -> Option<usize> {
        self.steps.first()?.features()
    }

    fn names(&self) -> Names<'_> {
        self.steps.first().map(|step| step.names()).unwrap_or_default()
    }

    fn explained_outputs(&self) -> usize {
        self.steps.last().map_or(1, |step| step.explained_outputs())
    }

    fn explained(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        let (last, before) = self.steps.split_last()?;
        last.explained(&through(before, names)?)
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        through(&self.steps, names)
    }

    fn passes(&self, column: usize) -> Option<usize> {
        self.steps.iter().try_fold(column, |place, step| step.passes(place))
    }

    /// What the first step takes, and those that see the column as it came.
    fn takes(&self, column: usize) -> Takes {
        let seen = self.seeing(column).map(|(step, place)| step.takes(place)).max().unwrap_or_default();
        // What becomes of types on the way to a step for which they count is for the steps to say.
        let is_typed = self.counts_types();
        if is_typed { seen.max(Takes::Typed) } else { seen }
    }

    fn example(&self, column: usize) -> Option<Cell> {
        // Steps before an encoder mostly leave columns in their places, those that change them too.
        let mut place = column;
        self.steps.iter().find_map(|step| {
            let seen = place;
            place = step.passes(seen).unwrap_or(seen);
            step.example(seen)
        })
    }

    fn counts_types(&self) -> bool {
        self.steps.iter().any(|step| step.counts_types())
    }

    fn knows_none(&self, column: usize) -> bool {
        self.steps.first().is_some_and(|step| step.knows_none(column))
    }

    fn keep_none(&mut self, columns: &[bool]) {
        if let Some(last) = self.steps.last_mut() {
            last.keep_none(columns);
        }
    }

    fn demands(&self, column: usize) -> bool {
        self.seeing(column).any(|(step, place)| step.demands(place))
    }

    fn uses(&self, column: usize) -> bool {
        self.seeing(column).any(|(step, place)| step.uses(place))
    }
}

/// The names of columns after several steps.
pub fn through(steps: &[Box<dyn Estimator>], names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
    steps.iter().try_fold(names.to_vec(), |names, step| step.names_out(&names))
}
