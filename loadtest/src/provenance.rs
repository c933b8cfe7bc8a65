//! Where a result comes from: without the command, the date, the code and the machine, a number
//! kept in a file says nothing.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;
use std::{env, fs};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
pub struct Provenance {
    pub command: String,
    /// UTC, in RFC 3339 to the second.
    pub date: String,
    /// Absent outside a git repository; ends in `-dirty` if the code is not that of the commit.
    pub commit: Option<String>,
    pub cpu: String,
    /// Cores this process may run on.
    pub cores: usize,
    pub kernel: String,
}

impl Provenance {
    pub fn collect(cores: usize) -> Result<Self> {
        Ok(Self {
            command: command_line(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            commit: git_commit(),
            cpu: cpu_model(&read("/proc/cpuinfo")?).to_owned(),
            cores,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        })
    }
}

/// The command as it was typed, less the folder the program was built in.
fn command_line() -> String {
    let mut words = env::args();
    let program = words.next().unwrap_or_default();
    let program = Path::new(&program).file_name().unwrap_or_default();
    std::iter::once(program.to_string_lossy().into_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

fn git_commit() -> Option<String> {
    let git = Command::new("git")
        .args(["describe", "--always", "--dirty", "--exclude=*"])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&git.stdout).trim().to_owned())
}

/// Arm kernels name no model.
fn cpu_model(cpuinfo: &str) -> &str {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == "model name")
        .map_or("unknown", |(_, model)| model.trim())
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_model_is_the_first_core_s() {
        let cpuinfo = "processor\t: 0\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\n";
        assert_eq!(cpu_model(cpuinfo), "AMD EPYC");
        assert_eq!(cpu_model("processor\t: 0\n"), "unknown");
    }
}
