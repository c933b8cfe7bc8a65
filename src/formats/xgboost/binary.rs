//! xgboost's own binary format, `.model` and `.bst` files written before 3.1: the memory of its structures, little
//! endian, lengths as 64 bits in front of strings and vectors.

use std::collections::BTreeMap;

use super::Model;
use super::model::{Raw, RawBooster};
use super::objective::Objective;
use super::tree::Arrays;
use crate::error::{Error, Result};

struct Binary<'a> {
    rest: &'a [u8],
}

impl<'a> Binary<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| {
            Error::load(format!(
                "{length} bytes should follow, but only {} do: was the file cut short?",
                self.rest.len()
            ))
        })?;
        self.rest = rest;
        Ok(taken)
    }

    /// 32-bit words, at most what the file has.
    fn words(&mut self, count: usize) -> Result<Vec<[u8; 4]>> {
        self.take(count.saturating_mul(4)).map(|bytes| bytes.as_chunks().0.to_vec())
    }

    fn header<const WORDS: usize>(&mut self) -> Result<[i32; WORDS]> {
        let words = self.words(WORDS)?;
        Ok(std::array::from_fn(|index| i32::from_le_bytes(words[index])))
    }

    fn length(&mut self) -> Result<usize> {
        let words = self.words(2)?;
        let length = u64::from(u32::from_le_bytes(words[0])) | u64::from(u32::from_le_bytes(words[1])) << 32;
        let fits = usize::try_from(length).ok().filter(|length| *length <= self.rest.len());
        fits.ok_or_else(|| Error::load(format!("a length of {length}, but only {} bytes follow", self.rest.len())))
    }

    fn text(&mut self) -> Result<String> {
        let length = self.length()?;
        let bytes = self.take(length)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| Error::load("a text is not UTF-8"))
    }

    fn floats(&mut self) -> Result<Vec<f32>> {
        let count = self.length()?;
        Ok(self.words(count)?.into_iter().map(f32::from_le_bytes).collect())
    }
}

/// Reads what follows the magic `binf`, or a file of versions that wrote none.
pub(super) fn read(bytes: &[u8]) -> Result<Model> {
    let unlike = |error: Error| error.context("not a model of xgboost, or a broken one of its binary format");
    let mut input = Binary { rest: bytes };
    // base_score, num_feature, num_class, contain_extra_attrs, contain_eval_metrics, version, num_target, reserved.
    let [base_score, features, classes, has_attributes, _, major, minor, targets, ..] =
        input.header::<34>().map_err(unlike)?;
    let objective_name = input.text().map_err(unlike)?;
    let objective = Objective::named(&objective_name).map_err(unlike)?;
    let name = input.text().map_err(unlike)?;
    let mut booster = RawBooster::default();
    match name.as_str() {
        "gbtree" | "dart" => read_trees(&mut input, &mut booster)?,
        "gblinear" => {
            input.header::<34>()?;
            booster.linear_weights = Some(input.floats()?);
        }
        _ => {}
    }
    if name == "dart" {
        booster.tree_weights = Some(if booster.trees.is_empty() { Vec::new() } else { input.floats()? });
    }
    booster.name = Some(name);
    let mut attributes = BTreeMap::new();
    if has_attributes != 0 {
        for _ in 0..input.length()? {
            let key = input.text()?;
            attributes.insert(key, input.text()?);
        }
    }
    // xgboost's own entries, which its readers remove too.
    attributes.retain(|key, _| !matches!(key.as_str(), "objective" | "metrics") && !key.starts_with("SAVED_PARAM_"));
    let mut base_score = f32::from_bits(base_score.cast_unsigned());
    if major < 1 && !objective_name.starts_with("multi:") {
        // Before 1.0 it was the margin that was saved.
        let mut row = [base_score];
        objective.transform.apply(&mut row);
        [base_score] = row;
    }
    let parameters = [
        ("num_feature", features.to_string()),
        ("num_class", classes.to_string()),
        ("num_target", targets.max(1).to_string()),
        ("base_score", base_score.to_string()),
    ];
    let raw = Raw {
        version: [i64::from(major), i64::from(minor), 0],
        learner: true,
        parameters: parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        objective: Some(objective_name),
        attributes: Some(attributes),
        booster,
        ..Raw::default()
    };
    raw.finish()
}

fn read_trees(input: &mut Binary<'_>, booster: &mut RawBooster) -> Result<()> {
    let [trees, parallel, ..] = input.header::<40>()?;
    for index in 0..trees {
        let arrays = read_tree(input).map_err(|error| error.context(format_args!("tree {index}")))?;
        booster.push(&arrays).map_err(|error| error.context(format_args!("tree {index}")))?;
    }
    let groups = input.words(booster.trees.len())?;
    booster.groups = Some(groups.into_iter().map(|group| i64::from(i32::from_le_bytes(group))).collect());
    // Old versions had the number of roots here, which was 1 as well.
    let parameters = [("num_trees", trees), ("num_parallel_tree", parallel.max(1))];
    booster.parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_string())).into();
    Ok(())
}

/// Nodes of five words (parent, left, right, feature with the default direction, threshold or leaf value), then for
/// each node four (gain, hessian, weight, leaves below).
fn read_tree(input: &mut Binary<'_>) -> Result<Arrays> {
    let [_, count, ..] = input.header::<37>()?;
    let count = usize::try_from(count).map_err(|_| Error::load(format!("a tree of {count} nodes")))?;
    let nodes = input.words(count.saturating_mul(5))?;
    let stats = input.words(count.saturating_mul(4))?;
    let mut arrays = Arrays { width: 1, ..Arrays::default() };
    for node in nodes.as_chunks::<5>().0 {
        let [_, left, right, packed, condition] = *node;
        let packed = u32::from_le_bytes(packed);
        arrays.left.push(i64::from(i32::from_le_bytes(left)));
        arrays.right.push(i64::from(i32::from_le_bytes(right)));
        arrays.feature.push(i64::from(packed & (u32::MAX >> 1)));
        arrays.default_left.push(i64::from(packed >> 31));
        arrays.condition.push(f32::from_le_bytes(condition));
    }
    let stat =
        |place: usize| stats.as_chunks::<4>().0.iter().map(move |stat| f32::from_le_bytes(stat[place])).collect();
    (arrays.gain, arrays.hessian) = (stat(0), stat(1));
    Ok(arrays)
}
