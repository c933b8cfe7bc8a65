//! Which devices a model of a server runs on, among those that run already.

use super::{Demand, Fate, Kind, Placed, Slot, Wants, solve};
use crate::error::{Error, Result};
use crate::text::size;

/// What the operator says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// On a GPU if there is one and the model can run there, else on the CPU.
    #[default]
    Auto,
    Cpu,
    /// On one.
    Gpu,
    /// On each GPU, and each MIG device.
    All,
    /// On these, by the names that `stoker devices` shows or by UUIDs.
    Named(Vec<String>),
}

impl Choice {
    /// # Errors
    /// For an empty name.
    pub fn parse(text: &str) -> Result<Choice, String> {
        Ok(match text {
            "auto" => Choice::Auto,
            "cpu" => Choice::Cpu,
            "gpu" => Choice::Gpu,
            "all" => Choice::All,
            names => {
                let names: Vec<String> = names.split(',').map(|name| name.trim().to_owned()).collect();
                if names.iter().any(String::is_empty) {
                    return Err("is neither auto, cpu, gpu, all nor names of devices (stoker devices)".to_owned());
                }
                Choice::Named(names)
            }
        })
    }

    /// Whether GPUs have to be looked for.
    pub fn may_be_gpu(&self) -> bool {
        *self != Choice::Cpu
    }
}

/// A device, and why it is this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Of the slots.
    pub slot: usize,
    pub why: String,
}

/// A model that is to be placed.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub choice: &'a Choice,
    pub model: &'a str,
    /// So many have to be in memory at least.
    pub bytes: u64,
    /// Whether it runs on a GPU unless something else is said.
    pub prefers_gpus: bool,
}

/// A copy of another model that runs, which has so many bytes of a slot.
#[derive(Clone, Debug)]
pub struct Other {
    pub model: String,
    pub bytes: u64,
    pub slot: usize,
}

/// Chooses among slots, the first of which is the CPU, and of which `uuids` are the UUIDs (that of the CPU is empty). What
/// runs stays where it is.
///
/// # Errors
/// When there is no such device, when the model cannot run there, or has no room: with the numbers of each device.
pub fn choose(asked: Asked, slots: &[Slot], uuids: &[String], others: &[Other]) -> Result<Vec<Chosen>> {
    let Asked { choice, model, bytes, prefers_gpus } = asked;
    let gpus = slots.iter().filter(|slot| slot.kind == Kind::Gpu).count();
    let is_named =
        |place: usize, name: &String| slots[place].name == *name || (!name.is_empty() && uuids[place] == *name);
    let candidates: Vec<usize> = match choice {
        Choice::Named(names) => {
            let find = |name: &String| {
                (0..slots.len()).find(|place| is_named(*place, name)).ok_or_else(|| unknown(name, slots))
            };
            let found: Vec<usize> = names.iter().map(find).collect::<Result<_>>()?;
            if let Some(twice) = (1..found.len()).find(|place| found[..*place].contains(&found[*place])) {
                let name = &names[twice];
                return Err(Error::load(format!(
                    "--device names {name} twice: --instances says how many copies it gets"
                )));
            }
            found
        }
        _ => (0..slots.len()).collect(),
    };
    let (wants, replicas) = match choice {
        Choice::Cpu => (Wants::Only(Kind::Cpu), 1),
        Choice::Auto if prefers_gpus && gpus > 0 => (Wants::Only(Kind::Gpu), 1),
        Choice::Auto => (Wants::Only(Kind::Cpu), 1),
        Choice::Gpu => (Wants::Only(Kind::Gpu), 1),
        Choice::All => {
            let healthy = slots.iter().filter(|slot| slot.kind == Kind::Gpu && slot.fault.is_none()).count();
            (Wants::Only(Kind::Gpu), healthy.max(1))
        }
        Choice::Named(names) => (Wants::Any, names.len()),
    };
    let wants_gpu = match choice {
        Choice::Named(_) => candidates.iter().any(|place| slots[*place].kind == Kind::Gpu),
        _ => wants == Wants::Only(Kind::Gpu),
    };
    if wants_gpu && gpus == 0 {
        return Err(Error::load(
            "there is no GPU that this process may use: stoker devices says what there is and why",
        ));
    }
    if !prefers_gpus && !wants_gpu {
        let why = format!("{}: models of this format run there unless a GPU is asked for", slots[0].name);
        return Ok(vec![Chosen { slot: 0, why }]);
    }
    let slots: Vec<Slot> = candidates.iter().map(|place| slots[*place].clone()).collect();
    let others = others.iter().enumerate().filter_map(|(number, other)| {
        let slot = candidates.iter().position(|place| *place == other.slot)?;
        // Each copy of it is a demand of its own: it is only there to be counted.
        let (model, device) = (format!("{} ({number})", other.model), slots[slot].name.clone());
        Some((Demand::of(&model, other.bytes), Placed { model, replica: 0, device }))
    });
    let (mut demands, current): (Vec<Demand>, Vec<Placed>) = others.unzip();
    demands.push(Demand { replicas, wants, ..Demand::of(model, bytes) });
    let plan = solve(&slots, &demands, &current);
    let moved = plan.copies.iter().find(|copy| matches!(copy.fate, Fate::Goes { from: Some(_), .. }));
    let chosen = plan.copies.iter().filter(|copy| copy.demand == current.len()).map(|copy| {
        let why = plan.explain(copy, &slots, &demands);
        match (copy.fate.slot(), moved) {
            (Some(slot), None) => Ok(Chosen { slot: candidates[slot], why }),
            (Some(_), Some(other)) => {
                let text = plan.explain(other, &slots, &demands);
                let other = &demands[other.demand].model;
                Err(Error::load(format!("it would fit if {other} were unloaded and loaded again after it: {text}")))
            }
            (None, _) => Err(Error::load(format!("it needs {}, for which there is no room: {why}", size(bytes)))),
        }
    });
    chosen.collect()
}

