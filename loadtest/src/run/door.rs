//! Connections to one address. After one that failed, none is tried for a while: a server that is gone is not hammered,
//! and one that is back is found within a second.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::address::Address;

/// Bytes to a server and back, with TLS or without.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub struct Door {
    address: Address,
    pause: Cell<Pause>,
}

/// None is tried until then.
#[derive(Clone, Copy)]
struct Pause {
    until: Instant,
    /// Nothing while connections are made.
    lasts: Duration,
}

const SHORTEST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(1);
/// For a connection to be made.
const PATIENCE: Duration = Duration::from_secs(5);
/// For what was sent to be received by the other side's kernel: a machine that is gone closes nothing.
const UNHEARD: Duration = Duration::from_secs(10);

impl Door {
    pub fn new(address: Address) -> Door {
        Door { address, pause: Cell::new(Pause { until: Instant::now(), lasts: Duration::ZERO }) }
    }

    /// # Errors
    /// When no connection is made, and at once during the pause after that.
    pub async fn open(&self) -> Result<Box<dyn Stream>> {
        let (Pause { until, lasts }, now) = (self.pause.get(), Instant::now());
        ensure!(now >= until, "no connection to {} could be made a moment ago", self.address.socket);
        // While one is tried after a pause, others are not.
        self.pause.set(Pause { until: now + lasts, lasts });
        let connecting = tokio::time::timeout(PATIENCE, self.connect()).await;
        match connecting.with_context(|| format!("none within {PATIENCE:?}")).flatten() {
            Ok(stream) => {
                self.pause.set(Pause { until: now, lasts: Duration::ZERO });
                Ok(stream)
            }
            Err(error) => {
                // Of several that fail together, one makes the pause longer.
                if self.pause.get().lasts == lasts {
                    let lasts = (lasts * 2).clamp(SHORTEST, LONGEST);
                    self.pause.set(Pause { until: Instant::now() + lasts, lasts });
                }
                Err(error.context(format!("no connection to {}", self.address.socket)))
            }
        }
    }

    async fn connect(&self) -> Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(self.address.socket).await?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_user_timeout(Some(UNHEARD))?;
        let Some(tls) = &self.address.tls else { return Ok(Box::new(stream)) };
        let stream = tls.connector.connect(tls.name.clone(), stream).await;
        Ok(Box::new(stream.with_context(|| format!("TLS with {}", self.address.authority))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address at which nobody listens.
    fn free() -> Address {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Address::parse(&listener.local_addr().unwrap().to_string(), "http/1.1").unwrap()
    }

    #[tokio::test]
    async fn a_closed_address_is_tried_now_and_then() {
        let door = Door::new(free());
        let (begun, mut tried) = (Instant::now(), 0);
        while begun.elapsed() < Duration::from_millis(300) {
            let error = door.open().await.err().unwrap().to_string();
            tried += u32::from(!error.contains("a moment ago"));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // After 0, 20, 60, 140 and 300 ms.
        assert!((2..=5).contains(&tried), "{tried}");
    }

    #[tokio::test]
    async fn an_address_that_is_back_is_found() {
        let door = Door::new(free());
        assert!(door.open().await.is_err());
        let _listener = std::net::TcpListener::bind(door.address.socket).unwrap();
        assert!(door.open().await.is_err(), "the pause");
        tokio::time::sleep(SHORTEST * 2).await;
        assert!(door.open().await.is_ok());
        assert!(door.open().await.is_ok(), "no pause is left");
    }
}
