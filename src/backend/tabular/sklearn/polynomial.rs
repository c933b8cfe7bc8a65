//! Columns made of others: products (`PolynomialFeatures`) and B-splines (`SplineTransformer`).

use std::sync::Arc;

use super::read;
use crate::backend::tabular::data::{Data, Matrix, Sparse};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::Node;

pub const CLASSES: &[(&str, Build)] = &[("PolynomialFeatures", polynomial), ("SplineTransformer", splines)];

/// More products than any model has.
const MAX_TERMS: usize = 1 << 22;

/// Products of columns, by degree and then in order.
struct Polynomial {
    features: usize,
    /// The columns of all products, one after another, and where each ends.
    factors: Vec<u32>,
    ends: Vec<usize>,
}

fn polynomial(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let features = node.read("n_features_in_", Node::usize)?;
    let least = node.read("_min_degree", Node::usize)?;
    let most = node.read("_max_degree", Node::usize)?;
    let interaction_only = node.read("interaction_only", Node::bool)?;
    let expected = node.read("n_output_features_", Node::usize)?;
    if expected > MAX_TERMS {
        return Err(unsupported("n_output_features_", expected));
    }
    let mut terms = Polynomial { features, factors: Vec::new(), ends: Vec::new() };
    if node.read("include_bias", Node::bool)? {
        terms.ends.push(0);
    }
    for degree in least.max(1)..=most {
        terms.add_all(degree, interaction_only, expected)?;
    }
    if terms.ends.len() != expected {
        return Err(Error::load(format!("n_output_features_ is {expected}, but there are {} terms", terms.ends.len())));
    }
    Ok(Box::new(terms))
}

impl Polynomial {
    /// All products of a degree: combinations of columns, with repetition unless `interaction_only`, in order.
    fn add_all(&mut self, degree: usize, interaction_only: bool, expected: usize) -> Result<()> {
        let first = |at: usize| if interaction_only { at } else { 0 };
        let last = |at: usize| if interaction_only { self.features - degree + at } else { self.features - 1 };
        if self.features == 0 || (interaction_only && degree > self.features) {
            return Ok(());
        }
        if degree > MAX_TERMS {
            return Err(unsupported("degree", degree));
        }
        let mut term: Vec<usize> = (0..degree).map(first).collect();
        loop {
            // Also ends what a hostile file would have go on for ever.
            if self.ends.len() >= expected || self.factors.len() + degree > 8 * MAX_TERMS {
                return Err(Error::load(format!(
                    "n_output_features_ is {expected}, but there are more terms up to degree {degree} of {} features",
                    self.features
                )));
            }
            self.factors.extend(term.iter().map(|column| *column as u32));
            self.ends.push(self.factors.len());
            let Some(at) = (0..degree).rev().find(|at| term[*at] < last(*at)) else { return Ok(()) };
            term[at] += 1;
            for next in at + 1..degree {
                term[next] = if interaction_only { term[next - 1] + 1 } else { term[at] };
            }
        }
    }

    fn expand(&self, row: &[f64], single: bool, mut push: impl FnMut(f64)) {
        let round = |value: f64| if single { f64::from(value as f32) } else { value };
        let mut start = 0;
        for end in &self.ends {
            // scikit-learn multiplies what it has of the last columns with the first.
            let factors = self.factors[start..*end].iter().rev();
            push(factors.fold(1.0, |product, column| round(product * row[*column as usize])));
            start = *end;
        }
    }
}

impl Estimator for Polynomial {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        if let Data::Sparse(sparse) = rows {
            sparse.check_finite()?;
            let mut row = vec![0.0; self.features];
            let mut out = Sparse::with_columns(self.ends.len());
            for place in 0..sparse.rows {
                row.fill(0.0);
                sparse.row(place).for_each(|(column, value)| row[column] = value);
                let mut column = 0;
                self.expand(&row, false, |value| {
                    out.push(column, value);
                    column += 1;
                });
                out.end_row();
            }
            return Ok(Data::Sparse(out));
        }
        let rows = rows.dense()?;
        rows.check_finite()?;
        let mut values = Vec::with_capacity(rows.rows * self.ends.len());
        rows.iter_rows().for_each(|row| self.expand(row, rows.single, |value| values.push(value)));
        Ok(Data::Dense(Matrix { rows: rows.rows, columns: self.ends.len(), values, single: rows.single }))
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        let starts = std::iter::once(&0).chain(&self.ends);
        let terms = starts.zip(&self.ends).map(|(start, end)| &self.factors[*start..*end]);
        let power = |factors: &[u32]| match factors {
            [column] => names[*column as usize].to_string(),
            factors => format!("{}^{}", names[factors[0] as usize], factors.len()),
        };
        let name = |factors: &[u32]| match factors {
            [] => "1".into(),
            factors => factors.chunk_by(u32::eq).map(power).collect::<Vec<_>>().join(" ").into(),
        };
        Some(terms.map(name).collect())
    }

    fn features(&self) -> Option<usize> {
        Some(self.features)
    }
}

