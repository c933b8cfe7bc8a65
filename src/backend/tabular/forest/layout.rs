//! The compact form of trees that the kernels walk, on the CPU and on a GPU alike.
//!
//! A node is 8 bytes: a key, a slot, and where its left child lies; the right child lies behind the left one. A row
//! comes as one unsigned number per slot (see [`super::slots`]), and goes right when its number is greater than the
//! key. A leaf is a node that tests slot 0, whose number is always 0, so that a row stays where it is: all rows can
//! take as many steps as the tree is deep, without asking whether they have arrived. A leaf's key is free to hold its
//! payload: an `f32` value, or an index into a table of values.
//!
//! Nodes of a tree lie level by level, so that the first steps of all rows share cache lines.

use super::slots::Slots;
use crate::error::{Error, Result};
use crate::formats::trees::{Kind, Test, Tree};

/// Rows that are encoded and walked together; slots are stored for this many rows side by side.
pub const LANES: usize = 16;

/// A node in one of its two sizes.
pub trait Node: Copy + Default + Send + Sync {
    fn new(key: u32, slot: usize, left: u32) -> Self;
    fn key(self) -> u32;
    /// Offset of the slot's first lane: the slot's number times [`LANES`].
    fn lane_offset(self) -> usize;
    /// Relative to the tree's root.
    fn left(self) -> u32;
    /// As it lies in memory.
    fn bytes(self) -> impl Iterator<Item = u8>;
}

/// For trees of up to 2^16 nodes and rows of fewer than 2^12 slots, which is nearly all there are.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Narrow {
    key: u32,
    lane_offset: u16,
    left: u16,
}

impl Narrow {
    fn fits(nodes: usize, slots: usize) -> bool {
        nodes <= 1 << 16 && slots * LANES <= 1 << 16
    }
}

impl Node for Narrow {
    fn new(key: u32, slot: usize, left: u32) -> Self {
        Narrow { key, lane_offset: (slot * LANES) as u16, left: left as u16 }
    }

    #[inline(always)]
    fn key(self) -> u32 {
        self.key
    }

    #[inline(always)]
    fn lane_offset(self) -> usize {
        usize::from(self.lane_offset)
    }

    #[inline(always)]
    fn left(self) -> u32 {
        u32::from(self.left)
    }

    fn bytes(self) -> impl Iterator<Item = u8> {
        self.key.to_le_bytes().into_iter().chain([self.lane_offset, self.left].into_iter().flat_map(u16::to_le_bytes))
    }
}

/// For everything else.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Wide {
    key: u32,
    lane_offset: u32,
    left: u32,
}

impl Node for Wide {
    fn new(key: u32, slot: usize, left: u32) -> Self {
        Wide { key, lane_offset: (slot * LANES) as u32, left }
    }

    #[inline(always)]
    fn key(self) -> u32 {
        self.key
    }

    #[inline(always)]
    fn lane_offset(self) -> usize {
        self.lane_offset as usize
    }

    #[inline(always)]
    fn left(self) -> u32 {
        self.left
    }

    fn bytes(self) -> impl Iterator<Item = u8> {
        [self.key, self.lane_offset, self.left].into_iter().flat_map(u32::to_le_bytes)
    }
}

/// Where a tree lies and what its leaves add to.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub root: usize,
    pub nodes: usize,
    /// Steps from the root to the deepest leaf.
    pub depth: u32,
    /// The first output that its leaves' values are added to.
    pub output: usize,
}

pub enum Nodes {
    Narrow(Vec<Narrow>),
    Wide(Vec<Wide>),
}

/// What stands in a leaf's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// The bits of its one `f32` value.
    Value,
    /// Its number among all leaves of the forest.
    Index,
}

/// Trees laid out one after another.
pub struct Layout {
    pub nodes: Nodes,
    pub spans: Vec<Span>,
    /// Number of the tree's node (in its file) at each place, for what is kept beside the nodes.
    pub covers: Vec<f32>,
}

/// Lays out trees that [`Tree::check`] has passed.
///
/// # Errors
/// When there are more leaves than 31 bits can count.
pub fn lay_out(trees: &[(Tree, usize)], width: usize, slots: &Slots, payload: Payload) -> Result<Layout> {
    let largest = trees.iter().map(|(tree, _)| tree.nodes.len()).max().unwrap_or(0);
    let total: usize = trees.iter().map(|(tree, _)| tree.nodes.len()).sum();
    if u32::try_from(total).is_err() {
        return Err(Error::load(format!("the trees have {total} nodes, more than 2^32")));
    }
    let mut covers = Vec::with_capacity(total);
    if Narrow::fits(largest, slots.count()) {
        let (nodes, spans) = lay_out_as(trees, width, slots, payload, &mut covers);
        Ok(Layout { nodes: Nodes::Narrow(nodes), spans, covers })
    } else {
        let (nodes, spans) = lay_out_as(trees, width, slots, payload, &mut covers);
        Ok(Layout { nodes: Nodes::Wide(nodes), spans, covers })
    }
}

fn lay_out_as<N: Node>(
    trees: &[(Tree, usize)],
    width: usize,
    slots: &Slots,
    payload: Payload,
    covers: &mut Vec<f32>,
) -> (Vec<N>, Vec<Span>) {
    let mut nodes: Vec<N> = Vec::with_capacity(covers.capacity());
    let mut spans = Vec::with_capacity(trees.len());
    let mut leaves_before = 0;
    // Node ids in the order of the layout, and how deep each lies.
    let mut order: Vec<(u32, u32)> = Vec::new();
    for (tree, output) in trees {
        let root = nodes.len();
        order.clear();
        order.push((0, 0));
        let mut next = 0;
        while let Some(&(id, depth)) = order.get(next) {
            let node = &tree.nodes[id as usize];
            covers.push(node.cover as f32);
            nodes.push(match &node.kind {
                Kind::Leaf { index } => {
                    let key = match payload {
                        Payload::Value => (tree.leaves[*index as usize] as f32).to_bits(),
                        Payload::Index => leaves_before + index,
                    };
                    N::new(key, 0, next as u32)
                }
                Kind::Split { feature, test, left, right } => {
                    let children = order.len() as u32;
                    order.extend([(*left, depth + 1), (*right, depth + 1)]);
                    let (slot, key) = slots.place(*feature, test);
                    N::new(key, slot, children)
                }
            });
            next += 1;
        }
        let depth = order.last().map_or(0, |(_, depth)| *depth);
        spans.push(Span { root, nodes: order.len(), depth, output: *output });
        leaves_before += (tree.leaves.len() / width) as u32;
    }
    (nodes, spans)
}

/// Features and tests of all splits.
pub fn splits(trees: &[(Tree, usize)]) -> impl Iterator<Item = (u32, &Test)> {
    trees.iter().flat_map(|(tree, _)| &tree.nodes).filter_map(|node| match &node.kind {
        Kind::Split { feature, test, .. } => Some((*feature, test)),
        Kind::Leaf { .. } => None,
    })
}
