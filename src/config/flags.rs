//! The table of flags: name, default, why that default, and the text of `--help`, all in one place.

use std::collections::HashMap;

/// One flag of `stoker serve`.
pub struct Flag {
    /// With underscores; `STOKER_` and upper case make its environment twin.
    pub name: &'static str,
    /// What stands for the value in `--help`; empty for a switch.
    pub value: &'static str,
    pub default: &'static str,
    /// Variables that KServe or Knative set, read when neither flag nor twin is given.
    pub also_env: &'static [&'static str],
    pub help: &'static str,
}

const fn flag(name: &'static str, value: &'static str, default: &'static str, help: &'static str) -> Flag {
    Flag { name, value, default, also_env: &[], help }
}

/// All flags, in the order of `--help`.
pub const FLAGS: &[Flag] = &[
    Flag {
        also_env: &["INFERENCE_SERVICE_NAME"],
        ..flag("model_name", "NAME", "model", "Name that requests use. KServe gives the InferenceService's.")
    },
    flag(
        "model_version",
        "VERSION",
        "",
        "Version that is told to clients. Default: the model's version folder, else 1.",
    ),
    flag("model_dir", "DIR", "", "Directory or file to serve in place, e.g. /mnt/models."),
    flag(
        "storage_uri",
        "URI",
        "",
        "Where to pull the model from instead: s3://bucket/prefix, https://host/file, hf://owner/name:revision,\n      \
         models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID/PATH or file:///dir.",
    ),
    flag(
        "storage_uris",
        "JSON",
        "",
        "Several of them, as KServe's storageUris: [{\"uri\": \"s3://...\", \"mountPath\": \"/mnt/models/...\"}, ...].",
    ),
    flag(
        "model_repository",
        "DIR",
        "",
        "Several models instead: each in a directory there, which has its name. Other flags are for each of them.\n\
         It may be --model_dir, which KServe's runtimes give.",
    ),
    flag(
        "model_control_mode",
        "MODE",
        "none",
        "Of a repository. none: all that is there at the start is loaded. explicit: only --load_model, and what\n      \
         /v2/repository/models/NAME/load asks for. Both may be unloaded.",
    ),
    flag("load_model", "NAMES", "", "Models to load at the start nevertheless, e.g. iris,fraud."),
    flag(
        "storage_digest",
        "DIGEST",
        "",
        "What the model's files must sum up to, as stoker pin says; others are refused, and the cache needs no network.",
    ),
    flag(
        "storage_poll_seconds",
        "S",
        "0",
        "How often to look whether the source has changed, and then to take that over. 0: only when asked, by SIGHUP or\n      \
         /v2/repository/models/NAME/load; pods are rather replaced.",
    ),
    flag(
        "cache_dir",
        "DIR",
        "/tmp/stoker-cache",
        "Where pulled models are kept: an emptyDir where the root is read-only. none: they come straight into memory.",
    ),
    flag(
        "cache_max_bytes",
        "BYTES",
        "",
        "Models that nobody uses leave the cache beyond this, e.g. 200Gi. No limit by default.",
    ),
    flag("host", "IP", "0.0.0.0", "Address to listen on. All of them, as the kubelet and the mesh come from outside."),
    Flag {
        also_env: &["PORT"],
        ..flag("http_port", "PORT", "8080", "REST, gRPC and metrics on one port; 8080 is what KServe expects.")
    },
    flag("grpc_port", "PORT", "", "A second port with the same service, for routes that want one. Off by default."),
    flag(
        "listen_when_ready",
        "",
        "false",
        "Open the ports only when the model is ready, for pods whose only probe is a TCP connect.",
    ),
    Flag {
        also_env: &["PREDICT_PROBA"],
        ..flag("predict_proba", "", "false", "Answer with a classifier's probabilities instead of its labels.")
    },
    flag("max_batch_size", "ROWS", "32", "Most rows in one batch, KServe's own default. Larger requests are cut."),
    flag(
        "max_queue_delay_microseconds",
        "US",
        "0",
        "How long a request may wait for company while the model is free. 0: never, batches form under load.",
    ),
    flag(
        "preferred_batch_size",
        "ROWS,ROWS",
        "",
        "Sizes that batches should have, for engines built for some. Default: what gets most done, which is learned.",
    ),
    flag(
        "max_batch_tokens",
        "N",
        "",
        "Most tokens in one batch, of models whose rows have any length: its rows times the longest one. No limit by default.",
    ),
    flag(
        "pad_variable_length_inputs",
        "INPUT=VALUE,...",
        "",
        "Inputs whose rows may be filled up with a value so that others of another length can run with them, e.g.\n      \
         input_ids=0,attention_mask=0. Tried at warm-up: a model that answers otherwise then is not served.",
    ),
    flag(
        "allow_ragged_batch",
        "INPUT,...",
        "",
        "Inputs that the model takes as one row behind the other, of any length each.",
    ),
    flag(
        "batch_input",
        "JSON",
        "",
        "Inputs that tell such a model where rows end, as Triton's: [{\"kind\": \"BATCH_ACCUMULATED_ELEMENT_COUNT\",\n      \
         \"target_name\": [\"INDEX\"], \"source_input\": [\"INPUT\"]}, ...].",
    ),
    flag(
        "batch_output",
        "JSON",
        "",
        "Outputs whose rows are as long as those of an input, as Triton's: [{\"kind\": \"BATCH_SCATTER_WITH_INPUT_SHAPE\",\n      \
         \"target_name\": [\"OUTPUT\"], \"source_input\": [\"INPUT\"]}, ...].",
    ),
    flag(
        "priority_levels",
        "N",
        "0",
        "Levels of V2's parameter priority, of which 1 comes first. 0: it does not count.",
    ),
    flag("default_priority_level", "N", "", "Of requests without a priority. Default: the one in the middle."),
    flag(
        "default_queue_policy",
        "JSON",
        "",
        "How requests may wait, as Triton's: {\"max_queue_size\": 8, \"default_timeout_microseconds\": 50000,\n      \
         \"timeout_action\": \"REJECT\" or \"DELAY\", \"allow_timeout_override\": true}.",
    ),
    flag("priority_queue_policy", "JSON", "", "The same by level: {\"1\": {...}, ...}."),
    flag(
        "device",
        "DEVICE",
        "auto",
        "Where the model runs. auto: ONNX models on a GPU or MIG device if there is one (never quietly on the CPU instead),\n      \
         others on the CPU. cpu; gpu, where forests and boosters run, too; all: a copy on each GPU and MIG device;\n      \
         or names of stoker devices: gpu0,gpu1/3/0.",
    ),
    flag(
        "gpu_mem_limit",
        "SIZE",
        "",
        "Most memory of a GPU for the weights and batches of each copy of an ONNX model, as ONNX Runtime's option (CUDA itself\n      \
         takes some more). So much is held for it there. Default: no limit; what its weights take, and when warm what it took.",
    ),
    flag(
        "gpu_execution_accelerator",
        "NAME",
        "",
        "tensorrt: has ONNX models computed by TensorRT where it can, whose libraries must be there, and else by CUDA. Its engines\n      \
         are built at warm-up, which takes minutes, and anew for lengths that were not seen there.",
    ),
    flag(
        "precision_mode",
        "FP32|FP16",
        "FP32",
        "FP16: TensorRT may compute with half of the precision, which is faster.",
    ),
    flag("instances", "N", "1", "Copies of the model on each device that run at the same time, sharing the threads."),
    flag(
        "worker",
        "KIND",
        "auto",
        "Where instances compute. thread: in the server. process: each in a process of its own, which is begun anew when\n      \
         it crashes, hangs or is killed, and takes nothing else along. auto: threads, but processes on several devices.",
    ),
    flag(
        "worker_timeout_seconds",
        "S",
        "60",
        "A process that takes longer for one batch hangs. No request is allowed more by default.",
    ),
    flag(
        "rate_limiter",
        "JSON",
        "",
        "What each instance needs while it runs, as Triton's: {\"resources\": [{\"name\": \"R\", \"count\": 1}], \"priority\": 1}.",
    ),
    flag(
        "rate_limit_resource",
        "NAME:COUNT,...",
        "",
        "How much there is of such resources. Default: as much as one instance needs.",
    ),
    flag(
        "slo_milliseconds",
        "MS",
        "",
        "How long an answer is worth something to callers who do not say (grpc-timeout, X-Request-Timeout-Ms,\n      \
         X-Request-Deadline, V2's parameter timeout). What cannot be answered by then is refused when it comes.",
    ),
    flag(
        "tenant_header",
        "NAME",
        "",
        "Header whose values name tenants, which get equal parts of the model. Default: first come, first served.",
    ),
    flag("max_queue_size", "N", "1024", "Most requests waiting for the model: a second's worth at 1 ms each."),
    flag("max_queue_rows", "N", "32768", "Most rows waiting for the model: as many full batches of 32 as requests."),
    flag(
        "max_queue_bytes",
        "BYTES",
        "256Mi",
        "Most bytes of inputs waiting for the model: half of --max_inflight_bytes.",
    ),
    flag("max_inflight_requests", "N", "4096", "Most requests being read, waiting or running."),
    flag("max_inflight_bytes", "BYTES", "512Mi", "Most request bytes held at once: what a 1 Gi pod can spare."),
    flag("max_body_bytes", "BYTES", "64Mi", "Largest request body. As much as Triton takes."),
    flag("max_connections", "N", "8192", "Most open connections. Below the usual file limit of 65536."),
    flag("request_timeout_seconds", "S", "60", "Longest a request may take. 60 is the timeout of KServe's routes."),
    flag("body_timeout_seconds", "S", "30", "How long a request's body may stall before it is given up with 408."),
    flag(
        "timeout_keep_alive",
        "S",
        "75",
        "How long an idle HTTP/1.1 connection is kept: longer than Envoy's 60 s. HTTP/2 peers are pinged.",
    ),
    flag("shutdown_delay_seconds", "S", "5", "After SIGTERM, unready but accepting, until endpoints have noticed."),
    flag("drain_timeout_seconds", "S", "20", "After that, time to finish what is in flight. Both fit a pod's 30 s."),
    flag("threads", "N", "0", "Threads a model computes with. 0: the container's CPU limit."),
    flag("onnxruntime_library", "FILE", "", "libonnxruntime to load. Default: near the executable."),
    flag("log_format", "FORMAT", "auto", "json, text, or auto: text on a terminal."),
    flag(
        "log_level",
        "LEVEL",
        "info",
        "error, warn, info, debug (one line per request), or a filter such as info,onnxruntime=error.",
    ),
    flag(
        "termination_log",
        "FILE",
        "/dev/termination-log",
        "Where a failed load leaves its reason, if the file exists.",
    ),
];

