//! Times one model in this process, without any network: the half of a comparison that another program drives.
//!
//! It loads the model as the server does, then answers each line `ROWS REPEATS` on its input with the nanoseconds of
//! every call on that many rows, so that the driver can alternate between this and its peers.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use lexopt::prelude::*;
use stoker::backend::Model;
use stoker::config::BackendOptions;
use stoker::device::{self, DeviceId, GpuId};
use stoker::model::loader::open_model;
use stoker::tensor::{DType, Shape, Tensor};

#[derive(Debug)]
pub struct Options {
    model: PathBuf,
    rows: PathBuf,
    columns: usize,
    dtype: DType,
    answers: Option<PathBuf>,
    on_gpu: bool,
}

impl Options {
    pub fn parse(args: &mut lexopt::Parser) -> Result<Self> {
        let (mut model, mut rows, mut columns, mut answers, mut dtype) = (None, None, None, None, DType::Fp32);
        let mut on_gpu = false;
        while let Some(arg) = args.next()? {
            match arg {
                Long("model") => model = Some(PathBuf::from(args.value()?)),
                Long("rows") => rows = Some(PathBuf::from(args.value()?)),
                Long("columns") => columns = Some(args.value()?.parse()?),
                Long("fp64") => dtype = DType::Fp64,
                Long("gpu") => on_gpu = true,
                Long("answers") => answers = Some(PathBuf::from(args.value()?)),
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(Self {
            model: model.context("--model is needed")?,
            rows: rows.context("--rows is needed")?,
            columns: columns.context("--columns is needed")?,
            dtype,
            answers,
            on_gpu,
        })
    }
}

pub fn run(options: &Options) -> Result<()> {
    let began = Instant::now();
    let mut model = load(options)?;
    println!("loaded {}", began.elapsed().as_nanos());
    let data = Bytes::from(std::fs::read(&options.rows).context("reading the rows")?);
    let width = options.columns * options.dtype.size().unwrap_or(8);
    if let Some(path) = &options.answers {
        let answers = call(&mut *model, options, data.clone())?;
        std::fs::write(path, answers[0].data()).context("writing the answers")?;
    }
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let [rows, repeats] = line.split_whitespace().map(str::parse).collect::<Result<Vec<usize>, _>>()?[..] else {
            return Err(anyhow!("expected ROWS REPEATS, got {line}"));
        };
        ensure!(rows * width <= data.len(), "there are fewer than {rows} rows");
        let mut nanoseconds = Vec::with_capacity(repeats);
        for repeat in 0..repeats {
            // Other rows each time, as far as there are: a tree's path through one row is soon predicted.
            let start = (repeat * rows) % (data.len() / width - rows + 1);
            let rows = data.slice(start * width..(start + rows) * width);
            let began = Instant::now();
            std::hint::black_box(call(&mut *model, options, rows)?);
            nanoseconds.push(began.elapsed().as_nanos().to_string());
        }
        println!("{}", nanoseconds.join(" "));
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn load(options: &Options) -> Result<Box<dyn Model>> {
    let device = if options.on_gpu { first_gpu()? } else { DeviceId::Cpu };
    let backend = BackendOptions { threads: Some(1), ..BackendOptions::default() };
    let files = stoker::formats::open(&options.model).map_err(|error| anyhow!("{error}"))?;
    open_model(&files, &backend, &device).map_err(|error| anyhow!("{error}"))
}

/// The one that kernels of this process run on.
fn first_gpu() -> Result<DeviceId> {
    let visible = device::record(&|name| std::env::var(name).ok()).visible().map_err(|error| anyhow!("{error}"))?;
    let first = visible.devices.first().context("there is no GPU that this process may use")?;
    Ok(DeviceId::Gpu(GpuId::of(first, visible.devices.len() == 1)))
}

fn call(model: &mut dyn Model, options: &Options, data: Bytes) -> Result<Vec<Tensor>> {
    let rows = data.len() / (options.columns * options.dtype.size().unwrap_or(8));
    let name = model.signature().inputs[0].name.clone();
    let tensor = Shape::new(vec![rows, options.columns])
        .and_then(|shape| Tensor::new(name, options.dtype, shape, data))
        .and_then(|tensor| model.signature().check(vec![tensor]))
        .and_then(|checked| model.run(&checked.inputs, &[0]));
    tensor.map_err(|error| anyhow!("{error}"))
}
