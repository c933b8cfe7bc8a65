//! The classes and functions that a model file may name. They are never called, only recognised; whatever is not in
//! the table ends the reading, so that a file with code of its own is refused instead of half understood.

use crate::error::{Error, Result};
use crate::formats::graph::Name;
use crate::tensor::Excerpt;

/// A package, which stands for all modules below it, or one module; and the names in it, none for all.
const KNOWN: &[(&str, &[&str])] = &[
    ("sklearn", &[]),
    ("xgboost", &[]),
    ("lightgbm", &[]),
    ("joblib", &[]),
    ("scipy.sparse", &[]),
    // Splines of SplineTransformer, and the functions their state mentions.
    ("scipy.interpolate", &[]),
    ("scipy._lib.array_api_compat", &["asarray"]),
    // Distributions that a randomised search was given.
    ("scipy.stats", &[]),
    ("scipy.special", &[]),
    ("numpy", NUMPY),
    ("numpy", NUMPY_FUNCTIONS),
    ("numpy._core.multiarray", &["_reconstruct", "scalar"]),
    ("numpy._core.numeric", &["_frombuffer"]),
    ("numpy._core", &["_ufunc_reconstruct"]),
    ("numpy._core.memmap", &["memmap"]),
    ("numpy.matrixlib.defmatrix", &["matrix"]),
    ("numpy.rec", &["recarray", "record"]),
    // Column names, as scikit-learn before 1.0 kept them.
    ("pandas.core.indexes", &[]),
    ("numpy.ma", &["MaskedArray", "_mareconstruct"]),
    ("numpy.random._pickle", &["__bit_generator_ctor", "__generator_ctor", "__randomstate_ctor"]),
    ("numpy.random.bit_generator", &["SeedSequence", "__pyx_unpickle_SeedSequence"]),
    ("numpy.random", &["Generator", "MT19937", "PCG64", "PCG64DXSM", "Philox", "RandomState", "SFC64"]),
    ("collections", &["OrderedDict", "defaultdict"]),
    ("copyreg", &["__newobj__", "__newobj_ex__", "_reconstructor"]),
    ("functools", &["partial"]),
    ("operator", &["attrgetter", "itemgetter"]),
    ("_codecs", &["encode"]),
    ("builtins", BUILTINS),
];

const BUILTINS: &[&str] = &[
    "NoneType",
    "abs",
    "bool",
    "bytearray",
    "bytes",
    "complex",
    "dict",
    "float",
    "frozenset",
    "int",
    "len",
    "list",
    "max",
    "min",
    "object",
    "range",
    "round",
    "set",
    "slice",
    "str",
    "sum",
    "tuple",
    "type",
];

const NUMPY: &[&str] = &[
    "bool",
    "bool_",
    "bytes_",
    "clongdouble",
    "complex128",
    "complex64",
    "datetime64",
    "double",
    "dtype",
    "flexible",
    "float16",
    "float32",
    "float64",
    "floating",
    "generic",
    "half",
    "inexact",
    "int16",
    "int32",
    "int64",
    "int8",
    "int_",
    "intc",
    "integer",
    "intp",
    "longdouble",
    "longlong",
    "matrix",
    "memmap",
    "ndarray",
    "number",
    "object_",
    "recarray",
    "record",
    "signedinteger",
    "single",
    "str_",
    "timedelta64",
    "uint",
    "uint16",
    "uint32",
    "uint64",
    "uint8",
    "uintc",
    "uintp",
    "ulonglong",
    "unicode_",
    "unsignedinteger",
    "void",
];

/// What transformers are given: the ufuncs, and functions of arrays.
const NUMPY_FUNCTIONS: &[&str] = &[
    "abs",
    "absolute",
    "add",
    "all",
    "any",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "argmax",
    "argmin",
    "around",
    "asarray",
    "atleast_2d",
    "average",
    "cbrt",
    "ceil",
    "clip",
    "conjugate",
    "copysign",
    "cos",
    "cosh",
    "cumprod",
    "cumsum",
    "deg2rad",
    "degrees",
    "diff",
    "divide",
    "equal",
    "exp",
    "exp2",
    "expm1",
    "fabs",
    "fix",
    "float_power",
    "floor",
    "floor_divide",
    "fmax",
    "fmin",
    "fmod",
    "greater",
    "greater_equal",
    "heaviside",
    "hypot",
    "identity",
    "isfinite",
    "isinf",
    "isnan",
    "ldexp",
    "less",
    "less_equal",
    "log",
    "log10",
    "log1p",
    "log2",
    "logaddexp",
    "logaddexp2",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "maximum",
    "mean",
    "median",
    "minimum",
    "mod",
    "multiply",
    "nan_to_num",
    "nanmax",
    "nanmean",
    "nanmedian",
    "nanmin",
    "negative",
    "not_equal",
    "positive",
    "power",
    "prod",
    "ptp",
    "rad2deg",
    "radians",
    "ravel",
    "reciprocal",
    "remainder",
    "reshape",
    "rint",
    "round",
    "round_",
    "sign",
    "signbit",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "squeeze",
    "std",
    "subtract",
    "sum",
    "tan",
    "tanh",
    "transpose",
    "true_divide",
    "trunc",
    "var",
];

