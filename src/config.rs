//! What the operator typed, and what it means.
//!
//! Flags follow KServe: `--model_name x` or `--model_name=x`, hyphens as good as underscores, the last one wins
//! (KServe puts a runtime's arguments before an InferenceService's), an unknown flag warns and is ignored. Every flag
//! has an environment twin `STOKER_<NAME>`, which a flag beats. All mistakes are reported at once.

mod backend;
pub mod batching;
mod commands;
pub mod flags;

pub use self::backend::{BackendOptions, OnnxOnGpu, TensorRt};
pub use self::commands::{
    DevicesConfig, DoctorConfig, InspectConfig, PinConfig, PinFormat, PlaceConfig, PullConfig, Pulled,
};

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use serde::{Deserialize, Serialize};

use self::backend::backend_options;
use self::batching::Batching;
use crate::device::DeviceId;
use crate::engine::admission::Limits;
use crate::error::{Error, Result};
use crate::model::placement::choice::Choice;
use crate::source::archive;
use crate::source::cache::Cache;
use crate::source::digest::ModelDigest;
use crate::source::uri::{self, SourceUri};

/// Everything `stoker serve` was told, resolved and checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub server: ServerConfig,
    /// The one model, or what those of the repository have in common.
    pub model: ModelConfig,
    pub repository: Option<Repository>,
    pub limits: Limits,
    pub log: LogConfig,
    /// Where a failed load leaves its reason for Kubernetes, if the file exists.
    pub termination_log: PathBuf,
    /// Unknown flags and the like: worth a line in the log, no reason to stop.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub http: SocketAddr,
    /// A second port with the same service.
    pub grpc: Option<SocketAddr>,
    /// Whether the ports open only when the model is ready.
    pub listen_when_ready: bool,
    pub max_body_bytes: usize,
    pub max_connections: usize,
    /// How long a body may make no progress.
    pub body_timeout: Duration,
    /// Longest a request may take when its caller sets no deadline, and the most that a caller can ask for.
    pub request_timeout: Duration,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// Names whose request it is; `None`: all are of one tenant.
    pub tenant_header: Option<HeaderName>,
    /// After SIGTERM: unready, but still accepting.
    pub shutdown_delay: Duration,
    /// After that: how long requests in flight may take to finish.
    pub drain_timeout: Duration,
}

#[derive(Clone, Debug)]
pub struct ModelConfig {
    pub name: String,
    /// `None`: as the model's layout says, else 1.
    pub version: Option<String>,
    pub source: SourceUri,
    /// What the model's files have to sum up to.
    pub digest: Option<ModelDigest>,
    /// How often to look whether the source has changed; `None` for never.
    pub poll: Option<Duration>,
    /// `None` brings models straight into memory.
    pub cache: Option<Cache>,
    pub batching: Batching,
    pub backend: BackendOptions,
    /// Where it is to run.
    pub device: Choice,
    pub isolation: Isolation,
}

/// A directory with a directory for each model.
#[derive(Clone, Debug)]
pub struct Repository {
    pub directory: PathBuf,
    /// The models that are loaded at the start; `None`: all that are there.
    pub begins_with: Option<Vec<String>>,
}

/// Whether, and how, instances of a model compute in processes of their own.
#[derive(Clone, Debug)]
pub struct Isolation {
    /// `None`: where one process cannot do it.
    pub is_wanted: Option<bool>,
    /// stoker.
    pub program: PathBuf,
    /// The longest that one batch may take.
    pub limit: Duration,
    /// Theirs, too.
    pub log: LogConfig,
}

