//! The tree engine: sums of decision trees, whichever library grew them.
//!
//! [`layout`] says how a node looks, [`slots`] how a row does; [`walk`] and [`head`] bring rows to leaves. Values are
//! added tree by tree in the order of the file, in the library's own precision, so that the sums are the library's to
//! the last bit.

use std::ops::AddAssign;

use self::layout::{LANES, Layout, Node, Nodes, Payload, Span};
use self::slots::{Precision, Slots};
use crate::error::Result;
use crate::formats::trees::{LinearLeaf, Tree};
use crate::kernels::trees::Trees;

mod head;
mod layout;
mod packed;
mod paths;
mod shap;
mod slots;
mod walk;

pub use slots::Precision as InputPrecision;

/// Trees to compile, and how their library sees rows and adds values.
#[derive(Clone, Debug)]
pub struct Grown {
    pub features: usize,
    pub outputs: usize,
    /// Values of each leaf: 1, or one for every output from the tree's own on.
    pub width: usize,
    /// How rows are seen.
    pub input: Precision,
    /// Trees in the order in which their values are added, each with the first output that it adds to.
    pub trees: Vec<(Tree, usize)>,
}

/// Compiled trees.
pub struct Forest {
    features: usize,
    outputs: usize,
    width: usize,
    slots: Slots,
    layout: Layout,
    values: Values,
    linear: Vec<LinearLeaf>,
    kernel: Kernel,
    /// What computes instead.
    elsewhere: Option<Box<dyn Trees>>,
}

enum Values {
    /// In the leaves' keys.
    InKeys,
    /// `width` of them for each leaf.
    Table(Vec<f64>),
}

/// What values are added in.
pub trait Number: Copy + AddAssign + Send + Sync + Sized {
    fn from_f64(value: f64) -> Self;
    fn from_key(key: u32) -> Self;
    fn sums_of(elsewhere: &dyn Trees, rows: &[f64], start: &[Self]) -> Result<Vec<Self>>;
}

impl Number for f32 {
    fn from_f64(value: f64) -> f32 {
        value as f32
    }

    fn from_key(key: u32) -> f32 {
        f32::from_bits(key)
    }

    fn sums_of(elsewhere: &dyn Trees, rows: &[f64], start: &[f32]) -> Result<Vec<f32>> {
        elsewhere.single(rows, start)
    }
}

impl Number for f64 {
    fn from_f64(value: f64) -> f64 {
        value
    }

    fn from_key(key: u32) -> f64 {
        f64::from(f32::from_bits(key))
    }

    fn sums_of(elsewhere: &dyn Trees, rows: &[f64], start: &[f64]) -> Result<Vec<f64>> {
        elsewhere.double(rows, start)
    }
}

/// How rows get to their leaves; all give the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Kernel {
    /// Those that this processor can run, the fastest last.
    pub fn available() -> Vec<Kernel> {
        let mut available = vec![Kernel::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                available.push(Kernel::Avx2);
            }
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512cd") {
                available.push(Kernel::Avx512);
            }
        }
        available
    }

    /// Blocks that it takes at once.
    fn blocks(self) -> usize {
        match self {
            Kernel::Portable => 1,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => head::avx2::BLOCKS,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => head::avx512::BLOCKS,
        }
    }
}

/// Up to so many rows, each is walked through sixteen trees at once; from there on, sixteen rows through each tree.
const FEW_ROWS: usize = 8;
/// Encoded rows that are kept at hand while the trees go by: they should stay in the second-level cache.
const CHUNK_BYTES: usize = 128 << 10;
const CHUNK_BLOCKS: usize = 16;

