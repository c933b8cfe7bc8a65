//! Support vector machines with kernels, as libsvm computes them (Chang and Lin, 2011).
//!
//! Each row is compared with every support vector: `sum(dual_coef * kernel(row, vector)) + intercept`, for each pair of
//! classes.

use super::affine::dot;
use super::distances::squared_distance;
use super::input::{self, Input};
use super::read::{self, argmax};
use crate::backend::tabular::data::{Data, Labels, Matrix, Sparse, Target};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, lacks, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::tensor::DType;

pub const CLASSES: &[(&str, Build)] =
    &[("SVC", classifier), ("NuSVC", classifier), ("SVR", regressor), ("NuSVR", regressor), ("OneClassSVM", one_class)];

/// How alike two rows are.
#[derive(Clone, Copy, Debug)]
enum Kernel {
    Linear,
    Poly { gamma: f64, coef0: f64, degree: i64 },
    Rbf { gamma: f64 },
    Sigmoid { gamma: f64, coef0: f64 },
}

impl Kernel {
    fn read(node: Node<'_>) -> Result<Kernel> {
        let gamma = || node.read("_gamma", Node::float);
        let coef0 = || node.read("coef0", Node::float);
        let name = node.attr("kernel")?;
        match name.text() {
            Ok("linear") => Ok(Kernel::Linear),
            Ok("poly") => {
                // libsvm takes an int.
                let degree = node.read("degree", Node::float)? as i64;
                Ok(Kernel::Poly { gamma: gamma()?, coef0: coef0()?, degree })
            }
            Ok("rbf") => Ok(Kernel::Rbf { gamma: gamma()? }),
            Ok("sigmoid") => Ok(Kernel::Sigmoid { gamma: gamma()?, coef0: coef0()? }),
            Ok(other) => Err(unsupported("kernel", other)),
            Err(_) => Err(unsupported("kernel", "a function")),
        }
    }

    /// From the product of two rows, or for RBF from their squared distance.
    fn of(self, measure: f64) -> f64 {
        match self {
            Kernel::Linear => measure,
            Kernel::Poly { gamma, coef0, degree } => power(gamma * measure + coef0, degree),
            Kernel::Rbf { gamma } => (-gamma * measure).exp(),
            Kernel::Sigmoid { gamma, coef0 } => (gamma * measure + coef0).tanh(),
        }
    }
}

/// As libsvm's `powi`, by squaring; 1 for what is not positive.
fn power(base: f64, mut times: i64) -> f64 {
    let (mut square, mut result) = (base, 1.0);
    while times > 0 {
        if times % 2 == 1 {
            result *= square;
        }
        square *= square;
        times /= 2;
    }
    result
}

/// A row for each support vector, those of a class together.
enum Vectors {
    Dense(Matrix),
    Sparse(Sparse),
}

impl Vectors {
    fn read(node: Node<'_>, features: usize) -> Result<Vectors> {
        let vectors = if input::is_sparse(node) {
            Vectors::Sparse(input::sparse(node)?)
        } else {
            Vectors::Dense(coefficients(node)?)
        };
        let columns = match &vectors {
            Vectors::Dense(matrix) => matrix.columns,
            Vectors::Sparse(sparse) => sparse.columns,
        };
        if columns != features {
            return Err(Error::load(format!("expected {features} columns, got {columns}")));
        }
        Ok(vectors)
    }

    fn count(&self) -> usize {
        match self {
            Vectors::Dense(matrix) => matrix.rows,
            Vectors::Sparse(sparse) => sparse.rows,
        }
    }

    /// How alike a row is to each vector.
    fn compare(&self, kernel: Kernel, row: &[f64], out: &mut [f64]) {
        let by_distance = matches!(kernel, Kernel::Rbf { .. });
        match self {
            Vectors::Dense(matrix) => out.iter_mut().zip(matrix.iter_rows()).for_each(|(out, vector)| {
                *out = kernel.of(if by_distance { squared_distance(row, vector) } else { dot(row, vector) });
            }),
            Vectors::Sparse(sparse) => {
                let square = dot(row, row);
                out.iter_mut().enumerate().for_each(|(at, out)| {
                    let vector = sparse.row(at);
                    *out = kernel.of(if by_distance {
                        square + vector.map(|(column, value)| value * (value - 2.0 * row[column])).sum::<f64>()
                    } else {
                        vector.map(|(column, value)| value * row[column]).sum()
                    });
                });
            }
        }
    }
}

