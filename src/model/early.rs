//! Begins to load a model while its files come: what is read from its front to its back is read as it arrives, and
//! libraries are loaded meanwhile. Whatever goes wrong here goes wrong again, and is told, when all files are there.

use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::loader::open_model;
use super::site::{Gpus, Site, sites};
use crate::backend::{self, Model};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::formats::tree::Tree;
use crate::formats::{self, ModelFiles};

/// A model that was loaded, of which files, and where; it is the instance on the first of the devices.
type Loaded = (ModelFiles, Vec<Site>, Box<dyn Model>);

pub struct Early {
    config: ModelConfig,
    gpus: Gpus,
    work: Arc<Mutex<Option<JoinHandle<Option<Loaded>>>>>,
}

impl Early {
    pub fn new(config: &ModelConfig, gpus: &Gpus) -> Early {
        Early { config: config.clone(), gpus: gpus.clone(), work: Arc::default() }
    }

    /// Begins with files that come.
    pub fn beginner(&self) -> impl Fn(Tree) + Send + Sync + 'static {
        let (config, gpus, work, runtime) =
            (self.config.clone(), self.gpus.clone(), self.work.clone(), Handle::current());
        move |tree| {
            let (config, gpus) = (config.clone(), gpus.clone());
            let begun = runtime.spawn_blocking(move || {
                let loaded = load(&tree, &config, &gpus);
                loaded.inspect_err(|error| tracing::debug!(%error, "not loaded while it came")).ok().flatten()
            });
            *work.lock().expect("no thread panics with it") = Some(begun);
        }
    }

    /// The model, if all went well with it and the files are those that it began with. Waits for it.
    pub async fn finish(self, is_as_begun: bool) -> Option<Loaded> {
        let work = self.work.lock().expect("no thread panics with it").take()?;
        work.await.ok().flatten().filter(|_| is_as_begun)
    }
}

/// `None` when the model can only be loaded of files that are there, for which its backend is then ready, or not here.
fn load(tree: &Tree, config: &ModelConfig, gpus: &Gpus) -> Result<Option<Loaded>> {
    let files = formats::recognise(tree)?;
    let sites = sites(config, &files, gpus)?;
    let device = &sites[0].device;
    if config.isolation.is_for(device)? {
        return Ok(None);
    }
    if !files.can_be_read() {
        return backend::for_files(&files, &config.backend).map(|_| None);
    }
    let files = formats::open_tree(tree)?;
    let model = open_model(&files, &config.backend, device)?;
    Ok(Some((files, sites, model)))
}
