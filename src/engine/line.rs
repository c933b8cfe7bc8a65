//! Jobs of one shape, in the order in which they are to run: by turns of their tenants, each tenant's by when they are
//! due. Pure.

use std::cell::Cell;
use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::time::Instant;

use rustc_hash::FxHashMap;

use super::batch::Job;
use super::shares::{Shares, Tenant};

/// A job and what was decided when it came.
pub struct Waiting<J> {
    pub job: J,
    pub arrived: Instant,
    /// Earlier ones run first.
    pub due: Instant,
    pub tenant: Tenant,
    /// What it adds to the work that waits, in seconds.
    pub work: f64,
    /// Whether it has been put off already.
    pub is_put_off: bool,
}

pub struct Line<J> {
    /// None is empty.
    flows: Vec<Flow<J>>,
    /// Places of tenants among these.
    places: FxHashMap<Tenant, usize>,
    /// What [`Line::first_deadline`] has found, until jobs are taken out.
    first_deadline: Cell<Option<Instant>>,
}

struct Flow<J> {
    tenant: Tenant,
    /// By when they are due, those that came first before others.
    jobs: VecDeque<Waiting<J>>,
    /// Their sum.
    work: f64,
}

/// Where a job is in its line, until that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    flow: usize,
    at: usize,
}

/// Who is next: the one with the smallest place, then the one whose job is due first.
#[derive(Clone, Copy, PartialEq)]
pub struct Turn {
    pub place: f64,
    pub due: Instant,
}

impl Eq for Turn {}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Turn) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Turn {
    fn cmp(&self, other: &Turn) -> Ordering {
        self.place.total_cmp(&other.place).then(self.due.cmp(&other.due))
    }
}

impl<J> Default for Line<J> {
    fn default() -> Line<J> {
        Line { flows: Vec::new(), places: FxHashMap::default(), first_deadline: Cell::new(None) }
    }
}

impl<J> Line<J> {
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    pub fn push(&mut self, waiting: Waiting<J>)
    where
        J: Job,
    {
        let deadline = waiting.job.deadline();
        let place = self.place_of(waiting.tenant).unwrap_or_else(|| {
            self.places.insert(waiting.tenant, self.flows.len());
            self.flows.push(Flow { tenant: waiting.tenant, jobs: VecDeque::new(), work: 0.0 });
            self.flows.len() - 1
        });
        let flow = &mut self.flows[place];
        flow.work += waiting.work;
        match flow.jobs.front() {
            None => self.first_deadline.set(self.first_deadline.get().map(|first| first.min(deadline))),
            Some(first) if first.due > waiting.due => self.first_deadline.set(None),
            Some(_) => {}
        }
        if flow.jobs.back().is_none_or(|last| last.due <= waiting.due) {
            flow.jobs.push_back(waiting);
        } else {
            let at = flow.jobs.partition_point(|other| other.due <= waiting.due);
            flow.jobs.insert(at, waiting);
        }
    }

    /// When its first job's turn is.
    pub fn turn(&self, shares: &Shares) -> Option<Turn> {
        let turn = |flow: &Flow<J>| Some(Turn { place: shares.place(flow.tenant), due: flow.jobs.front()?.due });
        self.flows.iter().filter_map(turn).min()
    }

    /// About how much work of a tenant is due no later than that.
    pub fn work_before(&self, tenant: Tenant, due: Instant) -> f64 {
        let Some(Flow { jobs, work, .. }) = self.places.get(&tenant).map(|place| &self.flows[*place]) else {
            return 0.0;
        };
        if jobs.back().is_none_or(|last| last.due <= due) {
            return *work;
        }
        #[allow(clippy::cast_precision_loss)] // queues are short
        let part = jobs.partition_point(|other| other.due <= due) as f64 / jobs.len() as f64;
        work * part
    }

    /// The earliest deadline of those who are first.
    pub fn first_deadline(&self) -> Option<Instant>
    where
        J: Job,
    {
        let find = || self.flows.iter().filter_map(|flow| flow.jobs.front()).map(|first| first.job.deadline()).min();
        self.first_deadline.set(self.first_deadline.get().or_else(find));
        self.first_deadline.get()
    }

