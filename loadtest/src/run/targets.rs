//! The servers that are asked, and what they say of themselves.

use std::cell::RefCell;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::kept::Server;
use super::scrape::{self, Samples};

#[derive(Clone, Debug)]
pub struct Target {
    pub name: String,
    pub url: String,
    /// As it stands in the URL: gateways route by it.
    pub authority: String,
    pub address: SocketAddr,
}

impl Target {
    /// `NAME=URL` or a URL, whose name is a letter then: its place among the others.
    pub fn parse(text: &str, place: usize) -> Result<Target> {
        let is_named = |(name, _): &(&str, &str)| !name.contains(['/', ':']);
        let letter = char::from(b'a' + (place % 26) as u8).to_string();
        let (name, url) = text.split_once('=').filter(is_named).unwrap_or((&letter, text));
        let authority = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
        let with_port = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
        let mut addresses = with_port.to_socket_addrs().with_context(|| format!("--target {text}"))?;
        let address = addresses.next().with_context(|| format!("--target {text} has no address"))?;
        Ok(Target { name: name.to_owned(), url: url.to_owned(), authority: authority.to_owned(), address })
    }
}

/// Steps so long are looked at meanwhile, as often as their minutes ask for.
const LONG: Duration = Duration::from_secs(60);

/// Watches what the servers say of themselves during one step.
pub struct Watch {
    targets: Vec<Target>,
    begun: Instant,
    before: Vec<Samples>,
    /// For each of them.
    memory: RefCell<Vec<Vec<(f64, f64)>>>,
}

impl Watch {
    pub async fn begin(targets: &[Target]) -> Watch {
        let memory = RefCell::new(vec![Vec::new(); targets.len()]);
        let mut watch = Watch { targets: targets.to_vec(), begun: Instant::now(), before: Vec::new(), memory };
        watch.before = watch.look().await;
        watch
    }

    /// Looks 60 times in all; never ends.
    pub async fn go_on(&self, step: Duration) {
        loop {
            tokio::time::sleep(if step < LONG { Duration::MAX } else { step / 60 }).await;
            self.look().await;
        }
    }

    /// What has been added to the metrics of all, and what each has shown.
    pub async fn end(self) -> (Samples, Vec<Server>) {
        let after = self.look().await;
        let changes = self.before.iter().zip(&after).map(|(before, after)| scrape::difference(before, after));
        let changes: Vec<_> = changes.collect();
        let mut all = Samples::new();
        for (series, change) in changes.iter().flatten() {
            *all.entry(series.clone()).or_default() += change;
        }
        let server = |(change, memory)| Server { batches: scrape::batches(change), memory };
        (all, changes.iter().zip(self.memory.into_inner()).map(server).collect())
    }

    async fn look(&self) -> Vec<Samples> {
        let mut seen = Vec::new();
        for (number, target) in self.targets.iter().enumerate() {
            let samples = scrape::scrape(target).await;
            if let Some(bytes) = samples.get("process_resident_memory_bytes") {
                self.memory.borrow_mut()[number].push((self.begun.elapsed().as_secs_f64(), *bytes));
            }
            seen.push(samples);
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_names() {
        let parsed = |text: &str| {
            let Target { name, authority, address, .. } = Target::parse(text, 1).unwrap();
            (name, authority, address.port())
        };
        assert_eq!(parsed("canary=http://127.0.0.1:8081/"), ("canary".to_owned(), "127.0.0.1:8081".to_owned(), 8081));
        assert_eq!(parsed("http://127.0.0.1"), ("b".to_owned(), "127.0.0.1".to_owned(), 80));
        assert!(Target::parse("http://127.0.0.1:port", 0).is_err());
    }
}
