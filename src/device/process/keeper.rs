//! Begins a model's process, notices its end, and begins it anew: at once, and after each end without an answer in between
//! only after twice as long.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::channel::Channel;
use super::message::{Answer, Ask, Files, Loaded};
use super::pulse::Pulse;
use crate::config::{BackendOptions, LogConfig};
use crate::content::Content;
use crate::device::DeviceId;
use crate::error::{Error, Result};
use crate::formats::tree::Tree;

/// So long no load takes.
const LONGEST_LOAD: Duration = Duration::from_hours(1);

/// What is to be kept running.
pub struct Kept {
    /// The model's name.
    pub name: String,
    /// stoker.
    pub program: PathBuf,
    pub tree: Tree,
    pub options: BackendOptions,
    pub device: DeviceId,
    pub log: LogConfig,
    /// The longest that one batch may take.
    pub limit: Duration,
    /// Told each time it begins anew.
    pub begins_anew: Box<dyn Fn(Reason) + Send>,
}

/// Why a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// By itself: a library gave up.
    Exited,
    /// By a signal: a crash, or the kernel for want of memory.
    Killed,
    /// It did not answer.
    Hung,
}

impl Reason {
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Exited => "exited",
            Reason::Killed => "killed",
            Reason::Hung => "hung",
        }
    }
}

/// Keeps a process running until it is dropped.
pub struct Keeper {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Default)]
struct Shared {
    /// Held while it is asked something.
    link: Mutex<Option<Link>>,
    pulse: Arc<Pulse>,
    has_worked: AtomicBool,
    has_hung: AtomicBool,
    is_over: AtomicBool,
}

/// A process that has the model.
struct Link {
    channel: Channel,
    process: OwnedFd,
}

impl Keeper {
    /// # Errors
    /// When the process cannot begin, or cannot load the model.
    pub fn begin(kept: Kept) -> Result<(Keeper, Loaded)> {
        let shared = Arc::new(Shared::default());
        let (first, begun) = mpsc::sync_channel(1);
        let keeping = shared.clone();
        // The system ends a process with the thread that began it: this one lives as long.
        let run = move || {
            let began = Instant::now();
            match begin(&kept, LONGEST_LOAD) {
                Ok((child, link, loaded)) => {
                    keeping.comes_up(link);
                    let _ = first.send(Ok(loaded.clone())); // whoever began it waits
                    keep(&kept, &keeping, child, &loaded, began.elapsed());
                }
                Err(error) => drop(first.send(Err(error))),
            }
        };
        let failed = |error| Error::load(format!("cannot start a thread: {error}"));
        let thread = thread::Builder::new().name("keeper".to_owned()).spawn(run).map_err(failed)?;
        let loaded = begun.recv().map_err(|_| Error::internal("the keeper went away"))??;
        Ok((Keeper { shared, thread: thread.thread().clone() }, loaded))
    }

    pub fn pulse(&self) -> Arc<Pulse> {
        self.shared.pulse.clone()
    }

    /// It has answered as it should.
    pub fn worked(&self) {
        self.shared.has_worked.store(true, Ordering::Relaxed);
    }

    /// Talks to the process. One that cannot be understood, or says nothing in time, is ended.
    ///
    /// # Errors
    /// What `talk` fails with; [`io::ErrorKind::NotConnected`] while there is no process.
    pub fn with_channel<T>(&self, talk: impl FnOnce(&mut Channel) -> io::Result<T>) -> io::Result<T> {
        let mut link = self.shared.link();
        let Some(Link { channel, process }) = link.as_mut() else { return Err(io::ErrorKind::NotConnected.into()) };
        let said = talk(channel);
        if let Err(error) = &said {
            let has_hung = error.kind() == io::ErrorKind::TimedOut;
            self.shared.has_hung.store(has_hung, Ordering::Relaxed);
            self.shared.pulse.goes_down(); // before whoever asked asks again
            kill(process);
            *link = None;
        }
        said
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        if let Some(Link { process, .. }) = self.shared.link().take() {
            kill(&process); // it keeps nothing that would have to be put in order
        }
        self.thread.unpark();
    }
}

impl Shared {
    fn link(&self) -> MutexGuard<'_, Option<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn comes_up(&self, link: Link) {
        let mut known = self.link();
        *known = Some(link);
        self.pulse.comes_up();
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}

