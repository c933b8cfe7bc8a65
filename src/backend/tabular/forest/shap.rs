//! Shapley values of trees: how much each feature moved a row's sum away from the forest's mean.
//!
//! This is `TreeSHAP`, algorithm 2 of Lundberg et al., "Consistent Individualized Feature Attribution for Tree
//! Ensembles" (2018), which walks every path of a tree once and keeps, for each number of features, how the subsets of
//! that size split. Branches that a row does not take are weighed by the training rows that took them (the covers),
//! as `shap.TreeExplainer` (without background data), xgboost's `pred_contribs` and lightgbm's `pred_contrib` do.

use super::layout::{LANES, Node, Nodes, Span};
use super::{Forest, Values};
use crate::backend::tabular::data::Matrix;
use crate::backend::tabular::estimator::Contributions;
use crate::error::{Error, Kind, Result};

/// Deeper trees take recursion and memory that grow with the square of their depth.
const MAX_DEPTH: u32 = 512;

/// A feature on the way from the root to a node.
#[derive(Clone, Copy, Default)]
struct Step {
    feature: usize,
    /// The share of training rows that go on when the feature is not known, ...
    zero: f64,
    /// ... and of this row when it is: 1 or 0.
    one: f64,
    /// Of the subsets with as many known features as this step's place.
    weight: f64,
}

impl Forest {
    /// For each row and output, a value for each feature and at last the mean, which add up to [`Forest::sums`]:
    /// `[rows, outputs, features + 1]`.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for leaves that are linear models, and for very deep trees; and when a machine that computes them
    /// has failed.
    pub fn contributions(&self, rows: &[f64], start: &[f64]) -> Result<Vec<f64>> {
        if !self.linear.is_empty() {
            return Err(Error::new(Kind::Unsupported, "feature contributions are not defined for linear trees"));
        }
        if let Some(deep) = self.layout.spans.iter().find(|span| span.depth > MAX_DEPTH) {
            let text = format!("a tree is {} levels deep, at most {MAX_DEPTH} can be explained", deep.depth);
            return Err(Error::new(Kind::Unsupported, text));
        }
        if let Some(elsewhere) = &self.elsewhere
            && let Some(computed) = elsewhere.contributions(rows, start, &|| self.paths())?
        {
            return Ok(computed);
        }
        Ok(match &self.layout.nodes {
            Nodes::Narrow(nodes) => self.contributions_with(nodes, rows, start),
            Nodes::Wide(nodes) => self.contributions_with(nodes, rows, start),
        })
    }

    /// [`Forest::contributions`] as an estimator gives them.
    ///
    /// # Errors
    /// As there.
    pub fn explain(&self, rows: &Matrix, start: &[f64]) -> Result<Contributions> {
        let values = self.contributions(&rows.values, start)?;
        Ok(Contributions { rows: rows.rows, outputs: self.outputs, columns: self.features + 1, values })
    }

    fn contributions_with<N: Node>(&self, nodes: &[N], rows: &[f64], start: &[f64]) -> Vec<f64> {
        let stride = self.features + 1;
        let base = self.means(nodes, start);
        let count = rows.len() / self.features.max(1);
        let mut all = vec![0.0; count * self.outputs * stride];
        let mut block = vec![0; self.slots.count() * LANES];
        for (row, all) in rows.chunks_exact(self.features).zip(all.chunks_exact_mut(self.outputs * stride)) {
            self.slots.encode(row, self.features, &mut block);
            for span in &self.layout.spans {
                let walk = Walk {
                    forest: self,
                    tree: &nodes[span.root..][..span.nodes],
                    covers: &self.layout.covers[span.root..],
                    block: &block,
                };
                let mut steps = vec![Step { feature: usize::MAX, zero: 1.0, one: 1.0, weight: 1.0 }];
                walk.visit(0, &mut steps, 0, &mut all[span.output * stride..]);
            }
            for (output, base) in all.chunks_exact_mut(stride).zip(&base) {
                output[self.features] += base;
            }
        }
        all
    }

    /// What each output begins with, and its trees say on average over their training rows.
    pub(super) fn means<N: Node>(&self, nodes: &[N], start: &[f64]) -> Vec<f64> {
        let mut means = start.to_vec();
        self.layout.spans.iter().for_each(|span| self.add_mean(nodes, span, &mut means[span.output..]));
        means
    }

    fn add_mean<N: Node>(&self, nodes: &[N], span: &Span, base: &mut [f64]) {
        let covers = &self.layout.covers[span.root..];
        let root = f64::from(covers[0]);
        for (node, cover) in nodes[span.root..][..span.nodes].iter().zip(covers) {
            // A forest of single leaves may have no covers at all.
            let share = if span.nodes == 1 { 1.0 } else { f64::from(*cover) / root };
            if node.lane_offset() == 0 {
                self.each_value(node.key(), |place, value| base[place] += value * share);
            }
        }
    }

