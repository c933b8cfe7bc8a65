//! A part of a file, from the body of one answer.

use super::checksum::Checksum;
use super::http::{Body, Failure};
use super::{RangeReader, Trouble};

pub struct Part<'s> {
    pub body: Body<'s>,
    /// How many bytes are still to come.
    pub left: u64,
    /// Of all of the file, when that is what is read and the store keeps it.
    pub checksum: Option<Checksum>,
    /// What a failure means here.
    pub failed: Box<dyn Fn(&Failure) -> Trouble + 's>,
}

impl RangeReader for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Trouble> {
        let read = self.body.read(buffer).map_err(|failure| (self.failed)(&failure))?;
        self.left = self.left.saturating_sub(read as u64);
        if read == 0 && self.left > 0 {
            return Err((self.failed)(&Failure::Closed));
        }
        // Of chunks, only the last one says that it is.
        if self.left == 0 && self.body.read(&mut [0]).map_err(|failure| (self.failed)(&failure))? > 0 {
            return Err((self.failed)(&Failure::Protocol("the answer is longer than what was asked for".to_owned())));
        }
        Ok(read)
    }

    fn checksum(&self) -> Option<&Checksum> {
        self.checksum.as_ref()
    }
}
