//! How close stoker's HTTP path is to the floor: V1 iris predictions against a bare hyper server
//! that answers with the same body, both on the same core, with the generator on another.
//!
//! The servers take turns within one run, so that whatever else the machine does in those minutes
//! falls on both. The ratio is reported and never asserted: what it should be is for the reader.

mod report;

use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lexopt::prelude::*;

use self::report::{Comparison, Measurement, Report};
use crate::closed_loop::{ClosedLoop, Load};
use crate::http;
use crate::process::{self, Server};
use crate::provenance::Provenance;

const READY_PATH: &str = "/v2/health/ready";
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const PREDICT_PATH: &str = "/v1/models/iris:predict";
const PREDICT_BODY: &str = r#"{"instances": [[5.1, 3.5, 1.4, 0.2]]}"#;

/// Load before the measured part of each round.
const WARM_UP: Duration = Duration::from_secs(1);

pub struct Options {
    server_bin: PathBuf,
    model_dir: PathBuf,
    peer: Option<PathBuf>,
    connections: Vec<usize>,
    measured: Duration,
    rounds: usize,
    out: PathBuf,
}

impl Options {
    pub fn parse(args: &mut lexopt::Parser) -> Result<Self> {
        let mut options = Self {
            server_bin: "target/release/stoker".into(),
            model_dir: "tests/models/iris".into(),
            peer: None,
            connections: vec![64],
            measured: Duration::from_secs(10),
            rounds: 5,
            out: "loadtest/runs".into(),
        };
        while let Some(arg) = args.next()? {
            match arg {
                Long("server-bin") => options.server_bin = args.value()?.into(),
                Long("model-dir") => options.model_dir = args.value()?.into(),
                Long("peer") => options.peer = Some(args.value()?.into()),
                Long("connections") => {
                    let counts = args.value()?;
                    options.connections = counts.parse_with(|counts| counts.split(',').map(str::parse).collect())?;
                }
                Long("seconds") => options.measured = Duration::from_secs(args.value()?.parse()?),
                Long("rounds") => options.rounds = args.value()?.parse()?,
                Long("out") => options.out = args.value()?.into(),
                _ => return Err(arg.unexpected().into()),
            }
        }
        ensure!(
            !options.measured.is_zero() && options.rounds > 0 && !options.connections.contains(&0),
            "--seconds, --rounds and --connections must be at least 1"
        );
        Ok(options)
    }
}

pub fn run(options: &Options) -> Result<()> {
    ensure!(!cfg!(debug_assertions), "the floor is a release build: build loadtest with --release");
    let cores = process::allowed_cores()?;
    let &[server_core, generator_core, ..] = &cores[..] else {
        bail!("a server and the generator need a core each");
    };
    let provenance = Provenance::collect(cores.len())?;
    process::pin_to(generator_core)?;

    let experiment = Experiment::start(options, [server_core, generator_core])?;
    let comparisons =
        options.connections.iter().map(|&connections| experiment.compare(connections)).collect::<Result<_>>()?;

    let report = Report {
        provenance,
        server_core,
        generator_core,
        measured_seconds: options.measured.as_secs(),
        request: PREDICT_BODY,
        answer: String::from_utf8(experiment.answer)?,
        comparisons,
    };
    print!("{}", report.markdown());
    report.save(&options.out)?;
    ensure!(report.wrong() == 0, "{} wrong answers", report.wrong());
    Ok(())
}

/// Both servers, running and ready, and the one right answer of either.
struct Experiment<'a> {
    options: &'a Options,
    /// The servers' and the generator's.
    cores: [usize; 2],
    stoker: Server,
    bare: Server,
    answer: Vec<u8>,
    /// Another server of the same model, and its one right answer.
    peer: Option<(Server, Vec<u8>)>,
}

/// CPU time used up to some moment.
struct CpuTimes {
    server: Duration,
    generator: Duration,
    /// On the two cores, by anyone.
    total: Duration,
}

impl<'a> Experiment<'a> {
    fn start(options: &'a Options, cores: [usize; 2]) -> Result<Self> {
        let [server_core, _] = cores;
        let stoker = start_stoker(options, server_core).context("starting stoker")?;
        let answer = predict(stoker.address).context("a prediction by stoker")?;
        let bare = start_bare(&answer, server_core).context("starting the bare server")?;
        ensure!(predict(bare.address)? == answer, "the bare server does not answer with the body it was given");
        let peer = options.peer.as_ref().map(|program| {
            let peer = start_peer(program, server_core).context("starting the peer")?;
            let answer = predict(peer.address).context("a prediction by the peer")?;
            anyhow::Ok((peer, answer))
        });
        Ok(Self { options, cores, stoker, bare, answer, peer: peer.transpose()? })
    }

