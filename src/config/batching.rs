//! What was said of batches: flags with the names of Triton's `model_config.proto` where it has them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Values, bytes, count, microseconds, milliseconds};
use crate::engine::joining::Said;
use crate::engine::policy::{Levels, MaxQueue, Policy, QueuePolicy, TimeoutAction};
use crate::engine::ragged::{BatchInput, BatchInputKind, RaggedBatching, Scattered};
use crate::engine::resources::Needs;
use crate::error::Result;

/// How one model's requests become batches.
#[derive(Clone, Debug)]
pub struct Batching {
    pub policy: Policy,
    pub levels: Levels,
    /// How long an answer is worth something to callers who do not say.
    pub slo: Option<Duration>,
    pub joining: Said,
    pub limits: Option<RateLimits>,
}

/// What instances share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// How much there is of each resource.
    pub total: BTreeMap<String, usize>,
    pub needs: Needs,
}

pub(super) fn instances(text: &str) -> Result<usize, String> {
    count(text).ok().filter(|count| *count <= 64).ok_or_else(|| "is no whole number from 1 to 64".to_owned())
}

/// For a model of so many instances.
pub(super) fn batching(values: &mut Values, instances: usize) -> Batching {
    let max_rows = values.or("max_batch_size", 1, count);
    let preferred = |text: &str| text.split(',').map(|size| count(size.trim())).collect::<Result<Vec<_>, _>>();
    let mut preferred_rows = values.optional("preferred_batch_size", preferred).unwrap_or_default();
    preferred_rows.sort_unstable();
    if preferred_rows.last().is_some_and(|largest| *largest > max_rows) {
        values.problem("preferred_batch_size", "is more than --max_batch_size");
    }
    let max_queue = MaxQueue {
        jobs: values.or("max_queue_size", 1, count),
        rows: values.or("max_queue_rows", 1, count),
        bytes: values.or("max_queue_bytes", 1, bytes),
    };
    let levels = levels(values);
    let policy = Policy {
        preferred_rows,
        max_tokens: values.optional("max_batch_tokens", count).unwrap_or(usize::MAX),
        max_delay: values.or("max_queue_delay_microseconds", Duration::ZERO, microseconds),
        max_queue,
        max_jobs_of_level: levels.max_jobs(),
        workers: vec![0; instances],
        ..Policy::new(max_rows, max_queue.jobs)
    };
    Batching {
        policy,
        levels,
        slo: values.optional("slo_milliseconds", milliseconds),
        joining: joining(values),
        limits: limits(values),
    }
}

fn joining(values: &mut Values) -> Said {
    let names = |text: &str| Ok(text.split(',').map(|name| name.trim().to_owned()).collect());
    let padding = values.optional("pad_variable_length_inputs", paddings).unwrap_or_default();
    let ragged = RaggedBatching {
        inputs: values.optional("allow_ragged_batch", names).unwrap_or_default(),
        batch_inputs: values.optional("batch_input", batch_inputs).unwrap_or_default(),
        scattered: values.optional("batch_output", batch_outputs).unwrap_or_default(),
    };
    if ragged.inputs.is_empty() && ["batch_input", "batch_output"].iter().any(|flag| !values.text(flag).is_empty()) {
        values.problem("allow_ragged_batch", "is needed with --batch_input and --batch_output");
    }
    if !ragged.inputs.is_empty() && !padding.is_empty() {
        values.problem("allow_ragged_batch", "and --pad_variable_length_inputs are both given: which one is it?");
    }
    Said { padding, ragged }
}

/// Triton's `BatchInput`; its `data_type` is the model's own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchInputJson {
    kind: BatchInputKind,
    target_name: Vec<String>,
    #[serde(rename = "data_type")]
    _data_type: Option<String>,
    source_input: Vec<String>,
}

fn batch_inputs(text: &str) -> Result<Vec<BatchInput>, String> {
    let inputs = json::<Vec<BatchInputJson>>(text)?.into_iter().map(|json| {
        let source = only(json.source_input, "source_input")?;
        let kind = json.kind;
        Ok(json.target_name.into_iter().map(move |target| BatchInput { kind, target, source: source.clone() }))
    });
    inputs.collect::<Result<Vec<_>, String>>().map(|inputs| inputs.into_iter().flatten().collect())
}

