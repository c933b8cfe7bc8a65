//! What a step has shown: one sample for each request, and what they say together.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;

use super::client::Answer;
use super::kept::{Drift, Summary};
use super::turns::Turn;

/// What became of one request.
#[derive(Clone, Copy)]
pub struct Sample {
    /// When it was to be sent, in milliseconds from the beginning of the measurement.
    pub at: u32,
    /// From then to the end of its answer.
    pub micros: u32,
    /// 0 without an answer.
    pub status: u16,
    pub traffic: u16,
    /// Index of the version that answered; 0 where none is named.
    pub version: u16,
    pub target: u8,
    says_when_to_retry: bool,
}

const MOST_REASONS: usize = 10;

impl Sample {
    pub fn is_answered(&self) -> bool {
        self.status == 200
    }
}

pub struct Record {
    slo: Duration,
    /// How long was measured in rounds before.
    before: Duration,
    pub samples: Vec<Sample>,
    pub versions: Vec<String>,
    /// Why requests had no answer, and how many.
    pub unanswered: BTreeMap<String, u64>,
    in_time: u64,
    /// Microseconds, for a look while it goes on.
    answered: Histogram<u64>,
}

impl Record {
    pub fn new(slo: Duration) -> Record {
        let answered = Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds make sense");
        let (versions, unanswered) = (vec!["unnamed".to_owned()], BTreeMap::new());
        Record { slo, before: Duration::ZERO, samples: Vec::new(), versions, unanswered, in_time: 0, answered }
    }

    /// A round is over: the next one's requests come after it.
    pub fn round_is_over(&mut self, lasted: Duration) {
        self.before += lasted;
    }

    /// A request that was to be sent `at` after the measurement of this round began; `latency` is from then on.
    pub fn add(&mut self, turn: Turn, at: Duration, latency: Duration, answer: &Result<Answer>) {
        let micros = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        let mut sample = Sample {
            at: (self.before + at).as_millis() as u32,
            micros,
            status: 0,
            traffic: turn.traffic as u16,
            version: 0,
            target: turn.target as u8,
            says_when_to_retry: false,
        };
        match answer {
            Ok(answer) => {
                sample.status = answer.status;
                sample.says_when_to_retry = answer.says_when_to_retry;
                sample.version = answer.version.as_deref().map_or(0, |version| self.version(version));
            }
            Err(error) => {
                let reason = format!("{error:#}");
                let is_told = self.unanswered.len() < MOST_REASONS || self.unanswered.contains_key(&reason);
                *self.unanswered.entry(if is_told { reason } else { "other reasons".to_owned() }).or_default() += 1;
            }
        }
        if sample.is_answered() {
            self.answered.saturating_record(micros.into());
            self.in_time += u64::from(latency <= self.slo);
        }
        self.samples.push(sample);
    }

    fn version(&mut self, version: &str) -> u16 {
        let known = self.versions.iter().position(|known| known == version);
        known.unwrap_or_else(|| {
            self.versions.push(version.to_owned());
            self.versions.len() - 1
        }) as u16
    }

    /// Answered within the objective, as part of what was sent.
    pub fn part_in_time(&self) -> f64 {
        self.in_time as f64 / self.samples.len().max(1) as f64
    }

    pub fn answered(&self) -> u64 {
        self.answered.len()
    }

    /// Sent, in time, and the 99th percentile in milliseconds of what was answered so far.
    pub fn progress(&self) -> (usize, u64, f64) {
        (self.samples.len(), self.in_time, self.answered.value_at_quantile(0.99) as f64 / 1000.0)
    }

