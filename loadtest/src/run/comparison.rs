//! Whether a candidate (a canary) does better or worse than a baseline that was asked at the same time.
//!
//! Uncertainty comes from a paired block bootstrap: moments of the step are drawn again and again with replacement, the
//! same ones for both, and all that was asked in a moment comes with it. Requests of one moment stand in one queue, so
//! drawing them one by one would promise more than they show. Source: Efron and Tibshirani, "An Introduction to the
//! Bootstrap" (1993), 13.3 (percentile intervals); Künsch, "The Jackknife and the Bootstrap for General Stationary
//! Observations" (1989), for the blocks.

use serde::{Deserialize, Serialize};

use super::arrivals::Random;
use super::record::Sample;

/// Of one step.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Comparison {
    pub step: String,
    pub baseline: String,
    pub candidate: String,
    /// The candidate's as times the baseline's; `None` where too little was answered to say.
    pub p50_ratio: Option<Interval>,
    pub p99_ratio: Option<Interval>,
    /// The candidate's part of requests without a right answer less the baseline's.
    pub error_difference: Interval,
    /// The candidate's part of what both were sent.
    pub share: Interval,
    pub verdict: Verdict,
    pub sentence: String,
}

/// What was seen, and where it lies with a confidence that makes 95 % of the two ratios and the errors together.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq)]
pub struct Interval {
    pub seen: f64,
    pub low: f64,
    pub high: f64,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Better,
    Worse,
    /// Better in one way and worse in another.
    Mixed,
    NoDifferenceShown,
}

/// Parts of a latency that nobody changes a server for.
const NEGLIGIBLE: f64 = 0.02;
const REPLICATES: usize = 1000;
/// Bonferroni: three claims (two ratios and the errors) that hold together with 95 %.
const OUTSIDE: f64 = 0.05 / 3.0;
/// Answers beyond a percentile that it takes to speak of it.
const FEWEST_BEYOND: f64 = 10.0;

/// `seconds` is how long the step was measured; names come with their samples.
pub fn compare(
    step: &str,
    seconds: f64,
    (baseline, its): (&str, &[Sample]),
    (candidate, theirs): (&str, &[Sample]),
    seed: u64,
) -> Comparison {
    let moments = (seconds as usize).clamp(60, 1000);
    let sides = [its, theirs].map(|samples| Side::new(samples, seconds, moments));
    let [old, new] = &sides;
    let mut random = Random(seed);
    let (mut p50s, mut p99s, mut errors, mut shares) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for replicate in 0..=REPLICATES {
        // The first is what was seen.
        let mut drawn = vec![u32::from(replicate == 0); moments];
        for _ in 0..if replicate == 0 { 0 } else { moments } {
            drawn[random.next() as usize % moments] += 1;
        }
        let ratio = |part| Some(new.percentile(part, &drawn)? / old.percentile(part, &drawn)?);
        p50s.extend(ratio(0.5));
        p99s.extend(ratio(0.99));
        let (before, after) = (old.counts(&drawn), new.counts(&drawn));
        errors.push(after.error_rate() - before.error_rate());
        shares.push(after.sent / (before.sent + after.sent).max(1.0));
    }
    let said = |part: f64, replicates| {
        let is_enough = sides.iter().all(|side| side.answered.len() as f64 * (1.0 - part) >= FEWEST_BEYOND);
        is_enough.then(|| Interval::of(replicates))
    };
    let (p50_ratio, p99_ratio) = (said(0.5, p50s), said(0.99, p99s));
    let (error_difference, share) = (Interval::of(errors), Interval::of(shares));
    let verdict = verdict(p50_ratio, p99_ratio, error_difference);
    let ratio = |name: &str, interval: Option<Interval>| match interval {
        Some(Interval { seen, low, high }) => format!("{name} {seen:.2} times ({low:.2} to {high:.2})"),
        None => format!("too few answers for a {name}"),
    };
    let errors = match error_difference {
        Interval { low: 0.0, high: 0.0, .. } => "as many errors".to_owned(),
        Interval { seen, low, high } => {
            format!("errors {:+.2} points ({:+.2} to {:+.2})", seen * 100.0, low * 100.0, high * 100.0)
        }
    };
    let numbers = format!("{}, {}, {errors}", ratio("p50", p50_ratio), ratio("p99", p99_ratio));
    let found = match verdict {
        Verdict::Better => format!("{candidate} is better than {baseline}"),
        Verdict::Worse => format!("{candidate} is worse than {baseline}"),
        Verdict::Mixed => format!("{candidate} is better than {baseline} in one way and worse in another"),
        Verdict::NoDifferenceShown => format!("No difference that matters is shown between {baseline} and {candidate}"),
    };
    Comparison {
        step: step.to_owned(),
        baseline: baseline.to_owned(),
        candidate: candidate.to_owned(),
        p50_ratio,
        p99_ratio,
        error_difference,
        share,
        verdict,
        sentence: format!("{found}: {numbers}."),
    }
}

fn verdict(p50: Option<Interval>, p99: Option<Interval>, errors: Interval) -> Verdict {
    let is_any = |beyond: fn(Interval) -> bool| [p50, p99].into_iter().flatten().any(beyond);
    let is_worse = is_any(|ratio| ratio.low > 1.0 + NEGLIGIBLE) || errors.low > 0.0;
    let is_better = is_any(|ratio| ratio.high < 1.0 - NEGLIGIBLE) || errors.high < 0.0;
    match (is_better, is_worse) {
        (true, true) => Verdict::Mixed,
        (true, false) => Verdict::Better,
        (false, true) => Verdict::Worse,
        (false, false) => Verdict::NoDifferenceShown,
    }
}

