//! Names of archives, and of what is in them.

use std::path::Path;

use crate::error::{Error, Result};
use crate::tensor::Excerpt;

/// Those that KServe's initializer unpacks (Python's `mimetypes`), and zstd's.
const ENDINGS: &[&str] =
    &[".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".zip"];

/// Whether a file is meant to be unpacked.
pub fn is_archive(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    ENDINGS.iter().any(|ending| path.ends_with(ending))
}

/// All names are kept in memory.
const MAX_NAME_BYTES: usize = 1024;
/// Bounds the depth of the tree: whoever walks it has a folder open on each level.
const MAX_DEPTH: usize = 64;

/// What stoker has beside a model that is on its way begins so.
const RESERVED: &str = ".stoker-";

/// Where an entry goes, without the `.` that `tar` likes to begin with; `None` for the top itself.
///
/// # Errors
/// When the name is not one below the top.
pub fn entry_path(name: &[u8]) -> Result<Option<String>> {
    let refused = |what: &str| Error::load(format!("{}: the name {what}", entry(name)));
    let text = std::str::from_utf8(name).map_err(|_| refused("is not UTF-8"))?;
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if Path::new(text).is_absolute() {
        return Err(refused("is absolute"));
    }
    if parts.contains(&"..") {
        return Err(refused("has \"..\" in it"));
    }
    if text.contains('\0') {
        return Err(refused("has a null character in it"));
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(refused(&format!("has more than {MAX_NAME_BYTES} bytes")));
    }
    if parts.first().is_some_and(|top| top.starts_with(RESERVED)) {
        return Err(refused("is reserved for stoker itself"));
    }
    if parts.len() > MAX_DEPTH {
        return Err(refused(&format!("is more than {MAX_DEPTH} folders deep")));
    }
    Ok((!parts.is_empty()).then(|| parts.join("/")))
}

/// An entry, as errors name it.
pub fn entry(name: &[u8]) -> String {
    format!("entry \"{}\"", Excerpt(&String::from_utf8_lossy(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_by_their_endings() {
        for name in ["m.tar", "a/m.TAR.GZ", "m.tgz", "m.tar.zst", "m.zip"] {
            assert!(is_archive(name), "{name}");
        }
        for name in ["m.gz", "tar", "m.zip.onnx", "m.zst", "m.tar/model"] {
            assert!(!is_archive(name), "{name}");
        }
    }

    #[test]
    fn entries_stay_below_the_top() {
        let path = |name: &str| entry_path(name.as_bytes()).unwrap();
        assert_eq!(path("./1/model.onnx").as_deref(), Some("1/model.onnx"));
        assert_eq!(path("1//model.onnx").as_deref(), Some("1/model.onnx"));
        assert_eq!(path("a/").as_deref(), Some("a"));
        assert_eq!(path("..a/b..").as_deref(), Some("..a/b.."));
        assert_eq!((path("./"), path("")), (None, None));
        let deep = "a/".repeat(MAX_DEPTH);
        assert!(entry_path(deep.as_bytes()).is_ok());
        for (name, reason) in [
            ("../a", "has \"..\""),
            ("a/..", "has \"..\""),
            ("/etc/passwd", "is absolute"),
            ("a\0b", "null character"),
            (&*"a".repeat(1025), "more than 1024 bytes"),
            ("./.stoker-x/a", "is reserved"),
            (&*(deep + "a"), "64 folders deep"),
        ] {
            let error = entry_path(name.as_bytes()).unwrap_err();
            assert!(error.message().starts_with("entry \"") && error.message().contains(reason), "{error}");
        }
        assert!(entry_path(b"\xff").unwrap_err().message().contains("is not UTF-8"));
    }
}
