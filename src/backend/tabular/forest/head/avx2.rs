//! Heads with AVX2: eight rows to an instruction.

use std::arch::x86_64::{
    _mm256_and_si256, _mm256_cmpgt_epi32, _mm256_loadu_si256, _mm256_or_si256, _mm256_set1_epi32, _mm256_setzero_si256,
    _mm256_storeu_si256, _mm256_xor_si256,
};

use super::{EXITS, Head, LANES, LEVELS, REMAINING};
use crate::backend::tabular::forest::layout::Node;
use crate::backend::tabular::forest::walk;

/// Blocks that go through a head together.
pub const BLOCKS: usize = 2;

/// As [`walk::leaves`], for a number of blocks that [`BLOCKS`] divides.
///
/// # Safety
/// As [`walk::leaves`], on a processor with AVX2.
#[target_feature(enable = "avx2")]
pub unsafe fn leaves<N: Node>(tree: &[N], depth: u32, blocks: &[u32], block_size: usize, keys: &mut [[u32; LANES]]) {
    let head = Head::of(tree);
    for (blocks, keys) in blocks.chunks_exact(block_size * BLOCKS).zip(keys.chunks_exact_mut(BLOCKS)) {
        // SAFETY: the caller's.
        let mut struck = unsafe { struck_exits(&head, blocks, block_size) };
        for ((block, struck), keys) in blocks.chunks_exact(block_size).zip(&mut struck).zip(keys) {
            // SAFETY: the caller's; exits are nodes of the tree.
            unsafe { finish(tree, &head, block, struck, depth.saturating_sub(LEVELS)) };
            *keys = *struck;
        }
    }
}

/// For each row the exits that it cannot take.
///
/// # Safety
/// The head's slots are within each block.
#[target_feature(enable = "avx2")]
unsafe fn struck_exits(head: &Head, blocks: &[u32], block_size: usize) -> [[u32; LANES]; BLOCKS] {
    const VECTORS: usize = LANES / 8;
    // SAFETY: loads lie within `blocks`, as the caller says, and stores within arrays of the right size.
    unsafe {
        // AVX2 compares signed numbers only.
        let flip = _mm256_set1_epi32(i32::MIN);
        let mut struck = [_mm256_setzero_si256(); VECTORS * BLOCKS];
        for ((offset, key), mask) in head.lane_offsets.iter().zip(&head.keys).zip(&REMAINING) {
            let key = _mm256_set1_epi32(key.cast_signed() ^ i32::MIN);
            let mask = _mm256_set1_epi32((!mask).cast_signed());
            for (vector, struck) in struck.iter_mut().enumerate() {
                let at = (vector / VECTORS) * block_size + offset + (vector % VECTORS) * 8;
                let numbers = _mm256_loadu_si256(blocks.as_ptr().add(at).cast());
                let right = _mm256_cmpgt_epi32(_mm256_xor_si256(numbers, flip), key);
                *struck = _mm256_or_si256(*struck, _mm256_and_si256(right, mask));
            }
        }
        let mut masks = [[0_u32; LANES]; BLOCKS];
        for (masks, struck) in masks.as_flattened_mut().as_chunks_mut::<8>().0.iter_mut().zip(struck) {
            _mm256_storeu_si256(masks.as_mut_ptr().cast(), struck);
        }
        masks
    }
}

/// Walks on to the leaves and takes their keys; apart for the reason that AVX-512's has.
///
/// # Safety
/// As [`walk::walk`].
#[inline(never)]
unsafe fn finish<N: Node>(tree: &[N], head: &Head, block: &[u32], places: &mut [u32; LANES], steps: u32) {
    for struck in &mut *places {
        *struck = head.exits[(!*struck).leading_zeros() as usize % EXITS];
    }
    // SAFETY: the caller's.
    unsafe { walk::walk(tree, block, places, steps) };
    walk::take_keys(tree, places);
}