/// What all of them have in common.
struct Machine {
    kernel: Kernel,
    vectors: Vectors,
    /// A row for each class but one, a column for each vector.
    coefficients: Matrix,
    /// Of each pair of classes; one for regression.
    intercepts: Vec<f64>,
    features: usize,
    /// Models fitted on dense rows refuse sparse ones.
    sparse: bool,
}

impl Machine {
    fn read(node: Node<'_>, classes: usize) -> Result<Machine> {
        let kernel = Kernel::read(node)?;
        let features = node.read("n_features_in_", Node::usize)?;
        let vectors = node.read("support_vectors_", |node| Vectors::read(node, features))?;
        let coefficients = node.read("_dual_coef_", coefficients)?;
        if (coefficients.rows, coefficients.columns) != (classes - 1, vectors.count()) {
            let (rows, columns) = (coefficients.rows, coefficients.columns);
            return Err(Error::load(format!("_dual_coef_ has shape [{rows}, {columns}]")));
        }
        let pairs = classes * (classes - 1) / 2;
        let intercepts = node.read("_intercept_", |node| node.numbers()?.vector(Some(pairs)))?;
        let sparse = node.read("_sparse", Node::bool)?;
        Ok(Machine { kernel, vectors, coefficients, intercepts, features, sparse })
    }

    fn rows<'a>(&self, rows: &'a Data) -> Result<std::borrow::Cow<'a, Matrix>> {
        if matches!(rows, Data::Sparse(_)) && !self.sparse {
            return Err(Error::invalid("cannot use sparse input when trained on dense data"));
        }
        Input::dense(rows, self.features)
    }

    /// One value for each row, when there is one pair.
    fn values(&self, rows: &Data) -> Result<Vec<f64>> {
        let rows = self.rows(rows)?;
        let mut kernels = vec![0.0; self.vectors.count()];
        let values = rows.iter_rows().map(|row| {
            self.vectors.compare(self.kernel, row, &mut kernels);
            dot(&kernels, self.coefficients.row(0)) + self.intercepts[0]
        });
        Ok(values.collect())
    }
}

/// A matrix in either form; of no columns when a model has no support vectors.
fn coefficients(node: Node<'_>) -> Result<Matrix> {
    if input::is_sparse(node) {
        let sparse = input::sparse(node)?;
        return sparse.to_dense().map_err(|error| Error::load(error.message().to_owned()));
    }
    let (rows, columns, values) = node.numbers()?.matrix()?;
    Ok(Matrix::new(rows, columns, values))
}

struct Regressor(Machine);

fn regressor(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    Ok(Box::new(Regressor(Machine::read(node, 2)?)))
}

impl Estimator for Regressor {
    fn can(&self, method: Method) -> bool {
        method == Method::Predict
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        Ok(Target::floats(self.0.values(rows)?))
    }

    fn features(&self) -> Option<usize> {
        Some(self.0.features)
    }
}

/// 1 for rows like those it was fitted with, -1 for others.
struct OneClass(Machine);

fn one_class(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    Ok(Box::new(OneClass(Machine::read(node, 2)?)))
}

impl Estimator for OneClass {
    fn can(&self, method: Method) -> bool {
        matches!(method, Method::Predict | Method::DecisionFunction)
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let inside = self.0.values(rows)?.into_iter().map(|value| if value > 0.0 { 1 } else { -1 });
        Ok(Target::one(Labels::Int(inside.collect(), DType::Int64)))
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        let values = self.0.values(rows)?;
        Ok(Matrix::new(values.len(), 1, values))
    }

    fn features(&self) -> Option<usize> {
        Some(self.0.features)
    }
}

