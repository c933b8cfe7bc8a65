//! Decision trees as their files describe them, whichever library grew them: what xgboost's, lightgbm's and
//! scikit-learn's readers produce and the tree engine compiles.
//!
//! All numeric splits say `x <= threshold` goes left. A library that compares with `<` is brought to this form by the
//! next smaller value of its own precision ([`below`]), which splits the same numbers.

use crate::error::{Error, Result};

/// Refers to a node of the same tree; the root is 0.
pub type NodeId = u32;

/// One tree. Every node but the root is the child of exactly one other, which [`Tree::check`] makes sure of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree {
    pub nodes: Vec<Node>,
    /// Values of the leaves, `width` of them each, in the order of [`Kind::Leaf`]'s index.
    pub leaves: Vec<f64>,
    /// Linear models in the leaves (lightgbm's `linear_tree`), one for each leaf; empty when leaves are constants.
    pub linear: Vec<LinearLeaf>,
    /// How much better each node's split made the model, where the file says. Leaves may be left out at the end.
    pub gains: Vec<f32>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Training rows (or their weight) that came through here, which is what TreeSHAP weighs branches with.
    pub cover: f64,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Leaf { index: u32 },
    Split { feature: u32, test: Test, left: NodeId, right: NodeId },
}

/// What sends a row to the left.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// The value is at most `threshold`, or it is missing and the missing go left.
    AtMost { threshold: f64, missing: Missing, missing_left: bool },
    /// The value, cut to an integer, is in the set.
    Category(Box<Categories>),
}

/// Which values a numeric split treats as missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Missing {
    /// None: NaN is compared as if it were 0 (lightgbm's `missing_type` None).
    NanIsZero,
    /// NaN.
    Nan,
    /// NaN and everything within [`ZERO`] of zero, both ends included (lightgbm's `missing_type` Zero).
    NanAndZero,
}

/// What lightgbm takes for zero: `1e-35f`, which as `f64` is a little more than 1e-35. It also makes 0 of every smaller
/// input before any tree sees it.
pub const ZERO: f64 = 1e-35_f32 as f64;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Categories {
    /// Bit `c % 64` of word `c / 64`: whether category `c` goes left.
    pub left: Vec<u64>,
    /// Whether categories beyond the words, and negative ones, go left.
    pub others_left: bool,
    pub nan_left: bool,
    /// Whether values between -1 and 0 are category 0, as lightgbm's cast makes them; for xgboost every negative value
    /// is one of the others.
    pub toward_zero: bool,
}

/// `constant + sum(coefficient * x[feature])`, or `fallback` when one of these features is NaN.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinearLeaf {
    pub constant: f64,
    pub terms: Vec<(u32, f64)>,
    pub fallback: f64,
}

/// More features than any model has that is served row by row; a bound on what a number in a file can ask for.
pub const MAX_FEATURES: usize = 1 << 20;

/// # Errors
/// When a file claims more than [`MAX_FEATURES`].
pub fn check_features(features: usize) -> Result<()> {
    if features > MAX_FEATURES {
        return Err(Error::load(format!("the model has {features} features, at most {MAX_FEATURES} are supported")));
    }
    Ok(())
}

/// Deeper trees than any library grows; a bound on the steps of a walk.
pub const MAX_DEPTH: usize = 8192;

impl Tree {
    /// Checks that this is a tree: children exist, none has two parents, none is the root; features are below
    /// `features`, leaf indices in range for values of `width` each, numbers are numbers.
    ///
    /// # Errors
    /// [`Kind::Load`](crate::error::Kind::Load), naming the node.
    pub fn check(&self, features: usize, width: usize) -> Result<()> {
        let count = self.nodes.len();
        if count == 0 {
            return Err(Error::load("the tree has no nodes"));
        }
        let leaves = self.leaves.len() / width.max(1);
        if !self.linear.is_empty() && self.linear.len() != leaves {
            return Err(Error::load(format!("{} linear leaves for {leaves} leaves", self.linear.len())));
        }
        let mut terms = self.linear.iter().flat_map(|leaf| &leaf.terms);
        if let Some((feature, _)) = terms.find(|(feature, _)| *feature as usize >= features) {
            return Err(Error::load(format!("a linear leaf uses feature {feature}, but the model has {features}")));
        }
        let mut has_parent = vec![false; count];
        for (id, node) in self.nodes.iter().enumerate() {
            let wrong = |what: String| Error::load(format!("node {id}: {what}"));
            match &node.kind {
                Kind::Leaf { index } if (*index as usize) < leaves => {}
                Kind::Leaf { index } => return Err(wrong(format!("leaf {index} of {leaves}"))),
                Kind::Split { feature, .. } if *feature as usize >= features => {
                    return Err(wrong(format!("splits on feature {feature}, but the model has {features}")));
                }
                Kind::Split { test: Test::AtMost { threshold, .. }, .. } if threshold.is_nan() => {
                    return Err(wrong("its threshold is not a number".to_owned()));
                }
                Kind::Split { left, right, .. } => {
                    for child in [*left, *right] {
                        match has_parent.get_mut(child as usize) {
                            None => {
                                return Err(wrong(format!(
                                    "its child {child} does not exist, there are {count} nodes"
                                )));
                            }
                            Some(_) if child == 0 => return Err(wrong("its child is the root".to_owned())),
                            Some(known) if *known => {
                                return Err(wrong(format!("its child {child} has another parent already")));
                            }
                            Some(known) => *known = true,
                        }
                    }
                }
            }
        }
        // With one parent each, nodes that cannot be reached from the root would have to form a cycle.
        if let Some(orphan) = (1..count).find(|id| !has_parent[*id]) {
            return Err(Error::load(format!("node {orphan} has no parent")));
        }
        let depth = self.reached_depth()?;
        if depth > MAX_DEPTH {
            return Err(Error::load(format!("the tree is {depth} levels deep, at most {MAX_DEPTH} are supported")));
        }
        Ok(())
    }

    /// Levels below the root, having reached every node.
    fn reached_depth(&self) -> Result<usize> {
        let (mut level, mut depth, mut reached) = (vec![0_u32], 0, 1);
        loop {
            let next: Vec<NodeId> = level
                .iter()
                .filter_map(|id| match &self.nodes[*id as usize].kind {
                    Kind::Split { left, right, .. } => Some([*left, *right]),
                    Kind::Leaf { .. } => None,
                })
                .flatten()
                .collect();
            if next.is_empty() {
                break;
            }
            reached += next.len();
            depth += 1;
            level = next;
        }
        if reached != self.nodes.len() {
            return Err(Error::load("the tree has a cycle"));
        }
        Ok(depth)
    }
}

/// What sends left the numbers below `threshold`, which is all of `x < threshold` there is among `f32`.
///
/// Nothing is below -inf, which no `x <= t` can say: the test is then one of categories of which none is known.
pub fn below(threshold: f32, missing_left: bool) -> Test {
    if threshold == f32::NEG_INFINITY {
        let none = Categories { left: Vec::new(), others_left: false, nan_left: missing_left, toward_zero: false };
        return Test::Category(Box::new(none));
    }
    Test::AtMost { threshold: f64::from(threshold.next_down()), missing: Missing::Nan, missing_left }
}
