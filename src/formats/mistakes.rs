//! What people put in the place of a model: found by how the file begins, and said with what to do instead.

use super::{Format, lightgbm, xgboost};
use crate::error::{Error, Result};

/// Beginnings that no model's file of any format has.
const BEGINNINGS: &[(&[u8], &str)] = &[
    (
        b"version https://git-lfs",
        "a Git LFS pointer, which only names the model: run git lfs pull and upload the file that it fetches",
    ),
    (b"\x93NUMPY", "an array of numpy, not a model"),
    (b"\x89HDF\r\n", "an HDF5 file, as Keras writes: convert the model to ONNX (tf2onnx) and serve that"),
    (
        b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19",
        "a file of torch.save: export the model to ONNX (torch.onnx.export) and serve that",
    ),
    (b"\xff\xfe", "a text in UTF-16, as PowerShell writes: save it in UTF-8"),
];

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

fn refuse(what: &str) -> Result<()> {
    Err(Error::load(format!("this is {what}")))
}

/// Looks at a file's beginning, whichever format it is taken for.
///
/// # Errors
/// When it is something else that is well known.
pub fn check(bytes: &[u8]) -> Result<()> {
    well_known(bytes).map_or(Ok(()), refuse)
}

fn well_known(bytes: &[u8]) -> Option<&'static str> {
    if bytes.is_empty() {
        return Some("an empty file: was it written and uploaded completely?");
    }
    if let Some((_, what)) = BEGINNINGS.iter().find(|(beginning, _)| bytes.starts_with(beginning)) {
        return Some(what);
    }
    // Where tar's headers say so.
    if bytes.get(257..).is_some_and(|rest| rest.starts_with(b"ustar")) {
        return Some("a tar archive: unpack it, and serve the directory that was in it");
    }
    let marked = bytes.strip_prefix(BYTE_ORDER_MARK);
    if marked.is_some_and(|rest| xgboost::recognise(rest) || lightgbm::recognise(rest)) {
        return Some("a model behind a UTF-8 byte order mark, which an editor has put there: save it without");
    }
    let text = marked.unwrap_or(bytes).trim_ascii_start();
    let begins = |tag: &[u8]| text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag));
    if begins(b"<!doctype html") || begins(b"<html") {
        return Some("an HTML page: a login or an error was saved in place of the model, download it again");
    }
    (begins(b"<?xml") || begins(b"<error>"))
        .then_some("an XML file: PMML is not supported, and an answer of S3 is the error of a download")
}

/// What a file is that no format takes, although its ending is one of theirs.
pub fn of_none(head: &[u8]) -> Option<&'static str> {
    well_known(head).or(match head.trim_ascii_start() {
        [0x80, 2..=5, ..] => Some("a pickle: name it model.pkl"),
        [b'{' | b'[', ..] => Some("JSON, but does not begin as xgboost's models do, with \"learner\""),
        _ => None,
    })
}

/// What a `.pkl` or `.joblib` file may be in addition, when unpacked.
///
/// # Errors
/// As [`check`].
pub fn check_pickle(bytes: &[u8]) -> Result<()> {
    check(bytes)?;
    let other = |format: Format| {
        let endings: Vec<String> = format.endings().iter().map(|ending| format!("model.{ending}")).collect();
        refuse(&format!("a model of {}, not a pickle: name it {}", format.name(), endings.join(" or ")))
    };
    if xgboost::recognise(bytes) {
        return other(Format::Xgboost);
    }
    if lightgbm::recognise(bytes) {
        return other(Format::Lightgbm);
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return refuse("a zip archive, not a pickle: unpack it");
    }
    match bytes.trim_ascii_start() {
        [b'{' | b'[', ..] => refuse("a JSON file, not a pickle: save the model with joblib.dump"),
        _ => Ok(()),
    }
}

