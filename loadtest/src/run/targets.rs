//! The servers that are asked, and what they say of themselves.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::address::Address;
use super::kept::Server;
use super::scrape::{self, Samples};

#[derive(Clone)]
pub struct Target {
    pub name: String,
    pub url: String,
    pub rest: Address,
    pub grpc: Address,
    /// With the path of the page.
    pub metrics: Address,
}

impl Target {
    /// `NAME=URL` or a URL, whose name is a letter then: its place among the others. All is at one port, until it is said
    /// otherwise.
    pub fn parse(text: &str, place: usize) -> Result<Target> {
        let is_named = |(name, _): &(&str, &str)| !name.contains(['/', ':']);
        let letter = char::from(b'a' + (place % 26) as u8).to_string();
        let (name, url) = text.split_once('=').filter(is_named).unwrap_or((&letter, text));
        let address = |protocol| Address::parse(url, protocol).context("--target");
        let rest = address("http/1.1")?;
        let metrics = Address { prefix: format!("{}/metrics", rest.prefix), ..rest.clone() };
        Ok(Target { name: name.to_owned(), url: url.to_owned(), rest, grpc: address("h2")?, metrics })
    }

    pub fn with_grpc(&mut self, url: &str) -> Result<()> {
        self.grpc = Address::parse(url, "h2").context("--grpc")?;
        Ok(())
    }

    pub fn with_metrics(&mut self, url: &str) -> Result<()> {
        self.metrics = Address::parse(url, "http/1.1").context("--metrics")?;
        if self.metrics.prefix.is_empty() {
            "/metrics".clone_into(&mut self.metrics.prefix);
        }
        Ok(())
    }
}

/// Steps so long are looked at meanwhile, as often as their minutes ask for.
const LONG: Duration = Duration::from_secs(60);

/// Watches what the servers say of themselves during the rounds of one step.
pub struct Watch {
    targets: Vec<Target>,
    begun: Instant,
    /// For each of them: as it was when the round began, and what has been added since in all rounds.
    before: Vec<Samples>,
    added: Vec<Samples>,
    memory: RefCell<Vec<Vec<(f64, f64)>>>,
}

impl Watch {
    pub fn new(targets: &[Target]) -> Watch {
        let count = targets.len();
        let (before, added) = (Vec::new(), vec![Samples::new(); count]);
        let memory = RefCell::new(vec![Vec::new(); count]);
        Watch { targets: targets.to_vec(), begun: Instant::now(), before, added, memory }
    }

    pub async fn begin(&mut self) {
        self.before = self.look().await;
    }

    /// Looks 60 times in all; never ends.
    pub async fn go_on(&self, step: Duration) {
        loop {
            tokio::time::sleep(if step < LONG { Duration::MAX } else { step / 60 }).await;
            self.look().await;
        }
    }

    pub async fn end(&mut self) {
        let after = self.look().await;
        for ((before, after), added) in self.before.iter().zip(&after).zip(&mut self.added) {
            add(added, scrape::difference(before, after));
        }
    }

    /// What has been added to the metrics of all, and what each has shown.
    pub fn seen(&self) -> (Samples, Vec<Server>) {
        let mut all = Samples::new();
        self.added.iter().for_each(|added| add(&mut all, added.clone()));
        let server = |(added, memory): (&Samples, &Vec<(f64, f64)>)| Server {
            batches: scrape::batches(added),
            counted: scrape::counted(added),
            memory: memory.clone(),
        };
        (all, self.added.iter().zip(&*self.memory.borrow()).map(server).collect())
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

fn add(sums: &mut Samples, more: Samples) {
    more.into_iter().for_each(|(series, change)| *sums.entry(series).or_default() += change);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_names() {
        let named = |text: &str| Target::parse(text, 1).unwrap().name;
        assert_eq!(named("canary=http://127.0.0.1:8081/"), "canary");
        assert_eq!(named("http://127.0.0.1"), "b");
        assert!(Target::parse("http://127.0.0.1:port", 0).is_err());
    }

    #[test]
    fn a_target_may_have_several_ports() {
        let mut target = Target::parse("http://127.0.0.1:8000/one", 0).unwrap();
        let at = |address: &Address| format!("{}{}", address.socket, address.prefix);
        assert_eq!(at(&target.rest), "127.0.0.1:8000/one");
        assert_eq!(at(&target.metrics), "127.0.0.1:8000/one/metrics");
        target.with_grpc("127.0.0.1:8001").unwrap();
        target.with_metrics("127.0.0.1:8002").unwrap();
        assert_eq!(at(&target.grpc), "127.0.0.1:8001");
        assert_eq!(at(&target.metrics), "127.0.0.1:8002/metrics");
        target.with_metrics("http://127.0.0.1:8002/q/metrics").unwrap();
        assert_eq!(at(&target.metrics), "127.0.0.1:8002/q/metrics");
    }
}
