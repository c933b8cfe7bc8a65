//! What the errors mean that the NVIDIA driver reports by number.
//!
//! Sources: NVIDIA's "XID Errors" (GPU Deployment and Management), and of those that are the application's the Kubernetes
//! device plugin, which takes no GPU away for them (`internal/rm/health.go`).

/// What an error says of the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Xid {
    /// Nothing: a program on it did something wrong.
    OfProgram,
    /// That something should be done about it some day.
    Warning(&'static str),
    /// That nothing is to be computed on it.
    Fault(&'static str),
}

impl Xid {
    pub fn of(number: u64) -> Xid {
        match number {
            13 | 31 | 43 | 45 | 68 | 109 => Xid::OfProgram,
            63 => Xid::Warning("a row of its memory is to be replaced: reset it when idle"),
            48 | 94 | 95 | 140 => Xid::Fault("an uncorrected memory error: reset the GPU (nvidia-smi --gpu-reset)"),
            64 => Xid::Fault("a bad row of its memory could not be replaced: the GPU has to be"),
            74 => Xid::Fault("an error of its NVLink: reset the GPU, and have its links checked if it comes again"),
            79 => Xid::Fault("it fell off the bus: drain the node, and restart it"),
            119 | 120 => Xid::Fault("its system processor does not answer: reset the GPU (nvidia-smi --gpu-reset)"),
            _ => Xid::Fault("see NVIDIA's list of XID errors, and reset the GPU"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_wrong_costs_no_gpu() {
        assert_eq!([13, 31, 43, 45, 68, 109].map(Xid::of), [Xid::OfProgram; 6]);
        assert!(matches!(Xid::of(63), Xid::Warning(_)));
        assert!(
            [48, 64, 74, 79, 94, 95, 119, 120, 140, 999].map(Xid::of).iter().all(|xid| matches!(xid, Xid::Fault(_)))
        );
    }
}