/// scipy's `BSpline` of several outputs.
struct BSpline {
    knots: Vec<f64>,
    degree: usize,
    /// A row for each basis function.
    coefficients: Matrix,
    extrapolate: bool,
}

const MAX_DEGREE: usize = 64;

impl BSpline {
    fn read(node: Node<'_>) -> Result<BSpline> {
        // scipy put underscores before them in 1.17.
        let of = |name: &str, hidden: &str| {
            node.read(if node.find(hidden).is_some() { hidden } else { name }, Node::numbers)
        };
        let knots = of("t", "_t")?.vector(None)?;
        let (rows, columns, values) = of("c", "_c")?.matrix()?;
        let degree = node.read("k", Node::usize)?;
        let fits = degree <= MAX_DEGREE && rows > degree && knots.len() == rows + degree + 1 && columns > 0;
        if !fits || knots.iter().any(|knot| !knot.is_finite()) || !knots.is_sorted() {
            return Err(Error::load(format!("{} knots for {rows} splines of degree {degree}", knots.len())));
        }
        let extrapolate = node.read("extrapolate", Node::bool)?;
        Ok(BSpline { knots, degree, coefficients: Matrix::new(rows, columns, values), extrapolate })
    }

    /// The knots between which all basis functions are there.
    fn domain(&self) -> (f64, f64) {
        (self.knots[self.degree], self.knots[self.coefficients.rows])
    }

    /// The value of every output, or its first derivative; NaN outside of the domain unless extrapolated.
    fn evaluate(&self, x: f64, derivative: bool, out: &mut [f64]) {
        let (low, high) = self.domain();
        if x.is_nan() || !(self.extrapolate || (low..=high).contains(&x)) {
            out.fill(f64::NAN);
            return;
        }
        let last = self.coefficients.rows - 1;
        let interval = self.knots.partition_point(|knot| *knot <= x).saturating_sub(1).clamp(self.degree, last);
        let mut basis = [0.0; MAX_DEGREE + 1];
        self.basis(x, interval, derivative, &mut basis);
        out.fill(0.0);
        for (place, weight) in basis[..=self.degree].iter().enumerate() {
            let row = self.coefficients.row(interval + place - self.degree);
            out.iter_mut().zip(row).for_each(|(out, coefficient)| *out += coefficient * weight);
        }
    }

