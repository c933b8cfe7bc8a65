//! What the values of a file may cost, in bytes of memory made or copied.

use crate::error::{Error, Result};

/// A part in any case and a part per byte of the file. A pickle can ask for the same long list to be copied again and
/// again with three bytes each, and an empty list is one byte; what real models hold is larger in the file.
const ALWAYS: usize = 256 << 20;
const PER_BYTE: usize = 16;

pub struct Budget {
    left: usize,
}

impl Budget {
    /// For a file of so many bytes, when unpacked.
    pub fn of(bytes: usize) -> Budget {
        Budget { left: bytes.saturating_mul(PER_BYTE).saturating_add(ALWAYS) }
    }

    /// # Errors
    /// When it is spent.
    pub fn charge(&mut self, bytes: usize) -> Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            Error::load("the values take far more memory than the file has bytes: this is not a model")
        })?;
        Ok(())
    }
}
