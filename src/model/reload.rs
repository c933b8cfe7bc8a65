//! Takes over what the source has now, when somebody asks or when it is seen to have changed. What cannot be served does
//! not displace what is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::catalog::Entry;
use super::fetch::{Look, look};
use super::loader::{Common, Running, replace};
use crate::config::ModelConfig;
use crate::error::{Error, Kind, Result};
use crate::telemetry::loads::Reloaded;

/// Lets others ask for a reload.
#[derive(Clone)]
pub struct Asker(mpsc::Sender<Option<oneshot::Sender<Result<Reloaded>>>>);

/// Where they are heard.
pub struct Asked(mpsc::Receiver<Option<oneshot::Sender<Result<Reloaded>>>>);

pub fn asking() -> (Asker, Asked) {
    const MOST_WAITING: usize = 16;
    let (sender, receiver) = mpsc::channel(MOST_WAITING);
    (Asker(sender), Asked(receiver))
}

impl Asker {
    /// Asks, and waits until it is done.
    ///
    /// # Errors
    /// When what the source has cannot be served; or [`Kind::Overloaded`] when many are waiting for the same.
    pub async fn reload(&self) -> Result<Reloaded> {
        let (reply, answer) = oneshot::channel();
        if self.0.try_send(Some(reply)).is_err() {
            return Err(Error::new(Kind::Overloaded, "too many are waiting for a reload: try again later"));
        }
        answer.await.unwrap_or_else(|_| Err(Error::new(Kind::NotReady, "the server is shutting down")))
    }

    /// Asks without waiting. When many have asked, it will happen anyway.
    pub fn nudge(&self) {
        let _ = self.0.try_send(None);
    }
}

/// One model that may be reloaded.
pub struct Reloader<'a> {
    pub entry: &'a Arc<Entry>,
    pub config: &'a ModelConfig,
    pub common: &'a Common,
    /// What is served.
    pub running: Running,
}

impl Reloader<'_> {
    /// Waits for ever for reasons to reload. Dropping the future gives up a reload that is going on.
    pub async fn run(&mut self, asked: &mut Asked) -> ! {
        let every = self.config.poll.filter(|_| self.config.digest.is_none());
        let mut seen = Seen::default();
        loop {
            let reply = tokio::select! {
                Some(reply) = asked.0.recv() => reply,
                () = sleep(every.unwrap_or(Duration::MAX)), if every.is_some() => {
                    self.poll(&mut seen).await;
                    continue;
                }
                else => std::future::pending().await,
            };
            let done = self.reload(None).await;
            if let Some(reply) = reply {
                let _ = reply.send(done); // whoever asked may have gone
            }
        }
    }

    async fn poll(&mut self, seen: &mut Seen) {
        let looked = look(self.config).await.and_then(|look| Ok((look.fingerprint()?, look)));
        match looked {
            Ok((now, look)) => {
                if seen.is_to_be_loaded(self.running.fingerprint.as_deref(), &now) {
                    let _ = self.reload(Some(look)).await; // it is logged and counted
                }
            }
            Err(error) => tracing::warn!(model = %self.entry.name, %error, "cannot see whether the model has changed"),
        }
    }

    /// Takes over what the source has, which somebody may just have looked at.
    ///
    /// # Errors
    /// When what the source has cannot be served.
    async fn reload(&mut self, seen: Option<Look>) -> Result<Reloaded> {
        let (name, before) = (self.entry.name.clone(), self.entry.version());
        let done = self.take_over(seen).await;
        self.common.metrics.loads.observe_reload(&name, done.as_ref().map_or(Reloaded::Failed, |outcome| *outcome));
        match &done {
            Ok(Reloaded::Swapped) => {
                tracing::info!(model = %name, %before, now = %self.entry.version(), "model reloaded");
            }
            Ok(_) => tracing::info!(model = %name, "model not reloaded: it has not changed"),
            Err(error) => {
                tracing::error!(model = %name, %error, "model not reloaded: the one from before is served on");
            }
        }
        done
    }

    async fn take_over(&mut self, seen: Option<Look>) -> Result<Reloaded> {
        if self.config.digest.is_some() {
            return Ok(Reloaded::Unchanged);
        }
        let look = match seen {
            Some(look) => look,
            None => look(self.config).await?,
        };
        if self.running.fingerprint == Some(look.fingerprint()?) {
            return Ok(Reloaded::Unchanged);
        }
        replace(self.entry, self.config, look, self.common, &mut self.running).await.map(|()| Reloaded::Swapped)
    }
}

/// What polls have seen of the source.
#[derive(Default)]
struct Seen {
    /// Another state than the one that is served, when it was last looked at.
    last: Option<Other>,
}

struct Other {
    state: String,
    /// Looks that found it since the first.
    again: u32,
}

impl Seen {
    /// Whether to load what the source has now: when it was the same at the last look, for somebody may be at writing it.
    /// It is still the same when it could not be loaded. That may have been the network, so it is tried again, after
    /// twice as many looks each time.
    fn is_to_be_loaded(&mut self, served: Option<&str>, now: &str) -> bool {
        const MOST_BETWEEN: u32 = 64;
        let again = match self.last.take() {
            _ if served == Some(now) => return false,
            Some(Other { state, again }) if state == now => again.saturating_add(1),
            _ => 0,
        };
        self.last = Some(Other { state: now.to_owned(), again });
        again.is_power_of_two() || (again > 0 && again % MOST_BETWEEN == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_loaded_once_when_it_has_settled() {
        let mut seen = Seen::default();
        let mut look = |served, now| seen.is_to_be_loaded(Some(served), now);
        assert!(!look("a", "a"));
        assert!(!look("a", "b") && !look("a", "c") && look("a", "c"));
        assert!(!look("c", "c"));
        // What could not be served is tried again less and less often, and what comes after it as ever.
        let tries: Vec<usize> = (0..300).filter(|_| look("c", "bad")).collect();
        assert_eq!(tries, [1, 2, 4, 8, 16, 32, 64, 128, 192, 256]);
        assert!(!look("c", "c") && !look("c", "d") && look("c", "d"));
        // Back to what was bad: it may have been the network.
        assert!(!look("d", "bad") && look("d", "bad"));
    }
}
