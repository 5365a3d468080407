//! Listings: range scans that seek past what they roll up.
//!
//! A listing of n lines costs about n rows and a seek for each rolled-up line, whatever else the
//! container holds. The rules are Swift's: names between the markers that begin with the prefix are
//! looked at in order; what has the delimiter behind the prefix is rolled up to there; a roll-up that
//! equals the lower marker was shown on the page before and is left out.

use std::ops::Bound;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shard::{Scan, View};

use crate::{Error, key, scan};

/// What to list. Order is by the bytes of the names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListQuery {
    pub limit: usize,
    /// Start after this name (before it, in reverse). Empty: from the start. A marker equal to a
    /// rolled-up subdirectory skips all of it.
    pub marker: String,
    /// Stop before this name (after it, in reverse). Empty: to the end.
    pub end_marker: String,
    pub prefix: String,
    /// Names are rolled up at the first occurrence of this after the prefix. Empty: not at all.
    pub delimiter: String,
    pub reverse: bool,
    pub subdirs: Subdirs,
}

/// What becomes of names that are rolled up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subdirs {
    /// One [`Entry::Subdir`] for each, which counts towards the limit.
    #[default]
    Show,
    /// Left out, but for names that end with their first delimiter: they are lines of their own. The
    /// name that equals the prefix is left out too (Swift's `path=`).
    Hide,
}

/// A line of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry<T> {
    Row(T),
    Subdir(String),
}

impl<T> Entry<T> {
    /// The same with another row.
    pub fn map<R>(self, map: impl FnOnce(T) -> R) -> Entry<R> {
        match self {
            Self::Row(row) => Entry::Row(map(row)),
            Self::Subdir(name) => Entry::Subdir(name),
        }
    }
}

/// What becomes of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Row,
    /// It is rolled up to so many bytes, and so is all that begins with them.
    RollUp(usize),
    /// It and all that begins with so many bytes of it is left out.
    Pass(usize),
    Skip,
}

/// What a scan does next.
pub(crate) enum Step {
    Next,
    /// Go on behind all that begins with so many bytes of the name.
    Past(usize),
    Stop,
}

/// How the keys of the listed rows are made of names.
#[derive(Clone, Copy)]
pub(crate) enum Keys {
    /// The name ends the key.
    Name,
    /// A zero byte and a container's id follow.
    NameAndContainer,
}

/// A listing on its way: what is left of its range.
pub(crate) struct Window<'a> {
    query: &'a ListQuery,
    base: &'a [u8],
    keys: Keys,
    rest: Rest,
}

/// The first key that may be listed, and the first behind it that may not.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Rest {
    from: Bytes,
    to: Bytes,
}

impl<'a> Window<'a> {
    /// All that the query asks for of the rows whose keys are `base` and a name.
    pub(crate) fn new(query: &'a ListQuery, base: &'a [u8], keys: Keys) -> Self {
        let (lower, upper) = markers(query);
        let first = [base, query.prefix.as_bytes()].concat();
        let mut to = key::end_of(&first);
        let mut from = Bytes::from(first);
        if !lower.is_empty() {
            from = from.max(behind(base, lower, keys));
        }
        if !upper.is_empty() {
            to = to.min(up_to(base, upper, keys));
        }
        Self {
            query,
            base,
            keys,
            rest: Rest { from, to },
        }
    }

    pub(crate) fn rest(&self) -> Rest {
        self.rest.clone()
    }

    /// Leaves out what is not in `rest`.
    pub(crate) fn narrow(&mut self, rest: &Rest) {
        if rest.from > self.rest.from {
            self.rest.from = rest.from.clone();
        }
        if rest.to < self.rest.to {
            self.rest.to = rest.to.clone();
        }
    }