struct Classifier {
    machine: Machine,
    classes: Labels,
    /// Where each class's support vectors begin, and where the last one's end.
    starts: Vec<usize>,
    /// `decision_function_shape="ovr"`: a column for each class instead of each pair.
    one_vs_rest: bool,
    break_ties: bool,
    /// Platt's `A` and `B` of each pair, when it was fitted with `probability=True`.
    platt: Option<(Vec<f64>, Vec<f64>)>,
}

fn classifier(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let classes = node.read("classes_", read::labels)?;
    if classes.len() < 2 {
        return Err(Error::load(format!("classes_ are {}, expected at least 2", classes.len())));
    }
    let machine = Machine::read(node, classes.len())?;
    let counts = node.read("_n_support", |node| node.numbers()?.vector(Some(classes.len())))?;
    let mut starts = vec![0];
    for count in counts.into_iter().map(|count| count as usize) {
        starts.push(count.saturating_add(starts[starts.len() - 1]));
    }
    if !starts.is_sorted() || starts[classes.len()] != machine.vectors.count() {
        return Err(Error::load(format!("_n_support does not add up to {} support vectors", machine.vectors.count())));
    }
    let pairs = machine.intercepts.len();
    let probability = node.read("probability", |node| Ok(node.bool().unwrap_or(false)))?; // or "deprecated"
    let of_pairs = |name| node.read(name, |node| node.numbers()?.vector(Some(pairs)));
    let platt = if probability { Some((of_pairs("_probA")?, of_pairs("_probB")?)) } else { None };
    let one_vs_rest = match node.read("decision_function_shape", Node::text)? {
        "ovr" => true,
        "ovo" => false,
        other => return Err(unsupported("decision_function_shape", other)),
    };
    let break_ties = node.read("break_ties", Node::bool)?;
    Ok(Box::new(Classifier { machine, classes, starts, one_vs_rest, break_ties, platt }))
}

impl Classifier {
    /// libsvm's decision for each pair of classes: positive for the first.
    fn pairs(&self, rows: &Data) -> Result<Matrix> {
        let rows = self.machine.rows(rows)?;
        let mut out = Matrix::zeros(rows.rows, self.machine.intercepts.len());
        let mut kernels = vec![0.0; self.machine.vectors.count()];
        for (row, outs) in rows.iter_rows().zip(out.values.chunks_exact_mut(self.machine.intercepts.len())) {
            self.machine.vectors.compare(self.machine.kernel, row, &mut kernels);
            let part = |of: usize, against: usize| {
                let range = self.starts[of]..self.starts[of + 1];
                // A vector has a coefficient against each other class.
                let row = if against > of { against - 1 } else { against };
                dot(&kernels[range.clone()], &self.machine.coefficients.row(row)[range])
            };
            for (((first, second), out), intercept) in self.each_pair().zip(&mut *outs).zip(&self.machine.intercepts) {
                *out = part(first, second) + part(second, first) + intercept;
            }
        }
        Ok(out)
    }

    /// In the order of decisions: (0, 1), (0, 2), ... (1, 2), ...
    fn each_pair(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let classes = self.classes.len();
        (0..classes).flat_map(move |first| (first + 1..classes).map(move |second| (first, second)))
    }

    /// Votes of the pairs, ties broken by how sure they are (scikit-learn's `_ovr_decision_function`).
    fn one_vs_rest(&self, pairs: &Matrix) -> Matrix {
        let mut out = Matrix::zeros(pairs.rows, self.classes.len());
        let mut sums = vec![0.0; self.classes.len()];
        for (decisions, votes) in pairs.iter_rows().zip(out.values.chunks_exact_mut(self.classes.len())) {
            sums.fill(0.0);
            for ((first, second), decision) in self.each_pair().zip(decisions) {
                sums[first] += decision;
                sums[second] -= decision;
                votes[if *decision < 0.0 { second } else { first }] += 1.0;
            }
            votes.iter_mut().zip(&sums).for_each(|(votes, sum)| *votes += sum / (3.0 * (sum.abs() + 1.0)));
        }
        out
    }

