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

/// With `(?i)` these are one letter in Python; in the crate only the first two are.
const LETTERS_I: [char; 4] = ['i', 'I', 'ı', 'İ'];

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
    let flags = global_flags(pattern);
    let folds = flags.contains('i');
    let mut out = String::with_capacity(pattern.len() * 2);
    out.push_str(flags);
    let mut boundaries = false;
    let mut in_class = false;
    let mut class = Class::default();
    let mut characters = pattern[flags.len()..].chars().peekable();
    let mut last = ' ';
    while let Some(character) = characters.next() {
        let next = characters.peek().copied();
        match character {
            '\\' => {
                let escaped = characters.next()?;
                match escaped {
                    // A letter by its number may be one of those that are one in Python.
                    'x' | 'u' | 'U' | 'N' if folds => return None,
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
                class = Class::default();
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
                if folds && class.has_i {
                    out.extend(LETTERS_I);
                }
                out.push(']');
            }
            letter if folds && !in_class && LETTERS_I.contains(&letter) => out.extend(['[', 'i', 'ı', 'İ', ']']),
            // The crate's set operations and nested classes.
            '[' | '&' | '~' if in_class => out.extend(['\\', character]),
            '-' if in_class && last == '-' => return None,
            // Python's also matches before a newline at the end.
            '$' if !in_class => return None,
            // Possessive in Python, a repetition of a repetition here.
            '+' if !in_class && matches!(last, '+' | '*' | '?' | '}') => return None,
            // Flags: only those that mean the same.
            '?' if !in_class && last == '(' => {
                // A name is spelled as it is, and flags of a part do not tell where it ends.
                let allowed = match next? {
                    ':' => true,
                    'P' => !folds,
                    _ => characters.clone().take_while(|c| *c != ')').all(|flag| matches!(flag, 's' | 'u')),
                };
                if !allowed {
                    return None;
                }
                out.push('?');
            }
            _ => out.push(character),
        }
        if in_class {
            class.take(character);
        }
        last = character;
    }
    Some((out, boundaries))
}

/// Those that a pattern begins with and that mean the same in the crate, with their parentheses.
fn global_flags(pattern: &str) -> &str {
    let end = pattern.find(')').map_or(0, |end| end + 1);
    let flags = pattern[..end].strip_prefix("(?").and_then(|flags| flags.strip_suffix(')'));
    let is_same = |flags: &str| flags.chars().all(|flag| matches!(flag, 'i' | 's' | 'u'));
    if flags.is_some_and(is_same) { &pattern[..end] } else { "" }
}

/// What a class has so far.
#[derive(Default)]
struct Class {
    last: Option<char>,
    /// A range has begun with it.
    from: Option<char>,
    has_i: bool,
}

impl Class {
    fn take(&mut self, character: char) {
        if let Some(from) = self.from.take() {
            self.has_i |= LETTERS_I.iter().any(|letter| (from..=character).contains(letter));
            self.last = None;
        } else if character == '-' && self.last.is_some() {
            self.from = self.last.take();
        } else {
            self.has_i |= LETTERS_I.contains(&character);
            self.last = Some(character);
        }
    }
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

    /// `re.findall(pattern, text)` of Python 3.
    #[test]
    fn the_letters_i_are_one_where_case_does_not_matter() {
        for (pattern, text, found) in [
            ("(?i)[a-zçğöşü]+", "kızıl İki KITAP ışık", &["kızıl", "İki", "KITAP", "ışık"][..]),
            ("(?iu)ki", "kı KI kİ ke", &["kı", "KI", "kİ"]),
            ("(?i)[^i ]+", "kızIl aİb", &["k", "z", "l", "a", "b"]),
            ("(?i)[ı]+", "iIıİj", &["iIıİ"]),
            ("(?i)[a-h]+", "hiı", &["h"]),
            ("(?i)[x-]+", "ix-", &["x-"]),
            ("[a-z]+", "kızıl", &["k", "z", "l"]),
            ("(?i)[H-J]", "ı", &["ı"]),
        ] {
            assert_eq!(Tokens::compile(pattern).unwrap().find(text).unwrap(), found, "{pattern}");
        }
        for refused in [r"(?i)\x69", "(?i:a)b", "(?i)(?P<i>a)"] {
            assert!(Tokens::compile(refused).is_err(), "{refused}");
        }
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
