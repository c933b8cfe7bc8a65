//! A topology with the environment that decides which of it is ours, as `stoker devices --json` writes it down: to be sent
//! along with a question, to plan for another machine, and to test with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::topology::{Cpu, Topology};
use super::visible::{Visible, visible};
use crate::error::{Error, Result};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recording {
    /// Those of [`VARIABLES`](super::visible::VARIABLES) that are set.
    pub environment: BTreeMap<String, String>,
    /// Names below [`MOUNTED_NAMES`](super::visible::MOUNTED_NAMES).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounted: Vec<String>,
    pub cpu: Cpu,
    pub topology: Topology,
}

impl Recording {
    /// Reads what `stoker devices --json` wrote.
    ///
    /// # Errors
    /// When it is not that.
    pub fn parse(text: &str) -> Result<Recording> {
        serde_json::from_str(text)
            .map_err(|error| Error::load(format!("is not what stoker devices --json writes: {error}")))
    }

    /// Its devices that are ours.
    ///
    /// # Errors
    /// When its `CUDA_VISIBLE_DEVICES` names what is not there.
    pub fn visible(&self) -> Result<Visible> {
        visible(&self.topology, &|name| self.environment.get(name).cloned(), &self.mounted)
    }
}
