//! Shapley values of trees on a GPU: `kernels/shap.cu`. What computes the same on the CPU is `backend::tabular::forest::shap`.

use super::encoding::{Encoding, EncodingArgs, Uploaded};
use super::{Grid, Machine, Plain, bytes_mut, number};
use crate::error::{Error, Kind, Result};

/// A comparison that a row must pass to follow a path.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Condition {
    pub slot: u32,
    pub key: u32,
    pub goes_right: u32,
}

/// A feature of a path.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Element {
    /// Of the training rows that came to its splits those that follow the path.
    pub zero: f64,
    pub feature: u32,
    pub first_condition: u32,
    pub conditions: u32,
    pub unused: u32,
}

/// A way from a root to a leaf.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Path {
    pub first_element: u32,
    pub elements: u32,
    pub first_value: u32,
    pub output: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Args {
    rows: EncodingArgs,
    paths: u64,
    elements: u64,
    conditions: u64,
    values: u64,
    means: u64,
    contributions: u64,
    path_count: u32,
    outputs: u32,
    width: u32,
    unused: u32,
}

// SAFETY: three u32.
unsafe impl Plain for Condition {}
// SAFETY: a f64 and four u32.
unsafe impl Plain for Element {}
// SAFETY: four u32.
unsafe impl Plain for Path {}
// SAFETY: u64 before u32, of which there are an even number.
unsafe impl Plain for Args {}

/// Features of a path at most: `MOST` of the kernel.
pub const MOST_ELEMENTS: usize = 63;

/// All paths of a forest.
#[derive(Default)]
pub struct Paths {
    pub paths: Vec<Path>,
    pub elements: Vec<Element>,
    pub conditions: Vec<Condition>,
    /// `width` of them for each leaf.
    pub values: Vec<f64>,
    pub encoding: Encoding,
    /// What the trees say on average, of each output.
    pub means: Vec<f64>,
    pub features: usize,
    pub width: usize,
}

/// Paths on a machine.
pub struct Explainer<M: Machine> {
    encoding: Uploaded<M>,
    paths: M::Buffer,
    elements: M::Buffer,
    conditions: M::Buffer,
    values: M::Buffer,
    means: Vec<f64>,
    features: usize,
    width: usize,
    path_count: usize,
    shared_bytes: usize,
}

/// Rows are explained at once whose contributions take as many bytes at most.
const OUTPUT_BYTES: usize = 64 << 20;

impl<M: Machine> Explainer<M> {
    /// Brings paths to a machine.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] when a path has too many features, or a row too many slots; else as [`Machine::upload`].
    pub fn upload(machine: &M, paths: &Paths) -> Result<Explainer<M>> {
        let most = paths.paths.iter().map(|path| path.elements as usize).max().unwrap_or(0);
        if most > MOST_ELEMENTS {
            let text = format!("{most} features lead to a leaf, and a GPU explains {MOST_ELEMENTS} at most");
            return Err(Error::new(Kind::Unsupported, text));
        }
        let shared_bytes = (paths.encoding.slots.len() + 1) * size_of::<u32>();
        let limit = machine.limits().shared_bytes;
        if shared_bytes > limit {
            let text = format!("rows take {shared_bytes} bytes of a GPU's shared memory, of which there are {limit}");
            return Err(Error::new(Kind::Unsupported, text));
        }
        Ok(Explainer {
            encoding: Uploaded::new(machine, &paths.encoding)?,
            paths: machine.upload(&paths.paths)?,
            elements: machine.upload(&paths.elements)?,
            conditions: machine.upload(&paths.conditions)?,
            values: machine.upload(&paths.values)?,
            means: paths.means.clone(),
            features: paths.features,
            width: paths.width,
            path_count: paths.paths.len(),
            shared_bytes,
        })
    }

    /// For each row and output a value for each feature and at last the mean with `start`: `[rows, outputs, features + 1]`,
    /// as `backend::tabular::forest::Forest::contributions` but for the last bits.
    ///
    /// # Errors
    /// When `start` has not a number for each output; else as [`Machine::allocate`] and [`Machine::launch`].
    pub fn contributions(&self, machine: &M, rows: &[f64], start: &[f64]) -> Result<Vec<f64>> {
        if start.len() != self.means.len() {
            return Err(Error::internal(format!("{} outputs begin with {} numbers", self.means.len(), start.len())));
        }
        let row = self.means.len() * (self.features + 1);
        let mut all = vec![0.0_f64; rows.len() / self.features * row];
        let at_once = (OUTPUT_BYTES / (row * size_of::<f64>())).max(1);
        let means: Vec<f64> = self.means.iter().zip(start).map(|(mean, start)| start + mean).collect();
        let means = machine.upload(&means)?;
        for (rows, all) in rows.chunks(at_once * self.features).zip(all.chunks_mut(at_once * row)) {
            self.explain(machine, rows, &means, all)?;
        }
        Ok(all)
    }

    /// One row at least.
    fn explain(&self, machine: &M, rows: &[f64], means: &M::Buffer, into: &mut [f64]) -> Result<()> {
        const THREADS: u32 = 128;
        const BLOCKS: usize = 1 << 16;
        let count = rows.len() / self.features;
        let values = machine.upload(rows)?;
        let contributions = machine.allocate(size_of_val(into))?;
        let args = Args {
            rows: self.encoding.args(machine, machine.address(&values), count, self.features, true),
            paths: machine.address(&self.paths),
            elements: machine.address(&self.elements),
            conditions: machine.address(&self.conditions),
            values: machine.address(&self.values),
            means: machine.address(means),
            contributions: machine.address(&contributions),
            path_count: number(self.path_count),
            outputs: number(self.means.len()),
            width: number(self.width),
            unused: 0,
        };
        let grid =
            Grid { blocks: number(count.min(BLOCKS)), threads: THREADS, shared_bytes: number(self.shared_bytes) };
        // SAFETY: `Args` is the kernel's `Shap`, and all that it points to was uploaded and lives until the contributions are
        // read; paths name elements, conditions, slots, features and values that are there.
        unsafe { machine.launch("forest_contributions", grid, &args) }?;
        machine.read(&contributions, bytes_mut(into))
    }
}
