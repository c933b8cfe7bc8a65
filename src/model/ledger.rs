//! What models of this process hold of the memory of GPUs: what they are expected to until they are warm, and from then on
//! what was measured. Pure but for its lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::device::visible::Device;
use crate::error::Result;

#[derive(Debug, Default)]
pub struct Ledger {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub struct State {
    entries: Vec<Entry>,
    last: u64,
    /// By device, the bytes that are not our models': as they were when none of ours was being loaded there.
    others: HashMap<String, u64>,
}

/// A copy of a model on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    number: u64,
    pub model: String,
    pub uuid: String,
    /// What it has, as far as that is known.
    bytes: u64,
    /// What it may take whatever it has.
    limit: u64,
    is_measured: bool,
}

/// The memory of a device that a copy of a model is to have.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Until it is measured.
    pub bytes: u64,
    /// So much is held also when it turns out to have less.
    pub limit: u64,
}

impl Entry {
    /// Bytes that nobody else is to have.
    pub fn held(&self) -> u64 {
        self.bytes.max(self.limit)
    }
}

/// A copy's place, given up when it is dropped.
#[derive(Debug)]
pub struct Place {
    ledger: Arc<Ledger>,
    number: u64,
    uuid: String,
}

impl Ledger {
    /// Lets `decide` look what there is and choose the devices (by their UUIDs) for copies of a model, and what each of them is to
    /// have there, and holds it. Others wait, so that two models never count on the same memory.
    ///
    /// # Errors
    /// What `decide` fails with.
    pub fn place<T>(
        self: &Arc<Self>,
        model: &str,
        decide: impl FnOnce(&mut State) -> Result<(T, Vec<String>, Held)>,
    ) -> Result<(T, Vec<Place>)> {
        let mut state = self.state();
        let (decided, uuids, held) = decide(&mut state)?;
        let places = uuids.into_iter().map(|uuid| {
            let number = state.hold(model, &uuid, held);
            Place { ledger: self.clone(), number, uuid }
        });
        Ok((decided, places.collect()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What of a device's memory models of ours may take, those that are there already, too.
    pub fn memory(&self, device: &Device) -> u64 {
        let others = self.others.get(&device.uuid).copied().unwrap_or(device.memory.used);
        device.memory.total.saturating_sub(others)
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn on<'a>(&'a self, uuid: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| entry.uuid == uuid)
    }

    /// Learns what others have, of devices on which none of ours is being loaded.
    pub fn see(&mut self, devices: &[Device]) {
        for device in devices {
            if self.on(&device.uuid).all(|entry| entry.is_measured) {
                let ours: u64 = self.on(&device.uuid).map(|entry| entry.bytes).sum();
                self.others.insert(device.uuid.clone(), device.memory.used.saturating_sub(ours));
            }
        }
    }

    fn hold(&mut self, model: &str, uuid: &str, Held { bytes, limit }: Held) -> u64 {
        self.last += 1;
        let (number, model, uuid) = (self.last, model.to_owned(), uuid.to_owned());
        self.entries.push(Entry { number, model, uuid, bytes, limit, is_measured: false });
        self.last
    }

    /// A copy is warm: what more is used of its device than before is its own, unless another is being loaded there.
    fn measure(&mut self, number: u64, device: &Device) -> Option<u64> {
        let is_it = |entry: &Entry| entry.number == number;
        if self.on(&device.uuid).any(|entry| !is_it(entry) && !entry.is_measured) {
            return None;
        }
        let ours: u64 = self.on(&device.uuid).filter(|entry| !is_it(entry)).map(|entry| entry.bytes).sum();
        let others = self.others.get(&device.uuid)?;
        let bytes = device.memory.used.checked_sub(others + ours)?;
        let entry = self.entries.iter_mut().find(|entry| is_it(entry))?;
        (entry.bytes, entry.is_measured) = (bytes, true);
        Some(bytes)
    }
}

impl Place {
    /// Corrects what is held by what is used of the devices by now, when the copy is warm. `None` where it cannot be told
    /// apart from others': then what was expected stands.
    pub fn measure(&self, devices: &[Device]) -> Option<u64> {
        let device = devices.iter().find(|device| device.uuid == self.uuid)?;
        self.ledger.state().measure(self.number, device)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.ledger.state().entries.retain(|entry| entry.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::topology::{CudaVersion, Memory};
    use crate::error::Error;

    fn device(used: u64) -> [Device; 1] {
        [Device {
            name: "gpu0".to_owned(),
            uuid: "GPU-0".to_owned(),
            gpu_uuid: "GPU-0".to_owned(),
            model: "NVIDIA L4".to_owned(),
            pci_bus_id: String::new(),
            numa_node: None,
            compute_capability: CudaVersion { major: 8, minor: 9 },
            multiprocessors: None,
            memory: Memory { total: 100, used },
            mig: None,
            shared: None,
            fault: None,
            processes: Vec::new(),
        }]
    }

    /// Places a model on the device, and says what of it models of ours may take and what is held for them.
    fn place(ledger: &Arc<Ledger>, model: &str, bytes: u64, used: u64) -> (Place, u64, u64) {
        place_with(ledger, model, Held { bytes, limit: 0 }, used)
    }

    fn place_with(ledger: &Arc<Ledger>, model: &str, held: Held, used: u64) -> (Place, u64, u64) {
        let devices = device(used);
        let decide = |state: &mut State| {
            state.see(&devices);
            let ours = state.entries().iter().map(Entry::held).sum();
            Ok(((state.memory(&devices[0]), ours), vec!["GPU-0".to_owned()], held))
        };
        let ((memory, ours), mut places) = ledger.place(model, decide).unwrap();
        (places.pop().unwrap(), memory, ours)
    }

    #[test]
    fn what_is_expected_counts_until_it_is_measured_and_what_was_measured_until_it_goes() {
        let ledger = Arc::new(Ledger::default());
        let (a, memory, ours) = place(&ledger, "a", 20, 10);
        assert_eq!((memory, ours), (90, 0));
        // While a is being loaded, what is used says nothing of others.
        let (b, memory, ours) = place(&ledger, "b", 30, 25);
        assert_eq!((memory, ours), (90, 20));
        assert_eq!(a.measure(&device(70)), None, "which of it is a's?");
        drop(b);
        assert_eq!(a.measure(&device(35)), Some(25));
        // What others take in the meantime is theirs.
        let (c, memory, ours) = place(&ledger, "c", 5, 45);
        assert_eq!((memory, ours), (80, 25));
        drop(a);
        assert_eq!(c.measure(&device(28)), Some(8));
        let failed = ledger.place("d", |_| Err::<((), _, _), _>(Error::load("no room")));
        assert!(failed.is_err() && ledger.state().entries.len() == 1);
        drop(c);
        assert!(ledger.state().entries.is_empty());
    }

    #[test]
    fn what_a_copy_may_take_is_held_also_when_it_has_less() {
        let ledger = Arc::new(Ledger::default());
        let (a, ..) = place_with(&ledger, "a", Held { bytes: 5, limit: 40 }, 10);
        assert_eq!(a.measure(&device(18)), Some(8));
        let (b, memory, ours) = place(&ledger, "b", 5, 18);
        assert_eq!((memory, ours), (90, 40), "10 are others', as before");
        assert_eq!(b.measure(&device(24)), Some(6));
    }
}