/// Waits for the end of each process and begins the next one, until the keeper is dropped. The `first` one took so long.
fn keep(kept: &Kept, shared: &Shared, mut child: Child, first: &Loaded, took: Duration) {
    // A load may hang, too; others may be at work now.
    let limit = (took * 10).max(Duration::from_mins(1)).min(LONGEST_LOAD);
    let mut in_vain = 0;
    loop {
        let ended = child.wait();
        shared.pulse.goes_down();
        if shared.is_over() {
            return;
        }
        drop(shared.link().take());
        let has_hung = shared.has_hung.swap(false, Ordering::Relaxed);
        in_vain = if shared.has_worked.swap(false, Ordering::Relaxed) { 0 } else { in_vain + 1 };
        let reason = reason(ended.as_ref().ok(), has_hung);
        let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
        tracing::error!(model = %kept.name, pid = child.id(), reason = reason.name(), status, "the model's process ended");
        (kept.begins_anew)(reason);
        child = loop {
            let until = Instant::now() + pause(in_vain);
            while !shared.is_over() {
                if shared.pulse.end().is_some() {
                    thread::park(); // on its device nothing will begin
                    continue;
                }
                let Some(rest) = until.checked_duration_since(Instant::now()) else { break };
                thread::park_timeout(rest);
            }
            if shared.is_over() {
                return;
            }
            let began = Instant::now();
            match begin(kept, limit).and_then(|begun| as_before(begun, first)) {
                Ok((child, link)) => {
                    shared.comes_up(link);
                    let seconds = began.elapsed().as_secs_f64();
                    tracing::info!(model = %kept.name, pid = child.id(), seconds, "the model's process began anew");
                    break child;
                }
                Err(error) => {
                    in_vain += 1;
                    let pause = pause(in_vain);
                    let pause_seconds = pause.as_secs_f64();
                    tracing::error!(model = %kept.name, %error, pause_seconds, "the model's process cannot begin anew");
                    if !pause.is_zero() {
                        shared.pulse.fails(format!("Its process ended, and cannot begin anew: {error}"));
                    }
                }
            }
        };
        if shared.is_over()
            && let Some(Link { process, .. }) = shared.link().take()
        {
            kill(&process); // the keeper was dropped while it began
        }
    }
}

/// How long to wait before the next one begins, after so many that have not answered anything.
fn pause(in_vain: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(30);
    match in_vain.checked_sub(2) {
        None => Duration::ZERO, // one may be an accident
        Some(before) => FIRST.saturating_mul(1 << before.min(16)).min(LONGEST),
    }
}

fn reason(status: Option<&ExitStatus>, has_hung: bool) -> Reason {
    match status {
        _ if has_hung => Reason::Hung,
        Some(status) if status.signal().is_none() => Reason::Exited,
        _ => Reason::Killed,
    }
}

/// One process that has loaded the model within this time.
fn begin(kept: &Kept, limit: Duration) -> Result<(Child, Link, Loaded)> {
    let failed = |error: io::Error| Error::load(format!("cannot begin a process for the model: {error}"));
    let (mut channel, theirs) = Channel::pair().map_err(failed)?;
    let mut command = Command::new(&kept.program);
    command.arg("worker").stdin(theirs).stdout(Stdio::null());
    if let DeviceId::Gpu(gpu) = &kept.device {
        command.env("CUDA_VISIBLE_DEVICES", &gpu.uuid); // CUDA shows a process one MIG device at most
    }
    command.process_group(0); // whoever interrupts the server at a terminal lets it end what it has begun
    let mut child = command.spawn().map_err(failed)?;
    drop(command); // with their end of the channel
    match load(kept, &mut channel, &child, limit) {
        Ok((process, loaded)) => Ok((child, Link { channel, process }, loaded)),
        Err(error) => {
            let _ = child.kill(); // it may have ended itself
            let _ = child.wait();
            Err(error)
        }
    }
}

fn load(kept: &Kept, channel: &mut Channel, child: &Child, limit: Duration) -> Result<(OwnedFd, Loaded)> {
    let failed =
        |error: io::Error| Error::load(format!("the model's process ended while it loaded the model: {error}"));
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).map_err(|error| failed(error.into()))?;
    let contents = kept.tree.contents();
    let files = match (&kept.tree, contents) {
        (Tree::Disk(path), _) => Files::Disk(path.clone()),
        (_, contents) => {
            let files = contents.into_iter().flat_map(|contents| contents.iter());
            Files::Memory(files.map(|(path, content)| (path.clone(), content.len())).collect())
        }
    };
    let parts: Vec<&[u8]> = contents.into_iter().flat_map(|contents| contents.values().map(Content::all)).collect();
    let (options, device, log) = (kept.options.clone(), Box::new(kept.device.clone()), kept.log.clone());
    channel.send(&Ask::Load { files, options, device, log }, &parts).map_err(failed)?;
    let answer = channel.receive(Some(limit)).and_then(|message| message.head()).map_err(failed)?;
    channel.leave(); // a model may refer to its files
    match answer {
        Answer::Loaded(loaded) => Ok((process, *loaded)),
        Answer::Failed { kind, message } => Err(Error::new(kind, message)),
        _ => Err(Error::internal("the model's process answers something else")),
    }
}

/// Callers have been told what the first one takes and gives.
fn as_before((mut child, link, loaded): (Child, Link, Loaded), first: &Loaded) -> Result<(Child, Link)> {
    if loaded == *first {
        return Ok((child, link));
    }
    drop(link);
    let _ = child.wait(); // it ends, as nobody talks to it any more
    Err(Error::load("the model's files are others than those that were loaded: reload the model"))
}

fn kill(process: &OwnedFd) {
    let _ = pidfd_send_signal(process, Signal::KILL); // it may be gone already
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_end_is_an_accident_and_more_of_them_take_longer_and_longer() {
        let pauses = [0, 1, 2, 3, 4, 9, 10, 11, u32::MAX].map(|in_vain| pause(in_vain).as_millis());
        assert_eq!(pauses, [0, 0, 100, 200, 400, 12_800, 25_600, 30_000, 30_000]);
    }

    #[test]
    fn ends_have_reasons() {
        let status = |raw| Some(ExitStatus::from_raw(raw));
        assert_eq!(reason(status(0x100).as_ref(), false), Reason::Exited);
        assert_eq!(reason(status(9).as_ref(), false), Reason::Killed);
        assert_eq!(reason(status(9).as_ref(), true), Reason::Hung);
    }
}
