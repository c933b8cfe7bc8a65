//! `stoker place`: which model would run on which device, and why.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::PlaceConfig;
use crate::device;
use crate::error::{Error, Result};
use crate::model::placement::slots::slots;
use crate::model::placement::{Demand, Placed, Plan, Slot, solve};
use crate::text::{size, table};

/// Places what a file asks for on the devices of this machine, or of one that was written down.
///
/// # Errors
/// When a file cannot be read, a model is named twice, or something has no place: the message then is the plan.
pub fn place(config: &PlaceConfig, env: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let recording = device::recorded_or_here(config.recording.as_deref(), env)?;
    let visible = recording.visible()?;
    let demands: Vec<Demand> = read(&config.demands)?;
    let mut names: Vec<&str> = demands.iter().map(|demand| demand.model.as_str()).collect();
    names.sort_unstable();
    if let Some([twice, _]) = names.array_windows().find(|[one, other]| one == other) {
        return Err(Error::load(format!("{}: {twice} is there twice", config.demands.display())));
    }
    let current: Vec<Line> = config.current.as_deref().map_or(Ok(Vec::new()), read)?;
    let current: Vec<Placed> = current.into_iter().filter_map(Line::placed).collect();
    let slots = slots(&recording.cpu, &visible.devices);
    let plan = solve(&slots, &demands, &current);
    let text = if config.json { json(&plan, &slots, &demands) } else { text(&plan, &slots, &demands, config.explain) };
    let refused = plan.copies.iter().filter(|copy| copy.fate.slot().is_none()).count();
    if refused == 0 {
        return Ok(text);
    }
    Err(Error::load(format!("{refused} of {} copies of models have no place\n{text}", plan.copies.len())))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let place = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| Error::load(format!("{place}: {error}")))?;
    serde_json::from_str(&text).map_err(|error| Error::load(format!("{place}: {error}")))
}

/// A copy and its place, as `--json` writes and `--current` reads it.
#[derive(Serialize, Deserialize)]
struct Line {
    model: String,
    replica: usize,
    device: Option<String>,
    #[serde(default)]
    why: String,
}

impl Line {
    fn placed(self) -> Option<Placed> {
        let Line { model, replica, device, .. } = self;
        Some(Placed { model, replica, device: device? })
    }
}

fn json(plan: &Plan, slots: &[Slot], demands: &[Demand]) -> String {
    let lines = plan.copies.iter().map(|copy| Line {
        model: demands[copy.demand].model.clone(),
        replica: copy.replica,
        device: copy.fate.slot().map(|slot| slots[slot].name.clone()),
        why: plan.explain(copy, slots, demands),
    });
    serde_json::to_string_pretty(&lines.collect::<Vec<_>>()).expect("text and numbers")
}

fn text(plan: &Plan, slots: &[Slot], demands: &[Demand], explain: bool) -> String {
    let rows: Vec<[String; 4]> = plan
        .copies
        .iter()
        .map(|copy| {
            let demand = &demands[copy.demand];
            let device = copy.fate.slot().map_or("-", |slot| &slots[slot].name);
            [demand.model.clone(), copy.replica.to_string(), size(demand.memory()), device.to_owned()]
        })
        .collect();
    let mut text = table(&["MODEL", "COPY", "MEMORY", "DEVICE"], &rows);
    let rows: Vec<[String; 5]> = slots
        .iter()
        .zip(&plan.taken)
        .map(|(slot, taken)| {
            let (memory, bytes) = (size(slot.memory), size(taken.bytes));
            [slot.name.clone(), taken.models.to_string(), memory, bytes, format!("{:.2}", taken.load)]
        })
        .collect();
    text.push_str("\n\n");
    text.push_str(&table(&["DEVICE", "COPIES", "MEMORY", "TAKEN", "BUSY"], &rows));
    for copy in plan.copies.iter().filter(|copy| explain || copy.fate.slot().is_none()) {
        let why = plan.explain(copy, slots, demands);
        text.push_str(&format!("\n\n{} ({}): {why}", demands[copy.demand].model, copy.replica));
    }
    text
}
