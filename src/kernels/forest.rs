//! Sums of decision trees on a GPU: `kernels/forest.cu`, and which of its kernels when. What computes the same on the CPU is
//! `backend::tabular::forest`, which lays out the trees for both.

use super::encoding::{Encoding, EncodingArgs, Uploaded};
use super::{Grid, Limits, Machine, Plain, bytes, bytes_mut, number};
use crate::error::{Error, Result};

/// A tree of `kernels/forest.cu`: its nodes lie from `root` on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Tree {
    pub root: u32,
    pub depth: u32,
    pub output: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Chunk {
    first_tree: u32,
    trees: u32,
    first_node: u32,
    nodes: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Args {
    rows: EncodingArgs,
    nodes: u64,
    trees: u64,
    chunks: u64,
    values: u64,
    start: u64,
    sums: u64,
    leaves: u64,
    tree_count: u32,
    chunk_count: u32,
    outputs: u32,
    width: u32,
    tile: u32,
    chunk_bytes: u32,
}

// SAFETY: three u32.
unsafe impl Plain for Tree {}
// SAFETY: four u32.
unsafe impl Plain for Chunk {}
// SAFETY: u64 before u32, of which there are an even number.
unsafe impl Plain for Args {}

/// Trees as their kernels walk them.
pub struct Packed {
    /// Of each tree one after another, as `backend::tabular::forest::layout` has them.
    pub nodes: Vec<u8>,
    /// Bytes of a node: 8, or 12 of a wide one.
    pub node_bytes: usize,
    /// In the order of their nodes. Where leaves have one value, by the outputs that they add to.
    pub trees: Vec<Tree>,
    pub encoding: Encoding,
    /// `width` of them for each leaf, unless they stand in the leaves' keys.
    pub values: Option<Vec<f64>>,
    pub features: usize,
    pub outputs: usize,
    pub width: usize,
}

/// Row-major values.
#[derive(Clone, Copy)]
pub enum Rows<'a> {
    Single(&'a [f32]),
    Double(&'a [f64]),
}

impl<'a> Rows<'a> {
    fn len(self) -> usize {
        match self {
            Rows::Single(values) => values.len(),
            Rows::Double(values) => values.len(),
        }
    }

    fn bytes(self) -> &'a [u8] {
        match self {
            Rows::Single(values) => bytes(values),
            Rows::Double(values) => bytes(values),
        }
    }
}

/// What values are added in.
pub trait Sum: Plain + Default {
    const NAME: &'static str;
}

impl Sum for f32 {
    const NAME: &'static str = "f32";
}

impl Sum for f64 {
    const NAME: &'static str = "f64";
}

/// Trees on a machine.
pub struct Forest<M: Machine> {
    shape: Shape,
    features: usize,
    outputs: usize,
    width: usize,
    chunk_count: usize,
    nodes: M::Buffer,
    trees: M::Buffer,
    chunks: M::Buffer,
    encoding: Uploaded<M>,
    values: Option<M::Buffer>,
    /// What sums begin with, and then rows.
    input: Scratch<M>,
    leaves: Scratch<M>,
    sums: Scratch<M>,
}

/// Memory that is kept from call to call.
struct Scratch<M: Machine> {
    buffer: M::Buffer,
    bytes: usize,
}

impl<M: Machine> Scratch<M> {
    fn new(machine: &M) -> Result<Scratch<M>> {
        Ok(Scratch { buffer: machine.allocate(0)?, bytes: 0 })
    }

    fn reserve(&mut self, machine: &M, bytes: usize) -> Result<()> {
        if self.bytes < bytes {
            let bytes = bytes.next_power_of_two();
            *self = Scratch { buffer: machine.allocate(bytes)?, bytes };
        }
        Ok(())
    }
}

/// What decides how a forest is walked.
#[derive(Clone, Copy, Debug)]
struct Shape {
    slots: usize,
    trees: usize,
    node_bytes: usize,
}

/// How some rows are brought to their sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    /// A thread has a row, or else a row and some of the trees.
    by_rows: bool,
    tile: usize,
    grid: Grid,
    chunk_bytes: usize,
}

/// Nodes of a chunk take as many bytes at most.
const CHUNK_BYTES: usize = 32 << 10;
/// Rows are taken at once whose values, and leaves, take as many bytes at most.
const INPUT_BYTES: usize = 256 << 20;
/// Rows lie behind what sums begin with from a multiple of so many bytes on.
const ALIGNED: usize = 16;

