//! What a plan promises, on machines that were recorded and on any.

use proptest::collection::vec;
use proptest::prelude::*;

use super::slots::slots;
use super::*;
use crate::device::recording::Recording;

const GIB: u64 = 1 << 30;

fn recorded(name: &str) -> Vec<Slot> {
    let path = format!("{}/tests/topologies/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let recording = Recording::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
    slots(&recording.cpu, &recording.visible().unwrap().devices)
}

fn demand(model: &str, weights: u64) -> Demand {
    Demand { wants: Wants::Only(Kind::Gpu), ..Demand::of(model, weights) }
}

fn current(plan: &Plan, slots: &[Slot], demands: &[Demand]) -> Vec<Placed> {
    let placed = |copy: &Copy| {
        let device = slots[copy.fate.slot()?].name.clone();
        Some(Placed { model: demands[copy.demand].model.clone(), replica: copy.replica, device })
    };
    plan.copies.iter().filter_map(placed).collect()
}

/// Where each copy is, by the names of the devices.
fn places<'a>(plan: &Plan, slots: &'a [Slot]) -> Vec<&'a str> {
    plan.copies.iter().map(|copy| copy.fate.slot().map_or("-", |slot| &slots[slot].name)).collect()
}

fn why(plan: &Plan, slots: &[Slot], demands: &[Demand], copy: usize) -> String {
    plan.explain(&plan.copies[copy], slots, demands)
}

#[test]
fn a_large_model_gets_the_large_slice_whoever_comes_first() {
    let slots = recorded("a100-mig-balanced");
    let demands = [demand("small", GIB), demand("large", 30 * GIB), demand("medium", 15 * GIB)];
    let plan = solve(&slots, &demands, &[]);
    assert_eq!(places(&plan, &slots)[1..], ["gpu0/2/0", "gpu0/3/0"]);
    assert_eq!(why(&plan, &slots, &demands, 1), "gpu0/2/0: the only one with room for 30.0 GiB");
    let why = why(&plan, &slots, &demands, 0);
    assert!(why.contains("of 4 with room for 1.0 GiB"), "{why}");
}

#[test]
fn load_is_spread_by_what_a_device_can_do() {
    let slots = recorded("a100-mig-balanced");
    let busy = |model: &str, units| Demand { busy: Busy { gpu: units, cpu: 0.0 }, ..demand(model, GIB) };
    // 14 multiprocessors' worth is all of a small slice and a third of the large one.
    let demands = [busy("a", 14.0), busy("b", 14.0), busy("c", 14.0)];
    let plan = solve(&slots, &demands, &[]);
    assert_eq!(places(&plan, &slots), ["gpu0/2/0", "gpu0/3/0", "gpu0/2/0"]);
    assert_eq!(
        why(&plan, &slots, &demands, 0),
        "gpu0/2/0: the least busy (0.33; gpu0/3/0 0.50) of 4 with room for 1.0 GiB"
    );
}

#[test]
fn copies_are_kept_apart_and_so_is_what_says_so() {
    let slots = recorded("dual-socket-8");
    let three = Demand { replicas: 3, ..demand("three", GIB) };
    let apart = |model: &str| Demand { anti_affinity: Some("team".to_owned()), ..demand(model, GIB) };
    let demands = [three, apart("a"), apart("b")];
    let plan = solve(&slots, &demands, &[]);
    let mut places = places(&plan, &slots);
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 5);
    // On one board only: the second copy may use another slice of it, but not the same.
    let slots = recorded("h100-mig-7x1g");
    let demands = [Demand { replicas: 8, ..demand("many", GIB) }, apart("a"), apart("b")];
    let plan = solve(&slots, &demands, &[]);
    let refused: Vec<usize> = (0..10).filter(|copy| plan.copies[*copy].fate == Fate::Refused).collect();
    assert_eq!(refused, [7, 9]);
    let why = why(&plan, &slots, &demands, 9);
    assert!(why.contains("gpu0/7/0: has room, but another copy or a model to be kept apart is there"), "{why}");
}

