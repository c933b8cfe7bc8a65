//! How long batches take, learned from those that ran. Pure: whoever ran one says how long it took.
//!
//! Kept for each size of a row (texts differ in length) and each number of rows, as what the last batches of that kind
//! took. Their middle says how fast work gets done, their slow end what can be promised. Between numbers of rows that
//! have been seen a straight line is drawn; a number that has not been seen for a while is taken to be no slower than a
//! larger batch was since, or as many smaller ones, and no faster than a smaller one, so that one bad moment is not believed
//! for ever.
//!
//! A device that becomes faster or slower, as one whose neighbours go or come, is believed after three batches in a row that
//! are unlike all before: what was seen before is then forgotten, and all sizes are taken to have changed by as much.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// What one batch is expected to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Half of them take longer.
    pub middle: Duration,
    /// One of twenty takes longer.
    pub slow: Duration,
}

impl Expected {
    /// Of what nothing is known: it is not held against anybody.
    pub const UNKNOWN: Expected = Expected { middle: Duration::ZERO, slow: Duration::ZERO };
}

/// What is known of one model on one kind of device.
pub struct Times {
    max_rows: usize,
    /// By the size class of a row.
    curves: Vec<Option<Curve>>,
}

impl Times {
    /// Of batches of up to so many rows.
    pub fn new(max_rows: usize) -> Times {
        Times { max_rows, curves: Vec::new() }
    }

    /// Learns from a batch that ended now, of `rows` rows of `elements` elements each. Says whether it shows that all
    /// batches take another time than before.
    pub fn observe(&mut self, elements: usize, rows: usize, took: Duration, now: Instant) -> bool {
        let class = size_class(elements);
        if self.curves.len() <= class {
            self.curves.resize_with(class + 1, || None);
        }
        let max_rows = self.max_rows;
        self.curves[class].get_or_insert_with(|| Curve::new(max_rows)).observe(rows, took, now)
    }

    /// `None` before anything has run. Rows of a size that has not been seen take as long as smaller ones: nobody is to
    /// be refused because of a guess.
    pub fn expect(&self, elements: usize, rows: usize) -> Option<Expected> {
        self.curve(elements).map(|curve| curve.expect(rows))
    }

    /// How many rows to run together when there is no lack of them: the fewest that get as much done in a second as this
    /// part of the most. Larger batches are tried anew when they have not been for a while.
    pub fn best_rows(&self, elements: usize, part: f64, now: Instant) -> usize {
        self.curve(elements).map_or(self.max_rows, |curve| curve.best_rows(part, self.max_rows, now))
    }

    /// How many rows a batch may have that keeps others waiting: the most that take little longer than a row of their own
    /// does alone, but not so few that much less gets done.
    pub fn short_rows(&self, elements: usize) -> usize {
        self.curve(elements).map_or(self.max_rows, Curve::short_rows).min(self.max_rows)
    }

    /// A larger batch than that of which little is known yet: it may get more done, and once is not enough to know that it
    /// does not.
    pub fn untried(&self, elements: usize, rows: usize) -> Option<usize> {
        let sizes = &self.curve(elements)?.untried;
        sizes.iter().map(|untried| untried.rows).find(|size| *size > rows)
    }

    /// The largest size that is about as good as any, when four times as many rows wait: of sizes that differ less than what
    /// is known of them, it is the one that leaves most time for all else.
    pub fn ample(&self, elements: usize, waiting: usize) -> Option<usize> {
        self.curve(elements)?.ample(waiting)
    }

    /// A larger batch than that which has not been run for a while, now and then, when twice as many rows wait: that it was
    /// slow then must not keep it from being run for ever.
    pub fn again(&self, elements: usize, rows: usize, waiting: usize, now: Instant) -> Option<usize> {
        self.curve(elements)?.again(rows, waiting, now)
    }

    /// Whether what is known of such rows is new enough, and sure enough, to refuse anybody by it while none of them runs:
    /// without batches there would never be news.
    pub fn has_news(&self, elements: usize, now: Instant) -> bool {
        self.curve(elements).is_some_and(|curve| curve.has_news(now))
    }

    fn curve(&self, elements: usize) -> Option<&Curve> {
        let (smaller, larger) = self.curves.split_at((size_class(elements) + 1).min(self.curves.len()));
        smaller.iter().rev().chain(larger).flatten().next()
    }
}

