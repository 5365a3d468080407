//! Percent-decoding, of what the encoding is and nothing else: a `%` that two hex digits do not follow
//! is a mistake of the client's, and a name guessed from it would be another one tomorrow.

use std::borrow::Cow;

/// Decodes once; `None` where two hex digits do not follow a `%`. What has no `%` is returned as it
/// is.
pub fn decode(text: &str) -> Option<Cow<'_, [u8]>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text.as_bytes()));
    }
    let mut parts = text.as_bytes().split(|byte| *byte == b'%').skip(1);
    let is_encoded = parts.all(|part| {
        let digits = part.get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    is_encoded.then(|| Cow::Owned(percent_encoding::percent_decode_str(text).collect()))
}

/// As [`decode`]; `None` too where that is not UTF-8.
pub fn decode_utf8(text: &str) -> Option<Cow<'_, str>> {
    match decode(text)? {
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
    fn decodes_once() {
        for (encoded, decoded) in [
            ("/a/b", "/a/b"),
            ("%2Fa%2f", "/a/"),
            ("%252F", "%2F"),
            ("100%25", "100%"),
            ("a+b", "a+b"),
            ("%C3%A9", "é"),
            ("%C3%A9é", "éé"),
        ] {
            assert_eq!(decode_utf8(encoded).as_deref(), Some(decoded), "{encoded}");
        }
        assert_eq!(decode("%ff").as_deref(), Some(&b"\xff"[..]));
        assert_eq!(decode_utf8("%ff"), None);
    }

    #[test]
    fn what_encodes_nothing_is_refused() {
        for text in [
            "%", "100%", "%4", "a%4/", "%zz", "%4g", "%%41", "%41%", "%-1", "%+1", "%é", "%4é",
            "%u0041",
        ] {
            assert_eq!(decode(text), None, "{text}");
            assert_eq!(decode_utf8(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn encoding_is_undone(path in ".*") {
            let encoded = encode_path(&path);
            prop_assert_eq!(decode_utf8(&encoded).unwrap(), path.as_str());
        }

        #[test]
        fn anything_decodes_or_not(text in "[%a-g0-9\u{80}-\u{fff}]*") {
            decode(&text);
        }
    }
}