    /// Of those samples that are chosen.
    pub fn summary(&self, measured: Duration, is_chosen: impl Fn(&Sample) -> bool) -> Summary {
        let chosen = || self.samples.iter().filter(|sample| is_chosen(sample));
        let slo_micros = self.slo.as_micros();
        let in_time = |sample: &Sample| sample.is_answered() && u128::from(sample.micros) <= slo_micros;
        let rate = |count: usize| count as f64 / measured.as_secs_f64();
        let answered = sorted(chosen().filter(|sample| sample.is_answered()));
        let refused = sorted(chosen().filter(|sample| !sample.is_answered() && sample.status > 0));
        let (mut outcomes, mut versions) = (BTreeMap::new(), BTreeMap::new());
        let mut seconds: Vec<Vec<&Sample>> = Vec::new();
        for sample in chosen() {
            let outcome = if sample.status == 0 { "no answer".to_owned() } else { sample.status.to_string() };
            *outcomes.entry(outcome).or_default() += 1;
            if sample.is_answered() {
                *versions.entry(self.versions[usize::from(sample.version)].clone()).or_default() += 1;
            }
            let second = sample.at as usize / 1000;
            seconds.resize(seconds.len().max(second + 1), Vec::new());
            seconds[second].push(sample);
        }
        let second = |samples: &Vec<&Sample>| {
            let answered = sorted(samples.iter().copied().filter(|sample| sample.is_answered()));
            let in_time = samples.iter().filter(|sample| in_time(sample)).count();
            (samples.len() as u64, in_time as u64, millis(&answered, 0.5), millis(&answered, 0.99))
        };
        Summary {
            sent_per_second: rate(chosen().count()),
            goodput_per_second: rate(chosen().filter(|sample| in_time(sample)).count()),
            answered_per_second: rate(answered.len()),
            outcomes,
            versions,
            told_when_to_retry: chosen().filter(|sample| !sample.is_answered() && sample.says_when_to_retry).count()
                as u64,
            milliseconds: percentiles(&answered),
            refusal_milliseconds: percentiles(&refused),
            cdf: distribution(&answered),
            timeline: seconds.iter().map(second).collect(),
        }
    }

    /// `None` where a tenth of the step says little.
    pub fn drift(&self, measured: Duration) -> Option<Drift> {
        let (whole, tenth) = (measured.as_millis() as u32, measured.as_millis() as u32 / 10);
        let answered = |from: u32| {
            let within = |sample: &&Sample| (from..from + tenth).contains(&sample.at) && sample.is_answered();
            sorted(self.samples.iter().filter(within))
        };
        let (first, last) = (answered(0), answered(whole - tenth));
        let is_long = measured >= Duration::from_secs(60) && !first.is_empty() && !last.is_empty();
        let both = |part: f64| (millis(&first, part), millis(&last, part));
        is_long.then(|| Drift { p50: both(0.5), p99: both(0.99) })
    }
}

/// Latencies in microseconds.
fn sorted<'a>(samples: impl Iterator<Item = &'a Sample>) -> Vec<u32> {
    let mut sorted: Vec<_> = samples.map(|sample| sample.micros).collect();
    sorted.sort_unstable();
    sorted
}

/// The smallest latency that so large a part does not exceed, in milliseconds; 0 of none.
fn millis(sorted: &[u32], part: f64) -> f64 {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
}

fn percentiles(sorted: &[u32]) -> BTreeMap<String, f64> {
    let named = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
    let named = named.into_iter().filter(|_| !sorted.is_empty());
    named.map(|(name, part)| (name.to_owned(), millis(sorted, part))).collect()
}