/// Numbers of about the same size: each to 8 is alone, then there are four classes from each power of two to the next.
pub fn size_class(number: usize) -> usize {
    const ALONE: usize = 8;
    if number < ALONE {
        return number;
    }
    let power = number.ilog2() as usize;
    ALONE + (power - 3) * 4 + (number >> (power - 2) & 3)
}

/// How long it is before what was seen is old.
const FRESH: Duration = Duration::from_secs(10);

/// What batches take by their rows.
struct Curve {
    /// Ascending.
    points: Vec<Point>,
    /// The same, as corners of the line.
    corners: Vec<Corner>,
    /// What has been asked for since: several times a request.
    expected: [Cell<Option<Expected>>; 65],
    /// Rows a second of the one that gets most done.
    most: f64,
    /// How much longer than the middle of their kind the last batches of all kinds took.
    spread: Last,
    /// Ascending.
    untried: Vec<Untried>,
    /// Which of the points was run last.
    last: usize,
    /// Batches since one of a size that had not been run for a while.
    since_again: usize,
}

/// A size of batches that is to be run some more times before it is known.
struct Untried {
    rows: usize,
    times: usize,
}

#[derive(Clone, Copy)]
struct Corner {
    rows: f64,
    middle: f64,
    slow: f64,
}

impl Corner {
    /// Rows a second.
    fn rate(&self) -> f64 {
        self.rows / self.middle.max(1e-9)
    }
}

impl Curve {
    /// After so long a size is run again to see what it takes.
    const AGAIN: Duration = Duration::from_secs(2);

    fn new(max_rows: usize) -> Curve {
        const ENOUGH: usize = 4;
        let sizes = std::iter::successors(Some(2), |rows: &usize| rows.checked_mul(2));
        let sizes = sizes.take_while(|rows| *rows < max_rows).chain([max_rows]);
        Curve {
            points: Vec::new(),
            corners: Vec::new(),
            expected: [const { Cell::new(None) }; 65],
            most: 0.0,
            spread: Last::default(),
            untried: sizes.map(|rows| Untried { rows, times: ENOUGH }).collect(),
            last: 0,
            since_again: 0,
        }
    }

    fn observe(&mut self, rows: usize, took: Duration, now: Instant) -> bool {
        let class = size_class(rows);
        let at = match self.points.binary_search_by_key(&class, |point| point.class) {
            Ok(at) => at,
            Err(at) => {
                self.points.insert(at, Point::new(class, rows, now));
                at
            }
        };
        // As near to it as the jobs' rows allow: of five rows each, no batch ever has four.
        if let Some(tried) = self.untried.iter_mut().find(|untried| rows > untried.rows / 2) {
            tried.times -= 1;
        }
        self.untried.retain(|untried| untried.times > 0);
        let is_again = now.duration_since(self.points[at].seen) > Curve::AGAIN;
        self.since_again = if is_again { 0 } else { self.since_again.saturating_add(1) };
        if let Some(middle) = self.points[at].settled() {
            self.spread.add(took.as_secs_f64() / middle.max(1e-9));
        }
        let change = self.points[at].observe(rows, took, now);
        self.last = at;
        if let Some(change) = change {
            let others = self.points.iter_mut().filter(|point| point.class != class);
            others.for_each(|point| point.took.guess(change));
        }
        let fresh = |point: &&Point| now.duration_since(point.seen) <= FRESH && !point.took.is_guess;
        let corner = |(at, point): (usize, &Point)| {
            let (mut middle, mut slow) = (point.took.middle, point.slow(&self.spread));
            if !fresh(&point) {
                for smaller in self.points[..at].iter().filter(fresh) {
                    let (least, least_slow) = (smaller.took.middle, smaller.slow(&self.spread));
                    // No longer than so many smaller ones, or it would never be run again.
                    let many = (point.rows / smaller.rows).max(1.0);
                    (middle, slow) = (middle.min(least * many).max(least), slow.min(least_slow * many).max(least_slow));
                }
                for larger in self.points[at + 1..].iter().filter(fresh) {
                    (middle, slow) = (middle.min(larger.took.middle), slow.min(larger.slow(&self.spread)));
                }
            }
            Corner { rows: point.rows, middle, slow }
        };
        self.expected.iter().for_each(|known| known.set(None));
        self.corners = self.points.iter().enumerate().map(corner).collect();
        self.most = self.corners.iter().map(Corner::rate).fold(0.0, f64::max);
        change.is_some()
    }

