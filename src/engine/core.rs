//! The engine itself: one request in, its answer out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::admission::{Admission, Guard};
use super::batch::Refused;
use super::instance::{Pending, ShapeKey};
use super::queue::{PushError, Queue};
use super::shares::Tenant;
use super::stack;
use crate::error::{Error, Kind, Result};
use crate::infer::{CheckedInputs, InferRequest, InferResponse, Schedule, Signature};
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
    /// How long an answer is worth something to callers who do not say.
    pub slo: Option<Duration>,
}

/// What a caller says of his request beside what it asks.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// When it began to come.
    pub started: Instant,
    /// When its answer stops being worth anything; as late as anybody may ask for when he has not said.
    pub deadline: Instant,
    /// Whether he has said.
    pub is_deadline_set: bool,
    pub tenant: Tenant,
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
    pub fn admit(&self, now: Instant) -> Result<Guard> {
        self.admission.enter(now)
    }

    /// Requests being read, waiting or running.
    pub fn inflight(&self) -> usize {
        self.admission.requests()
    }

    /// Runs one request against a ready model. Dropping the future gives the request up: if it still waits, it will
    /// not run.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when the request does not fit the signature, [`Kind::Overloaded`] when too much waits to answer it
    /// in time, [`Kind::Deadline`] when the answer is not there by its deadline, and whatever the model fails with.
    pub async fn infer(
        &self,
        entry: &Entry,
        served: &Served,
        request: InferRequest,
        terms: &Terms,
    ) -> Result<InferResponse> {
        let InferRequest { id, inputs, outputs, schedule } = request;
        let outputs = served.signature.select_outputs(&outputs)?;
        let CheckedInputs { inputs, rows } = served.signature.check(inputs)?;
        let ask = Ask { outputs, deadline: deadline(served, schedule, terms), level: 0, tenant: terms.tenant };
        let outputs = if served.max_rows == 1 {
            run(served, inputs, 1, &ask).await?
        } else if rows <= served.max_rows {
            run(served, inputs, rows, &ask).await?
        } else {
            run_in_pieces(served, &inputs, rows, &ask).await?
        };
        Ok(InferResponse { model: entry.name.clone(), version: served.version.clone(), id, outputs })
    }
}

/// The earliest of what the headers say, or the model's objective when they say nothing, and of what the request says.
fn deadline(served: &Served, schedule: Schedule, terms: &Terms) -> Instant {
    let objective = served.slo.filter(|_| !terms.is_deadline_set);
    let times = [objective, schedule.timeout].into_iter().flatten().filter_map(|time| terms.started.checked_add(time));
    times.fold(terms.deadline, Instant::min)
}

/// What all pieces of a request have in common.
struct Ask {
    /// Of the signature's.
    outputs: Vec<usize>,
    deadline: Instant,
    level: u32,
    tenant: Tenant,
}

/// A request of more rows than a batch may have is cut, run piece by piece, and joined again.
async fn run_in_pieces(served: &Served, inputs: &[Tensor], rows: usize, ask: &Ask) -> Result<Vec<Tensor>> {
    let mut answers = Vec::new();
    let piece_rows = stack::piece_rows(rows, served.max_rows);
    let pieces = stack::split(inputs, &piece_rows)?;
    // One after another: the pieces of one large request must not crowd small ones out of the queue.
    for (piece, rows) in pieces.into_iter().zip(piece_rows) {
        answers.push(run(served, piece, rows, ask).await?);
    }
    stack::join(&answers.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

async fn run(served: &Served, inputs: Vec<Tensor>, rows: usize, ask: &Ask) -> Result<Vec<Tensor>> {
    let Ask { ref outputs, deadline, level, tenant } = *ask;
    let (reply, answer) = oneshot::channel();
    let shape = ShapeKey::of(&served.signature, &inputs, outputs.clone());
    let elements = inputs.iter().map(|input| input.shape().elements()).sum::<usize>() / rows;
    let bytes = inputs.iter().map(|input| input.data().len()).sum();
    let queued = Instant::now();
    let job = Pending { inputs, rows, elements, bytes, shape, deadline, level, tenant, queued, reply };
    let evicted = served.queue.push(job).map_err(refusal)?;
    for job in evicted {
        let full = refusal(PushError::Refused(Refused::Full { retry_after: Duration::from_secs(1) }));
        let _ = job.reply.send(Err(full)); // an error here means the caller has gone
    }
    match timeout_at(deadline.into(), answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(Error::internal("the worker went away without an answer")),
        Err(_) => Err(Error::new(Kind::Deadline, "the deadline passed before the model had answered")),
    }
}

fn refusal(error: PushError) -> Error {
    let overloaded = |text: &str, time| Error::new(Kind::Overloaded, text).with_retry_after(time);
    match error {
        PushError::Closed => Error::new(Kind::NotReady, "the model is being unloaded"),
        PushError::Refused(Refused::Full { retry_after }) => overloaded(
            "the model's queue is full (--max_queue_size, --max_queue_rows, --max_queue_bytes): try again later",
            retry_after,
        ),
        PushError::Refused(Refused::Busy { retry_after }) => overloaded(
            "too much waits for the model to answer this request by its deadline: try again later, or allow more time",
            retry_after,
        ),
        PushError::Refused(Refused::Late { takes }) => Error::new(
            Kind::Deadline,
            format!(
                "the deadline is too near: the model takes {:.1} ms for this request",
                takes.as_secs_f64() * 1000.0
            ),
        ),
        PushError::Refused(Refused::TooManyRows) => Error::internal("a piece has more rows than a batch"),
    }
}
