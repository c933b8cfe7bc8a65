//! From values to places on an axis, and where its ticks are. Pure.

use super::text::{number, percent};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// From 0.
    Linear {
        high: f64,
    },
    Logarithmic {
        low: f64,
        high: f64,
    },
    /// Parts of one that are nearly all, by how many nines they have: 0.9, 0.99, 0.999.
    Nines {
        nines: f64,
    },
}

impl Scale {
    /// Has room for these.
    pub fn linear(values: impl IntoIterator<Item = f64>) -> Scale {
        let high = values.into_iter().fold(0.0, f64::max);
        Scale::Linear { high: if high > 0.0 { high * 1.06 } else { 1.0 } }
    }

    /// Has room for those of these that are above 0, and ends with round values.
    pub fn logarithmic(values: impl IntoIterator<Item = f64>) -> Scale {
        let positive = values.into_iter().filter(|value| *value > 0.0 && value.is_finite());
        let (low, high) =
            positive.fold((f64::MAX, 0.0), |(low, high): (f64, f64), value| (low.min(value), high.max(value)));
        if high == 0.0 {
            return Scale::Logarithmic { low: 1.0, high: 10.0 };
        }
        let round = |value: f64, is_enough: &dyn Fn(f64) -> bool| {
            let decade = value.log10().floor() as i32;
            let steps =
                (decade - 1..=decade + 1).flat_map(|decade| [1.0, 2.0, 5.0].map(|step| step * 10.0_f64.powi(decade)));
            steps.filter(|step| is_enough(*step)).collect::<Vec<_>>()
        };
        let low = round(low, &|step| step <= low * 1.000_001).last().copied().unwrap_or(low);
        let high = round(high, &|step| step >= high * 0.999_999).first().copied().unwrap_or(high);
        Scale::Logarithmic { low, high: high.max(low * 2.0) }
    }

    /// Has room for these parts of one.
    pub fn nines(parts: impl IntoIterator<Item = f64>) -> Scale {
        let nines = parts.into_iter().filter(|part| *part < 1.0).map(nines).fold(2.0, f64::max);
        Scale::Nines { nines: nines.min(7.0) }
    }

    /// 0 at the axis' beginning, 1 at its end.
    pub fn place(self, value: f64) -> f64 {
        match self {
            Scale::Linear { high } => value / high,
            Scale::Logarithmic { low, high } => (value.max(low * 1e-3) / low).ln() / (high / low).ln(),
            Scale::Nines { nines: most } => nines(value) / most,
        }
    }

    pub fn has(self, value: f64) -> bool {
        (-1e-9..=1.0 + 1e-9).contains(&self.place(value))
    }

    /// Values and what is written at them.
    pub fn ticks(self) -> Vec<(f64, String)> {
        let values: Vec<f64> = match self {
            Scale::Linear { high } => {
                let step = round_step(high / 5.0);
                (0..=(high / step + 1e-9) as u32).map(|count| f64::from(count) * step).collect()
            }
            Scale::Logarithmic { low, high } => {
                let steps: &[f64] = if high / low > 2_000.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
                let all = decades.flat_map(|decade| steps.iter().map(move |step| step * 10.0_f64.powi(decade)));
                all.collect()
            }
            Scale::Nines { .. } => {
                let nines = (1..=7).map(|nines| 1.0 - 10.0_f64.powi(-nines));
                [0.0, 0.5].into_iter().chain(nines).collect()
            }
        };
        let write = |value: f64| match self {
            Scale::Nines { .. } => nines_percent(value),
            _ => number(value),
        };
        values.into_iter().filter(|value| self.has(*value)).map(|value| (value, write(value))).collect()
    }
}

/// 1, 2 or 5 times a power of ten, at least as much.
fn round_step(least: f64) -> f64 {
    let decade = 10.0_f64.powi(least.log10().floor() as i32);
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade);
    steps.into_iter().find(|step| *step >= least * 0.999_999).unwrap_or(10.0 * decade)
}

fn nines(part: f64) -> f64 {
    -(1.0 - part).max(1e-9).log10()
}

/// All the nines, where rounding would take them away.
fn nines_percent(part: f64) -> String {
    let digits = (nines(part).round() as usize).saturating_sub(2);
    if part < 0.9 { percent(part) } else { format!("{:.digits$}\u{a0}%", part * 100.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(scale: Scale) -> Vec<String> {
        scale.ticks().into_iter().map(|(_, text)| text.replace('\u{a0}', "")).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(written(Scale::linear([7.9])), ["0", "2", "4", "6", "8"]);
        assert_eq!(written(Scale::linear([0.31])), ["0", "0.1", "0.2", "0.3"]);
        assert_eq!(written(Scale::linear([12_000.0])), ["0", "5,000", "10,000"]);
        assert_eq!(written(Scale::logarithmic([3.0, 180.0])), ["2", "5", "10", "20", "50", "100", "200"]);
        assert_eq!(written(Scale::logarithmic([0.3, 9_000.0])), ["1", "10", "100", "1,000", "10,000"]);
        assert_eq!(written(Scale::nines([0.9996, 1.0])), ["0%", "50%", "90%", "99%", "99.9%"]);
    }

    #[test]
    fn scales_of_nothing_have_ticks() {
        for scale in [Scale::linear([]), Scale::logarithmic([0.0]), Scale::nines([]), Scale::logarithmic([5.0])] {
            assert!(scale.ticks().len() >= 2, "{scale:?}");
        }
    }

    #[test]
    fn values_have_their_places() {
        let place = Scale::Logarithmic { low: 1.0, high: 100.0 }.place(10.0);
        assert!((place - 0.5).abs() < 1e-9);
        let place = Scale::Nines { nines: 4.0 }.place(0.99);
        assert!((place - 0.5).abs() < 1e-9);
        assert!(!Scale::linear([10.0]).has(11.0) && Scale::linear([10.0]).has(10.0));
        assert!(Scale::logarithmic([20.0]).has(20.0) && Scale::logarithmic([0.3]).has(0.3));
    }
}
