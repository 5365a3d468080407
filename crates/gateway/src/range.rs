//! Which bytes a `Range` header asks for.
//!
//! Swift's rules rather than RFC 9110's where they differ: what cannot be parsed is ignored, spaces
//! and case do not matter, and requests that would make us work for nothing are refused.

use std::ops::Range;

/// What a client asked for, before the length of the body is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges(Vec<Spec>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spec {
    /// `first-last` or `first-`
    From(u64, Option<u64>),
    /// `-count`
    Last(u64),
}

/// What to send of a body whose length is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of it, as 200.
    Whole,
    /// As 206 with `Content-Range`.
    One(Range<u64>),
    /// At least two, as `multipart/byteranges`, in the order asked for.
    Many(Vec<Range<u64>>),
    /// 416
    Unsatisfiable,
}

/// More are refused: every part costs a head and a seek.
const RANGES_MAX: usize = 50;
/// More pairs that overlap are refused: nobody needs a byte that often.
const OVERLAPS_MAX: usize = 2;
/// As many, if they jump back and forth, are refused.
const DISORDERED_MAX: usize = 7;

impl Ranges {
    /// `None` if there is nothing that makes sense: then the header is ignored.
    pub fn parse(header: &str) -> Option<Self> {
        let mut text: String = header.chars().filter(|c| *c != ' ').collect();
        text.make_ascii_lowercase();
        let specs = text.strip_prefix("bytes=")?.split(',').map(spec);
        specs.collect::<Option<Vec<_>>>().map(Self)
    }

    /// More than one range was asked for, whether or not each can be met.
    pub fn is_several(&self) -> bool {
        self.0.len() > 1
    }

    /// What that means for a body of `length` bytes.
    pub fn select(&self, length: u64) -> Selection {
        if length == 0 && self.0.iter().any(|spec| matches!(spec, Spec::Last(1..))) {
            return Selection::Whole;
        }
        let mut found: Vec<_> = self.0.iter().filter_map(|s| s.within(length)).collect();
        match found.len() {
            0 => Selection::Unsatisfiable,
            1 => Selection::One(found.remove(0)),
            _ if is_abusive(&found) => Selection::Unsatisfiable,
            _ => Selection::Many(found),
        }
    }
}

fn spec(text: &str) -> Option<Spec> {
    let (first, last) = text.split_once('-')?;
    if first.is_empty() {
        return number(last).map(Spec::Last);
    }
    let first = number(first)?;
    if last.is_empty() {
        return Some(Spec::From(first, None));
    }
    let last = number(last)?;
    (last >= first).then_some(Spec::From(first, Some(last)))
}

/// Digits only. What is beyond 64 bits is beyond every body.
fn number(digits: &str) -> Option<u64> {
    let ok = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    ok.then(|| digits.parse().unwrap_or(u64::MAX))
}

impl Spec {
    fn within(self, length: u64) -> Option<Range<u64>> {
        match self {
            Self::From(first, _) if first >= length => None,
            Self::From(first, None) => Some(first..length),
            Self::From(first, Some(last)) => Some(first..last.saturating_add(1).min(length)),
            Self::Last(0) => None,
            Self::Last(count) => Some(length.saturating_sub(count)..length),
        }
    }
}

fn is_abusive(ranges: &[Range<u64>]) -> bool {
    if ranges.len() > RANGES_MAX {
        return true;
    }
    let pairs = ranges.iter().enumerate();
    let overlaps = pairs
        .flat_map(|(at, one)| ranges[at + 1..].iter().map(move |other| (one, other)))
        .filter(|(one, other)| overlap(one, other));
    let ascending = ranges.is_sorted_by_key(|range| (range.start, range.end));
    overlaps.count() > OVERLAPS_MAX || !ascending && ranges.len() > DISORDERED_MAX
}

