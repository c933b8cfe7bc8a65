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
            Err(_) => (triton(state), state.to_string()),
        };
        Listed { name: entry.name.to_string(), version: entry.version().to_string(), state, reason }
    });
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
    let entry = server.engine.catalog().find(name, None)?;
    let late = || Error::new(Kind::Deadline, "the deadline passed before the model was loaded, which goes on");
    let done = timeout_at(context.terms.deadline.into(), server.reloads.reload()).await.map_err(|_| late())?;
    done.map_err(|error| match error.kind() {
        Kind::Load => {
            Error::new(Kind::NotReady, format!("version {} is served on: {}", entry.version(), error.message()))
        }
        _ => error,
    })
}

pub fn unload() -> Error {
    let text = "this server serves one model for as long as it runs: delete its InferenceService, or stop the server";
    Error::new(Kind::Unsupported, text)
}

/// Refuses what would change how a model is loaded.
pub fn refuse_parameters() -> Error {
    Error::new(Kind::Unsupported, "a load takes no parameters: put the files where the model comes from, then load")
}
