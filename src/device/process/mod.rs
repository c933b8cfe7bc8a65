//! A model in a process of its own: what ends that process, a crash in a library, the kernel for want of memory, or a fault
//! of its device, ends nothing else. [`keeper`] begins it, notices its end and begins it anew; [`remote`] is the model as
//! the engine sees it; `stoker worker` is the other side. They talk over a [`channel`], in [`message`]s whose tensors lie in
//! memory that both have mapped ([`region`]).

pub mod channel;
pub mod keeper;
pub mod message;
pub mod pulse;
mod region;
pub mod remote;
