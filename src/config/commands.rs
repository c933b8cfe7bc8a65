//! What the commands beside `stoker serve` were told.

use std::path::PathBuf;

use super::backend::{BackendOptions, backend_options};
use super::batching::{self, Batching};
use super::{Config, NO_CACHE, Values, cache, flags};
use crate::error::{Error, Result};
use crate::model::placement::choice::Choice;
use crate::source::cache::Cache;
use crate::source::uri::{self, SourceUri};

/// What `stoker inspect` was told.
#[derive(Clone, Debug)]
pub struct InspectConfig {
    pub path: PathBuf,
    pub warnings: Vec<String>,
    pub batching: Batching,
    pub backend: BackendOptions,
    pub device: Choice,
}

impl InspectConfig {
    /// Resolves the arguments after `stoker inspect`: one path, and the flags of `serve` that matter to a load.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn parse(args: &[String], env: &dyn Fn(&str) -> Option<String>) -> Result<InspectConfig> {
        let (path, flags) = match args.split_first() {
            Some((path, flags)) if !path.starts_with('-') => (path, flags),
            _ => return Err(Error::load("expected a model directory: stoker inspect DIR")),
        };
        let typed = flags::read(flags, env);
        let mut values = Values { typed: &typed, problems: Vec::new() };
        let backend = backend_options(&mut values);
        let batching = batching::batching(&mut values, backend.instances);
        let device = values.get("device", Choice::parse).unwrap_or_default();
        match values.problems.as_slice() {
            [] => Ok(InspectConfig { path: path.into(), warnings: typed.warnings, batching, backend, device }),
            problems => Err(Error::load(problems.join("\n"))),
        }
    }
}

/// What `stoker devices` was told.
#[derive(Clone, Debug, Default)]
pub struct DevicesConfig {
    pub json: bool,
    /// Whether to go on and tell what goes wrong with them.
    pub watch: bool,
    /// Of another machine, or of another day.
    pub recording: Option<PathBuf>,
}

impl DevicesConfig {
    /// Resolves the arguments after `stoker devices`.
    ///
    /// # Errors
    /// For any other argument.
    pub fn parse(args: &[String]) -> Result<DevicesConfig> {
        let mut config = DevicesConfig::default();
        for arg in args {
            match (arg.as_str(), arg.strip_prefix("--recording=")) {
                ("--json", _) => config.json = true,
                ("--watch", _) => config.watch = true,
                (_, Some(path)) if !path.is_empty() => config.recording = Some(path.into()),
                _ => return Err(Error::load("expected stoker devices [--json] [--recording=FILE], or --watch alone")),
            }
        }
        if config.watch && args.len() > 1 {
            return Err(Error::load("stoker devices --watch watches what is here, and takes nothing else"));
        }
        Ok(config)
    }
}

/// What `stoker place` was told.
#[derive(Clone, Debug)]
pub struct PlaceConfig {
    pub demands: PathBuf,
    /// What runs where now.
    pub current: Option<PathBuf>,
    pub recording: Option<PathBuf>,
    pub json: bool,
    /// Whether to say why, also of what has a place.
    pub explain: bool,
}

impl PlaceConfig {
    pub const HELP: &str = "Says which models would run on which devices.\n\n\
        Usage: stoker place --demands=FILE [--current=FILE] [--recording=FILE] [--explain] [--json]\n\n  \
        --demands=FILE    JSON, bytes and seconds: [{\"model\": \"m\", \"weights\": 500000000, \"replicas\": 1,\n      \
        \"workspace\": 0, \"workspace_per_row\": 0, \"max_rows\": 1, \"wants\": \"any\", {\"prefer\": \"cpu\"} or {\"only\": \"gpu\"},\n      \
        \"busy\": {\"cpu\": 0.5, \"gpu\": 12} (CPUs, multiprocessors), \"slo_seconds\": 0.1,\n      \
        \"takes\": {\"seconds\": 0.01, \"kind\": \"gpu\", \"units\": 132}, \"anti_affinity\": \"team\"}, ...]\n  \
        --current=FILE    What runs where now, as --json wrote it: it stays there if it can.\n  \
        --recording=FILE  Devices of another machine, as stoker devices --json wrote them there.\n  \
        --explain         Why each is where it is. What has no place is explained in any case.\n  \
        --json            The plan as data.";

    /// Resolves the arguments after `stoker place`.
    ///
    /// # Errors
    /// For any other argument, and without demands.
    pub fn parse(args: &[String]) -> Result<PlaceConfig> {
        let usage = "expected stoker place --demands=FILE [--current=FILE] [--recording=FILE] [--explain] [--json]";
        let (mut demands, mut current, mut recording) = (None, None, None);
        let (mut json, mut explain) = (false, false);
        for arg in args {
            match arg.split_once('=').unwrap_or((arg, "")) {
                ("--json", "") => json = true,
                ("--explain", "") => explain = true,
                ("--demands", path) if !path.is_empty() => demands = Some(path.into()),
                ("--current", path) if !path.is_empty() => current = Some(path.into()),
                ("--recording", path) if !path.is_empty() => recording = Some(path.into()),
                _ => return Err(Error::load(usage)),
            }
        }
        let demands = demands.ok_or_else(|| Error::load(usage))?;
        Ok(PlaceConfig { demands, current, recording, json, explain })
    }
}

