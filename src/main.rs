//! What was asked for, and the exit code.

use std::path::Path;
use std::process::ExitCode;

use stoker::bench::bench;
use stoker::config::{
    Config, DevicesConfig, DoctorConfig, InspectConfig, LogFormat, PinConfig, PlaceConfig, PullConfig, flags,
};
use stoker::devices::devices;
use stoker::doctor::doctor;
use stoker::inspect::inspect;
use stoker::pin::pin;
use stoker::place::place;
use stoker::pull::pull;
use stoker::serve::{leave_reason, serve};
use stoker::telemetry;
use stoker::worker::worker;

/// Gives memory back to the system after large requests, which glibc's allocator does not.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "stoker, an inference server for KServe\n\n\
    Usage:\n  \
    stoker serve --model_name NAME --model_dir DIR   serve a model (stoker serve --help lists all flags)\n  \
    stoker inspect DIR                               say what would be served\n  \
    stoker devices [--json]                          say what GPUs and MIG devices there are, and which are ours\n  \
    stoker devices --watch                           tell when one of them fails\n  \
    stoker place --demands=FILE [--explain]          say which models would run on which of them, and why\n  \
    stoker doctor [--storage_uri URI]                look at the way to a model, and say which piece is at fault\n  \
    stoker pin URI                                   say what exactly a URI means now, with the digest of its files\n  \
    stoker pull SRC DST [SRC DST ...]                bring models to directories, as KServe's storage initializer\n  \
    stoker pull --bench SRC DST                      how fast that is, beside a raw parallel GET\n  \
    stoker --version";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let env = |name: &str| std::env::var(name).ok();
    let wants_help = args.iter().any(|arg| arg == "--help" || arg == "-h");
    let (command, rest) = args.split_first().map_or(("", &[][..]), |(command, rest)| (command.as_str(), rest));
    let done = match command {
        "serve" if wants_help => Ok(flags::help()),
        "serve" => match Config::parse(rest, &env) {
            Ok(config) => serve(config),
            // The flag that names another place may be the one that is wrong.
            Err(error) => Err(leave_reason(Path::new("/dev/termination-log"), error)),
        },
        "inspect" if !wants_help => InspectConfig::parse(rest, &env).and_then(|config| {
            config.warnings.iter().for_each(|warning| eprintln!("stoker: {warning}"));
            inspect(&config)
        }),
        "place" if wants_help => Ok(PlaceConfig::HELP.to_owned()),
        "place" => PlaceConfig::parse(rest).and_then(|config| place(&config, &env)),
        "devices" if !wants_help => {
            telemetry::log::init(LogFormat::Auto, "info");
            DevicesConfig::parse(rest).and_then(|config| devices(&config, &env))
        }
        "doctor" if wants_help => Ok(DoctorConfig::HELP.to_owned()),
        "doctor" => {
            telemetry::log::init(LogFormat::Auto, "error");
            DoctorConfig::parse(rest, &env).and_then(|config| doctor(&config, &env))
        }
        "pull" if !wants_help && rest.first().is_some_and(|first| first == "--bench") => {
            telemetry::log::init(LogFormat::Auto, "warn");
            PullConfig::parse(&rest[1..]).and_then(|config| bench(&config, &env))
        }
        "pull" if !wants_help => {
            telemetry::log::init(LogFormat::Auto, "info");
            let pulled = PullConfig::parse(rest).and_then(|config| pull(&config, &env));
            pulled.map(|()| String::new()).map_err(|error| leave_reason(Path::new("/dev/termination-log"), error))
        }
        "pin" if !wants_help => {
            telemetry::log::init(LogFormat::Auto, "info");
            PinConfig::parse(rest, &env).and_then(|config| pin(&config, &env))
        }
        "worker" => worker().map(|()| String::new()),
        "--version" => Ok(concat!("stoker ", env!("CARGO_PKG_VERSION")).to_owned()),
        _ if wants_help => Ok(USAGE.to_owned()),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match &done {
        Ok(text) if text.is_empty() => {}
        Ok(text) => println!("{}", text.trim_end()),
        Err(error) => eprintln!("stoker: {error}"),
    }
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
