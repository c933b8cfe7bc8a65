//! From a `storageUri` to a model that is ready: [`loader`] drives it through the states of [`state`], [`catalog`] is
//! where requests find it, and [`reload`] brings what comes after it.

pub mod catalog;
pub mod early;
pub mod fetch;
pub mod fleet;
pub mod ledger;
pub mod loader;
pub mod phases;
pub mod placement;
pub mod reload;
pub mod site;
pub mod state;
pub mod warmup;
