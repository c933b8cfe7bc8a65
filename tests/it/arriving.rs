//! Model files that are read while they come, in pieces and in any order: what is read is what the whole file says, and
//! what does not come is a file that was cut short.

use stoker::content::{Content, Window};
use stoker::error::Result;
use stoker::formats::{lightgbm, pickle, skops, xgboost};

use crate::support::Random;
use crate::tabular;

/// All that is known of a model, as text.
fn read(name: &str, content: Content) -> Result<String> {
    if name.ends_with(".skops") {
        skops::read(content).map(|graph| format!("{graph:?}"))
    } else if name.ends_with(".lightgbm") {
        lightgbm::read(content).map(|model| format!("{model:?}"))
    } else if name.ends_with(".xgboost") {
        xgboost::read(content).map(|model| format!("{model:?}"))
    } else {
        pickle::read(content).map(|graph| format!("{graph:?}"))
    }
}

fn files() -> Vec<(String, Vec<u8>)> {
    let boosters = ["xgboost", "lightgbm"].into_iter().flat_map(|library| {
        let folder = format!("{}/tests/tabular/{library}", env!("CARGO_MANIFEST_DIR"));
        let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let models = paths.filter(|path| !path.to_string_lossy().ends_with(".answers.json"));
        models.map(move |path| (format!("{}.{library}", path.display()), std::fs::read(path).unwrap()))
    });
    tabular::files().into_iter().chain(boosters).collect()
}

fn shuffled(mut windows: Vec<Window>, random: &mut Random) -> Vec<Window> {
    for place in (1..windows.len()).rev() {
        windows.swap(place, random.below(place as u64 + 1) as usize);
    }
    windows
}

#[test]
fn what_comes_in_pieces_is_read_as_if_it_had_been_there() {
    let mut random = Random(7);
    let files = files();
    assert!(files.len() > 100);
    for (name, bytes) in files {
        let whole = read(&name, (&bytes).into()).map_err(|error| error.to_string());
        for least in [1, 50] {
            let piece = least + random.below(bytes.len() as u64 / 50 + 1) as usize;
            let (content, windows) = Content::coming(bytes.len() as u64, piece).unwrap();
            let windows = shuffled(windows, &mut random);
            let arrived = std::thread::scope(|scope| {
                scope.spawn(|| windows.into_iter().for_each(|window| fill(window, &bytes)));
                read(&name, content).map_err(|error| error.to_string())
            });
            assert!(arrived == whole, "{name} in pieces of {piece} bytes: {:?}", arrived.err());
        }
    }
}

#[test]
fn what_does_not_come_is_not_waited_for() {
    let mut random = Random(8);
    for (name, bytes) in files() {
        let piece = bytes.len() / 10 + 1;
        let (content, windows) = Content::coming(bytes.len() as u64, piece).unwrap();
        let missing = random.below(windows.len() as u64) as usize;
        let shuffled = shuffled(windows, &mut random);
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                for (place, window) in shuffled.into_iter().enumerate() {
                    if place == missing { drop(window) } else { fill(window, &bytes) }
                }
            });
            read(&name, content)
        });
        // Without its last lines, which are for information, a text of lightgbm is whole.
        assert!(outcome.is_err() || name.ends_with(".lightgbm"), "{name}");
    }
}

fn fill(mut window: Window, bytes: &[u8]) {
    let range = window.range();
    window.bytes().copy_from_slice(&bytes[range]);
    window.done();
}