#[test]
fn what_fits_nowhere_is_told_with_numbers() {
    let slots = recorded("h100-mig-7x1g");
    let batches = Demand { workspace_per_row: GIB, max_rows: 32, ..demand("batches", 2 * GIB) };
    let slow = Demand {
        takes: Some(Takes { seconds: 0.01, kind: Kind::Gpu, units: 132 }),
        slo_seconds: Some(0.05),
        ..demand("slow", GIB)
    };
    let demands = [batches, slow];
    let plan = solve(&slots, &demands, &[]);
    let text = why(&plan, &slots, &demands, 0);
    assert!(
        text.starts_with("no device has room for 34.0 GiB (2.0 GiB weights, 32.0 GiB for batches of 32 rows)\n"),
        "{text}"
    );
    assert!(text.contains("\n  cpu: it is to run on a GPU\n  gpu0/7/0: 9.2 GiB of 9.2 GiB are free\n"), "{text}");
    assert!(text.ends_with("\n  with at most 7 rows a batch it would fit (--max_batch_size)"), "{text}");
    let text = why(&plan, &slots, &demands, 1);
    assert!(text.contains("gpu0/13/0: a row takes 82.5 ms there, more than the 50.0 ms allowed"), "{text}");
    let nothing = solve(&recorded("none"), &demands, &[]);
    assert!(places(&nothing, &[]).iter().all(|place| *place == "-"));
}

#[test]
fn a_preference_yields_to_room_and_nothing_else() {
    let slots = recorded("l4-time-sliced");
    let prefers = |model: &str, weights| Demand { wants: Wants::Prefer(Kind::Gpu), ..demand(model, weights) };
    let demands = [prefers("fits", 4 * GIB), prefers("does not", 16 * GIB)];
    let plan = solve(&slots, &demands, &[]);
    assert_eq!(places(&plan, &slots), ["gpu0", "cpu"]);
    let text = why(&plan, &slots, &demands, 0);
    assert!(text.ends_with("of 2 with room for 4.0 GiB, being a GPU"), "{text}");
}

#[test]
fn what_runs_on_a_device_that_failed_goes_elsewhere_and_nothing_else_moves() {
    let mut slots = recorded("ecc-errors");
    let demands: Vec<Demand> = (0..8).map(|model| demand(&format!("m{model}"), 4 * GIB)).collect();
    let before = solve(&slots, &demands, &[]);
    assert!(places(&before, &slots).iter().all(|place| *place == "gpu0" || *place == "gpu3"));
    slots[4].fault = Some("fell off the bus".to_owned());
    let after = solve(&slots, &demands, &current(&before, &slots, &demands));
    assert!(places(&after, &slots).iter().all(|place| *place == "gpu0"));
    let stayed = after.copies.iter().filter(|copy| matches!(copy.fate, Fate::Stays { .. })).count();
    assert_eq!(stayed, 4);
    let moved = after.copies.iter().position(|copy| matches!(copy.fate, Fate::Goes { .. })).unwrap();
    assert!(why(&after, &slots, &demands, moved).starts_with("gpu0 (until now on gpu3): the only one with room"));
}

#[test]
fn one_model_makes_room_for_another_that_fits_nowhere_else() {
    let slots = recorded("a100-mig-balanced");
    let demands = [demand("small", GIB), demand("large", 39 * GIB - GIB)];
    let running = [Placed { model: "small".to_owned(), replica: 0, device: "gpu0/2/0".to_owned() }];
    let plan = solve(&slots, &demands, &running);
    assert_eq!(places(&plan, &slots)[1], "gpu0/2/0");
    let text = why(&plan, &slots, &demands, 0);
    assert!(text.ends_with("(until now on gpu0/2/0): it makes room for large, which fits nowhere else"), "{text}");
}

#[test]
fn a_model_that_has_grown_moves_when_that_helps_and_stays_when_it_does_not() {
    let slots = recorded("dual-socket-8")[..3].to_vec(); // the CPU and two GPUs
    let running = |model: &str| Placed { model: model.to_owned(), replica: 0, device: "gpu0".to_owned() };
    let demands = [demand("grown", 70 * GIB), demand("other", 20 * GIB)];
    let plan = solve(&slots, &demands, &[running("grown"), running("other")]);
    assert_eq!(places(&plan, &slots), ["gpu0", "gpu1"]);
    let demands = [demand("grown", 100 * GIB)];
    let plan = solve(&slots, &demands, &[running("grown")]);
    assert_eq!(places(&plan, &slots), ["gpu0"]);
}

fn any_slot() -> impl Strategy<Value = Slot> {
    (0..4u32, 0..40u64, 1..8u32, any::<bool>(), proptest::bool::weighted(0.1)).prop_map(
        |(board, memory, units, is_gpu, is_faulty)| Slot {
            name: String::new(),
            kind: if is_gpu { Kind::Gpu } else { Kind::Cpu },
            board: board.to_string(),
            memory,
            units,
            fault: is_faulty.then(|| "broken".to_owned()),
        },
    )
}

