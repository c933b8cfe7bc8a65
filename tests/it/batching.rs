//! The engine with scripted models: batches, neighbours of failures, panics, requests larger than a batch.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use stoker::backend::Model;
use stoker::backend::echo::{Act, Echo};
use stoker::device::process::pulse::{Health, Pulse};
use stoker::device::worker::Worker;
use stoker::engine::admission::{Admission, Limits};
use stoker::engine::instance::Instance;
use stoker::engine::policy::{Levels, Policy};
use stoker::engine::queue::Queue;
use stoker::engine::{Engine, Served, Terms};
use stoker::error::{Error, Kind, Result};
use stoker::infer::{InferRequest, InferResponse, Schedule, Signature, TensorSpec};
use stoker::model::catalog::{Catalog, Entry};
use stoker::model::state::State;
use stoker::telemetry::metrics::Metrics;
use stoker::tensor::{DType, Shape, Tensor};

use crate::support::PATIENCE;

fn spec(dims: &[Option<usize>]) -> TensorSpec {
    TensorSpec { name: "x".into(), dtype: DType::Uint32, dims: dims.to_vec() }
}

/// A model, and whether its device is there.
type OnDevice = (Box<dyn Model>, Option<Arc<Pulse>>);

/// An engine with one ready model, and its model's entry.
struct Bench {
    engine: Engine,
    entry: Arc<Entry>,
}

impl Bench {
    /// `expected` is what warm-up would have measured: it decides between a thread and the runtime.
    fn new(model: Box<dyn Model>, policy: Policy, expected: Duration) -> Bench {
        Bench::of(vec![(model, None)], policy, expected)
    }

    /// One whose model has several instances.
    fn of(models: Vec<OnDevice>, policy: Policy, expected: Duration) -> Bench {
        let entry = Arc::new(Entry::new("m", "1", Arc::new(Metrics::default())));
        let max_rows = policy.max_rows;
        let queue = Arc::new(Queue::new(Policy { workers: vec![0; models.len()], ..policy }));
        let signature = models[0].0.signature().clone();
        let health = Health::of(models.iter().filter_map(|(_, pulse)| pulse.clone()).collect());
        for (worker, (model, pulse)) in models.into_iter().enumerate() {
            let instance = Instance {
                model,
                queue: queue.clone(),
                worker,
                joining: Arc::default(),
                metrics: entry.metrics().unwrap(),
                compute: entry.metrics().unwrap().compute("cpu"),
                used: None,
                pulse,
                health: health.clone(),
            };
            Worker::start("model-m".to_owned(), instance, expected).unwrap();
        }
        for state in [State::Fetching, State::Placing, State::Loading, State::Warming] {
            entry.become_state(state);
        }
        entry.serve(Served {
            version: "1".into(),
            signature,
            platform: "test",
            queue,
            max_rows,
            max_tokens: usize::MAX,
            joining: Arc::default(),
            levels: Levels::default(),
            slo: None,
            health,
            placed: String::new(),
        });
        let catalog = Arc::new(Catalog::default());
        catalog.insert(&entry);
        let limits = Limits { max_requests: 10_000, max_bytes: 1 << 30 };
        Bench { engine: Engine::new(catalog, Admission::new(limits)), entry }
    }

    async fn infer(&self, values: &[u32], dims: &[usize], deadline: Instant) -> Result<InferResponse> {
        self.infer_for(0, values, dims, deadline).await
    }

    async fn infer_for(&self, tenant: u64, values: &[u32], dims: &[usize], deadline: Instant) -> Result<InferResponse> {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor = Tensor::new("x", DType::Uint32, Shape::new(dims.to_vec())?, data.into())?;
        let request =
            InferRequest { id: None, inputs: vec![tensor], outputs: Vec::new(), schedule: Schedule::default() };
        let served = self.entry.served()?;
        let terms = Terms { started: Instant::now(), deadline, is_deadline_set: true, tenant };
        self.engine.infer(&self.entry, &served, request, &terms).await
    }

    async fn echo(&self, values: &[u32]) -> Result<Vec<u32>> {
        let response = self.infer(values, &[values.len(), 1], Instant::now() + PATIENCE).await?;
        Ok(numbers(response.outputs[0].data()))
    }
}

fn numbers(data: &Bytes) -> Vec<u32> {
    data.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
}

fn policy(max_rows: usize) -> Policy {
    Policy::new(max_rows, 1000)
}

