//! From the root to a leaf, one comparison a step and no branch that depends on the row. A single walk waits for
//! memory at every step; sixteen side by side keep the processor busy.
//!
//! These are the portable kernels, and what the vectorised heads ([`super::head`]) hand over to.

use super::layout::{LANES, Node, Span};

/// Steps between two looks at whether everybody has arrived. Trees that are grown leaf by leaf have few deep leaves.
const BURST: u32 = 4;

/// Takes the rows of a block from their `places` in a tree at most `steps` down.
///
/// # Safety
/// `tree` is one tree of a [`super::layout::Layout`] and `block` is as long as that layout's slots ask for; `places`
/// are nodes of the tree.
#[inline(always)]
pub unsafe fn walk<N: Node>(tree: &[N], block: &[u32], places: &mut [u32; LANES], steps: u32) {
    let nodes = tree.as_ptr();
    let lanes = block.as_ptr();
    let mut at = *places;
    let mut left = steps;
    loop {
        let before = at;
        for _ in 0..left.min(BURST) {
            for (lane, at) in at.iter_mut().enumerate() {
                // SAFETY: the layout's children and slots are in range, as the caller says.
                *at = unsafe { step(nodes, *at, lanes.add(lane)) };
            }
        }
        left = left.saturating_sub(BURST);
        if left == 0 || have_arrived(&before, &at) {
            break;
        }
    }
    *places = at;
}

/// Whether nobody moved. Written out, since comparing arrays calls memcmp, which costs as much as a step.
#[inline(always)]
fn have_arrived(before: &[u32; LANES], at: &[u32; LANES]) -> bool {
    before.iter().zip(at).fold(0, |moved, (before, at)| moved | (before ^ at)) == 0
}

/// Turns places of a tree into the keys that stand there.
#[inline(always)]
pub fn take_keys<N: Node>(tree: &[N], places: &mut [u32; LANES]) {
    for place in places {
        *place = tree[*place as usize].key();
    }
}

/// The keys of the leaves that the rows of each block fall into; `keys[b]` are those of block `b`.
///
/// # Safety
/// As [`walk`], for every `block_size` long piece of `blocks`.
pub unsafe fn leaves<N: Node>(tree: &[N], depth: u32, blocks: &[u32], block_size: usize, keys: &mut [[u32; LANES]]) {
    for (block, keys) in blocks.chunks_exact(block_size).zip(keys) {
        *keys = [0; LANES];
        // SAFETY: the caller's; place 0 is the root.
        unsafe { walk(tree, block, keys, depth) };
        take_keys(tree, keys);
    }
}

/// The keys of the leaves that one row, the first of its block, falls into: one for each tree of `spans`. Here trees
/// are walked side by side.
///
/// # Safety
/// As [`walk`], for every tree of `spans` in `nodes`.
pub unsafe fn leaves_of_row<N: Node>(nodes: &[N], spans: &[Span], block: &[u32], keys: &mut [u32]) {
    const TREES: usize = LANES;
    for (spans, keys) in spans.chunks(TREES).zip(keys.chunks_mut(TREES)) {
        // Where there are fewer trees than lanes, the rest walk the first one again: cheaper than asking.
        let mut roots = [nodes[spans[0].root..].as_ptr(); TREES];
        for (root, span) in roots.iter_mut().zip(spans) {
            *root = nodes[span.root..].as_ptr();
        }
        let mut left = spans.iter().map(|span| span.depth).max().unwrap_or(0);
        let mut at = [0; TREES];
        loop {
            let before = at;
            for _ in 0..left.min(BURST) {
                for (at, root) in at.iter_mut().zip(&roots) {
                    // SAFETY: as in `walk`; every place is within the tree whose root it is counted from.
                    *at = unsafe { step(*root, *at, block.as_ptr()) };
                }
            }
            left = left.saturating_sub(BURST);
            if left == 0 || have_arrived(&before, &at) {
                break;
            }
        }
        for ((key, place), span) in keys.iter_mut().zip(at).zip(spans) {
            *key = nodes[span.root + place as usize].key();
        }
    }
}

/// # Safety
/// `at` is a node of the tree at `nodes`, and its slot is within what lies behind `lane`.
#[inline(always)]
unsafe fn step<N: Node>(nodes: *const N, at: u32, lane: *const u32) -> u32 {
    // SAFETY: the caller's.
    let (node, number) = unsafe {
        let node = *nodes.add(at as usize);
        (node, *lane.add(node.lane_offset()))
    };
    node.left() + u32::from(number > node.key())
}
