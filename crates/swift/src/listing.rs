//! What a listing is asked for.

use gateway::query::Query;
use http::StatusCode;
use namespace::{ListQuery, Subdirs};

use crate::config::LISTING_ENTRIES_MAX;
use crate::headers::means_true;
use crate::respond::Refusal;

/// Reads the parameters of a listing.
pub(crate) fn parse(query: &Query<'_>) -> Result<ListQuery, Refusal> {
    let reverse = text(query, "reverse")?.is_some_and(|word| means_true(&word));
    let mut list = ListQuery {
        limit: limit(query)?,
        marker: text(query, "marker")?.unwrap_or_default(),
        end_marker: text(query, "end_marker")?.unwrap_or_default(),
        prefix: text(query, "prefix")?.unwrap_or_default(),
        delimiter: text(query, "delimiter")?.unwrap_or_default(),
        reverse,
        subdirs: Subdirs::Show,
    };
    if let Some(path) = text(query, "path")? {
        list.prefix = path;
        if !list.prefix.is_empty() && !list.prefix.ends_with('/') {
            list.prefix.push('/');
        }
        "/".clone_into(&mut list.delimiter);
        list.subdirs = Subdirs::Hide;
    }
    Ok(list)
}

/// Only digits count; anything else asks for nothing special.
fn limit(query: &Query<'_>) -> Result<usize, Refusal> {
    let digits = query.bytes("limit").filter(|value| {
        let digits = value.iter().all(u8::is_ascii_digit);
        digits && !value.is_empty()
    });
    let Some(digits) = digits else {
        return Ok(LISTING_ENTRIES_MAX);
    };
    let limit = std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok());
    limit
        .filter(|limit| *limit <= LISTING_ENTRIES_MAX)
        .ok_or_else(|| {
            let sentence = format!("Maximum limit is {LISTING_ENTRIES_MAX}");
            Refusal::because(StatusCode::PRECONDITION_FAILED, sentence)
        })
}

fn text(query: &Query<'_>, name: &str) -> Result<Option<String>, Refusal> {
    let Some(value) = query.bytes(name) else {
        return Ok(None);
    };
    match std::str::from_utf8(value) {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(_) => Err(Refusal::bad(format!(
            "\"{name}\" parameter not valid UTF-8"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(query: &str) -> Option<ListQuery> {
        parse(&Query::parse(query)?).ok()
    }

    #[test]
    fn limits() {
        for (query, expected) in [
            ("", Some(10_000)),
            ("limit=", Some(10_000)),
            ("limit=abc", Some(10_000)),
            ("limit=-1", Some(10_000)),
            ("limit=0", Some(0)),
            ("limit=10000", Some(10_000)),
            ("limit=10001", None),
            ("limit=99999999999999999999999", None),
        ] {
            assert_eq!(parsed(query).map(|list| list.limit), expected, "{query}");
        }
    }

    #[test]
    fn path_overrides_prefix_and_delimiter() {
        for (query, prefix) in [
            ("path=a&prefix=x&delimiter=y", "a/"),
            ("path=a/", "a/"),
            ("path=", ""),
        ] {
            let list = parsed(query).unwrap();
            assert_eq!(
                (list.prefix.as_str(), list.delimiter.as_str()),
                (prefix, "/")
            );
            assert_eq!(list.subdirs, Subdirs::Hide);
        }
    }

    #[test]
    fn names_must_be_utf8() {
        for name in [
            "marker",
            "end_marker",
            "prefix",
            "delimiter",
            "path",
            "reverse",
        ] {
            assert_eq!(parsed(&format!("{name}=%ff")), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn anything_parses_or_not(query in "((limit|marker|prefix|path|reverse|x)=[a-z0-9%]*&)*") {
            parsed(&query);
        }
    }
}
