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
    /// Of each output, what the last place of a row begins with.
    pub means: Vec<f64>,
    pub features: usize,
    pub width: usize,
}

/// For each row and output a value for each feature and at last the mean: `[rows, outputs, features + 1]`, as
/// `backend::tabular::forest::Forest::contributions` but for the last bits.
///
/// # Errors
/// [`Kind::Unsupported`] when a path has too many features, or a row too many slots; else as [`Machine::allocate`] and
/// [`Machine::launch`].
pub fn contributions<M: Machine>(machine: &M, paths: &Paths, rows: &[f64]) -> Result<Vec<f64>> {
    let most = paths.paths.iter().map(|path| path.elements as usize).max().unwrap_or(0);
    let shared_bytes = (paths.encoding.slots.len() + 1) * size_of::<u32>();
    if most > MOST_ELEMENTS || shared_bytes > machine.limits().shared_bytes {
        let text = format!("a path of {most} features is explained on the CPU only: a GPU takes {MOST_ELEMENTS}");
        return Err(Error::new(Kind::Unsupported, text));
    }
    let (count, outputs) = (rows.len() / paths.features, paths.means.len());
    let mut all = vec![0.0_f64; count * outputs * (paths.features + 1)];
    let encoding = Uploaded::new(machine, &paths.encoding)?;
    let values = machine.upload(rows)?;
    let contributions = machine.allocate(size_of_val(all.as_slice()))?;
    let (way, elements, conditions) =
        (machine.upload(&paths.paths)?, machine.upload(&paths.elements)?, machine.upload(&paths.conditions)?);
    let (leaves, means) = (machine.upload(&paths.values)?, machine.upload(&paths.means)?);
    let args = Args {
        rows: encoding.args(machine, machine.address(&values), count, paths.features, true),
        paths: machine.address(&way),
        elements: machine.address(&elements),
        conditions: machine.address(&conditions),
        values: machine.address(&leaves),
        means: machine.address(&means),
        contributions: machine.address(&contributions),
        path_count: number(paths.paths.len()),
        outputs: number(outputs),
        width: number(paths.width),
        unused: 0,
    };
    const THREADS: u32 = 128;
    const BLOCKS: usize = 1 << 16;
    let blocks = number(count.min(BLOCKS));
    if blocks > 0 {
        let grid = Grid { blocks, threads: THREADS, shared_bytes: number(shared_bytes) };
        // SAFETY: `Args` is the kernel's `Shap`, and all that it points to was uploaded above and lives until the values are
        // read; paths name elements, conditions, slots, features and values that are there.
        unsafe { machine.launch("forest_contributions", grid, &args) }?;
        machine.read(&contributions, bytes_mut(&mut all))?;
    }
    Ok(all)
}
