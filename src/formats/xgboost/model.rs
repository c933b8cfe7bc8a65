//! A model's document: fields in any order, since xgboost sorts them by name, gathered first and then understood.

use std::collections::BTreeMap;

use super::document::Input;
use super::objective::Objective;
use super::tree::{self, Arrays, MAX_CATEGORY_WORDS};
use super::{Booster, Categories, Forest, Grown, Linear, Model, Target};
use crate::error::{Error, Result};
use crate::tensor::Excerpt;

/// What files of all formats have in common.
#[derive(Debug, Default)]
pub(super) struct Raw {
    pub version: [i64; 3],
    pub learner: bool,
    /// `learner_model_param`.
    pub parameters: BTreeMap<String, String>,
    pub objective: Option<String>,
    /// Of a pickled booster's configuration.
    pub parallel_trees: Option<String>,
    pub attributes: Option<BTreeMap<String, String>>,
    pub feature_names: Vec<String>,
    pub feature_types: Vec<String>,
    pub booster: RawBooster,
}

#[derive(Debug, Default)]
pub(super) struct RawBooster {
    pub name: Option<String>,
    /// Trees with the number each says it has.
    pub trees: Vec<(Option<i64>, Grown)>,
    /// Words of category sets that the model has used so far.
    pub category_words: usize,
    /// `gbtree_model_param`.
    pub parameters: BTreeMap<String, String>,
    /// Which output each tree is for.
    pub groups: Option<Vec<i64>>,
    pub iterations: Option<Vec<i64>>,
    pub tree_weights: Option<Vec<f32>>,
    pub linear_weights: Option<Vec<f32>>,
    pub categories: Vec<Option<Categories>>,
}

/// A field that all versions write. What it says cannot be guessed when its name is damaged.
pub(super) fn required<T>(name: &str, field: Option<T>) -> Result<T> {
    field.ok_or_else(|| Error::load(format!("there is no {name}: is the file damaged?")))
}

/// A parameter that counts something.
pub(super) fn count(name: &str, text: &str) -> Result<usize> {
    text.trim().parse().map_err(|_| Error::load(format!("{name} should be a count, got \"{}\"", Excerpt(text))))
}

/// Reads a document, which is a model or, from a pickled booster, `{"Config": .., "Model": ..}`.
pub(super) fn parse<I: Input>(input: &mut I) -> Result<Raw> {
    let mut raw = Raw::default();
    input.fields(|name, input| match name {
        "Model" => input.fields(|name, input| raw.field(name, input)),
        "Config" => parameter_at(&TRAINED_IN_PARALLEL, input, &mut raw.parallel_trees),
        _ => raw.field(name, input),
    })?;
    if raw.learner { Ok(raw) } else { Err(Error::load("there is no \"learner\": this is no xgboost model")) }
}

/// Where a pickled booster's configuration says what files of before 1.6 do not.
const TRAINED_IN_PARALLEL: [&str; 4] = ["learner", "gradient_booster", "gbtree_train_param", "num_parallel_tree"];

/// Reads the parameter at the end of a path of fields, if it is there.
fn parameter_at<I: Input>(path: &[&str], input: &mut I, found: &mut Option<String>) -> Result<()> {
    let Some((first, rest)) = path.split_first() else { return input.text().map(|text| *found = Some(text)) };
    input.fields(|name, input| if name == *first { parameter_at(rest, input, found) } else { input.skip() })
}

impl Raw {
    fn field<I: Input>(&mut self, name: &str, input: &mut I) -> Result<()> {
        match name {
            "version" => {
                let version = input.numbers::<i64>()?;
                self.version = std::array::from_fn(|part| version.get(part).copied().unwrap_or(0));
                Ok(())
            }
            "learner" => {
                self.learner = true;
                input.fields(|name, input| self.learner_field(name, input))
            }
            _ => input.skip(),
        }
    }

    fn learner_field<I: Input>(&mut self, name: &str, input: &mut I) -> Result<()> {
        match name {
            "learner_model_param" => input.parameters().map(|parameters| self.parameters = parameters),
            "attributes" => input.parameters().map(|attributes| self.attributes = Some(attributes)),
            "feature_names" => input.texts().map(|names| self.feature_names = names),
            "feature_types" => input.texts().map(|types| self.feature_types = types),
            "objective" => input.fields(|name, input| match name {
                "name" => input.text().map(|name| self.objective = Some(name)),
                _ => input.skip(),
            }),
            "gradient_booster" => input.fields(|name, input| self.booster.field(name, input)),
            _ => input.skip(),
        }
    }

