//! What a model can be placed on. So far the CPU of this machine; GPUs and MIG slices come with their probe.

pub mod host;
pub mod worker;

use std::fmt;

/// Names one device of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceId {
    Cpu,
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceId::Cpu => f.write_str("cpu"),
        }
    }
}
