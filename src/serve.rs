//! `stoker serve` as a process: its log, its threads, its signals, and what it leaves behind when it fails.

use std::path::Path;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::{App, Shutdown};
use crate::config::Config;
use crate::device::host;
use crate::error::Error;
use crate::model::fleet::Fleet;
use crate::telemetry;

/// Serves until a signal comes or the model cannot be loaded, and ends the process.
pub fn serve(config: Config) -> ! {
    telemetry::log::init(config.log.format, &config.log.level);
    let runtime = runtime();
    let termination_log = config.termination_log.clone();
    let served = runtime.block_on(async {
        let app = App::bind(config)?;
        reload_on_hangup(app.fleet());
        app.run(asked_to_stop()).await
    });
    runtime.shutdown_background(); // a load that is still running must not hold up the exit
    let code = match served {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(error = %leave_reason(&termination_log, error), "cannot serve");
            1
        }
    };
    host::end_process(code)
}

/// Kubernetes shows this file's content as the reason why the container ended; KServe puts it into the
/// InferenceService's status. It is only there in a pod, and only then written.
pub fn leave_reason(path: &Path, error: Error) -> Error {
    if path.exists() {
        let line = error.to_string().replace('\n', "; ");
        let _ = std::fs::write(path, format!("{line}\n")); // the same text is on stderr
    }
    error
}

/// Whoever puts another model into the directory says so, as to other daemons.
fn reload_on_hangup(fleet: Arc<Fleet>) {
    let mut hangup = signal(SignalKind::hangup()).expect("signal handlers can be installed");
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            fleet.nudge();
        }
    });
}

/// As many threads as the container may use; with one CPU, one thread does everything and nothing is handed over.
fn runtime() -> Runtime {
    let mut builder = if host::cpus() == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.worker_threads(host::cpus()).enable_all().build().expect("the OS gives us threads and epoll")
}

/// Comes back at the first signal; an interrupt after that ends the process on the spot.
async fn asked_to_stop() -> Shutdown {
    let listen = |kind| signal(kind).expect("signal handlers can be installed");
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt()));
    let how = tokio::select! {
        _ = terminate.recv() => Shutdown::Gradual,
        _ = interrupt.recv() => Shutdown::Prompt,
    };
    tokio::spawn(async move {
        interrupt.recv().await;
        tracing::warn!("interrupted: not waiting any longer");
        host::end_process(1);
    });
    how
}