fn any_demand() -> impl Strategy<Value = Demand> {
    let wants = prop_oneof![
        Just(Wants::Any),
        Just(Wants::Only(Kind::Gpu)),
        Just(Wants::Prefer(Kind::Gpu)),
        Just(Wants::Prefer(Kind::Cpu))
    ];
    (1..4usize, wants, 0..25u64, 0..4u64, 0.0..3.0f64, proptest::option::weighted(0.3, 0..3u32)).prop_map(
        |(replicas, wants, weights, workspace, busy, group)| Demand {
            replicas,
            wants,
            workspace,
            busy: Busy { cpu: busy, gpu: busy / 2.0 },
            anti_affinity: group.map(|group| group.to_string()),
            ..demand("", weights)
        },
    )
}

fn named(mut slots: Vec<Slot>, mut demands: Vec<Demand>) -> (Vec<Slot>, Vec<Demand>) {
    slots.iter_mut().enumerate().for_each(|(place, slot)| slot.name = format!("d{place}"));
    demands.iter_mut().enumerate().for_each(|(place, demand)| demand.model = format!("m{place}"));
    (slots, demands)
}

proptest! {
    #[test]
    fn plans_are_safe_complete_and_stable(
        slots in vec(any_slot(), 0..8),
        demands in vec(any_demand(), 0..16),
        broken in 0..8usize,
    ) {
        let (mut slots, demands) = named(slots, demands);
        let plan = solve(&slots, &demands, &[]);
        check(&plan, &slots, &demands);
        // Again: nothing moves.
        let again = solve(&slots, &demands, &current(&plan, &slots, &demands));
        prop_assert_eq!(places(&again, &slots), places(&plan, &slots));
        let moves = again.copies.iter().filter(|copy| matches!(copy.fate, Fate::Goes { .. })).count();
        prop_assert_eq!(moves, 0);
        // One breaks: still safe, and still stable.
        if let Some(slot) = slots.get_mut(broken) {
            slot.fault = Some("broke".to_owned());
            let after = solve(&slots, &demands, &current(&plan, &slots, &demands));
            check(&after, &slots, &demands);
            let again = solve(&slots, &demands, &current(&after, &slots, &demands));
            prop_assert_eq!(places(&again, &slots), places(&after, &slots));
        }
    }

    #[test]
    fn any_placement_that_is_found_leads_to_a_stable_one(
        slots in vec(any_slot(), 1..6),
        demands in vec(any_demand(), 1..10),
        found in vec((0..10usize, 0..4usize, 0..7usize), 0..16),
    ) {
        let (slots, demands) = named(slots, demands);
        let found: Vec<Placed> = found.into_iter().map(|(model, replica, device)| Placed {
            model: format!("m{model}"), replica, device: format!("d{device}"),
        }).collect();
        let plan = solve(&slots, &demands, &found);
        let again = solve(&slots, &demands, &current(&plan, &slots, &demands));
        prop_assert_eq!(places(&again, &slots), places(&plan, &slots));
    }
}

/// Nothing beyond a device's memory, nothing where it must not be, and nothing refused that would fit.
fn check(plan: &Plan, slots: &[Slot], demands: &[Demand]) {
    let mut bytes = vec![0; slots.len()];
    let mut boards: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for copy in &plan.copies {
        let demand = &demands[copy.demand];
        let Some(slot) = copy.fate.slot() else { continue };
        assert_eq!(objection(demand, &slots[slot]), None);
        bytes[slot] += demand.memory();
        if let Some(group) = &demand.anti_affinity {
            *boards.entry((group, &slots[slot].board)).or_default() += 1;
        }
        let beside = plan.copies.iter().filter(|other| other.demand == copy.demand && other.fate.slot() == Some(slot));
        assert_eq!(beside.count(), 1);
    }
    assert!(bytes.iter().zip(slots).all(|(bytes, slot)| *bytes <= slot.memory));
    assert!(boards.values().all(|count| *count == 1));
    assert_eq!(plan.taken.iter().map(|taken| taken.bytes).collect::<Vec<_>>(), bytes);
    for copy in plan.copies.iter().filter(|copy| copy.fate == Fate::Refused) {
        let demand = &demands[copy.demand];
        for (place, slot) in slots.iter().enumerate() {
            let is_beside =
                plan.copies.iter().any(|other| other.demand == copy.demand && other.fate.slot() == Some(place));
            let board = |group: &String| boards.contains_key(&(group.as_str(), slot.board.as_str()));
            let is_kept_off = demand.anti_affinity.as_ref().is_some_and(board);
            let fits = slot.memory - bytes[place] >= demand.memory();
            assert!(!fits || is_beside || is_kept_off || objection(demand, slot).is_some(), "{demand:?} fits {slot:?}");
        }
    }
}
