//! Memory that two processes share: a file without a name (memfd) that both have mapped. A batch is written into it once
//! and read where it is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A mapping of such a file. Messages say who may write to it: one side at a time.
#[derive(Debug)]
pub struct Region {
    file: OwnedFd,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is this value's own, and it writes only when it is borrowed mutably.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// A new file of at least so many bytes, all zero.
    ///
    /// # Errors
    /// When the system has no memory, or no file descriptor, left.
    pub fn new(bytes: usize) -> io::Result<Region> {
        const LEAST: usize = 1 << 16;
        let bytes = bytes.max(LEAST).checked_next_power_of_two().ok_or(io::ErrorKind::OutOfMemory)?;
        let file = memfd_create("stoker", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, bytes as u64)?;
        // Reading what has been cut off would kill the reader.
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Region::map(file)
    }

    /// One that the other process has made.
    ///
    /// # Errors
    /// When it could shrink, or is no such file.
    pub fn map(file: OwnedFd) -> io::Result<Region> {
        if !fcntl_get_seals(&file)?.contains(SealFlags::SHRINK) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "shared memory that could shrink"));
        }
        let len = usize::try_from(fstat(&file)?.st_size).map_err(io::Error::other)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, wherever the system puts it, of a file that has so many bytes and cannot lose any.
        let start = unsafe { mmap(ptr::null_mut(), len, access, MapFlags::SHARED, &file, 0)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Region { file, start, len })
    }

    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped as long as this lives; whoever reads has been told by a message that the other side has written.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and here it is borrowed by nobody else.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: what was mapped, which nobody borrows any more.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_mapping_writes_another_reads() {
        let mut ours = Region::new(100_000).unwrap();
        let theirs = Region::map(ours.file().try_clone_to_owned().unwrap()).unwrap();
        ours.bytes_mut()[99_999] = 7;
        assert_eq!((theirs.len(), theirs.bytes()[99_999]), (1 << 17, 7));
    }

    #[test]
    fn memory_that_could_be_taken_away_is_not_read() {
        let file = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        assert_eq!(Region::map(file).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let file = tempfile::tempfile().unwrap();
        assert!(Region::map(file.into()).is_err());
    }
}