    /// # Errors
    /// When something is missing or does not fit the rest.
    pub fn finish(mut self) -> Result<Model> {
        let parameter = |name: &str| required(name, self.parameters.get(name));
        let classes = count("num_class", parameter("num_class")?)?;
        // Old versions have one.
        let targets = self.parameters.get("num_target").map_or(Ok(1), |text| count("num_target", text))?;
        if targets == 0 {
            return Err(Error::load("num_target is 0"));
        }
        if classes > 1 && targets > 1 {
            return Err(Error::load(format!("the model has both {classes} classes and {targets} targets")));
        }
        let outputs = classes.max(targets);
        let features = count("num_feature", parameter("num_feature")?)?;
        crate::formats::trees::check_features(features)?;
        let base_scores = base_scores(parameter("base_score")?, outputs)?;
        let named = self.objective.ok_or_else(|| Error::load("the model names no objective"))?;
        let objective = Objective::named(&named)?;
        for (what, names) in [("feature_names", &self.feature_names), ("feature_types", &self.feature_types)] {
            if !names.is_empty() && names.len() != features {
                return Err(Error::load(format!("{what} has {} entries for {features} features", names.len())));
            }
        }
        let categories = std::mem::take(&mut self.booster.categories);
        if !categories.is_empty() && categories.len() != features {
            return Err(Error::load(format!("cats has {} entries for {features} features", categories.len())));
        }
        let parallel_trees = match &self.parallel_trees {
            Some(text) => Some(count("num_parallel_tree", text)?),
            None => self.attributes.as_ref().and_then(parallel_trees),
        };
        let booster = self.booster.finish(features, outputs, parallel_trees)?;
        Ok(Model {
            version: self.version,
            features,
            feature_names: self.feature_names,
            feature_types: self.feature_types,
            categories,
            outputs,
            classes,
            objective,
            base_scores,
            booster,
            attributes: required("attributes", self.attributes)?,
        })
    }
}

/// `5E-1`, and since 3.1 `[5E-1,2E0]`. One score is that of all outputs.
fn base_scores(text: &str, outputs: usize) -> Result<Vec<f32>> {
    let wrong = || {
        Error::load(format!("base_score should be a number for each of {outputs} outputs, got \"{}\"", Excerpt(text)))
    };
    let inner = text.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let scores: Vec<f32> =
        inner.split(',').map(|score| score.trim().parse()).collect::<Result<_, _>>().map_err(|_| wrong())?;
    if scores.iter().any(|score| !score.is_finite()) {
        return Err(wrong());
    }
    match scores.as_slice() {
        [score] if outputs > 1 => {
            // Each output has a tree or a weight at least; only a broken file has this many.
            if outputs > 1 << 20 { Err(wrong()) } else { Ok(vec![*score; outputs]) }
        }
        _ if scores.len() == outputs => Ok(scores),
        _ => Err(wrong()),
    }
}

impl RawBooster {
    fn field<I: Input>(&mut self, name: &str, input: &mut I) -> Result<()> {
        match name {
            "name" => input.text().map(|name| self.name = Some(name)),
            "model" => input.fields(|name, input| self.model_field(name, input)),
            // dart is a gbtree with weights. The inner name comes first when fields are sorted.
            "gbtree" => input.fields(|name, input| match name {
                "model" => input.fields(|name, input| self.model_field(name, input)),
                _ => input.skip(),
            }),
            "weight_drop" => input.numbers().map(|weights| self.tree_weights = Some(weights)),
            _ => input.skip(),
        }
    }

    fn model_field<I: Input>(&mut self, name: &str, input: &mut I) -> Result<()> {
        match name {
            "gbtree_model_param" => input.parameters().map(|parameters| self.parameters = parameters),
            "trees" => input.array(|input| {
                let arrays = tree::parse(input)?;
                self.push(&arrays)
            }),
            "tree_info" => input.numbers().map(|groups| self.groups = Some(groups)),
            "iteration_indptr" => input.numbers().map(|iterations| self.iterations = Some(iterations)),
            "cats" => super::categories::parse(input).map(|categories| self.categories = categories),
            "weights" => input.numbers().map(|weights| self.linear_weights = Some(weights)),
            _ => input.skip(),
        }
    }

    /// Adds a tree, whose output is not known yet.
    pub fn push(&mut self, arrays: &Arrays) -> Result<()> {
        let mut words_left = MAX_CATEGORY_WORDS - self.category_words;
        let grown = arrays.build(0, &mut words_left)?;
        self.category_words = MAX_CATEGORY_WORDS - words_left;
        self.trees.push((arrays.id, grown));
        Ok(())
    }

    fn finish(self, features: usize, outputs: usize, parallel_trees: Option<usize>) -> Result<Booster> {
        match self.name.as_deref() {
            Some("gblinear") => self.linear(features, outputs).map(Booster::Linear),
            Some("gbtree" | "dart") => self.forest(features, outputs, parallel_trees).map(Booster::Forest),
            Some(name) => {
                Err(Error::load(format!("the booster \"{}\" is not gbtree, dart or gblinear", Excerpt(name))))
            }
            None => Err(Error::load("the model names no gradient_booster")),
        }
    }