/// By hundredths, and from nine tenths on twenty points for each nine more, as far as there are answers to tell.
fn distribution(sorted: &[u32]) -> Vec<(f64, f64)> {
    let hundredths = (0..90).map(|step| f64::from(step) / 100.0);
    let nines = (0..=80).map(|step| 1.0 - 10.0_f64.powf(-1.0 - f64::from(step) / 20.0));
    let told = 1.0 - 1.0 / sorted.len().max(1) as f64;
    let parts = hundredths.chain(nines).filter(|part| *part < told).chain([1.0]);
    parts.map(|part| (millis(sorted, part), part)).filter(|_| !sorted.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_s_requests_come_after_those_of_the_one_before() {
        let mut record = Record::new(Duration::from_secs(1));
        for _ in 0..3 {
            let turn = Turn { traffic: 0, target: 0, variant: 0 };
            let answer = Answer { status: 200, version: None, says_when_to_retry: false, reason: String::new() };
            record.add(turn, Duration::from_millis(1500), Duration::from_millis(1), &Ok(answer));
            record.round_is_over(Duration::from_secs(2));
        }
        assert_eq!(record.samples.iter().map(|sample| sample.at).collect::<Vec<_>>(), [1500, 3500, 5500]);
        let summary = record.summary(Duration::from_secs(6), |_| true);
        assert_eq!((summary.answered_per_second, summary.timeline.len()), (0.5, 6));
    }

    /// Answers of 1 to 100 ms, one every 10 ms, by turns of two targets.
    fn record() -> Record {
        let mut record = Record::new(Duration::from_millis(50));
        for number in 0..100 {
            let version = Some(if number % 4 == 0 { "2" } else { "1" }.to_owned());
            let status = if number == 99 { 429 } else { 200 };
            let turn = Turn { traffic: 0, target: number % 2, variant: 0 };
            let (at, latency) = (Duration::from_millis(10 * number as u64), Duration::from_millis(1 + number as u64));
            record.add(
                turn,
                at,
                latency,
                &Ok(Answer { status, version, says_when_to_retry: true, reason: String::new() }),
            );
        }
        record
    }

    #[test]
    fn a_summary_says_what_became_of_the_requests() {
        let all = record().summary(Duration::from_secs(1), |_| true);
        assert_eq!((all.sent_per_second, all.goodput_per_second, all.answered_per_second), (100.0, 50.0, 99.0));
        assert_eq!(all.outcomes, BTreeMap::from([("200".to_owned(), 99), ("429".to_owned(), 1)]));
        assert_eq!(all.versions, BTreeMap::from([("1".to_owned(), 74), ("2".to_owned(), 25)]));
        assert_eq!((all.latency("p50"), all.latency("max")), (Some(50.0), Some(99.0)));
        assert_eq!((all.told_when_to_retry, all.refusal_milliseconds["max"]), (1, 100.0));
        assert_eq!(all.timeline, [(100, 50, 50.0, 99.0)]);
        assert_eq!(all.cdf.last(), Some(&(99.0, 1.0)));
        assert!(all.cdf.windows(2).all(|pair| pair[0].1 < pair[1].1 && pair[0].0 <= pair[1].0));
    }

    #[test]
    fn a_summary_is_of_what_is_chosen() {
        let record = record();
        let second = record.summary(Duration::from_secs(1), |sample| sample.target == 1);
        assert_eq!(second.outcomes, BTreeMap::from([("200".to_owned(), 49), ("429".to_owned(), 1)]));
        assert_eq!(second.latency("p50"), Some(50.0));
        let empty = record.summary(Duration::from_secs(1), |_| false);
        assert!(empty.cdf.is_empty() && empty.milliseconds.is_empty());
    }

    #[test]
    fn reasons_are_counted_and_do_not_grow_without_end() {
        let mut record = Record::new(Duration::from_millis(50));
        for number in 0..40 {
            let reason = if number % 2 == 0 { "reset".to_owned() } else { format!("port {number}") };
            let turn = Turn { traffic: 0, target: 0, variant: 0 };
            record.add(turn, Duration::ZERO, Duration::ZERO, &Err(anyhow::anyhow!(reason)));
        }
        assert_eq!((record.unanswered["reset"], record.unanswered["other reasons"]), (20, 11));
        assert_eq!(record.unanswered.len(), MOST_REASONS + 1);
    }

    #[test]
    fn drift_is_that_of_the_last_tenth() {
        let mut record = Record::new(Duration::from_millis(50));
        for number in 0..100_u64 {
            let latency = Duration::from_millis(if number < 90 { 10 } else { 30 });
            let answer = Ok(Answer { status: 200, version: None, says_when_to_retry: false, reason: String::new() });
            record.add(Turn { traffic: 0, target: 0, variant: 0 }, Duration::from_secs(number), latency, &answer);
        }
        assert_eq!(record.drift(Duration::from_secs(100)).unwrap().p99, (10.0, 30.0));
        assert!(record.drift(Duration::from_secs(59)).is_none());
    }
}
