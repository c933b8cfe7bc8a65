//! The engine itself: one request in, its answer out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::admission::{Admission, Guard};
use super::batch::Refused;
use super::instance::{Pending, ShapeKey};
use super::joining::{self, Joining};
use super::policy::{Levels, TimeoutAction};
use super::queue::{Evicted, PushError, Queue};
use super::shares::Tenant;
use super::stack;
use crate::device::process::pulse::Health;
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
    /// Most tokens of one batch.
    pub max_tokens: usize,
    pub joining: Arc<Joining>,
    pub levels: Levels,
    /// How long an answer is worth something to callers who do not say.
    pub slo: Option<Duration>,
    pub health: Health,
    /// On which devices, and why there.
    pub placed: String,
}

impl Served {
    fn objective(&self, terms: &Terms) -> Option<Duration> {
        self.slo.filter(|_| !terms.is_deadline_set)
    }
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

impl Terms {
    /// So long after it began to come; `None`: beyond all times.
    fn end(&self, time: Duration) -> Option<Instant> {
        self.started.checked_add(time)
    }

    fn deadline_within(&self, times: impl IntoIterator<Item = Duration>) -> Instant {
        times.into_iter().filter_map(|time| self.end(time)).fold(self.deadline, Instant::min)
    }
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

    /// Whether a request would be refused under these terms whatever it asks, which costs less to know before it is read. If
    /// its deadline is not known yet, that can only be for want of room.
    ///
    /// # Errors
    /// [`Kind::Busy`], [`Kind::Overloaded`].
    pub fn turn_away(&self, served: &Served, terms: &Terms, is_deadline_known: bool) -> Result<()> {
        let deadline = is_deadline_known.then(|| terms.deadline_within(served.objective(terms)));
        served.queue.turn_away(terms.tenant, deadline).map_err(refusal)
    }

    /// Runs one request against a ready model. Dropping the future gives the request up: if it still waits, it will
    /// not run.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when the request does not fit the signature, [`Kind::Overloaded`] when too much waits,
    /// [`Kind::Busy`] when too much waits to answer it in time, [`Kind::Deadline`] when the answer is not there by its deadline, and whatever the model fails with.
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
        let ask = Ask::new(served, outputs, &inputs, schedule, terms)?;
        let max_rows = served.max_rows.min(served.max_tokens / ask.tokens);
        let outputs = if served.max_rows == 1 {
            run(served, inputs, 1, &ask).await?
        } else if rows <= max_rows {
            run_cut(served, inputs, rows, &ask).await?
        } else {
            run_in_pieces(served, &inputs, rows, max_rows, ask).await?
        };
        Ok(InferResponse { model: entry.name.clone(), version: served.version.clone(), id, outputs })
    }
}

/// What all pieces of a request have in common.
struct Ask {
    /// Of the signature's.
    outputs: Vec<usize>,
    /// Of one row.
    tokens: usize,
    /// Of the request; a piece of it is to be done before that.
    answer_by: Instant,
    deadline: Instant,
    put_off_at: Option<Instant>,
    level: usize,
    tenant: Tenant,
}

impl Ask {
    /// Its deadline is the earliest of what the headers say, of what the request says, or the model's objective when neither
    /// says anything, and of what its level allows.
    fn new(served: &Served, outputs: Vec<usize>, inputs: &[Tensor], schedule: Schedule, terms: &Terms) -> Result<Ask> {
        let tokens = joining::tokens(&served.signature, inputs);
        if tokens > served.max_tokens {
            let most = served.max_tokens;
            let text = format!("a row of {tokens} tokens is longer than a batch may be: {most} (--max_batch_tokens)");
            return Err(Error::new(Kind::TooLarge, text));
        }
        let (level, policy) = served.levels.of(schedule.priority)?;
        let own = schedule.timeout.filter(|_| policy.allow_timeout_override);
        let (delay, reject) = match policy.timeout_action {
            TimeoutAction::Delay => (policy.timeout, None),
            TimeoutAction::Reject => (None, policy.timeout),
        };
        let said = own.or_else(|| served.objective(terms));
        let deadline = terms.deadline_within([said, reject].into_iter().flatten());
        Ok(Ask {
            outputs,
            tokens,
            answer_by: deadline,
            deadline,
            put_off_at: delay.and_then(|time| terms.end(time)),
            level,
            tenant: terms.tenant,
        })
    }
}

