//! The query part of a request's target.

use std::borrow::Cow;

use crate::percent;

/// Parameters in the order they came. Small: a search looks at each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query<'a>(Vec<Pair<'a>>);

type Pair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

impl<'a> Query<'a> {
    /// Splits at `&`, takes `+` for a space, and a name without `=` for an empty value. `None` where
    /// the percent-encoding is none.
    pub fn parse(text: &'a str) -> Option<Self> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        });
        pairs.collect::<Option<_>>().map(Self)
    }

    /// The first value of that name.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let mut pairs = self.0.iter();
        let found = pairs.find(|(given, _)| &**given == name.as_bytes());
        found.map(|(_, value)| &**value)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn decode(text: &str) -> Option<Cow<'_, [u8]>> {
    if text.contains('+') {
        let decoded = percent::decode(&text.replace('+', " "))?.into_owned();
        Some(Cow::Owned(decoded))
    } else {
        percent::decode(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_the_first_of_a_name() {
        let query = Query::parse("a=1&b&&c=x+y%2B&a=2&=z&d=%ff").unwrap();
        let of = |name| query.bytes(name);
        assert_eq!(of("a"), Some(&b"1"[..]));
        assert_eq!(of("b"), Some(&b""[..]));
        assert_eq!(of("c"), Some(&b"x y+"[..]));
        assert_eq!(of("d"), Some(&b"\xff"[..]));
        assert_eq!(of("e"), None);
        assert!(Query::parse("").unwrap().is_empty());
    }

    #[test]
    fn every_pair_must_be_encoded() {
        for text in ["a=%", "a=+%4", "%zz=a", "a&b=1&c=100%&d"] {
            assert_eq!(Query::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn anything_parses_or_not(text in "[&=+%a-g0-9]*") {
            Query::parse(&text);
        }
    }
}
