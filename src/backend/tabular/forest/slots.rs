//! From a row's values to the unsigned numbers that trees compare: one slot for each way in which the trees look at a
//! feature.
//!
//! A value becomes a number of the same order, so that one integer comparison serves every library and precision.
//! `f32` models take the float's own bits, turned so that they sort. `f64` models take the value's rank among all
//! thresholds that the trees compare this feature with: exact, and four bytes instead of eight. What is missing
//! becomes 0 or the greatest number, in a slot for splits that send the missing left and one for those that do not,
//! so that a step need not ask. A test for categories is a slot of its own that holds 0 or 1.

use std::collections::HashMap;

use super::layout::LANES;
use crate::error::{Error, Result};
use crate::formats::trees::{Categories, Missing, Test, ZERO};
use crate::kernels::encoding::{CATEGORY, Encoding, ORDERED, RANKED, Slot as EncodedSlot};

/// How precisely the trees see their input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Values are cast to `f32` first, as scikit-learn's trees and xgboost do.
    Single,
    Double,
}

/// How one slot is filled.
#[derive(Debug)]
struct Slot {
    feature: usize,
    code: Code,
}

#[derive(Debug)]
enum Code {
    Ordered {
        missing: Missing,
        missing_left: bool,
    },
    /// The thresholds are those of [`Slots::thresholds`].
    Ranked {
        missing: Missing,
        missing_left: bool,
    },
    Category(Box<Categories>),
}

/// All slots of a forest. Slot 0 is the leaves' and always 0.
#[derive(Debug)]
pub struct Slots {
    precision: Precision,
    /// Slot 1 and up.
    tested: Vec<Slot>,
    /// Of each feature, ascending and distinct; empty when they are compared as they are.
    thresholds: Vec<Vec<f64>>,
    numeric: HashMap<(u32, Missing, bool), usize>,
    categorical: HashMap<(u32, Categories), usize>,
}

/// With [`LANES`] rows each, a bound of 64 MiB on what one block of encoded rows takes.
const MAX_SLOTS: usize = 1 << 20;

/// What is missing and goes right: greater than every key.
const GREATEST: u32 = u32::MAX;

impl Slots {
    /// Collects the slots for these splits of a model with `features` features.
    ///
    /// # Errors
    /// When there are more different splits on categories than can be encoded.
    pub fn collect<'a>(
        splits: impl Iterator<Item = (u32, &'a Test)>,
        features: usize,
        precision: Precision,
    ) -> Result<Slots> {
        let mut slots = Slots {
            precision,
            tested: Vec::new(),
            thresholds: vec![Vec::new(); if precision == Precision::Double { features } else { 0 }],
            numeric: HashMap::new(),
            categorical: HashMap::new(),
        };
        for (feature, test) in splits {
            match test {
                Test::AtMost { threshold, missing, missing_left } => {
                    slots.add_numeric(feature, *missing, *missing_left);
                    if let Some(thresholds) = slots.thresholds.get_mut(feature as usize) {
                        thresholds.push(*threshold);
                    }
                }
                Test::Category(categories) => slots.add_category(feature, categories),
            }
        }
        if slots.count() > MAX_SLOTS {
            return Err(Error::load(format!("{} different splits, at most {MAX_SLOTS} are supported", slots.count())));
        }
        for thresholds in &mut slots.thresholds {
            thresholds.sort_unstable_by(f64::total_cmp);
            thresholds.dedup_by(|a, b| a == b);
            thresholds.shrink_to_fit();
        }
        Ok(slots)
    }

    fn add_numeric(&mut self, feature: u32, missing: Missing, missing_left: bool) {
        // NaN that is zero goes where zero goes, whatever the side for the missing.
        let missing_left = missing_left && missing != Missing::NanIsZero;
        let slots = &mut self.tested;
        self.numeric.entry((feature, missing, missing_left)).or_insert_with(|| {
            let code = match self.precision {
                Precision::Single => Code::Ordered { missing, missing_left },
                Precision::Double => Code::Ranked { missing, missing_left },
            };
            slots.push(Slot { feature: feature as usize, code });
            slots.len()
        });
    }

