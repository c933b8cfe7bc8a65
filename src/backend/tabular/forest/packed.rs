//! A forest as the GPU's kernels walk it: the same nodes, so that rows fall into the same leaves.

use super::layout::{Node, Nodes};
use super::{Forest, Values};
use crate::error::{Error, Result};
use crate::kernels::forest::{Packed, Tree};

impl Forest {
    /// The trees, in the order in which a GPU adds them: for each output that of their file.
    ///
    /// # Errors
    /// For leaves that are linear models.
    pub fn packed(&self) -> Result<Packed> {
        if self.is_linear() {
            return Err(Error::load("trees whose leaves are linear models are computed on the CPU only"));
        }
        let mut spans = self.layout.spans.clone();
        if self.width == 1 {
            spans.sort_by_key(|span| span.output);
        }
        let mut nodes = Vec::new();
        let mut trees = Vec::with_capacity(spans.len());
        let mut root = 0;
        for span in &spans {
            match &self.layout.nodes {
                Nodes::Narrow(all) => nodes.extend(all[span.root..][..span.nodes].iter().flat_map(|node| node.bytes())),
                Nodes::Wide(all) => nodes.extend(all[span.root..][..span.nodes].iter().flat_map(|node| node.bytes())),
            }
            trees.push(Tree { root, depth: span.depth, output: span.output as u32 });
            root += span.nodes as u32;
        }
        let node_bytes = match &self.layout.nodes {
            Nodes::Narrow(_) => 8,
            Nodes::Wide(_) => 12,
        };
        let values = match &self.values {
            Values::InKeys => None,
            Values::Table(table) => Some(table.clone()),
        };
        let (features, outputs, width) = (self.features.max(1), self.outputs, self.width);
        Ok(Packed { nodes, node_bytes, trees, encoding: self.slots.encoding(), values, features, outputs, width })
    }
}
