//! Request lines with bytes that are not ASCII.
//!
//! Clients should percent-encode them, and hyper refuses what is not UTF-8 without saying why. So they
//! are percent-encoded on their way in, and the front door gives its own answer.

/// Follows one request's line as its bytes come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Line {
    Coming,
    #[default]
    Over,
}

impl Line {
    /// What to read instead of `bytes`; `None`: them as they are.
    pub(crate) fn encode(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        if *self == Self::Over {
            return None;
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        if end.is_some() {
            *self = Self::Over;
        }
        let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        if line.is_ascii() {
            return None;
        }
        let mut encoded = Vec::with_capacity(bytes.len() + 64);
        for byte in line {
            match byte {
                0..128 => encoded.push(*byte),
                _ => encoded.extend(format!("%{byte:02X}").as_bytes()),
            }
        }
        encoded.extend(rest);
        Some(encoded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_line_is_encoded() {
        let mut line = Line::Coming;
        assert_eq!(line.encode(b"GET /\xc3"), Some(b"GET /%C3".to_vec()));
        let rest = b"\xa9 HTTP/1.1\r\nA: \xc3\xa9\r\n";
        let encoded = b"%A9 HTTP/1.1\r\nA: \xc3\xa9\r\n".to_vec();
        assert_eq!(line.encode(rest), Some(encoded));
        assert_eq!(line, Line::Over);
        assert_eq!(line.encode(b"\xc3\n\xa9"), None);
    }

    #[test]
    fn ascii_is_left_alone() {
        let mut line = Line::Coming;
        assert_eq!(line.encode(b"GET / HT"), None);
        assert_eq!(line.encode(b"TP/1.1\r\nA: \xff"), None);
        assert_eq!(line, Line::Over);
    }
}