    fn add_category(&mut self, feature: u32, categories: &Categories) {
        let slots = &mut self.tested;
        self.categorical.entry((feature, categories.clone())).or_insert_with(|| {
            slots.push(Slot { feature: feature as usize, code: Code::Category(Box::new(categories.clone())) });
            slots.len()
        });
    }

    /// Slots of a row, the leaves' included.
    pub fn count(&self) -> usize {
        self.tested.len() + 1
    }

    /// The feature that a slot looks at.
    pub fn feature(&self, slot: usize) -> usize {
        self.tested[slot - 1].feature
    }

    /// The slot of a split, and the key that its number is compared with.
    pub fn place(&self, feature: u32, test: &Test) -> (usize, u32) {
        match test {
            Test::AtMost { threshold, missing, missing_left } => {
                let missing_left = *missing_left && *missing != Missing::NanIsZero;
                let slot = self.numeric[&(feature, *missing, missing_left)];
                let key = match self.precision {
                    Precision::Single => ordered(at_most_f32(*threshold)),
                    Precision::Double => rank(&self.thresholds[feature as usize], *threshold),
                };
                (slot, key)
            }
            Test::Category(categories) => (self.categorical[&(feature, (**categories).clone())], 0),
        }
    }

    /// The same for a GPU.
    pub fn encoding(&self) -> Encoding {
        let mut encoding = Encoding::default();
        let mut thresholds_of = HashMap::new();
        for slot in &self.tested {
            let mut encoded = EncodedSlot { feature: slot.feature as u32, ..EncodedSlot::default() };
            if let Code::Ordered { missing, missing_left } | Code::Ranked { missing, missing_left } = &slot.code {
                (encoded.missing, encoded.missing_left) = (missing_code(*missing), u32::from(*missing_left));
            }
            match &slot.code {
                Code::Ordered { .. } => encoded.code = ORDERED,
                Code::Ranked { .. } => {
                    let thresholds = &self.thresholds[slot.feature];
                    let first = thresholds_of.entry(slot.feature).or_insert_with(|| {
                        encoding.thresholds.extend(thresholds);
                        (encoding.thresholds.len() - thresholds.len()) as u32
                    });
                    (encoded.code, encoded.first, encoded.count) = (RANKED, *first, thresholds.len() as u32);
                }
                Code::Category(categories) => {
                    let Categories { left, others_left, nan_left, toward_zero } = &**categories;
                    let single = self.precision == Precision::Single;
                    let first = encoding.categories.len() as u32;
                    (encoded.code, encoded.first, encoded.count) = (CATEGORY, first, left.len() as u32);
                    [encoded.nan_left, encoded.others_left] = [*nan_left, *others_left].map(u32::from);
                    [encoded.toward_zero, encoded.single] = [*toward_zero, single].map(u32::from);
                    encoding.categories.extend(left);
                }
            }
            encoding.slots.push(encoded);
        }
        encoding
    }

    /// Encodes up to [`LANES`] rows into `block`: number `l` of slot `s` at `s * LANES + l`. Lanes without a row are
    /// left as they are. `rows` are row-major, `columns` values each.
    pub fn encode(&self, rows: &[f64], columns: usize, block: &mut [u32]) {
        for (slot, lanes) in self.tested.iter().zip(block[LANES..].as_chunks_mut::<LANES>().0) {
            let values = rows[slot.feature..].iter().step_by(columns).copied();
            match &slot.code {
                Code::Ordered { missing, missing_left } => {
                    for (value, lane) in values.zip(lanes) {
                        *lane = match normal(value, *missing) {
                            Some(value) => ordered(value as f32),
                            None => absent(*missing_left),
                        };
                    }
                }
                Code::Ranked { missing, missing_left } => {
                    let thresholds = &self.thresholds[slot.feature];
                    for (value, lane) in values.zip(lanes) {
                        *lane = match normal(value, *missing) {
                            Some(value) => rank(thresholds, value),
                            None => absent(*missing_left),
                        };
                    }
                }
                Code::Category(categories) => {
                    for (value, lane) in values.zip(lanes) {
                        let value = if self.precision == Precision::Single { f64::from(value as f32) } else { value };
                        *lane = u32::from(!goes_left(categories, value));
                    }
                }
            }
        }
    }
}

