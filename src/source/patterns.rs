//! Which files of a source are wanted, by shell patterns as Python's `fnmatch` has them: `*` also matches `/`.
//! Source: kserve `python/storage/kserve_storage/kserve_storage.py`, `STORAGE_ALLOW_PATTERNS`, `STORAGE_IGNORE_PATTERNS`.

use regex::RegexSet;

use super::Env;
use crate::error::{Error, Result};
use crate::tensor::Excerpt;

#[derive(Clone, Debug, Default)]
pub struct Patterns {
    /// All files, when there are none.
    allow: RegexSet,
    ignore: RegexSet,
}

impl Patterns {
    /// # Errors
    /// When a pattern is none.
    pub fn from_env(env: Env<'_>) -> Result<Patterns> {
        let set = |variable: &str| {
            let patterns = list(&env(variable).unwrap_or_default());
            RegexSet::new(patterns.iter().map(|pattern| translate(pattern)))
                .map_err(|_| Error::load(format!("{variable}: \"{}\" is no pattern", Excerpt(&patterns.join(",")))))
        };
        Ok(Patterns { allow: set("STORAGE_ALLOW_PATTERNS")?, ignore: set("STORAGE_IGNORE_PATTERNS")? })
    }

    pub fn is_all(&self) -> bool {
        self.allow.is_empty() && self.ignore.is_empty()
    }

    /// Whether a file is wanted, by its path below the model directory.
    pub fn want(&self, path: &str) -> bool {
        (self.allow.is_empty() || self.allow.is_match(path)) && !self.ignore.is_match(path)
    }
}

/// `["*.json", "*.bin"]`, or `*.json,*.bin`.
fn list(text: &str) -> Vec<String> {
    let parts = match serde_json::from_str(text) {
        Ok(serde_json::Value::Array(values)) => {
            values.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect()
        }
        Ok(serde_json::Value::String(one)) => vec![one],
        _ => text.split(',').map(str::to_owned).collect::<Vec<String>>(),
    };
    parts.iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// A regular expression that matches what the pattern does.
fn translate(pattern: &str) -> String {
    let mut regex = String::from(r"(?s)\A");
    let mut rest = pattern;
    while let Some(letter) = rest.chars().next() {
        rest = &rest[letter.len_utf8()..];
        match letter {
            '*' => regex += ".*",
            '?' => regex.push('.'),
            '[' => match class_end(rest) {
                None => regex += r"\[",
                Some(end) => {
                    let (inner, not) = match rest[..end].strip_prefix('!') {
                        Some(inner) => (inner, "^"),
                        None => (&rest[..end], ""),
                    };
                    regex += &format!("[{not}");
                    inner.chars().for_each(|letter| {
                        if matches!(letter, '\\' | '[' | ']' | '^' | '&' | '~') {
                            regex.push('\\');
                        }
                        regex.push(letter);
                    });
                    regex.push(']');
                    rest = &rest[end + 1..];
                }
            },
            letter => regex += &regex::escape(letter.encode_utf8(&mut [0; 4])),
        }
    }
    regex + r"\z"
}

/// Where a class ends: a bracket that comes first belongs to it.
fn class_end(text: &str) -> Option<usize> {
    let first = usize::from(text.starts_with('!'));
    let first = first + usize::from(text[first..].starts_with(']'));
    Some(first + text[first..].find(']')?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(allow: &'static str, ignore: &'static str) -> Patterns {
        let env = |name: &str| Some(if name.contains("ALLOW") { allow } else { ignore }.to_owned());
        Patterns::from_env(&env).unwrap()
    }

    #[test]
    fn patterns_match_as_fnmatch_does() {
        for (pattern, path, matches) in [
            ("*.json", "a/b.json", true),
            ("*.json", "a.jsonl", false),
            ("model-?????-of-*.bin", "model-00001-of-2.bin", true),
            ("[ab].txt", "b.txt", true),
            ("[!ab].txt", "b.txt", false),
            ("[]x].txt", "].txt", true),
            ("[a-c]1", "b1", true),
            ("[", "[", true),
            ("a.b", "aXb", false),
            ("ü?", "üö", true),
            ("*", "line\nfeed", true),
        ] {
            assert_eq!(patterns(pattern, "").want(path), matches, "{pattern} {path}");
        }
    }

    #[test]
    fn lists_are_json_or_have_commas() {
        for list in ["*.json, *.bin,", r#"["*.json", "*.bin"]"#] {
            let wanted = patterns(list, "secret*");
            assert_eq!(
                ["a.json", "b.bin", "c.txt", "secret.json"].map(|path| wanted.want(path)),
                [true, true, false, false]
            );
        }
        assert!(patterns("", "").want("anything"));
        assert!(patterns(r#""*.onnx""#, "").want("a.onnx"));
    }
}
