//! One hash of all files of a model, the same wherever they lie and whatever they came in. It is what coreutils say:
//!
//! ```text
//! cd DIR && find -L . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum
//! ```

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use sha2::{Digest, Sha256};

use super::{hex, unhex};
use crate::content::{Content, Contents};
use crate::error::{Error, Result};

/// Written as `sha256:` and 64 digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelDigest([u8; 32]);

/// One file, and the SHA-256 of its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summed {
    /// Below the model's directory, with `/` between components.
    pub path: String,
    pub bytes: u64,
    pub sha256: [u8; 32],
}

const PREFIX: &str = "sha256:";

impl ModelDigest {
    /// # Errors
    /// When it is not written so.
    pub fn parse(text: &str) -> Result<ModelDigest> {
        let digits = text.strip_prefix(PREFIX).filter(|digits| digits.len() == 64);
        let value = digits.and_then(unhex).and_then(|bytes| bytes.try_into().ok());
        let expected = || Error::load(format!("\"{text}\" is no digest, expected {PREFIX} and 64 hexadecimal digits"));
        value.map(ModelDigest).ok_or_else(expected)
    }

    /// Of files in the order in which [`sum`] gives them.
    pub fn of(files: &[Summed]) -> ModelDigest {
        let mut hash = Sha256::new();
        files.iter().for_each(|file| hash.update(file.line()));
        ModelDigest(hash.finalize().into())
    }

    /// Fails unless the files below a directory, or the one file, have this digest.
    ///
    /// # Errors
    /// When they do not, or cannot be read.
    pub fn check(&self, path: &Path) -> Result<()> {
        self.check_is(ModelDigest::of(&sum(path)?))
    }

    /// # Errors
    /// When the digest that was found is another.
    pub fn check_is(&self, found: ModelDigest) -> Result<()> {
        if found == *self {
            return Ok(());
        }
        Err(Error::load(format!(
            "its digest is {found}, but {self} is pinned (storage_digest): the files are not those that were pinned; \
             bring these back, or pin the new ones with stoker pin"
        )))
    }
}

impl fmt::Display for ModelDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", hex(&self.0))
    }
}

impl Summed {
    pub fn hex(&self) -> String {
        hex(&self.sha256)
    }

    /// As `sha256sum` writes it, which puts a backslash in front of lines whose names have to be escaped.
    fn line(&self) -> String {
        let escaped = self.path.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
        let mark = if escaped == self.path { "" } else { "\\" };
        format!("{mark}{}  {escaped}\n", self.hex())
    }
}

/// Sums up all files below a directory, or the one at the path, in the order of their names' bytes. Links to files
/// or directories count as what they lead to.
///
/// # Errors
/// When something cannot be read, or has a name that is not UTF-8.
pub fn sum(path: &Path) -> Result<Vec<Summed>> {
    let (root, names) = names(path)?;
    let of_file = |name: &String| {
        let path = root.join(name);
        let summed = File::open(&path).and_then(sum_bytes);
        let (bytes, sha256) = summed.map_err(|error| Error::load(format!("{}: {error}", path.display())))?;
        Ok(Summed { path: name.clone(), bytes, sha256 })
    };
    by_threads(&names, of_file)
}

/// As [`sum`], of files in memory.
pub fn sum_contents(contents: &Contents) -> Vec<Summed> {
    let files: Vec<_> = contents.iter().collect();
    let of_file = |(path, content): &(&String, &Content)| {
        let sha256 = Sha256::digest(content.all()).into();
        Ok(Summed { path: (*path).clone(), bytes: content.len() as u64, sha256 })
    };
    by_threads(&files, of_file).expect("memory can be read")
}

/// The work on each item, in their order, by as many threads as there are processors.
fn by_threads<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<Summed> + Sync) -> Result<Vec<Summed>> {
    let next = AtomicUsize::new(0);
    let some = || -> Result<Vec<(usize, Summed)>> {
        let mut summed = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(place) else { return Ok(summed) };
            summed.push((place, work(item)?));
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let summed = thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(some)).collect();
        all.into_iter().map(|one| one.join().expect("summing does not panic")).collect::<Result<Vec<_>>>()
    });
    let mut summed = summed?.concat();
    summed.sort_unstable_by_key(|(place, _)| *place);
    Ok(summed.into_iter().map(|(_, file)| file).collect())
}

