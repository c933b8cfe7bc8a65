//! Histogram gradient boosting: trees that see `f64`, know missing values and split on categories.

use std::borrow::Cow;

use super::read::{self, decide, expit, softmax, two_columns};
use crate::backend::tabular::data::{Data, Labels, Matrix, Target};
use crate::backend::tabular::estimator::{Build, Builder, Contributions, Estimator, Method, Takes, unsupported};
use crate::backend::tabular::forest::{Forest, Grown, InputPrecision};
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::formats::trees::{Categories, Kind, Missing, Node as TreeNode, Test, Tree};

pub const CLASSES: &[(&str, Build)] =
    &[("HistGradientBoostingClassifier", classifier), ("HistGradientBoostingRegressor", regressor)];

/// `baseline + sum(trees)`, a column for each class, or one for two classes or a regression.
struct Histogram {
    input: Input,
    forest: Forest,
    baseline: Vec<f64>,
    /// From the raw prediction of a regression to its mean.
    inverse_link: fn(f64) -> f64,
    /// Empty for regression.
    classes: Option<Labels>,
}

/// What happens to rows before the trees see them.
enum Input {
    AsIs,
    /// Until 1.3 categories were small integers, used as they came: these columns have them.
    Integers(Vec<usize>),
    /// Since 1.4 they are encoded, and come before the numbers.
    Encoded {
        encoder: Box<dyn Estimator>,
        categorical: Vec<usize>,
        numerical: Vec<usize>,
    },
}

fn regressor(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    let inverse_link: fn(f64) -> f64 = match node.read("loss", Node::text)? {
        "squared_error" | "least_squares" | "absolute_error" | "least_absolute_deviation" | "quantile" => |raw| raw,
        "poisson" | "gamma" => f64::exp,
        other => return Err(unsupported("loss", other)),
    };
    Ok(Box::new(Histogram { inverse_link, ..histogram(node, builder, None)? }))
}

fn classifier(node: Node<'_>, builder: &mut Builder) -> Result<Box<dyn Estimator>> {
    match node.read("loss", Node::text)? {
        "log_loss" | "auto" | "binary_crossentropy" | "categorical_crossentropy" => {}
        other => return Err(unsupported("loss", other)),
    }
    let classes = read::classes(node)?;
    Ok(Box::new(histogram(node, builder, Some(classes))?))
}

fn histogram(node: Node<'_>, builder: &mut Builder, classes: Option<Labels>) -> Result<Histogram> {
    let features = node.read("n_features_in_", Node::usize)?;
    let each = match classes.as_ref().map_or(1, Labels::len) {
        0 => return Err(Error::load("classes_ is empty")),
        1 | 2 => 1,
        several => several,
    };
    // One number, a row or a column of them: shapes changed over the versions.
    let baseline = node.read("_baseline_prediction", Node::numbers)?.vector(Some(each))?;
    let categorical = read::option(node, "is_categorical_", |mask| places(mask, features))?.unwrap_or_default();
    let input = match read::option_since((1, 4), node, "_preprocessor", Ok)? {
        Some(preprocessor) => encoded(preprocessor, categorical, features, builder)?,
        None if categorical.is_empty() => Input::AsIs,
        None => Input::Integers(categorical),
    };
    let known = node.read("_bin_mapper", |mapper| known_categories(mapper, features))?;
    let mut trees = Vec::new();
    for (number, iteration) in node.read("_predictors", Node::items)?.enumerate() {
        let place = |error: Error| error.context(format_args!("_predictors[{number}]"));
        let predictors = iteration.items().map_err(place)?;
        if predictors.len() != each {
            return Err(place(Error::load(format!("{} trees where {each} are expected", predictors.len()))));
        }
        for (output, predictor) in predictors.enumerate() {
            trees.push((read_tree(predictor, &known).map_err(place)?, output));
        }
    }
    let is_single = classes.as_ref().is_some_and(|classes| classes.len() == 1);
    if is_single && trees.iter().any(|(tree, _)| tree.nodes.len() > 1) {
        return Err(Error::load("classes_ is one, but there are trees that tell more apart"));
    }
    let grown = Grown { features, outputs: each, width: 1, input: InputPrecision::Double, trees };
    Ok(Histogram { input, forest: Forest::compile(grown)?, baseline, inverse_link: |raw| raw, classes })
}

