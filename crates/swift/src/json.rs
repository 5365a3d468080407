//! JSON as Swift's clients know it: ASCII alone, everything else escaped.

use std::fmt::Write as _;

use serde::Serialize;

/// Compact JSON of `value` in ASCII.
pub(crate) fn ascii(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).expect("what we render has names for keys");
    if text.is_ascii() {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() * 2);
    for character in text.chars() {
        // Outside of strings JSON is ASCII, so whatever is not may be escaped where it stands.
        if character.is_ascii() {
            escaped.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(escaped, "\\u{unit:04x}").expect("a string takes everything");
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_characters_are_escaped() {
        assert_eq!(ascii(&"a\"é\n😀"), r#""a\"\u00e9\n\ud83d\ude00""#);
    }
}
