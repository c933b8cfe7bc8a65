//! Parse, build, serve, drain, exit code.

use std::path::Path;
use std::process::ExitCode;

use stoker::app::{App, Shutdown, leave_reason};
use stoker::config::{Config, InspectConfig, flags};
use stoker::device::host;
use stoker::error::Result;
use stoker::{inspect, telemetry};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "stoker, an inference server for KServe\n\n\
    Usage:\n  \
    stoker serve --model_name NAME --model_dir DIR   serve a model (stoker serve --help lists all flags)\n  \
    stoker inspect DIR                               say what would be served\n  \
    stoker --version";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let env = |name: &str| std::env::var(name).ok();
    let wants_help = args.iter().any(|arg| arg == "--help" || arg == "-h");
    let done = match args.split_first() {
        Some((command, _)) if command == "serve" && wants_help => Ok(println!("{}", flags::help())),
        Some((command, rest)) if command == "serve" => serve(rest, &env),
        Some((command, rest)) if command == "inspect" && !wants_help => {
            InspectConfig::parse(rest, &env).and_then(|config| Ok(println!("{}", inspect::inspect(&config)?)))
        }
        Some((command, _)) if command == "--version" => Ok(println!("stoker {}", env!("CARGO_PKG_VERSION"))),
        Some(_) if wants_help => Ok(println!("{USAGE}")),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stoker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &[String], env: &dyn Fn(&str) -> Option<String>) -> Result<()> {
    let config = Config::parse(args, env).inspect_err(|error| {
        // The flag that says another place may be the one that is wrong.
        leave_reason(Path::new("/dev/termination-log"), error);
    })?;
    telemetry::log::init(config.log.format, &config.log.level);
    let runtime = runtime();
    let termination_log = config.termination_log.clone();
    let served = runtime.block_on(async { App::bind(config)?.run(asked_to_stop()).await });
    runtime.shutdown_background(); // a load that is still running must not hold up the exit
    served.inspect_err(|error| leave_reason(&termination_log, error))
}

/// As many threads as the container may use; with one CPU, one thread does everything and nothing is handed over.
fn runtime() -> Runtime {
    let mut builder = if host::cpus() == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.worker_threads(host::cpus()).enable_all().build().expect("the OS gives us threads and epoll")
}

/// Comes back at the first signal; a second one ends the process on the spot.
async fn asked_to_stop() -> Shutdown {
    let listen = |kind| signal(kind).expect("signal handlers can be installed");
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt()));
    let how = tokio::select! {
        _ = terminate.recv() => Shutdown::Gradual,
        _ = interrupt.recv() => Shutdown::Prompt,
    };
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("asked to stop a second time: not waiting any longer");
        std::process::exit(1);
    });
    how
}
