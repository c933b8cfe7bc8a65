//! `FunctionTransformer`: a function of numpy, by name, applied to each number.

use std::sync::Arc;

use crate::backend::tabular::data::{Data, Matrix, stored};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, Takes, unsupported};
use crate::error::{Error, Result};
use crate::formats::graph::{Node, Value};
use crate::tensor::DType;

use super::read;

pub const CLASSES: &[(&str, Build)] = &[("FunctionTransformer", function_transformer)];

/// From number to number.
type Function = fn(f64) -> f64;

/// Each number by itself, or everything as it is when there is no function. That is also what a fitted
/// `ColumnTransformer` has for "passthrough", so it lets text through; but it does not ask for text, as what is passed
/// through is mostly numbers for a model.
struct FunctionTransformer {
    features: Option<usize>,
    function: Option<Function>,
    inverse: Option<Function>,
    /// Fails, in scikit-learn's words, when a number is NaN or infinite.
    validate: bool,
    gives: Option<DType>,
    /// Integers stay integers, which shows in what comes of them.
    divides: bool,
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
        divides: node.some("func").is_some_and(divides),
        gives: node.some("func").filter(|given| tells(*given)).map(|_| DType::Bool),
    }))
}

fn function(node: Node<'_>, option: &str) -> Result<Option<Function>> {
    read::option(node, option, |given| {
        let Value::Name(name) = given.value() else { return Err(unsupported(option, "a function of its own")) };
        find(&name.name).filter(|_| name.package() == "numpy").ok_or_else(|| unsupported(option, name))
    })
}

/// Whether a function says yes or no of each number.
fn tells(function: Node<'_>) -> bool {
    let names = ["isfinite", "isinf", "isnan", "logical_not", "signbit"];
    matches!(function.value(), Value::Name(name) if names.contains(&&*name.name))
}

/// Whether a function divides, which numpy does to integers as integers.
fn divides(function: Node<'_>) -> bool {
    matches!(function.value(), Value::Name(name) if &*name.name == "reciprocal")
}

/// numpy's function of this name.
fn find(name: &str) -> Option<Function> {
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
            if function(0.0) != 0.0 {
                return Err(Error::invalid("the function of a sparse matrix does not map 0 to 0"));
            }
            let mut sparse = sparse.clone();
            sparse.values.iter_mut().for_each(|value| *value = function(*value));
            return Ok(Data::Sparse(sparse));
        }
        let mut rows = rows.dense()?.into_owned();
        rows.values.iter_mut().for_each(|value| *value = function(*value));
        rows.rounded();
        Ok(Data::Dense(rows))
    }
}

impl Estimator for FunctionTransformer {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        match (self.each(self.function, rows)?, rows) {
            (Data::Dense(mut quotients), Data::Typed(_, dtype)) if self.divides => {
                quotients.values.iter_mut().for_each(|value| *value = stored(*value, *dtype));
                Ok(Data::Typed(quotients, *dtype))
            }
            (rows, _) => Ok(rows),
        }
    }

    fn takes(&self, _: usize) -> Takes {
        if self.divides { Takes::Typed } else { Takes::Numbers }
    }

    fn can_invert(&self) -> bool {
        true
    }

    fn inverse_transform(&self, rows: &Matrix) -> Result<Matrix> {
        Ok(self.each(self.inverse, &Data::Dense(rows.clone()))?.dense()?.into_owned())
    }

    fn gives(&self) -> Option<DType> {
        self.gives
    }

    fn names_out(&self, names: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
        self.one_to_one.then(|| names.to_vec())
    }

    fn passes(&self, column: usize) -> Option<usize> {
        self.function.is_none().then_some(column)
    }

    fn uses(&self, _: usize) -> bool {
        self.function.is_some() || self.validate
    }

    fn features(&self) -> Option<usize> {
        self.features
    }
}
