//! One instance of a model at work: pull a batch, join it, run it, share the results out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::oneshot;

use super::batch::{Batch, Job};
use super::joining::Joining;
use super::queue::Queue;
use super::shares::Tenant;
use crate::backend::{self, Model};
use crate::device::process::pulse::{Health, Pulse};
use crate::device::worker::Work;
use crate::error::{Error, Kind, Result};
use crate::infer::Signature;
use crate::telemetry::devices::Use;
use crate::telemetry::metrics::ModelMetrics;
use crate::tensor::{DType, Tensor};

/// A checked request waiting for its turn.
pub struct Pending {
    /// In the signature's order.
    pub inputs: Vec<Tensor>,
    pub rows: usize,
    /// Of the same request, in pieces that are pushed right after this one.
    pub rows_to_come: usize,
    /// Of one row, over all inputs.
    pub elements: usize,
    /// As the token budget counts one row.
    pub tokens: usize,
    pub bytes: usize,
    pub shape: ShapeKey,
    pub deadline: Instant,
    /// From when on it comes after the others.
    pub put_off_at: Option<Instant>,
    pub level: usize,
    pub tenant: Tenant,
    pub queued: Instant,
    pub reply: oneshot::Sender<Result<Vec<Tensor>>>,
}

/// Everything that must agree for two requests to be joined.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ShapeKey {
    /// Inner dimensions of the inputs. Ranks are the signature's, so they can simply follow one another; none where
    /// the signature leaves them no choice, and without those that may differ because rows can be filled up.
    inner: Vec<usize>,
    /// The class of the rows' length if that may differ: those of about the same length share a line.
    length: Option<usize>,
    /// The first input's; the others' are the signature's.
    dtype: Option<DType>,
    /// But of a table whose columns travel apart, each has that in which it came.
    others: Vec<DType>,
    /// Which of the signature's outputs are wanted.
    outputs: Vec<usize>,
    /// Of a request that was lost with the process that computed it, a number of its own: it may be the one that ended the
    /// process, and runs alone when it is tried again.
    again: Option<u64>,
}

impl ShapeKey {
    pub fn of(signature: &Signature, joining: &Joining, inputs: &[Tensor], outputs: Vec<usize>) -> ShapeKey {
        let length = joining.length_class(inputs);
        let may_differ = |input, axis| length.is_some() && joining.is_length(input, axis);
        let dims = |(index, input): (usize, &Tensor)| {
            let dims = input.shape().dims().iter().enumerate().skip(1);
            dims.filter(|(axis, _)| !may_differ(index, *axis)).map(|(_, size)| *size).collect::<Vec<_>>()
        };
        let is_free = signature.has_free_inner_dims();
        let inner = if is_free { inputs.iter().enumerate().flat_map(dims).collect() } else { Vec::new() };
        let is_table = signature.table.is_some();
        let others = inputs.iter().skip(1).filter(|_| is_table).map(Tensor::dtype).collect();
        ShapeKey { inner, length, dtype: inputs.first().map(Tensor::dtype), others, outputs, again: None }
    }
}

impl Job for Pending {
    type Shape = ShapeKey;

    fn shape(&self) -> &ShapeKey {
        &self.shape
    }

