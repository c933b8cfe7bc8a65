//! One tree: parallel arrays by node in documents, records in binary files, [`Tree`] here.

use super::document::{Input, Number};
use super::model::{count, required};
use super::{Grown, Target};
use crate::error::{Error, Result};
use crate::formats::trees::{Categories, Kind, Node, Test, Tree, below};

/// Larger ones are no categories for xgboost, which counts on `f32` holding each.
const MAX_CATEGORY: i64 = 1 << 24;

/// What sets of categories may take in memory, all nodes of a model together: a set is as large as its greatest
/// category, so that few bytes of a file could ask for much.
pub(super) const MAX_CATEGORY_WORDS: usize = 256 << 17;

/// A tree's arrays as the file has them.
#[derive(Debug, Default)]
pub(super) struct Arrays {
    pub id: Option<i64>,
    /// Values per leaf.
    pub width: usize,
    pub left: Vec<i64>,
    pub right: Vec<i64>,
    pub feature: Vec<i64>,
    /// Thresholds of splits, values of (scalar) leaves.
    pub condition: Vec<f32>,
    pub default_left: Vec<i64>,
    pub hessian: Vec<f32>,
    pub gain: Vec<f32>,
    /// Vector leaves: of all nodes in 2.0 to 3.1.
    pub node_weights: Vec<f32>,
    /// Vector leaves since 3.2, at the place that stands in `right`.
    pub leaf_weights: Vec<f32>,
    pub split_type: Vec<i64>,
    pub category_nodes: Vec<i64>,
    pub category_segments: Vec<i64>,
    pub category_sizes: Vec<i64>,
    pub categories: Vec<i64>,
}

pub(super) fn parse<I: Input>(input: &mut I) -> Result<Arrays> {
    fn into<I: Input, N: Number>(input: &mut I, array: &mut Vec<N>) -> Result<()> {
        input.numbers().map(|numbers| *array = numbers)
    }
    let mut arrays = Arrays::default();
    let mut parameters = None;
    input.fields(|name, input| match name {
        "id" => input.integer().map(|id| arrays.id = Some(id)),
        "tree_param" => input.parameters().map(|found| parameters = Some(found)),
        "left_children" => into(input, &mut arrays.left),
        "right_children" => into(input, &mut arrays.right),
        "split_indices" => into(input, &mut arrays.feature),
        "split_conditions" => into(input, &mut arrays.condition),
        "default_left" => into(input, &mut arrays.default_left),
        "sum_hessian" => into(input, &mut arrays.hessian),
        "loss_changes" => into(input, &mut arrays.gain),
        "base_weights" => into(input, &mut arrays.node_weights),
        "leaf_weights" => into(input, &mut arrays.leaf_weights),
        "split_type" => into(input, &mut arrays.split_type),
        "categories_nodes" => into(input, &mut arrays.category_nodes),
        "categories_segments" => into(input, &mut arrays.category_segments),
        "categories_sizes" => into(input, &mut arrays.category_sizes),
        "categories" => into(input, &mut arrays.categories),
        _ => input.skip(),
    })?;
    required("id", arrays.id)?;
    let parameters = required("tree_param", parameters)?;
    let number = |name: &str| count(name, required(name, parameters.get(name))?);
    // 0 before 2.0.
    arrays.width = number("size_leaf_vector")?.max(1);
    let nodes = number("num_nodes")?;
    if nodes != arrays.left.len() {
        return Err(Error::load(format!("num_nodes is {nodes}, but left_children has {}", arrays.left.len())));
    }
    Ok(arrays)
}

impl Arrays {
    /// Every array that goes by node must have all nodes.
    fn check_lengths(&self) -> Result<()> {
        let count = self.left.len();
        // With whether every version writes it: of trees with vector leaves statistics are there since 3.2.
        let statistics = self.width == 1;
        let lengths = [
            ("right_children", self.right.len(), true),
            ("split_indices", self.feature.len(), true),
            ("split_conditions", self.condition.len(), true),
            ("default_left", self.default_left.len(), true),
            ("sum_hessian", self.hessian.len(), statistics),
            ("loss_changes", self.gain.len(), statistics),
            ("split_type", self.split_type.len(), false),
            ("base_weights", self.node_weights.len() / self.width, false),
        ];
        for (name, length, always) in lengths {
            if length != count && (always || length > 0) {
                return Err(Error::load(format!("{name} has {length} values for {count} nodes")));
            }
        }
        let listed = self.category_nodes.len();
        if self.category_segments.len() != listed || self.category_sizes.len() != listed {
            return Err(Error::load("categories_nodes, categories_segments and categories_sizes differ in length"));
        }
        Ok(())
    }

    /// The tree, of the nodes that can be reached from its root: pruning leaves others behind.
    pub fn build(&self, group: usize, words_left: &mut usize) -> Result<Grown> {
        self.check_lengths()?;
        let (kept, new_ids) = self.reachable()?;
        let segments = self.segments()?;
        let mut grown = Grown {
            tree: Tree { nodes: Vec::with_capacity(kept.len()), ..Tree::default() },
            target: if self.width > 1 { Target::All } else { Target::Output(group) },
            leaf_ids: Vec::new(),
        };
        for &id in &kept {
            let at = id as usize;
            let kind = if self.left[at] == -1 {
                let index = grown.leaf_ids.len();
                self.push_leaf(at, &mut grown.tree.leaves).map_err(|error| error.context(format_args!("node {at}")))?;
                grown.leaf_ids.push(id);
                Kind::Leaf { index: u32::try_from(index).unwrap_or(u32::MAX) }
            } else {
                let test =
                    self.test(at, &segments, words_left).map_err(|error| error.context(format_args!("node {at}")))?;
                let child = |of: &[i64]| usize::try_from(of[at]).map_or(u32::MAX, |child| new_ids[child]);
                let wrong = |_| Error::load(format!("node {at} splits on feature {}", self.feature[at]));
                let feature: u32 = self.feature[at].try_into().map_err(wrong)?;
                Kind::Split { feature, test, left: child(&self.left), right: child(&self.right) }
            };
            let cover = self.hessian.get(at).copied().map_or(0.0, f64::from);
            grown.tree.nodes.push(Node { cover, kind });
            grown.tree.gains.extend(self.gain.get(at));
        }
        Ok(grown)
    }