/// Each flag's text and where it came from.
#[derive(Debug)]
pub struct Typed {
    values: HashMap<&'static str, Value>,
    pub warnings: Vec<String>,
}

#[derive(Debug)]
pub struct Value {
    pub text: String,
    /// For messages: `--http_port`, `STOKER_HTTP_PORT` or `the default of --http_port`.
    pub origin: String,
}

impl Typed {
    /// # Panics
    /// When there is no such flag in [`FLAGS`]: a typing error of ours.
    pub fn get(&self, name: &str) -> &Value {
        &self.values[name]
    }
}

/// Reads every flag: command line over environment over default.
pub fn read(args: &[String], env: &dyn Fn(&str) -> Option<String>) -> Typed {
    let mut warnings = Vec::new();
    let mut values: HashMap<_, _> =
        FLAGS.iter().map(|flag| (flag.name, from_env_or_default(flag, env, &mut warnings))).collect();
    let mut rest = args.iter().map(String::as_str).peekable();
    while let Some(arg) = rest.next() {
        let Some(body) = arg.strip_prefix("--") else {
            warnings.push(format!("ignored: unexpected argument {arg}"));
            continue;
        };
        let (name, inline) = body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value)));
        let name = name.replace('-', "_");
        let flag = FLAGS.iter().find(|flag| flag.name == name);
        // A switch swallows only what reads as its value; a flag with a value takes whatever comes next; and so does
        // an unknown flag, unless another flag comes next.
        let next = inline.map(str::to_owned).or_else(|| {
            let takes = |next: &&str| match flag {
                Some(flag) if flag.value.is_empty() => matches!(*next, "true" | "false" | "0" | "1"),
                Some(_) => true,
                None => !next.starts_with("--"),
            };
            rest.next_if(takes).map(str::to_owned)
        });
        match (flag, next) {
            (Some(flag), text) => {
                let text =
                    text.unwrap_or_else(|| if flag.value.is_empty() { "true".to_owned() } else { String::new() });
                values.insert(flag.name, Value { text, origin: format!("--{}", flag.name) });
            }
            (None, None) => warnings.push(format!("ignored: unknown flag {arg}")),
            (None, Some(_)) if inline.is_some() => warnings.push(format!("ignored: unknown flag {arg}")),
            (None, Some(value)) => warnings.push(format!("ignored: unknown flag {arg} {value}")),
        }
    }
    Typed { values, warnings }
}