/// What `stoker doctor` was told.
#[derive(Clone, Debug)]
pub struct DoctorConfig {
    pub serve: Config,
    /// What would be served; empty when that was not said.
    pub sources: Vec<SourceUri>,
    pub json: bool,
}

impl DoctorConfig {
    pub const HELP: &str = "Looks at the way from here to a model, piece by piece, and says which is at fault and what to do: this\n\
        container's limits, ports and cache, its devices, names, connections, certificates, credentials, the model's files.\n\n\
        Usage: stoker doctor [--json] [FLAGS of stoker serve]\n\n\
        Run it where the server runs, with its environment and flags (kubectl exec POD -- /usr/bin/stoker doctor ...), or\n\
        anywhere with --storage_uri URI and the variables that name the store: AWS_ENDPOINT_URL, MLFLOW_TRACKING_URI, ...";

    /// Resolves the arguments after `stoker doctor`: those of `stoker serve`, of which none has to be there.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn parse(args: &[String], env: &dyn Fn(&str) -> Option<String>) -> Result<DoctorConfig> {
        const SOURCES: [&str; 4] = ["storage_uri", "storage_uris", "model_dir", "model_repository"];
        let (json, mut flags): (Vec<String>, Vec<String>) = args.iter().cloned().partition(|arg| arg == "--json");
        let typed = flags::read(&flags, env);
        let is_said = SOURCES.iter().any(|name| !typed.get(name).text.is_empty());
        if !is_said {
            flags.push("--model_dir=/".to_owned());
        }
        let serve = Config::parse(&flags, env)?;
        let sources = match (&serve.repository, &serve.model.source) {
            _ if !is_said => Vec::new(),
            (Some(repository), _) => vec![SourceUri::Local(repository.directory.clone())],
            (None, SourceUri::Several(parts)) => parts.iter().map(|part| part.uri.clone()).collect(),
            (None, source) => vec![source.clone()],
        };
        Ok(DoctorConfig { serve, sources, json: !json.is_empty() })
    }
}

/// What `stoker pull` brings where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    pub uri: SourceUri,
    pub directory: PathBuf,
    /// Not brought, but handed over to a server that does (`stoker+s3://...`).
    pub handed_over: bool,
}

/// All that `stoker pull` brings.
#[derive(Clone, Debug)]
pub struct PullConfig {
    pub pairs: Vec<Pulled>,
}

impl PullConfig {
    /// Resolves the arguments after `stoker pull`: sources and directories by turns, as KServe gives them to its storage
    /// initializer.
    ///
    /// # Errors
    /// When a source has no directory, or is no URI.
    pub fn parse(args: &[String]) -> Result<PullConfig> {
        if args.is_empty() || !args.len().is_multiple_of(2) {
            return Err(Error::load("expected sources and directories by turns: stoker pull SRC DST [SRC DST ...]"));
        }
        let pair = |pair: &[String]| {
            let (text, handed_over) =
                pair[0].strip_prefix("stoker+").map_or((pair[0].as_str(), false), |text| (text, true));
            Ok(Pulled { uri: uri::parse(text)?, directory: PathBuf::from(&pair[1]), handed_over })
        };
        Ok(PullConfig { pairs: args.chunks(2).map(pair).collect::<Result<_>>()? })
    }
}

/// What `stoker pin` looks up.
#[derive(Clone, Debug)]
pub struct PinConfig {
    pub uri: SourceUri,
    pub cache: Cache,
    pub format: PinFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinFormat {
    Json,
    /// A merge patch for an InferenceService, with annotations and `storageUri`.
    Annotations,
}

impl PinConfig {
    /// Resolves the arguments after `stoker pin`: one URI, `--format`, and the flags of `serve` that are of the cache.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn parse(args: &[String], env: &dyn Fn(&str) -> Option<String>) -> Result<PinConfig> {
        let usage = || Error::load("expected stoker pin URI [--format=json|annotations] [--cache_dir=DIR]");
        let (text, flags) = args.split_first().filter(|(first, _)| !first.starts_with('-')).ok_or_else(usage)?;
        let (formats, flags): (Vec<String>, Vec<String>) =
            flags.iter().cloned().partition(|flag| flag.starts_with("--format="));
        let format = match formats.last().map(|flag| flag.trim_start_matches("--format=")) {
            None | Some("json") => PinFormat::Json,
            Some("annotations") => PinFormat::Annotations,
            Some(_) => return Err(usage()),
        };
        let typed = flags::read(&flags, env);
        if let Some(warning) = typed.warnings.first() {
            return Err(Error::load(format!("{warning}\n{}", usage().message())));
        }
        let mut values = Values { typed: &typed, problems: Vec::new() };
        let cache = cache(&mut values, env);
        if cache.directory.as_os_str() == NO_CACHE {
            values.problem("cache_dir", "has to be a directory here");
        }
        match values.problems.as_slice() {
            [] => Ok(PinConfig { uri: uri::parse(text)?, cache, format }),
            problems => Err(Error::load(problems.join("\n"))),
        }
    }
}
