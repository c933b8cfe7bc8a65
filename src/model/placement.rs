//! Which model runs on which device. Pure: devices and demands in, a plan out, with the reasons.
//!
//! Memory comes first: nothing is placed where it does not fit. Of the devices that have room, the one is taken that is
//! least busy afterwards, as far as what models need is known; and where nothing is known yet, models are spread by number.
//! What runs stays where it is unless it must go: its device has failed, or another model fits nowhere else and one move
//! makes room for it. So the same demands on the same devices change nothing.
//!
//! Large models are placed first (best fit decreasing, within 11/9 of the best packing for devices of one size: Johnson,
//! "Near-optimal bin packing algorithms", 1973), each with its copies on different GPUs where there are several.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub mod choice;
mod explain;
pub mod slots;
#[cfg(test)]
mod tests;

/// A device, as placement sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    pub name: String,
    pub kind: Kind,
    /// What fails together: the GPU, whichever part of it this is.
    pub board: String,
    /// Bytes that models may take.
    pub memory: u64,
    /// Multiprocessors or CPUs: what of its kind does more at a time.
    pub units: u32,
    /// Why nothing may run there.
    pub fault: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Cpu,
    Gpu,
}

/// What one model needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demand {
    pub model: String,
    /// Copies, each on a device of its own.
    #[serde(default = "one")]
    pub replicas: usize,
    #[serde(default)]
    pub wants: Wants,
    /// Bytes, before any batch.
    pub weights: u64,
    /// Bytes more while a batch is computed, whatever its size.
    #[serde(default)]
    pub workspace: u64,
    /// Bytes more for each of its rows.
    #[serde(default)]
    pub workspace_per_row: u64,
    #[serde(default = "one")]
    pub max_rows: usize,
    /// How many units of a device of that kind all its copies together keep busy; 0 when it is not known.
    #[serde(default)]
    pub busy: Busy,
    /// How long one row takes.
    #[serde(default)]
    pub takes: Option<Takes>,
    /// How long one row may take, in seconds.
    #[serde(default)]
    pub slo_seconds: Option<f64>,
    /// Models with the same word here never share a board.
    #[serde(default)]
    pub anti_affinity: Option<String>,
}

const fn one() -> usize {
    1
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wants {
    #[default]
    Any,
    /// The other kind only when there is no room on this one.
    Prefer(Kind),
    Only(Kind),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Busy {
    #[serde(default)]
    pub cpu: f64,
    #[serde(default)]
    pub gpu: f64,
}

/// What was measured on a device of so many units.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Takes {
    pub seconds: f64,
    pub kind: Kind,
    pub units: u32,
}

impl Demand {
    /// Of one copy, on whatever there is.
    pub fn of(model: &str, weights: u64) -> Demand {
        Demand {
            model: model.to_owned(),
            replicas: 1,
            wants: Wants::Any,
            weights,
            workspace: 0,
            workspace_per_row: 0,
            max_rows: 1,
            busy: Busy::default(),
            takes: None,
            slo_seconds: None,
            anti_affinity: None,
        }
    }

    /// Bytes that a copy takes at most.
    pub fn memory(&self) -> u64 {
        self.memory_with(self.max_rows)
    }

    fn memory_with(&self, rows: usize) -> u64 {
        let batch = self.workspace_per_row.saturating_mul(rows as u64);
        self.weights.saturating_add(self.workspace).saturating_add(batch)
    }

    /// The part of such a device that a copy keeps busy.
    fn load_on(&self, slot: &Slot) -> f64 {
        let busy = match slot.kind {
            Kind::Cpu => self.busy.cpu,
            Kind::Gpu => self.busy.gpu,
        };
        #[allow(clippy::cast_precision_loss)] // a few
        let copies = self.replicas.max(1) as f64;
        busy / copies / f64::from(slot.units.max(1))
    }

    /// How long one row takes there, as far as it is known. A smaller device is slower; a larger one not faster, for one row
    /// may not fill it.
    fn seconds_on(&self, slot: &Slot) -> Option<f64> {
        let takes = self.takes.filter(|takes| takes.kind == slot.kind)?;
        Some(takes.seconds * (f64::from(takes.units) / f64::from(slot.units.max(1))).max(1.0))
    }
}

/// A copy of a model on a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placed {
    pub model: String,
    pub replica: usize,
    pub device: String,
}

