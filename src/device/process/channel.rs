//! How a server and a process that computes for it talk: one asks, the other answers, by turns. What is said lies in memory
//! that both have mapped, one region for each direction; the socket carries where it ends, and a region when it is new.
//!
//! A region holds a head (JSON), and behind it parts that the head describes, each at a multiple of [`ALIGNMENT`] bytes.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::region::Region;

/// Of parts: a cache line, and as wide as any vector register.
const ALIGNMENT: usize = 64;

/// Two numbers: bytes of the head, and of all.
const PACKET: usize = 16;

/// One end.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    /// What this end writes into.
    own: Option<Region>,
    /// What the other one writes into.
    other: Option<Arc<Region>>,
}

/// What has been said. It lies in the other end's memory, which is written to again once it has been answered.
pub struct Message {
    region: Arc<Region>,
    head: usize,
    /// Where the next part begins.
    at: usize,
    end: usize,
}

impl Channel {
    /// One end, and the socket of the other.
    ///
    /// # Errors
    /// When the system has no file descriptor left.
    pub fn pair() -> io::Result<(Channel, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Channel::new(ours), theirs))
    }

    pub fn new(socket: OwnedFd) -> Channel {
        Channel { socket, own: None, other: None }
    }

    /// Says something, of which `parts` are described by `head`.
    ///
    /// # Errors
    /// When the other end has gone, or there is no memory.
    pub fn send(&mut self, head: &impl Serialize, parts: &[&[u8]]) -> io::Result<()> {
        let head = serde_json::to_vec(head)?;
        let mut end = head.len();
        let starts: Vec<usize> = parts.iter().map(|part| place(&mut end, part.len())).collect::<io::Result<_>>()?;
        let is_new = !self.own.as_ref().is_some_and(|own| is_suitable(own.len(), end));
        if is_new {
            self.own = Some(Region::new(end)?);
        }
        let own = self.own.as_mut().ok_or(io::ErrorKind::NotFound)?;
        let memory = own.bytes_mut();
        memory[..head.len()].copy_from_slice(&head);
        for (start, part) in starts.into_iter().zip(parts) {
            memory[start..start + part.len()].copy_from_slice(part);
        }
        let mut packet = [0; PACKET];
        packet[..8].copy_from_slice(&(head.len() as u64).to_le_bytes());
        packet[8..].copy_from_slice(&(end as u64).to_le_bytes());
        let files = [own.file()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if is_new {
            beside.push(SendAncillaryMessage::ScmRights(&files));
        }
        // A process that has gone must not end this one, too.
        sendmsg(&self.socket, &[IoSlice::new(&packet)], &mut beside, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The other end keeps what it has been told last: the next message gets other memory.
    pub fn leave(&mut self) {
        self.own = None;
    }

    /// Waits until the other end says something, for so long at the most.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`]; [`io::ErrorKind::UnexpectedEof`] when it has gone; and when what it says makes no sense.
    pub fn receive(&mut self, within: Option<Duration>) -> io::Result<Message> {
        if let Some(within) = within {
            wait(self.socket.as_fd(), within)?;
        }
        let mut packet = [0; PACKET];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let came = loop {
            match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut packet)], &mut beside, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                came => break came?,
            }
        };
        if came.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if came.bytes != PACKET || came.flags.contains(ReturnFlags::TRUNC) {
            return Err(senseless());
        }
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(mut files) = message
                && let Some(file) = files.next()
            {
                self.other = Some(Arc::new(Region::map(file)?));
            }
        }
        let number = |at: usize| u64::from_le_bytes(packet[at..at + 8].try_into().expect("there are eight"));
        let (head, end) = (usize::try_from(number(0)), usize::try_from(number(8)));
        let region = self.other.clone().ok_or_else(senseless)?;
        match (head, end) {
            (Ok(head), Ok(end)) if head <= end && end <= region.len() => Ok(Message { region, head, at: head, end }),
            _ => Err(senseless()),
        }
    }
}

impl Message {
    /// # Errors
    /// When it is something else.
    pub fn head<T: DeserializeOwned>(&self) -> io::Result<T> {
        Ok(serde_json::from_slice(&self.region.bytes()[..self.head])?)
    }