    fn ample(&self, waiting: usize) -> Option<usize> {
        const ALIKE: f64 = 0.97;
        let sizes = self.points.iter().zip(&self.corners).rev();
        let mut alike =
            sizes.filter(|(_, corner)| corner.rate() >= ALIKE * self.most).map(|(point, _)| point.most_rows);
        alike.find(|rows| 4 * rows <= waiting)
    }

    fn again(&self, rows: usize, waiting: usize, now: Instant) -> Option<usize> {
        /// One of so many batches may be no better than others.
        const NOW_AND_THEN: usize = 32;
        let is_time = self.since_again >= NOW_AND_THEN;
        let is_due = |point: &&Point| {
            let is_old = is_time && now.duration_since(point.seen) > Curve::AGAIN;
            point.most_rows > rows && 2 * point.most_rows <= waiting && (is_old || point.took.is_in_doubt())
        };
        self.points.iter().filter(is_due).min_by_key(|point| point.seen).map(|point| point.most_rows)
    }

    fn has_news(&self, now: Instant) -> bool {
        /// Trying what takes longer than is known to be allowed may cost about this part of the device's time, if that is
        /// what it does.
        const PART: u32 = 5;
        let most = self.corners.first().map_or(0.0, |first| first.middle);
        let old = Duration::from_secs(1).max(Duration::from_secs_f64(most) * PART);
        let is_news = |last: &Point| !last.took.is_in_doubt() && now.duration_since(last.seen) <= old;
        self.points.get(self.last).is_some_and(is_news)
    }

    fn expect(&self, rows: usize) -> Expected {
        let Some(known) = self.expected.get(rows) else { return self.line(rows) };
        known.get().unwrap_or_else(|| {
            let expected = self.line(rows);
            known.set(Some(expected));
            expected
        })
    }

    /// What the line through the corners says.
    #[allow(clippy::cast_precision_loss)] // rows are few
    fn line(&self, rows: usize) -> Expected {
        let rows = rows as f64;
        let above = self.corners.partition_point(|corner| corner.rows < rows);
        let (middle, slow) = match (self.corners[..above].last(), self.corners.get(above)) {
            (Some(below), Some(above)) => {
                let part = (rows - below.rows) / (above.rows - below.rows);
                let between = |from: f64, to: f64| from + (to - from) * part;
                (between(below.middle, above.middle), between(below.slow, above.slow))
            }
            (None, Some(above)) => (above.middle, above.slow),
            // Beyond the largest batch of all, as many more as there are rows more.
            (Some(last), None) => (last.middle * rows / last.rows, last.slow * rows / last.rows),
            (None, None) => (0.0, 0.0),
        };
        // By nanoseconds it costs a fifth of `from_secs_f64`.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it saturates
        let duration = |seconds: f64| Duration::from_nanos((seconds * 1e9).round() as u64);
        Expected { middle: duration(middle), slow: duration(slow) }
    }

    /// The place of the smallest size that gets as much done as this part of the most.
    fn enough(&self, part: f64) -> usize {
        self.corners.iter().position(|corner| corner.rate() >= part * self.most).unwrap_or(0)
    }

    fn short_rows(&self) -> usize {
        /// What is little, as a part of what one row takes.
        const LITTLE: f64 = 4.0 / 3.0;
        /// What has to get done, as a part of the most.
        const LEAST: f64 = 0.58;
        let one = self.line(1).middle.as_secs_f64();
        let shorter = self.corners.iter().take_while(|corner| corner.middle <= LITTLE * one).count();
        let place = shorter.saturating_sub(1).max(self.enough(LEAST));
        self.points.get(place).map_or(1, |point| point.most_rows)
    }

    fn best_rows(&self, part: f64, max_rows: usize, now: Instant) -> usize {
        /// How often larger ones are tried, in case they were slow by accident.
        const TRY_AGAIN: Duration = Duration::from_mins(1);
        let best = self.enough(part);
        let forgotten = self.points.iter().skip(best + 1).find(|point| now.duration_since(point.seen) > TRY_AGAIN);
        let rows = forgotten.or(self.points.get(best)).map_or(max_rows, |point| point.most_rows);
        // The largest that were seen were the best: so may be those beyond.
        let is_last = best + 1 == self.points.len();
        if is_last { max_rows } else { rows.min(max_rows) }
    }
}

/// The last numbers of many.
#[derive(Default)]
struct Last {
    /// The oldest at `next` once there are enough.
    numbers: Vec<f64>,
    next: usize,
    least: f64,
    middle: f64,
    /// Of twenty one is larger.
    high: f64,
    most: f64,
    /// The newest, as long as all of them are much less or all much more than any before.
    surprises: Vec<f64>,
    /// Whether it is only what others suggest.
    is_guess: bool,
}

