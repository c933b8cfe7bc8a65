//! The lines of a lightgbm model: `key=value`, first the model's, then each tree's, then what is for information.

use std::collections::{BTreeMap, HashMap};
use std::str::Utf8Error;

use super::objective::Objective;
use super::{Model, tree};
use crate::content::Content;
use crate::error::{Error, Result};
use crate::tensor::Excerpt;

/// The keys and values of one block of lines.
pub(super) struct Fields<'a>(HashMap<&'a str, &'a str>);

impl<'a> Fields<'a> {
    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.0.get(key).copied()
    }

    pub fn required(&self, key: &str) -> Result<&'a str> {
        self.get(key).ok_or_else(|| Error::load(format!("there is no {key}: was the file cut short?")))
    }

    pub fn number<N: std::str::FromStr>(&self, key: &str) -> Result<N> {
        let text = self.required(key)?;
        text.trim().parse().map_err(|_| Error::load(format!("{key} should be a number, got \"{}\"", Excerpt(text))))
    }

    /// `count` numbers with spaces between.
    pub fn numbers<N: std::str::FromStr>(&self, key: &str, count: usize) -> Result<Vec<N>> {
        let numbers = self.required(key)?.split_ascii_whitespace().map(|word| {
            word.parse().map_err(|_| Error::load(format!("{key} should be numbers, got \"{}\"", Excerpt(word))))
        });
        let numbers: Vec<N> = numbers.collect::<Result<_>>()?;
        if numbers.len() != count {
            return Err(Error::load(format!("{key} has {} numbers where {count} are expected", numbers.len())));
        }
        Ok(numbers)
    }
}

/// The lines of a file, as they come.
struct Lines<'a> {
    content: &'a Content,
    at: usize,
}

impl<'a> Lines<'a> {
    /// The next line, without its end. Files that passed through Windows have CRs too.
    fn line(&mut self) -> Result<Option<&'a str>> {
        let (begun, mut seen) = (self.at, self.at);
        let line = loop {
            let come = self.content.upto(seen + 1);
            match memchr::memchr(b'\n', &come[seen..]) {
                Some(length) => {
                    self.at = seen + length + 1;
                    break &come[begun..seen + length];
                }
                None if seen == come.len() => {
                    self.at = seen;
                    break &come[begun..];
                }
                None => seen = come.len(),
            }
        };
        if self.at == begun {
            return Ok(None);
        }
        let line = text(line, begun)?;
        Ok(Some(line.strip_suffix('\r').unwrap_or(line)))
    }

    fn begins_with(&self, start: &str) -> bool {
        let end = self.at + start.len();
        self.content.upto(end).get(self.at..end) == Some(start.as_bytes())
    }

    /// Fields up to a line that begins with one of `stops`, which stays, or to the end.
    fn block(&mut self, stops: &[&str]) -> Result<Fields<'a>> {
        let mut fields = HashMap::new();
        while !stops.iter().any(|stop| self.begins_with(stop)) {
            let Some(line) = self.line()? else { break };
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            if !key.is_empty() {
                fields.insert(key, value);
            }
        }
        Ok(Fields(fields))
    }

    /// All that follows.
    fn rest(&self) -> Result<&'a str> {
        text(&self.content.all()[self.at..], self.at)
    }
}

fn text(bytes: &[u8], at: usize) -> Result<&str> {
    let wrong = |error: Utf8Error| {
        Error::load(format!("the model is not text: byte {} is not UTF-8", at + error.valid_up_to()))
    };
    str::from_utf8(bytes).map_err(wrong)
}

const STOPS: &[&str] =
    &["Tree=", "end of trees", "feature_importances:", "feature importances:", "parameters:", "pandas_categorical:"];

pub(super) fn read(content: &Content) -> Result<Model> {
    let mut lines = Lines { content, at: 0 };
    let kind = lines.line()?.unwrap_or_default();
    if kind != "tree" {
        return Err(Error::load(format!("a lightgbm model begins with \"tree\", this with \"{}\"", Excerpt(kind))));
    }
    let header = lines.block(STOPS)?;
    let mut model = read_header(&header)?;
    let sizes: Option<Vec<&str>> = header.get("tree_sizes").map(|sizes| sizes.split_ascii_whitespace().collect());
    let mut index = 0_usize;
    while lines.begins_with("Tree=") {
        let begun = lines.at;
        lines.line()?;
        let fields = lines.block(STOPS)?;
        let named = |error: Error| error.context(format_args!("tree {index}"));
        let tree = tree::build(&fields).map_err(named)?;
        tree.check(model.features, 1).map_err(named)?;
        if let Some(size) = sizes.as_ref().and_then(|sizes| sizes.get(index)) {
            check_size(&lines, begun, size).map_err(named)?;
        }
        model.trees.push(tree);
        model.shrinkage.push(fields.get("shrinkage").map_or(Ok(1.0), |_| fields.number("shrinkage")).map_err(named)?);
        index += 1;
    }
    check_complete(&model, sizes.map(|sizes| sizes.len()), &lines)?;
    let rest = lines.rest()?;
    model.parameters = parameters(rest);
    model.pandas_categorical = pandas_categorical(rest)?;
    Ok(model)
}

