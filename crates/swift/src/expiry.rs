//! `X-Delete-At` and `X-Delete-After`.

use http::{HeaderMap, HeaderName};

use crate::headers::{X_DELETE_AFTER, X_DELETE_AT, X_IF_DELETE_AT, text};
use crate::respond::Refusal;

/// Later is cut to this: ten digits, the year 2286.
const LATEST: u64 = 9_999_999_999;

/// When the object is to be gone, in Unix seconds. Both headers given, `X-Delete-After` counts.
pub(crate) fn delete_at(headers: &HeaderMap, now: u64) -> Result<Option<u64>, Refusal> {
    if let Some(after) = number(headers, &X_DELETE_AFTER, "Non-integer X-Delete-After")? {
        return match u64::try_from(after) {
            Ok(after @ 1..) => Ok(Some(now.saturating_add(after).min(LATEST))),
            _ => Err(Refusal::bad("X-Delete-After in past")),
        };
    }
    let Some(at) = number(headers, &X_DELETE_AT, "Non-integer X-Delete-At")? else {
        return Ok(None);
    };
    match u64::try_from(at) {
        Ok(at) if at > now => Ok(Some(at.min(LATEST))),
        _ => Err(Refusal::bad("X-Delete-At in past")),
    }
}

/// The guard of a DELETE that is meant for one expiry only.
pub(crate) fn if_delete_at(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let given = number(headers, &X_IF_DELETE_AT, "Bad X-If-Delete-At header value")?;
    // No object expires before 1970, so nothing will fit.
    Ok(given.map(|at| u64::try_from(at).unwrap_or(0)))
}

/// An integer of any size, cut to 64 bits.
fn number(
    headers: &HeaderMap,
    name: &HeaderName,
    sentence: &'static str,
) -> Result<Option<i64>, Refusal> {
    if !headers.contains_key(name) {
        return Ok(None);
    }
    let given = text(headers, name).unwrap_or_default().trim();
    if given.is_empty() {
        return Ok(None);
    }
    let (negative, digits) = match given.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, given.strip_prefix('+').unwrap_or(given)),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Refusal::bad(sentence));
    }
    let size = digits.parse().unwrap_or(i64::MAX);
    Ok(Some(if negative { -size } else { size }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(at: Option<&str>, after: Option<&str>) -> Result<Option<u64>, ()> {
        let mut headers = HeaderMap::new();
        let given = [(&X_DELETE_AT, at), (&X_DELETE_AFTER, after)];
        for (name, value) in given {
            if let Some(value) = value {
                headers.insert(name.clone(), value.parse().map_err(|_| ())?);
            }
        }
        delete_at(&headers, 1000).map_err(|_| ())
    }

    #[test]
    fn times() {
        assert_eq!(of(None, None), Ok(None));
        assert_eq!(of(Some("1001"), None), Ok(Some(1001)));
        assert_eq!(of(None, Some("1")), Ok(Some(1001)));
        assert_eq!(of(Some("x"), Some("5")), Ok(Some(1005)));
        assert_eq!(of(Some("99999999999"), None), Ok(Some(LATEST)));
        assert_eq!(of(Some(&"9".repeat(40)), None), Ok(Some(LATEST)));
        assert_eq!(of(None, Some(&"9".repeat(40))), Ok(Some(LATEST)));
        for bad in ["1000", "0", "-5", "x", "1.5", "--1"] {
            assert_eq!(of(Some(bad), None), Err(()), "{bad}");
        }
        for bad in ["0", "-1", "x", "1.5"] {
            assert_eq!(of(None, Some(bad)), Err(()), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_a_time_or_not(at in "[-+0-9 ]*", after in "[-+0-9 ]*") {
            let _ = of(Some(&at), Some(&after));
        }
    }
}
