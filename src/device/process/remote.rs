//! The model that is in another process, as the engine sees it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::channel::Message;
use super::keeper::{Keeper, Kept};
use super::message::{Answer, Ask, Head, Loaded, heads};
use super::pulse::Pulse;
use crate::backend::Model;
use crate::error::{Error, Kind, Result};
use crate::infer::Signature;
use crate::tensor::Tensor;

pub struct Remote {
    /// Ends the process when it is dropped.
    keeper: Keeper,
    loaded: Loaded,
    /// The longest that one batch may take.
    limit: Duration,
}

impl Remote {
    /// Begins a process that has the model, and waits until it has.
    ///
    /// # Errors
    /// What loading it fails with there; [`Kind::Load`] when there is no such process.
    pub fn begin(kept: Kept) -> Result<Remote> {
        let limit = kept.limit;
        let (keeper, loaded) = Keeper::begin(kept)?;
        Ok(Remote { keeper, loaded, limit })
    }

    fn ask(&self, ask: &Ask, parts: &[&[u8]]) -> Result<(Answer, Message)> {
        let asked = self.keeper.with_channel(|channel| {
            // Who does not hear it does not compute it.
            channel.send(ask, parts).map_err(|_| io::ErrorKind::NotConnected)?;
            let message = channel.receive(Some(self.limit))?;
            Ok((message.head()?, message))
        });
        match asked {
            Ok((Answer::Failed { kind, message }, _)) => Err(Error::new(kind, message)),
            Ok(answer) => Ok(answer),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                let seconds = self.limit.as_secs_f64();
                let text = format!("the model's process did not answer within {seconds} s (--worker_timeout_seconds)");
                Err(Error::new(Kind::Lost, text))
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                Err(Error::new(Kind::NotReady, "the model's process has ended and is not back yet: try again later"))
            }
            Err(error) => {
                Err(Error::new(Kind::Lost, "the model's process ended while it computed this").with_source(error))
            }
        }
    }
}

impl Model for Remote {
    fn signature(&self) -> &Signature {
        &self.loaded.signature
    }

    fn notes(&self) -> &[String] {
        &self.loaded.notes
    }

    fn example(&self, rows: usize) -> Option<Vec<Tensor>> {
        match self.ask(&Ask::Example { rows }, &[]).ok()? {
            (Answer::Example(heads), message) => tensors(heads?, message).ok(),
            _ => None,
        }
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>> {
        let (inputs, parts) = heads(inputs);
        match self.ask(&Ask::Run { inputs, outputs: outputs.to_vec() }, &parts)? {
            (Answer::Ran(heads), message) => {
                self.keeper.worked();
                tensors(heads, message)
            }
            _ => Err(Error::internal("the model's process answers something else")),
        }
    }

    fn pulse(&self) -> Option<Arc<Pulse>> {
        Some(self.keeper.pulse())
    }
}

/// Copies of what the message brings: its memory is the next one's.
fn tensors(heads: Vec<Head>, mut message: Message) -> Result<Vec<Tensor>> {
    let tensor = |head: Head| {
        let data =
            message.part(head.bytes).map_err(|error| Error::internal("an answer is cut short").with_source(error))?;
        head.tensor(Bytes::copy_from_slice(&data))
    };
    heads.into_iter().map(tensor).collect()
}
