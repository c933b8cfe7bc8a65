//! Keeps the house in order: pure modules stay pure, every file says what it is for, generated code is fresh.

use std::fs;
use std::path::{Path, PathBuf};

use stoker::backend::tabular::registry::{FAMILIES, Family};
use stoker::formats::Format;
use stoker::formats::mlmodel::FLAVORS;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files with this extension below a folder, as paths relative to the repository.
fn files(folder: &str, extension: &str) -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    let relative = found.iter().map(|path| path.strip_prefix(root()).unwrap().display().to_string());
    let mut matching: Vec<_> = relative.filter(|path| path.ends_with(&format!(".{extension}"))).collect();
    matching.sort();
    matching
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// A file's code without its unit tests, which may use whatever they like.
fn code(path: &str) -> String {
    let text = read(path);
    text.split("\n#[cfg(test)]").next().unwrap_or_default().to_owned()
}

const GENERATED: &str = "src/protocol/open_inference.rs";

/// Modules that decide: no runtime, no sockets, no files, no clock of their own.
const PURE: &[&str] = &[
    "src/config.rs",
    "src/config/",
    "src/device/process/message.rs",
    "src/device/process/pulse.rs",
    "src/device/recording.rs",
    "src/device/topology.rs",
    "src/device/visible.rs",
    "src/error.rs",
    "src/tensor.rs",
    "src/text.rs",
    "src/infer.rs",
    "src/infer/",
    "src/protocol/",
    "src/engine/admission.rs",
    "src/engine/batch.rs",
    "src/engine/batch/lanes.rs",
    "src/engine/batch/outlook.rs",
    "src/engine/batch/taking.rs",
    "src/engine/batch/turn.rs",
    "src/engine/choice.rs",
    "src/engine/demand.rs",
    "src/engine/joining.rs",
    "src/engine/line.rs",
    "src/engine/padding.rs",
    "src/engine/policy.rs",
    "src/engine/ragged.rs",
    "src/engine/resources.rs",
    "src/engine/shares.rs",
    "src/engine/stack.rs",
    "src/engine/times.rs",
    "src/model/placement.rs",
    "src/model/placement/choice.rs",
    "src/model/placement/explain.rs",
    "src/model/placement/slots.rs",
    "src/model/state.rs",
    "src/source/uri.rs",
    "src/source/checksum.rs",
    "src/source/http/url.rs",
    "src/source/patterns.rs",
    "src/source/width.rs",
    "src/source/archive/names.rs",
    "src/source/s3/explain.rs",
    "src/source/s3/settings.rs",
    "src/source/s3/sign.rs",
    "src/source/s3/stored.rs",
    "src/source/s3/xml.rs",
    "src/formats/",
    "src/backend/tabular/",
];

/// The doors of pure rooms: they read the files that the rooms then understand.
const DOORS: &[&str] = &["src/formats/mod.rs", "src/formats/tree.rs", "src/formats/naive/fixtures.rs"];

const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "tonic",
    "cudarc",
    "std::fs",
    "std::net::Tcp",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "std::env::var",
];

/// Not as the end of another: tonic is not in isotonic.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(|before: char| before.is_alphanumeric()))
}

#[test]
fn pure_modules_name_no_shell() {
    for pure in PURE {
        let members: Vec<_> = files("src", "rs").into_iter().filter(|path| path.starts_with(pure)).collect();
        assert!(!members.is_empty(), "{pure} is gone: mend the list");
        for path in members.iter().filter(|path| *path != GENERATED && !DOORS.contains(&path.as_str())) {
            let code = code(path);
            let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            for line in lines {
                let named = IMPURE.iter().find(|word| has_word(line, word));
                assert!(named.is_none(), "{path} is pure but names {}: {line}", named.unwrap());
            }
        }
    }
}

#[test]
fn features_are_decided_in_few_places() {
    let allowed = ["src/backend/mod.rs", "src/device/mod.rs", "src/kernels.rs", "src/telemetry/metrics.rs"];
    for path in files("src", "rs") {
        let decides = code(&path).contains("feature = \"");
        assert!(!decides || allowed.contains(&path.as_str()), "{path} names a feature");
    }
}

#[test]
fn every_file_says_what_it_is_for_and_can_be_read_in_one_sitting() {
    const LINES: usize = 450;
    for path in [files("src", "rs"), files("tests", "rs"), files("loadtest", "rs")].concat() {
        if path == GENERATED {
            continue;
        }
        let text = read(&path);
        assert!(text.starts_with("//!"), "{path} does not begin with //!");
        let lines = code(&path).lines().count();
        assert!(lines <= LINES, "{path} has {lines} lines of code, more than {LINES}");
    }
}

#[test]
fn the_top_level_is_as_agreed() {
    let visible = [
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "Makefile",
        "README.md",
        "charts",
        "kernels",
        "loadtest",
        "runtimes",
        "src",
        "target",
        "tests",
    ];
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with('.') || visible.contains(&name.as_str()), "{name} has no place at the top level");
    }
}

