//! The models of a server. Each is driven by a task of its own, which loads it, takes over what its source has by then, and
//! unloads it when that is asked. Whether one of them can be loaded is no matter of the others.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::catalog::{Catalog, Entry};
use super::loader::{self, Common, Running};
use super::phases::Phases;
use super::reload::{Asked, Asker, Reloader, asking};
use super::state::State;
use crate::config::{Config, ModelConfig, Repository, is_model_name};
use crate::error::{Error, Kind, Result};
use crate::source::uri::SourceUri;
use crate::telemetry::loads::Reloaded;
use crate::tensor::Excerpt;

pub struct Fleet {
    /// Of the one model, or what those of a repository have in common.
    config: ModelConfig,
    repository: Option<Repository>,
    common: Arc<Common>,
    catalog: Arc<Catalog>,
    members: Mutex<BTreeMap<Arc<str>, Member>>,
    /// Whether each of the first models is served, or cannot be.
    has_begun: AtomicBool,
}

/// A model and its task.
struct Member {
    entry: Arc<Entry>,
    asker: Asker,
    begun: watch::Receiver<Begun>,
    leave: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// How the first load of a model ended.
#[derive(Clone, Debug)]
enum Begun {
    /// It has not.
    Not,
    Well,
    Failed(Arc<Error>),
}

impl Fleet {
    pub fn new(config: &Config, catalog: Arc<Catalog>, common: Common) -> Arc<Fleet> {
        Arc::new(Fleet {
            config: config.model.clone(),
            repository: config.repository.clone(),
            common: Arc::new(common),
            catalog,
            members: Mutex::default(),
            has_begun: AtomicBool::new(false),
        })
    }

    /// Whether this server has the same model for as long as it runs.
    fn is_of_one(&self) -> bool {
        self.repository.is_none()
    }

    /// Whether the server is to be asked. Of a repository, what is wrong with one model, or that one is being loaded later, is
    /// told of that model: the others are asked meanwhile.
    pub fn is_ready(&self) -> bool {
        if self.is_of_one() {
            self.catalog.is_ready()
        } else {
            self.has_begun.load(Ordering::Relaxed) && self.catalog.is_any_ready()
        }
    }

    /// Begins to load those that are to be served from the start. They are in the catalog when this comes back, so that
    /// clients hear "not ready" instead of "not found" while they load.
    ///
    /// # Errors
    /// When the repository cannot be read, or has no models.
    pub fn begin(&self) -> Result<()> {
        let names = match &self.repository {
            None => vec![self.config.name.clone()],
            Some(Repository { begins_with: Some(names), .. }) => names.clone(),
            Some(Repository { directory, .. }) => {
                let found = names(directory)?;
                if found.is_empty() {
                    let place = directory.display();
                    return Err(Error::load(format!(
                        "{place} has no models: each is to be in a directory there that has its name (--model_repository)"
                    )));
                }
                found
            }
        };
        names
            .iter()
            .try_for_each(|name| self.config_of(name).map(|config| drop(self.add(config, Phases::of_process()))))
    }

