//! The engine itself: one request in, its answer out.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::admission::{Admission, Guard};
use super::instance::{Pending, ShapeKey};
use super::queue::{PushError, Queue};
use super::stack;
use crate::error::{Error, Kind, Result};
use crate::infer::{InferRequest, InferResponse, Signature};
use crate::model::catalog::{Catalog, Entry};
use crate::tensor::Tensor;

/// A model that is ready: what requests are checked against and where they queue.
pub struct Served {
    pub version: Arc<str>,
    pub signature: Signature,
    /// Open Inference's `platform`, e.g. `onnxruntime_onnx`.
    pub platform: &'static str,
    pub queue: Arc<Queue<Pending>>,
    /// Most rows of one batch; 1 when each request must run alone and whole.
    pub max_rows: usize,
}

pub struct Engine {
    catalog: Arc<Catalog>,
    admission: Arc<Admission>,
}

impl Engine {
    pub fn new(catalog: Arc<Catalog>, admission: Arc<Admission>) -> Self {
        Engine { catalog, admission }
    }

    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Lets a request in before its body is read; hold the guard until it is answered.
    ///
    /// # Errors
    /// [`Kind::Overloaded`].
    pub fn admit(&self) -> Result<Guard> {
        self.admission.enter()
    }

    /// Requests being read, waiting or running.
    pub fn inflight(&self) -> usize {
        self.admission.requests()
    }

    /// Runs one request against a ready model. Dropping the future gives the request up: if it still waits, it will
    /// not run.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when the request does not fit the signature, [`Kind::Overloaded`] when the queue is full,
    /// [`Kind::Deadline`] when the answer is not there by `deadline`, and whatever the model fails with.
    pub async fn infer(
        &self,
        entry: &Entry,
        served: &Served,
        request: InferRequest,
        deadline: Instant,
    ) -> Result<InferResponse> {
        let selected = served.signature.select_outputs(&request.outputs)?;
        let checked = served.signature.check(request.inputs)?;
        let outputs = if served.max_rows == 1 {
            run(served, checked.inputs, selected, 1, deadline).await?
        } else if checked.rows <= served.max_rows {
            run(served, checked.inputs, selected, checked.rows, deadline).await?
        } else {
            run_in_pieces(served, &checked.inputs, &selected, checked.rows, deadline).await?
        };
        Ok(InferResponse { model: entry.name.clone(), version: served.version.clone(), id: request.id, outputs })
    }
}

/// A request of more rows than a batch may have is cut, run piece by piece, and joined again.
async fn run_in_pieces(
    served: &Served,
    inputs: &[Tensor],
    outputs: &[usize],
    rows: usize,
    deadline: Instant,
) -> Result<Vec<Tensor>> {
    let mut answers = Vec::new();
    let piece_rows = stack::piece_rows(rows, served.max_rows);
    let pieces = stack::split(inputs, &piece_rows)?;
    // One after another: the pieces of one large request must not crowd small ones out of the queue.
    for (piece, rows) in pieces.into_iter().zip(piece_rows) {
        answers.push(run(served, piece, outputs.to_vec(), rows, deadline).await?);
    }
    stack::join(&answers.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

async fn run(
    served: &Served,
    inputs: Vec<Tensor>,
    outputs: Vec<usize>,
    rows: usize,
    deadline: Instant,
) -> Result<Vec<Tensor>> {
    let late = || Error::new(Kind::Deadline, "the deadline passed before the model had answered");
    let (reply, answer) = oneshot::channel();
    let shape = ShapeKey::of(&served.signature, &inputs, outputs);
    served.queue.push(Pending { inputs, rows, shape, deadline, queued: Instant::now(), reply }).map_err(|error| {
        match error {
            PushError::Full => {
                Error::new(Kind::Overloaded, "the model's queue is full (--max_queue_size): try again later")
            }
            PushError::Closed => Error::new(Kind::NotReady, "the model is being unloaded"),
            PushError::TooManyRows => Error::internal("a piece has more rows than a batch"),
        }
    })?;
    match timeout_at(deadline.into(), answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(Error::internal("the worker went away without an answer")),
        Err(_) => Err(late()),
    }
}