impl Isolation {
    /// Whether an instance on that device gets a process of its own.
    ///
    /// # Errors
    /// When it needs one, and is not to have it.
    pub fn is_for(&self, device: &DeviceId) -> Result<bool> {
        match (self.is_wanted, device.needs_process()) {
            (Some(false), true) => Err(Error::load(format!(
                "a process computes on one GPU or MIG device, and there are others beside {device}: leave --worker out, or \
                 let CUDA_VISIBLE_DEVICES name that one alone"
            ))),
            (wanted, needed) => Ok(wanted.unwrap_or(needed)),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogConfig {
    pub format: LogFormat,
    pub level: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFormat {
    Auto,
    Json,
    Text,
}

impl Config {
    /// Resolves the arguments after `stoker serve` and the environment.
    ///
    /// # Errors
    /// One [`Error`] with a line for each mistake.
    pub fn parse(args: &[String], env: &dyn Fn(&str) -> Option<String>) -> Result<Config> {
        let typed = flags::read(args, env);
        let mut values = Values { typed: &typed, problems: Vec::new() };
        let v = &mut values;
        let host = v.get("host", |text| text.parse::<IpAddr>().map_err(|_| "is no IP address".to_owned()));
        let address = |port: u16| SocketAddr::new(host.unwrap_or(IpAddr::from([0, 0, 0, 0])), port);
        let max_body_bytes = v.or("max_body_bytes", 1, bytes);
        let limits = Limits {
            max_requests: v.or("max_inflight_requests", 1, count),
            max_bytes: v.or("max_inflight_bytes", max_body_bytes, bytes),
        };
        if limits.max_bytes < max_body_bytes {
            v.problem("max_inflight_bytes", "must be at least --max_body_bytes, or no such body could enter");
        }
        let server = ServerConfig {
            http: address(v.or("http_port", 0, port)),
            grpc: v.optional("grpc_port", port).map(address),
            listen_when_ready: v.or("listen_when_ready", false, boolean),
            max_body_bytes,
            max_connections: v.or("max_connections", 1, count),
            body_timeout: v.or("body_timeout_seconds", Duration::ZERO, seconds),
            request_timeout: v.or("request_timeout_seconds", Duration::ZERO, seconds),
            keep_alive: v.or("timeout_keep_alive", Duration::ZERO, seconds),
            tenant_header: v.optional("tenant_header", header_name),
            shutdown_delay: v.or("shutdown_delay_seconds", Duration::ZERO, seconds),
            drain_timeout: v.or("drain_timeout_seconds", Duration::ZERO, seconds),
        };
        if server.grpc.is_some_and(|grpc| grpc == server.http && grpc.port() != 0) {
            v.problem("grpc_port", "is --http_port: leave it out, gRPC is spoken there anyway");
        }
        let repository = repository(v);
        let source = if repository.is_some() { None } else { source(v) };
        let backend = backend_options(v);
        let log = LogConfig {
            format: v.or("log_format", LogFormat::Auto, log_format),
            level: v.or("log_level", String::new(), log_level),
        };
        let model = ModelConfig {
            name: v.or("model_name", String::new(), model_name),
            version: v.optional("model_version", model_name),
            source: source.unwrap_or_else(|| SourceUri::Local(PathBuf::new())),
            digest: v.optional("storage_digest", digest),
            poll: v.get("storage_poll_seconds", seconds).filter(|every| !every.is_zero()),
            cache: Some(cache(v, env)).filter(|cache| cache.directory.as_os_str() != NO_CACHE),
            batching: batching::batching(v, backend.instances),
            backend,
            device: v.get("device", Choice::parse).unwrap_or_default(),
            isolation: Isolation {
                is_wanted: v.or("worker", None, worker),
                program: PathBuf::from(THIS_PROGRAM),
                limit: v.or("worker_timeout_seconds", Duration::ZERO, seconds),
                log: log.clone(),
            },
        };
        let termination_log = PathBuf::from(v.text("termination_log"));
        let problems = std::mem::take(&mut v.problems);
        if !problems.is_empty() {
            return Err(Error::load(problems.join("\n")));
        }
        Ok(Config { server, model, repository, limits, log, termination_log, warnings: typed.warnings })
    }
}

/// Itself, even when its file has been replaced.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// What `--cache_dir` says for none.
const NO_CACHE: &str = "none";

fn cache(values: &mut Values, env: &dyn Fn(&str) -> Option<String>) -> Cache {
    let max_unpacked_bytes = archive::max_unpacked_bytes(env);
    values.problems.extend(max_unpacked_bytes.as_ref().err().map(|error| error.message().to_owned()));
    Cache {
        directory: PathBuf::from(values.text("cache_dir")),
        max_bytes: values.optional("cache_max_bytes", bytes).map(|bytes| bytes as u64),
        max_unpacked_bytes: max_unpacked_bytes.unwrap_or_default(),
    }
}

fn repository(values: &mut Values) -> Option<Repository> {
    /// What is of one model.
    const OF_ONE: [&str; 5] = ["model_dir", "storage_uri", "storage_uris", "storage_digest", "model_version"];
    let directory = Some(values.text("model_repository")).filter(|text| !text.is_empty());
    let is_explicit = values.or("model_control_mode", false, control_mode);
    let names = values.optional("load_model", |text| text.split(',').map(model_name).collect::<Result<Vec<_>, _>>());
    let Some(directory) = directory else {
        if is_explicit || names.is_some() {
            values.problem("model_repository", "is needed for --model_control_mode and --load_model");
        }
        return None;
    };
    // Runtimes of KServe say --model_dir=/mnt/models of all InferenceServices, and one of several models lies there, too.
    let is_same = |name: &str| name == "model_dir" && values.text(name) == directory;
    for name in OF_ONE.into_iter().filter(|name| !values.text(name).is_empty() && !is_same(name)).collect::<Vec<_>>() {
        values.problem(name, "is of one model, and --model_repository has several: leave one of them out");
    }
    if names.is_some() && !is_explicit {
        values.problem("load_model", "is for --model_control_mode explicit: else all are loaded");
    }
    let begins_with = is_explicit.then(|| names.unwrap_or_default());
    Some(Repository { directory: directory.into(), begins_with })
}

/// Whether models are loaded only when somebody asks.
fn control_mode(text: &str) -> Result<bool, String> {
    match text {
        "none" => Ok(false),
        "explicit" => Ok(true),
        _ => Err("is neither none nor explicit".to_owned()),
    }
}

fn source(values: &mut Values) -> Option<SourceUri> {
    const FLAGS: [&str; 3] = ["storage_uri", "storage_uris", "model_dir"];
    let given: Vec<&str> = FLAGS.into_iter().filter(|name| !values.text(name).is_empty()).collect();
    let [name] = given[..] else {
        match given[..] {
            [] => values.problem(
                "model_dir",
                "or --storage_uri is needed: where is the model? (--model_repository: where are they?)",
            ),
            [first, other, ..] => values.problem(first, &format!("and --{other} are both given: which one is it?")),
            [_] => {}
        }
        return None;
    };
    let text = values.text(name);
    let source = match name {
        "model_dir" => Ok(SourceUri::Local(text.into())),
        "storage_uris" => uri::parse_several(text),
        _ => uri::parse(text),
    };
    source.map_err(|error| values.problem(name, error.message())).ok()
}

/// Typed access to what [`flags::read`] found, collecting what is wrong.
struct Values<'a> {
    typed: &'a flags::Typed,
    problems: Vec<String>,
}

impl<'a> Values<'a> {
    fn text(&self, name: &str) -> &'a str {
        &self.typed.get(name).text
    }

    fn problem(&mut self, name: &str, what: &str) {
        self.problems.push(format!("--{name} {what}"));
    }

    fn get<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let flags::Value { text, origin } = self.typed.get(name);
        parse(text).map_err(|what| self.problems.push(format!("{origin}: \"{text}\" {what}"))).ok()
    }

    /// The value, or `fallback` after noting what is wrong; the whole parse fails then, so it is never used.
    fn or<T>(&mut self, name: &str, fallback: T, parse: impl FnOnce(&str) -> Result<T, String>) -> T {
        self.get(name, parse).unwrap_or(fallback)
    }

    /// `None` when the flag was left empty.
    fn optional<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        if self.text(name).is_empty() { None } else { self.get(name, parse) }
    }
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "is no port number (0 to 65535, 0 picks a free one)".to_owned())
}

fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "is no whole number above 0".to_owned())
}

/// Bytes, as a plain number or with a Kubernetes suffix.
fn bytes(text: &str) -> Result<usize, String> {
    let units = [("Ki", 10), ("Mi", 20), ("Gi", 30)];
    let unit = units.iter().find_map(|(suffix, shift)| text.strip_suffix(suffix).map(|number| (number, *shift)));
    let (number, shift) = unit.unwrap_or((text, 0));
    let bytes = number.parse::<usize>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "is no size, expected bytes or a number with Ki, Mi or Gi".to_owned())
}

fn digest(text: &str) -> Result<ModelDigest, String> {
    ModelDigest::parse(text).map_err(|_| "is no digest, expected sha256: and 64 hexadecimal digits".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let longest = Duration::from_hours(24);
    parsed.filter(|time| *time <= longest).ok_or_else(|| "is no number of seconds up to a day".to_owned())
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    text.parse().map_err(|_| "is no header's name".to_owned())
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<f64>().ok().and_then(|millis| Duration::try_from_secs_f64(millis / 1000.0).ok());
    let time = parsed.filter(|time| !time.is_zero() && *time <= Duration::from_hours(1));
    time.ok_or_else(|| "is no number of milliseconds up to an hour".to_owned())
}

fn microseconds(text: &str) -> Result<Duration, String> {
    let longest = 60_000_000; // no batch is worth a minute's wait
    let parsed = text.parse::<u64>().ok().filter(|micros| *micros <= longest);
    parsed.map(Duration::from_micros).ok_or_else(|| format!("is no number of microseconds up to {longest}"))
}

/// Whether instances get processes.
fn worker(text: &str) -> Result<Option<bool>, String> {
    match text {
        "auto" => Ok(None),
        "thread" => Ok(Some(false)),
        "process" => Ok(Some(true)),
        _ => Err("is neither auto, thread nor process".to_owned()),
    }
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("is neither true nor false".to_owned()),
    }
}

