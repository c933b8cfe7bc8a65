//! Where libonnxruntime is, and loading it once per process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;

use crate::error::{Error, Result};

/// The one version this build was made for; the crate `ort` asks it for API 31.
pub const FILE_NAME: &str = "libonnxruntime.so.1.31.1";

/// The process's environment. The first call decides which library file it is.
///
/// # Errors
/// When the file is missing or cannot be loaded; the message says where it was looked for and how to get it.
pub fn environment(configured: Option<&Path>) -> Result<Environment> {
    static LOADED: Mutex<Option<Environment>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*loaded {
        return Ok(environment.clone());
    }
    let path = find(configured, std::env::current_exe().ok().as_deref())?;
    let failed = |error: &dyn std::fmt::Display| Error::load(format!("{}: cannot be loaded: {error}", path.display()));
    let builder = ort::environment::init_from(&path).map_err(|error| failed(&error))?;
    let environment = builder
        .with_name("stoker")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|error| failed(&error))?;
    environment.set_log_level(LogLevel::Warning);
    tracing::debug!(path = %path.display(), "onnx runtime loaded");
    Ok(loaded.insert(environment).clone())
}

/// The configured file, or the first that exists near the executable: beside it, in `lib/`, or in the folder that
/// `runtimes/fetch-onnxruntime` fills (`target/onnxruntime/` for a binary anywhere under `target/`).
fn find(configured: Option<&Path>, executable: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = configured {
        return if path.is_file() { Ok(path.to_owned()) } else { Err(missing(&[path.to_owned()])) };
    }
    let folders = executable.into_iter().flat_map(|path| path.ancestors().skip(1).take(3));
    let candidates: Vec<PathBuf> =
        folders.flat_map(|folder| ["", "lib", "onnxruntime"].map(|inner| folder.join(inner).join(FILE_NAME))).collect();
    candidates.iter().find(|path| path.is_file()).cloned().ok_or_else(|| missing(&candidates))
}

fn missing(candidates: &[PathBuf]) -> Error {
    let candidates: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
    Error::load(format!(
        "ONNX Runtime is missing, looked for {}: run runtimes/fetch-onnxruntime, \
         or name the file with --onnxruntime_library",
        candidates.join(", ")
    ))
}

/// ONNX Runtime's own messages, as events like any other.
fn log(level: LogLevel, category: &str, _id: &str, location: &str, message: &str) {
    match level {
        // A node that fails reaches its caller as an error anyway: as a server's error it would alarm at a bad input.
        LogLevel::Fatal => tracing::error!(target: "onnxruntime", category, location, "{message}"),
        LogLevel::Error | LogLevel::Warning => tracing::warn!(target: "onnxruntime", category, location, "{message}"),
        LogLevel::Info | LogLevel::Verbose => tracing::debug!(target: "onnxruntime", category, location, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_reported_with_where_and_how() {
        let error = find(None, Some(Path::new("/nowhere/target/release/stoker"))).unwrap_err();
        assert!(error.message().contains("/nowhere/target/onnxruntime/libonnxruntime.so.1.31.1"), "{error}");
        assert!(error.message().contains("run runtimes/fetch-onnxruntime"), "{error}");
        let error = find(Some(Path::new("/nowhere/lib.so")), None).unwrap_err();
        assert!(error.message().contains("looked for /nowhere/lib.so"), "{error}");
    }
}
