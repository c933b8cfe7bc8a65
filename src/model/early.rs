//! Begins to load a model while its files come: what is read from its front to its back is read as it arrives, and
//! libraries are loaded meanwhile. Whatever goes wrong here goes wrong again, and is told, when all files are there.

use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::loader::open_model;
use crate::backend::{self, Model};
use crate::config::{BackendOptions, ModelConfig};
use crate::device::DeviceId;
use crate::error::Result;
use crate::formats::tree::Tree;
use crate::formats::{self, ModelFiles};

/// A model that was loaded, and of which files.
type Loaded = (ModelFiles, Box<dyn Model>);

pub struct Early {
    options: BackendOptions,
    /// Whether the model will be loaded in this process.
    is_here: bool,
    device: DeviceId,
    work: Arc<Mutex<Option<JoinHandle<Option<Loaded>>>>>,
}

impl Early {
    pub fn new(config: &ModelConfig, device: DeviceId) -> Early {
        let (options, is_here) = (config.backend.clone(), config.isolation.is_none());
        Early { options, is_here, device, work: Arc::default() }
    }

    /// Begins with files that come.
    pub fn beginner(&self) -> impl Fn(Tree) + Send + Sync + 'static {
        let (options, device, work, runtime) =
            (self.options.clone(), self.device, self.work.clone(), Handle::current());
        let is_here = self.is_here;
        move |tree| {
            if !is_here {
                return;
            }
            let options = options.clone();
            let begun = runtime.spawn_blocking(move || {
                let loaded = load(&tree, &options, device);
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

/// `None` when the model can only be loaded of files that are there; its backend is then ready for it.
fn load(tree: &Tree, options: &BackendOptions, device: DeviceId) -> Result<Option<Loaded>> {
    let files = formats::recognise(tree)?;
    if !files.can_be_read() {
        return backend::for_files(&files, options).map(|_| None);
    }
    let files = formats::open_tree(tree)?;
    let model = open_model(&files, options, device)?;
    Ok(Some((files, model)))
}
