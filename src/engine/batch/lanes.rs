//! Jobs that wait, by their shape.

use std::collections::HashMap;
use std::time::Instant;

use super::{Job, as_f64};
use crate::engine::line::{Line, Waiting};

/// Jobs of one shape.
pub(super) struct Lane<J: Job> {
    pub shape: J::Shape,
    pub line: Line<J>,
    /// Of the longest row.
    pub elements: usize,
    /// Of the longest row.
    pub tokens: usize,
    pub rows: usize,
    /// The sum of the jobs' work.
    pub work: f64,
    /// How long all workers together will take for it, which is more where batches are not full.
    pub seconds: f64,
    pub arrivals: Arrivals,
    /// Rows and work of the job that came last.
    pub last: (usize, f64),
    /// Whether the first job was let in to find out what such jobs take these days: it runs whatever is known of that.
    pub has_probe: bool,
}

/// How often rows come these days, whether or not they are taken in.
#[derive(Default)]
pub(super) struct Arrivals {
    last: Option<Instant>,
    /// Seconds between rows, the last ones counting most.
    gap: Option<f64>,
}

impl Arrivals {
    pub fn came(&mut self, rows: usize, now: Instant) {
        /// Of the newest gap.
        const WEIGHT: f64 = 0.1;
        if let Some(last) = self.last.replace(now) {
            let gap = now.duration_since(last).as_secs_f64() / as_f64(rows);
            self.gap = Some(self.gap.map_or(gap, |known| known + (gap - known) * WEIGHT));
        }
    }

    /// Seconds between rows.
    pub fn gap(&self, now: Instant) -> Option<f64> {
        let silent = now.duration_since(self.last?).as_secs_f64();
        self.gap.map(|gap| gap.max(silent).max(1e-9))
    }
}

/// All lanes. Those that have run empty are kept for a while: most traffic has few shapes, which come again.
pub(super) struct Lanes<J: Job> {
    numbers: HashMap<J::Shape, usize>,
    all: Vec<Lane<J>>,
}

impl<J: Job> Lanes<J> {
    pub fn new() -> Lanes<J> {
        Lanes { numbers: HashMap::new(), all: Vec::new() }
    }

    /// The number of the lane in which a job is to wait. It is the lane's as long as something waits in it.
    pub fn number(&mut self, job: &J) -> usize {
        /// More than so many are not kept empty.
        const KEPT: usize = 64;
        if let Some(known) = self.numbers.get(job.shape()) {
            return *known;
        }
        let free = if self.all.len() < KEPT { None } else { self.all.iter().position(|lane| lane.line.is_empty()) };
        let lane = Lane::new(job.shape().clone());
        let number = free.unwrap_or(self.all.len());
        if let Some(before) = self.all.get_mut(number) {
            self.numbers.remove(&std::mem::replace(before, lane).shape);
        } else {
            self.all.push(lane);
        }
        self.numbers.insert(job.shape().clone(), number);
        number
    }

    pub fn get(&self, number: usize) -> &Lane<J> {
        &self.all[number]
    }

    pub fn get_mut(&mut self, number: usize) -> &mut Lane<J> {
        &mut self.all[number]
    }

    pub fn all(&self) -> impl Iterator<Item = (usize, &Lane<J>)> {
        self.all.iter().enumerate()
    }

    /// Those in which something waits.
    pub fn waiting(&self) -> impl Iterator<Item = (usize, &Lane<J>)> {
        self.all().filter(|(_, lane)| !lane.line.is_empty())
    }
}

impl<J: Job> Lane<J> {
    fn new(shape: J::Shape) -> Lane<J> {
        Lane {
            shape,
            line: Line::default(),
            elements: 0,
            tokens: 0,
            rows: 0,
            work: 0.0,
            seconds: 0.0,
            arrivals: Arrivals::default(),
            last: (1, 0.0),
            has_probe: false,
        }
    }

    pub fn push(&mut self, waiting: Waiting<J>) {
        let Waiting { ref job, work, .. } = waiting;
        if self.line.is_empty() {
            (self.elements, self.tokens) = (0, 0);
        }
        (self.elements, self.tokens) = (self.elements.max(job.elements()), self.tokens.max(job.tokens()));
        self.rows += job.rows();
        self.work += work;
        self.line.push(waiting);
    }
}