    /// Calls with the values of a leaf and the outputs, counted from the tree's first, that they belong to.
    fn each_value(&self, key: u32, mut call: impl FnMut(usize, f64)) {
        match &self.values {
            Values::InKeys => call(0, f64::from(f32::from_bits(key))),
            Values::Table(table) => {
                let values = &table[key as usize * self.width..][..self.width];
                values.iter().enumerate().for_each(|(place, value)| call(place, *value));
            }
        }
    }
}

/// One row's walk through all paths of one tree.
struct Walk<'a, N> {
    forest: &'a Forest,
    tree: &'a [N],
    covers: &'a [f32],
    block: &'a [u32],
}

impl<N: Node> Walk<'_, N> {
    /// `steps[start..]` lead to `place`. Adds to `out`, `features + 1` values for each output. Every child gets a copy
    /// of the path, behind its parent's: taking steps out again would let rounding errors grow.
    fn visit(&self, place: u32, steps: &mut Vec<Step>, start: usize, out: &mut [f64]) {
        let node = self.tree[place as usize];
        if node.lane_offset() == 0 {
            return self.arrive(node.key(), &steps[start..], out);
        }
        let feature = self.forest.slots.feature(node.lane_offset() / LANES);
        let goes_right = self.block[node.lane_offset()] > node.key();
        let (hot, cold) = if goes_right { (node.left() + 1, node.left()) } else { (node.left(), node.left() + 1) };
        // A feature that was on the way before counts once, with both splits' shares.
        let known = steps[start..].iter().skip(1).position(|step| step.feature == feature).map(|place| place + 1);
        let (zero, one) = known.map_or((1.0, 1.0), |known| (steps[start + known].zero, steps[start + known].one));
        let end = steps.len();
        for (child, one) in [(hot, one), (cold, 0.0)] {
            steps.extend_from_within(start..end);
            if let Some(known) = known {
                unwind(steps, end, known);
            }
            extend(steps, end, Step { feature, zero: zero * self.share(child, place), one, weight: 0.0 });
            self.visit(child, steps, end, out);
            steps.truncate(end);
        }
    }

    /// Of the training rows that came to `parent`, those that went on to `child`.
    fn share(&self, child: u32, parent: u32) -> f64 {
        let [child, parent] = [child, parent].map(|place| f64::from(self.covers[place as usize]));
        if parent == 0.0 { 0.0 } else { child / parent }
    }

    fn arrive(&self, key: u32, path: &[Step], out: &mut [f64]) {
        let stride = self.forest.features + 1;
        for (place, step) in path.iter().enumerate().skip(1) {
            let weight: f64 = unwound(path, place).iter().sum::<f64>() * (step.one - step.zero);
            self.forest.each_value(key, |output, value| out[output * stride + step.feature] += weight * value);
        }
    }
}

/// Adds a step to the path from `start` on, and with it a possible member to every subset.
fn extend(steps: &mut Vec<Step>, start: usize, step: Step) {
    let length = steps.len() - start;
    steps.push(step);
    let path = &mut steps[start..];
    for place in (0..length).rev() {
        let weight = path[place].weight;
        path[place + 1].weight += step.one * weight * (place + 1) as f64 / (length + 1) as f64;
        path[place].weight = step.zero * weight * (length - place) as f64 / (length + 1) as f64;
    }
}

/// Takes out the step at `place` of the path from `start` on, undoing what [`extend`] did with it.
fn unwind(steps: &mut Vec<Step>, start: usize, place: usize) {
    let path = &mut steps[start..];
    let weights = unwound(path, place);
    for (at, weight) in weights.into_iter().enumerate() {
        let from = if at < place { at } else { at + 1 };
        path[at] = Step { weight, ..path[from] };
    }
    steps.pop();
}

/// The weights with the step at `place` taken out.
fn unwound(path: &[Step], place: usize) -> Vec<f64> {
    let last = path.len() - 1;
    let Step { zero, one, .. } = path[place];
    let mut next = path[last].weight;
    let mut weights = vec![0.0; last];
    for at in (0..last).rev() {
        if one != 0.0 {
            weights[at] = next * (last + 1) as f64 / ((at + 1) as f64 * one);
            next = path[at].weight - weights[at] * zero * (last - at) as f64 / (last + 1) as f64;
        } else if zero != 0.0 {
            weights[at] = path[at].weight * (last + 1) as f64 / (zero * (last - at) as f64);
        }
    }
    weights
}
