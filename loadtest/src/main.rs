//! Benchmarks of stoker's serving path, one subcommand each.
//!
//! The subcommands share three parts, which know nothing of any one experiment: a generator of
//! load (`closed_loop`), servers held as pinned child processes (`process`), and a description of
//! where a result was measured (`provenance`).

mod bare_server;
mod closed_loop;
mod http;
mod http_floor;
mod placement;
mod process;
mod provenance;
mod report;
mod run;
mod rounds;
mod scheduler;
mod slow_proxy;
mod tabular;
#[path = "../../tests/it/virtual_time.rs"]
mod virtual_time;

use anyhow::{Result, bail};
use lexopt::prelude::*;

/// The server's own, so that a comparison with it compares no allocators.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
Usage: loadtest COMMAND [OPTIONS]

  run SCENARIO.toml   play a scenario (see scenarios/) against any V1 or V2 server
      --target [NAME=]URL    http[s]://HOST[:PORT][/PREFIX], REST and gRPC; several share the requests and are compared
      --grpc URL             gRPC of the target before this, where it has a port of its own
      --metrics URL          and its metrics [default: the target's /metrics]
      --name NAME            what the result is called [default: the scenario's file]
      --label TEXT           what it is called beside other results [default: its name]
      --out DIR              where it is written, as JSON and as a page [default: loadtest/runs]; -: the JSON goes to
                             standard output, and nothing else

  report RUN.json...  put kept runs beside each other on one page
      --label TEXT           what the run before this is called
      --out FILE             the page, HTML

  http-floor   compare stoker's requests per second with a bare hyper server's
      --server-bin FILE      stoker [default: target/release/stoker]
      --model-dir DIR        the iris model [default: tests/models/iris]
      --peer PROGRAM         another server of the model, started with --port N (see kserve/)
      --connections N[,N..]  keep-alive connections, one comparison for each N [default: 64]
      --seconds S            measured seconds of a round [default: 10]
      --rounds N             rounds of each server [default: 5]
      --out DIR              where the result is written [default: loadtest/runs]

  scheduler    time the scheduler alone, for each of several kinds of traffic
  placement    time the placement of 1,000 models on 64 devices
      --rounds N             [default: 9]
      --out DIR              where the result is written, if anywhere

  tabular      time one tabular model in this process, driven over standard input (see trees/compare.py)
      --model PATH           a model as `stoker serve --model_dir` takes it
      --rows FILE            rows of little-endian FP32, one after another
      --columns N            values of a row
      --fp64                 the rows are FP64
      --answers FILE         where the answers to all rows are written

  bare-server  answer every request with one fixed body
      --port PORT
      --body-file FILE

  slow-proxy   put a network between a client and a server on loopback (see pull/compare.py); says where it listens
      --listen HOST:PORT
      --upstream HOST:PORT
      --delay-ms N           added to each request
      --mbytes-per-second N  the most that a connection carries
";

fn main() -> Result<()> {
    let mut args = lexopt::Parser::from_env();
    match args.next()? {
        Some(Value(command)) if command == "http-floor" => http_floor::run(&http_floor::Options::parse(&mut args)?),
        Some(Value(command)) if command == "bare-server" => bare_server::run(&bare_server::Options::parse(&mut args)?),
        Some(Value(command)) if command == "slow-proxy" => slow_proxy::run(&slow_proxy::Options::parse(&mut args)?),
        Some(Value(command)) if command == "scheduler" => scheduler::run(&rounds::Options::parse(&mut args)?),
        Some(Value(command)) if command == "placement" => placement::run(&rounds::Options::parse(&mut args)?),
        Some(Value(command)) if command == "run" => run::run(&run::Options::parse(&mut args)?),
        Some(Value(command)) if command == "report" => report::run(&report::Options::parse(&mut args)?),
        Some(Value(command)) if command == "tabular" => tabular::run(&tabular::Options::parse(&mut args)?),
        Some(Short('h') | Long("help")) => {
            print!("{USAGE}");
            Ok(())
        }
        _ => bail!("which experiment?\n\n{USAGE}"),
    }
}