fn unknown(name: &str, slots: &[Slot]) -> Error {
    let names: Vec<&str> = slots.iter().map(|slot| slot.name.as_str()).collect();
    Error::load(format!("--device names {name}, which is not there: there is {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn slot(name: &str, gib: u64, fault: Option<&str>) -> Slot {
        let kind = if name == "cpu" { Kind::Cpu } else { Kind::Gpu };
        let board = name.split('/').next().unwrap().to_owned();
        Slot { name: name.to_owned(), kind, board, memory: gib * GIB, units: 10, fault: fault.map(str::to_owned) }
    }

    fn chosen(choice: &str, gib: u64, prefers_gpus: bool, slots: &[Slot]) -> Result<Vec<String>, String> {
        chosen_beside(&[], choice, gib, prefers_gpus, slots)
    }

    fn chosen_beside(
        others: &[Other],
        choice: &str,
        gib: u64,
        prefers_gpus: bool,
        slots: &[Slot],
    ) -> Result<Vec<String>, String> {
        let uuids: Vec<String> = slots.iter().map(|slot| format!("UUID-{}", slot.name)).collect();
        let choice = Choice::parse(choice).unwrap();
        let asked = Asked { choice: &choice, model: "m", bytes: gib * GIB, prefers_gpus };
        let found = choose(asked, slots, &uuids, others).map_err(|error| error.to_string())?;
        let mut names: Vec<String> = found.into_iter().map(|chosen| slots[chosen.slot].name.clone()).collect();
        names.sort();
        Ok(names)
    }

    #[test]
    fn a_model_runs_where_it_can_and_is_told_to() {
        let none = [slot("cpu", 8, None)];
        let some =
            [slot("cpu", 8, None), slot("gpu0", 4, None), slot("gpu1", 80, None), slot("gpu2", 80, Some("broken"))];
        let of = |choice, slots| chosen(choice, 5, true, slots).unwrap();
        assert_eq!(of("auto", &none), ["cpu"]);
        assert_eq!(of("auto", &some), ["gpu1"]);
        assert_eq!(of("cpu", &some), ["cpu"]);
        assert_eq!(of("UUID-gpu1,cpu", &some), ["cpu", "gpu1"]);
        assert_eq!(chosen("auto", 5, false, &some).unwrap(), ["cpu"]);
        assert_eq!(chosen("gpu", 5, false, &some).unwrap(), ["gpu1"], "when asked");
        assert_eq!(of("gpu", &some), ["gpu1"]);
        assert_eq!(chosen("all", 3, true, &some).unwrap(), ["gpu0", "gpu1"]);
    }

    #[test]
    fn each_mig_device_of_a_gpu_gets_a_copy() {
        let slices = [slot("cpu", 8, None), slot("gpu0/1/0", 10, None), slot("gpu0/2/0", 10, None)];
        assert_eq!(chosen("all", 5, true, &slices).unwrap(), ["gpu0/1/0", "gpu0/2/0"]);
    }

    #[test]
    fn what_runs_counts_and_stays() {
        let slots = [slot("cpu", 8, None), slot("gpu0", 10, None), slot("gpu1", 10, None), slot("gpu2", 12, None)];
        let other = |slot, gib| Other { model: "other".to_owned(), bytes: gib * GIB, slot };
        let of = |others: &[Other], choice, gib| chosen_beside(others, choice, gib, true, &slots);
        assert_eq!(of(&[other(1, 1), other(3, 1)], "auto", 2).unwrap(), ["gpu1"], "where nothing is");
        assert_eq!(of(&[other(1, 9), other(2, 9), other(3, 1)], "auto", 2).unwrap(), ["gpu2"], "where there is room");
        assert_eq!(of(&[other(1, 2), other(1, 2), other(2, 9)], "gpu0,gpu1", 5).unwrap_err().lines().count(), 3);
        let full = of(&[other(1, 9), other(2, 9), other(3, 11)], "auto", 2).unwrap_err();
        assert!(full.contains("gpu2: 1.0 GiB of 12.0 GiB are free"), "{full}");
        let tight = of(&[other(3, 5), other(1, 9), other(2, 4)], "auto", 8).unwrap_err();
        assert!(tight.contains("it would fit if other (2) were unloaded and loaded again after it"), "{tight}");
    }

    #[test]
    fn what_cannot_be_is_told_with_numbers() {
        let none = [slot("cpu", 8, None)];
        let some = [slot("cpu", 8, None), slot("gpu0", 4, None), slot("gpu1", 80, Some("broken"))];
        let why = |choice, gib, runs, slots: &[Slot]| chosen(choice, gib, runs, slots).unwrap_err();
        assert!(why("gpu", 1, true, &none).contains("there is no GPU that this process may use"));
        assert!(why("all", 1, true, &none).contains("there is no GPU"));
        assert!(
            why("gpu7", 1, true, &some).contains("--device names gpu7, which is not there: there is cpu, gpu0, gpu1")
        );
        let full = why("auto", 5, true, &some);
        assert!(
            full.contains("it needs 5.0 GiB, for which there is no room")
                && full.contains("gpu0: 4.0 GiB of 4.0 GiB are free"),
            "{full}"
        );
        assert!(full.contains("gpu1: not used: broken"), "{full}");
        assert!(why("cpu", 9, true, &none).contains("cpu: 8.0 GiB of 8.0 GiB are free"));
        assert!(why("gpu0,UUID-gpu0", 1, true, &some).contains("--device names UUID-gpu0 twice"));
        assert!(Choice::parse("gpu0,").is_err() && Choice::parse("").is_err());
    }
}