    /// Waits until each of them is served, or cannot be.
    ///
    /// # Errors
    /// When the one model of a server cannot be served.
    pub async fn begun(&self) -> Result<()> {
        let members = |(name, member): (&Arc<str>, &Member)| (name.clone(), member.begun.clone());
        let all: Vec<_> = self.members().iter().map(members).collect();
        for (name, begun) in all {
            match settled(begun).await {
                Err(error) if self.is_of_one() => return Err(error),
                begun => begun.unwrap_or_else(|error| cannot_be_served(&name, &error)),
            }
        }
        self.has_begun.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Serves what a model's source has now. Goes on when the future is dropped.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such model; else as [`loader::load`], or as [`Asker::reload`] of one that is served.
    pub async fn load(&self, name: &str) -> Result<Reloaded> {
        let known = self.members().get(name).map(|member| (member.asker.clone(), member.begun.clone()));
        let begun = match known {
            Some((asker, begun)) if settled(begun.clone()).await.is_ok() => return asker.reload().await,
            _ => self.add(self.config_of(name)?, Phases::since(Instant::now())),
        };
        settled(begun).await.map(|()| Reloaded::Swapped).inspect_err(|error| cannot_be_served(name, error))
    }

    /// Answers what waits for a model, and gives back what it holds.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when it is not there; [`Kind::Unsupported`] when the server has no other.
    pub async fn unload(&self, name: &str) -> Result<()> {
        self.catalog.find(name, None)?;
        if self.is_of_one() {
            let text =
                "this server serves one model for as long as it runs: delete its InferenceService, or stop the server";
            return Err(Error::new(Kind::Unsupported, text));
        }
        let member = self.members().remove(name);
        let Some(Member { entry, leave, task, .. }) = member else { return Ok(()) };
        self.catalog.remove(&entry);
        ended(leave, task).await;
        if !self.members().contains_key(name) {
            entry.forget(); // else somebody has loaded it anew, and the series are of that
        }
        Ok(())
    }

    /// Models of the repository that nobody has loaded.
    pub fn others(&self) -> Vec<String> {
        let Some(Repository { directory, .. }) = &self.repository else { return Vec::new() };
        let members = self.members();
        let names = names(directory).unwrap_or_default().into_iter();
        names.filter(|name| !members.contains_key(name.as_str())).collect()
    }

    /// All look whether their sources have changed, and nobody waits for it.
    pub fn nudge(&self) {
        self.members().values().for_each(|member| member.asker.nudge());
    }

    /// Unloads all.
    pub async fn end(&self) {
        let members = std::mem::take(&mut *self.members()).into_values();
        let all: Vec<_> = members.map(|Member { leave, task, .. }| tokio::spawn(ended(leave, task))).collect();
        for one in all {
            let _ = one.await; // a panic has been logged where it happened
        }
    }

    fn members(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config_of(&self, name: &str) -> Result<ModelConfig> {
        let Some(Repository { directory, .. }) = &self.repository else {
            if name != self.config.name {
                self.catalog.find(name, None)?;
            }
            return Ok(self.config.clone());
        };
        let place = directory.join(name);
        if !is_model_name(name) || !place.is_dir() {
            let text = format!("Model with name {} does not exist: {} has none.", Excerpt(name), directory.display());
            return Err(Error::new(Kind::NotFound, text));
        }
        Ok(ModelConfig { name: name.to_owned(), source: SourceUri::Local(place), ..self.config.clone() })
    }

    /// Begins with a model, which was not there or has failed.
    fn add(&self, config: ModelConfig, phases: Phases) -> watch::Receiver<Begun> {
        let mut members = self.members();
        let name: Arc<str> = config.name.as_str().into();
        if let Some(Member { begun, .. }) = members.get(&name)
            && !matches!(*begun.borrow(), Begun::Failed(_))
        {
            return begun.clone(); // somebody else was faster
        }
        let version = config.version.as_deref().unwrap_or_default();
        let entry = Arc::new(Entry::new(&name, version, self.common.metrics.clone()));
        self.catalog.insert(&entry);
        let ((asker, asked), (leave, left)) = (asking(), oneshot::channel());
        let (tell, begun) = watch::channel(Begun::Not);
        let task = tokio::spawn(live(entry.clone(), config, self.common.clone(), phases, asked, tell, left));
        members.insert(name, Member { entry, asker, begun: begun.clone(), leave, task });
        begun
    }
}

/// Lets a model's task end, and waits for it.
async fn ended(leave: oneshot::Sender<()>, task: JoinHandle<()>) {
    let _ = leave.send(()); // it may have failed, and be gone
    let _ = task.await; // a panic has been logged where it happened
}

fn cannot_be_served(model: &str, error: &Error) {
    tracing::error!(model, %error, "the model cannot be served");
}

/// Waits until it has begun.
async fn settled(mut begun: watch::Receiver<Begun>) -> Result<()> {
    match begun.wait_for(|begun| !matches!(begun, Begun::Not)).await.as_deref() {
        Ok(Begun::Failed(error)) => Err(Error::new(error.kind(), error.to_string())),
        Ok(_) => Ok(()),
        Err(_) => Err(Error::new(Kind::NotReady, "the model is being unloaded")),
    }
}

/// From its load until it is to leave.
async fn live(
    entry: Arc<Entry>,
    config: ModelConfig,
    common: Arc<Common>,
    phases: Phases,
    mut asked: Asked,
    begun: watch::Sender<Begun>,
    mut left: oneshot::Receiver<()>,
) {
    let loaded = tokio::select! {
        loaded = loader::load(&entry, &config, &common, phases) => loaded,
        _ = &mut left => {
            entry.become_state(State::Gone);
            return;
        }
    };
    let running = match loaded {
        Ok(running) => running,
        Err(error) => {
            tracing::debug!(model = %entry.name, %error, "the model cannot be served");
            begun.send_replace(Begun::Failed(Arc::new(error)));
            return;
        }
    };
    begun.send_replace(Begun::Well);
    let mut reloader = Reloader { entry: &entry, config: &config, common: &common, running };
    tokio::select! {
        never = reloader.run(&mut asked) => never,
        _ = left => {}
    }
    let Reloader { running, .. } = reloader;
    drop(asked);
    unload(&entry, running).await;
}

async fn unload(entry: &Entry, running: Running) {
    entry.become_state(State::Draining);
    running.stop(&entry.name).await;
    entry.become_state(State::Gone);
    tracing::info!(model = %entry.name, "model unloaded");
}

/// The models of a repository: its directories, but for hidden ones.
fn names(repository: &Path) -> Result<Vec<String>> {
    let place = repository.display();
    let failed = |error: std::io::Error| Error::load(format!("{place}: {error} (--model_repository)"));
    let entries =
        std::fs::read_dir(repository).map_err(failed)?.collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
    let folders = entries.iter().filter(|entry| entry.path().is_dir());
    let names = folders.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| is_model_name(name)).collect();
    names.sort();
    Ok(names)
}