/// Triton's `BatchOutput`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchOutputJson {
    #[serde(rename = "kind")]
    _kind: BatchOutputKindJson,
    target_name: Vec<String>,
    source_input: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum BatchOutputKindJson {
    BatchScatterWithInputShape,
}

fn batch_outputs(text: &str) -> Result<Vec<Scattered>, String> {
    let outputs = json::<Vec<BatchOutputJson>>(text)?.into_iter().map(|json| {
        let source = only(json.source_input, "source_input")?;
        Ok(json.target_name.into_iter().map(move |target| Scattered { target, source: source.clone() }))
    });
    outputs.collect::<Result<Vec<_>, String>>().map(|outputs| outputs.into_iter().flatten().collect())
}

fn only(names: Vec<String>, field: &str) -> Result<String, String> {
    match <[String; 1]>::try_from(names) {
        Ok([name]) => Ok(name),
        Err(names) => Err(format!("has a {field} of {} names instead of one", names.len())),
    }
}

/// Triton's `ModelQueuePolicy`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueuePolicyJson {
    timeout_action: Option<TimeoutActionJson>,
    #[serde(default)]
    default_timeout_microseconds: u64,
    allow_timeout_override: Option<bool>,
    #[serde(default)]
    max_queue_size: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum TimeoutActionJson {
    Reject,
    Delay,
}

impl From<QueuePolicyJson> for QueuePolicy {
    fn from(json: QueuePolicyJson) -> QueuePolicy {
        let timeout = json.default_timeout_microseconds;
        QueuePolicy {
            max_jobs: (json.max_queue_size > 0).then_some(json.max_queue_size),
            timeout: (timeout > 0).then(|| Duration::from_micros(timeout)),
            timeout_action: match json.timeout_action {
                Some(TimeoutActionJson::Delay) => TimeoutAction::Delay,
                Some(TimeoutActionJson::Reject) | None => TimeoutAction::Reject,
            },
            allow_timeout_override: json.allow_timeout_override.unwrap_or(true),
        }
    }
}

fn levels(values: &mut Values) -> Levels {
    const MOST: usize = 1000;
    let whole = |text: &str| text.parse::<usize>().map_err(|_| "is no whole number".to_owned());
    let count = values.or("priority_levels", 0, whole);
    if count > MOST {
        values.problem("priority_levels", &format!("is more than {MOST}"));
        return Levels::default();
    }
    let others = values.optional("default_queue_policy", json::<QueuePolicyJson>).map(QueuePolicy::from);
    let mut policies = vec![others.unwrap_or_default(); count.max(1)];
    let of_levels = values.optional("priority_queue_policy", json::<BTreeMap<usize, QueuePolicyJson>>);
    for (level, policy) in of_levels.unwrap_or_default() {
        match level.checked_sub(1).and_then(|level| policies.get_mut(level)).filter(|_| count > 0) {
            Some(of_level) => *of_level = policy.into(),
            None => {
                let text = format!("names level {level}, --priority_levels is {count}");
                values.problem("priority_queue_policy", &text);
            }
        }
    }
    // Neither before nor behind most others.
    let middle = count.max(1).div_ceil(2);
    let default = values.optional("default_priority_level", whole).unwrap_or(middle);
    Levels::new(policies, default).unwrap_or_else(|| {
        values.problem("default_priority_level", &format!("is none of the {count} levels of --priority_levels"));
        Levels::default()
    })
}

/// Triton's `ModelRateLimiter`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateLimiterJson {
    resources: Vec<ResourceJson>,
    #[serde(default)]
    priority: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceJson {
    name: String,
    count: usize,
}