    fn compare(&self, connections: usize) -> Result<Comparison> {
        let mut sides = vec![("stoker", &self.stoker, &self.answer), ("bare", &self.bare, &self.answer)];
        sides.extend(self.peer.as_ref().map(|(peer, answer)| ("peer", peer, answer)));
        let mut rounds: Vec<Vec<Measurement>> = sides.iter().map(|_| Vec::new()).collect();
        for number in 1..=self.options.rounds {
            for ((name, server, answer), rounds) in sides.iter().zip(&mut rounds) {
                let title = format!("{name}, {connections} connections, round {number}");
                let round = self.measure(server, answer, connections).with_context(|| title.clone())?;
                eprintln!("{title}: {:.0} requests/s", round.requests_per_second);
                rounds.push(round);
            }
        }
        let peer = if self.peer.is_some() { rounds.pop() } else { None };
        let bare = rounds.pop().context("the bare server was not measured")?;
        let stoker = rounds.pop().context("stoker was not measured")?;
        Ok(Comparison::new(connections, stoker, bare, peer))
    }

    fn measure(&self, server: &Server, answer: &[u8], connections: usize) -> Result<Measurement> {
        let request = http::request(server.address, PREDICT_PATH, Some(PREDICT_BODY));
        let mut load = ClosedLoop::connect(Load {
            server: server.address,
            request: &request,
            expected_body: answer,
            connections,
        })?;
        load.drive(WARM_UP)?;

        let before = self.cpu_times(server)?;
        let window = load.drive(self.options.measured)?;
        let after = self.cpu_times(server)?;

        let seconds = window.elapsed.as_secs_f64();
        let answered = window.latencies.len() as f64;
        let microseconds = |quantile| window.latencies.value_at_quantile(quantile) as f64 / 1e3;
        let used = |time: fn(&CpuTimes) -> Duration| (time(&after) - time(&before)).as_secs_f64();
        let (server, generator) = (used(|cpu| cpu.server), used(|cpu| cpu.generator));
        Ok(Measurement {
            requests_per_second: answered / seconds,
            p50_us: microseconds(0.5),
            p99_us: microseconds(0.99),
            server_cpu: server / seconds,
            generator_cpu: generator / seconds,
            // The total is counted in coarser steps than its parts and may seem less than they are.
            other_cpu: (used(|cpu| cpu.total) - server - generator).max(0.0) / seconds,
            server_us_per_request: server * 1e6 / answered,
            wrong: window.wrong,
        })
    }

    fn cpu_times(&self, server: &Server) -> Result<CpuTimes> {
        let [server_core, generator_core] = self.cores;
        Ok(CpuTimes {
            server: server.cpu_time()?,
            generator: process::own_cpu_time()?,
            total: process::core_busy_time(server_core)? + process::core_busy_time(generator_core)?,
        })
    }
}

fn start_stoker(options: &Options, core: usize) -> Result<Server> {
    let address = process::free_address()?;
    let mut command = Command::new(&options.server_bin);
    command
        .arg("serve")
        .args(["--model_name", "iris", "--host", &address.ip().to_string()])
        .args(["--http_port", &address.port().to_string()])
        .arg("--model_dir")
        .arg(&options.model_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut server = Server::spawn(command, address, core)?;
    server.wait_ready(READY_PATH, READY_TIMEOUT)?;
    Ok(server)
}

/// Starts this program's own bare server. It reads the body from its standard input, which needs
/// no file to clean up.
fn start_bare(body: &[u8], core: usize) -> Result<Server> {
    let address = process::free_address()?;
    let mut command = Command::new(env::current_exe()?);
    command
        .arg("bare-server")
        .args(["--port", &address.port().to_string()])
        .args(["--body-file", "/dev/stdin"])
        .stdin(Stdio::piped());
    let mut server = Server::spawn(command, address, core)?;
    server.feed(body)?;
    server.wait_ready(READY_PATH, READY_TIMEOUT)?;
    Ok(server)
}

/// Starts a program that serves the same model on the `--port` it is given.
fn start_peer(program: &Path, core: usize) -> Result<Server> {
    let address = process::free_address()?;
    let mut command = Command::new(program);
    command.args(["--port", &address.port().to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut server = Server::spawn(command, address, core)?;
    server.wait_ready(READY_PATH, READY_TIMEOUT)?;
    Ok(server)
}

/// The body that answers the request of the experiment.
fn predict(server: SocketAddr) -> Result<Vec<u8>> {
    let request = http::request(server, PREDICT_PATH, Some(PREDICT_BODY));
    let (status, body) = http::exchange(server, &request)?;
    let predictions = serde_json::from_slice::<serde_json::Value>(&body)
        .ok()
        .and_then(|answer| answer["predictions"].as_array().map(Vec::len));
    ensure!(
        status == 200 && predictions == Some(1),
        "the answer is not one prediction but {status}: {}",
        body.escape_ascii()
    );
    Ok(body)
}