impl Forest {
    /// Checks and compiles trees.
    ///
    /// # Errors
    /// As [`Tree::check`], naming the tree, and when the forest is beyond what can be laid out.
    pub fn compile(grown: Grown) -> Result<Forest> {
        let Grown { features, outputs, width, input, trees } = grown;
        for (number, (tree, _)) in trees.iter().enumerate() {
            tree.check(features, width).map_err(|error| error.context(format_args!("tree {number}")))?;
        }
        let slots = Slots::collect(layout::splits(&trees), features, input)?;
        let linear: Vec<LinearLeaf> = trees.iter().flat_map(|(tree, _)| tree.linear.iter().cloned()).collect();
        let singles = |tree: &Tree| tree.leaves.iter().all(|value| f64::from(*value as f32) == *value);
        let in_keys = width == 1 && linear.is_empty() && trees.iter().all(|(tree, _)| singles(tree));
        let payload = if in_keys { Payload::Value } else { Payload::Index };
        let layout = layout::lay_out(&trees, width, &slots, payload)?;
        let values = match payload {
            Payload::Value => Values::InKeys,
            Payload::Index => {
                let mut table = Vec::with_capacity(trees.iter().map(|(tree, _)| tree.leaves.len()).sum());
                table.extend(trees.iter().flat_map(|(tree, _)| &tree.leaves));
                Values::Table(table)
            }
        };
        let kernel = Kernel::available().pop().unwrap_or(Kernel::Portable);
        Ok(Forest { features, outputs, width, slots, layout, values, linear, kernel, elsewhere: None })
    }

    /// The same forest on another kernel, to compare them.
    #[must_use]
    pub fn on(mut self, kernel: Kernel) -> Forest {
        self.kernel = kernel;
        self
    }

