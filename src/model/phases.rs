//! How long the steps of a load take, for `stoker_model_load_seconds` and one summary line. Steps follow each other: what
//! goes on beside another one counts from where that ends, so that they add up to the whole.

use std::time::{Duration, Instant};

use crate::device::host;
use crate::formats::ModelFiles;
use crate::telemetry::metrics::ModelMetrics;

pub struct Phases {
    begun: Instant,
    step: Instant,
    resident_before: u64,
    seconds: Vec<(&'static str, f64)>,
}

impl Phases {
    /// Of a load that began then.
    pub fn since(begun: Instant) -> Phases {
        let resident_before = host::process_memory().unwrap_or_default().resident_bytes;
        Phases { begun, step: begun, resident_before, seconds: Vec::new() }
    }

    /// Of the first load of the process, which begins with the process (known to a hundredth of a second).
    pub fn of_process() -> Phases {
        let now = Instant::now();
        let age = host::process_age_seconds().map(Duration::from_secs_f64);
        let mut phases = Phases::since(age.and_then(|age| now.checked_sub(age)).unwrap_or(now));
        age.iter().for_each(|age| phases.took("process_start", *age));
        phases
    }

    pub fn done(&mut self, phase: &'static str) {
        self.seconds.push((phase, self.step.elapsed().as_secs_f64()));
        self.step = Instant::now();
    }

    /// What was timed elsewhere, and belongs to the step that is going on.
    pub fn took(&mut self, phase: &'static str, time: Duration) {
        self.seconds.push((phase, time.as_secs_f64()));
        self.step += time;
    }
}

/// What there is to say of a load.
pub struct Summary {
    pub phases: Phases,
    pub version: String,
    pub files: ModelFiles,
}

impl Summary {
    /// Tells of the load, from its beginning to now, when the model is served.
    pub fn tell(self, metrics: &ModelMetrics) {
        let Summary { phases: Phases { begun, resident_before, mut seconds, .. }, version, files } = self;
        let total = begun.elapsed().as_secs_f64();
        seconds.push(("ready", total));
        metrics.forget_load();
        seconds.iter().for_each(|(phase, took)| metrics.observe_load(phase, *took));
        metrics.observe_bytes(files.bytes);
        let resident = host::process_memory().unwrap_or_default().resident_bytes;
        tracing::info!(
            model = %metrics.name(),
            version,
            format = files.format.name(),
            file = %files.model.display(),
            bytes = files.bytes,
            resident_bytes = resident.saturating_sub(resident_before),
            seconds = total,
            phases = ?seconds,
            "model ready"
        );
    }
}
