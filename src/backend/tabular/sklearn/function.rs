//! `FunctionTransformer`: a function of numpy, by name, applied to each number.

use std::sync::Arc;

use crate::backend::tabular::data::{Cells, Column, Data, Matrix, Table, float_of, is_float, stored, wrapped};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, Takes, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::{Node, Value};
use crate::tensor::DType;

use super::read;

pub const CLASSES: &[(&str, Build)] = &[("FunctionTransformer", function_transformer)];

/// From number to number.
#[derive(Clone, Copy)]
struct Function {
    of_floats: fn(f64) -> f64,
    /// Where numpy answers integers with integers, which then keep the bits that they have room for.
    of_integers: Option<fn(i64) -> i64>,
    /// numpy's type of what it makes of truth values, where it does not take them for fractions.
    of_truths: DType,
    /// What it says of each number is yes or no.
    tells: bool,
}

/// Each number by itself, or everything as it is when there is no function. That is also what a fitted
/// `ColumnTransformer` has for "passthrough", so it lets text through; but it does not ask for text, as what is passed
/// through is mostly numbers for a model.
struct FunctionTransformer {
    features: Option<usize>,
    function: Option<Function>,
    inverse: Option<Function>,
    /// Fails, in scikit-learn's words, when a number is NaN or infinite.
    validate: bool,
    /// Columns keep their names.
    one_to_one: bool,
}

fn function_transformer(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    for arguments in ["kw_args", "inv_kw_args"] {
        read::no_arguments(node, arguments)?;
    }
    Ok(Box::new(FunctionTransformer {
        features: read::features(node)?,
        function: function(node, "func")?,
        inverse: function(node, "inverse_func")?,
        validate: node.read("validate", Node::bool)?,
        one_to_one: node.some("feature_names_out").is_some_and(|given| given.text().is_ok_and(|it| it == "one-to-one")),
    }))
}

fn function(node: Node<'_>, option: &str) -> Result<Option<Function>> {
    read::option(node, option, |given| {
        let Value::Name(name) = given.value() else { return Err(unsupported(option, "a function of its own")) };
        find(&name.name).filter(|_| name.package() == "numpy").ok_or_else(|| unsupported(option, name))
    })
}

/// numpy's function of this name.
fn find(name: &str) -> Option<Function> {
    let tells = ["isfinite", "isinf", "isnan", "logical_not", "signbit"].contains(&name);
    let of_truths = match name {
        "abs" | "absolute" | "asarray" | "ceil" | "fix" | "floor" | "nan_to_num" | "trunc" => DType::Bool,
        "around" | "round" | "round_" => DType::Fp16,
        _ => DType::Int8,
    };
    Some(Function { of_floats: of_floats(name)?, of_integers: of_integers(name), of_truths, tells })
}

/// What it does to integers, where that is not what it does to floats.
fn of_integers(name: &str) -> Option<fn(i64) -> i64> {
    Some(match name {
        "abs" | "absolute" => i64::wrapping_abs,
        "around" | "asarray" | "ceil" | "conjugate" | "fix" | "floor" | "nan_to_num" | "positive" | "round"
        | "round_" | "trunc" => |x| x,
        "negative" => i64::wrapping_neg,
        "reciprocal" => |x| if x == 0 { i64::MIN } else { 1 / x },
        "sign" => i64::signum,
        "square" => |x| x.wrapping_mul(x),
        _ => return None,
    })
}

/// What numpy's function of this name does to floats.
fn of_floats(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" | "absolute" | "fabs" => f64::abs,
        "arccos" => f64::acos,
        "arccosh" => f64::acosh,
        "arcsin" => f64::asin,
        "arcsinh" => f64::asinh,
        "arctan" => f64::atan,
        "arctanh" => f64::atanh,
        "around" | "rint" | "round" | "round_" => f64::round_ties_even,
        "cbrt" => f64::cbrt,
        "ceil" => f64::ceil,
        "asarray" | "conjugate" | "positive" => |x| x,
        "cos" => f64::cos,
        "cosh" => f64::cosh,
        "deg2rad" | "radians" => |x| x * (std::f64::consts::PI / 180.0),
        "rad2deg" | "degrees" => |x| x * (180.0 / std::f64::consts::PI),
        "exp" => f64::exp,
        "exp2" => f64::exp2,
        "expm1" => f64::exp_m1,
        "fix" | "trunc" => f64::trunc,
        "floor" => f64::floor,
        "isfinite" => |x| f64::from(u8::from(x.is_finite())),
        "isinf" => |x| f64::from(u8::from(x.is_infinite())),
        "isnan" => |x| f64::from(u8::from(x.is_nan())),
        "log" => f64::ln,
        "log10" => f64::log10,
        "log1p" => f64::ln_1p,
        "log2" => f64::log2,
        "logical_not" => |x| f64::from(u8::from(x == 0.0)),
        "nan_to_num" => |x| if x.is_nan() { 0.0 } else { x.clamp(f64::MIN, f64::MAX) },
        "negative" => |x| -x,
        "reciprocal" => |x| 1.0 / x,
        "sign" => |x| if x == 0.0 || x.is_nan() { x } else { x.signum() },
        "signbit" => |x| f64::from(u8::from(x.is_sign_negative())),
        "sin" => f64::sin,
        "sinh" => f64::sinh,
        "sqrt" => f64::sqrt,
        "square" => |x| x * x,
        "tan" => f64::tan,
        "tanh" => f64::tanh,
        _ => return None,
    })
}