/// On a thread of its own, or inside the runtime.
const SLOW: Duration = Duration::MAX;
const QUICK: Duration = Duration::ZERO;

/// A model that reports the rows of every batch, waits for leave, and fails on the value 13.
struct Watched {
    inner: Echo,
    batches: mpsc::Sender<usize>,
    leave: mpsc::Receiver<()>,
}

impl Model for Watched {
    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>> {
        let _ = self.batches.send(inputs[0].rows());
        let _ = self.leave.recv();
        if numbers(inputs[0].data()).contains(&13) {
            return Err(Error::invalid("13 brings bad luck"));
        }
        self.inner.run(inputs, outputs)
    }
}

fn watched(max_rows: usize) -> (Arc<Bench>, mpsc::Receiver<usize>, mpsc::Sender<()>) {
    let (batches, seen) = mpsc::channel();
    let (allow, leave) = mpsc::channel();
    let inner = Echo::new(vec![spec(&[None, Some(1)])], Vec::new());
    (Arc::new(Bench::new(Box::new(Watched { inner, batches, leave }), policy(max_rows), SLOW)), seen, allow)
}

#[tokio::test]
async fn what_waits_while_the_model_is_busy_runs_together_and_only_the_culprit_fails() {
    let (bench, seen, allow) = watched(8);
    let ask = |value: u32| {
        let bench = bench.clone();
        tokio::spawn(async move { bench.echo(&[value]).await })
    };
    let first = ask(0);
    let rows = tokio::task::spawn_blocking(move || (seen.recv_timeout(PATIENCE).unwrap(), seen));
    let (rows, seen) = rows.await.unwrap();
    assert_eq!(rows, 1); // the model is free: nobody waits for company
    let others: Vec<_> = [11, 12, 13, 14].map(ask).into_iter().collect();
    while bench.entry.served().unwrap().queue.depth().jobs < 4 {
        tokio::task::yield_now().await;
    }
    (0..6).for_each(|_| allow.send(()).unwrap()); // the first, the joined batch, and four alone
    assert_eq!(first.await.unwrap().unwrap(), [0]);
    for (value, other) in (11..).zip(others) {
        match other.await.unwrap() {
            Ok(answer) => assert_eq!(answer, [value]),
            Err(error) => assert_eq!((value, error.kind()), (13, Kind::Invalid)),
        }
    }
    assert_eq!(seen.try_iter().collect::<Vec<_>>(), [4, 1, 1, 1, 1]);
}

#[tokio::test]
async fn requests_larger_than_a_batch_are_cut_and_joined_again() {
    let (bench, seen, allow) = watched(4);
    (0..3).for_each(|_| allow.send(()).unwrap());
    let values: Vec<u32> = (100..110).collect();
    assert_eq!(bench.echo(&values).await.unwrap(), values);
    assert_eq!(seen.try_iter().collect::<Vec<_>>(), [4, 4, 2]);
}

#[tokio::test]
async fn a_large_request_does_not_keep_other_tenants_waiting() {
    let takes = |rows: usize| Duration::from_millis(1 + 5 * rows as u64);
    let (bench, seen, allow) = watched(8);
    let served = bench.entry.served().unwrap();
    // So often that a batch which this machine makes slow does not count.
    for rows in [1, 2, 4, 8].repeat(9) {
        served.queue.learn(0, 1, rows, takes(rows));
    }
    let (tell, tells) = mpsc::channel();
    std::thread::spawn(move || {
        for rows in seen {
            std::thread::sleep(takes(rows));
            let _ = (tell.send(rows), allow.send(())); // an error here means that the test is over
        }
    });
    let (values, deadline) = ((100..108).collect::<Vec<u32>>(), Instant::now() + 10 * PATIENCE);
    let large = async || numbers(bench.infer_for(1, &values, &[8, 1], deadline).await.unwrap().outputs[0].data());
    assert_eq!(large().await, values);
    assert_eq!(tells.try_iter().collect::<Vec<_>>(), [8], "nobody else is there");
    bench.infer_for(2, &[1], &[1, 1], deadline).await.unwrap();
    assert_eq!(large().await, values);
    let batches: Vec<_> = tells.try_iter().collect();
    assert!(batches.len() > 2 && batches.iter().sum::<usize>() == 9, "{batches:?}");
}