impl Interval {
    /// The first replicate is what was seen.
    fn of(mut replicates: Vec<f64>) -> Interval {
        let seen = replicates[0];
        replicates.sort_by(f64::total_cmp);
        let at = |part: f64| replicates[(part * (replicates.len() - 1) as f64).round() as usize];
        Interval { seen, low: at(OUTSIDE / 2.0), high: at(1.0 - OUTSIDE / 2.0) }
    }
}

/// What one of the two has shown.
struct Side {
    /// Latencies, ascending, and their moments.
    answered: Vec<(u32, u16)>,
    moments: Vec<Counts>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    sent: f64,
    answered: f64,
}

impl Counts {
    fn error_rate(self) -> f64 {
        (self.sent - self.answered) / self.sent.max(1.0)
    }
}

impl Side {
    fn new(samples: &[Sample], seconds: f64, moments: usize) -> Side {
        let mut side = Side { answered: Vec::new(), moments: vec![Counts::default(); moments] };
        for sample in samples {
            let moment = (f64::from(sample.at) / 1000.0 / seconds * moments as f64) as usize;
            let moment = moment.min(moments - 1);
            side.moments[moment].sent += 1.0;
            if sample.is_answered() {
                side.moments[moment].answered += 1.0;
                side.answered.push((sample.micros, moment as u16));
            }
        }
        side.answered.sort_unstable();
        side
    }

    /// Of the moments that were drawn, each so many times.
    fn counts(&self, drawn: &[u32]) -> Counts {
        let mut all = Counts::default();
        for (counts, times) in self.moments.iter().zip(drawn) {
            all.sent += counts.sent * f64::from(*times);
            all.answered += counts.answered * f64::from(*times);
        }
        all
    }

    /// In microseconds; `None` where nothing was answered.
    fn percentile(&self, part: f64, drawn: &[u32]) -> Option<f64> {
        let answered = self.counts(drawn).answered as u64;
        let rank = (part * answered as f64).ceil() as u64;
        let times = |moment: u16| u64::from(drawn[usize::from(moment)]);
        let mut passed = 0;
        // From the nearer end, as this is done thousands of times.
        let found = if part <= 0.5 {
            self.answered.iter().find(|(_, moment)| {
                passed += times(*moment);
                passed >= rank.max(1)
            })
        } else {
            self.answered.iter().rev().find(|(_, moment)| {
                passed += times(*moment);
                passed > answered - rank
            })
        };
        found.map(|(micros, _)| f64::from(*micros).max(1.0))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::run::client::Answer;
    use crate::run::record::Record;
    use crate::run::turns::Turn;

    /// Of 20 s: latencies about 10 ms, spread as those of a queue, that much slower; a part of the answers are errors.
    fn samples(seed: u64, count: usize, slower: f64, errors: f64) -> Vec<Sample> {
        let (mut random, mut record) = (Random(seed), Record::new(Duration::from_secs(1)));
        for number in 0..count {
            let at = Duration::from_secs_f64(20.0 * number as f64 / count as f64);
            let latency = Duration::from_secs_f64((0.005 - 0.005 * random.unit().ln()) * slower);
            let status = if random.unit() <= errors { 500 } else { 200 };
            let answer = Ok(Answer { status, version: None, says_when_to_retry: false, reason: String::new() });
            record.add(Turn { traffic: 0, target: 0, variant: 0 }, at, latency, &answer);
        }
        record.samples
    }

    fn compared(theirs: &[Sample], seed: u64) -> Comparison {
        compare("step", 20.0, ("stable", &samples(seed, 4_000, 1.0, 0.01)), ("canary", theirs), seed)
    }

    #[test]
    fn the_same_distribution_shows_no_difference() {
        let found = (0..40).map(|seed| compared(&samples(seed + 1000, 4_000, 1.0, 0.01), seed));
        let wrong: Vec<_> = found.filter(|found| found.verdict != Verdict::NoDifferenceShown).collect();
        assert!(wrong.len() <= 3, "5 % of 40 are 2: {wrong:?}");
    }

    #[test]
    fn a_slower_one_is_worse_and_a_faster_one_better() {
        let slower = compared(&samples(21, 4_000, 1.2, 0.01), 22);
        assert_eq!(slower.verdict, Verdict::Worse);
        assert!(slower.sentence.starts_with("canary is worse than stable: p50 1."), "{}", slower.sentence);
        for ratio in [slower.p50_ratio.unwrap(), slower.p99_ratio.unwrap()] {
            assert!(ratio.low < 1.2 && 1.2 < ratio.high && ratio.low <= ratio.seen && ratio.seen <= ratio.high);
        }
        assert_eq!(compared(&samples(21, 4_000, 0.8, 0.01), 22).verdict, Verdict::Better);
    }

    #[test]
    fn errors_count() {
        let failing = compared(&samples(21, 4_000, 1.0, 0.04), 22);
        assert_eq!(failing.verdict, Verdict::Worse);
        let Interval { low, high, .. } = failing.error_difference;
        assert!(0.01 < low && high < 0.05, "3 points more: {low} to {high}");
        assert_eq!(compared(&samples(21, 4_000, 0.8, 0.04), 22).verdict, Verdict::Mixed);
    }

    #[test]
    fn shares_are_of_both() {
        let share = compared(&samples(21, 1_000, 1.0, 0.01), 22).share;
        assert_eq!(share.seen, 0.2);
        assert!(share.low <= 0.2 && 0.2 <= share.high && share.high - share.low < 0.01);
    }

    #[test]
    fn few_answers_say_nothing_of_the_slowest() {
        let few = compared(&samples(21, 100, 1.0, 0.0), 22);
        assert!(few.p50_ratio.is_some() && few.p99_ratio.is_none());
        assert_eq!(compared(&[], 22).p50_ratio, None);
    }
}
