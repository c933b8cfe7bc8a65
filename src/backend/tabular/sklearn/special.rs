//! Functions of the normal distribution, which the standard library does not have.

use std::f64::consts::{PI, SQRT_2};

/// `1 - erf(x)` for `x >= 0`: one minus the series below 2, the continued fraction above (Abramowitz and Stegun, 7.1.6
/// and 7.1.14).
fn erfc_of_positive(x: f64) -> f64 {
    if x < 2.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..60 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        return 1.0 - 2.0 / PI.sqrt() * (-x * x).exp() * sum;
    }
    let fraction = (1..=100).rev().fold(x, |rest, n| x + f64::from(n) / 2.0 / rest);
    (-x * x).exp() / PI.sqrt() / fraction
}

/// The share of a standard normal distribution that is below `x`.
pub fn normal_cdf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let beyond = erfc_of_positive(x.abs() / SQRT_2) / 2.0;
    if x < 0.0 { beyond } else { 1.0 - beyond }
}

/// The inverse of [`normal_cdf`]: a guess (Abramowitz and Stegun, 26.2.23), made exact by Halley's method.
pub fn normal_quantile(p: f64) -> f64 {
    if p.is_nan() || !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    if p > 0.5 {
        return -normal_quantile(1.0 - p);
    }
    if p == 0.0 {
        return f64::NEG_INFINITY;
    }
    let t = (-2.0 * p.ln()).sqrt();
    let mut x =
        (2.515_517 + t * (0.802_853 + t * 0.010_328)) / (1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308))) - t;
    for _ in 0..3 {
        let step = (normal_cdf(x) - p) * (2.0 * PI).sqrt() * (x * x / 2.0).exp();
        x -= step / (1.0 + x * step / 2.0);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_scipys() {
        for (x, p) in [
            (-5.0, 2.866_515_718_791_939e-7),
            (-2.9, 0.001_865_813_300_384_037_7),
            (-1.0, 0.158_655_253_931_457_05),
            (0.0, 0.5),
            (0.3, 0.617_911_422_188_952_6),
            (4.0, 0.999_968_328_758_166_9),
        ] {
            assert!((normal_cdf(x) / p - 1.0).abs() < 1e-13, "{x}: {}", normal_cdf(x));
            assert!((normal_quantile(p) - x).abs() < 1e-11, "{p}: {}", normal_quantile(p));
        }
        assert!(normal_cdf(f64::NAN).is_nan());
        assert!(normal_quantile(1.5).is_nan());
    }
}
