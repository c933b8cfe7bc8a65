//! Numbers and foreign text as a page has them.

/// Safe inside elements and quoted attributes, whatever it is.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(character),
            character if character.is_control() => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}

/// With three digits that count, or all those before the point; thousands apart.
pub fn number(value: f64) -> String {
    let size = value.abs();
    let digits = if size == 0.0 { 0 } else { (2 - size.log10().floor() as i32).clamp(0, 6) as usize };
    let rounded = format!("{value:.digits$}");
    let (whole, rest) = rounded.split_once('.').unwrap_or((&rounded, ""));
    let rest = rest.trim_end_matches('0');
    let whole = thousands(whole);
    if rest.is_empty() { whole } else { format!("{whole}.{rest}") }
}

fn thousands(whole: &str) -> String {
    let mut apart = String::new();
    for (place, digit) in whole.chars().enumerate() {
        let left = whole.len() - place;
        if place > 0 && left.is_multiple_of(3) && !apart.ends_with('-') {
            apart.push(',');
        }
        apart.push(digit);
    }
    apart
}

/// Of a part of one.
pub fn percent(part: f64) -> String {
    // Never 100 % of what is not all.
    let shown = if part < 1.0 { (part * 100.0).min(99.99) } else { 100.0 };
    format!(
        "{}\u{a0}%",
        if shown > 99.0 { format!("{shown:.2}").trim_end_matches(".00").to_owned() } else { number(shown) }
    )
}

pub fn mebibytes(bytes: f64) -> String {
    format!("{}\u{a0}MiB", number(bytes / f64::from(1 << 20)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_text() {
        assert_eq!(escape("<b title='&'>\"\u{7}"), "&lt;b title=&#39;&amp;&#39;&gt;&quot;\u{fffd}");
    }

    #[test]
    fn numbers_have_three_digits_and_their_thousands() {
        let shown = [0.0, 0.012345, 1.0, 12.34, 123.4, 1234.5, 1_234_567.0, -1234.0].map(number);
        assert_eq!(shown, ["0", "0.0123", "1", "12.3", "123", "1,234", "1,234,567", "-1,234"]);
    }

    #[test]
    fn what_is_not_all_is_not_a_hundred_percent() {
        let shown = [0.0, 0.123, 0.9, 0.99999, 1.0].map(percent);
        assert_eq!(shown, ["0\u{a0}%", "12.3\u{a0}%", "90\u{a0}%", "99.99\u{a0}%", "100\u{a0}%"]);
    }
}
