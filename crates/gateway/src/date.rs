//! HTTP dates.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base::Timestamp;
use http::HeaderValue;

/// `Sun, 06 Nov 1994 08:49:37 GMT` of a Unix time. Years beyond 9999 are cut to the last of them.
pub fn format(unix_secs: u64) -> String {
    /// 9999-12-31T23:59:59Z: the format has four digits for the year.
    const LAST: u64 = 253_402_300_799;
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_secs.min(LAST)))
}

/// As [`format()`], for a head.
pub fn header(unix_secs: u64) -> HeaderValue {
    HeaderValue::from_maybe_shared(bytes::Bytes::from(format(unix_secs)))
        .expect("a date is made of ASCII characters")
}

/// `1994-11-06T08:49:37.123450`, as listings show it: UTC, without a zone.
pub fn iso(time: Timestamp) -> String {
    let (year, month, day) = civil(time.secs() / 86_400);
    let second = time.secs() % 86_400;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let micros = time.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}")
}

/// The date of a day after 1970-01-01. Counts from the first of March of the year 0, so that the
/// leap day is the last of its year and each month's first day is a linear function of the month.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let days = days + 719_468;
    let (cycle, day) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / (DAYS_IN_400_YEARS - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (cycle * 400 + year + next, month, day)
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

    #[test]
    fn iso_dates() {
        for (secs, text) in [
            (0, "1970-01-01T00:00:00.000010"),
            (784_111_777, "1994-11-06T08:49:37.000010"),
            (951_782_399, "2000-02-28T23:59:59.000010"),
            (951_782_400, "2000-02-29T00:00:00.000010"),
            (951_868_800, "2000-03-01T00:00:00.000010"),
            (4_107_542_400, "2100-03-01T00:00:00.000010"),
            (253_402_300_799, "9999-12-31T23:59:59.000010"),
        ] {
            assert_eq!(iso(Timestamp::from_secs(secs).next()), text);
        }
    }

    proptest! {
        #[test]
        fn iso_agrees_with_http(secs in 0_u64..253_402_300_800) {
            let iso = iso(Timestamp::from_secs(secs));
            let http = format(secs);
            prop_assert_eq!(&iso[8..10], &http[5..7]);
            prop_assert_eq!(&iso[..4], &http[12..16]);
            prop_assert_eq!(&iso[11..19], &http[17..25]);
        }

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
