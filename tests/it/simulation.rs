//! The real queue under virtual time: seeded traffic, scripted devices, and what must hold whatever happens.
//!
//! tokio's paused clock jumps from event to event, so minutes of traffic pass in milliseconds and a seed always
//! gives the same run. A failure names its seed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use stoker::engine::batch::{Job, Policy};
use stoker::engine::queue::{PushError, Queue};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use crate::support::Random;

struct Ask {
    id: u64,
    shape: u64,
    rows: usize,
    deadline: std::time::Instant,
    pushed: Instant,
    reply: oneshot::Sender<u64>,
}

impl Job for Ask {
    type Shape = u64;
    fn shape(&self) -> &u64 {
        &self.shape
    }
    fn rows(&self) -> usize {
        self.rows
    }
    fn deadline(&self) -> std::time::Instant {
        self.deadline
    }
    fn abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

/// How one caller's request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Answered,
    Late,
    Refused,
    GaveUp,
}

/// A device: takes a batch, works for a while, answers; now and then it fails and answers nobody.
async fn device(queue: Arc<Queue<Ask>>, seed: u64, policy: Policy, log: Arc<Mutex<Vec<u64>>>) {
    let mut random = Random(seed);
    while let Some(batch) = queue.next().await {
        let now = Instant::now();
        let rows: usize = batch.jobs.iter().map(Job::rows).sum();
        assert!(rows <= policy.max_rows, "seed {seed}: a batch of {rows} rows");
        assert!(batch.jobs.windows(2).all(|pair| pair[0].shape == pair[1].shape), "seed {seed}: mixed shapes");
        assert!(batch.jobs.iter().all(|job| job.deadline > now.into_std()), "seed {seed}: late work ran");
        assert!(batch.jobs.windows(2).all(|pair| pair[0].pushed <= pair[1].pushed), "seed {seed}: out of order");
        sleep(Duration::from_micros(200 + random.below(3000) + 50 * rows as u64)).await;
        let fails = random.below(20) == 0;
        for job in batch.jobs {
            log.lock().unwrap().push(job.id);
            if !fails {
                let _ = job.reply.send(job.id);
            }
        }
    }
}

async fn run(seed: u64) {
    let mut random = Random(seed);
    let policy = Policy {
        max_rows: 1 + random.below(16) as usize,
        max_delay: Duration::from_micros(random.below(3) * 2000),
        max_queue: 1 + random.below(64) as usize,
    };
    let queue = Arc::new(Queue::new(policy));
    let ran = Arc::new(Mutex::new(Vec::new()));
    let devices: Vec<_> = (0..=random.below(3))
        .map(|index| tokio::spawn(device(queue.clone(), seed ^ (index << 32), policy, ran.clone())))
        .collect();
    let mut callers = Vec::new();
    for id in 0..500 {
        sleep(Duration::from_micros(random.below(1500))).await;
        let rows = 1 + random.below(policy.max_rows as u64) as usize;
        let (patience, leaves) = (Duration::from_micros(random.below(30_000)), random.below(10) == 0);
        let shape = random.below(3);
        let (queue, depth) = (queue.clone(), queue.clone());
        callers.push(tokio::spawn(async move {
            let (reply, answer) = oneshot::channel();
            let pushed = Instant::now();
            let deadline = pushed + patience;
            match queue.push(Ask { id, shape, rows, deadline: deadline.into_std(), pushed, reply }) {
                Err(PushError::Full) => return End::Refused,
                pushed => pushed.unwrap_or_else(|error| panic!("seed {seed}: {error:?}")),
            }
            if leaves {
                return End::GaveUp; // drops `answer`, as a caller that disconnects does
            }
            match timeout_at(deadline, answer).await {
                Ok(Ok(answered)) => {
                    assert_eq!(answered, id, "seed {seed}: somebody else's answer");
                    End::Answered
                }
                // The device failed, the job was handed back as expired, or the caller's own clock ran out.
                Ok(Err(_)) | Err(_) => End::Late,
            }
        }));
        assert!(depth.depth().0 <= policy.max_queue, "seed {seed}: the queue is over its bound");
    }
    let mut ends = Vec::new();
    for caller in callers {
        ends.push(caller.await.unwrap());
    }
    queue.close();
    for device in devices {
        device.await.unwrap();
    }
    let mut ran = Arc::into_inner(ran).unwrap().into_inner().unwrap();
    let total = ran.len();
    ran.sort_unstable();
    ran.dedup();
    assert_eq!(ran.len(), total, "seed {seed}: a job ran twice");
    assert!(ran.iter().all(|id| ends[*id as usize] != End::Refused), "seed {seed}: a refused job ran");
    assert_eq!(queue.depth(), (0, 0), "seed {seed}: work was left behind");
    let answered = ends.iter().filter(|end| **end == End::Answered).count();
    assert!(answered > 0 || policy.max_queue == 1, "seed {seed}: nothing was answered");
}

#[tokio::test(start_paused = true)]
async fn whatever_the_traffic_every_request_ends_exactly_once() {
    for seed in 0..200 {
        run(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lone_request_waits_exactly_the_delay() {
    let policy = Policy { max_rows: 8, max_delay: Duration::from_millis(5), max_queue: 8 };
    let queue = Arc::new(Queue::new(policy));
    let worker = tokio::spawn({
        let queue = queue.clone();
        async move { queue.next().await.map(|batch| (batch.jobs.len(), Instant::now())) }
    });
    sleep(Duration::from_millis(1)).await; // the worker is asleep before anything comes
    let (reply, _answer) = oneshot::channel();
    let pushed = Instant::now();
    let deadline = pushed.into_std() + Duration::from_secs(1);
    queue.push(Ask { id: 0, shape: 0, rows: 1, deadline, pushed, reply }).unwrap();
    let (jobs, dispatched) = worker.await.unwrap().unwrap();
    assert_eq!((jobs, dispatched - pushed), (1, policy.max_delay));
}
