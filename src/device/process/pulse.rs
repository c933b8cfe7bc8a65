//! Whether what computes elsewhere, in another process or on a GPU, is there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Of one instance of a model, in a process that may end and begin anew, or on a GPU that may fail.
#[derive(Debug, Default)]
pub struct Pulse {
    is_up: AtomicBool,
    /// Why it could not begin anew.
    trouble: Mutex<Option<String>>,
    /// Why it never will.
    end: OnceLock<String>,
}

impl Pulse {
    pub fn of_one_that_is_up() -> Pulse {
        Pulse { is_up: AtomicBool::new(true), ..Pulse::default() }
    }

    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire) && self.end.get().is_none()
    }

    /// For ever.
    pub fn stops(&self, why: &str) {
        self.end.get_or_init(|| why.to_owned());
    }

    /// Why it has stopped.
    pub fn end(&self) -> Option<&str> {
        self.end.get().map(String::as_str)
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
        self.end.get().cloned().or_else(|| self.failed())
    }

    fn failed(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Of all instances of a model that have one.
#[derive(Clone, Debug, Default)]
pub struct Health(Vec<Arc<Pulse>>);

impl Health {
    pub fn of(pulses: Vec<Arc<Pulse>>) -> Health {
        Health(pulses)
    }

    /// Whether one of them can answer. Those on the CPU in this process always can.
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
        pulses.iter().for_each(|pulse| pulse.comes_up());
        pulses[0].stops("gpu0 fell off the bus");
        assert!(health.is_up() && !pulses[0].is_up());
        pulses[1].stops("gpu1, too");
        pulses[0].comes_up();
        assert_eq!((health.is_up(), health.trouble().as_deref()), (false, Some("gpu0 fell off the bus")));
    }
}