    /// The next part, where it lies.
    ///
    /// # Errors
    /// When there is none of so many bytes.
    pub fn part(&mut self, bytes: usize) -> io::Result<Bytes> {
        let mut end = self.at;
        let start = place(&mut end, bytes)?;
        if end > self.end {
            return Err(senseless());
        }
        self.at = end;
        Ok(Bytes::from_owner(Part { region: self.region.clone(), start, end }))
    }
}

struct Part {
    region: Arc<Region>,
    start: usize,
    end: usize,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.region.bytes()[self.start..self.end]
    }
}

/// Where a part of so many bytes begins that comes after what ends there.
fn place(end: &mut usize, bytes: usize) -> io::Result<usize> {
    let start = end.checked_next_multiple_of(ALIGNMENT).ok_or_else(senseless)?;
    *end = start.checked_add(bytes).ok_or_else(senseless)?;
    Ok(start)
}

/// Whether memory that is there serves for so many bytes: it is large enough, and not much too large to be kept.
fn is_suitable(has: usize, needed: usize) -> bool {
    const KEPT: usize = 1 << 26;
    needed <= has && (has <= KEPT || needed > has / 4)
}

/// Waits until a socket has something, or its other end is gone.
fn wait(socket: BorrowedFd, within: Duration) -> io::Result<()> {
    let until = Instant::now() + within;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Err(rustix::io::Errno::INTR) => {}
            ready => return ready.map(drop).map_err(io::Error::from),
        }
    }
}

fn senseless() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what the other process says makes no sense")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels() -> (Channel, Channel) {
        let (ours, theirs) = Channel::pair().unwrap();
        (ours, Channel::new(theirs))
    }

    #[test]
    fn what_is_said_arrives_with_its_parts_in_place() {
        let (mut ours, mut theirs) = channels();
        for bytes in [0, 1, 63, 64, 70_000, 3, 1 << 27, 5] {
            let large: Vec<u8> = (0..bytes).map(|at| u8::try_from(at % 251).unwrap()).collect();
            ours.send(&("run", bytes), &[&large, b"small"]).unwrap();
            let mut message = theirs.receive(Some(Duration::from_secs(1))).unwrap();
            assert_eq!(message.head::<(String, usize)>().unwrap(), ("run".to_owned(), bytes));
            let part = message.part(bytes).unwrap();
            assert_eq!((&part[..], part.as_ptr() as usize % ALIGNMENT), (&large[..], 0));
            assert_eq!(message.part(5).unwrap(), &b"small"[..]);
            assert!(message.part(1).is_err());
        }
        assert!(theirs.other.as_ref().unwrap().len() < 1 << 20, "what was needed once is not kept");
    }

    #[test]
    fn whoever_has_gone_or_hangs_is_noticed() {
        let (mut ours, theirs) = channels();
        let silent = ours.receive(Some(Duration::from_millis(5))).err().unwrap();
        assert_eq!(silent.kind(), io::ErrorKind::TimedOut);
        drop(theirs);
        assert_eq!(ours.receive(None).err().unwrap().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(ours.send(&"there?", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn nonsense_is_an_error() {
        let (mut ours, theirs) = channels();
        let mut says = |packet: &[u8]| {
            rustix::net::send(&theirs.socket, packet, SendFlags::empty()).unwrap();
            ours.receive(None).err().unwrap().kind()
        };
        assert_eq!(says(&[1; 3]), io::ErrorKind::InvalidData);
        assert_eq!(says(&[0; PACKET]), io::ErrorKind::InvalidData); // there is no memory yet
        let (mut ours, mut theirs) = channels();
        theirs.send(&"all is well", &[]).unwrap();
        ours.receive(None).unwrap();
        for (head, end) in [(u64::MAX, u64::MAX), (9, 8), (0, 1 << 17)] {
            let packet = [head.to_le_bytes(), end.to_le_bytes()].concat();
            rustix::net::send(&theirs.socket, &packet, SendFlags::empty()).unwrap();
            assert_eq!(ours.receive(None).err().unwrap().kind(), io::ErrorKind::InvalidData);
        }
    }
}