    /// The basis functions that are not zero in an interval, by the recursion of de Boor, whose last step gives the
    /// derivative instead when that is asked for.
    fn basis(&self, x: f64, interval: usize, derivative: bool, basis: &mut [f64; MAX_DEGREE + 1]) {
        basis[0] = 1.0;
        for order in 1..=self.degree {
            let before = *basis;
            basis[0] = 0.0;
            for place in 1..=order {
                let (right, left) = (self.knots[interval + place], self.knots[interval + place - order]);
                if right == left {
                    basis[place] = 0.0;
                } else if derivative && order == self.degree {
                    let weight = order as f64 * before[place - 1] / (right - left);
                    basis[place - 1] -= weight;
                    basis[place] = weight;
                } else {
                    let weight = before[place - 1] / (right - left);
                    basis[place - 1] += weight * (right - x);
                    basis[place] = weight * (x - left);
                }
            }
        }
        if derivative && self.degree == 0 {
            basis[0] = 0.0;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extrapolation {
    /// Refuses what is beyond the knots.
    Error,
    Continue,
    Periodic,
    Constant,
    Linear,
}

/// One column's spline, and how it goes on beyond the knots.
struct Curve {
    inner: BSpline,
    low: f64,
    high: f64,
    /// Values and slopes at both ends.
    ends: [Vec<f64>; 4],
    /// How many basis functions go on at each end.
    reach: usize,
}

/// The value of each basis function for each number.
struct Splines {
    curves: Vec<Curve>,
    extrapolation: Extrapolation,
    outputs: usize,
    /// Without the last basis function of each column, which the others determine.
    kept: usize,
    sparse: bool,
    zero_missing: bool,
}

fn splines(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let extrapolation = match node.read("extrapolation", Node::text)? {
        "error" => Extrapolation::Error,
        "continue" => Extrapolation::Continue,
        "periodic" => Extrapolation::Periodic,
        "constant" => Extrapolation::Constant,
        "linear" => Extrapolation::Linear,
        other => return Err(unsupported("extrapolation", other)),
    };
    let all = node.read("bsplines_", |node| node.items()?.map(BSpline::read).collect::<Result<Vec<_>>>())?;
    let outputs = all.first().map_or(0, |spline| spline.coefficients.columns);
    let mut reach = node.read("degree", Node::usize)?;
    let mut curves = Vec::new();
    for spline in all {
        let count = spline.knots.len();
        if spline.coefficients.columns != outputs || reach.max(2) > outputs.max(2) || 2 * reach >= count {
            return Err(Error::load(format!("{outputs} splines of degree {reach} for {count} knots")));
        }
        let (low, high) = (spline.knots[reach], spline.knots[count - reach - 1]);
        let mut ends = [const { Vec::new() }; 4];
        for (end, (x, slope)) in ends.iter_mut().zip([(low, false), (high, false), (low, true), (high, true)]) {
            *end = vec![0.0; outputs];
            spline.evaluate(x, slope, end);
        }
        // scikit-learn has slopes reach two functions at least, and forgets to take that back for the next column.
        if extrapolation == Extrapolation::Linear && reach <= 1 {
            reach += 1;
        }
        curves.push(Curve { inner: spline, low, high, ends, reach: reach.min(outputs) });
    }
    let kept = if node.read("include_bias", Node::bool)? { outputs } else { outputs.saturating_sub(1) };
    let sparse = read::option_since((1, 3), node, "sparse_output", Node::bool)? == Some(true);
    let zero_missing = read::option_since((1, 8), node, "handle_missing", Node::text)? == Some("zeros");
    Ok(Box::new(Splines { curves, extrapolation, outputs, kept, sparse, zero_missing }))
}

impl Curve {
    fn evaluate(&self, x: f64, extrapolation: Extrapolation, out: &mut [f64]) -> Result<()> {
        if x.is_nan() {
            out.fill(0.0); // only where missing values are zeros
            return Ok(());
        }
        match extrapolation {
            Extrapolation::Periodic => {
                let (start, end) = self.inner.domain();
                let period = end - start;
                let x = if period > 0.0 { start + (x - start).rem_euclid(period) } else { 0.0 };
                self.inner.evaluate(x, false, out);
            }
            Extrapolation::Error | Extrapolation::Continue => {
                self.inner.evaluate(x, false, out);
                if extrapolation == Extrapolation::Error && out.iter().any(|value| value.is_nan()) {
                    return Err(Error::invalid("`X` contains values beyond the limits of the knots."));
                }
            }
            Extrapolation::Constant | Extrapolation::Linear if (self.low..=self.high).contains(&x) => {
                self.inner.evaluate(x, false, out);
            }
            Extrapolation::Constant | Extrapolation::Linear => {
                out.fill(0.0);
                let outputs = out.len();
                let [low_values, high_values, low_slopes, high_slopes] = &self.ends;
                let (end, values, slopes, places) = if x < self.low {
                    (self.low, low_values, low_slopes, 0..self.reach)
                } else {
                    (self.high, high_values, high_slopes, outputs - self.reach..outputs)
                };
                let steep = f64::from(u8::from(extrapolation == Extrapolation::Linear));
                places.for_each(|place| out[place] = values[place] + steep * (x - end) * slopes[place]);
            }
        }
        Ok(())
    }
}

impl Estimator for Splines {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        if let Data::Sparse(_) = rows {
            return Err(read::sparse());
        }
        let rows = rows.dense()?;
        let check = if self.zero_missing { Matrix::check_not_infinite } else { Matrix::check_finite };
        check(&rows)?;
        let columns = self.curves.len() * self.kept;
        let mut values = Vec::with_capacity(rows.rows * columns);
        let mut basis = vec![0.0; self.outputs];
        for row in rows.iter_rows() {
            for (x, curve) in row.iter().zip(&self.curves) {
                curve.evaluate(*x, self.extrapolation, &mut basis)?;
                values.extend_from_slice(&basis[..self.kept]);
            }
        }
        let mut out = Matrix { rows: rows.rows, columns, values, single: rows.single };
        out.rounded();
        Ok(if self.sparse { Data::Sparse(Sparse::from(&out)) } else { Data::Dense(out) })
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        let own = |name| (0..self.kept).map(move |place| format!("{name}_sp_{place}").into());
        Some(names.iter().flat_map(own).collect())
    }

    fn features(&self) -> Option<usize> {
        Some(self.curves.len())
    }
}