/// What is to be where.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// In the order of the demands.
    pub copies: Vec<Copy>,
    /// By device: bytes and the part of its time that are taken.
    pub taken: Vec<Taken>,
}

/// What becomes of a copy.
#[derive(Clone, Debug, PartialEq)]
pub struct Copy {
    /// Of the demands.
    pub demand: usize,
    pub replica: usize,
    pub fate: Fate,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// It is there already.
    Stays {
        slot: usize,
    },
    Goes {
        slot: usize,
        from: Option<usize>,
        why: Why,
    },
    /// There is no room for it.
    Refused,
}

impl Fate {
    pub fn slot(&self) -> Option<usize> {
        match self {
            Fate::Stays { slot } | Fate::Goes { slot, .. } => Some(*slot),
            Fate::Refused => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Why {
    /// The least busy of those with room.
    LeastBusy {
        with_room: usize,
        load: f64,
        /// The second choice, and how busy it would have been.
        next: Option<(usize, f64)>,
    },
    /// It makes room for another model, which fits nowhere else.
    MakesRoom { demand: usize },
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Taken {
    pub bytes: u64,
    pub load: f64,
    pub models: usize,
}

/// Finds a place for everything that fits. The same plan comes out again when it is what runs.
pub fn solve(slots: &[Slot], demands: &[Demand], current: &[Placed]) -> Plan {
    let mut solver = Solver::new(slots, demands);
    solver.keep(current);
    // A move may leave room for what had none before it.
    while solver.make_safe() | solver.place_all() {}
    Plan { copies: solver.copies, taken: solver.taken }
}

struct Solver<'a> {
    slots: &'a [Slot],
    demands: &'a [Demand],
    copies: Vec<Copy>,
    /// By demand, its first copy.
    first: Vec<usize>,
    taken: Vec<Taken>,
    /// By slot, the copies there.
    on: Vec<BTreeSet<usize>>,
    /// Boards of each word of anti-affinity, with how many copies are there.
    groups: BTreeMap<&'a str, BTreeMap<&'a str, usize>>,
    /// By copy, where it runs now.
    from: Vec<Option<usize>>,
    /// Copies in the order in which they choose.
    order: Vec<usize>,
}

impl<'a> Solver<'a> {
    fn new(slots: &'a [Slot], demands: &'a [Demand]) -> Solver<'a> {
        let mut copies = Vec::new();
        let mut first = Vec::new();
        for (demand, asked) in demands.iter().enumerate() {
            first.push(copies.len());
            copies.extend((0..asked.replicas).map(|replica| Copy { demand, replica, fate: Fate::Refused }));
        }
        let mut order: Vec<usize> = (0..copies.len()).collect();
        // Stable: those of equal size in the order in which they were asked for.
        order.sort_by_key(|copy| std::cmp::Reverse(demands[copies[*copy].demand].memory()));
        Solver {
            from: vec![None; copies.len()],
            taken: vec![Taken::default(); slots.len()],
            on: vec![BTreeSet::new(); slots.len()],
            groups: BTreeMap::new(),
            slots,
            demands,
            copies,
            first,
            order,
        }
    }

    /// Leaves what runs where it is, if it may be there.
    fn keep(&mut self, current: &[Placed]) {
        let by_name = |names: &mut dyn Iterator<Item = &'a str>| -> BTreeMap<&'a str, usize> {
            names.enumerate().map(|(place, name)| (name, place)).collect()
        };
        let (slots, demands) = (self.slots, self.demands);
        let slot_of = by_name(&mut slots.iter().map(|slot| slot.name.as_str()));
        let demand_of = by_name(&mut demands.iter().map(|demand| demand.model.as_str()));
        for placed in current {
            let (Some(&demand), Some(&slot)) =
                (demand_of.get(placed.model.as_str()), slot_of.get(placed.device.as_str()))
            else {
                continue;
            };
            if placed.replica >= demands[demand].replicas {
                continue;
            }
            let copy = self.first[demand] + placed.replica;
            if self.from[copy].is_some() {
                continue; // named twice
            }
            self.from[copy] = Some(slot);
            if self.may_run(copy, slot) {
                self.put(copy, slot, Fate::Stays { slot });
            }
        }
    }

    /// Takes away from devices on which more runs than fits by now, as little as possible of what fits elsewhere. What
    /// cannot go stays: it does run. Says whether anything moved.
    fn make_safe(&mut self) -> bool {
        let mut moved = false;
        for slot in 0..self.slots.len() {
            while let Some(over) = self.taken[slot].bytes.checked_sub(self.slots[slot].memory).filter(|over| *over > 0)
            {
                let helps = |copy: &usize| self.memory(*copy) > 0 && self.best(*copy, Some(slot)).is_some();
                let mut movable: Vec<usize> = self.on[slot].iter().copied().filter(helps).collect();
                movable.sort_by_key(|copy| self.memory(*copy));
                let enough = movable.iter().find(|copy| self.memory(**copy) >= over);
                let Some(&copy) = enough.or(movable.last()) else { break };
                self.take(copy);
                moved |= self.place(copy, Some(slot));
            }
        }
        moved
    }

    /// Places what has no place. Says whether anything moved.
    fn place_all(&mut self) -> bool {
        let mut moved = false;
        for copy in self.order.clone() {
            if self.copies[copy].fate == Fate::Refused && !self.place(copy, None) {
                moved |= self.make_room(copy);
            }
        }
        moved
    }

    /// Puts a copy where it is best, if there is such a place.
    fn place(&mut self, copy: usize, but_not: Option<usize>) -> bool {
        let Some(Best { slot, why }) = self.best(copy, but_not) else { return false };
        let fate = match self.from[copy] {
            Some(from) if from == slot => Fate::Stays { slot },
            from => Fate::Goes { slot, from, why },
        };
        self.put(copy, slot, fate);
        true
    }

    /// The best device that has room.
    fn best(&self, copy: usize, but_not: Option<usize>) -> Option<Best> {
        let demand = &self.demands[self.copies[copy].demand];
        let mut with_room = 0;
        let mut ranked: [Option<(Rank, usize)>; 2] = [None, None];
        for slot in (0..self.slots.len()).filter(|slot| Some(*slot) != but_not) {
            if !self.has_room(slot, demand.memory()) || !self.may_run(copy, slot) {
                continue;
            }
            with_room += 1;
            let rank = self.rank(copy, slot);
            if ranked[0].is_none_or(|(best, _)| rank < best) {
                ranked = [Some((rank, slot)), ranked[0]];
            } else if ranked[1].is_none_or(|(second, _)| rank < second) {
                ranked[1] = Some((rank, slot));
            }
        }
        let [Some((rank, slot)), next] = ranked else { return None };
        let next = next.map(|(rank, slot)| (slot, rank.load));
        Some(Best { slot, why: Why::LeastBusy { with_room, load: rank.load, next } })
    }

    /// Moves one copy elsewhere, the smallest that makes room for this one.
    fn make_room(&mut self, copy: usize) -> bool {
        let need = self.memory(copy);
        let usable = (0..self.slots.len()).filter(|slot| self.slots[*slot].fault.is_none());
        let most_free = usable.map(|slot| self.free(slot)).max().unwrap_or_default();
        let candidate = |slot: usize| {
            if need > self.slots[slot].memory || !self.may_run(copy, slot) {
                return None;
            }
            let lacking = self.taken[slot].bytes.checked_add(need)?.checked_sub(self.slots[slot].memory)?;
            let helps = |other: &usize| (lacking..=most_free).contains(&self.memory(*other));
            let mut by_size: Vec<usize> = self.on[slot].iter().copied().filter(helps).collect();
            by_size.sort_by_key(|other| self.memory(*other));
            let other = by_size.into_iter().find(|other| self.best(*other, Some(slot)).is_some())?;
            Some((self.memory(other), slot, other))
        };
        let Some((_, slot, other)) = (0..self.slots.len()).filter_map(candidate).min() else { return false };
        self.take(other);
        // First the one that goes: its new place must not be the one that is being made.
        let target = self.best(other, Some(slot)).expect("it was found with more taken").slot;
        let fate = match self.from[other] {
            Some(from) if from == target => Fate::Stays { slot: target },
            from => Fate::Goes { slot: target, from, why: Why::MakesRoom { demand: self.copies[copy].demand } },
        };
        self.put(other, target, fate);
        let why = Why::LeastBusy { with_room: 1, load: self.rank(copy, slot).load, next: None };
        self.put(copy, slot, Fate::Goes { slot, from: self.from[copy], why });
        true
    }

    fn memory(&self, copy: usize) -> u64 {
        self.demands[self.copies[copy].demand].memory()
    }

    fn has_room(&self, slot: usize, bytes: u64) -> bool {
        self.taken[slot].bytes.checked_add(bytes).is_some_and(|bytes| bytes <= self.slots[slot].memory)
    }

    fn free(&self, slot: usize) -> u64 {
        self.slots[slot].memory.saturating_sub(self.taken[slot].bytes)
    }

    /// Whether a copy may run there, if there were room.
    fn may_run(&self, copy: usize, slot: usize) -> bool {
        let Copy { demand, replica, .. } = self.copies[copy];
        let is_beside_itself = || {
            let first = self.first[demand];
            let others = (0..self.demands[demand].replicas).filter(|other| *other != replica);
            others.map(|other| first + other).any(|other| self.on[slot].contains(&other))
        };
        objection(&self.demands[demand], &self.slots[slot]).is_none()
            && !self.is_kept_off(copy, slot)
            && !is_beside_itself()
    }

    /// Whether models that it must not share a board with are there.
    fn is_kept_off(&self, copy: usize, slot: usize) -> bool {
        let Some(group) = &self.demands[self.copies[copy].demand].anti_affinity else { return false };
        let board = self.slots[slot].board.as_str();
        self.groups.get(group.as_str()).and_then(|boards| boards.get(board)).is_some_and(|count| *count > 0)
    }

    fn rank(&self, copy: usize, slot: usize) -> Rank {
        let demand = &self.demands[self.copies[copy].demand];
        let Slot { kind, board, units, .. } = &self.slots[slot];
        let Taken { load, models, .. } = self.taken[slot];
        let is_second_choice = matches!(demand.wants, Wants::Prefer(wanted) if wanted != *kind);
        let copies = self.first[self.copies[copy].demand]..;
        let copies = copies.take(demand.replicas).filter(|other| *other != copy);
        let shares_board =
            copies.filter_map(|other| self.copies[other].fate.slot()).any(|other| self.slots[other].board == *board);
        #[allow(clippy::cast_precision_loss)] // a few thousand
        let crowd = (models + 1) as f64 / f64::from((*units).max(1));
        Rank {
            is_second_choice,
            shares_board,
            load: load + demand.load_on(&self.slots[slot]),
            crowd,
            left: self.free(slot).saturating_sub(demand.memory()),
        }
    }

    fn put(&mut self, copy: usize, slot: usize, fate: Fate) {
        self.count(copy, slot, 1);
        self.on[slot].insert(copy);
        self.copies[copy].fate = fate;
    }

    fn take(&mut self, copy: usize) {
        let Some(slot) = self.copies[copy].fate.slot() else { return };
        self.count(copy, slot, -1);
        self.on[slot].remove(&copy);
        self.copies[copy].fate = Fate::Refused;
    }

    fn count(&mut self, copy: usize, slot: usize, sign: i8) {
        let (slots, demands) = (self.slots, self.demands);
        let demand = &demands[self.copies[copy].demand];
        let taken = &mut self.taken[slot];
        let bytes = demand.memory();
        taken.bytes = if sign > 0 { taken.bytes.saturating_add(bytes) } else { taken.bytes.saturating_sub(bytes) };
        taken.models = taken.models.saturating_add_signed(sign.into());
        taken.load = (taken.load + f64::from(sign) * demand.load_on(&slots[slot])).max(0.0);
        if let Some(group) = &demand.anti_affinity {
            let count = self.groups.entry(group).or_default().entry(&slots[slot].board).or_default();
            *count = count.saturating_add_signed(sign.into());
        }
    }
}

struct Best {
    slot: usize,
    why: Why,
}

/// What is better comes first.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
struct Rank {
    is_second_choice: bool,
    shares_board: bool,
    load: f64,
    /// Models for each unit: what is known of models of which nothing is known.
    crowd: f64,
    /// Bytes that stay free.
    left: u64,
}

/// Why a model cannot run on a device, however much room there is.
#[derive(Clone, Debug, PartialEq)]
enum Objection {
    Fault(String),
    Kind(Kind),
    Slow { seconds: f64, slo: f64 },
}

fn objection(demand: &Demand, slot: &Slot) -> Option<Objection> {
    if let Some(fault) = &slot.fault {
        return Some(Objection::Fault(fault.clone()));
    }
    match demand.wants {
        Wants::Only(kind) if kind != slot.kind => return Some(Objection::Kind(kind)),
        _ => {}
    }
    let (seconds, slo) = (demand.seconds_on(slot)?, demand.slo_seconds?);
    (seconds > slo).then_some(Objection::Slow { seconds, slo })
}
