//! MLflow's `MLmodel`: which flavors a logged model has, where its file lies, which columns it takes.
//! Source: MLflow's `mlflow/models/model.py` and `mlflow/types/schema.py`, versions 1 to 3.

use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

use super::Format;
use crate::error::{Error, Result};
use crate::tensor::{DType, Excerpt};

/// What we need of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MlModel {
    pub format: Format,
    /// The model's file, relative to `MLmodel`.
    pub file: String,
    /// The class that wrote the file, where one format serves several: `xgboost.sklearn.XGBClassifier`.
    pub class: Option<String>,
    /// The method that `python_function` answers with, when it says: `predict_proba`.
    pub method: Option<String>,
    /// Named columns of the signature, when it has any.
    pub inputs: Vec<Column>,
    /// Whatever numbers come, they are floats.
    pub has_fractions: bool,
    /// The name of the one output, when it has one.
    pub output: Option<Arc<str>>,
}

/// A column of a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: Arc<str>,
    pub dtype: DType,
    pub required: bool,
}

/// Larger than any `MLmodel`; signatures of thousands of columns take some hundred kilobytes.
pub const MAX_BYTES: usize = 4 << 20;

/// A flavor, its format, and the key that holds the file's name.
type Flavor = (&'static str, Format, &'static str);

/// Flavors that are served, the most telling first.
pub const FLAVORS: &[Flavor] = &[
    ("sklearn", Format::Sklearn, "pickled_model"),
    ("xgboost", Format::Xgboost, "data"),
    ("lightgbm", Format::Lightgbm, "data"),
    ("onnx", Format::Onnx, "data"),
];

/// Reads the text of an `MLmodel`.
///
/// # Errors
/// [`Kind::Load`](crate::error::Kind::Load) when it is no such file, or has no flavor that is served.
pub fn read(text: &str) -> Result<MlModel> {
    let document = yaml(text)?;
    let flavors = document.get("flavors").and_then(Value::as_object);
    let flavors = flavors.ok_or_else(|| Error::load("it has no flavors: is this an MLmodel?"))?;
    let own = |(name, format, key): &Flavor| Some(((*name, *format, *key), flavors.get(*name)?));
    let Some(((name, format, key), flavor)) = FLAVORS.iter().find_map(own).or_else(|| loaded(flavors)) else {
        let known: Vec<&str> = FLAVORS.iter().map(|(name, ..)| *name).collect();
        let names: Vec<String> = flavors.keys().take(16).map(|name| Excerpt(name).to_string()).collect();
        return Err(Error::load(format!(
            "its flavors are {}, expected one of {}: log the model as one of these, or convert it to ONNX",
            names.join(", "),
            known.join(", ")
        )));
    };
    let file = flavor.get(key).and_then(Value::as_str);
    let file = file.ok_or_else(|| Error::load(format!("flavor {name} has no {key}, which names the model's file")))?;
    if file.starts_with('/') || file.split('/').any(|part| part == "..") {
        return Err(Error::load(format!("{key} is {}, which lies outside of the model's directory", Excerpt(file))));
    }
    // lightgbm's and xgboost's scikit-learn classes may be saved as scikit-learn's models are.
    let format = super::detect::format(file, &|_| Ok(Vec::new()))?.unwrap_or(format);
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    Ok(MlModel {
        format,
        file: file.to_owned(),
        class: text(flavor.get("model_class")),
        method: text(flavors.get("python_function").and_then(|flavor| flavor.get("predict_fn"))),
        inputs: columns(&document)?,
        has_fractions: has_fractions(&document)?,
        output: output(&document)?,
    })
}

/// `python_function` alone, when one of the flavors loads it.
fn loaded(flavors: &Map<String, Value>) -> Option<(Flavor, &Value)> {
    let function = flavors.get("python_function")?;
    let module = function.get("loader_module")?.as_str()?.strip_prefix("mlflow.")?;
    let (_, format, _) = FLAVORS.iter().find(|(name, ..)| *name == module)?;
    let key = if function.get("model_path").is_some() { "model_path" } else { "data" };
    Some((("python_function", *format, key), function))
}