    /// All that wait, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Waiting<J>> {
        self.flows.iter().flat_map(|flow| &flow.jobs)
    }

    /// Gives the jobs one after the other in the order in which they are to run, as long as `wants_more`.
    pub fn visit(&self, shares: &Shares, mut wants_more: impl FnMut(Place, &Waiting<J>) -> bool) {
        if let [only] = self.flows.as_slice() {
            for (at, waiting) in only.jobs.iter().enumerate() {
                if !wants_more(Place { flow: 0, at }, waiting) {
                    return;
                }
            }
            return;
        }
        let next = |flow: usize, at: usize, place: f64| {
            let due = self.flows[flow].jobs.get(at)?.due;
            Some(Reverse((Turn { place, due }, flow, at)))
        };
        let firsts = self.flows.iter().enumerate();
        let mut turns: BinaryHeap<_> =
            firsts.filter_map(|(index, flow)| next(index, 0, shares.place(flow.tenant))).collect();
        while let Some(Reverse((turn, flow, at))) = turns.pop() {
            let waiting = &self.flows[flow].jobs[at];
            if !wants_more(Place { flow, at }, waiting) {
                return;
            }
            turns.extend(next(flow, at + 1, turn.place + waiting.work));
        }
    }

    /// Takes jobs out, in the order of their places.
    pub fn take(&mut self, places: &[Place]) -> Vec<Waiting<J>> {
        self.first_deadline.set(None);
        let are_first =
            |flow: &Flow<J>| places.len() <= flow.jobs.len() && (0..).zip(places).all(|(at, place)| place.at == at);
        if let [only] = self.flows.as_mut_slice()
            && are_first(only)
        {
            let taken: Vec<_> = only.jobs.drain(..places.len()).collect();
            only.work = if only.jobs.is_empty() {
                0.0
            } else {
                only.work - taken.iter().map(|waiting| waiting.work).sum::<f64>()
            };
            self.remove_if_empty(0);
            return taken;
        }
        let mut by_flow: Vec<(Place, usize)> = places.iter().copied().zip(0..).collect();
        by_flow.sort_unstable_by_key(|(place, _)| (place.flow, Reverse(place.at)));
        let mut taken: Vec<Option<Waiting<J>>> = places.iter().map(|_| None).collect();
        for (Place { flow, at }, order) in &by_flow {
            let Flow { jobs, work, .. } = &mut self.flows[*flow];
            taken[*order] = jobs.remove(*at).inspect(|waiting| *work -= waiting.work);
        }
        // The last ones first: each takes the place of one that goes.
        let mut touched: Vec<usize> = by_flow.iter().map(|(place, _)| place.flow).collect();
        touched.dedup();
        touched.into_iter().rev().for_each(|flow| self.remove_if_empty(flow));
        taken.into_iter().flatten().collect()
    }

    fn place_of(&self, tenant: Tenant) -> Option<usize> {
        match self.flows.as_slice() {
            [] => None,
            [only] => (only.tenant == tenant).then_some(0), // which is most often so
            _ => self.places.get(&tenant).copied(),
        }
    }

    fn remove_if_empty(&mut self, flow: usize) {
        if self.flows[flow].jobs.is_empty() {
            self.places.remove(&self.flows.swap_remove(flow).tenant);
            if let Some(moved) = self.flows.get(flow) {
                self.places.insert(moved.tenant, flow);
            }
        }
    }

    /// A tenant's jobs, those that are due last first.
    pub fn last_first(&self, tenant: Tenant) -> impl Iterator<Item = (Place, &Waiting<J>)> {
        let flow = self.place_of(tenant).map(|flow| (flow, &self.flows[flow]));
        flow.into_iter().flat_map(|(flow, Flow { jobs, .. })| {
            jobs.iter().enumerate().map(move |(at, waiting)| (Place { flow, at }, waiting)).rev()
        })
    }
}
