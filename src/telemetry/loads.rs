//! What loading costs: bytes from sources, what the cache had, and how reloads went.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SchemeLabels {
    scheme: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    model: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

/// Nothing is left once it goes, however it ended.
struct Left(Gauge);

impl Left {
    fn set(&self, bytes: u64) {
        self.0.set(bytes.try_into().unwrap_or(i64::MAX));
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        self.0.set(0);
    }
}

/// How a reload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// Another version is served.
    Swapped,
    /// The source has what is served.
    Unchanged,
    /// What the source has cannot be served: the version from before is.
    Failed,
}

impl Reloaded {
    /// The `outcome` label.
    const fn name(self) -> &'static str {
        match self {
            Reloaded::Swapped => "swapped",
            Reloaded::Unchanged => "unchanged",
            Reloaded::Failed => "failed",
        }
    }
}

/// Metrics of loads.
pub struct Loads {
    source_bytes: Family<SchemeLabels, Counter>,
    bytes_left: Family<ModelLabels, Gauge>,
    cache_hits: Counter,
    cache_misses: Counter,
    reloads: Family<ReloadLabels, Counter>,
}

impl Loads {
    pub fn register(registry: &mut Registry) -> Loads {
        let loads = Loads {
            source_bytes: Family::default(),
            bytes_left: Family::default(),
            cache_hits: Counter::default(),
            cache_misses: Counter::default(),
            reloads: Family::default(),
        };
        registry.register("stoker_source_bytes", "Bytes read from model sources", loads.source_bytes.clone());
        let left = "Bytes that may still have to come of a model on its way";
        registry.register("stoker_source_bytes_left", left, loads.bytes_left.clone());
        registry.register("stoker_cache_hits", "Models that were in the cache", loads.cache_hits.clone());
        registry.register("stoker_cache_misses", "Models that had to be brought", loads.cache_misses.clone());
        registry.register("stoker_model_reloads", "Reloads by how they ended", loads.reloads.clone());
        loads
    }

    /// Counts a model that was fetched, by whether the cache had it.
    pub fn observe_fetch(&self, cached: bool) {
        if cached { &self.cache_hits } else { &self.cache_misses }.inc();
    }

    /// What watches a model of so many bytes come from a source of this scheme, until it is dropped: it is given the bytes
    /// that have come and those that are left.
    pub fn download(&self, scheme: &'static str, model: &str, total: u64) -> Box<dyn Fn(u64, u64) + Send + Sync> {
        let bytes = self.source_bytes.get_or_create(&SchemeLabels { scheme }).clone();
        let left = Left(self.bytes_left.get_or_create(&ModelLabels { model: model.to_owned() }).clone());
        left.set(total);
        Box::new(move |came, are_left| {
            bytes.inc_by(came);
            left.set(are_left);
        })
    }

    pub fn observe_reload(&self, model: &str, outcome: Reloaded) {
        self.reloads.get_or_create(&ReloadLabels { model: model.to_owned(), outcome: outcome.name() }).inc();
    }
}