impl FunctionTransformer {
    fn each(&self, function: Option<Function>, rows: &Data) -> Result<Data> {
        if self.validate {
            rows.dense()?.check_finite()?;
        }
        let Some(function) = function else { return Ok(rows.clone()) };
        if let Data::Sparse(sparse) = rows {
            if (function.of_floats)(0.0) != 0.0 {
                return Err(Error::invalid("the function of a sparse matrix does not map 0 to 0"));
            }
            let mut sparse = sparse.clone();
            sparse.values.iter_mut().for_each(|value| *value = (function.of_floats)(*value));
            return Ok(Data::Sparse(sparse));
        }
        // Columns of a frame are asked one by one.
        if let Data::Table(table) = rows
            && table.columns.iter().any(|column| column.dtype.is_some())
        {
            let columns = table.columns.iter().map(|column| function.of_column(column)).collect::<Result<_>>()?;
            return Ok(Data::Table(Table { rows: table.rows, columns }));
        }
        let mut numbers = rows.dense()?.into_owned();
        let answer = function.of_all(&mut numbers.values, rows.dtype());
        Ok(Data::of_type(numbers, answer))
    }
}

impl Function {
    /// numpy's type of what it makes of numbers of a type.
    fn answers(&self, dtype: DType) -> DType {
        match (self.of_integers, dtype) {
            _ if self.tells => DType::Bool,
            (Some(_), DType::Bool) => self.of_truths,
            (Some(_), dtype) => dtype,
            (None, dtype) => float_of(dtype),
        }
    }

    /// The function of each number, in place; numpy's type of what comes of them.
    fn of_all(&self, values: &mut [f64], dtype: DType) -> DType {
        let answer = self.answers(dtype);
        values.iter_mut().for_each(|value| *value = self.of(*value, dtype, answer));
        answer
    }

    fn of_column(&self, column: &Column) -> Result<Column> {
        let mut values = column.cells.numbers()?.into_owned();
        let answer = self.of_all(&mut values, column.dtype.unwrap_or(DType::Fp64));
        let dtype = (answer != DType::Fp64).then_some(answer);
        Ok(Column { name: column.name.clone(), cells: Cells::Numbers(values), dtype })
    }

    fn of(&self, value: f64, dtype: DType, answer: DType) -> f64 {
        match self.of_integers {
            // Integers have no infinity: what divides by zero is stored as if it were one.
            Some(of_integers) if !is_float(dtype) => match of_integers(value as i64) {
                i64::MIN if value == 0.0 => stored(f64::INFINITY, answer),
                whole => wrapped(whole, answer),
            },
            _ => stored((self.of_floats)(value), answer),
        }
    }
}

impl Estimator for FunctionTransformer {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        self.each(self.function, rows)
    }

    fn counts_types(&self) -> bool {
        self.function.is_some()
    }

    fn takes(&self, _: usize) -> Takes {
        if self.function.is_some() { Takes::Typed } else { Takes::Numbers }
    }

    fn can_invert(&self) -> bool {
        true
    }

    fn inverse_transform(&self, rows: &Matrix) -> Result<Matrix> {
        Ok(self.each(self.inverse, &Data::Dense(rows.clone()))?.dense()?.into_owned())
    }

    fn gives(&self) -> Option<DType> {
        self.function.is_some_and(|function| function.tells).then_some(DType::Bool)
    }

    fn inverse_gives(&self) -> Option<DType> {
        self.inverse.is_some_and(|function| function.tells).then_some(DType::Bool)
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        self.one_to_one.then(|| names.to_vec())
    }

    fn passes(&self, column: usize) -> Option<usize> {
        self.function.is_none().then_some(column)
    }

    fn demands(&self, column: usize) -> bool {
        self.uses(column)
    }

    fn uses(&self, _: usize) -> bool {
        self.function.is_some() || self.validate
    }

    fn features(&self) -> Option<usize> {
        self.features
    }
}
