//! Heads with AVX-512: sixteen rows to an instruction.

use std::arch::x86_64::{
    _mm512_cmpgt_epu32_mask, _mm512_loadu_si512, _mm512_lzcnt_epi32, _mm512_mask_and_epi32, _mm512_permutex2var_epi32,
    _mm512_set1_epi32, _mm512_storeu_si512,
};

use super::{Head, LANES, LEVELS, REMAINING};
use crate::backend::tabular::forest::layout::Node;
use crate::backend::tabular::forest::walk;

/// Blocks that go through a head together, so that one's comparisons hide the other's latency.
pub const BLOCKS: usize = 4;

/// As [`walk::leaves`], for a number of blocks that [`BLOCKS`] divides.
///
/// # Safety
/// As [`walk::leaves`], on a processor with AVX-512 F and CD.
#[target_feature(enable = "avx512f,avx512cd")]
pub unsafe fn leaves<N: Node>(tree: &[N], depth: u32, blocks: &[u32], block_size: usize, keys: &mut [[u32; LANES]]) {
    let head = Head::of(tree);
    for (blocks, keys) in blocks.chunks_exact(block_size * BLOCKS).zip(keys.chunks_exact_mut(BLOCKS)) {
        // SAFETY: the caller's.
        let mut places = unsafe { exits(&head, blocks, block_size) };
        for ((block, places), keys) in blocks.chunks_exact(block_size).zip(&mut places).zip(keys) {
            // SAFETY: the caller's; exits are nodes of the tree.
            unsafe { finish(tree, block, places, depth.saturating_sub(LEVELS)) };
            *keys = *places;
        }
    }
}

/// # Safety
/// The head's slots are within each block.
#[target_feature(enable = "avx512f,avx512cd")]
unsafe fn exits(head: &Head, blocks: &[u32], block_size: usize) -> [[u32; LANES]; BLOCKS] {
    // SAFETY: loads lie within `blocks`, as the caller says, and within arrays of the right size.
    unsafe {
        let first = _mm512_loadu_si512(head.exits.as_ptr().cast());
        let second = _mm512_loadu_si512(head.exits[LANES..].as_ptr().cast());
        let mut remaining = [_mm512_set1_epi32(-1); BLOCKS];
        for ((offset, key), mask) in head.lane_offsets.iter().zip(&head.keys).zip(&REMAINING) {
            let key = _mm512_set1_epi32(key.cast_signed());
            let mask = _mm512_set1_epi32(mask.cast_signed());
            for (block, remaining) in remaining.iter_mut().enumerate() {
                let numbers = _mm512_loadu_si512(blocks.as_ptr().add(block * block_size + offset).cast());
                let right = _mm512_cmpgt_epu32_mask(numbers, key);
                *remaining = _mm512_mask_and_epi32(*remaining, right, *remaining, mask);
            }
        }
        let mut places = [[0; LANES]; BLOCKS];
        for (remaining, places) in remaining.into_iter().zip(&mut places) {
            let exits = _mm512_permutex2var_epi32(first, _mm512_lzcnt_epi32(remaining), second);
            _mm512_storeu_si512(places.as_mut_ptr().cast(), exits);
        }
        places
    }
}

/// Walks on to the leaves and takes their keys. Apart from the rest because the compiler, where it may use AVX-512,
/// turns the walk into gathers, which take twice as long.
///
/// # Safety
/// As [`walk::walk`].
#[inline(never)]
unsafe fn finish<N: Node>(tree: &[N], block: &[u32], places: &mut [u32; LANES], steps: u32) {
    // SAFETY: the caller's.
    unsafe { walk::walk(tree, block, places, steps) };
    walk::take_keys(tree, places);
}