/// The folder and, in the order of their bytes, the names in it of all files below a directory, or of the one at the path.
///
/// # Errors
/// As [`sum`].
pub fn names(path: &Path) -> Result<(&Path, Vec<String>)> {
    let failed = |error: io::Error| Error::load(format!("{}: {error}", path.display()));
    let mut names = Vec::new();
    if !path.is_dir() {
        names.extend(path.file_name().and_then(|name| name.to_str()).map(str::to_owned));
        return Ok((path.parent().unwrap_or(Path::new("/")), names));
    }
    walk(path, "", &mut Vec::new(), &mut names).map_err(failed)?;
    names.sort_unstable();
    Ok((path, names))
}

/// Links that lead back to a folder above are not followed, as `find -L` does not follow them.
fn walk(folder: &Path, above: &str, folders: &mut Vec<(u64, u64)>, names: &mut Vec<String>) -> io::Result<()> {
    let found = folder.metadata()?;
    let own = (found.dev(), found.ino());
    if folders.contains(&own) {
        return Ok(());
    }
    folders.push(own);
    for entry in folder.read_dir()? {
        let entry = entry?;
        let name = entry.file_name();
        let no_text = || io::Error::other(format!("\"{}\" is not UTF-8", name.to_string_lossy()));
        let name = format!("{above}{}", name.to_str().ok_or_else(no_text)?);
        let path = entry.path();
        if path.is_dir() {
            walk(&path, &format!("{name}/"), folders, names)?;
        } else if path.is_file() {
            names.push(name);
        }
    }
    folders.pop();
    Ok(())
}

fn sum_bytes(mut file: File) -> io::Result<(u64, [u8; 32])> {
    let mut buffer = vec![0; 256 << 10];
    let (mut bytes, mut hash) = (0, Sha256::new());
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((bytes, hash.finalize().into())),
            read => {
                hash.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const BY_COREUTILS: &str =
        "cd \"$1\" && find -L . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum";

    #[test]
    fn digests_are_those_of_coreutils() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in ["b", "a/z", "a.b", "a b\\c", "ä\nö", ".hidden", "a/1/empty"] {
            std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            std::fs::write(root.join(name), if name.ends_with("empty") { "" } else { name }).unwrap();
        }
        std::os::unix::fs::symlink("b", root.join("link")).unwrap();
        std::os::unix::fs::symlink("a/1", root.join("a.link")).unwrap();
        let out = Command::new("bash").args(["-c", BY_COREUTILS, "sum"]).arg(root).output().unwrap();
        let expected = String::from_utf8(out.stdout).unwrap();
        let expected = ModelDigest::parse(&format!("sha256:{}", expected.split(' ').next().unwrap())).unwrap();
        let summed = sum(root).unwrap();
        assert_eq!(summed.len(), 9);
        assert_eq!(ModelDigest::of(&summed), expected);
        assert!(expected.check(root).is_ok());
        std::os::unix::fs::symlink("..", root.join("a/above")).unwrap();
        assert_eq!(sum(root).unwrap(), summed);
        std::fs::write(root.join("b"), "c").unwrap();
        let message = expected.check(root).unwrap_err().to_string();
        assert!(message.contains(&expected.to_string()) && message.contains("pinned"), "{message}");
    }

    #[test]
    fn one_file_is_a_directory_of_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("m.onnx"), "m").unwrap();
        assert_eq!(sum(&folder.path().join("m.onnx")).unwrap(), sum(folder.path()).unwrap());
        assert!(sum(&folder.path().join("none")).unwrap_err().message().contains("none"));
    }

    #[test]
    fn only_digests_are_digests() {
        let text = format!("sha256:{}", "0af".repeat(22).split_at(64).0);
        assert_eq!(ModelDigest::parse(&text).unwrap().to_string(), text);
        for wrong in ["", "sha256:", "sha256:00", &text[7..], &text.replace('a', "g"), &text.replace("256", "512")] {
            assert!(ModelDigest::parse(wrong).is_err(), "{wrong}");
        }
    }
}
