//! A model that answers with its own inputs, after a scripted delay or failure: the double for everything above
//! backends.

use std::time::Duration;

use super::Model;
use crate::error::{Error, Result};
use crate::infer::{Signature, TensorSpec};
use crate::tensor::Tensor;

/// What the next run does.
#[derive(Clone, Debug)]
pub enum Act {
    Answer,
    AnswerAfter(Duration),
    Fail(String),
    Panic,
}

/// Runs `script` by row of acts: the first call takes the first act, and after the last one every call answers.
pub struct Echo {
    signature: Signature,
    script: std::vec::IntoIter<Act>,
}

impl Echo {
    pub fn new(inputs: Vec<TensorSpec>, script: Vec<Act>) -> Echo {
        Echo { signature: Signature::new(inputs.clone(), inputs), script: script.into_iter() }
    }
}

impl Model for Echo {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>> {
        match self.script.next().unwrap_or(Act::Answer) {
            Act::Answer => {}
            Act::AnswerAfter(delay) => std::thread::sleep(delay),
            Act::Fail(message) => return Err(Error::internal(message)),
            Act::Panic => panic!("scripted panic"),
        }
        Ok(outputs.iter().map(|output| inputs[*output].clone()).collect())
    }
}
