//! Bodies of answers: how long they are, and reading them.

use super::connection::{Connection, Head};
use super::{Client, Failure, Origin};

/// What ends a body (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// So many bytes are left of this chunk; none before the first and between them.
    Chunked(u64),
    /// The connection's end.
    Close,
    /// It has ended.
    Done,
}

/// Sizes of chunks and trailers: nobody's are longer.
const MAX_LINE_BYTES: usize = 8 << 10;
const MAX_TRAILERS: usize = 128;

pub(super) fn framing(method: &str, head: &Head) -> Result<Framing, Failure> {
    if method == "HEAD" || matches!(head.status, 204 | 304) {
        return Ok(Framing::Done);
    }
    if let Some(coding) = head.header("transfer-encoding") {
        if coding.eq_ignore_ascii_case("chunked") {
            return Ok(Framing::Chunked(0));
        }
        return Err(Failure::Protocol(format!("a body in transfer encoding \"{coding}\"")));
    }
    match head.header("content-length").map(str::parse) {
        Some(Ok(0)) => Ok(Framing::Done),
        Some(Ok(length)) => Ok(Framing::Length(length)),
        Some(Err(_)) => Err(Failure::Protocol("a Content-Length that is no number".to_owned())),
        None => Ok(Framing::Close),
    }
}

/// The body of an answer. Read to its end, it gives the connection back for the next request.
pub struct Body<'c> {
    client: &'c Client,
    origin: Origin,
    /// Until it is given back.
    connection: Option<Connection>,
    framing: Framing,
    keeps_alive: bool,
    /// What went wrong behind bytes that were given.
    failure: Option<Failure>,
}

impl<'c> Body<'c> {
    pub(super) fn new(
        client: &'c Client,
        origin: Origin,
        connection: Connection,
        framing: Framing,
        keeps_alive: bool,
    ) -> Body<'c> {
        let mut body = Body { client, origin, connection: Some(connection), framing, keeps_alive, failure: None };
        body.give_back_when_done();
        body
    }

    /// The length, when the answer says it.
    pub fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(left) => Some(left),
            Framing::Done => Some(0),
            Framing::Chunked(_) | Framing::Close => None,
        }
    }

    /// Fills the buffer, or as much of it as the body has left, or as came before something went wrong.
    ///
    /// # Errors
    /// [`Failure::Closed`] also when the body is shorter than it said.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let mut filled = 0;
        while filled < buffer.len() && self.framing != Framing::Done {
            match self.read_some(&mut buffer[filled..]) {
                Ok(read) => filled += read,
                Err(failure) if filled == 0 => return Err(failure),
                Err(failure) => {
                    self.failure = Some(failure);
                    break;
                }
            }
        }
        Ok(filled)
    }

    /// All of a small body.
    ///
    /// # Errors
    /// Also when it has more than `most` bytes.
    pub fn read_all(&mut self, most: usize) -> Result<Vec<u8>, Failure> {
        const STEP: usize = 16 << 10;
        let mut all = Vec::new();
        while self.framing != Framing::Done {
            let have = all.len();
            if have > most {
                return Err(Failure::Protocol(format!("an answer of more than {most} bytes")));
            }
            all.resize(have + STEP, 0);
            let read = self.read(&mut all[have..])?;
            all.truncate(have + read);
        }
        Ok(all)
    }

    /// Some bytes, none only at the end.
    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let Some(connection) = &mut self.connection else { return Ok(0) };
        if self.framing == Framing::Chunked(0) {
            let size = chunk_size(&connection.read_line(MAX_LINE_BYTES)?)?;
            if size == 0 {
                // Trailers, up to an empty line.
                let mut trailers = 0;
                while connection.read_line(MAX_LINE_BYTES)?.len() > 2 {
                    trailers += 1;
                    if trailers > MAX_TRAILERS {
                        return Err(Failure::Protocol(format!("more than {MAX_TRAILERS} trailers behind a body")));
                    }
                }
                self.framing = Framing::Done;
                self.give_back_when_done();
                return Ok(0);
            }
            self.framing = Framing::Chunked(size);
        }
        let most = match self.framing {
            Framing::Length(left) | Framing::Chunked(left) => usize::try_from(left).unwrap_or(usize::MAX),
            Framing::Close => usize::MAX,
            Framing::Done => 0,
        };
        let most = most.min(buffer.len());
        let read = connection.read(&mut buffer[..most])?;
        match (&mut self.framing, read) {
            (Framing::Close, 0) => self.framing = Framing::Done,
            (_, 0) => return Err(Failure::Closed),
            (Framing::Length(left) | Framing::Chunked(left), read) => {
                *left -= read as u64;
                match self.framing {
                    Framing::Length(0) => self.framing = Framing::Done,
                    // The line end behind the chunk.
                    Framing::Chunked(0) => drop(connection.read_line(2)?),
                    _ => {}
                }
            }
            (Framing::Close | Framing::Done, _) => {}
        }
        self.give_back_when_done();
        Ok(read)
    }

    fn give_back_when_done(&mut self) {
        if self.framing != Framing::Done {
            return;
        }
        if let Some(connection) = self.connection.take().filter(|connection| self.keeps_alive && connection.is_clean())
        {
            self.client.keep(self.origin.clone(), connection);
        }
    }
}

/// `1a2b;extension\r\n`
fn chunk_size(line: &[u8]) -> Result<u64, Failure> {
    let text = std::str::from_utf8(line).unwrap_or_default();
    let digits = text.split(';').next().unwrap_or_default().trim();
    u64::from_str_radix(digits, 16).map_err(|_| Failure::Protocol("a chunk whose size is no number".to_owned()))
}
