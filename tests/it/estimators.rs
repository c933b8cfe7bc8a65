//! Fitted estimators of the real libraries against what these libraries answered (tests/tabular/grid makes both).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use stoker::backend::tabular::data::{Cell, Cells, Column, Data, Labels, Matrix, Sparse, Table};
use stoker::backend::tabular::estimator::{Estimator, Method, Takes};
use stoker::backend::tabular::sklearn;
use stoker::tensor::DType;

#[test]
fn committed_cases_are_answered_as_by_the_library() {
    let failures = failures(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tabular/cases"));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// `STOKER_CASES=DIR cargo test --test it wide_cases -- --ignored`
#[test]
#[ignore = "for cases made on the spot, named by STOKER_CASES"]
fn wide_cases_are_answered_as_by_the_library() {
    let failures = failures(&PathBuf::from(std::env::var("STOKER_CASES").expect("STOKER_CASES names a folder")));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// One line for each case that is not answered as expected.
fn failures(folder: &Path) -> Vec<String> {
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    cases.sort();
    assert!(!cases.is_empty(), "no cases in {}", folder.display());
    let failed = cases.iter().filter_map(|case| {
        let name = case.file_name().unwrap().to_string_lossy();
        compare(case).err().map(|error| format!("{name}: {error}"))
    });
    failed.collect()
}

fn compare(folder: &Path) -> Result<(), String> {
    let case: Value = serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap();
    let bytes = std::fs::read(folder.join("model.joblib")).unwrap();
    let model = sklearn::load(bytes.into()).map_err(|error| error.to_string())?;
    let rows = rows(&case["rows"], &*model);
    let tolerance = case["tolerance"].as_f64().unwrap();
    let name = folder.file_name().unwrap().to_string_lossy();
    check_names(&*model, &case)?;
    if let Some(column) = refused_text(&*model, &rows)
        && name != "function_text"
    {
        return Err(format!("column {column} takes no text"));
    }
    for (method, answer) in case["answers"].as_object().unwrap() {
        if method == "inverse_transform" {
            let given = model.inverse_transform(rows.dense().unwrap().as_ref()).map_err(|error| error.to_string())?;
            close(&answer["values"], &matrix(&given), tolerance).map_err(|error| format!("{method}: {error}"))?;
            continue;
        }
        let method = Method::parse(method).unwrap();
        if !model.can(method) {
            return Err(format!("has no {}", method.name()));
        }
        let given = ask(&*model, method, &rows).map_err(|error| format!("{}: {error}", method.name()))?;
        close(&answer["values"], &given, tolerance).map_err(|difference| format!("{}: {difference}", method.name()))?;
        let (given, expected) = (dtype(&*model, method, &rows), answer["dtype"].as_str().unwrap());
        if !are_same(given, expected) && method != Method::Contributions {
            return Err(format!("{} gives {given}, expected {expected}", method.name()));
        }
    }
    Ok(())
}

/// What columns are called after a transformation, or what is explained, against what the library calls them.
fn check_names(model: &dyn Estimator, case: &Value) -> Result<(), String> {
    let Some(names) = case.get("names") else { return Ok(()) };
    let texts = |names: &Value| -> Vec<Arc<str>> {
        names.as_array().unwrap().iter().map(|name| name.as_str().unwrap().into()).collect()
    };
    let (given, expected) = (texts(&names["in"]), texts(&names["out"]));
    let is_explained = case["answers"].get("shap_values").is_some();
    match if is_explained { model.explained(&given) } else { model.names_out(&given) } {
        Some(names) if names == expected => Ok(()),
        names => Err(format!("names are {names:?}, expected {expected:?}")),
    }
}

/// A column with text that a request could not bring.
fn refused_text(model: &dyn Estimator, rows: &Data) -> Option<usize> {
    let Data::Table(table) = rows else { return None };
    let has_text = |cells: &Cells| (0..cells.len()).any(|row| matches!(cells.get(row), Cell::Text(_)));
    let columns = table.columns.iter().enumerate().filter(|(_, column)| has_text(&column.cells));
    let is_seen = |place| model.uses(place) || model.passes(place).is_some();
    columns.map(|(place, _)| place).find(|place| is_seen(*place) && model.takes(*place).dtype() != DType::Json)
}

/// The type that is answered with.
pub fn dtype(model: &dyn Estimator, method: Method, rows: &Data) -> DType {
    let of = |matrix: &Matrix| if matrix.single { DType::Fp32 } else { DType::Fp64 };
    match method {
        Method::Predict => model.predict(rows).unwrap().values.dtype(),
        Method::PredictProba => of(&model.predict_proba(rows).unwrap()[0]),
        Method::DecisionFunction => of(&model.decision_function(rows).unwrap()),
        Method::Transform => Labels::of(model.transform(rows).unwrap(), model.gives()).unwrap().dtype(),
        Method::Contributions => DType::Fp64,
    }
}

/// Whether numpy's name for a type is that of ours. Lists of answers have none.
fn are_same(dtype: DType, numpy: &str) -> bool {
    match dtype {
        _ if numpy == "many" => true,
        DType::Bytes => numpy == "object" || numpy.starts_with("<U"),
        other => numpy == other.name().to_lowercase().replace("fp", "float"),
    }
}

/// Ours for one of numpy's types.
fn dtype_of(numpy: &str) -> DType {
    DType::parse(&numpy.to_uppercase()).unwrap()
}

/// The rows in the form that a request would bring them in.
pub fn rows(value: &Value, model: &dyn Estimator) -> Data {
    if let Some(matrix) = value["matrix"].as_array() {
        let rows: Vec<Vec<f64>> =
            matrix.iter().map(|row| row.as_array().unwrap().iter().map(number).collect()).collect();
        let columns = rows.first().map_or(0, Vec::len);
        let single = value["single"].as_bool().unwrap();
        if value["sparse"] == true {
            return Data::Sparse(sparse(&rows));
        }
        let matrix = Matrix { rows: rows.len(), columns, values: rows.concat(), single };
        return match value["integers"].as_str() {
            Some(dtype) => Data::Typed(matrix, dtype_of(dtype)),
            None => Data::Dense(matrix),
        };
    }
    let column = |place: usize, name: Option<&str>, values: &[Value], integers: Option<&str>| {
        let is_text = name.is_some() && model.takes(place) == Takes::NumericCategories;
        let numeric = !is_text && values.iter().all(|value| value.is_number() || value.is_null());
        let cells = if numeric && !values.iter().all(Value::is_null) {
            Cells::Numbers(values.iter().map(number).collect())
        } else {
            Cells::Mixed(values.iter().map(|value| cell(value, is_text)).collect())
        };
        Column {
            name: name.map(Into::into),
            cells,
            dtype: integers.filter(|_| model.takes(place) == Takes::Typed).map(dtype_of),
        }
    };
    let columns: Vec<Column> = match value["text"].as_array() {
        Some(texts) => vec![column(0, None, texts, None)],
        None => {
            let columns = value["columns"].as_array().unwrap().iter().enumerate();
            let column = |(place, each): (usize, &Value)| {
                column(place, each["name"].as_str(), each["values"].as_array().unwrap(), each["integers"].as_str())
            };
            columns.map(column).collect()
        }
    };
    Data::Table(Table { rows: columns[0].cells.len(), columns })
}

fn sparse(rows: &[Vec<f64>]) -> Sparse {
    let columns = rows.first().map_or(0, Vec::len);
    let mut sparse = Sparse { rows: rows.len(), columns, starts: vec![0], ..Sparse::default() };
    for row in rows {
        for (column, value) in row.iter().enumerate().filter(|(_, value)| **value != 0.0) {
            sparse.indices.push(column as u32);
            sparse.values.push(*value);
        }
        sparse.starts.push(sparse.indices.len());
    }
    sparse
}

fn number(value: &Value) -> f64 {
    match value.as_str() {
        Some("inf") => f64::INFINITY,
        Some("-inf") => f64::NEG_INFINITY,
        _ => value.as_f64().unwrap_or(f64::NAN),
    }
}

fn cell(value: &Value, is_text: bool) -> Cell {
    match value {
        Value::Number(number) if is_text => Cell::Text(number.to_string().into()),
        Value::String(text) => Cell::Text(text.as_str().into()),
        Value::Bool(value) => Cell::Bool(*value),
        Value::Number(value) => Cell::Number(value.as_f64().unwrap()),
        _ => Cell::None,
    }
}

pub fn ask(model: &dyn Estimator, method: Method, rows: &Data) -> stoker::error::Result<Value> {
    Ok(match method {
        Method::Predict => {
            let target = model.predict(rows)?;
            nested(&labels(&target.values), target.columns)
        }
        Method::PredictProba => match model.predict_proba(rows)?.as_slice() {
            [one] => matrix(one),
            several => several.iter().map(matrix).collect(),
        },
        Method::DecisionFunction => {
            let scores = model.decision_function(rows)?;
            if scores.columns == 1 { json(&scores.values) } else { matrix(&scores) }
        }
        Method::Contributions => {
            let parts = model.contributions(rows)?;
            let outputs = parts.values.chunks(parts.columns).map(json);
            let outputs: Vec<Value> = outputs.collect();
            if parts.outputs == 1 { Value::from(outputs) } else { nested(&outputs, Some(parts.outputs)) }
        }
        Method::Transform => match model.transform(rows)? {
            Data::Table(table) => (0..table.rows)
                .map(|row| table.columns.iter().map(|column| cell_json(&column.cells.get(row))).collect::<Value>())
                .collect(),
            numbers if model.gives_vector() => json(&numbers.dense()?.values),
            numbers => matrix(numbers.dense()?.as_ref()),
        },
    })
}

fn labels(labels: &Labels) -> Vec<Value> {
    match labels {
        Labels::Float(values) => values.iter().copied().map(float).collect(),
        Labels::Single(values) => values.iter().map(|value| float(f64::from(*value))).collect(),
        Labels::Int(values, _) => values.iter().map(|value| Value::from(*value)).collect(),
        Labels::Bool(values) => values.iter().map(|value| Value::from(*value)).collect(),
        Labels::Text(values) => values.iter().map(|value| Value::from(&**value)).collect(),
    }
}

fn cell_json(cell: &Cell) -> Value {
    match cell {
        Cell::None => Value::Null,
        Cell::Number(value) => float(*value),
        Cell::Bool(value) => Value::from(*value),
        Cell::Text(text) => Value::from(&**text),
    }
}

fn nested(values: &[Value], columns: Option<usize>) -> Value {
    match columns {
        None => Value::from(values.to_vec()),
        Some(columns) => values.chunks(columns).map(|row| Value::from(row.to_vec())).collect(),
    }
}

fn matrix(matrix: &Matrix) -> Value {
    matrix.iter_rows().map(json).collect()
}

fn json(values: &[f64]) -> Value {
    values.iter().copied().map(float).collect()
}

fn float(value: f64) -> Value {
    match value {
        f64::INFINITY => Value::from("inf"),
        f64::NEG_INFINITY => Value::from("-inf"),
        value => Value::from(value), // NaN becomes null
    }
}

/// Equal in shape and labels, numbers up to `tolerance` relative to the greatest of their row.
fn close(expected: &Value, given: &Value, tolerance: f64) -> Result<(), String> {
    match (expected, given) {
        (Value::Array(expected), Value::Array(given)) => {
            if expected.len() != given.len() {
                return Err(format!("{} values, expected {}", given.len(), expected.len()));
            }
            let greatest =
                expected.iter().filter_map(Value::as_f64).fold(0.0, |most: f64, value| most.max(value.abs()));
            for (place, (expected, given)) in expected.iter().zip(given).enumerate() {
                match (expected.as_f64(), given.as_f64()) {
                    (Some(expected), Some(given)) if (expected - given).abs() <= tolerance * greatest => {}
                    _ => close(expected, given, tolerance).map_err(|error| format!("[{place}] {error}"))?,
                }
            }
            Ok(())
        }
        _ if expected == given => Ok(()),
        // The masks that transformers give are numbers here.
        (Value::Bool(expected), Value::Number(given)) if given.as_f64() == Some(f64::from(u8::from(*expected))) => {
            Ok(())
        }
        _ if expected.as_f64().is_some_and(|expected| given.as_f64() == Some(expected)) => Ok(()),
        _ => Err(format!("{given}, expected {expected}")),
    }
}