/// Whether a pickle that cannot be read beyond `end` is a text that somebody wrote. Protocol 0 is text, too: of lines
/// that are one word each, of which the machine reads some.
pub fn is_prose(bytes: &[u8], end: usize) -> bool {
    const SOON: usize = 4096;
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let printable = text.chars().all(|c| !c.is_control() || c.is_ascii_whitespace());
    let first = text.lines().next().unwrap_or_default();
    let lines = bytes.iter().take(end).filter(|byte| **byte == b'\n').count();
    printable && end < SOON && lines < 2 && (first.contains(' ') || !text.ends_with('.'))
}

/// What a zip archive is that has no `schema.json`, by its members.
pub fn of_zip<'a>(mut names: impl Iterator<Item = &'a str> + Clone) -> &'static str {
    let has = |name: &str| names.clone().any(|member| member.rsplit('/').next() == Some(name));
    if has("data.pkl") {
        "a file of torch.save: export the model to ONNX (torch.onnx.export) and serve that"
    } else if has("model.weights.h5") {
        "a file of Keras: convert the model to ONNX (tf2onnx) and serve that"
    } else if names.all(|name| name.ends_with(".npy")) {
        "an .npz file of numpy's arrays, not a model"
    } else {
        "a zip archive without schema.json, so no skops file: unpack it, and serve the directory that was in it"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_named_with_what_to_do() {
        let tar = [&b"model.pkl"[..], &[0; 248], b"ustar\x0000"].concat();
        for (bytes, named) in [
            (&b""[..], "an empty file"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "git lfs pull"),
            (b"\xef\xbb\xbf\n<!DOCTYPE HTML><title>Sign in</title>", "an HTML page"),
            (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "an XML file"),
            (b"<Error><Code>NoSuchKey</Code></Error>", "an XML file"),
            (b"\xef\xbb\xbf{\"learner\": {}}", "byte order mark"),
            (b"\xef\xbb\xbftree\nversion=v4\n", "byte order mark"),
            (b"\xff\xfe{\0", "UTF-16"),
            (b"\x93NUMPY\x01\0v\0{'descr'", "an array of numpy"),
            (&tar, "a tar archive"),
        ] {
            let error = check(bytes).unwrap_err();
            assert!(error.message().contains(named), "{error}");
        }
        for (bytes, named) in [
            (&b"{\"learner\": {}}"[..], "a model of xgboost, not a pickle: name it model.json or model.ubj"),
            (b"tree\nversion=v4\n", "a model of lightgbm, not a pickle: name it model.txt or model.bst"),
            (b" [1, 2]", "a JSON file"),
            (b"PK\x03\x04", "a zip archive"),
        ] {
            assert!(check(bytes).is_ok());
            let error = check_pickle(bytes).unwrap_err();
            assert!(error.message().contains(named), "{error}");
        }
        assert!(check_pickle(b"\x80\x04\x95").is_ok() && check_pickle(b"ccopy_reg\n_reconstructor\n").is_ok());
        for (head, named) in [
            (&b""[..], "an empty file"),
            (b"\x80\x04\x95", "name it model.pkl"),
            (b" {\"error\": 1}", "with \"learner\""),
        ] {
            assert!(of_none(head).is_some_and(|what| what.contains(named)), "{named}");
        }
        assert_eq!(of_none(b"numpy==2.0\n"), None);
        let zip = |names: &'static [&str]| of_zip(names.iter().copied());
        assert!(zip(&["archive/data.pkl", "archive/version"]).contains("torch.save"));
        assert!(zip(&["coef.npy", "names.npy"]).contains(".npz"));
        assert!(zip(&["model/MLmodel", "a.npy"]).contains("no skops file"));
    }

    #[test]
    fn prose_is_no_pickle_of_protocol_0() {
        assert!(is_prose(b"hello world\n", 2) && is_prose(b"hello", 2) && is_prose(b"Not a model. See below.", 2));
        assert!(!is_prose(b"ccopy_reg\n_reconstructor\np0\n", 28), "one that was cut");
        assert!(!is_prose(b"Pid\n.", 4) && !is_prose(b"\x80\x04N", 2));
    }
}