    /// The nodes below the root in file order, and each node's place among them.
    fn reachable(&self) -> Result<(Vec<u32>, Vec<u32>)> {
        let count = self.left.len();
        if count == 0 || u32::try_from(count).is_err() {
            return Err(Error::load(format!("a tree of {count} nodes")));
        }
        let mut new_ids = vec![u32::MAX; count];
        let mut open = vec![0_usize];
        new_ids[0] = 0;
        while let Some(at) = open.pop() {
            if self.left[at] == -1 {
                continue;
            }
            for child in [self.left[at], self.right[at]] {
                let reached = usize::try_from(child).ok().and_then(|child| new_ids.get_mut(child));
                match reached {
                    Some(id) if *id == u32::MAX => *id = 0,
                    Some(_) => return Err(Error::load(format!("node {at}: its child {child} has a parent already"))),
                    None => {
                        return Err(Error::load(format!("node {at}: its child {child} is none of the {count} nodes")));
                    }
                }
                open.extend(usize::try_from(child));
            }
        }
        let mut kept = Vec::new();
        for (id, new) in (0_u32..).zip(new_ids.iter_mut()).filter(|(_, new)| **new == 0) {
            *new = u32::try_from(kept.len()).unwrap_or(u32::MAX);
            kept.push(id);
        }
        Ok((kept, new_ids))
    }

    fn push_leaf(&self, at: usize, leaves: &mut Vec<f64>) -> Result<()> {
        if self.width == 1 {
            leaves.push(f64::from(self.condition[at]));
            return Ok(());
        }
        let (weights, place) = if self.leaf_weights.is_empty() {
            (&self.node_weights, Some(at))
        } else {
            (&self.leaf_weights, usize::try_from(self.right[at]).ok())
        };
        let begin = place.and_then(|place| place.checked_mul(self.width));
        // Leaves that shared their values would let a small file claim any number of them.
        let values = begin.and_then(|begin| weights.get(begin..begin.checked_add(self.width)?));
        let values = values.filter(|_| leaves.len() + self.width <= weights.len());
        let values = values.ok_or_else(|| {
            Error::load(format!("there are no {} leaf values for it among {} weights", self.width, weights.len()))
        })?;
        leaves.extend(values.iter().copied().map(f64::from));
        Ok(())
    }

    fn test(&self, at: usize, segments: &[Option<&[i64]>], words_left: &mut usize) -> Result<Test> {
        let missing_left = self.default_left[at] != 0;
        if self.split_type.get(at).is_none_or(|kind| *kind == 0) {
            return Ok(below(self.condition[at], missing_left));
        }
        let right = segments.get(at).copied().flatten().filter(|categories| !categories.is_empty());
        let right = right.ok_or_else(|| Error::load("it is a split by category, but has no categories"))?;
        let wrong = right.iter().find(|category| !(0..MAX_CATEGORY).contains(*category));
        if let Some(category) = wrong {
            return Err(Error::load(format!("category {category} is not from 0 to {}", MAX_CATEGORY - 1)));
        }
        let place = |category: i64| usize::try_from(category).unwrap_or_default();
        let words = right.iter().copied().max().map_or(0, place) / 64 + 1;
        *words_left = words_left
            .checked_sub(words)
            .ok_or_else(|| Error::load("the model's sets of categories are too large: its greatest categories are"))?;
        let mut left = vec![u64::MAX; words];
        for &category in right {
            left[place(category) / 64] &= !(1 << (category % 64));
        }
        let categories = Categories { left, others_left: true, nan_left: missing_left, toward_zero: false };
        Ok(Test::Category(Box::new(categories)))
    }

    /// The categories of each node.
    fn segments(&self) -> Result<Vec<Option<&[i64]>>> {
        let sizes = self.category_sizes.iter().fold(0_i64, |sum, size| sum.saturating_add((*size).max(0)));
        if usize::try_from(sizes).ok().is_none_or(|sizes| sizes > self.categories.len()) {
            return Err(Error::load(format!("nodes claim {sizes} categories of {}", self.categories.len())));
        }
        let mut segments = vec![None; if self.category_nodes.is_empty() { 0 } else { self.left.len() }];
        for (index, node) in self.category_nodes.iter().enumerate() {
            let wrong = || Error::load(format!("the categories of node {node} are out of range"));
            let begin = usize::try_from(self.category_segments[index]).map_err(|_| wrong())?;
            let size = usize::try_from(self.category_sizes[index]).map_err(|_| wrong())?;
            let end = begin.checked_add(size).ok_or_else(wrong)?;
            let place = usize::try_from(*node).ok().and_then(|node| segments.get_mut(node)).ok_or_else(wrong)?;
            *place = Some(self.categories.get(begin..end).ok_or_else(wrong)?);
        }
        Ok(segments)
    }
}