    fn linear(self, features: usize, outputs: usize) -> Result<Linear> {
        let mut weights = self.linear_weights.ok_or_else(|| Error::load("the linear model has no weights"))?;
        let split = features.checked_mul(outputs);
        let expected = split.and_then(|split| split.checked_add(outputs));
        if expected != Some(weights.len()) {
            return Err(Error::load(format!(
                "the linear model has {} weights for {features} features and {outputs} outputs",
                weights.len()
            )));
        }
        let bias = weights.split_off(split.unwrap_or_default());
        Ok(Linear { weights, bias })
    }

    fn forest(mut self, features: usize, outputs: usize, parallel_trees: Option<usize>) -> Result<Forest> {
        // The order of trees decides how sums round. A file need not have them in order.
        if self.trees.iter().all(|(id, _)| id.is_some()) {
            self.trees.sort_by_key(|(id, _)| *id);
            let wrong = (0_i64..).zip(&self.trees).find(|(place, (id, _))| *id != Some(*place));
            if let Some((place, _)) = wrong {
                return Err(Error::load(format!("there is no tree, or more than one, with id {place}")));
            }
        }
        let mut trees: Vec<Grown> = self.trees.into_iter().map(|(_, grown)| grown).collect();
        let parameter = |name: &str| self.parameters.get(name).map(|text| count(name, text)).transpose();
        let count = required("num_trees", parameter("num_trees")?)?;
        if count != trees.len() {
            return Err(Error::load(format!("num_trees is {count}, but there are {}", trees.len())));
        }
        let groups = self.groups.ok_or_else(|| Error::load("the model has no tree_info"))?;
        if groups.len() != trees.len() {
            return Err(Error::load(format!("tree_info has {} entries for {} trees", groups.len(), trees.len())));
        }
        for (index, (grown, group)) in trees.iter_mut().zip(&groups).enumerate() {
            let width = if grown.target == Target::All { outputs } else { 1 };
            let group = usize::try_from(*group).ok().filter(|group| *group < outputs);
            let group = group.ok_or_else(|| Error::load(format!("tree {index} is for an output beyond {outputs}")))?;
            if let Target::Output(output) = &mut grown.target {
                *output = group;
            }
            // A vector leaf has a value for each output, no more and no less.
            if grown.tree.leaves.len() != grown.leaf_ids.len() * width {
                return Err(Error::load(format!("tree {index}: its leaves do not have {width} values each")));
            }
            grown.tree.check(features, width).map_err(|error| error.context(format_args!("tree {index}")))?;
        }
        if let Some(weights) = self.tree_weights.as_ref().filter(|weights| weights.len() != trees.len()) {
            return Err(Error::load(format!("weight_drop has {} entries for {} trees", weights.len(), trees.len())));
        }
        let dart = self.name.as_deref() == Some("dart");
        if dart && self.tree_weights.is_none() {
            return Err(Error::load("the dart model has no weight_drop"));
        }
        let parallel_trees = parameter("num_parallel_tree")?.or(parallel_trees).unwrap_or(1);
        if parallel_trees == 0 {
            return Err(Error::load("num_parallel_tree is 0"));
        }
        let groups = groups.iter().max().map_or(1, |last| usize::try_from(*last).unwrap_or(0) + 1);
        let iterations = match self.iterations {
            Some(iterations) => checked_iterations(&iterations, trees.len())?,
            None => {
                let step = parallel_trees.saturating_mul(groups);
                (0..=trees.len()).step_by(step).collect()
            }
        };
        Ok(Forest { trees, weights: self.tree_weights.filter(|_| dart), parallel_trees, iterations })
    }
}

/// `num_parallel_tree`, as the attributes of the scikit-learn classes of before 1.6 tell it, whose files do not: the trees
/// up to the best iteration, for each output.
fn parallel_trees(attributes: &BTreeMap<String, String>) -> Option<usize> {
    let number = |name: &str| attributes.get(name)?.parse::<usize>().ok();
    let (trees, iterations) = (number("best_ntree_limit")?, number("best_iteration")?.checked_add(1)?);
    (trees > 0 && trees.is_multiple_of(iterations)).then_some(trees / iterations)
}

fn checked_iterations(iterations: &[i64], trees: usize) -> Result<Vec<usize>> {
    let checked: Option<Vec<usize>> = iterations.iter().map(|begin| usize::try_from(*begin).ok()).collect();
    checked
        .filter(|checked| checked.is_sorted() && checked.first() == Some(&0) && checked.last() == Some(&trees))
        .ok_or_else(|| Error::load(format!("iteration_indptr does not go from 0 to the number of trees, {trees}")))
}
