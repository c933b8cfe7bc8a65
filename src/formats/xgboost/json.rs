//! JSON as xgboost writes it, which differs from the standard's by `NaN` and `Infinity`.

use super::document::{Input, Number, wrong};
use crate::content::Content;
use crate::error::{Error, Result};

pub(super) struct Json<'a> {
    content: &'a Content,
    /// What is known to have come.
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Json<'a> {
    pub fn new(content: &'a Content) -> Self {
        Json { content, bytes: &[], at: 0 }
    }

    /// Waits until more has come; `false` when there is no more.
    fn more(&mut self) -> bool {
        let before = self.bytes.len();
        self.bytes = self.content.upto(before + 1);
        self.bytes.len() > before
    }

    /// # Errors
    /// When something other than white space follows.
    pub fn finish(mut self) -> Result<()> {
        self.peek().map_or(Ok(()), |byte| Err(self.expected("the end of the file", Some(byte))))
    }

    /// The next byte that is no white space, which stays.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let rest = &self.bytes[self.at..];
            self.at += rest.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(rest.len());
            match self.bytes.get(self.at) {
                None if self.more() => {}
                byte => return byte.copied(),
            }
        }
    }

    fn expected(&self, what: &str, got: Option<u8>) -> Error {
        match got {
            None => wrong(self.at, format_args!("expected {what}, but the file ends here: was it cut short?")),
            Some(byte) => wrong(self.at, format_args!("expected {what}, got {:?}", char::from(byte))),
        }
    }

    fn take(&mut self, byte: u8, what: &str) -> Result<()> {
        let got = self.peek();
        if got != Some(byte) {
            return Err(self.expected(what, got));
        }
        self.at += 1;
        Ok(())
    }

    /// Whether another item follows in an open array or object that ends with `close`; takes what is between.
    fn another(&mut self, first: bool, close: u8) -> Result<bool> {
        match self.peek() {
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            Some(b',') if !first => {
                self.at += 1;
                Ok(true)
            }
            Some(_) if first => Ok(true),
            got => Err(self.expected(&format!("\",\" or {:?}", char::from(close)), got)),
        }
    }

    /// A number, `true` and the like: everything up to a delimiter.
    fn word(&mut self) -> &'a [u8] {
        self.peek();
        let delimits = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b':' | b'"') || byte.is_ascii_whitespace();
        let mut seen = self.at;
        loop {
            match self.bytes[seen..].iter().position(delimits) {
                Some(length) => return &self.bytes[self.at..seen + length],
                None => seen = self.bytes.len(),
            }
            if !self.more() {
                return &self.bytes[self.at..];
            }
        }
    }

    fn number<N: Number>(&mut self) -> Result<N> {
        let word = self.word();
        let number = str::from_utf8(word).ok().and_then(N::from_text);
        let number = number.ok_or_else(|| self.expected(N::NAME, self.bytes.get(self.at).copied()))?;
        self.at += word.len();
        Ok(number)
    }

    /// Moves past a string and returns what is between its quotes, escapes and all.
    fn quoted(&mut self) -> Result<&'a [u8]> {
        self.take(b'"', "a string")?;
        let begun = self.at;
        loop {
            match memchr::memchr2(b'"', b'\\', self.bytes.get(self.at..).unwrap_or_default()) {
                Some(found) if self.bytes[self.at + found] == b'"' => {
                    self.at += found + 1;
                    return Ok(&self.bytes[begun..self.at - 1]);
                }
                Some(found) => self.at += found + 2,
                None => {
                    self.at = self.at.max(self.bytes.len()); // it may be behind what was escaped
                    if !self.more() {
                        self.at = self.bytes.len();
                        return Err(self.expected("the end of a string", None));
                    }
                }
            }
        }
    }
}

impl Input for Json<'_> {
    fn object(&mut self, mut field: impl FnMut(&str, &mut Self) -> Result<()>) -> Result<()> {
        self.take(b'{', "an object")?;
        let mut first = true;
        while self.another(first, b'}')? {
            let name = self.text()?;
            self.take(b':', "\":\"")?;
            field(&name, self)?;
            first = false;
        }
        Ok(())
    }

    fn array(&mut self, mut element: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.take(b'[', "an array")?;
        let mut index = 0_usize;
        while self.another(index == 0, b']')? {
            element(self).map_err(|error| error.context(index))?;
            index += 1;
        }
        Ok(())
    }

    fn numbers<N: Number>(&mut self) -> Result<Vec<N>> {
        self.take(b'[', "an array")?;
        let mut numbers = Vec::new();
        while self.another(numbers.is_empty(), b']')? {
            let number = self.number().map_err(|error| error.context(numbers.len()))?;
            numbers.push(number);
        }
        Ok(numbers)
    }

    fn integer(&mut self) -> Result<i64> {
        self.number()
    }

    fn text(&mut self) -> Result<String> {
        let begun = self.at;
        let quoted = self.quoted()?;
        let text = if quoted.contains(&b'\\') {
            serde_json::from_slice(&[b"\"", quoted, b"\""].concat()).ok()
        } else {
            str::from_utf8(quoted).ok().map(str::to_owned)
        };
        text.ok_or_else(|| wrong(begun, "the string is not UTF-8 or has a wrong escape"))
    }

    /// Looks at brackets and strings only, so that no nesting is too deep for it.
    fn skip(&mut self) -> Result<()> {
        let mut open = 0_usize;
        loop {
            match self.peek() {
                Some(b'"') => drop(self.quoted()?),
                Some(b'[' | b'{') => {
                    open += 1;
                    self.at += 1;
                }
                Some(b']' | b'}') if open > 0 => {
                    open -= 1;
                    self.at += 1;
                }
                Some(b',' | b':') if open > 0 => self.at += 1,
                got => match self.word().len() {
                    0 => return Err(self.expected("a value", got)),
                    length => self.at += length,
                },
            }
            if open == 0 {
                return Ok(());
            }
        }
    }
}
