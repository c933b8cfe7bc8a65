//! When requests are to be sent: seconds from the start of a step, ascending. The same for the same
//! seed.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::scenario::Arrivals;

/// A generator of numbers that look random. Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
/// Generators" (2014), SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Above 0, at most 1.
    pub fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}

/// Seconds between requests, one a line.
pub fn read_trace(file: &Path) -> Result<Vec<f64>> {
    let name = || format!("trace {}", file.display());
    let text = std::fs::read_to_string(file).with_context(name)?;
    let trace: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>().with_context(name)?;
    let sum: f64 = trace.iter().sum();
    let is_sound = trace.iter().all(|gap| *gap >= 0.0) && sum > 0.0 && sum.is_finite();
    ensure!(is_sound, "{}: its times are to be 0 or more, and not all of them 0", name());
    Ok(trace)
}

/// The arrivals of one step.
pub struct Schedule {
    arrivals: Arrivals,
    /// Between the requests of a trace, were the rate 1; empty for others.
    trace: Vec<f64>,
    rate: f64,
    /// In which the rate grows from nothing.
    ramp: Option<f64>,
    random: Random,
    at: f64,
    count: u64,
}

impl Schedule {
    /// The seconds between the requests of a trace are not negative, and not all of them are 0.
    pub fn new(arrivals: &Arrivals, trace: Vec<f64>, rate: f64, ramp: Option<f64>, seed: u64) -> Schedule {
        let mean = trace.iter().sum::<f64>() / trace.len() as f64;
        let trace = trace.into_iter().map(|gap| gap / mean).collect();
        Schedule { arrivals: arrivals.clone(), trace, rate, ramp, random: Random(seed), at: 0.0, count: 0 }
    }

    /// Between requests, were the rate 1.
    fn gap(&mut self) -> f64 {
        match &self.arrivals {
            Arrivals::Constant => 1.0,
            Arrivals::Poisson => -self.random.unit().ln(),
            Arrivals::Bursty => {
                let is_burst = ((self.at / 0.5) as u64).is_multiple_of(4);
                -self.random.unit().ln() / if is_burst { 3.0 } else { 1.0 / 3.0 }
            }
            Arrivals::Trace(_) => self.trace[self.count as usize % self.trace.len()],
        }
    }
}

impl Iterator for Schedule {
    type Item = f64;

    /// Never ends.
    fn next(&mut self) -> Option<f64> {
        let gap = self.gap();
        self.count += 1;
        self.at = match self.ramp {
            // The rate is `rate * at / ramp`, so that the requests until then are `rate * at^2 / (2 ramp)`.
            Some(ramp) => (self.at * self.at + 2.0 * ramp * gap / self.rate).sqrt(),
            None => self.at + gap / self.rate,
        };
        Some(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_ten_seconds(arrivals: Arrivals, ramp: Option<f64>) -> usize {
        Schedule::new(&arrivals, vec![1.0, 3.0], 1000.0, ramp, 7).take_while(|at| *at < 10.0).count()
    }

    #[test]
    fn all_kinds_keep_the_rate() {
        for arrivals in [Arrivals::Constant, Arrivals::Poisson, Arrivals::Bursty, Arrivals::Trace("".into())] {
            let count = in_ten_seconds(arrivals.clone(), None);
            assert!((9_700..=10_300).contains(&count), "{arrivals:?}: {count}");
        }
        let ramped = in_ten_seconds(Arrivals::Poisson, Some(10.0));
        assert!((4_800..=5_200).contains(&ramped), "{ramped}");
    }

    #[test]
    fn a_trace_moves_on() {
        let folder = std::env::temp_dir().join(format!("loadtest-trace-{}", std::process::id()));
        let read = |text: &str| {
            std::fs::write(&folder, text).unwrap();
            read_trace(&folder).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(read("0.5\n0\n1e-3\n"), Ok(vec![0.5, 0.0, 0.001]));
        for wrong in ["", "0\n", "1\n-5\n7\n", "nan", "inf", "1e308\n1e308\n", "abc"] {
            let error = read(wrong).unwrap_err();
            assert!(error.starts_with("trace "), "{wrong}: {error}");
        }
        std::fs::remove_file(&folder).unwrap();
    }

    #[test]
    fn a_seed_gives_the_same_again() {
        let first = |seed| Schedule::new(&Arrivals::Poisson, Vec::new(), 5.0, None, seed).next();
        assert_eq!(first(3), first(3));
        assert_ne!(first(3), first(4));
    }
}
