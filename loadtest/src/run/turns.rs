//! Whose turn it is: of which traffic the next request is, and to which target it goes. Pure, and the same for the
//! same seed.

use super::arrivals::Random;
use super::scenario::{Scenario, Step};

/// The next request.
#[derive(Clone, Copy)]
pub struct Turn {
    pub traffic: usize,
    pub target: usize,
    /// Which of the bodies that were made up.
    pub variant: usize,
}

pub struct Turns {
    /// Kinds of traffic that take part, their shares, and what they have been owed since their last turn.
    kinds: Vec<(usize, f64, f64)>,
    by_turns: bool,
    /// Each target once, in a random order that is another one each time: shares are equal at any moment.
    round: Vec<usize>,
    targets: usize,
    random: Random,
}

impl Turns {
    pub fn new(scenario: &Scenario, step: &Step, targets: usize, seed: u64) -> Turns {
        let kinds = scenario.traffic.iter().enumerate().filter(|(_, traffic)| step.takes_part(traffic));
        let kinds = kinds.map(|(number, traffic)| (number, traffic.share, 0.0)).collect();
        Turns { kinds, by_turns: step.by_turns, round: Vec::new(), targets, random: Random(seed) }
    }

    pub fn next(&mut self) -> Turn {
        Turn { traffic: self.traffic(), target: self.target(), variant: self.random.next() as usize }
    }

    fn traffic(&mut self) -> usize {
        let total: f64 = self.kinds.iter().map(|(_, share, _)| share).sum();
        if self.by_turns {
            // Who is owed most; shares of 2 and 1 give A, B, A, A, B, A.
            self.kinds.iter_mut().for_each(|(_, share, owed)| *owed += *share);
            let next = self.kinds.iter_mut().reduce(|most, other| if other.2 > most.2 { other } else { most });
            return next.map_or(0, |(number, _, owed)| {
                *owed -= total;
                *number
            });
        }
        let mut left = self.random.unit() * total;
        let found = self.kinds.iter().find(|(_, share, _)| {
            left -= share;
            left <= 0.0
        });
        found.or(self.kinds.last()).map_or(0, |(number, ..)| *number)
    }

    fn target(&mut self) -> usize {
        if self.round.is_empty() {
            self.round = (0..self.targets).collect();
            for last in (1..self.targets).rev() {
                self.round.swap(last, self.random.next() as usize % (last + 1));
            }
        }
        self.round.pop().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(step: &str, targets: usize, count: usize) -> Vec<Turn> {
        let traffic = |name, share| {
            format!("[[traffic]]\nname = \"{name}\"\nshare = {share}\nprotocol = \"v1\"\nmodel = \"m\"\nbody = \"b\"\n")
        };
        let step = format!("[[steps]]\nname = \"s\"\nseconds = 1\nload.closed = {{ connections = 1 }}\n{step}\n");
        let text = ["description = \"\"\nslo_milliseconds = 1\n".to_owned(), traffic("a", 2), traffic("b", 1), step];
        let scenario = Scenario::parse(&text.concat()).unwrap();
        let mut turns = Turns::new(&scenario, &scenario.steps[0], targets, 5);
        (0..count).map(|_| turns.next()).collect()
    }

    fn count(turns: &[Turn], is_counted: impl Fn(&Turn) -> bool) -> usize {
        turns.iter().filter(|turn| is_counted(turn)).count()
    }

    #[test]
    fn shares_are_kept_at_random_and_by_turns() {
        let random = count(&turns("", 1, 3_000), |turn| turn.traffic == 0);
        assert!((1_900..2_100).contains(&random), "{random}");
        let taken: Vec<_> = turns("by_turns = true", 1, 6).iter().map(|turn| turn.traffic).collect();
        assert_eq!(taken, [0, 1, 0, 0, 1, 0]);
    }

    #[test]
    fn a_step_chooses_its_traffic() {
        for more in ["", "by_turns = true"] {
            let turns = turns(&format!("traffic = [\"b\"]\n{more}"), 1, 100);
            assert_eq!(count(&turns, |turn| turn.traffic == 1), 100);
        }
    }

    #[test]
    fn targets_are_asked_equally_often_in_no_fixed_order() {
        let turns = turns("", 2, 1_000);
        for pair in turns.as_chunks::<2>().0 {
            assert_ne!(pair[0].target, pair[1].target);
        }
        let first = turns.as_chunks::<2>().0.iter().filter(|pair| pair[0].target == 0).count();
        assert!((200..300).contains(&first), "{first}");
    }
}
