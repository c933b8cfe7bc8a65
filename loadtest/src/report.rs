//! Kept runs as one page with tables and plots.

mod charts;
mod page;
mod plot;
mod scale;
mod subjects;
mod tables;
mod text;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use lexopt::prelude::*;

pub use self::page::page;
use crate::run::kept::Run;

#[derive(Debug)]
pub struct Options {
    /// And what each is to be called.
    files: Vec<(PathBuf, Option<String>)>,
    out: PathBuf,
}

impl Options {
    pub fn parse(args: &mut lexopt::Parser) -> Result<Self> {
        let (mut files, mut out) = (Vec::<(PathBuf, Option<String>)>::new(), None);
        while let Some(arg) = args.next()? {
            match arg {
                Value(file) => files.push((file.into(), None)),
                Long("label") => {
                    let (_, label) = files.last_mut().context("--label follows the file that it is for")?;
                    *label = Some(args.value()?.string()?);
                }
                Long("out") => out = Some(PathBuf::from(args.value()?)),
                other => return Err(other.unexpected().into()),
            }
        }
        ensure!(!files.is_empty(), "which runs?");
        Ok(Self { files, out: out.context("--out is needed")? })
    }
}

pub fn run(options: &Options) -> Result<()> {
    let mut runs = Vec::new();
    for (file, label) in &options.files {
        let run = Run::read(file)?;
        runs.push(Run { label: label.clone().or(run.label), ..run });
    }
    std::fs::write(&options.out, page(&runs)).with_context(|| options.out.display().to_string())
}
