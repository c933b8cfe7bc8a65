//! The first levels of a tree for many rows at once, with vector instructions.
//!
//! Deep in a tree every row is at another node, and vector instructions that fetch from many places are no faster than
//! plain ones. At its top there are few nodes and many rows: there, all nodes of the first levels are compared with
//! all rows, each node striking out the exits that a row can no longer take, and the first exit left is the row's
//! (the idea of `QuickScorer`, Lucchese et al., SIGIR 2015). From there on each row walks ([`super::walk`]).

use super::layout::{LANES, Node};

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;

/// Levels that a head decides.
pub const LEVELS: u32 = 5;
const SPLITS: usize = (1 << LEVELS) - 1;
const EXITS: usize = 1 << LEVELS;

/// The top of one tree, filled up to a perfect tree.
pub struct Head {
    lane_offsets: [usize; SPLITS],
    keys: [u32; SPLITS],
    /// The node that each exit leads to.
    exits: [u32; EXITS],
}

/// For each split, the exits that remain when a row goes right there; the first exit is the highest bit.
const REMAINING: [u32; SPLITS] = {
    let mut remaining = [0; SPLITS];
    let mut split = 0;
    while split < SPLITS {
        let level = (split + 1).ilog2();
        let first = (split + 1 - (1 << level)) * (EXITS >> level);
        let struck = EXITS >> (level + 1); // the exits below its left child
        remaining[split] = !((((1_u64 << struck) - 1) << (EXITS - first - struck)) as u32);
        split += 1;
    }
    remaining
};

impl Head {
    /// Copies the top of a tree. A leaf on the way becomes splits that send everybody left.
    pub fn of<N: Node>(tree: &[N]) -> Head {
        let mut head = Head { lane_offsets: [0; SPLITS], keys: [0; SPLITS], exits: [0; EXITS] };
        // As in a binary heap: below place i lie 2i+1 and 2i+2.
        let mut places = [0; SPLITS + EXITS];
        for split in 0..SPLITS {
            let place = places[split];
            let node = tree[place as usize];
            let is_leaf = node.lane_offset() == 0;
            head.lane_offsets[split] = node.lane_offset();
            head.keys[split] = if is_leaf { u32::MAX } else { node.key() };
            places[2 * split + 1] = node.left();
            places[2 * split + 2] = if is_leaf { place } else { node.left() + 1 };
        }
        head.exits.copy_from_slice(&places[SPLITS..]);
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_split_strikes_out_the_exits_below_its_left_child() {
        for path in 0..EXITS {
            // The row that takes this exit goes right where its bits say so.
            let (mut split, mut remaining) = (0, u32::MAX);
            for level in 0..LEVELS {
                let right = path >> (LEVELS - 1 - level) & 1;
                if right == 1 {
                    remaining &= REMAINING[split];
                }
                split = 2 * split + 1 + right;
            }
            assert_eq!(remaining.leading_zeros() as usize, path);
        }
    }
}
