//! Which operators of a model ONNX Runtime computes where. Source: `Session_GetEpGraphAssignmentInfo` of its C API.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::{ptr, slice};

use ort::session::Session;
use ort::{AsPointer, ortsys};

/// The entry of a session's configuration that makes it remember.
pub const RECORD: &str = "session.record_ep_graph_assignment_info";

/// The provider that is always there, and takes what no other does.
const CPU: &str = "CPUExecutionProvider";

/// By execution provider, the types of its operators with how many there are of each.
pub type Operators = BTreeMap<String, BTreeMap<String, usize>>;

/// Of a session that was made with [`RECORD`] set to `1`.
///
/// # Errors
/// When it was not.
pub fn operators(session: &Session) -> Result<Operators, ort::Error> {
    let mut operators = Operators::new();
    let (mut graphs, mut graph_count) = (ptr::null(), 0);
    ortsys![unsafe Session_GetEpGraphAssignmentInfo(session.ptr(), &raw mut graphs, &raw mut graph_count)?];
    // SAFETY: ONNX Runtime gives an array of so many, which live as long as the session.
    for graph in unsafe { array(graphs, graph_count) } {
        let mut provider: *const c_char = ptr::null();
        ortsys![unsafe EpAssignedSubgraph_GetEpName(*graph, &raw mut provider)?];
        let (mut nodes, mut node_count) = (ptr::null(), 0);
        ortsys![unsafe EpAssignedSubgraph_GetNodes(*graph, &raw mut nodes, &raw mut node_count)?];
        // SAFETY: as above; and a name is a C string that lives as long.
        let (provider, nodes) = unsafe { (text(provider), array(nodes, node_count)) };
        let here = operators.entry(provider).or_default();
        for node in nodes {
            let mut kind: *const c_char = ptr::null();
            ortsys![unsafe EpAssignedNode_GetOperatorType(*node, &raw mut kind)?];
            // SAFETY: as above.
            *here.entry(unsafe { text(kind) }).or_default() += 1;
        }
    }
    Ok(operators)
}

/// What to say of a model that is to run on a GPU; `None` when all of it does.
pub fn left_on_cpu(operators: &Operators) -> Option<String> {
    let on_cpu = operators.get(CPU)?;
    let (count, all): (usize, usize) =
        (on_cpu.values().sum(), operators.values().flat_map(|kinds| kinds.values()).sum());
    let kinds: Vec<String> = on_cpu.iter().map(|(kind, count)| format!("{kind} ({count})")).collect();
    (count > 0).then(|| format!("{count} of {all} operators are computed on the CPU: {}", kinds.join(", ")))
}

/// # Safety
/// There are so many at `first`, which live as long as is said.
unsafe fn array<'a, T>(first: *const T, count: usize) -> &'a [T] {
    // SAFETY: as promised; a slice must not begin at null, even if it is empty.
    if first.is_null() { &[] } else { unsafe { slice::from_raw_parts(first, count) } }
}

/// # Safety
/// It is null or a C string.
unsafe fn text(name: *const c_char) -> String {
    // SAFETY: as promised.
    if name.is_null() { String::new() } else { unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_on_the_cpu_is_told() {
        let of = |kinds: &[(&str, usize)]| kinds.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
        let mut operators = Operators::from([("CUDAExecutionProvider".to_owned(), of(&[("Conv", 8), ("MatMul", 2)]))]);
        assert_eq!(left_on_cpu(&operators), None);
        operators.insert(CPU.to_owned(), of(&[("Shape", 2), ("NonMaxSuppression", 1)]));
        let expected = "3 of 13 operators are computed on the CPU: NonMaxSuppression (1), Shape (2)";
        assert_eq!(left_on_cpu(&operators).as_deref(), Some(expected));
    }
}
