//! What an operator may decide about the order and the size of batches. Pure.

use std::time::Duration;

use crate::error::{Error, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Most rows in one batch.
    pub max_rows: usize,
    /// Most tokens in one batch, each row counting as many as the longest.
    pub max_tokens: usize,
    /// Sizes that batches should have, ascending; none: whatever gets most done.
    pub preferred_rows: Vec<usize>,
    /// How long a job may wait for company while a worker is free. Zero never waits.
    pub max_delay: Duration,
    pub max_queue: MaxQueue,
    /// Most jobs that wait, by level; of levels beyond, as many as may wait at all.
    pub max_jobs_of_level: Vec<usize>,
    /// How much longer a job of the next level waits than one of the level before it, however many of these come.
    pub ageing: Duration,
    /// Workers, each by the kind of its device: those of a kind take equally long.
    pub workers: Vec<usize>,
}

/// The most that may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxQueue {
    pub jobs: usize,
    pub rows: usize,
    pub bytes: usize,
}

impl MaxQueue {
    /// Whether so much is more than may wait.
    pub fn is_less_than(&self, jobs: usize, rows: usize, bytes: usize) -> bool {
        jobs > self.jobs || rows > self.rows || bytes > self.bytes
    }
}

impl Policy {
    /// With one worker, batches as large as is best, and no more than `jobs` that wait.
    pub fn new(max_rows: usize, jobs: usize) -> Policy {
        Policy {
            max_rows,
            max_tokens: usize::MAX,
            preferred_rows: Vec::new(),
            max_delay: Duration::ZERO,
            max_queue: MaxQueue { jobs, rows: usize::MAX, bytes: usize::MAX },
            max_jobs_of_level: Vec::new(),
            ageing: Duration::from_secs(1),
            workers: vec![0],
        }
    }
}

/// Levels of priority, the first of which comes first, and how requests of each may wait. Source of the names: Triton's
/// `ModelDynamicBatching` in `model_config.proto`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    /// One policy a level, at least one.
    policies: Vec<QueuePolicy>,
    /// Of requests that do not say, from 1.
    default: usize,
}

/// How requests of a level may wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuePolicy {
    /// Most of them.
    pub max_jobs: Option<usize>,
    /// For how long.
    pub timeout: Option<Duration>,
    pub timeout_action: TimeoutAction,
    /// Whether a request's own `timeout` counts as well.
    pub allow_timeout_override: bool,
}

/// What becomes of who has waited too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutAction {
    /// Is refused.
    Reject,
    /// Comes after all others.
    Delay,
}

impl Default for QueuePolicy {
    fn default() -> QueuePolicy {
        let timeout_action = TimeoutAction::Reject;
        QueuePolicy { max_jobs: None, timeout: None, timeout_action, allow_timeout_override: true }
    }
}

impl Default for Levels {
    fn default() -> Levels {
        Levels { policies: vec![QueuePolicy::default()], default: 1 }
    }
}

impl Levels {
    /// `None` when there is no policy, or no such default level.
    pub fn new(policies: Vec<QueuePolicy>, default: usize) -> Option<Levels> {
        (1..=policies.len()).contains(&default).then_some(Levels { policies, default })
    }

    /// The level of a request, from 0, and its policy. Where there is but one level nobody's priority counts.
    ///
    /// # Errors
    /// When there is no such level.
    pub fn of(&self, priority: Option<u32>) -> Result<(usize, &QueuePolicy)> {
        let count = self.policies.len();
        let level = match priority {
            Some(level) if count > 1 => level as usize,
            _ => self.default,
        };
        let policy = level.checked_sub(1).and_then(|level| Some((level, self.policies.get(level)?)));
        policy.ok_or_else(|| Error::invalid(format!("priority {level}: the model has levels 1 (first) to {count}")))
    }

    /// Most jobs that wait, by level.
    pub fn max_jobs(&self) -> Vec<usize> {
        self.policies.iter().map(|policy| policy.max_jobs.unwrap_or(usize::MAX)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_is_a_level_or_a_mistake() {
        let first = QueuePolicy { max_jobs: Some(4), ..QueuePolicy::default() };
        let levels = Levels::new(vec![first.clone(), QueuePolicy::default()], 2).unwrap();
        assert_eq!(levels.of(Some(1)).unwrap(), (0, &first));
        assert_eq!(levels.of(None).unwrap().0, 1);
        assert_eq!(levels.of(Some(3)).unwrap_err().message(), "priority 3: the model has levels 1 (first) to 2");
        assert_eq!(levels.max_jobs(), [4, usize::MAX]);
        assert_eq!(Levels::default().of(Some(9)).unwrap().0, 0);
        assert_eq!((Levels::new(Vec::new(), 1), Levels::new(vec![first], 2)), (None, None));
    }
}