/// `UPDATE=1 cargo test --test tidy` rewrites the file.
#[test]
fn the_generated_grpc_code_is_fresh() {
    let generated = tempfile::tempdir().unwrap();
    let descriptors = protox::compile(["open_inference.proto"], [root().join("src/protocol")]).unwrap();
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        .bytes(".")
        .out_dir(generated.path())
        .compile_fds(descriptors)
        .unwrap();
    let fresh = fs::read_to_string(generated.path().join("inference.rs")).unwrap();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(root().join(GENERATED), &fresh).unwrap();
    }
    assert!(read(GENERATED) == fresh, "{GENERATED} is stale: run UPDATE=1 cargo test --test tidy");
}

/// What a README says is supported is what the code says. `UPDATE=1 cargo test --test tidy` rewrites both.
#[test]
fn the_tables_of_what_is_supported_are_fresh() {
    let formats = Format::ALL.map(|format| {
        let endings: Vec<String> = format.endings().iter().map(|ending| format!("`.{ending}`")).collect();
        let classes = FAMILIES.iter().filter(|family| family.package == format.name());
        let what = match classes.map(|family| family.classes.len()).sum::<usize>() {
            0 => "every operator that ONNX Runtime has".to_owned(),
            count => format!("{count} classes, computed natively"),
        };
        format!("| {} | {} | {what} |", format.name(), endings.join(", "))
    });
    let mlflow: Vec<&str> = FLAVORS.iter().map(|(name, ..)| *name).collect();
    let mlflow = format!("| mlflow | `MLmodel` | flavors {} |", mlflow.join(", "));
    let head = "| modelFormat | files | what |\n|---|---|---|";
    assert_block("README.md", &[&[head.to_owned()][..], &formats, &[mlflow]].concat());

    let family = |family: &Family| {
        let classes: Vec<&str> = family.classes.iter().map(|(name, _)| *name).collect();
        format!("| {} | {} | {} |", family.package, family.title, classes.join(", "))
    };
    let head = "| library | family | classes |\n|---|---|---|".to_owned();
    let families: Vec<String> = std::iter::once(head).chain(FAMILIES.iter().map(family)).collect();
    assert_block("src/backend/tabular/README.md", &families);
}

/// What was promised, written out, so that no family can lose a class unseen.
const PROMISED: &[(&str, &str)] = &[
    (
        "sklearn",
        "DecisionTreeClassifier DecisionTreeRegressor RandomForestClassifier RandomForestRegressor ExtraTreesClassifier \
         ExtraTreesRegressor GradientBoostingClassifier GradientBoostingRegressor HistGradientBoostingClassifier \
         HistGradientBoostingRegressor IsolationForest AdaBoostClassifier AdaBoostRegressor BaggingClassifier \
         BaggingRegressor VotingClassifier VotingRegressor StackingClassifier StackingRegressor \
         LinearRegression Ridge Lasso ElasticNet BayesianRidge HuberRegressor PoissonRegressor GammaRegressor \
         TweedieRegressor LogisticRegression SGDClassifier SGDRegressor SGDOneClassSVM Perceptron RidgeClassifier \
         LinearSVC LinearSVR SVC SVR NuSVC NuSVR OneClassSVM KNeighborsClassifier KNeighborsRegressor \
         GaussianNB MultinomialNB ComplementNB BernoulliNB CategoricalNB MLPClassifier MLPRegressor \
         LinearDiscriminantAnalysis QuadraticDiscriminantAnalysis KMeans MiniBatchKMeans GaussianMixture \
         CalibratedClassifierCV OneVsRestClassifier OneVsOneClassifier MultiOutputClassifier MultiOutputRegressor \
         Pipeline FeatureUnion ColumnTransformer TransformedTargetRegressor \
         StandardScaler MinMaxScaler MaxAbsScaler RobustScaler Normalizer Binarizer KBinsDiscretizer PowerTransformer \
         QuantileTransformer PolynomialFeatures SplineTransformer SimpleImputer KNNImputer MissingIndicator \
         OneHotEncoder OrdinalEncoder LabelEncoder TargetEncoder CountVectorizer TfidfVectorizer HashingVectorizer \
         PCA TruncatedSVD SelectKBest SelectPercentile SelectFpr SelectFdr SelectFwe VarianceThreshold \
         FunctionTransformer",
    ),
    ("xgboost", "XGBClassifier XGBRegressor XGBRanker XGBRFClassifier XGBRFRegressor Booster"),
    ("lightgbm", "LGBMClassifier LGBMRegressor LGBMRanker Booster"),
];

#[test]
fn every_promised_class_is_supported() {
    for (package, promised) in PROMISED {
        let families = FAMILIES.iter().filter(|family| family.package == *package);
        let known: Vec<&str> = families.flat_map(|family| family.classes).map(|(name, _)| *name).collect();
        let lost: Vec<&str> = promised.split_whitespace().filter(|name| !known.contains(name)).collect();
        assert!(lost.is_empty(), "{package} has lost {}", lost.join(", "));
    }
}

fn assert_block(path: &str, lines: &[String]) {
    const MARKS: [&str; 2] = ["<!-- supported -->\n", "<!-- /supported -->"];
    let text = read(path);
    let (before, rest) = text.split_once(MARKS[0]).unwrap();
    let (_, after) = rest.split_once(MARKS[1]).unwrap();
    let fresh = format!("{before}{}{}\n{}{after}", MARKS[0], lines.join("\n"), MARKS[1]);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(root().join(path), &fresh).unwrap();
    }
    assert!(read(path) == fresh, "{path} is stale: run UPDATE=1 cargo test --test tidy");
}
