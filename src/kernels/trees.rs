//! The trees of one served model on a machine: their sums, and why.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Machine;
use super::forest::{Forest, Packed, Rows, Sum};
use super::shap::{Explainer, Paths};
use crate::error::Result;

/// What trees say, computed by a machine of any kind, one caller after the other.
pub trait Trees: Send + Sync {
    /// As [`Forest::sums`].
    ///
    /// # Errors
    /// As there.
    fn single(&self, rows: &[f64], start: &[f32]) -> Result<Vec<f32>>;

    /// As [`Forest::sums`].
    ///
    /// # Errors
    /// As there.
    fn double(&self, rows: &[f64], start: &[f64]) -> Result<Vec<f64>>;

    /// As [`Explainer::contributions`], by the trees' paths, which are asked for when the first rows are explained: they take
    /// more memory than the trees. `None` when only a CPU can explain these trees, or there is no room for their paths; then
    /// the log says so, once.
    ///
    /// # Errors
    /// As there, and what `paths` fails with.
    fn contributions(&self, rows: &[f64], start: &[f64], paths: &dyn Fn() -> Result<Paths>)
    -> Result<Option<Vec<f64>>>;
}

/// Trees, and the machine that they are on.
struct Alone<M: Machine> {
    machine: M,
    forest: Forest<M>,
    explaining: Explaining<M>,
}

enum Explaining<M: Machine> {
    NotYet,
    Here(Explainer<M>),
    OnCpu,
}

/// Trees on a machine of their own.
///
/// # Errors
/// As [`Forest::upload`].
pub fn on<M: Machine + Send + 'static>(machine: M, packed: &Packed) -> Result<Box<dyn Trees>>
where
    M::Buffer: Send,
{
    let forest = Forest::upload(&machine, packed)?;
    Ok(Box::new(Mutex::new(Alone { machine, forest, explaining: Explaining::NotYet })))
}

fn lock<M: Machine>(trees: &Mutex<Alone<M>>) -> MutexGuard<'_, Alone<M>> {
    trees.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sums<M: Machine, S: Sum>(trees: &Mutex<Alone<M>>, rows: &[f64], start: &[S]) -> Result<Vec<S>> {
    let Alone { machine, forest, .. } = &mut *lock(trees);
    forest.sums(machine, Rows::Double(rows), start)
}

impl<M: Machine + Send> Trees for Mutex<Alone<M>>
where
    M::Buffer: Send,
{
    fn single(&self, rows: &[f64], start: &[f32]) -> Result<Vec<f32>> {
        sums(self, rows, start)
    }

    fn double(&self, rows: &[f64], start: &[f64]) -> Result<Vec<f64>> {
        sums(self, rows, start)
    }

    fn contributions(
        &self,
        rows: &[f64],
        start: &[f64],
        paths: &dyn Fn() -> Result<Paths>,
    ) -> Result<Option<Vec<f64>>> {
        let is_first = matches!(lock(self).explaining, Explaining::NotYet);
        // Others may have their sums meanwhile.
        let paths = is_first.then(paths).transpose()?;
        let Alone { machine, explaining, .. } = &mut *lock(self);
        if let (Explaining::NotYet, Some(paths)) = (&explaining, paths) {
            *explaining = Explainer::upload(machine, &paths).map_or_else(
                |error| {
                    tracing::warn!("contributions are computed on the CPU: {error}");
                    Explaining::OnCpu
                },
                Explaining::Here,
            );
        }
        let Explaining::Here(explainer) = explaining else { return Ok(None) };
        explainer.contributions(machine, rows, start).map(Some)
    }
}