impl Last {
    const MOST: usize = 32;
    /// So many say something of who is the largest of twenty.
    const ENOUGH: usize = 20;
    /// So many surprises in a row are none.
    const BELIEVED: usize = 3;

    /// Gives by how much numbers have changed when this one shows that they have.
    fn add(&mut self, number: f64) -> Option<f64> {
        /// How far beyond all others is much.
        const MUCH: f64 = 4.0 / 3.0;
        let is_much_less = |other: f64| number * MUCH < other;
        let is_much_more = |other: f64| number > other * MUCH;
        let is_alike = |sign: f64| self.surprises.iter().all(|other| (other - self.middle) * sign > 0.0);
        let is_surprise = (is_much_less(self.least) && is_alike(-1.0)) || (is_much_more(self.most) && is_alike(1.0));
        if is_surprise && !self.numbers.is_empty() {
            self.surprises.push(number);
            // Of one or two that are known, as many are as good.
            if self.surprises.len() < Last::BELIEVED.min(self.numbers.len()) {
                return None;
            }
            let (before, is_known) = (self.middle, self.numbers.len() >= Last::BELIEVED);
            self.numbers = std::mem::take(&mut self.surprises);
            (self.next, self.is_guess) = (0, false);
            self.sum_up();
            return is_known.then(|| self.middle / before.max(1e-9));
        }
        for surprise in std::mem::take(&mut self.surprises) {
            self.keep(surprise);
        }
        self.keep(number);
        self.is_guess = false;
        self.sum_up();
        None
    }

    fn keep(&mut self, number: f64) {
        if self.numbers.len() < Last::MOST {
            self.numbers.push(number);
        } else {
            self.numbers[self.next] = number;
            self.next = (self.next + 1) % Last::MOST;
        }
    }

    fn sum_up(&mut self) {
        let mut sorted = [0.0; Last::MOST];
        let sorted = &mut sorted[..self.numbers.len()];
        sorted.copy_from_slice(&self.numbers);
        sorted.sort_unstable_by(f64::total_cmp);
        self.least = sorted[0];
        self.middle = sorted[(sorted.len() - 1) / 2];
        self.high = sorted[(sorted.len() * 19).div_ceil(20) - 1];
        self.most = sorted[sorted.len() - 1];
    }

    /// As if one alone were known, so many times as large as the middle: the next one says whether that is right.
    fn guess(&mut self, factor: f64) {
        (self.numbers, self.next, self.is_guess) = (vec![self.middle * factor], 0, true);
        self.surprises.clear();
        self.sum_up();
    }

    fn is_in_doubt(&self) -> bool {
        !self.surprises.is_empty()
    }

    fn are_enough(&self) -> bool {
        self.numbers.len() >= Last::ENOUGH
    }
}

/// The last batches of about the same number of rows.
struct Point {
    class: usize,
    /// Their mean.
    rows: f64,
    most_rows: usize,
    /// In seconds.
    took: Last,
    seen: Instant,
}

impl Point {
    #[allow(clippy::cast_precision_loss)] // rows are few
    fn new(class: usize, rows: usize, now: Instant) -> Point {
        Point { class, rows: rows as f64, most_rows: rows, took: Last::default(), seen: now }
    }

    #[allow(clippy::cast_precision_loss)]
    fn observe(&mut self, rows: usize, took: Duration, now: Instant) -> Option<f64> {
        let change = self.took.add(took.as_secs_f64());
        self.rows += (rows as f64 - self.rows) / self.took.numbers.len() as f64;
        self.most_rows = self.most_rows.max(rows);
        self.seen = now;
        change
    }

    /// The middle, once there is one.
    fn settled(&self) -> Option<f64> {
        (self.took.numbers.len() >= 4).then_some(self.took.middle)
    }

