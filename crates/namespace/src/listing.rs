//! Listings: range scans that seek past what they roll up.

/// What to list. Order is by the bytes of the names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subdirs {
    /// One [`Entry::Subdir`] for each, which counts towards the limit.
    #[default]
    Show,
    /// Left out. The name that equals the prefix is left out too (Swift's `path=`).
    Hide,
}

/// A line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry<T> {
    Row(T),
    Subdir(String),
}
