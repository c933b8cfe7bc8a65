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

/// The inverse of [`normal_cdf`], as Cephes computes it (`ndtri`), and so scipy, to the bit: it is exactly 0 at 0.5, where
/// trees like to split.
pub fn normal_quantile(p: f64) -> f64 {
    const TAIL: f64 = 0.135_335_283_236_612_7; // exp(-2)
    if p.is_nan() || !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    let is_upper = p > 1.0 - TAIL;
    let y = if is_upper { 1.0 - p } else { p };
    if y == 0.0 {
        return if is_upper { f64::INFINITY } else { f64::NEG_INFINITY };
    }
    if y > TAIL {
        let y = y - 0.5;
        let square = y * y;
        return (y + y * (square * polynomial(&MIDDLE.0, square) / polynomial(&MIDDLE.1, square))) * ROOT_OF_2_PI;
    }
    let x = (-2.0 * y.ln()).sqrt();
    let z = 1.0 / x;
    let (above, below) = if x < 8.0 { &OUTER } else { &OUTMOST };
    let x = x - x.ln() / x - z * polynomial(above, z) / polynomial(below, z);
    if is_upper { x } else { -x }
}

/// From the highest power down.
fn polynomial(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().skip(1).fold(coefficients[0], |sum, coefficient| sum * x + coefficient)
}

const ROOT_OF_2_PI: f64 = 2.506_628_274_631_000_5;

#[allow(clippy::excessive_precision, clippy::unreadable_literal)] // as Cephes has them
const MIDDLE: ([f64; 5], [f64; 9]) = (
    [
        -5.99633501014107895267E1,
        9.80010754185999661536E1,
        -5.66762857469070293439E1,
        1.39312609387279679503E1,
        -1.23916583867381258016E0,
    ],
    [
        1.0,
        1.95448858338141759834E0,
        4.67627912898881538453E0,
        8.63602421390890590575E1,
        -2.25462687854119370527E2,
        2.00260212380060660359E2,
        -8.20372256168333339912E1,
        1.59056225126211695515E1,
        -1.18331621121330003142E0,
    ],
);
#[allow(clippy::excessive_precision, clippy::unreadable_literal)] // as Cephes has them
const OUTER: ([f64; 9], [f64; 9]) = (
    [
        4.05544892305962419923E0,
        3.15251094599893866154E1,
        5.71628192246421288162E1,
        4.40805073893200834700E1,
        1.46849561928858024014E1,
        2.18663306850790267539E0,
        -1.40256079171354495875E-1,
        -3.50424626827848203418E-2,
        -8.57456785154685413611E-4,
    ],
    [
        1.0,
        1.57799883256466749731E1,
        4.53907635128879210584E1,
        4.13172038254672030440E1,
        1.50425385692907503408E1,
        2.50464946208309415979E0,
        -1.42182922854787788574E-1,
        -3.80806407691578277194E-2,
        -9.33259480895457427372E-4,
    ],
);
#[allow(clippy::excessive_precision, clippy::unreadable_literal)] // as Cephes has them
const OUTMOST: ([f64; 9], [f64; 9]) = (
    [
        3.23774891776946035970E0,
        6.91522889068984211695E0,
        3.93881025292474443415E0,
        1.33303460815807542389E0,
        2.01485389549179081538E-1,
        1.23716634817820021358E-2,
        3.01581553508235416007E-4,
        2.65806974686737550832E-6,
        6.23974539184983293730E-9,
    ],
    [
        1.0,
        6.02427039364742014255E0,
        3.67983563856160859403E0,
        1.37702099489081330271E0,
        2.16236993594496635890E-1,
        1.34204006088543189037E-2,
        3.28014464682127739104E-4,
        2.89247864745380683936E-6,
        6.79019408009981274425E-9,
    ],
);

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

    #[test]
    #[allow(clippy::float_cmp)]
    fn quantiles_are_scipys_to_the_bit() {
        for (p, x) in [
            (0.0, f64::NEG_INFINITY),
            (1.0, f64::INFINITY),
            (0.5, 0.0),
            (0.636_961_687_321_454_3, 0.350_349_227_256_563_87),
            (0.269_786_713_763_870_3, -0.613_458_178_703_528),
            (0.040_973_523_936_194_69, -1.739_498_886_765_933_8),
            (0.912_755_577_277_721_7, 1.357_920_708_880_715_5),
            (0.135_335_283_236_61, -1.101_519_628_498_762_5),
            (0.864_664_716_763_387_3, 1.101_519_628_498_750_3),
            (6.007_821_541_245_062e-258, -34.287_587_288_885_24),
            (8.400_930_819_347_304e-11, -6.388_046_169_687_069),
            (2.010_545_098_650_902e-53, -15.341_765_362_575_787),
            (1e-7, -5.199_337_582_192_816_5),
            (0.999_999_9, 5.199_337_582_290_661),
            (0.999_999_999_912_776_4, 6.382_300_579_442_248),
        ] {
            assert_eq!(normal_quantile(p), x, "{p}");
        }
    }
}
