//! Name to model. Requests read it without locks; loads swap it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::state::State;
use crate::engine::Served;
use crate::error::{Error, Kind, Result};
use crate::telemetry::metrics::{Metrics, ModelMetrics};
use crate::tensor::Excerpt;

/// One model under one name, whatever state it is in.
pub struct Entry {
    pub name: Arc<str>,
    metrics: Arc<Metrics>,
    identity: ArcSwap<Identity>,
    state: Mutex<State>,
    served: ArcSwapOption<Served>,
    failure: ArcSwapOption<String>,
}

/// What is known of a model once its files have been seen.
struct Identity {
    /// Empty until it is known.
    version: Arc<str>,
    /// Only of a version that is known: series once made stay for ever.
    metrics: Option<Arc<ModelMetrics>>,
}

impl Entry {
    /// An empty `version` is not known yet.
    pub fn new(name: &str, version: &str, metrics: Arc<Metrics>) -> Entry {
        metrics.observe_state(name, version, State::Declared);
        let identity = Identity::new(name, version, &metrics);
        Entry {
            name: name.into(),
            metrics,
            identity: ArcSwap::from_pointee(identity),
            state: Mutex::new(State::Declared),
            served: ArcSwapOption::empty(),
            failure: ArcSwapOption::empty(),
        }
    }

    pub fn version(&self) -> Arc<str> {
        self.identity.load().version.clone()
    }

    /// `None` as long as the version is not known.
    pub fn metrics(&self) -> Option<Arc<ModelMetrics>> {
        self.identity.load().metrics.clone()
    }

    /// Sets the version that the files say.
    pub fn identify(&self, version: &str) -> Arc<ModelMetrics> {
        let metrics = Arc::new(self.metrics.model(&self.name, version));
        self.metrics.forget_state(&self.name, &self.version());
        self.metrics.observe_state(&self.name, version, self.state());
        self.identity.store(Arc::new(Identity { version: version.into(), metrics: Some(metrics.clone()) }));
        metrics
    }

    pub fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves on to `next`.
    ///
    /// # Panics
    /// When a model of this state cannot become `next`: a bug in whoever drives it.
    pub fn become_state(&self, next: State) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(state.may_become(next), "a {state} model cannot become {next}");
        *state = next;
        if matches!(next, State::Draining | State::Gone | State::Failed) {
            self.served.store(None);
        }
        self.metrics.observe_state(&self.name, &self.version(), next);
        tracing::debug!(model = %self.name, version = %self.version(), state = %next, "model state");
    }

    /// It cannot be loaded.
    pub fn fails(&self, why: &Error) {
        self.failure.store(Some(Arc::new(why.to_string())));
        self.become_state(State::Failed);
    }

    /// Leaves no series behind for its state.
    pub fn forget(&self) {
        self.metrics.forget_state(&self.name, &self.version());
    }

    /// Lets requests in: from here on the model is ready.
    pub fn serve(&self, served: Served) {
        self.served.store(Some(Arc::new(served)));
        self.become_state(State::Ready);
    }

    /// Lets requests in to another version of a model that is ready; gives the one from before.
    pub fn replace(&self, served: Served, metrics: Arc<ModelMetrics>) -> Option<Arc<Served>> {
        let version = served.version.clone();
        self.metrics.forget_state(&self.name, &self.version());
        self.metrics.observe_state(&self.name, &version, self.state());
        self.identity.store(Arc::new(Identity { version, metrics: Some(metrics) }));
        self.served.swap(Some(Arc::new(served)))
    }

    /// What requests run against.
    ///
    /// # Errors
    /// [`Kind::NotReady`], with the state that the model is in.
    pub fn served(&self) -> Result<Arc<Served>> {
        // The first sentence is KServe's, which clients know; the second says why.
        let not_ready =
            |why: String| Error::new(Kind::NotReady, format!("Model with name {} is not ready. {why}.", self.name));
        let why = || self.failure.load().as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let served = self.served.load_full().ok_or_else(|| not_ready(format!("It is {}{}", self.state(), why())))?;
        match served.health.trouble() {
            None => Ok(served),
            Some(trouble) => Err(not_ready(trouble)),
        }
    }

    /// Whether it can answer now.
    pub fn is_ready(&self) -> bool {
        self.served.load().as_ref().is_some_and(|served| served.health.is_up())
    }
}

impl Identity {
    fn new(name: &str, version: &str, metrics: &Metrics) -> Identity {
        let known = !version.is_empty();
        Identity { version: version.into(), metrics: known.then(|| Arc::new(metrics.model(name, version))) }
    }
}

#[derive(Default)]
pub struct Catalog {
    entries: ArcSwap<BTreeMap<Arc<str>, Arc<Entry>>>,
}

impl Catalog {
    /// Adds a model, or puts it in the place of the one with its name.
    pub fn insert(&self, entry: &Arc<Entry>) {
        self.entries.rcu(|entries| {
            let mut entries = BTreeMap::clone(entries);
            entries.insert(entry.name.clone(), entry.clone());
            entries
        });
    }

    /// All models in order of their names.
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        self.entries.load().values().cloned().collect()
    }

    /// # Errors
    /// [`Kind::NotFound`] for an unknown name or version.
    pub fn find(&self, name: &str, version: Option<&str>) -> Result<Arc<Entry>> {
        let entries = self.entries.load();
        let entry = entries
            .get(name)
            .ok_or_else(|| Error::new(Kind::NotFound, format!("Model with name {} does not exist.", Excerpt(name))))?;
        let served = entry.version();
        match version {
            Some(asked) if *asked != *served && !served.is_empty() => Err(Error::new(
                Kind::NotFound,
                format!("Model with name {name} has no version {}, it serves version {}.", Excerpt(asked), served),
            )),
            _ => Ok(entry.clone()),
        }
    }

    /// Takes a model out, unless another is in its place by now.
    pub fn remove(&self, entry: &Arc<Entry>) {
        self.entries.rcu(|entries| {
            let mut entries = BTreeMap::clone(entries);
            if entries.get(&entry.name).is_some_and(|known| Arc::ptr_eq(known, entry)) {
                entries.remove(&entry.name);
            }
            entries
        });
    }

    /// Whether every model answers. A server without models is not ready: there is nothing it could answer.
    pub fn is_ready(&self) -> bool {
        let entries = self.entries.load();
        !entries.is_empty() && entries.values().all(|entry| entry.is_ready())
    }

    /// Whether any model answers, if there are any.
    pub fn is_any_ready(&self) -> bool {
        let entries = self.entries.load();
        entries.is_empty() || entries.values().any(|entry| entry.is_ready())
    }
}