impl<M: Machine> Forest<M> {
    /// Brings trees to a machine.
    ///
    /// # Errors
    /// When they do not fit, or rows are so wide that not one fits into a block's shared memory once it is encoded.
    pub fn upload(machine: &M, packed: &Packed) -> Result<Forest<M>> {
        let shape =
            Shape { slots: packed.encoding.slots.len(), trees: packed.trees.len(), node_bytes: packed.node_bytes };
        let (most, bytes) = (machine.limits().shared_bytes, shape.row_bytes());
        if bytes > most {
            return Err(Error::load(format!(
                "the trees look at a row in {} ways, which takes {bytes} bytes of a GPU's shared memory, of which there are {most}: \
                 serve them on the CPU",
                shape.slots
            )));
        }
        let chunks = chunks(&packed.trees, packed.nodes.len() / packed.node_bytes, packed.node_bytes);
        Ok(Forest {
            shape,
            features: packed.features,
            outputs: packed.outputs,
            width: packed.width,
            chunk_count: chunks.len(),
            nodes: machine.upload(&packed.nodes)?,
            trees: machine.upload(&packed.trees)?,
            chunks: machine.upload(&chunks)?,
            encoding: Uploaded::new(machine, &packed.encoding)?,
            values: packed.values.as_deref().map(|values| machine.upload(values)).transpose()?,
            input: Scratch::new(machine)?,
            leaves: Scratch::new(machine)?,
            sums: Scratch::new(machine)?,
        })
    }

    /// For each row, `start` plus the values of the leaves it falls into, as `backend::tabular::forest::Forest::sums`.
    ///
    /// # Errors
    /// As [`Machine::allocate`] and [`Machine::launch`].
    pub fn sums<S: Sum>(&mut self, machine: &M, rows: Rows, start: &[S]) -> Result<Vec<S>> {
        let count = rows.len() / self.features;
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut sums = vec![S::default(); count * self.outputs];
        let size = rows.bytes().len() / count;
        let at_once = self.shape.rows_at_once(count, size, machine.limits());
        let pieces = rows.bytes().chunks(at_once * size).zip(sums.chunks_mut(at_once * self.outputs));
        for (rows_here, sums) in pieces {
            self.sum_piece(machine, rows_here, matches!(rows, Rows::Double(_)), start, sums)?;
        }
        Ok(sums)
    }

    fn sum_piece<S: Sum>(
        &mut self,
        machine: &M,
        rows: &[u8],
        are_double: bool,
        start: &[S],
        sums: &mut [S],
    ) -> Result<()> {
        let count = sums.len() / self.outputs;
        let plan = self.shape.plan(count, machine.limits());
        let first_row = size_of_val(start).next_multiple_of(ALIGNED);
        self.input.reserve(machine, first_row + rows.len())?;
        self.sums.reserve(machine, size_of_val(sums))?;
        if !plan.by_rows {
            self.leaves.reserve(machine, self.shape.trees * count * size_of::<u32>())?;
        }
        machine.write(&mut self.input.buffer, 0, bytes(start))?;
        machine.write(&mut self.input.buffer, first_row, rows)?;
        let address = |buffer: &M::Buffer| machine.address(buffer);
        let args = Args {
            rows: self.encoding.args(
                machine,
                address(&self.input.buffer) + first_row as u64,
                count,
                self.features,
                are_double,
            ),
            nodes: address(&self.nodes),
            trees: address(&self.trees),
            chunks: address(&self.chunks),
            values: self.values.as_ref().map_or(0, address),
            start: address(&self.input.buffer),
            sums: address(&self.sums.buffer),
            leaves: address(&self.leaves.buffer),
            tree_count: number(self.shape.trees),
            chunk_count: number(self.chunk_count),
            outputs: number(self.outputs),
            width: number(self.width),
            tile: number(plan.tile),
            chunk_bytes: number(plan.chunk_bytes),
        };
        let nodes = if self.shape.node_bytes == 8 { "narrow" } else { "wide" };
        // SAFETY: `Args` is the kernels' `Forest`, its buffers were reserved above or uploaded with the trees, whose nodes,
        // slots and leaves are in range by their layout; and the sums are read below.
        unsafe {
            if plan.by_rows {
                machine.launch(&format!("forest_rows_{nodes}_{}", S::NAME), plan.grid, &args)?;
            } else {
                const THREADS: usize = 128;
                let blocks = number((count * self.outputs).div_ceil(THREADS));
                let grid = Grid { blocks, threads: number(THREADS), shared_bytes: 0 };
                machine.launch(&format!("forest_leaves_{nodes}"), plan.grid, &args)?;
                machine.launch(&format!("forest_sums_{}", S::NAME), grid, &args)?;
            }
        }
        machine.read(&self.sums.buffer, bytes_mut(sums))
    }
}

impl Shape {
    /// What an encoded row takes.
    fn row_bytes(&self) -> usize {
        (self.slots + 1) * size_of::<u32>()
    }

    /// How many rows of so many bytes each are taken at once, of at least one.
    fn rows_at_once(&self, rows: usize, size: usize, limits: Limits) -> usize {
        let most = (INPUT_BYTES / size).clamp(1, rows.max(1));
        if self.plan(most, limits).by_rows {
            return most;
        }
        most.min(INPUT_BYTES / (self.trees * size_of::<u32>()).max(1)).max(1)
    }

