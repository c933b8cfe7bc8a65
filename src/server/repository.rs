//! The model repository extension: what there is, and taking over what its source has by now. Source: Triton's
//! `protocol/extension_model_repository.md`, and KServe's `v2/repository/models/NAME/load`.

use tokio::time::timeout_at;

use super::Server;
use super::context::Context;
use crate::error::{Error, Kind, Result};
use crate::model::state::State;
use crate::telemetry::loads::Reloaded;

/// A model, as an index lists it.
pub struct Listed {
    pub name: String,
    pub version: String,
    pub state: &'static str,
    /// Why it is where it is, or is not ready.
    pub reason: String,
}

/// All models, or those that are ready.
pub fn index(server: &Server, only_ready: bool) -> Vec<Listed> {
    let entries = server.engine.catalog().entries();
    let listed = entries.iter().map(|entry| {
        let state = entry.state();
        let (state, reason) = match entry.served() {
            Ok(served) if entry.is_ready() => (triton(state), served.placed.clone()),
            Ok(_) => ("UNAVAILABLE", "its process ended, and begins anew".to_owned()),
            Err(error) if state == State::Ready => ("UNAVAILABLE", error.message().to_owned()),
            Err(error) => (triton(state), error.message().to_owned()),
        };
        Listed { name: entry.name.to_string(), version: entry.version().to_string(), state, reason }
    });
    let (state, reason) = (triton(State::Gone), "it is not loaded");
    let other = |name| Listed { name, version: String::new(), state, reason: reason.to_owned() };
    let listed = listed.chain(server.fleet.others().into_iter().map(other));
    listed.filter(|model| !only_ready || model.state == triton(State::Ready)).collect()
}

/// Triton's word for a state.
const fn triton(state: State) -> &'static str {
    match state {
        State::Ready => "READY",
        State::Declared | State::Fetching | State::Placing | State::Loading | State::Warming => "LOADING",
        State::Draining => "UNLOADING",
        State::Gone | State::Failed => "UNAVAILABLE",
    }
}

/// Serves what the model's source has now, and comes back when it does. Nothing happens when that is what is served.
///
/// # Errors
/// [`Kind::NotFound`]; [`Kind::NotReady`] when what the source has cannot be served, with the reason; the version from
/// before is then served on. [`Kind::Deadline`] when it takes longer than the request may: it goes on.
pub async fn load(server: &Server, context: &Context, name: &str) -> Result<Reloaded> {
    let late = || Error::new(Kind::Deadline, "the deadline passed before the model was loaded, which goes on");
    let done = timeout_at(context.terms.deadline.into(), server.fleet.load(name)).await.map_err(|_| late())?;
    done.map_err(|error| match (error.kind(), server.engine.catalog().find(name, None)) {
        (Kind::Load, Ok(entry)) if entry.is_ready() => {
            Error::new(Kind::NotReady, format!("version {} is served on: {}", entry.version(), error.message()))
        }
        (Kind::Load, _) => Error::new(Kind::NotReady, error.message()),
        _ => error,
    })
}

/// Unloads a model, and comes back when what it held is free.
///
/// # Errors
/// As [`Fleet::unload`](crate::model::fleet::Fleet::unload); [`Kind::Deadline`] when it takes longer than the request may:
/// it goes on.
pub async fn unload(server: &Server, context: &Context, name: &str) -> Result<()> {
    let late = || Error::new(Kind::Deadline, "the deadline passed before the model was unloaded, which goes on");
    let (fleet, name) = (server.fleet.clone(), name.to_owned());
    let unloaded = tokio::spawn(async move { fleet.unload(&name).await });
    let ended = timeout_at(context.terms.deadline.into(), unloaded).await.map_err(|_| late())?;
    ended.unwrap_or_else(|_| Err(Error::internal("the unloading ended")))
}

/// Refuses what would change how a model is loaded.
pub fn refuse_parameters() -> Error {
    Error::new(Kind::Unsupported, "a load takes no parameters: put the files where the model comes from, then load")
}