    pub fn features(&self) -> usize {
        self.features
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    pub fn trees(&self) -> usize {
        self.layout.spans.len()
    }

    /// Whether leaves are linear models.
    pub fn is_linear(&self) -> bool {
        !self.linear.is_empty()
    }

    /// Bytes that the compiled trees take.
    pub fn bytes(&self) -> usize {
        let nodes = match &self.layout.nodes {
            Nodes::Narrow(nodes) => size_of_val(nodes.as_slice()),
            Nodes::Wide(nodes) => size_of_val(nodes.as_slice()),
        };
        let values = match &self.values {
            Values::InKeys => 0,
            Values::Table(values) => size_of_val(values.as_slice()),
        };
        nodes + values + size_of_val(self.layout.spans.as_slice()) + size_of_val(self.layout.covers.as_slice())
    }

    /// For each row, `start` plus the values of the leaves it falls into, tree by tree; [`Forest::outputs`] numbers a
    /// row. `rows` are row-major, [`Forest::features`] values each.
    ///
    /// # Errors
    /// When a machine that computes them has failed.
    pub fn sums<S: Number>(&self, rows: &[f64], start: &[S]) -> Result<Vec<S>> {
        if let Some(elsewhere) = &self.elsewhere {
            return S::sums_of(&**elsewhere, rows, start);
        }
        Ok(match &self.layout.nodes {
            Nodes::Narrow(nodes) => self.sums_with(nodes, rows, start),
            Nodes::Wide(nodes) => self.sums_with(nodes, rows, start),
        })
    }

    /// Has all that the trees of [`Forest::packed`] say computed by something else from now on.
    pub fn computed_by(&mut self, elsewhere: Box<dyn Trees>) {
        self.elsewhere = Some(elsewhere);
    }

    fn sums_with<N: Node, S: Number>(&self, nodes: &[N], rows: &[f64], start: &[S]) -> Vec<S> {
        let count = rows.len() / self.features.max(1);
        let mut sums: Vec<S> = start.iter().copied().cycle().take(count * self.outputs).collect();
        let block_size = self.slots.count() * LANES;
        if count <= FEW_ROWS {
            let mut block = vec![0; block_size];
            let mut keys = vec![0; self.layout.spans.len()];
            for (row, sums) in rows.chunks_exact(self.features).zip(sums.chunks_exact_mut(self.outputs)) {
                self.slots.encode(row, self.features, &mut block);
                // SAFETY: nodes, spans and slots are one layout's, and the block has that layout's size.
                unsafe { walk::leaves_of_row(nodes, &self.layout.spans, &block, &mut keys) };
                for (span, key) in self.layout.spans.iter().zip(&keys) {
                    self.add(span, std::slice::from_ref(key), row, sums);
                }
            }
            return sums;
        }
        let chunk_blocks = (CHUNK_BYTES / (block_size * size_of::<u32>())).clamp(self.kernel.blocks(), CHUNK_BLOCKS);
        let chunk_blocks = chunk_blocks.next_multiple_of(self.kernel.blocks());
        let mut blocks = vec![0; block_size * chunk_blocks];
        let mut keys = vec![[0; LANES]; chunk_blocks];
        let chunk_rows = chunk_blocks * LANES;
        for (rows, sums) in rows.chunks(chunk_rows * self.features).zip(sums.chunks_mut(chunk_rows * self.outputs)) {
            for (rows, block) in rows.chunks(LANES * self.features).zip(blocks.chunks_exact_mut(block_size)) {
                self.slots.encode(rows, self.features, block);
            }
            let count = rows.len() / self.features;
            let used = count.div_ceil(LANES);
            // What does not fill a group of the kernel's is walked the portable way.
            let grouped = used - used % self.kernel.blocks();
            for span in &self.layout.spans {
                let tree = &nodes[span.root..][..span.nodes];
                let (blocks, rest) = blocks[..used * block_size].split_at(grouped * block_size);
                let (keys_of_blocks, keys_of_rest) = keys[..used].split_at_mut(grouped);
                // SAFETY: the tree and the slots are one layout's, and blocks have that layout's size; the processor
                // was asked when the kernel was chosen.
                unsafe {
                    match self.kernel {
                        Kernel::Portable => walk::leaves(tree, span.depth, blocks, block_size, keys_of_blocks),
                        #[cfg(target_arch = "x86_64")]
                        Kernel::Avx2 => head::avx2::leaves(tree, span.depth, blocks, block_size, keys_of_blocks),
                        #[cfg(target_arch = "x86_64")]
                        Kernel::Avx512 => head::avx512::leaves(tree, span.depth, blocks, block_size, keys_of_blocks),
                    }
                    walk::leaves(tree, span.depth, rest, block_size, keys_of_rest);
                }
                self.add(span, &keys.as_flattened()[..count], rows, sums);
            }
        }
        sums
    }

    /// Adds the values of one tree's leaves to the sums of some rows.
    #[inline(always)]
    fn add<S: Number>(&self, span: &Span, keys: &[u32], rows: &[f64], sums: &mut [S]) {
        match &self.values {
            Values::InKeys => self.add_one(span, keys, sums, S::from_key),
            Values::Table(table) if self.linear.is_empty() && self.width == 1 => {
                self.add_one(span, keys, sums, |key| S::from_f64(table[key as usize]));
            }
            Values::Table(table) if self.linear.is_empty() => {
                for (sums, key) in sums[span.output..].chunks_mut(self.outputs).zip(keys) {
                    let values = &table[*key as usize * self.width..][..self.width];
                    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += S::from_f64(*value));
                }
            }
            Values::Table(_) => {
                let rows = keys.iter().zip(rows.chunks_exact(self.features));
                for (sums, (key, row)) in sums[span.output..].chunks_mut(self.outputs).zip(rows) {
                    sums[0] += S::from_f64(linear(&self.linear[*key as usize], row));
                }
            }
        }
    }

    /// Adds one value for each row.
    #[inline(always)]
    fn add_one<S: Number>(&self, span: &Span, keys: &[u32], sums: &mut [S], value: impl Fn(u32) -> S) {
        // A loop of its own for one output: it is most models', and a step of one is what compilers vectorise.
        if self.outputs == 1 {
            sums.iter_mut().zip(keys).for_each(|(sum, key)| *sum += value(*key));
        } else {
            let sums = sums[span.output..].iter_mut().step_by(self.outputs);
            sums.zip(keys).for_each(|(sum, key)| *sum += value(*key));
        }
    }
}

fn linear(leaf: &LinearLeaf, row: &[f64]) -> f64 {
    let mut sum = leaf.constant;
    for (feature, coefficient) in &leaf.terms {
        let value = row[*feature as usize];
        if value.is_nan() {
            return leaf.fallback;
        }
        sum += coefficient * value;
    }
    sum
}

#[cfg(test)]
mod tests;
