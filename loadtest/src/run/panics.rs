//! Whether any thread or task of this program has panicked: what was measured meanwhile is nobody's.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};

static PANICKED: AtomicBool = AtomicBool::new(false);

/// Panics are noted from now on, and told as before.
pub fn watch() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICKED.store(true, Ordering::Relaxed);
        tell(panic);
    }));
}

/// # Errors
/// When there was a panic.
pub fn none_so_far() -> Result<()> {
    ensure!(!PANICKED.load(Ordering::Relaxed), "the load generator itself panicked, as said above");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_s_panic_is_seen() {
        watch();
        assert!(none_so_far().is_ok());
        assert!(std::thread::spawn(|| panic!("as a test")).join().is_err());
        assert!(none_so_far().is_err());
    }
}