    fn can_be_padded(one: &ShapeKey, other: &ShapeKey) -> bool {
        let same = |one: &ShapeKey, other: &ShapeKey| *one == ShapeKey { length: one.length, ..other.clone() };
        one.length.is_some() && other.length.is_some() && same(one, other)
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn rows_to_come(&self) -> usize {
        self.rows_to_come
    }

    fn elements(&self) -> usize {
        self.elements
    }

    fn tokens(&self) -> usize {
        self.tokens
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn put_off_at(&self) -> Option<Instant> {
        self.put_off_at
    }

    fn level(&self) -> usize {
        self.level
    }

    fn tenant(&self) -> Tenant {
        self.tenant
    }

    fn abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

/// A model and what is needed to serve it.
pub struct Instance {
    pub model: Box<dyn Model>,
    pub queue: Arc<Queue<Pending>>,
    /// Which of the queue's workers it is.
    pub worker: usize,
    pub joining: Arc<Joining>,
    pub metrics: Arc<ModelMetrics>,
    /// What batches take on its device, in seconds.
    pub compute: Histogram,
    /// Of its GPU.
    pub used: Option<Use>,
    /// Its own, of a model in another process or on a GPU.
    pub pulse: Option<Arc<Pulse>>,
    /// Of all instances.
    pub health: Health,
}

impl Work for Instance {
    /// Serves until the queue is closed and empty. Computes between two awaits.
    async fn work(mut self, mut overstayed: impl FnMut(Duration) -> bool + Send) -> Option<Instance> {
        loop {
            wait_for_process(self.pulse.as_deref(), &self.health, &self.queue).await;
            let Batch { jobs, late: too_late } = self.queue.next(self.worker).await?;
            for job in too_late {
                let _ = job.reply.send(Err(late())); // an error here means the caller's own timer was faster
            }
            let began = Instant::now();
            if let Some(end) = self.pulse.as_ref().and_then(|pulse| pulse.end()) {
                let why = Error::new(Kind::NotReady, end);
                jobs.into_iter().for_each(|job| self.try_again(job, &why));
                self.queue.done(self.worker, false);
            } else if !jobs.is_empty() {
                let went_well = self.run(jobs);
                self.queue.done(self.worker, went_well);
            }
            if overstayed(began.elapsed()) {
                return Some(self);
            }
            // A queue that never runs empty must not keep a shared thread from everybody else.
            tokio::task::yield_now().await;
        }
    }
}

impl Instance {
    /// Answers all of them; whether they were answered as one batch.
    fn run(&mut self, jobs: Vec<Pending>) -> bool {
        let now = Instant::now();
        let rows: Vec<usize> = jobs.iter().map(|job| job.rows).collect();
        for job in &jobs {
            self.metrics.queue.observe(now.duration_since(job.queued).as_secs_f64());
        }
        let answers = {
            let inputs: Vec<&[Tensor]> = jobs.iter().map(|job| job.inputs.as_slice()).collect();
            let outputs = jobs.first().map_or(&[][..], |job| &job.shape.outputs);
            self.compute(&inputs, outputs, &rows)
        };
        match answers {
            Ok(answers) => {
                let replies = jobs.into_iter().map(|job| job.reply).zip(answers);
                // All at once, from within the runtime: woken for each of them, it would take turns with this thread.
                tokio::spawn(async move {
                    for (reply, outputs) in replies {
                        let _ = reply.send(Ok(outputs)); // an error here means the caller has gone
                    }
                });
                true
            }
            Err(error) if is_of_process(&error) => {
                jobs.into_iter().for_each(|job| self.try_again(job, &error));
                false
            }
            // One bad request must not fail its neighbours: run each alone, so that only the culprit hears of it.
            Err(_) if jobs.len() > 1 => {
                jobs.into_iter().for_each(|job| self.run_alone(job));
                false
            }
            Err(error) => {
                for job in jobs {
                    let _ = job.reply.send(Err(error.replicate()));
                }
                false
            }
        }
    }

    fn run_alone(&mut self, job: Pending) {
        if job.abandoned() {
            return;
        }
        let answer = if job.deadline <= Instant::now() {
            Err(late())
        } else {
            self.compute(&[&job.inputs], &job.shape.outputs, &[job.rows])
                .map(|mut answers| answers.pop().unwrap_or_default())
        };
        match answer {
            Err(error) if is_of_process(&error) => self.try_again(job, &error),
            answer => drop(job.reply.send(answer)), // an error here means the caller has gone
        }
    }

    /// Puts a request that its process has not answered back into the queue: as it was when it has not reached it, and once
    /// when the process ended over it.
    fn try_again(&self, mut job: Pending, why: &Error) {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let was_lost = why.kind() == Kind::Lost;
        let is_vain = if was_lost { job.shape.again.is_some() } else { self.health.trouble().is_some() };
        if is_vain || self.queue.is_closed() {
            let _ = job.reply.send(Err(why.replicate())); // an error here means the caller has gone
            return;
        }
        if was_lost {
            job.rows_to_come = 0;
            job.shape.again = Some(NUMBERS.fetch_add(1, Ordering::Relaxed));
        }
        // Who gives way or is refused hears that it was lost, from who waits for the answer.
        let _ = self.queue.push(job);
    }

    fn compute(&mut self, jobs: &[&[Tensor]], outputs: &[usize], rows: &[usize]) -> Result<Vec<Vec<Tensor>>> {
        let joined = self.joining.join(jobs)?;
        let started = Instant::now();
        let answers = backend::run(&mut *self.model, &joined.inputs, outputs);
        self.metrics.observe_batch(rows, joined.padding);
        let took = started.elapsed().as_secs_f64();
        self.compute.observe(took);
        self.used.iter().for_each(|used| used.was_busy(took));
        self.joining.split(jobs, &joined, answers?, outputs, rows)
    }
}

/// As long as its process or its device is away, an instance leaves what waits to others; when there are none, and it cannot come back, it
/// says so.
async fn wait_for_process(pulse: Option<&Pulse>, health: &Health, queue: &Queue<Pending>) {
    let Some(pulse) = pulse else { return };
    while !pulse.is_up() && health.trouble().is_none() && !queue.is_closed() {
        let milliseconds = if pulse.end().is_some() { 100 } else { 2 }; // it may be back soon
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    }
}

/// Whether it is not what was asked that the model failed over, but that its process ended.
fn is_of_process(error: &Error) -> bool {
    matches!(error.kind(), Kind::Lost | Kind::NotReady)
}

fn late() -> Error {
    Error::new(Kind::Deadline, "the request waited for the model until it could not be answered by its deadline")
}
