//! What the machine's host gave of its processors' time to others: where that is much, a step says as much of them as of the
//! server.

/// Of the time in which one was looked for, in the kernel's ticks.
#[derive(Default)]
pub struct Stolen {
    before: Option<Ticks>,
    stolen: u64,
    all: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Ticks {
    stolen: u64,
    all: u64,
}

impl Stolen {
    pub fn begin(&mut self) {
        self.before = Ticks::now();
    }

    pub fn end(&mut self) {
        if let (Some(before), Some(now)) = (self.before, Ticks::now()) {
            self.stolen += now.stolen.saturating_sub(before.stolen);
            self.all += now.all.saturating_sub(before.all);
        }
    }

    /// `None` where the kernel does not say.
    pub fn part(&self) -> Option<f64> {
        (self.all > 0).then(|| self.stolen as f64 / self.all as f64)
    }
}

impl Ticks {
    fn now() -> Option<Ticks> {
        Ticks::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    /// Source: proc(5), `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal, and what is in user already.
    fn parse(stat: &str) -> Option<Ticks> {
        let ticks = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
        let ticks: Vec<u64> = ticks.map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Ticks { stolen: *ticks.get(7)?, all: ticks.iter().sum() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stolen_is_a_part_of_all_time() {
        let stat = "cpu  100 10 30 500 20 1 4 35 7 7\ncpu0 50 5 15 250 10 0 2 17 0 0\n";
        assert_eq!(Ticks::parse(stat), Some(Ticks { stolen: 35, all: 700 }));
        assert_eq!([Ticks::parse(""), Ticks::parse("cpu  1 2 3"), Ticks::parse("cpu  1 2 3 4 5 6 7 x")], [None; 3]);
    }
}