fn from_env_or_default(flag: &Flag, env: &dyn Fn(&str) -> Option<String>, warnings: &mut Vec<String>) -> Value {
    let twin = env_twin(flag.name);
    let names = std::iter::once(twin.as_str()).chain(flag.also_env.iter().copied());
    let given = names.filter_map(|name| Some((name.to_owned(), env(name)?))).filter(|(_, text)| !text.is_empty());
    let mut meant = given.filter(|(name, text)| {
        // Kubernetes sets STOKER_HTTP_PORT=tcp://... in the namespace of a Service named stoker-http.
        let service_link = text.starts_with("tcp://");
        if service_link {
            warnings.push(format!("ignored: {name}={text} comes from a Kubernetes Service, not from an operator"));
        }
        !service_link
    });
    let found = meant.next();
    match found {
        Some((origin, text)) => Value { text, origin },
        None => Value { text: flag.default.to_owned(), origin: format!("the default of --{}", flag.name) },
    }
}

fn env_twin(name: &str) -> String {
    format!("STOKER_{}", name.to_uppercase())
}

/// The text of `stoker serve --help`.
pub fn help() -> String {
    let mut text = String::from(
        "Serves one model over V1, V2 (Open Inference) and gRPC on one port.\n\n\
         Usage: stoker serve --model_name NAME (--model_dir DIR | --storage_uri URI) [FLAGS]\n       \
         stoker serve --model_repository DIR [FLAGS]\n\n\
         Flags may be written with hyphens, as --flag VALUE or --flag=VALUE; the last one wins. Each has a twin in the\n\
         environment: --http_port is STOKER_HTTP_PORT. S3 credentials and endpoints come from the AWS_* and S3_*\n\
         variables that KServe sets (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, S3_USE_HTTPS, AWS_CA_BUNDLE, ...), headers for a\n\
         web server from <host>-headers (JSON), a hub's from HF_ENDPOINT and HF_TOKEN, and MLflow's from\n\
         MLFLOW_TRACKING_URI, with _USERNAME and _PASSWORD or with _TOKEN.\n\n",
    );
    for Flag { name, value, default, also_env, help } in FLAGS {
        let spelled = if value.is_empty() { format!("--{name}") } else { format!("--{name} {value}") };
        text.push_str(&format!("  {spelled}\n      {help}"));
        if !default.is_empty() {
            text.push_str(&format!(" [default: {default}]"));
        }
        if !also_env.is_empty() {
            text.push_str(&format!(" [also from: {}]", also_env.join(", ")));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_flag_and_fits_a_terminal() {
        let help = help();
        assert!(FLAGS.iter().all(|flag| help.contains(&format!("--{}", flag.name))));
        let longest = help.lines().map(str::len).max().unwrap();
        assert!(longest <= 150, "{longest}");
    }
}