#[tokio::test]
async fn a_panicking_model_costs_one_request() {
    let script = vec![Act::Panic, Act::Fail("out of memory".into()), Act::Answer];
    let bench = Bench::new(Box::new(Echo::new(vec![spec(&[None, Some(1)])], script)), policy(8), SLOW);
    let error = bench.echo(&[1]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    assert!(error.message().contains("panicked"), "{error}");
    assert_eq!(bench.echo(&[2]).await.unwrap_err().message(), "out of memory");
    assert_eq!(bench.echo(&[3]).await.unwrap(), [3]);
}

#[tokio::test]
async fn a_missed_deadline_is_answered_in_time_and_what_waited_too_long_does_not_run() {
    let script = vec![Act::AnswerAfter(Duration::from_millis(300))];
    let bench = Arc::new(Bench::new(Box::new(Echo::new(vec![spec(&[None, Some(1)])], script)), policy(1), SLOW));
    let (begun, soon) = (Instant::now(), Instant::now() + Duration::from_millis(50));
    let (running, waiting) = tokio::join!(bench.infer(&[1], &[1, 1], soon), bench.infer(&[2], &[1, 1], soon));
    assert_eq!(running.unwrap_err().kind(), Kind::Deadline);
    assert_eq!(waiting.unwrap_err().kind(), Kind::Deadline);
    assert!(begun.elapsed() < Duration::from_millis(250), "{:?}", begun.elapsed());
    assert_eq!(bench.echo(&[3]).await.unwrap(), [3]);
}

#[tokio::test]
async fn a_model_that_turns_out_slow_moves_out_of_the_runtime() {
    let script = (0..4).map(|_| Act::AnswerAfter(Duration::from_millis(100))).collect();
    let bench = Arc::new(Bench::new(Box::new(Echo::new(vec![spec(&[None, Some(1)])], script)), policy(1), QUICK));
    let (first, ticks) = tokio::join!(bench.echo(&[1]), ticks_during(Duration::from_millis(20)));
    assert_eq!(first.unwrap(), [1]);
    assert!(ticks < 5, "the first batch has held up the runtime's only thread: {ticks}");
    let (second, ticks) = tokio::join!(bench.echo(&[2]), ticks_during(Duration::from_millis(80)));
    assert_eq!(second.unwrap(), [2]);
    assert!(ticks >= 10, "the second must not: {ticks}");
}

#[tokio::test]
async fn nothing_is_computed_on_a_device_that_has_failed() {
    let pulses = [(); 2].map(|()| Arc::new(Pulse::of_one_that_is_up()));
    let echo = |script| Box::new(Echo::new(vec![spec(&[None, Some(1)])], script)) as Box<dyn Model>;
    let wrong = (0..20).map(|_| Act::Fail("computed on a device that has failed".into())).collect();
    let models = vec![(echo(wrong), Some(pulses[0].clone())), (echo(Vec::new()), Some(pulses[1].clone()))];
    let bench = Bench::of(models, policy(1), SLOW);
    pulses[0].stops("gpu0 is not used any more");
    for value in 0..20 {
        assert_eq!(bench.echo(&[value]).await.unwrap(), [value]);
    }
    pulses[1].stops("gpu1 is not used any more");
    let error = bench.echo(&[1]).await.unwrap_err();
    assert!(error.kind() == Kind::NotReady && error.message().contains("gpu0 is not used any more"), "{error}");
}

/// How often this task gets its turn, asking every millisecond for a while.
async fn ticks_during(while_: Duration) -> usize {
    let until = Instant::now() + while_;
    let mut ticks = 0;
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(1)).await;
        ticks += 1;
    }
    ticks
}

/// Distinct payloads of mixed shapes from many tasks at once: every answer belongs to its own request, wherever the
/// model computes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_never_goes_to_another_request() {
    for place in [SLOW, QUICK] {
        let model = Echo::new(vec![spec(&[None, None])], Vec::new());
        let bench = Arc::new(Bench::new(Box::new(model), policy(16), place));
        let tasks: Vec<_> = (0..400).map(|task| tokio::spawn(ask_ten_times(bench.clone(), task))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
}

async fn ask_ten_times(bench: Arc<Bench>, task: u32) {
    for round in 0..10_u32 {
        let (rows, width) = (1 + task as usize % 3, 1 + round as usize % 4);
        let values: Vec<u32> = (0..).take(rows * width).map(|index| task << 16 | round << 8 | index).collect();
        let response = bench.infer(&values, &[rows, width], Instant::now() + PATIENCE).await.unwrap();
        assert_eq!(numbers(response.outputs[0].data()), values);
        assert_eq!(response.outputs[0].shape().dims(), [rows, width]);
    }
}