fn limits(values: &mut Values) -> Option<RateLimits> {
    let total = values.optional("rate_limit_resource", resources);
    let RateLimiterJson { resources, priority } = values.optional("rate_limiter", json)?;
    let resources: BTreeMap<String, usize> =
        resources.into_iter().map(|ResourceJson { name, count }| (name, count)).collect();
    // Of what nobody has counted there is as much as one instance needs.
    let mut all = resources.clone();
    all.extend(total.unwrap_or_default());
    for (name, _) in resources.iter().filter(|(name, count)| all[*name] < **count) {
        values.problem("rate_limiter", &format!("needs more of \"{name}\" than --rate_limit_resource has"));
    }
    Some(RateLimits { total: all, needs: Needs { resources, priority: priority.max(1) } })
}

/// `name:count,name:count`.
fn resources(text: &str) -> Result<BTreeMap<String, usize>, String> {
    let wrong = || "is no list of name:count".to_owned();
    let resource = |part: &str| {
        let (name, number) = part.trim().rsplit_once(':').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
        Ok((name.to_owned(), number.parse().map_err(|_| wrong())?))
    };
    text.split(',').map(resource).collect()
}

/// `name=value,name=value`.
fn paddings(text: &str) -> Result<Vec<(String, f64)>, String> {
    let wrong = || "is no list of input=value, e.g. input_ids=0,attention_mask=0".to_owned();
    let padding = |part: &str| {
        let (name, value) = part.trim().rsplit_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
        Ok((name.to_owned(), value.parse().map_err(|_| wrong())?))
    };
    text.split(',').map(padding).collect()
}

fn json<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("is not what is expected: {error}"))
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    use super::*;

    fn parse(args: &[&str]) -> Result<Batching> {
        let args: Vec<String> = [&["--model_dir=/m"], args].concat().iter().map(|arg| (*arg).to_owned()).collect();
        Config::parse(&args, &|_| None).map(|config| config.model.batching)
    }

    #[test]
    fn tritons_names_mean_what_they_mean_there() {
        let batching = parse(&[
            "--priority_levels=3",
            "--default_queue_policy={\"max_queue_size\": 8}",
            "--priority_queue_policy={\"3\": {\"timeout_action\": \"DELAY\", \"default_timeout_microseconds\": 1500, \
             \"allow_timeout_override\": false}}",
            "--rate_limiter={\"resources\": [{\"name\": \"R\", \"count\": 2}], \"priority\": 2}",
            "--rate_limit_resource=R:4,S:1",
        ]);
        let batching = batching.unwrap();
        assert_eq!(batching.policy.max_jobs_of_level, [8, 8, usize::MAX]);
        let (level, last) = batching.levels.of(Some(3)).unwrap();
        assert_eq!((level, last.timeout), (2, Some(Duration::from_micros(1500))));
        assert_eq!((last.timeout_action, last.allow_timeout_override), (TimeoutAction::Delay, false));
        assert_eq!(batching.levels.of(None).unwrap().0, 1);
        let RateLimits { total, needs } = batching.limits.unwrap();
        assert_eq!((total["R"], total["S"], needs.resources["R"], needs.priority), (4, 1, 2, 2));
    }

    #[test]
    fn mistakes_are_named() {
        for (arg, message) in [
            ("--default_priority_level=1000", "--default_priority_level is none of the 0 levels"),
            ("--priority_queue_policy={\"1\": {}}", "names level 1, --priority_levels is 0"),
            ("--default_queue_policy={\"max_queue_length\": 1}", "unknown field `max_queue_length`"),
            ("--pad_variable_length_inputs=ids", "is no list of input=value"),
            ("--rate_limit_resource=R", "is no list of name:count"),
            ("--batch_input=[]", "--allow_ragged_batch"),
            (
                "--batch_input=[{\"kind\": \"BATCH_ITEM_SHAPE\", \"target_name\": [\"a\"], \"source_input\": []}]",
                "has a source_input of 0 names",
            ),
            ("--instances=65", "\"65\" is no whole number from 1 to 64"),
        ] {
            let error = parse(&[arg]).unwrap_err();
            assert!(error.message().contains(message), "{arg}: {error}");
        }
        let args = ["--rate_limiter={\"resources\": [{\"name\": \"R\", \"count\": 2}]}", "--rate_limit_resource=R:1"];
        assert!(parse(&args).unwrap_err().message().contains("needs more of \"R\""));
    }
}