/// An end of one lies inside the other. The same range twice does not count, nor do neighbours.
fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    let inside = |at: u64, range: &Range<u64>| range.start < at && at < range.end;
    inside(other.start, one)
        || inside(other.end, one)
        || inside(one.start, other)
        || inside(one.end, other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(header: &str, length: u64, expected: Selection) {
        let selection = Ranges::parse(header).map_or(Selection::Whole, |r| r.select(length));
        assert_eq!(selection, expected, "{header} of {length}");
    }

    #[test]
    fn nonsense_is_ignored() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=3-2",
            "bytes=5",
            "lines=0-1",
            "bytes=0-1,",
            "bytes=0-1,x",
            "bytes=--1",
            "bytes=+1-2",
            "bytes=1-2-3",
            "0-1",
        ] {
            check(header, 10, Selection::Whole);
        }
    }

    #[test]
    fn one_range() {
        check("bytes=0-4", 10, Selection::One(0..5));
        check("BYTES = 0 - 4 ", 10, Selection::One(0..5));
        check("bytes=9-", 10, Selection::One(9..10));
        check("bytes=5-500", 10, Selection::One(5..10));
        check("bytes=-3", 10, Selection::One(7..10));
        check("bytes=-30", 10, Selection::One(0..10));
        check("bytes=0-99999999999999999999999", 10, Selection::One(0..10));
        check("bytes=10-", 10, Selection::Unsatisfiable);
        check("bytes=-0", 10, Selection::Unsatisfiable);
        check(
            "bytes=99999999999999999999999-",
            10,
            Selection::Unsatisfiable,
        );
    }

    #[test]
    fn an_empty_body_has_no_range_but_its_end() {
        check("bytes=-5", 0, Selection::Whole);
        check("bytes=-0", 0, Selection::Unsatisfiable);
        check("bytes=0-", 0, Selection::Unsatisfiable);
        check("bytes=0-0", 0, Selection::Unsatisfiable);
    }

    #[test]
    fn several_ranges() {
        check("bytes=0-1,4-5", 10, Selection::Many(vec![0..2, 4..6]));
        check("bytes=4-5,0-1", 10, Selection::Many(vec![4..6, 0..2]));
        check("bytes=20-,4-5", 10, Selection::One(4..6));
        check("bytes=20-,-0", 10, Selection::Unsatisfiable);
    }

    #[test]
    fn abuse_is_refused() {
        let many = |n: u64| {
            let all: Vec<_> = (0..n).map(|i| format!("{}-{}", i * 2, i * 2)).collect();
            format!("bytes={}", all.join(","))
        };
        let select = |header: &str| Ranges::parse(header).unwrap().select(1000);
        assert!(matches!(select(&many(50)), Selection::Many(_)));
        assert_eq!(select(&many(51)), Selection::Unsatisfiable);
        assert!(matches!(select("bytes=0-9,1-2,3-4"), Selection::Many(_)));
        assert_eq!(select("bytes=0-9,1-2,3-4,5-6"), Selection::Unsatisfiable);
        assert!(matches!(
            select("bytes=0-9,0-9,0-9,0-9"),
            Selection::Many(_)
        ));
        let back = "bytes=2-2,0-0,4-4,6-6,8-8,10-10,12-12";
        assert!(matches!(select(back), Selection::Many(_)));
        assert_eq!(select(&format!("{back},14-14")), Selection::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn selections_lie_inside(header in "bytes=[-,0-9 ]{0,30}", length in 0_u64..100) {
            let ranges = Ranges::parse(&header);
            let found = match ranges.map_or(Selection::Whole, |r| r.select(length)) {
                Selection::One(range) => vec![range],
                Selection::Many(ranges) => ranges,
                Selection::Whole | Selection::Unsatisfiable => vec![],
            };
            for range in found {
                prop_assert!(range.start < range.end && range.end <= length);
            }
        }

        #[test]
        fn anything_parses_or_not(header in ".*") {
            Ranges::parse(&header);
        }
    }
}