    /// What few of them take longer than. Of so few as to say nothing of that: by how much others exceed their middle, lest
    /// one bad moment keeps batches of a size from being run, and so from being seen, again.
    fn slow(&self, spread: &Last) -> f64 {
        let is_known = self.took.are_enough() || !spread.are_enough();
        if is_known { self.took.high } else { self.took.middle * spread.high.max(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(millis: f64) -> Duration {
        Duration::from_secs_f64(millis / 1000.0)
    }

    /// What is learned from batches of these rows and milliseconds, each seen once, now.
    fn learned(now: Instant, seen: &[(usize, f64)]) -> Times {
        let mut times = Times::new(64);
        for (rows, took) in seen {
            times.observe(1, *rows, ms(*took), now);
        }
        times
    }

    fn millis(times: &Times, rows: usize) -> f64 {
        times.expect(1, rows).unwrap().middle.as_secs_f64() * 1000.0
    }

    #[test]
    fn classes_are_in_order_and_no_wider_than_a_quarter() {
        let mut first = 0;
        for number in 1..10_000 {
            assert!(
                size_class(number) == size_class(number - 1) || size_class(number) == size_class(number - 1) + 1,
                "{number}"
            );
            if size_class(number) != size_class(number - 1) {
                first = number;
            }
            assert!(number * 4 <= first * 5, "{first} and {number}");
        }
        assert!(size_class(usize::MAX) < 300);
    }

    #[test]
    fn between_batches_that_were_seen_the_line_is_straight() {
        let times = learned(Instant::now(), &[(2, 4.0), (4, 6.0), (8, 14.0)]);
        for (rows, expected) in [(1, 4.0), (2, 4.0), (3, 5.0), (4, 6.0), (6, 10.0), (8, 14.0), (16, 28.0)] {
            assert!((millis(&times, rows) - expected).abs() < 1e-6, "{rows}");
        }
        assert_eq!(Times::new(64).expect(1, 1), None);
    }

    #[test]
    fn the_slow_end_is_told_beside_the_middle() {
        let now = Instant::now();
        let mut times = Times::new(64);
        assert!(!(11..=30).any(|took| times.observe(1, 1, ms(f64::from(took)), now)));
        assert_eq!(times.expect(1, 1).unwrap(), Expected { middle: ms(20.0), slow: ms(29.0) });
        // What is long ago is forgotten.
        assert!(!(0..Last::MOST).any(|_| times.observe(1, 1, ms(10.0), now)));
        assert_eq!(times.expect(1, 1).unwrap(), Expected { middle: ms(10.0), slow: ms(10.0) });
    }

    #[test]
    fn three_that_are_unlike_all_before_change_all_sizes_and_fewer_do_not() {
        let now = Instant::now();
        let mut times = learned(now, &[(8, 10.0), (8, 11.0), (8, 12.0), (32, 30.0)]);
        assert!(!times.observe(1, 8, ms(33.0), now) && !times.observe(1, 8, ms(40.0), now));
        assert_eq!((millis(&times, 8), times.has_news(1, now)), (11.0, false));
        assert!(!times.observe(1, 8, ms(10.5), now));
        assert!(times.has_news(1, now) && !times.has_news(1, now + Duration::from_secs(2)));
        // The two that were unlike are among the others by now.
        assert!(!times.observe(1, 8, ms(1.2), now) && !times.observe(1, 8, ms(1.1), now));
        assert!(times.observe(1, 8, ms(1.0), now));
        assert!((millis(&times, 8) - 1.1).abs() < 1e-9);
        assert!((millis(&times, 32) - 30.0 * 1.1 / 11.0).abs() < 1e-9);
    }

    #[test]
    fn larger_batches_are_run_again_when_many_wait() {
        let now = Instant::now();
        let mut times = learned(now, &[(1, 4.0), (8, 8.0), (32, 500.0)]);
        let later = now + Duration::from_secs(3);
        assert_eq!(times.again(1, 8, 1000, later), None);
        (0..40).for_each(|_| assert!(!times.observe(1, 8, ms(8.0), later)));
        assert_eq!((times.again(1, 8, 63, later), times.again(1, 8, 64, later)), (None, Some(32)));
        times.observe(1, 32, ms(500.0), later);
        assert_eq!(times.again(1, 8, 64, later), None);
    }

    #[test]
    fn of_sizes_that_are_about_as_good_many_that_wait_get_the_largest() {
        let times = learned(Instant::now(), &[(1, 4.0), (8, 8.0), (16, 16.3), (32, 34.0)]);
        assert_eq!(
            [31, 32, 63, 64, 1000].map(|waiting| times.ample(1, waiting)),
            [None, Some(8), Some(8), Some(16), Some(16)]
        );
    }

    #[test]
    fn rows_of_unknown_size_take_what_smaller_ones_do() {
        let now = Instant::now();
        let mut times = Times::new(64);
        times.observe(100, 1, ms(5.0), now);
        times.observe(1000, 1, ms(50.0), now);
        let middle = |elements| times.expect(elements, 1).unwrap().middle;
        assert_eq!((middle(1), middle(100), middle(800), middle(1_000_000)), (ms(5.0), ms(5.0), ms(5.0), ms(50.0)));
    }

    #[test]
    fn what_is_old_gives_way_to_what_is_new() {
        let now = Instant::now();
        let later = now + FRESH * 2;
        let mut times = learned(now, &[(1, 50.0), (8, 3.0), (32, 9.0)]);
        times.observe(1, 16, ms(20.0), later);
        let found = [1, 8, 16, 32].map(|rows| times.expect(1, rows).unwrap().middle);
        assert_eq!(found, [20.0, 3.0, 20.0, 20.0].map(ms));
    }

    #[test]
    fn the_best_batch_is_the_smallest_that_is_as_good_as_any() {
        let now = Instant::now();
        let best = |seen: &[(usize, f64)]| learned(now, seen).best_rows(1, 0.98, now);
        // A fixed cost: the more the better, beyond what was seen, too.
        assert_eq!(best(&[(1, 5.0), (2, 5.1), (4, 5.2), (8, 5.4)]), 64);
        // No gain in company.
        assert_eq!(best(&[(1, 1.0), (2, 2.0), (4, 4.0), (64, 64.0)]), 1);
        // Larger ones do not fit the processor's cache.
        assert_eq!(best(&[(1, 2.0), (4, 4.0), (16, 10.0), (64, 60.0)]), 16);
        assert_eq!(Times::new(7).best_rows(1, 0.98, now), 7);
    }

    #[test]
    fn a_batch_that_keeps_others_waiting_is_short_as_long_as_enough_gets_done() {
        let now = Instant::now();
        let each_row_counts = [(1, 3.0), (2, 5.0), (4, 9.0), (8, 17.0)];
        assert_eq!(learned(now, &each_row_counts).short_rows(1), 1);
        let rows_cost_little = [(1, 4.0), (2, 4.5), (4, 5.0), (8, 7.0)];
        assert_eq!(learned(now, &rows_cost_little).short_rows(1), 4);
        let one_row_gets_little_done = [(1, 4.0), (2, 6.0), (4, 6.5), (8, 8.0)];
        assert_eq!(learned(now, &one_row_gets_little_done).short_rows(1), 4);
        assert_eq!(Times::new(8).short_rows(1), 8);
    }

    #[test]
    fn what_is_only_guessed_is_no_slower_than_so_many_smaller_ones() {
        let now = Instant::now();
        let mut times = learned(now, &[(4, 20.0), (4, 20.0), (4, 20.0), (32, 100.0), (32, 100.0)]);
        // Everything stalls for a while, and then not.
        let stalled = (0..3).map(|_| 200.0).chain((0..12).map(|_| 20.0));
        for took in stalled {
            times.observe(1, 4, ms(took), now);
        }
        assert!(millis(&times, 4) < 21.0, "{}", millis(&times, 4));
        assert!(millis(&times, 32) <= 8.0 * 21.0, "{}", millis(&times, 32));
    }

    #[test]
    fn a_batch_that_was_slow_once_gets_another_chance() {
        let now = Instant::now();
        let mut times = learned(now, &[(1, 4.0), (8, 8.0), (32, 500.0)]);
        assert_eq!(times.best_rows(1, 0.98, now), 8);
        let later = now + Duration::from_secs(61);
        times.observe(1, 8, ms(8.0), later);
        assert_eq!(times.best_rows(1, 0.98, later), 32);
        times.observe(1, 32, ms(20.0), later);
        assert_eq!(times.best_rows(1, 0.98, later), 64);
    }

    proptest! {
        #[test]
        fn whatever_was_seen_something_finite_is_expected(
            seen in proptest::collection::vec((1..200_usize, 1..5_000_usize, 0..10_000_000_u64), 1..200),
            asked in (1..200_usize, 1..5_000_usize),
        ) {
            let now = Instant::now();
            let mut times = Times::new(128);
            for (rows, elements, micros) in &seen {
                times.observe(*elements, *rows, Duration::from_micros(*micros), now);
            }
            let expected = times.expect(asked.1, asked.0).unwrap();
            prop_assert!(expected.middle <= expected.slow);
            prop_assert!(expected.slow <= Duration::from_secs(10) * u32::try_from(asked.0).unwrap());
            prop_assert!((1..=128).contains(&times.best_rows(asked.1, 0.98, now)));
        }
    }
}
