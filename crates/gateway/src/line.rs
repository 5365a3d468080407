//! Request lines with bytes that are not ASCII, or of another HTTP.
//!
//! Clients should percent-encode the bytes, and hyper refuses what is not UTF-8 without saying why. So
//! they are percent-encoded on their way in, and the front door gives its own answer. Nor does hyper
//! say that it was the version that it refused.

/// `HTTP/1.1`
const VERSION_BYTES: usize = 8;

/// Follows one request's line as its bytes come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    is_coming: bool,
    /// Its last bytes so far: the version, and a carriage return if that has come.
    last: [u8; VERSION_BYTES + 1],
}

impl Line {
    /// A line that is about to come.
    pub(crate) fn coming() -> Self {
        Self {
            is_coming: true,
            ..Self::default()
        }
    }

    /// What to read instead of `bytes`; `None`: them as they are.
    pub(crate) fn encode(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        if !self.is_coming {
            return None;
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        self.is_coming = end.is_none();
        let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        self.remember(line);
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

    fn remember(&mut self, more: &[u8]) {
        let more = &more[more.len().saturating_sub(self.last.len())..];
        self.last.rotate_left(more.len());
        let from = self.last.len() - more.len();
        self.last[from..].copy_from_slice(more);
    }

    /// Whether it ends with a version of HTTP that is neither 1.0 nor 1.1.
    pub(crate) fn is_of_other_version(&self) -> bool {
        let whole = self.last.strip_suffix(b"\r").unwrap_or(&self.last[1..]);
        let number = whole.strip_prefix(b"HTTP/");
        match number {
            Some([b'1', b'.', b'0' | b'1']) => false,
            Some([major, b'.', minor]) => major.is_ascii_digit() && minor.is_ascii_digit(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_line_is_encoded() {
        let mut line = Line::coming();
        assert_eq!(line.encode(b"GET /\xc3"), Some(b"GET /%C3".to_vec()));
        let rest = b"\xa9 HTTP/1.1\r\nA: \xc3\xa9\r\n";
        let encoded = b"%A9 HTTP/1.1\r\nA: \xc3\xa9\r\n".to_vec();
        assert_eq!(line.encode(rest), Some(encoded));
        assert!(!line.is_coming);
        assert_eq!(line.encode(b"\xc3\n\xa9"), None);
    }

    #[test]
    fn ascii_is_left_alone() {
        let mut line = Line::coming();
        assert_eq!(line.encode(b"GET / HT"), None);
        assert_eq!(line.encode(b"TP/1.1\r\nA: \xff"), None);
        assert!(!line.is_coming);
    }

    #[test]
    fn another_version_is_seen_wherever_the_line_is_cut() {
        for (text, expected) in [
            ("GET / HTTP/2.0\r\nA: b\r\n", true),
            ("GET / HTTP/0.9\n", true),
            ("GET / HTTP/1.2\r\n\r\n", true),
            ("GET / HTTP/9.9", true),
            ("GET / HTTP/1.1\r\nA: HTTP/2.0\r\n", false),
            ("GET / HTTP/1.0\r\n", false),
            ("GET / HTTP/x.y\r\n", false),
            ("GET / HTTP/2\r\n", false),
            ("GET /\r\n", false),
            ("", false),
        ] {
            for cut in 0..=text.len() {
                let mut line = Line::coming();
                let (first, second) = text.as_bytes().split_at(cut);
                line.encode(first);
                line.encode(second);
                assert_eq!(line.is_of_other_version(), expected, "{text:?} at {cut}");
            }
        }
    }
}