/// Where a mask is true.
fn places(mask: Node<'_>, length: usize) -> Result<Vec<usize>> {
    let mask = mask.numbers()?.vector(Some(length))?;
    Ok(mask.iter().enumerate().filter(|(_, set)| **set != 0.0).map(|(place, _)| place).collect())
}

/// The column transformer of 1.4 and later: an encoder of the categorical columns, then the others as they are.
fn encoded(preprocessor: Node<'_>, categorical: Vec<usize>, features: usize, builder: &mut Builder) -> Result<Input> {
    let transformers = preprocessor.read("transformers_", Node::items)?;
    let mut named = transformers.filter_map(|transformer| transformer.tuple::<3>().ok());
    let encoder = named.find(|[name, ..]| name.text().is_ok_and(|name| name == "encoder"));
    let [_, encoder, _] = encoder.ok_or_else(|| Error::load("_preprocessor has no encoder"))?;
    let encoder = builder.build(encoder)?;
    if encoder.features() != Some(categorical.len()) {
        return Err(Error::load(format!("the encoder is not of {} columns", categorical.len())));
    }
    let numerical = (0..features).filter(|column| categorical.binary_search(column).is_err()).collect();
    Ok(Input::Encoded { encoder, categorical, numerical })
}

/// Categories are the numbers 0 to 255.
type Set = [u64; 4];

/// For each feature the categories that it had when the model was fitted; `None` when it is numeric.
fn known_categories(mapper: Node<'_>, features: usize) -> Result<Vec<Option<Set>>> {
    let categorical = mapper.read("is_categorical_", |mask| places(mask, features))?;
    let mut known = vec![None; features];
    if categorical.is_empty() {
        return Ok(known);
    }
    let values: Vec<Node<'_>> = mapper.read("bin_thresholds_", Node::items)?.collect();
    for feature in categorical {
        let values = values.get(feature).ok_or_else(|| Error::load(format!("no categories for feature {feature}")))?;
        let mut set = Set::default();
        for value in values.numbers()?.values {
            if !(0.0..256.0).contains(&value) {
                return Err(Error::load(format!("category {value} of feature {feature}")));
            }
            set[value as usize / 64] |= 1 << (value as usize % 64);
        }
        known[feature] = Some(set);
    }
    Ok(known)
}

/// Reads a `TreePredictor`. Whether it is a tree is checked when it is compiled.
fn read_tree(predictor: Node<'_>, known: &[Option<Set>]) -> Result<Tree> {
    let nodes = predictor.read("nodes", Node::array)?;
    let field = |name: &str| {
        let values = nodes.field(name)?;
        values.ok_or_else(|| Error::load(format!("nodes have no field \"{name}\"")))
    };
    let (is_leaf, values, counts) = (field("is_leaf")?, field("value")?, field("count")?);
    let (features, thresholds, missing_left) =
        (field("feature_idx")?, field("num_threshold")?, field("missing_go_to_left")?);
    let (lefts, rights) = (field("left")?, field("right")?);
    let (is_categorical, bitsets) = (field("is_categorical")?, field("bitset_idx")?);
    let lefts_of = predictor.read("raw_left_cat_bitsets", Node::numbers)?.values;
    let mut tree = Tree { nodes: Vec::with_capacity(values.len()), ..Tree::default() };
    for id in 0..values.len() {
        let missing_left = missing_left[id] != 0.0;
        let kind = if is_leaf[id] == 1.0 {
            tree.leaves.push(values[id]);
            Kind::Leaf { index: (tree.leaves.len() - 1) as u32 }
        } else if features[id] < 0.0 {
            return Err(Error::load(format!("node {id}: feature {}", features[id])));
        } else {
            let test = if is_categorical[id] == 0.0 {
                Test::AtMost { threshold: thresholds[id], missing: Missing::Nan, missing_left }
            } else {
                let known = known.get(features[id] as usize).copied().flatten();
                let known = known.ok_or_else(|| Error::load(format!("node {id}: the feature has no categories")))?;
                let left = lefts_of.as_chunks::<8>().0.get(bitsets[id] as usize);
                let left = left.ok_or_else(|| Error::load(format!("node {id}: bitset {}", bitsets[id])))?;
                Test::Category(Box::new(categories(left, known, missing_left)))
            };
            Kind::Split { feature: features[id] as u32, test, left: lefts[id] as u32, right: rights[id] as u32 }
        };
        tree.nodes.push(TreeNode { cover: counts[id], kind });
    }
    Ok(tree)
}