    /// The class with the most votes, the first of equals.
    fn voted(&self, decisions: &[f64]) -> usize {
        let mut votes = vec![0_u32; self.classes.len()];
        for ((first, second), decision) in self.each_pair().zip(decisions) {
            votes[if *decision > 0.0 { first } else { second }] += 1;
        }
        (0..votes.len()).rev().max_by_key(|class| votes[*class]).unwrap_or(0)
    }
}

impl Estimator for Classifier {
    fn can(&self, method: Method) -> bool {
        matches!(method, Method::Predict | Method::DecisionFunction)
            || (method == Method::PredictProba && self.platt.is_some())
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        if self.break_ties && !self.one_vs_rest {
            return Err(Error::invalid("break_ties must be False when decision_function_shape is 'ovo'"));
        }
        let pairs = self.pairs(rows)?;
        Ok(Target::one(if self.break_ties && self.classes.len() > 2 {
            self.classes.pick(argmax(&self.one_vs_rest(&pairs)))
        } else {
            self.classes.pick(pairs.iter_rows().map(|decisions| self.voted(decisions)))
        }))
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        let mut pairs = self.pairs(rows)?;
        if self.classes.len() == 2 {
            // libsvm is positive for the first class, scikit-learn for the second.
            pairs.values.iter_mut().for_each(|decision| *decision = -*decision);
            return Ok(pairs);
        }
        Ok(if self.one_vs_rest { self.one_vs_rest(&pairs) } else { pairs })
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        let Some((a, b)) = &self.platt else { return Err(lacks(Method::PredictProba)) };
        let pairs = self.pairs(rows)?;
        let classes = self.classes.len();
        let mut out = Matrix::zeros(pairs.rows, classes);
        let mut pairwise = vec![0.0; classes * classes];
        for (decisions, out) in pairs.iter_rows().zip(out.values.chunks_exact_mut(classes)) {
            for (pair, (first, second)) in self.each_pair().enumerate() {
                let p = platt(decisions[pair], a[pair], b[pair]).clamp(1e-7, 1.0 - 1e-7);
                pairwise[first * classes + second] = p;
                pairwise[second * classes + first] = 1.0 - p;
            }
            couple(classes, &pairwise, out);
        }
        Ok(vec![out])
    }

    fn features(&self) -> Option<usize> {
        Some(self.machine.features)
    }
}

/// `1 / (1 + exp(decision * a + b))` without cancellation (libsvm's `sigmoid_predict`).
fn platt(decision: f64, a: f64, b: f64) -> f64 {
    let x = decision * a + b;
    if x >= 0.0 { (-x).exp() / (1.0 + (-x).exp()) } else { 1.0 / (1.0 + x.exp()) }
}

/// Probabilities of classes from those of each against each (Wu, Lin and Weng, 2004, second method), in libsvm's steps:
/// it ends before it is exact, so the steps show.
fn couple(k: usize, r: &[f64], p: &mut [f64]) {
    let mut q = vec![0.0; k * k];
    for t in 0..k {
        for j in (0..k).filter(|j| *j != t) {
            q[t * k + t] += r[j * k + t] * r[j * k + t];
            q[t * k + j] = if j < t { q[j * k + t] } else { -r[j * k + t] * r[t * k + j] };
        }
    }
    p.fill(1.0 / k as f64);
    let mut qp = vec![0.0; k];
    for _ in 0..k.max(100) {
        for t in 0..k {
            qp[t] = (0..k).map(|j| q[t * k + j] * p[j]).sum();
        }
        let mut pqp: f64 = (0..k).map(|t| p[t] * qp[t]).sum();
        let most = qp.iter().map(|qp| (qp - pqp).abs()).fold(0.0, f64::max);
        if most < 0.005 / k as f64 {
            break;
        }
        for t in 0..k {
            let diff = (pqp - qp[t]) / q[t * k + t];
            p[t] += diff;
            pqp = (pqp + diff * (diff * q[t * k + t] + 2.0 * qp[t])) / (1.0 + diff) / (1.0 + diff);
            for j in 0..k {
                qp[j] = (qp[j] + diff * q[t * k + j]) / (1.0 + diff);
                p[j] /= 1.0 + diff;
            }
        }
    }
}