/// Names appear in URLs, metric labels and thread names: the characters that are plain in all of them.
fn model_name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match text {
        "" => Err("is empty".to_owned()),
        _ if text.len() > 253 => Err("is longer than 253 characters".to_owned()),
        _ if !text.bytes().all(plain) => Err("may only hold letters, digits and . _ -".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// Whether a directory of that name in a repository is a model.
pub fn is_model_name(text: &str) -> bool {
    !text.starts_with('.') && model_name(text).is_ok()
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "auto" => Ok(LogFormat::Auto),
        "json" => Ok(LogFormat::Json),
        "text" => Ok(LogFormat::Text),
        _ => Err("is none of auto, json, text".to_owned()),
    }
}

/// A level, or directives such as `info,onnxruntime=error`. A bare word would be taken for a module's name and
/// silence everything else, so a misspelt level is refused.
fn log_level(text: &str) -> Result<String, String> {
    let level = |word: &str| ["error", "warn", "info", "debug", "trace", "off"].contains(&word);
    let directive =
        |part: &str| part.rsplit_once('=').map_or(level(part), |(target, word)| !target.is_empty() && level(word));
    if text.to_ascii_lowercase().split(',').all(directive) {
        Ok(text.to_owned())
    } else {
        Err("is none of error, warn, info, debug, trace, nor a filter such as info,stoker=debug".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str], env: &[(&str, &str)]) -> Result<Config> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::parse(&args, &move |name| env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()))
    }

    #[test]
    fn kserves_spellings_are_understood_and_the_last_one_wins() {
        let config = parse(
            &["--model_name=a", "--model-dir", "/m", "--http-port", "1", "--model_name", "b", "--http_port=2"],
            &[],
        );
        let config = config.unwrap();
        assert_eq!(config.model.name, "b");
        assert_eq!(config.model.source, SourceUri::Local("/m".into()));
        assert_eq!(config.server.http.port(), 2);
        assert_eq!(config.server.grpc, None);
    }

    #[test]
    fn the_environment_stands_in_for_flags() {
        let env = [("STOKER_MODEL_DIR", "/m"), ("STOKER_HTTP_PORT", "7"), ("INFERENCE_SERVICE_NAME", "isvc")];
        let config = parse(&[], &env).unwrap();
        assert_eq!((config.server.http.port(), config.model.name.as_str()), (7, "isvc"));
        let config = parse(&["--http_port=8", "--model_name=m"], &env).unwrap();
        assert_eq!((config.server.http.port(), config.model.name.as_str()), (8, "m"));
    }

    #[test]
    fn a_pin_is_of_one_uri() {
        let parse = |args: &[&str]| {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            PinConfig::parse(&args, &|_| None)
        };
        let config = parse(&["s3://b/m", "--format=annotations", "--cache-dir", "/c"]).unwrap();
        assert_eq!((config.format, config.cache.directory), (PinFormat::Annotations, "/c".into()));
        assert_eq!(parse(&["s3://b/m"]).unwrap().format, PinFormat::Json);
        for wrong in
            [&[][..], &["--format=json"], &["s3://b/m", "--format=xml"], &["s3://b/m", "s3://b/n"], &["gs://b"]]
        {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn kubernetes_service_links_are_not_taken_for_ports() {
        let config = parse(&["--model_dir=/m"], &[("STOKER_HTTP_PORT", "tcp://10.0.0.1:80")]).unwrap();
        assert_eq!(config.server.http.port(), 8080);
        assert!(config.warnings[0].contains("Kubernetes Service"), "{:?}", config.warnings);
    }

    #[test]
    fn unknown_flags_warn_and_take_their_value_with_them() {
        let args =
            ["--model_dir=/m", "--workers", "4", "--enable_docs_url=false", "--verbose", "--model_name", "m", "stray"];
        let config = parse(&args, &[]).unwrap();
        assert_eq!(config.model.name, "m");
        let warnings = config.warnings.join("|");
        for part in ["--workers 4", "--enable_docs_url=false", "--verbose", "stray"] {
            assert!(warnings.contains(part), "{warnings}");
        }
    }

    #[test]
    fn switches_may_stand_alone_or_with_a_value() {
        let listen =
            |args: &[&str]| parse(&[&["--model_dir=/m"], args].concat(), &[]).unwrap().server.listen_when_ready;
        assert!(!listen(&[]));
        assert!(listen(&["--listen_when_ready"]));
        assert!(listen(&["--listen_when_ready", "--model_name=m"]));
        assert!(!listen(&["--listen_when_ready", "false"]));
        assert!(!listen(&["--listen_when_ready=false"]));
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let error = parse(
            &[
                "--http_port=x",
                "--log_level=inof",
                "--max_body_bytes=1Gi",
                "--max_inflight_bytes=1Mi",
                "--model_name=a/b",
            ],
            &[("STOKER_MAX_BATCH_SIZE", "0")],
        );
        let message = error.unwrap_err().message().to_owned();
        for part in [
            "--http_port: \"x\" is no port number",
            "--log_level: \"inof\" is none of",
            "STOKER_MAX_BATCH_SIZE: \"0\" is no whole number above 0",
            "--max_inflight_bytes must be at least --max_body_bytes",
            "--model_name: \"a/b\" may only hold",
            "--model_dir or --storage_uri is needed",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_repository_has_several_models() {
        let begins_with = |flags: &[&str]| {
            let config = parse(&[&["--model_repository=/m"], flags].concat(), &[("INFERENCE_SERVICE_NAME", "isvc")]);
            config.map(|config| config.repository.unwrap().begins_with).map_err(|error| error.message().to_owned())
        };
        assert_eq!(begins_with(&[]), Ok(None));
        assert_eq!(begins_with(&["--model_control_mode=explicit"]), Ok(Some(Vec::new())));
        let named = begins_with(&["--model_control_mode=explicit", "--load_model=a,b"]);
        assert_eq!(named, Ok(Some(vec!["a".to_owned(), "b".to_owned()])));
        assert_eq!(begins_with(&["--model_dir=/m", "--model_name=isvc"]), Ok(None));
        for (flag, why) in [
            ("--model_dir=/n", "--model_dir is of one model"),
            ("--storage_digest=sha256:0", "--storage_digest is of one model"),
            ("--load_model=a", "--load_model is for --model_control_mode explicit"),
            ("--model_control_mode=poll", "is neither none nor explicit"),
        ] {
            let message = begins_with(&[flag]).unwrap_err();
            assert!(message.contains(why), "{message}");
        }
        let error = parse(&["--model_dir=/m", "--load_model=a"], &[]).unwrap_err();
        assert!(error.message().contains("--model_repository is needed"), "{error}");
        assert!(!is_model_name("..") && !is_model_name("a/b") && is_model_name("a-1.2"));
    }

    #[test]
    fn sizes_take_kubernetes_suffixes() {
        assert_eq!(bytes("64Mi"), Ok(64 << 20));
        assert_eq!(bytes("100"), Ok(100));
        for wrong in ["", "0", "-1", "1.5Gi", "1Ti", "99999999999Gi"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
