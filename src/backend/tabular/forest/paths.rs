//! A forest's ways from its roots to its leaves, which a GPU explains rows by.

use super::layout::{LANES, Node, Nodes, Span};
use super::{Forest, Values};
use crate::error::{Error, Kind, Result};
use crate::kernels::shap::{Condition, Element, Path, Paths};

/// A feature on the way to a node.
#[derive(Clone)]
struct Step {
    feature: u32,
    zero: f64,
    conditions: Vec<Condition>,
}

impl Forest {
    /// All paths, and what the trees of each output say on average.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for leaves that are linear models.
    pub fn paths(&self) -> Result<Paths> {
        if self.is_linear() {
            return Err(Error::new(Kind::Unsupported, "feature contributions are not defined for linear trees"));
        }
        Ok(match &self.layout.nodes {
            Nodes::Narrow(nodes) => self.paths_of(nodes),
            Nodes::Wide(nodes) => self.paths_of(nodes),
        })
    }

    fn paths_of<N: Node>(&self, nodes: &[N]) -> Paths {
        let mut paths = Paths {
            encoding: self.slots.encoding(),
            means: self.means(nodes, &vec![0.0; self.outputs]),
            features: self.features,
            width: self.width,
            ..Paths::default()
        };
        for span in &self.layout.spans {
            let mut ways = vec![(0, Vec::new())];
            while let Some((place, way)) = ways.pop() {
                let node = nodes[span.root + place as usize];
                if node.lane_offset() == 0 {
                    self.arrive(span, node.key(), &way, &mut paths);
                    continue;
                }
                for (child, goes_right) in [(node.left(), 0), (node.left() + 1, 1)] {
                    let condition =
                        Condition { slot: (node.lane_offset() / LANES) as u32, key: node.key(), goes_right };
                    ways.push((child, self.further(&way, condition, self.share(span, child, place))));
                }
            }
        }
        paths
    }

    /// A way, and a split: a feature that was on the way before counts once, with both splits' shares.
    fn further(&self, way: &[Step], condition: Condition, share: f64) -> Vec<Step> {
        let feature = self.slots.feature(condition.slot as usize) as u32;
        let mut way = way.to_vec();
        let known = way.iter().position(|step| step.feature == feature);
        let mut step = known.map_or(Step { feature, zero: 1.0, conditions: Vec::new() }, |known| way.remove(known));
        step.zero *= share;
        step.conditions.push(condition);
        way.push(step);
        way
    }

    fn share(&self, span: &Span, child: u32, parent: u32) -> f64 {
        let [child, parent] = [child, parent].map(|place| f64::from(self.layout.covers[span.root + place as usize]));
        if parent == 0.0 { 0.0 } else { child / parent }
    }

    fn arrive(&self, span: &Span, key: u32, way: &[Step], paths: &mut Paths) {
        let first_value = match &self.values {
            Values::InKeys => {
                paths.values.push(f64::from(f32::from_bits(key)));
                paths.values.len() - 1
            }
            Values::Table(table) => {
                if paths.values.is_empty() {
                    paths.values.clone_from(table);
                }
                key as usize * self.width
            }
        };
        paths.paths.push(Path {
            first_element: paths.elements.len() as u32,
            elements: way.len() as u32,
            first_value: first_value as u32,
            output: span.output as u32,
        });
        for step in way {
            paths.elements.push(Element {
                zero: step.zero,
                feature: step.feature,
                first_condition: paths.conditions.len() as u32,
                conditions: step.conditions.len() as u32,
                unused: 0,
            });
            paths.conditions.extend(&step.conditions);
        }
    }
}
