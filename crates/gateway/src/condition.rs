//! Conditional requests, by Swift's rules.

use http::{HeaderMap, HeaderName, header};

use crate::date;

/// What the conditions of a request say about the present state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Proceed,
    /// 304
    NotModified,
    /// 412
    Failed,
}

/// Entity tags of an `If-Match` or `If-None-Match`. Quotes are optional, lists are allowed, weak
/// tags match nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tags<'a> {
    Any,
    Of(Vec<&'a str>),
}

impl<'a> Tags<'a> {
    pub fn parse(header: &'a str) -> Self {
        let tags: Vec<_> = header.split(',').map(|tag| unquote(tag.trim())).collect();
        if tags.contains(&"*") {
            Self::Any
        } else {
            Self::Of(tags.into_iter().filter(|tag| !tag.is_empty()).collect())
        }
    }

    pub fn contains(&self, etag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Of(tags) => tags.contains(&etag),
        }
    }
}

/// Takes one pair of quotes away, if there is one.
pub fn unquote(tag: &str) -> &str {
    let inner = tag.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    inner.unwrap_or(tag)
}

/// Judges all four conditions against an object that exists. `etag` is bare; `last_modified` is in
/// Unix seconds, as the answer will show it.
pub fn evaluate(headers: &HeaderMap, etag: &str, last_modified: u64) -> Verdict {
    let tags = |name| text(headers, name).map(Tags::parse);
    let date = |name| text(headers, name).and_then(date::parse);

    if tags(header::IF_NONE_MATCH).is_some_and(|tags| tags.contains(etag)) {
        Verdict::NotModified
    } else if tags(header::IF_MATCH).is_some_and(|tags| !tags.contains(etag)) {
        Verdict::Failed
    } else if date(header::IF_MODIFIED_SINCE).is_some_and(|since| last_modified <= since) {
        Verdict::NotModified
    } else if date(header::IF_UNMODIFIED_SINCE).is_some_and(|since| last_modified > since) {
        Verdict::Failed
    } else {
        Verdict::Proceed
    }
}

/// `If-Match: *` asks that the object exist at all.
pub fn requires_existence(headers: &HeaderMap) -> bool {
    text(headers, header::IF_MATCH).is_some_and(|tags| Tags::parse(tags) == Tags::Any)
}

/// Whether `If-Range` lets the range of this request be served: it does if there is none.
pub fn range_holds(headers: &HeaderMap, etag: &str, last_modified: u64) -> bool {
    match text(headers, header::IF_RANGE) {
        None => true,
        Some(value) => match date::parse(value) {
            Some(since) => since == last_modified,
            None => unquote(value.trim()) == etag,
        },
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OLD: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LAST_MODIFIED: u64 = 784_111_777;

    fn head(given: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = given.iter();
        pairs
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    fn check(given: &[(&'static str, &str)], expected: Verdict) {
        assert_eq!(
            evaluate(&head(given), "abc", LAST_MODIFIED),
            expected,
            "{given:?}"
        );
    }

    #[test]
    fn each_condition() {
        use Verdict::{Failed, NotModified, Proceed};
        check(&[], Proceed);
        for matching in ["abc", "\"abc\"", "x, \"abc\"", "*", "\"*\""] {
            check(&[("if-match", matching)], Proceed);
            check(&[("if-none-match", matching)], NotModified);
        }
        for other in ["", "x", "\"abc", "W/\"abc\"", "\"x\",\"y\""] {
            check(&[("if-match", other)], Failed);
            check(&[("if-none-match", other)], Proceed);
        }
        check(&[("if-modified-since", OLD)], Proceed);
        check(&[("if-modified-since", NOW)], NotModified);
        check(&[("if-unmodified-since", OLD)], Failed);
        check(&[("if-unmodified-since", NOW)], Proceed);
        check(&[("if-modified-since", "soon")], Proceed);
        check(&[("if-unmodified-since", "soon")], Proceed);
    }

    #[test]
    fn order_of_judgement() {
        check(
            &[("if-none-match", "abc"), ("if-match", "x")],
            Verdict::NotModified,
        );
        check(
            &[("if-match", "x"), ("if-modified-since", NOW)],
            Verdict::Failed,
        );
    }

    #[test]
    fn if_range_asks_for_the_same_body() {
        let holds = |value| range_holds(&head(&[("if-range", value)]), "abc", LAST_MODIFIED);
        assert!(holds("\"abc\"") && holds(NOW));
        assert!(!holds("\"abd\"") && !holds(OLD) && !holds("W/\"abc\""));
        assert!(range_holds(&head(&[]), "abc", LAST_MODIFIED));
    }

    proptest! {
        #[test]
        fn anything_parses(value in ".*") {
            Tags::parse(&value);
        }
    }
}