/// Runs a request that fits into a batch: whole, or in pieces that wait together, if it would make other tenants wait long.
async fn run_cut(served: &Served, inputs: Vec<Tensor>, rows: usize, ask: &Ask) -> Result<Vec<Tensor>> {
    let most = if rows == 1 { 1 } else { served.queue.most_at_once(ask.tenant, elements(&inputs) / rows, rows) };
    if rows <= most {
        return run(served, inputs, rows, ask).await;
    }
    let piece_rows = stack::piece_rows(rows, most);
    let pieces = stack::split(&inputs, &piece_rows)?;
    let mut to_come = rows;
    let pieces = pieces.into_iter().zip(piece_rows).map(|(piece, rows)| {
        to_come -= rows;
        enqueue(served, piece, rows, to_come, ask)
    });
    let mut answers = Vec::new();
    for piece in pieces.collect::<Result<Vec<_>>>()? {
        answers.push(answered(piece, ask).await?);
    }
    stack::join(&answers.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// A request of more rows than a batch may have is cut, run piece by piece, and joined again.
async fn run_in_pieces(
    served: &Served,
    inputs: &[Tensor],
    rows: usize,
    max_rows: usize,
    mut ask: Ask,
) -> Result<Vec<Tensor>> {
    let mut answers = Vec::new();
    let piece_rows = stack::piece_rows(rows, max_rows);
    let pieces = stack::split(inputs, &piece_rows)?;
    // One after another: the pieces of one large request must not crowd small ones out of the queue. Each is to leave time
    // for those that follow.
    for (number, (piece, rows)) in pieces.into_iter().zip(&piece_rows).enumerate() {
        let of_row = elements(&piece) / rows;
        let takes: Duration = piece_rows[number + 1..].iter().map(|rows| served.queue.expect(of_row, *rows)).sum();
        ask.deadline = ask.answer_by.checked_sub(takes).unwrap_or_else(Instant::now);
        answers.push(run_piece(served, piece, *rows, &ask, number == 0).await?);
    }
    stack::join(&answers.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// Whoever has been let in with his first piece waits with the others until there is room: what has been computed for him
/// is not to be lost.
async fn run_piece(
    served: &Served,
    inputs: Vec<Tensor>,
    rows: usize,
    ask: &Ask,
    is_first: bool,
) -> Result<Vec<Tensor>> {
    const PAUSE: Duration = Duration::from_millis(10);
    loop {
        let answer = run_cut(served, inputs.clone(), rows, ask).await;
        let is_full = answer.as_ref().is_err_and(|error| error.kind() == Kind::Overloaded);
        if is_first || !is_full || Instant::now() + PAUSE > ask.deadline {
            return answer;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn run(served: &Served, inputs: Vec<Tensor>, rows: usize, ask: &Ask) -> Result<Vec<Tensor>> {
    answered(enqueue(served, inputs, rows, 0, ask)?, ask).await
}

type Answer = oneshot::Receiver<Result<Vec<Tensor>>>;

fn enqueue(served: &Served, inputs: Vec<Tensor>, rows: usize, rows_to_come: usize, ask: &Ask) -> Result<Answer> {
    let Ask { ref outputs, tokens, deadline, put_off_at, level, tenant, .. } = *ask;
    let (reply, answer) = oneshot::channel();
    let shape = ShapeKey::of(&served.signature, &served.joining, &inputs, outputs.clone());
    let elements = elements(&inputs) / rows;
    let bytes = inputs.iter().map(|input| input.data().len()).sum();
    let queued = Instant::now();
    let job = Pending {
        inputs,
        rows,
        rows_to_come,
        elements,
        tokens,
        bytes,
        shape,
        deadline,
        put_off_at,
        level,
        tenant,
        queued,
        reply,
    };
    let Evicted { jobs, retry_after } = served.queue.push(job).map_err(refusal)?;
    for job in jobs {
        let full = refusal(PushError::Refused(Refused::Full { retry_after }));
        let _ = job.reply.send(Err(full)); // an error here means the caller has gone
    }
    Ok(answer)
}

async fn answered(answer: Answer, ask: &Ask) -> Result<Vec<Tensor>> {
    match timeout_at(ask.answer_by.into(), answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => {
            let text = "what computed this ended, and there was no room to try again: try again later";
            Err(Error::new(Kind::Lost, text))
        }
        Err(_) => Err(Error::new(Kind::Deadline, "the deadline passed before the model had answered")),
    }
}

fn elements(inputs: &[Tensor]) -> usize {
    inputs.iter().map(|input| input.shape().elements()).sum()
}

fn refusal(error: PushError) -> Error {
    match error {
        PushError::Closed => Error::new(Kind::NotReady, "the model is being unloaded"),
        PushError::Refused(Refused::Full { retry_after }) => {
            let text = "the model's queue is full (--max_queue_size, --max_queue_rows, --max_queue_bytes, or \
                        max_queue_size of the request's priority): try again later";
            Error::new(Kind::Overloaded, text).with_retry_after(retry_after)
        }
        PushError::Refused(Refused::Busy { retry_after }) => {
            let text = "too much waits for the model to answer this request by its deadline: try again later, or allow \
                        more time";
            Error::new(Kind::Busy, text).with_retry_after(retry_after)
        }
        PushError::Refused(Refused::Late { takes }) => Error::new(
            Kind::Deadline,
            format!(
                "the deadline is too near: the model takes {:.1} ms for this request",
                takes.as_secs_f64() * 1000.0
            ),
        ),
        PushError::Refused(Refused::TooLarge) => Error::internal("a piece is larger than a batch"),
    }
}
