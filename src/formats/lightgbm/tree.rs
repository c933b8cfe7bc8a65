//! One tree: arrays by split and by leaf in the file, where children below 0 are leaves; [`Tree`] here.

use std::str::FromStr;

use super::text::Fields;
use crate::error::{Error, Result};
use crate::formats::trees::{Categories, Kind, LinearLeaf, Missing, Node, NodeId, Test, Tree};

/// Bits of `decision_type`.
const CATEGORICAL: i64 = 1;
const DEFAULT_LEFT: i64 = 2;

pub(super) fn build(fields: &Fields<'_>) -> Result<Tree> {
    let leaf_count: usize = fields.number("num_leaves")?;
    let leaves: Vec<f64> = fields.numbers("leaf_value", leaf_count)?;
    let Some(splits) = leaf_count.checked_sub(1) else { return Err(Error::load("the tree has no leaves")) };
    let linear = if fields.get("is_linear").is_some_and(|text| text.trim() != "0") {
        linear_leaves(fields, &leaves)?
    } else {
        Vec::new()
    };
    let nodes = if splits == 0 {
        vec![Node { cover: informed(fields, "leaf_count", 1)?[0], kind: Kind::Leaf { index: 0 } }]
    } else {
        let mut nodes = split_nodes(fields, splits)?;
        let covers = informed(fields, "leaf_count", leaf_count)?;
        nodes.extend((0..).zip(covers).map(|(index, cover)| Node { cover, kind: Kind::Leaf { index } }));
        nodes
    };
    let gains = informed(fields, "split_gain", splits)?;
    Ok(Tree { nodes, leaves, linear, gains })
}

/// What is for information, as rows that came through; zeros in files that do not say.
fn informed<N: FromStr + Clone + Default>(fields: &Fields<'_>, key: &str, count: usize) -> Result<Vec<N>> {
    if fields.get(key).is_none_or(str::is_empty) { Ok(vec![N::default(); count]) } else { fields.numbers(key, count) }
}

fn split_nodes(fields: &Fields<'_>, count: usize) -> Result<Vec<Node>> {
    let left: Vec<i64> = fields.numbers("left_child", count)?;
    let right: Vec<i64> = fields.numbers("right_child", count)?;
    let feature: Vec<u32> = fields.numbers("split_feature", count)?;
    let threshold: Vec<f64> = fields.numbers("threshold", count)?;
    let decision: Vec<i64> =
        if fields.get("decision_type").is_some() { fields.numbers("decision_type", count)? } else { vec![0; count] };
    let covers = informed(fields, "internal_count", count)?;
    let mut sets = CategorySets::read(fields)?;
    let mut nodes = Vec::with_capacity(count);
    for at in 0..count {
        let wrong = |error: Error| error.context(format_args!("split {at}"));
        let test = if decision[at] & CATEGORICAL == 0 {
            let missing = match decision[at] >> 2 & 3 {
                0 => Missing::NanIsZero,
                1 => Missing::NanAndZero,
                2 => Missing::Nan,
                other => return Err(wrong(Error::load(format!("missing type {other} is not known")))),
            };
            Test::AtMost { threshold: threshold[at], missing, missing_left: decision[at] & DEFAULT_LEFT != 0 }
        } else {
            Test::Category(Box::new(sets.take(threshold[at]).map_err(wrong)?))
        };
        let child = |of: i64| child(of, count).map_err(wrong);
        let kind = Kind::Split { feature: feature[at], test, left: child(left[at])?, right: child(right[at])? };
        nodes.push(Node { cover: covers[at], kind });
    }
    Ok(nodes)
}

/// Splits are nodes from 0, leaves (`-1` is leaf 0) come after them.
fn child(child: i64, splits: usize) -> Result<NodeId> {
    let place = match usize::try_from(child) {
        Ok(split) if split < splits => Some(split),
        Ok(_) => None,
        Err(_) => usize::try_from(!child).ok().filter(|leaf| *leaf <= splits).map(|leaf| splits + leaf),
    };
    let place = place.and_then(|place| NodeId::try_from(place).ok());
    place.ok_or_else(|| Error::load(format!("its child {child} does not exist among {splits} splits")))
}

/// Bit sets of categories, one after the other, which categorical splits refer to by number.
struct CategorySets {
    /// Each is taken once: splits that shared one would let a small file claim much memory.
    sets: Vec<Option<Vec<u64>>>,
}

impl CategorySets {
    fn read(fields: &Fields<'_>) -> Result<CategorySets> {
        let count: usize = fields.number("num_cat")?;
        if count == 0 {
            return Ok(CategorySets { sets: Vec::new() });
        }
        let boundaries: Vec<usize> = fields.numbers("cat_boundaries", count.saturating_add(1))?;
        let words: Vec<u32> = fields.numbers("cat_threshold", boundaries.last().copied().unwrap_or(0))?;
        let set = |ends: &[usize]| {
            let words = words.get(ends[0]..ends[1]).ok_or_else(|| Error::load("cat_boundaries do not ascend"))?;
            Ok(Some(words.chunks(2).map(wide).collect()))
        };
        Ok(CategorySets { sets: boundaries.windows(2).map(set).collect::<Result<_>>()? })
    }

    fn take(&mut self, number: f64) -> Result<Categories> {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the cast saturates
        let set = if number >= 0.0 { self.sets.get_mut(number as usize).and_then(Option::take) } else { None };
        let left = set.ok_or_else(|| {
            Error::load(format!("its set of categories, number {number}, does not exist or is another split's"))
        })?;
        Ok(Categories { left, others_left: false, nan_left: false, toward_zero: true })
    }
}

fn wide(words: &[u32]) -> u64 {
    words.iter().rev().fold(0, |wide, word| wide << 32 | u64::from(*word))
}

fn linear_leaves(fields: &Fields<'_>, leaves: &[f64]) -> Result<Vec<LinearLeaf>> {
    let constants: Vec<f64> = fields.numbers("leaf_const", leaves.len())?;
    let counts: Vec<usize> = fields.numbers("num_features", leaves.len())?;
    let total = counts.iter().fold(0_usize, |sum, count| sum.saturating_add(*count));
    let features: Vec<u32> = fields.numbers("leaf_features", total)?;
    let coefficients: Vec<f64> = fields.numbers("leaf_coeff", total)?;
    let mut terms = features.into_iter().zip(coefficients);
    let leaf = |((constant, count), fallback): ((f64, usize), &f64)| LinearLeaf {
        constant,
        terms: terms.by_ref().take(count).collect(),
        fallback: *fallback,
    };
    Ok(constants.into_iter().zip(counts).zip(leaves).map(leaf).collect())
}
