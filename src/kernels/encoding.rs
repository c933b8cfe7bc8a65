//! How rows become the numbers that trees compare, on a GPU: `kernels/encode.h`.

use super::{Machine, Plain, number};
use crate::error::Result;

/// A slot of `kernels/encode.h`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Slot {
    pub feature: u32,
    pub code: u32,
    pub missing: u32,
    pub missing_left: u32,
    pub first: u32,
    pub count: u32,
    pub nan_left: u32,
    pub others_left: u32,
    pub toward_zero: u32,
    pub single: u32,
}

/// `Slot::code`.
pub const ORDERED: u32 = 0;
pub const RANKED: u32 = 1;
pub const CATEGORY: u32 = 2;

/// `Rows` of `kernels/encode.h`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct EncodingArgs {
    values: u64,
    slots: u64,
    thresholds: u64,
    categories: u64,
    count: u32,
    features: u32,
    slots_tested: u32,
    are_double: u32,
}

// SAFETY: ten u32.
unsafe impl Plain for Slot {}

/// How rows become what trees compare.
#[derive(Default)]
pub struct Encoding {
    /// Slot 1 and up.
    pub slots: Vec<Slot>,
    /// Of ranked ones, each slot's ascending.
    pub thresholds: Vec<f64>,
    /// Which categories go left, a bit for each.
    pub categories: Vec<u64>,
}

/// An encoding on a machine.
pub struct Uploaded<M: Machine> {
    tested: usize,
    slots: M::Buffer,
    thresholds: M::Buffer,
    categories: M::Buffer,
}

impl<M: Machine> Uploaded<M> {
    /// # Errors
    /// As [`Machine::upload`].
    pub fn new(machine: &M, encoding: &Encoding) -> Result<Uploaded<M>> {
        Ok(Uploaded {
            tested: encoding.slots.len(),
            slots: machine.upload(&encoding.slots)?,
            thresholds: machine.upload(&encoding.thresholds)?,
            categories: machine.upload(&encoding.categories)?,
        })
    }

    /// For `count` rows of so many features whose values are at an address.
    pub fn args(&self, machine: &M, values: u64, count: usize, features: usize, are_double: bool) -> EncodingArgs {
        EncodingArgs {
            values,
            slots: machine.address(&self.slots),
            thresholds: machine.address(&self.thresholds),
            categories: machine.address(&self.categories),
            count: number(count),
            features: number(features),
            slots_tested: number(self.tested),
            are_double: u32::from(are_double),
        }
    }
}