/// The columns of `signature.inputs`, a JSON text; none when it is of tensors or of columns without names.
fn columns(document: &Value) -> Result<Vec<Column>> {
    let inputs = schema(document, "inputs")?;
    let column = |column: &Value| {
        let name = column.get("name")?.as_str()?;
        let dtype = dtype(column.get("type")?.as_str()?)?;
        // "optional" until MLflow 2.6.
        let optional = column.get("optional").and_then(Value::as_bool).unwrap_or(false);
        let required = column.get("required").and_then(Value::as_bool).unwrap_or(!optional);
        Some(Column { name: name.into(), dtype, required })
    };
    Ok(inputs.iter().map(column).collect::<Option<_>>().unwrap_or_default())
}

/// Whether the signature is of a tensor of floats, which `mlflow.pyfunc` makes of all numbers.
/// Source: `mlflow/types/schema.py`, `TensorSpec.to_dict`.
fn has_fractions(document: &Value) -> Result<bool> {
    let inputs = schema(document, "inputs")?;
    let dtype = |input: &Value| Some(input.get("tensor-spec")?.get("dtype")?.as_str()?.starts_with("float"));
    Ok(inputs.first().and_then(dtype).unwrap_or(false))
}

fn output(document: &Value) -> Result<Option<Arc<str>>> {
    Ok(match schema(document, "outputs")?.as_slice() {
        [only] => only.get("name").and_then(Value::as_str).map(Arc::from),
        _ => None,
    })
}

/// `signature.inputs` or `signature.outputs`, empty where MLflow takes there to be none.
fn schema(document: &Value, key: &str) -> Result<Vec<Value>> {
    let text = match document.get("signature").and_then(|signature| signature.get(key)) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::String(text)) if text.is_empty() => return Ok(Vec::new()),
        // What is no text is no JSON.
        Some(value) => value.as_str().unwrap_or_default(),
    };
    serde_json::from_str(text).map_err(|error| {
        let message = format!("signature.{key} should be a list of columns as JSON: was the file edited?");
        Error::load(message).with_source(error)
    })
}

/// As `MLServer` shows MLflow's types; what is none of them is no column that a table has.
fn dtype(name: &str) -> Option<DType> {
    Some(match name {
        "boolean" => DType::Bool,
        "integer" => DType::Int32,
        "long" => DType::Int64,
        "float" => DType::Fp32,
        "double" => DType::Fp64,
        "string" | "datetime" => DType::Bytes,
        _ => return None,
    })
}

/// The subset of YAML that MLflow writes: mappings, sequences and scalars, scalars as text unless null or a bool.
fn yaml(text: &str) -> Result<Value> {
    const MAX_DEPTH: usize = 32;
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, _) = event.map_err(|error| Error::load(format!("no YAML: {error}")))?;
        let value = match event {
            Event::Scalar(text, style, ..) => match &*text {
                "null" | "~" | "" if style == ScalarStyle::Plain => Value::Null,
                "true" if style == ScalarStyle::Plain => Value::Bool(true),
                "false" if style == ScalarStyle::Plain => Value::Bool(false),
                _ => Value::String(text.into_owned()),
            },
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() >= MAX_DEPTH => {
                return Err(Error::load(format!("nested deeper than {MAX_DEPTH}")));
            }
            Event::SequenceStart(..) => {
                open.push(Open::Sequence(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Mapping(Map::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::Sequence(items)) => Value::Array(items),
                Some(Open::Mapping(entries, _)) => Value::Object(entries),
                None => continue,
            },
            // A few aliases can stand for more than memory holds, and MLflow writes none.
            Event::Alias(_) => return Err(Error::load("YAML aliases are not supported")),
            _ => continue,
        };
        match open.last_mut() {
            None => return Ok(value),
            Some(Open::Sequence(items)) => items.push(value),
            Some(Open::Mapping(entries, key)) => match (key.take(), value) {
                (Some(key), value) => drop(entries.insert(key, value)),
                (None, Value::String(text)) => *key = Some(text),
                (None, _) => return Err(Error::load("a key is no text")),
            },
        }
    }
    Err(Error::load("it is empty"))
}

