//! Percent-decoding as Swift does it: a `%` that no two hex digits follow stands for itself.

use std::borrow::Cow;

/// Decodes once. What has no `%` is returned as it is.
pub fn decode(text: &str) -> Cow<'_, [u8]> {
    if text.contains('%') {
        Cow::Owned(percent_encoding::percent_decode_str(text).collect())
    } else {
        Cow::Borrowed(text.as_bytes())
    }
}

/// As [`decode`]; `None` where that is not UTF-8.
pub fn decode_utf8(text: &str) -> Option<Cow<'_, str>> {
    match decode(text) {
        Cow::Borrowed(_) => Some(Cow::Borrowed(text)),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}

/// What stays as it is in a path: letters, digits, `_.-~` and `/`.
const PATH: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'_')
    .remove(b'.')
    .remove(b'-')
    .remove(b'~')
    .remove(b'/');

/// Encodes a path so that [`decode`] gives it back.
pub fn encode_path(path: &str) -> Cow<'_, str> {
    percent_encoding::utf8_percent_encode(path, PATH).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decodes_once_and_forgives() {
        for (encoded, decoded) in [
            ("/a/b", "/a/b"),
            ("%2Fa%2f", "/a/"),
            ("%252F", "%2F"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("a+b", "a+b"),
            ("%C3%A9", "é"),
        ] {
            assert_eq!(decode_utf8(encoded).as_deref(), Some(decoded), "{encoded}");
        }
        assert_eq!(decode_utf8("%ff"), None);
    }

    proptest! {
        #[test]
        fn encoding_is_undone(path in ".*") {
            let encoded = encode_path(&path);
            prop_assert_eq!(decode_utf8(&encoded).unwrap(), path.as_str());
        }

        #[test]
        fn anything_decodes(text in "[%a-f0-9\u{80}-\u{fff}]*") {
            decode(&text);
        }
    }
}
