//! The real queue under virtual time: seeded traffic, scripted devices, and what must hold whatever happens.
//!
//! tokio's paused clock jumps from event to event, so minutes of traffic pass in milliseconds and a seed always
//! gives the same run. A failure names its seed.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stoker::engine::batch::{Job, Refused};
use stoker::engine::limiter::Limiter;
use stoker::engine::policy::{MaxQueue, Policy};
use stoker::engine::queue::{Depth, Evicted, PushError, Queue};
use stoker::engine::resources::Needs;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use crate::support::Random;

struct Ask {
    id: u64,
    shape: u64,
    rows: usize,
    level: usize,
    tenant: u64,
    deadline: std::time::Instant,
    reply: oneshot::Sender<Reply>,
}

/// More than twice most callers' patience: of several levels nobody's turn is by his deadline beyond half of it.
const AGEING: Duration = Duration::from_millis(80);

/// Of a row.
const BYTES: usize = 8;

/// How devices of one kind are: what a batch takes, and how often it fails.
#[derive(Clone, Copy)]
struct Device {
    microseconds: u64,
    of_a_row: u64,
    jitter: u64,
    fails_of_100: u64,
}

/// Fast, slow, and failing ones, and what takes any time; which is first, and so the fastest, the traffic's seed says.
const DEVICES: [Device; 4] = [
    Device { microseconds: 200, of_a_row: 20, jitter: 50, fails_of_100: 0 },
    Device { microseconds: 2000, of_a_row: 100, jitter: 100, fails_of_100: 2 },
    Device { microseconds: 300, of_a_row: 50, jitter: 300, fails_of_100: 40 },
    Device { microseconds: 200, of_a_row: 50, jitter: 3000, fails_of_100: 5 },
];

/// What a caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    /// To the request of this number.
    Answer(u64),
    /// The device has failed, the job is late, or it had to give way.
    Apology,
}

impl Job for Ask {
    type Shape = u64;
    fn shape(&self) -> &u64 {
        &self.shape
    }
    fn rows(&self) -> usize {
        self.rows
    }
    fn elements(&self) -> usize {
        1
    }
    fn bytes(&self) -> usize {
        BYTES * self.rows
    }
    fn deadline(&self) -> std::time::Instant {
        self.deadline
    }
    fn level(&self) -> usize {
        self.level
    }
    fn tenant(&self) -> u64 {
        self.tenant
    }
    fn abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

/// How one caller's request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Answered,
    /// The device failed, the job was late, or it gave way.
    Apology,
    /// The caller's own clock ran out.
    Late,
    Refused,
    GaveUp,
}

/// A worker: takes a batch, works for as long as its device takes, answers; when that fails it answers nobody.
async fn work(queue: Arc<Queue<Ask>>, worker: usize, seed: u64, policy: Policy, log: Arc<Mutex<Vec<u64>>>) {
    let kind = policy.workers[worker];
    let Device { microseconds, of_a_row, jitter, fails_of_100 } = DEVICES[(seed as usize + kind) % DEVICES.len()];
    let mut random = Random(seed ^ (worker as u64) << 32);
    while let Some(batch) = queue.next(worker).await {
        let now = Instant::now();
        let rows: usize = batch.jobs.iter().map(Job::rows).sum();
        assert!(rows <= policy.max_rows, "seed {seed}: a batch of {rows} rows");
        assert!(batch.jobs.windows(2).all(|pair| pair[0].shape == pair[1].shape), "seed {seed}: mixed shapes");
        assert!(batch.jobs.iter().all(|job| job.deadline > now.into_std()), "seed {seed}: late work ran");
        let is_in_order = |pair: &[Ask]| {
            let [one, other] = [&pair[0], &pair[1]].map(|ask| (ask.tenant, ask.level));
            let is_due_by_age = pair.iter().any(|ask| ask.deadline > now.into_std() + AGEING);
            one != other || is_due_by_age || pair[0].deadline <= pair[1].deadline
        };
        assert!(batch.jobs.windows(2).all(is_in_order), "seed {seed}: out of order");
        for late in batch.late {
            let _ = late.reply.send(Reply::Apology); // an error here means the caller has gone, as below
        }
        if batch.jobs.is_empty() {
            continue;
        }
        sleep(Duration::from_micros(microseconds + of_a_row * rows as u64 + random.below(jitter))).await;
        let fails = random.below(100) < fails_of_100;
        for job in batch.jobs {
            log.lock().unwrap().push(job.id);
            let _ = job.reply.send(if fails { Reply::Apology } else { Reply::Answer(job.id) });
        }
        queue.done(worker, !fails);
    }
}

