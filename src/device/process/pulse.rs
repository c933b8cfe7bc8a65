//! Whether what computes elsewhere is there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Of one instance of a model, in a process that may end and begin anew.
#[derive(Debug, Default)]
pub struct Pulse {
    is_up: AtomicBool,
    /// Why it could not begin anew.
    trouble: Mutex<Option<String>>,
}

impl Pulse {
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire)
    }

    pub fn comes_up(&self) {
        self.set_trouble(None);
        self.is_up.store(true, Ordering::Release);
    }

    pub fn goes_down(&self) {
        self.is_up.store(false, Ordering::Release);
    }

    /// It tried to begin anew, and failed.
    pub fn fails(&self, why: String) {
        self.set_trouble(Some(why));
    }

    fn set_trouble(&self, why: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Of all instances of a model that are in processes of their own.
#[derive(Clone, Debug, Default)]
pub struct Health(Vec<Arc<Pulse>>);

impl Health {
    pub fn of(pulses: Vec<Arc<Pulse>>) -> Health {
        Health(pulses)
    }

    /// Whether one of them can answer. Those in this process always can.
    pub fn is_up(&self) -> bool {
        self.0.is_empty() || self.0.iter().any(|pulse| pulse.is_up())
    }

    /// Why none of them can, and none will at once.
    pub fn trouble(&self) -> Option<String> {
        if self.is_up() { None } else { self.0.iter().find_map(|pulse| pulse.trouble()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_up_is_enough_and_trouble_is_told_when_none_is() {
        assert!(Health::default().is_up());
        let pulses = [Arc::new(Pulse::default()), Arc::new(Pulse::default())];
        let health = Health::of(pulses.to_vec());
        assert!(!health.is_up());
        assert_eq!(health.trouble(), None);
        pulses[1].comes_up();
        pulses[0].fails("no memory".to_owned());
        assert!(health.is_up() && health.trouble().is_none());
        pulses[1].goes_down();
        assert_eq!(health.trouble().as_deref(), Some("no memory"));
        pulses[0].comes_up();
        pulses[0].goes_down();
        assert_eq!(health.trouble(), None);
    }
}