enum Open {
    Sequence(Vec<Value>),
    /// With the key whose value comes next.
    Mapping(Map<String, Value>, Option<String>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::naive::fixtures::fuzz;

    const SKLEARN: &str = r#"
artifact_path: model
flavors:
  python_function:
    env: {conda: conda.yaml, virtualenv: python_env.yaml}
    loader_module: mlflow.sklearn
    model_path: model.pkl
    predict_fn: predict_proba
  sklearn:
    code: null
    pickled_model: model.pkl
    serialization_format: cloudpickle
signature:
  inputs: '[{"type": "double", "name": "sepal length (cm)", "required": true}, {"type":
    "string", "name": "site", "required": false}]'
  outputs: '[{"type": "long", "name": "species", "required": true}]'
  params: null
"#;

    #[test]
    fn flavor_file_and_signature_are_read() {
        let model = read(SKLEARN).unwrap();
        assert_eq!((model.format, model.file.as_str()), (Format::Sklearn, "model.pkl"));
        assert_eq!(model.method.as_deref(), Some("predict_proba"));
        assert_eq!(model.output.as_deref(), Some("species"));
        let columns: Vec<_> = model.inputs.iter().map(|c| (&*c.name, c.dtype, c.required)).collect();
        assert_eq!(columns, [("sepal length (cm)", DType::Fp64, true), ("site", DType::Bytes, false)]);
    }

    /// What `tests/tabular/make_mlmodels.py` has written, by name.
    fn saved() -> Vec<(String, Vec<u8>)> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tabular/mlmodel");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let name = |path: &std::path::Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut files: Vec<_> = files.map(|path| (name(&path), std::fs::read(&path).unwrap())).collect();
        files.sort();
        files
    }

    #[test]
    fn files_of_mlflow_itself_are_read() {
        let expected = [
            ("declared", Format::Sklearn, "model.pkl", 7, Some("predict"), Some("class")),
            ("inferred", Format::Sklearn, "model.pkl", 3, Some("predict"), None),
            ("lightgbm", Format::Sklearn, "model.skops", 3, None, None),
            ("lightgbm_booster", Format::Lightgbm, "model.lgb", 0, None, None),
            ("plain", Format::Sklearn, "model.pkl", 0, Some("predict"), None),
            ("skops", Format::Sklearn, "model.skops", 0, Some("predict"), None),
            ("tensor", Format::Sklearn, "model.pkl", 0, Some("predict_proba"), None),
            ("xgboost", Format::Xgboost, "model.ubj", 3, None, None),
            ("xgboost_booster", Format::Xgboost, "model.json", 0, None, None),
        ];
        let saved = saved();
        assert_eq!(saved.len(), expected.len());
        for ((name, bytes), expected) in saved.iter().zip(expected) {
            let model = read(std::str::from_utf8(bytes).unwrap()).unwrap();
            let method = model.method.as_deref();
            let got = (&**name, model.format, &*model.file, model.inputs.len(), method, model.output.as_deref());
            assert_eq!(got, expected);
        }
        let inferred = read(std::str::from_utf8(&saved[1].1).unwrap()).unwrap();
        let names: Vec<&str> = inferred.inputs.iter().map(|column| &*column.name).collect();
        assert_eq!(names, ["a", "petal length (cm)", "sö: 'x'"]);
    }

    #[test]
    fn mutated_files_are_read_or_refused() {
        let corpus: Vec<Vec<u8>> = saved().into_iter().map(|(_, bytes)| bytes).collect();
        let pieces: &[&[u8]] = &[
            b"null",
            b"~",
            b"- ",
            b": ",
            b"? ",
            b"{",
            b"[[[[",
            b"}",
            b"'",
            b"\"",
            b"|\n",
            b">-\n",
            b"&a ",
            b"*a",
            b"!!str ",
            b"%YAML 9\n",
            b"---\n",
            b"...\n",
            b"\t",
            b"\r\n",
            b"#",
            b"<<: ",
            b"flavors:\n",
            b"../x",
            b"/x",
            b"{\"name\": 1}",
            b"",
        ];
        fuzz(&corpus, pieces, |bytes| {
            let text = std::str::from_utf8(bytes).map_err(|error| Error::load(error.to_string()))?;
            read(text).map(drop)
        });
    }

    #[test]
    fn a_class_saved_as_scikit_learn_saves_is_scikit_learns() {
        let text = "flavors:\n  lightgbm:\n    data: model.skops\n    model_class: lightgbm.sklearn.LGBMClassifier\n";
        assert_eq!(read(text).unwrap().format, Format::Sklearn);
        assert_eq!(read(&text.replace("skops", "lgb")).unwrap().format, Format::Lightgbm);
    }

    /// Its own flavor is gone, as from models that were registered as `python_function` only.
    #[test]
    fn a_function_that_a_flavor_loads_is_of_that_flavor() {
        let own = SKLEARN.find("  sklearn:").unwrap()..SKLEARN.find("signature:").unwrap();
        let mut text = SKLEARN.to_owned();
        text.replace_range(own, "");
        assert_eq!(read(&text).unwrap(), read(SKLEARN).unwrap());
        let loads = |module: &str, file: &str| {
            read(&format!("flavors:\n  python_function:\n    data: {file}\n    loader_module: {module}\n"))
        };
        assert_eq!(loads("mlflow.xgboost", "model.ubj").unwrap().format, Format::Xgboost);
        assert_eq!(loads("mlflow.lightgbm", "model.lgb").unwrap().format, Format::Lightgbm);
        assert_eq!(loads("mlflow.lightgbm", "model.skops").unwrap().format, Format::Sklearn);
        let error = loads("mlflow.pyfunc.model", "model.pkl").unwrap_err();
        assert!(error.message().starts_with("its flavors are python_function, expected one of"), "{error}");
        let error = loads("mlflow.xgboost", "../model.ubj").unwrap_err();
        assert!(error.message().contains("outside of the model's directory"), "{error}");
    }

    #[test]
    fn each_mistake_is_named() {
        let signed = |schema: &str| format!("flavors:\n  sklearn: {{pickled_model: x.pkl}}\nsignature:\n  {schema}\n");
        for none in ["inputs: null", "inputs: ''", "params: null", "outputs: '[]'"] {
            assert!(read(&signed(none)).is_ok(), "{none}");
        }
        let cases = [
            ("", "it is empty"),
            ("a: [b", "no YAML"),
            ("a: 1", "it has no flavors"),
            ("flavors:\n  pytorch: {}\n", "its flavors are pytorch, expected one of sklearn, xgboost"),
            ("flavors:\n  sklearn: {}\n", "flavor sklearn has no pickled_model"),
            ("flavors:\n  sklearn: {pickled_model: ../x.pkl}\n", "outside of the model's directory"),
            ("a: &x [1]\nb: *x\n", "aliases are not supported"),
            (&signed("inputs: '[{\"type\":'"), "signature.inputs should be a list of columns as JSON"),
            (&signed("inputs: [a]"), "signature.inputs should be"),
            (&signed("outputs: '{}'"), "signature.outputs should be"),
        ];
        for (text, message) in cases {
            let error = read(text).unwrap_err();
            assert!(error.message().contains(message), "{text}: {error}");
        }
        assert!(read(&"[".repeat(10_000)).is_err());
    }
}