async fn run(seed: u64) {
    let mut random = Random(seed);
    let (max_rows, max_jobs) = (1 + random.below(16) as usize, 1 + random.below(64) as usize);
    let (kinds, most_rows) = (1 + random.below(3) as usize, max_rows + random.below(200) as usize);
    let policy = Policy {
        max_delay: Duration::from_micros(random.below(3) * 2000),
        ageing: AGEING,
        workers: (0..=random.below(4) as usize).map(|worker| worker.min(kinds - 1)).collect(),
        max_queue: MaxQueue { jobs: max_jobs, rows: most_rows, bytes: BYTES * most_rows.div_ceil(2).max(max_rows) },
        max_jobs_of_level: vec![usize::MAX, usize::MAX, 1 + random.below(20) as usize],
        ..Policy::new(max_rows, max_jobs)
    };
    let queue = Arc::new(Queue::new(policy.clone()));
    let ran = Arc::new(Mutex::new(Vec::new()));
    let devices: Vec<_> = (0..policy.workers.len())
        .map(|worker| tokio::spawn(work(queue.clone(), worker, seed, policy.clone(), ran.clone())))
        .collect();
    let mut callers = Vec::new();
    for id in 0..500 {
        sleep(Duration::from_micros(random.below(1500))).await;
        let rows = 1 + random.below(policy.max_rows as u64) as usize;
        // Traffic ends after less than a second: whoever has so much time is answered, unless somebody starves him.
        let is_patient = random.below(10) == 0;
        let patience = if is_patient { Duration::from_mins(1) } else { Duration::from_micros(random.below(30_000)) };
        let (leaves, shape) = (random.below(10) == 0, random.below(3));
        let (level, tenant) = (random.below(3) as usize, random.below(3));
        let (queue, depth) = (queue.clone(), queue.clone());
        callers.push(tokio::spawn(async move {
            let (reply, answer) = oneshot::channel();
            let pushed = Instant::now();
            let deadline = pushed + patience;
            match queue.push(Ask { id, shape, rows, level, tenant, deadline: deadline.into_std(), reply }) {
                Err(PushError::Refused(Refused::Full { .. })) => return End::Refused,
                Err(PushError::Refused(Refused::Busy { .. } | Refused::Late { .. })) => {
                    assert!(!is_patient, "seed {seed}: refused with a minute's time");
                    return End::Refused;
                }
                Err(error) => panic!("seed {seed}: {error:?}"),
                Ok(Evicted { jobs, .. }) => {
                    for job in jobs {
                        assert_ne!(job.tenant, tenant, "seed {seed}: gave way to his own");
                        let _ = job.reply.send(Reply::Apology);
                    }
                }
            }
            if leaves {
                return End::GaveUp; // drops `answer`, as a caller that disconnects does
            }
            match timeout_at(deadline, answer).await {
                Ok(Ok(Reply::Answer(answered))) => {
                    assert_eq!(answered, id, "seed {seed}: somebody else's answer");
                    End::Answered
                }
                Ok(Ok(Reply::Apology)) => End::Apology,
                Ok(Err(_)) => panic!("seed {seed}: request {id} was lost"),
                Err(_) => {
                    assert!(!is_patient, "seed {seed}: request {id} starved");
                    End::Late
                }
            }
        }));
        let Depth { jobs, rows, bytes } = depth.depth();
        let most = policy.max_queue;
        let is_within = jobs <= most.jobs && rows <= most.rows && bytes <= most.bytes;
        assert!(is_within, "seed {seed}: the queue is over its bounds");
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
    assert_eq!(queue.depth(), Depth::default(), "seed {seed}: work was left behind");
    let answered = ends.iter().filter(|end| **end == End::Answered).count();
    assert!(answered > 0 || max_jobs == 1, "seed {seed}: nothing was answered");
}

#[tokio::test(start_paused = true)]
async fn whatever_the_traffic_every_request_ends_exactly_once() {
    // And some that nobody has seen before: a failure names its seed, too.
    let fresh = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0) >> 1;
    for seed in (0..200).chain(fresh..fresh + 50) {
        run(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lone_request_waits_exactly_the_delay() {
    let max_delay = Duration::from_millis(5);
    let queue = Arc::new(Queue::new(Policy { max_delay, ..Policy::new(8, 8) }));
    let worker = tokio::spawn({
        let queue = queue.clone();
        async move { queue.next(0).await.map(|batch| (batch.jobs.len(), Instant::now())) }
    });
    sleep(Duration::from_millis(1)).await; // the worker is asleep before anything comes
    let (reply, _answer) = oneshot::channel();
    let pushed = Instant::now();
    let deadline = pushed.into_std() + Duration::from_secs(1);
    queue.push(Ask { id: 0, shape: 0, rows: 1, level: 0, tenant: 0, deadline, reply }).unwrap();
    let (jobs, dispatched) = worker.await.unwrap().unwrap();
    assert_eq!((jobs, dispatched - pushed), (1, max_delay));
}

/// Two models of two instances each, which share what only two of the four can have at once.
#[tokio::test(start_paused = true)]
async fn instances_that_share_a_resource_run_by_turns() {
    let limiter = Limiter::new([("memory".to_owned(), 2)].into());
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (mut queues, mut instances, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..2 {
        let needs = || Needs { resources: [("memory".to_owned(), 1)].into(), priority: 1 };
        let turns = (0..2).map(|_| limiter.turn(needs())).collect();
        let queue: Arc<Queue<Ask>> =
            Arc::new(Queue::limited(Policy { workers: vec![0; 2], ..Policy::new(1, 100) }, turns));
        for worker in 0..2 {
            let (queue, running, most) = (queue.clone(), running.clone(), most.clone());
            instances.push(tokio::spawn(async move {
                while let Some(batch) = queue.next(worker).await {
                    let now = running.fetch_add(1, Relaxed) + 1;
                    most.fetch_max(now, Relaxed);
                    sleep(Duration::from_millis(10)).await;
                    running.fetch_sub(1, Relaxed);
                    queue.done(worker, true);
                    batch.jobs.into_iter().for_each(|job| job.reply.send(Reply::Answer(job.id)).unwrap());
                }
            }));
        }
        queues.push(queue);
    }
    let began = Instant::now();
    for id in 0..20 {
        let (reply, answer) = oneshot::channel();
        let deadline = began.into_std() + Duration::from_mins(1);
        queues[id as usize % 2].push(Ask { id, shape: 0, rows: 1, level: 0, tenant: 0, deadline, reply }).unwrap();
        answers.push(answer);
    }
    for answer in answers {
        answer.await.unwrap();
    }
    assert_eq!((most.load(Relaxed), began.elapsed()), (2, Duration::from_millis(100)));
    queues.iter().for_each(|queue| queue.close());
    for instance in instances {
        instance.await.unwrap();
    }
}
