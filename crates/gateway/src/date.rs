//! HTTP dates.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

/// `Sun, 06 Nov 1994 08:49:37 GMT` of a Unix time. Years beyond 9999 are cut to the last of them.
pub fn format(unix_secs: u64) -> String {
    /// 9999-12-31T23:59:59Z: the format has four digits for the year.
    const LAST: u64 = 253_402_300_799;
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_secs.min(LAST)))
}

/// As [`format`], for a head.
pub fn header(unix_secs: u64) -> HeaderValue {
    HeaderValue::from_maybe_shared(bytes::Bytes::from(format(unix_secs)))
        .expect("a date is made of ASCII characters")
}

/// The Unix time of a date in any of the three forms of RFC 9110; `None` for anything else.
pub fn parse(text: &str) -> Option<u64> {
    let time: SystemTime = httpdate::parse_http_date(text).ok()?;
    time.duration_since(UNIX_EPOCH).ok().map(|d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_three_forms() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(text), Some(784_111_777), "{text}");
        }
        assert_eq!(parse("yesterday"), None);
        assert_eq!(parse(""), None);
        assert_eq!(format(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(format(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    proptest! {
        #[test]
        fn anything_is_a_date_or_not(text in ".*") {
            parse(&text);
        }

        #[test]
        fn a_date_is_read_back(secs in 0_u64..253_402_300_800) {
            prop_assert_eq!(parse(&format(secs)), Some(secs));
        }
    }
}