fn read_header(header: &Fields<'_>) -> Result<Model> {
    // Files from before there were versions mean other things by decision_type.
    let version = header.required("version")?;
    if !["v2", "v3", "v4"].contains(&version) {
        let version = Excerpt(version);
        return Err(Error::load(format!("the model is of version \"{version}\", stoker reads v2, v3 and v4")));
    }
    let features = header.number::<usize>("max_feature_idx")?.saturating_add(1);
    crate::formats::trees::check_features(features)?;
    let list = |key: &str| -> Result<Vec<String>> {
        let words: Vec<_> =
            header.required(key)?.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        if words.len() == features {
            return Ok(words);
        }
        Err(Error::load(format!("{key} has {} entries for {features} features", words.len())))
    };
    let classes: usize = header.number("num_class")?;
    let trees_per_iteration =
        if header.get("num_tree_per_iteration").is_some() { header.number("num_tree_per_iteration")? } else { classes };
    let objective = header.get("objective").map(Objective::parse).transpose()?.flatten();
    let needed = objective.and_then(Objective::classes).unwrap_or(trees_per_iteration);
    if trees_per_iteration == 0 || needed != trees_per_iteration {
        return Err(Error::load(format!(
            "num_tree_per_iteration is {trees_per_iteration}, but the objective is one of {needed} classes"
        )));
    }
    Ok(Model {
        version: version.to_owned(),
        features,
        feature_names: list("feature_names")?,
        feature_infos: list("feature_infos")?,
        classes,
        trees_per_iteration,
        objective,
        average_output: header.get("average_output").is_some(),
        trees: Vec::new(),
        shrinkage: Vec::new(),
        parameters: BTreeMap::new(),
        pandas_categorical: Vec::new(),
    })
}

/// The sizes are how lightgbm finds the trees, so that one that lost a digit is none.
fn check_size(lines: &Lines<'_>, begun: usize, expected: &str) -> Result<()> {
    let tree = &lines.content.upto(lines.at)[begun..lines.at];
    let of_windows = memchr::memchr_iter(b'\r', tree).count();
    // lightgbm before 2.2 ends the trees with a line more.
    let more = usize::from(lines.begins_with("feature importances:"));
    let size = tree.len() - of_windows - more;
    if expected.parse() == Ok(size) {
        return Ok(());
    }
    Err(Error::load(format!("it has {size} bytes, but {} by tree_sizes: was the file edited?", Excerpt(expected))))
}

/// A file that was cut between two trees is well formed but for its ends.
fn check_complete(model: &Model, expected: Option<usize>, lines: &Lines<'_>) -> Result<()> {
    let count = model.trees.len();
    if let Some(expected) = expected.filter(|expected| *expected != count) {
        return Err(Error::load(format!("there are {count} of {expected} trees: was the file cut short?")));
    }
    if model.version != "v2" && !lines.begins_with("end of trees") {
        return Err(Error::load("there is no \"end of trees\": was the file cut short?"));
    }
    // A model may have no trees, but no more outputs than it has bytes.
    if model.trees_per_iteration > if count > 0 { count } else { lines.content.len() } {
        return Err(Error::load(format!(
            "there are {count} trees, but an iteration has {}",
            model.trees_per_iteration
        )));
    }
    Ok(())
}

/// `[key: value]` lines after `parameters:`.
fn parameters(rest: &str) -> BTreeMap<String, String> {
    let lines = rest.lines().skip_while(|line| line.trim_end() != "parameters:");
    lines
        .take_while(|line| line.trim_end() != "end of parameters")
        .filter_map(|line| line.trim_end().strip_prefix('[')?.strip_suffix(']')?.split_once(": "))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The line that lightgbm's Python package appends.
fn pandas_categorical(rest: &str) -> Result<Vec<Vec<serde_json::Value>>> {
    let line = rest.lines().rev().find_map(|line| line.strip_prefix("pandas_categorical:"));
    let categories: Option<Option<_>> = line
        .map(serde_json::from_str)
        .transpose()
        .map_err(|error| Error::load("pandas_categorical should be lists of categories as JSON").with_source(error))?;
    Ok(categories.flatten().unwrap_or_default())
}