/// The value to compare, or `None` when it is missing.
#[inline(always)]
fn normal(value: f64, missing: Missing) -> Option<f64> {
    match missing {
        Missing::Nan if value.is_nan() => None,
        Missing::NanAndZero if value.is_nan() || value.abs() <= ZERO => None,
        Missing::NanIsZero if value.is_nan() => Some(0.0),
        _ => Some(value),
    }
}

/// `Missing` of `kernels/encode.h`.
fn missing_code(missing: Missing) -> u32 {
    match missing {
        Missing::NanIsZero => 0,
        Missing::Nan => 1,
        Missing::NanAndZero => 2,
    }
}

fn absent(goes_left: bool) -> u32 {
    if goes_left { 0 } else { GREATEST }
}

/// The bits of a float as a number of the same order; both zeros are one. NaN has no order: it is not given.
#[inline(always)]
fn ordered(value: f32) -> u32 {
    let bits = (value + 0.0).to_bits(); // -0.0 + 0.0 is 0.0
    if bits >> 31 == 0 { bits | 0x8000_0000 } else { !bits }
}

/// The greatest `f32` that is at most `threshold`: `f32` values are on the same side of both.
fn at_most_f32(threshold: f64) -> f32 {
    let rounded = threshold as f32;
    if f64::from(rounded) > threshold { rounded.next_down() } else { rounded }
}

/// How many thresholds are smaller than the value. `x <= thresholds[k]` exactly when `rank(x) <= k`.
#[inline(always)]
fn rank(thresholds: &[f64], value: f64) -> u32 {
    // Without branches: where a row falls cannot be predicted.
    let mut start = 0;
    let mut length = thresholds.len();
    while length > 1 {
        let half = length / 2;
        start = if thresholds[start + half - 1] < value { start + half } else { start };
        length -= half;
    }
    let last = thresholds.get(start).is_some_and(|threshold| *threshold < value);
    (start + usize::from(last)) as u32
}

fn goes_left(categories: &Categories, value: f64) -> bool {
    if value.is_nan() {
        return categories.nan_left;
    }
    let known = value >= 0.0 || (categories.toward_zero && value > -1.0);
    let whole = if known { value.trunc() } else { -1.0 };
    let word = if (0.0..4_294_967_296.0).contains(&whole) { categories.left.get(whole as usize / 64) } else { None };
    word.map_or(categories.others_left, |word| word >> (whole as u32 % 64) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn floats() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>().prop_filter("a number", |value| !value.is_nan()),
            (-4..4_i8).prop_map(f64::from),
            Just(-0.0)
        ]
    }

    proptest! {
        #[test]
        fn ranks_compare_as_values_do(thresholds in proptest::collection::vec(floats(), 1..40), value in floats()) {
            let mut sorted = thresholds.clone();
            sorted.sort_unstable_by(f64::total_cmp);
            sorted.dedup_by(|a, b| a == b);
            for threshold in thresholds {
                prop_assert_eq!(rank(&sorted, value) <= rank(&sorted, threshold), value <= threshold);
            }
        }

        #[test]
        fn bits_compare_as_singles_do(threshold in floats(), value in floats()) {
            let single = value as f32;
            prop_assert_eq!(
                ordered(single) <= ordered(at_most_f32(threshold)),
                f64::from(single) <= threshold || (threshold.is_infinite() && threshold > 0.0)
            );
            prop_assert!(ordered(single) > absent(true) && ordered(single) < absent(false));
        }
    }
}