    /// What becomes of a name that is in the window.
    pub(crate) fn judge(&self, name: &str) -> Verdict {
        let query = self.query;
        // Where the key goes on behind the name, a prefix with a zero byte may be one of the key only.
        let Some(rest) = name.strip_prefix(&query.prefix) else {
            return Verdict::Skip;
        };
        let found = match &*query.delimiter {
            "" => None,
            delimiter => rest.find(delimiter),
        };
        let end = found.map(|at| query.prefix.len() + at + query.delimiter.len());
        match (query.subdirs, end) {
            (Subdirs::Show, Some(end)) => Verdict::RollUp(end),
            (Subdirs::Hide, Some(end)) if end < name.len() => Verdict::Pass(end),
            (Subdirs::Hide, None) if rest.is_empty() => Verdict::Skip,
            (_, None) | (Subdirs::Hide, Some(_)) => Verdict::Row,
        }
    }

    /// Whether a roll-up was shown on the page before.
    pub(crate) fn was_shown(&self, subdir: &str) -> bool {
        markers(self.query).0 == subdir
    }

    /// Visits what is left of the window, in the query's direction.
    pub(crate) fn scan(
        &self,
        view: &View,
        mut each: impl FnMut(&str, &[u8], &[u8]) -> Result<Step, Error>,
    ) -> Result<(), Error> {
        let Rest { from, to } = &self.rest;
        if from >= to {
            return Ok(());
        }
        let mut outcome = Ok(());
        let mut visit = |key: &[u8], value: &[u8]| {
            let step = self
                .name(key)
                .and_then(|name| match each(name, key, value)? {
                    Step::Next => Ok(Scan::Next),
                    Step::Past(end) => Ok(Scan::Seek(self.past(&name[..end]).into())),
                    Step::Stop => Ok(Scan::Stop),
                });
            step.unwrap_or_else(|error| {
                outcome = Err(error);
                Scan::Stop
            })
        };
        let (from, to) = (Bound::Included(&**from), Bound::Excluded(&**to));
        if self.query.reverse {
            view.scan_back(from, to, &mut visit)?;
        } else {
            view.scan(from, to, &mut visit)?;
        }
        outcome
    }

    fn name<'k>(&self, key: &'k [u8]) -> Result<&'k str, Error> {
        let end = match self.keys {
            Keys::Name => key.len(),
            Keys::NameAndContainer => key.len().saturating_sub(9),
        };
        let name = key.get(self.base.len()..end).unwrap_or_default();
        str::from_utf8(name)
            .map_err(|_| Error::Damaged(format!("no such key: {}", key.escape_ascii())))
    }

    /// Where to go on behind all that begins with `subdir`.
    fn past(&self, subdir: &str) -> Bytes {
        let start = || [self.base, subdir.as_bytes()].concat();
        match (self.query.reverse, self.query.subdirs) {
            (false, _) => key::end_of(&start()),
            (true, Subdirs::Show) => start().into(),
            // The name itself is a line, and comes last.
            (true, Subdirs::Hide) => behind(self.base, subdir, self.keys),
        }
    }

    /// Leaves out what was visited, up to this key.
    pub(crate) fn resume_behind(&mut self, key: &[u8]) {
        if self.query.reverse {
            self.rest.to = Bytes::copy_from_slice(key);
        } else {
            self.rest.from = scan::behind(key);
        }
    }

    /// Leaves out what was visited, up to all that begins with `subdir`.
    pub(crate) fn resume_past(&mut self, subdir: &str) {
        if self.query.reverse {
            self.rest.to = self.past(subdir);
        } else {
            self.rest.from = self.past(subdir);
        }
    }
}

/// The lower and the upper marker; neither is in the listing.
fn markers(query: &ListQuery) -> (&str, &str) {
    if query.reverse {
        (&query.end_marker, &query.marker)
    } else {
        (&query.marker, &query.end_marker)
    }
}

/// The first key behind all rows of this name, or of those before it. A name holds no zero byte, so
/// one that does stands directly behind the name that it has in front of the byte.
fn behind(base: &[u8], name: &str, keys: Keys) -> Bytes {
    let name = name.split('\0').next().unwrap_or_default();
    let next = match keys {
        Keys::Name => 0,
        Keys::NameAndContainer => 1,
    };
    [base, name.as_bytes(), &[next]].concat().into()
}

/// The first key of this name, or of those after it.
fn up_to(base: &[u8], name: &str, keys: Keys) -> Bytes {
    if name.contains('\0') {
        behind(base, name, keys)
    } else {
        [base, name.as_bytes()].concat().into()
    }
}