/// Categories that were unknown go where the missing go.
fn categories(left: &[f64; 8], known: Set, missing_left: bool) -> Categories {
    let unknown_left = if missing_left { u64::MAX } else { 0 };
    let words = left.as_chunks::<2>().0.iter().zip(known);
    let words = words.map(|([low, high], known)| (*low as u64 | (*high as u64) << 32) | (!known & unknown_left));
    Categories { left: words.collect(), others_left: missing_left, nan_left: missing_left, toward_zero: false }
}

impl Input {
    fn apply<'d>(&self, rows: &'d Data) -> Result<Cow<'d, Matrix>> {
        match self {
            Input::AsIs => rows.dense(),
            Input::Integers(categorical) => {
                let mut rows = rows.dense()?.into_owned();
                for row in 0..rows.rows {
                    let row = rows.row_mut(row);
                    categorical.iter().for_each(|column| row[*column] = category(row[*column]));
                }
                Ok(Cow::Owned(rows))
            }
            Input::Encoded { encoder, categorical, numerical } => {
                let encoded = encoder.transform(&rows.select(categorical))?.dense()?.into_owned();
                let numbers = rows.select(numerical).dense()?.into_owned();
                Ok(Cow::Owned(Matrix::beside(&[encoded, numbers])))
            }
        }
    }
}

/// What comes of C's cast to an unsigned byte, which forgets multiples of 256; negative categories are missing.
fn category(value: f64) -> f64 {
    if value < 0.0 { f64::NAN } else { value.trunc() % 256.0 }
}

impl Histogram {
    fn raw(&self, rows: &Data) -> Result<Matrix> {
        let rows = self.input.apply(rows)?;
        if rows.columns != self.forest.features() {
            return Err(Error::internal("the encoder gave other columns than it was given"));
        }
        let values = self.forest.sums(&rows.values, &self.baseline)?;
        Ok(Matrix::new(rows.rows, self.baseline.len(), values))
    }
}

impl Estimator for Histogram {
    fn visit_forests(&mut self, visit: &mut dyn FnMut(&mut Forest) -> Result<()>) -> Result<()> {
        visit(&mut self.forest)
    }

    fn can(&self, method: Method) -> bool {
        match method {
            Method::Predict | Method::Contributions => true,
            Method::PredictProba | Method::DecisionFunction => self.classes.is_some(),
            Method::Transform => false,
        }
    }

    fn explained_outputs(&self) -> usize {
        self.forest.outputs()
    }

    /// Of the raw predictions.
    fn contributions(&self, rows: &Data) -> Result<Contributions> {
        let mut parts = self.forest.explain(self.input.apply(rows)?.as_ref(), &self.baseline)?;
        if let Input::Encoded { categorical, numerical, .. } = &self.input {
            // Back from the encoder's order of columns to the request's.
            for part in parts.values.chunks_exact_mut(parts.columns) {
                let encoded = part.to_vec();
                let places = categorical.iter().chain(numerical);
                places.zip(encoded).for_each(|(place, value)| part[*place] = value);
            }
        }
        Ok(parts)
    }

    fn predict(&self, rows: &Data) -> Result<Target> {
        let raw = self.raw(rows)?;
        Ok(match &self.classes {
            Some(classes) => decide(classes, &raw),
            None => Target::floats(raw.values.into_iter().map(self.inverse_link).collect()),
        })
    }

    fn decision_function(&self, rows: &Data) -> Result<Matrix> {
        self.raw(rows)
    }

    fn predict_proba(&self, rows: &Data) -> Result<Vec<Matrix>> {
        let mut raw = self.raw(rows)?;
        if raw.columns == 1 {
            return Ok(vec![two_columns(raw.values.into_iter().map(expit))]);
        }
        softmax(&mut raw);
        Ok(vec![raw])
    }

    fn features(&self) -> Option<usize> {
        Some(self.forest.features())
    }

    fn takes(&self, column: usize) -> Takes {
        match &self.input {
            Input::Encoded { encoder, categorical, .. } => {
                categorical.binary_search(&column).map(|place| encoder.takes(place)).unwrap_or_default()
            }
            _ => Takes::Numbers,
        }
    }
}