    /// How so many rows are brought to their sums, at least one.
    fn plan(&self, rows: usize, limits: Limits) -> Plan {
        /// Rows for each multiprocessor from which on it has enough to do with a row in each thread.
        const MANY: usize = 128;
        if rows >= MANY * limits.multiprocessors
            && let Some(plan) = self.by_rows(rows, limits)
        {
            return plan;
        }
        /// Threads of a block, and blocks that a multiprocessor runs at a time.
        const THREADS: usize = 256;
        const BLOCKS: usize = 8;
        let most = (limits.shared_bytes / self.row_bytes()).min(32).min(rows.next_power_of_two());
        let tile = 1 << most.ilog2();
        let (tiles, groups) = (rows.div_ceil(tile), THREADS / tile);
        let blocks = self.trees.div_ceil(groups).min(limits.multiprocessors * BLOCKS / tiles).max(1);
        let shared_bytes = number(tile * self.row_bytes());
        let grid = Grid { blocks: number(tiles * blocks), threads: number(THREADS), shared_bytes };
        Plan { by_rows: false, tile, grid, chunk_bytes: 0 }
    }

    /// With as many rows in a block as leave room for a second one, or else as fit.
    fn by_rows(&self, rows: usize, limits: Limits) -> Option<Plan> {
        let tile_bytes = |tile: usize| (tile * self.row_bytes()).next_multiple_of(ALIGNED);
        let is_fit =
            |tile: usize, chunk: usize, blocks: usize| (tile_bytes(tile) + chunk) * blocks <= limits.shared_bytes;
        let ways = [(CHUNK_BYTES, 2), (CHUNK_BYTES, 1), (0, 1)].into_iter();
        let mut ways = ways.flat_map(|(chunk, blocks)| [256, 128, 64, 32].map(|tile| (tile, chunk, blocks)));
        let (tile, chunk_bytes, _) = ways.find(|(tile, chunk, blocks)| is_fit(*tile, *chunk, *blocks))?;
        let shared_bytes = tile_bytes(tile) + chunk_bytes;
        let at_once = limits.multiprocessors * (limits.shared_bytes / shared_bytes).clamp(1, 2048 / tile);
        let blocks = number(rows.div_ceil(tile).min(at_once));
        let grid = Grid { blocks, threads: number(tile), shared_bytes: number(shared_bytes) };
        Some(Plan { by_rows: true, tile, grid, chunk_bytes })
    }
}

/// Trees that follow each other, as many as have nodes of at most [`CHUNK_BYTES`] together; at least one.
fn chunks(trees: &[Tree], nodes: usize, node_bytes: usize) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for (number_here, tree) in trees.iter().enumerate() {
        let end = trees.get(number_here + 1).map_or(number(nodes), |next| next.root);
        match chunks.last_mut() {
            Some(chunk) if (end - chunk.first_node) as usize * node_bytes <= CHUNK_BYTES => {
                (chunk.trees, chunk.nodes) = (chunk.trees + 1, end - chunk.first_node);
            }
            _ => chunks.push(Chunk {
                first_tree: number(number_here),
                trees: 1,
                first_node: tree.root,
                nodes: end - tree.root,
            }),
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    const H200: Limits = Limits { shared_bytes: 227 << 10, multiprocessors: 132 };

    fn plan(slots: usize, trees: usize, rows: usize) -> Plan {
        Shape { slots, trees, node_bytes: 8 }.plan(rows, H200)
    }

    #[test]
    fn few_rows_are_spread_over_the_trees_and_many_over_the_threads() {
        let few = plan(30, 1000, 1);
        assert_eq!((few.by_rows, few.tile, few.grid.blocks), (false, 1, 4));
        let some = plan(30, 1000, 1024);
        assert_eq!((some.by_rows, some.tile, some.grid.blocks), (false, 32, 32 * 33));
        let many = plan(30, 1000, 1_000_000);
        assert_eq!((many.by_rows, many.tile, many.grid.threads), (true, 256, 256));
        assert_eq!((many.chunk_bytes, many.grid.blocks), (CHUNK_BYTES, 132 * 3));
    }

    #[test]
    fn wide_rows_get_smaller_tiles() {
        let tiles = [30, 100, 500, 1500, 3000, 50_000].map(|slots| {
            let plan = plan(slots, 100, 100_000);
            assert!(plan.grid.shared_bytes as usize <= H200.shared_bytes, "{plan:?}");
            (plan.by_rows, plan.tile, plan.chunk_bytes > 0)
        });
        let expected = [(256, true), (128, true), (32, true), (32, true)].map(|(tile, staged)| (true, tile, staged));
        assert_eq!(tiles[..4], expected);
        assert_eq!(tiles[4..], [(false, 16, false), (false, 1, false)]);
    }

    #[test]
    fn chunks_have_whole_trees() {
        let trees: Vec<Tree> = [0, 1000, 2000, 4100, 20_000].map(|root| Tree { root, ..Tree::default() }).to_vec();
        let chunks = chunks(&trees, 20_001, 8);
        let found: Vec<_> =
            chunks.iter().map(|chunk| (chunk.first_tree, chunk.trees, chunk.first_node, chunk.nodes)).collect();
        assert_eq!(found, [(0, 2, 0, 2000), (2, 1, 2000, 2100), (3, 1, 4100, 15_900), (4, 1, 20_000, 1)]);
    }
}
