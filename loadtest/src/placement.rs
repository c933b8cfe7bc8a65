//! What deciding costs which model runs where: 1,000 models on 64 devices, large and small, from plenty of room to much too
//! little; and again with the plan in place, as after each change.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use stoker::model::placement::{Busy, Demand, Kind, Placed, Plan, Slot, Wants, solve};

use crate::rounds::Options;

const MODELS: u64 = 1000;
const DEVICES: u64 = 64;
const MIB: u64 = 1 << 20;
/// Parts of the devices' memory that the models need together.
const FILLED: [f64; 4] = [0.5, 0.9, 0.99, 1.5];

#[derive(Serialize)]
struct Measured {
    filled: f64,
    milliseconds_from_nothing: f64,
    milliseconds_again: f64,
    milliseconds_one_device_lost: f64,
    refused: usize,
}

#[derive(Serialize)]
struct Seen {
    models: u64,
    devices: u64,
    measured: Vec<Measured>,
}

pub fn run(options: &Options) -> Result<()> {
    let measured: Vec<Measured> = FILLED.into_iter().map(|filled| measure(filled, options)).collect();
    println!("| memory needed | from nothing | again | one device lost | refused |\n|---:|---:|---:|---:|---:|");
    for seen in &measured {
        println!(
            "| {} | {:.2} ms | {:.2} ms | {:.2} ms | {} |",
            seen.filled,
            seen.milliseconds_from_nothing,
            seen.milliseconds_again,
            seen.milliseconds_one_device_lost,
            seen.refused
        );
    }
    options.keep("placement", &Seen { models: MODELS, devices: DEVICES, measured })
}

fn measure(filled: f64, options: &Options) -> Measured {
    let slots: Vec<Slot> = (0..DEVICES).map(slot).collect();
    let memory: u64 = slots.iter().map(|slot| slot.memory).sum();
    let demands = demands(memory, filled);
    let plan = solve(&slots, &demands, &[]);
    let current = placed(&plan, &slots, &demands);
    let mut lost = slots.clone();
    lost[3].fault = Some("lost".to_owned());
    let milliseconds = |slots: &[Slot], current: &[Placed]| {
        let round = || {
            let began = Instant::now();
            black_box(solve(black_box(slots), black_box(&demands), black_box(current)));
            began.elapsed()
        };
        options.median(round) * 1e3
    };
    Measured {
        filled,
        milliseconds_from_nothing: milliseconds(&slots, &[]),
        milliseconds_again: milliseconds(&slots, &current),
        milliseconds_one_device_lost: milliseconds(&lost, &current),
        refused: plan.copies.iter().filter(|copy| copy.fate.slot().is_none()).count(),
    }
}

/// Whole GPUs of 80 GiB and MIG devices of 10, 20 and 40, two of each on a board.
fn slot(number: u64) -> Slot {
    let eighths = [8, 1, 2, 4][usize::try_from(number % 4).unwrap_or_default()];
    Slot {
        name: format!("gpu{number}"),
        kind: Kind::Gpu,
        board: format!("board{}", number / 2),
        memory: eighths * 10 * 1024 * MIB,
        units: u32::try_from(eighths * 16).unwrap_or(1),
        fault: None,
    }
}

/// Sizes from about 30 MiB to 30 GiB, few of them large, as they are in practice, which need that part of the memory.
fn demands(memory: u64, filled: f64) -> Vec<Demand> {
    let mut state = 7;
    let mut random = || {
        state = (state * 1_103_515_245 + 12_345) % (1 << 31);
        state as f64 / (1u64 << 31) as f64
    };
    let sizes: Vec<f64> = (0..MODELS).map(|_| 10f64.powf(1.5 + 3.0 * random().powi(2))).collect();
    let scale = memory as f64 * filled / sizes.iter().sum::<f64>();
    let demand = |(number, size): (usize, &f64)| Demand {
        model: format!("model{number}"),
        replicas: 1,
        wants: Wants::Only(Kind::Gpu),
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // sizes of models
        weights: (size * scale) as u64,
        workspace: 0,
        workspace_per_row: 0,
        max_rows: 1,
        busy: Busy { cpu: 0.0, gpu: random() },
        takes: None,
        slo_seconds: None,
        anti_affinity: None,
    };
    sizes.iter().enumerate().map(demand).collect()
}

fn placed(plan: &Plan, slots: &[Slot], demands: &[Demand]) -> Vec<Placed> {
    let placed = plan.copies.iter().filter_map(|copy| {
        let device = slots[copy.fate.slot()?].name.clone();
        Some(Placed { model: demands[copy.demand].model.clone(), replica: copy.replica, device })
    });
    placed.collect()
}
