//! Texts to tokens, as Python's `re` finds them.
//!
//! The `regex` crate has Python's syntax but for some corners, and prefers the same one of several matches. What a word
//! character is differs: Python asks for letters, numbers and the underscore, Unicode's recommendation (and the crate)
//! also for marks and connectors, but not for numbers like `²`.

use regex::Regex;

use crate::backend::tabular::estimator::unsupported;
use crate::error::{Error, Result};

/// Python's `\w`.
const WORD: &str = r"[\p{L}\p{N}_]";
/// Word characters of only one of Python and the crate.
const DISPUTED: &str = r"[[\w--[\p{L}\p{N}_]][[\p{L}\p{N}_]--\w]]";

/// `re.compile(token_pattern).findall`.
pub struct Tokens {
    pattern: Regex,
    /// The pattern's one group is the token.
    group: bool,
    /// What texts must not contain, when the pattern asks for word boundaries in earnest.
    disputed: Option<Regex>,
}

impl Tokens {
    /// # Errors
    /// When the pattern says something that the crate does not know, or understands otherwise.
    pub fn compile(pattern: &str) -> Result<Tokens> {
        let refused = || unsupported("token_pattern", format_args!("'{}'", crate::tensor::Excerpt(pattern)));
        let bare = without_boundaries(pattern);
        let (translated, boundaries) = translate(bare).ok_or_else(refused)?;
        let compile = |text: &str| Regex::new(text).map_err(|_| refused());
        let pattern = compile(&translated)?;
        let groups = pattern.captures_len() - 1;
        // Python and the crate find empty matches at different places.
        if groups > 1 || compile(&format!("^(?:{translated})$"))?.is_match("") {
            return Err(refused());
        }
        let disputed = if boundaries { Some(compile(DISPUTED)?) } else { None };
        Ok(Tokens { pattern, group: groups == 1, disputed })
    }

    /// # Errors
    /// When the crate would see word boundaries in the text at other places.
    pub fn find<'t>(&self, text: &'t str) -> Result<Vec<&'t str>> {
        if let Some(found) = self.disputed.as_ref().and_then(|disputed| disputed.find(text)) {
            return Err(Error::invalid(format!(
                "the character \"{}\" is not supported in texts of this model, whose token_pattern has \\b",
                found.as_str().escape_unicode()
            )));
        }
        if self.group {
            let token = |found: regex::Captures<'t>| found.get(1).map_or("", |group| group.as_str());
            return Ok(self.pattern.captures_iter(text).map(token).collect());
        }
        Ok(self.pattern.find_iter(text).map(|found| found.as_str()).collect())
    }
}

/// The pattern without `\b` on both sides when they say nothing: around runs of word characters without a greatest
/// length, as in the default `(?u)\b\w\w+\b`. A run that is long enough is always matched from its first character to
/// its last.
fn without_boundaries(pattern: &str) -> &str {
    let pattern = pattern.strip_prefix("(?u)").unwrap_or(pattern);
    let inner = pattern.strip_prefix(r"\b").and_then(|rest| rest.strip_suffix(r"\b"));
    let is_run = |inner: &str| {
        let parts: Vec<&str> = inner.split(r"\w").collect();
        let open = |part: &&str| *part == "+" || (part.starts_with('{') && part.ends_with(",}"));
        parts.len() > 1
            && parts[0].is_empty()
            && parts[1..].iter().all(|part| part.is_empty() || open(part))
            && parts[1..].iter().any(open)
    };
    inner.filter(|inner| is_run(inner)).unwrap_or(pattern)
}

/// The pattern in the crate's syntax, and whether it has word boundaries; `None` when they may not mean the same.
fn translate(pattern: &str) -> Option<(String, bool)> {
    let mut out = String::with_capacity(pattern.len() * 2);
    let mut boundaries = false;
    let mut in_class = false;
    let mut characters = pattern.chars().peekable();
    let mut last = ' ';
    while let Some(character) = characters.next() {
        let next = characters.peek().copied();
        match character {
            '\\' => {
                let escaped = characters.next()?;
                match escaped {
                    'w' => out.push_str(WORD),
                    'W' => out.push_str(&WORD.replacen('[', "[^", 1)),
                    's' => out.push_str(r"[\s\x1c-\x1f]"),
                    'S' => out.push_str(r"[^\s\x1c-\x1f]"),
                    'b' | 'B' if in_class => return None,
                    'b' | 'B' => {
                        boundaries = true;
                        out.extend(['\\', escaped]);
                    }
                    // \d, \t, \., ...; letters that only the crate knows would have been an error in Python.
                    _ => out.extend(['\\', escaped]),
                }
                last = ' ';
                continue;
            }
            '[' if !in_class => {
                in_class = true;
                out.push('[');
                if next == Some('^') {
                    characters.next();
                    out.push('^');
                }
                // A bracket that comes first is meant literally.
                if characters.peek() == Some(&']') {
                    characters.next();
                    out.push_str(r"\]");
                }
                last = ' ';
                continue;
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            // The crate's set operations and nested classes.
            '[' | '&' | '~' if in_class => out.extend(['\\', character]),
            '-' if in_class && last == '-' => return None,
            // Python's also matches before a newline at the end.
            '$' if !in_class => return None,
            // Possessive in Python, a repetition of a repetition here.
            '+' if !in_class && matches!(last, '+' | '*' | '?' | '}') => return None,
            // Flags: only those that mean the same.
            '?' if !in_class && last == '(' => {
                let allowed = matches!(next?, ':' | 'P') || characters.clone().take_while(|c| *c != ')').all(is_flag);
                if !allowed {
                    return None;
                }
                out.push('?');
            }
            _ => out.push(character),
        }
        last = character;
    }
    Some((out, boundaries))
}

fn is_flag(character: char) -> bool {
    matches!(character, 'i' | 's' | 'u')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_as_python_finds_them() {
        let default = Tokens::compile(r"(?u)\b\w\w+\b").unwrap();
        // A vowel sign is no word character in Python; a superscript is one.
        assert_eq!(default.find("a bc d_e हिन्दी x² e\u{301}tat").unwrap(), ["bc", "d_e", "x²", "tat"]);
        let group = Tokens::compile(r"#(\w+)").unwrap();
        assert_eq!(group.find("#one two #three").unwrap(), ["one", "three"]);
        let bounded = Tokens::compile(r"\b[a-z]{3,5}\b").unwrap();
        assert_eq!(bounded.find("ab abc abcdef").unwrap(), ["abc"]);
        assert!(bounded.find("हि").is_err());
    }

    #[test]
    fn patterns_that_mean_something_else_are_refused() {
        for pattern in [r"\w*", r"a$", r"(a)(b)", r"(?=a)b", r"a++", r"(?x)a b", r"[a--b]", r"(a", r"[\b]", r"\w*?"] {
            assert!(Tokens::compile(pattern).is_err(), "{pattern}");
        }
        for pattern in [r"[^\s]+", r"[\w']+", r"[^][]+", r"(?i)[a-z]+", r"(?:ab)+", r"\S+", r"[&&x]+"] {
            assert!(Tokens::compile(pattern).is_ok(), "{pattern}");
        }
    }
}