/// Longer than any module's path; names are copied into errors and compared often.
const MAX_LENGTH: usize = 200;

/// The name of a class or function in its one canonical spelling.
///
/// # Errors
/// When the table does not have it.
pub fn resolve(module: &str, name: &str) -> Result<Name> {
    let (module, name) = canonical(module, name);
    let proper = |text: &str| {
        text.len() <= MAX_LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
    };
    let within =
        |package: &str| module.strip_prefix(package).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    // A dotted name would reach from the module into whatever that imports: sklearn.utils, os.system.
    let known = proper(&module)
        && proper(name)
        && !name.contains('.')
        && KNOWN.iter().any(|(package, names)| {
            if names.is_empty() { within(package) } else { covers(package, &module) && names.contains(&name) }
        });
    if known { Ok(Name::new(&module, name)) } else { Err(refused(&module, name)) }
}

/// A list of names holds for its module, and where numpy or scipy keep the implementation below it.
fn covers(package: &str, module: &str) -> bool {
    match package {
        "numpy.ma" | "numpy.random" | "scipy._lib.array_api_compat" => module.starts_with(package),
        _ => module == package,
    }
}

/// Modules were renamed over the years, and Python 2 had its own; ufuncs are named by where they happen to be found.
fn canonical<'a>(module: &str, name: &'a str) -> (String, &'a str) {
    let module = match module {
        "__builtin__" => "builtins".to_owned(),
        "copy_reg" => "copyreg".to_owned(),
        // As Cython called it in scikit-learn 1.5 to 1.8.
        "_loss" => "sklearn._loss._loss".to_owned(),
        _ => match module.split_once('.') {
            Some(("numpy", rest)) if rest == "core" || rest.starts_with("core.") => format!("numpy._{rest}"),
            Some(("sklearn", rest)) if rest.starts_with("externals.joblib") => rest["externals.".len()..].to_owned(),
            _ => module.to_owned(),
        },
    };
    let umath = matches!(
        module.as_str(),
        "numpy._core._multiarray_umath" | "numpy._core.umath" | "numpy._core.fromnumeric" | "numpy._core.numerictypes"
    );
    let name = match (module.as_str(), name) {
        ("builtins", "xrange") => "range",
        ("builtins", "unicode") => "str",
        ("builtins", "long") => "int",
        _ => name,
    };
    (if umath { "numpy".to_owned() } else { module }, name)
}

fn refused(module: &str, name: &str) -> Error {
    let package = module.split('.').next().unwrap_or_default();
    let named = format!("the file names {}.{}", Excerpt(module), Excerpt(name));
    Error::load(match package {
        "cloudpickle" => format!(
            "{named}: the model contains code of its own, which stoker does not run; nothing was executed. Use \
             scikit-learn's own classes, or convert the model to ONNX (skl2onnx) and serve that"
        ),
        "__main__" | "__mp_main__" => format!(
            "{named}, a class or function of the program that saved the model, whose code is not in the file; nothing \
             was executed. Use scikit-learn's own classes, or convert the model to ONNX (skl2onnx) and serve that"
        ),
        _ => format!(
            "{named}, which is not a class of scikit-learn, xgboost, lightgbm or numpy that stoker knows: nothing was \
             executed. If the model needs it, convert the model to ONNX (skl2onnx) and serve that"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_all_times_are_one_name() {
        for (module, name, expected) in [
            ("__builtin__", "set", "builtins.set"),
            ("__builtin__", "xrange", "builtins.range"),
            ("copy_reg", "_reconstructor", "copyreg._reconstructor"),
            ("numpy.core.multiarray", "scalar", "numpy._core.multiarray.scalar"),
            ("numpy.core._multiarray_umath", "log1p", "numpy.log1p"),
            ("sklearn.externals.joblib.numpy_pickle", "NumpyArrayWrapper", "joblib.numpy_pickle.NumpyArrayWrapper"),
            ("numpy.random._mt19937", "MT19937", "numpy.random._mt19937.MT19937"),
            ("numpy.ma.core", "_mareconstruct", "numpy.ma.core._mareconstruct"),
            ("sklearn.svm._classes", "SVC", "sklearn.svm._classes.SVC"),
        ] {
            assert_eq!(resolve(module, name).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_refused() {
        for (module, name) in [
            ("posix", "system"),
            ("os", "system"),
            ("builtins", "eval"),
            ("__builtin__", "getattr"),
            ("sklearnx", "A"),
            ("sklearn.utils", "os.system"),
            ("numpy", "load"),
            ("numpy.testing", "runstring"),
            ("scipy", "sparse"),
            ("", ""),
        ] {
            let error = resolve(module, name).unwrap_err();
            assert!(error.message().contains("nothing was executed"), "{error}");
        }
        assert!(
            resolve("cloudpickle.cloudpickle", "_make_function").unwrap_err().message().contains("code of its own")
        );
    }
}
