//! `stoker worker`: computes for a server that began it, on the other side of
//! [`device::process`](crate::device::process). It ends when the server does.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::backend::{self, Model};
use crate::content::{Content, Contents};
use crate::device::DeviceId;
use crate::device::process::channel::{Channel, Message};
use crate::device::process::message::{Answer, Ask, Files, Head, Loaded, heads};
use crate::error::{Error, Result};
use crate::formats;
use crate::formats::tree::Tree;
use crate::kernels;
use crate::model::loader::open_model;
use crate::telemetry;
use crate::tensor::Tensor;

/// Computes what is asked over the standard input, which is a socket, until whoever asks is gone.
///
/// # Errors
/// When whoever asks cannot be understood, or never was there.
pub fn worker() -> Result<()> {
    let of_channel = |error: io::Error| Error::load(format!("stoker worker is begun by stoker serve: {error}"));
    let killed = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    killed.map_err(|error| of_channel(error.into()))?;
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(of_channel)?;
    let mut channel = Channel::new(socket);
    let mut worker = Worker { model: None, is_on_gpu: false };
    loop {
        let message = match channel.receive(None) {
            Ok(message) => message,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(of_channel(error)),
        };
        let ask = message.head().map_err(of_channel)?;
        let answered = worker.answer(ask, message);
        // After some errors CUDA refuses everything in a process. Whoever asks sees it end, asks another and begins it anew.
        if let (Err(error), true) = (&answered, worker.is_on_gpu)
            && let Some(why) = kernels::gpu_failure()
        {
            return Err(Error::internal(format!("the GPU computes nothing for this process any more: {why}: {error}")));
        }
        let (answer, tensors) = answered.unwrap_or_else(|error| (Answer::from(&error), Vec::new()));
        let parts: Vec<&[u8]> = tensors.iter().map(|tensor| &tensor.data()[..]).collect();
        match channel.send(&answer, &parts) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(of_channel(error)),
        }
    }
}

struct Worker {
    model: Option<Box<dyn Model>>,
    is_on_gpu: bool,
}

impl Worker {
    fn answer(&mut self, ask: Ask, mut message: Message) -> Result<(Answer, Vec<Tensor>)> {
        let none = || Error::internal("there is no model yet");
        match ask {
            Ask::Load { files, options, device, log } => {
                telemetry::log::init(log.format, &log.level);
                self.is_on_gpu = *device != DeviceId::Cpu;
                let files = formats::open_tree(&tree(files, &mut message)?)?;
                let model = self.model.insert(open_model(&files, &options, &device)?);
                let loaded = Loaded { signature: model.signature().clone(), notes: model.notes().to_vec() };
                Ok((Answer::Loaded(Box::new(loaded)), Vec::new()))
            }
            Ask::Run { inputs, outputs } => {
                let model = self.model.as_mut().ok_or_else(none)?;
                let inputs = inputs.into_iter().map(|head| tensor(head, &mut message)).collect::<Result<Vec<_>>>()?;
                let answers = backend::run(&mut **model, &inputs, &outputs)?;
                Ok((Answer::Ran(heads(&answers).0), answers))
            }
            Ask::Example { rows } => {
                let example = self.model.as_ref().ok_or_else(none)?.example(rows);
                let tensors = example.clone().unwrap_or_default();
                Ok((Answer::Example(example.map(|tensors| heads(&tensors).0)), tensors))
            }
        }
    }
}

fn tree(files: Files, message: &mut Message) -> Result<Tree> {
    let files = match files {
        Files::Disk(path) => return Ok(Tree::Disk(path)),
        Files::Memory(files) => files,
    };
    let content = |(path, bytes)| Ok((path, Content::from(message.part(bytes)?)));
    let contents: io::Result<Contents> = files.into_iter().map(content).collect();
    Ok(Tree::Memory(Arc::new(contents.map_err(|error| Error::load(error.to_string()))?)))
}

fn tensor(head: Head, message: &mut Message) -> Result<Tensor> {
    let data = message.part(head.bytes).map_err(|error| Error::internal(error.to_string()))?;
    head.tensor(data)
}
