//! Why a model is where it is, or nowhere, in words and numbers.

use super::{Copy, Demand, Fate, Kind, Objection, Plan, Slot, Wants, Why, objection};
use crate::text::size;

impl Plan {
    /// One line for a copy, such as `gpu0: the least busy (0.25; gpu1 0.50) of 2 with room for 1.5 GiB`. What was refused
    /// has a line for each device.
    pub fn explain(&self, copy: &Copy, slots: &[Slot], demands: &[Demand]) -> String {
        let demand = &demands[copy.demand];
        let name = |slot: &usize| slots[*slot].name.as_str();
        match &copy.fate {
            Fate::Stays { slot } => format!("{}: it runs there", name(slot)),
            Fate::Goes { slot, from, why } => {
                let moved = from.map(|from| format!(" (until now on {})", name(&from))).unwrap_or_default();
                format!("{}{moved}: {}", name(slot), reason(why, demand, *slot, slots, demands))
            }
            Fate::Refused => self.refusal(demand, slots),
        }
    }

    fn refusal(&self, demand: &Demand, slots: &[Slot]) -> String {
        let free = |slot: usize| slots[slot].memory.saturating_sub(self.taken[slot].bytes);
        let mut text = format!("no device has room for {}", needs(demand));
        if slots.is_empty() {
            text.push_str(": there is none");
        }
        let mut most = 0;
        for (place, slot) in slots.iter().enumerate() {
            let reason = match objection(demand, slot) {
                Some(Objection::Fault(fault)) => format!("not used: {fault}"),
                Some(Objection::Kind(kind)) => format!("it is to run on {}", kind.of()),
                Some(Objection::Slow { seconds, slo }) => {
                    format!("a row takes {:.1} ms there, more than the {:.1} ms allowed", seconds * 1e3, slo * 1e3)
                }
                None if demand.memory() <= free(place) => {
                    "has room, but another copy or a model to be kept apart is there".to_owned()
                }
                None => {
                    most = most.max(free(place));
                    format!("{} of {} are free", size(free(place)), size(slot.memory))
                }
            };
            text.push_str(&format!("\n  {}: {reason}", slot.name));
        }
        if let Some(rows) = demand.rows_within(most) {
            text.push_str(&format!("\n  with at most {rows} rows a batch it would fit (--max_batch_size)"));
        }
        text
    }
}

fn reason(why: &Why, demand: &Demand, slot: usize, slots: &[Slot], demands: &[Demand]) -> String {
    let memory = size(demand.memory());
    match why {
        Why::MakesRoom { demand } => {
            format!("it makes room for {}, which fits nowhere else", demands[*demand].model)
        }
        Why::LeastBusy { with_room: 1, .. } => format!("the only one with room for {memory}"),
        Why::LeastBusy { with_room, load, next } => {
            let next = next.map(|(next, load)| format!("; {} {load:.2}", slots[next].name)).unwrap_or_default();
            let prefers = match demand.wants {
                Wants::Prefer(kind) if kind == slots[slot].kind => format!(", being {}", kind.of()),
                _ => String::new(),
            };
            format!("the least busy ({load:.2}{next}) of {with_room} with room for {memory}{prefers}")
        }
    }
}

fn needs(demand: &Demand) -> String {
    let total = size(demand.memory());
    let workspace = demand.memory() - demand.weights.min(demand.memory());
    if workspace == 0 {
        return format!("{total} (weights)");
    }
    let (weights, workspace) = (size(demand.weights), size(workspace));
    format!("{total} ({weights} weights, {workspace} for batches of {} rows)", demand.max_rows)
}

impl Demand {
    /// The largest batch with which so much memory is enough.
    fn rows_within(&self, bytes: u64) -> Option<u64> {
        let left = bytes.checked_sub(self.memory_with(0))?;
        left.checked_div(self.workspace_per_row).filter(|rows| *rows > 0)
    }
}

impl Kind {
    const fn of(self) -> &'static str {
        match self {
            Kind::Cpu => "a CPU",
            Kind::Gpu => "a GPU",
        }
    }
}
