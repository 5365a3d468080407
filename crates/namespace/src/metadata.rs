//! Headers that are kept with an account, a container or an object.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Header names in lower case, complete (`x-object-meta-colour`, `content-disposition`,
/// `x-container-read`), with their values as they came. What they mean is the front door's, but for
/// the quotas, which the namespace enforces. Their values are decimal digits; what is not counts as
/// no quota:
///
/// - of a container `x-container-meta-quota-bytes` and `x-container-meta-quota-count`,
/// - of an account `x-account-quota-bytes` (or else the older `x-account-meta-quota-bytes`) and
///   `x-account-quota-count`; and while there is one policy only, the same names with `-policy-` and
///   its name after them mean the same (the least binds).
pub type Metadata = BTreeMap<String, Bytes>;

/// A merge into existing metadata: a value sets, `None` removes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataChange(pub BTreeMap<String, Option<Bytes>>);

/// Bounds on the headers that start with `prefix`, names counted without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataLimits {
    pub prefix: Cow<'static, str>,
    pub count_max: usize,
    /// Sum of all names and values.
    pub bytes_max: usize,
}

impl MetadataChange {
    /// The metadata after the merge.
    ///
    /// # Errors
    /// [`Error::Limit`] if that is beyond the limits. A merge that sets nothing is always allowed:
    /// what is there already may be removed piece by piece, whatever the limits are now.
    pub(crate) fn merge(
        &self,
        mut metadata: Metadata,
        limits: &MetadataLimits,
    ) -> Result<Metadata, Error> {
        let mut sets = false;
        for (name, value) in &self.0 {
            match value {
                Some(value) => {
                    sets = true;
                    metadata.insert(name.clone(), value.clone());
                }
                None => {
                    metadata.remove(name);
                }
            }
        }
        if sets {
            limits.check(&metadata)?;
        }
        Ok(metadata)
    }
}

impl MetadataLimits {
    fn check(&self, metadata: &Metadata) -> Result<(), Error> {
        let (mut count, mut bytes) = (0, 0);
        for (name, value) in metadata {
            if let Some(name) = name.strip_prefix(&*self.prefix) {
                count += 1;
                bytes += name.len() + value.len();
            }
        }
        if count > self.count_max {
            let max = self.count_max;
            return Err(Error::Limit(format!("Too many metadata items; max {max}")));
        }
        if bytes > self.bytes_max {
            let max = self.bytes_max;
            return Err(Error::Limit(format!("Total metadata too large; max {max}")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: MetadataLimits = MetadataLimits {
        prefix: Cow::Borrowed("x-"),
        count_max: 2,
        bytes_max: 10,
    };

    fn metadata(pairs: &[(&str, &'static str)]) -> Metadata {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), Bytes::from_static(value.as_bytes())))
            .collect()
    }

    fn check(
        before: &[(&str, &'static str)],
        change: &[(&str, Option<&'static str>)],
        after: Result<&[(&str, &'static str)], &str>,
    ) {
        let change = change.iter().map(|(name, value)| {
            let value = value.map(|value| Bytes::from_static(value.as_bytes()));
            ((*name).to_owned(), value)
        });
        let merged = MetadataChange(change.collect()).merge(metadata(before), &LIMITS);
        let expected = after
            .map(metadata)
            .map_err(|text| Error::Limit(text.into()));
        assert_eq!(merged, expected);
    }

    #[test]
    fn values_set_and_nothing_removes() {
        check(
            &[("x-a", "1"), ("x-b", "2")],
            &[("x-a", None), ("x-c", Some("3")), ("x-d", None)],
            Ok(&[("x-b", "2"), ("x-c", "3")]),
        );
    }

    #[test]
    fn the_whole_is_limited_and_other_names_are_not_counted() {
        let two = [("x-a", "1"), ("x-b", "2")];
        check(
            &two,
            &[("x-c", Some("3"))],
            Err("Too many metadata items; max 2"),
        );
        check(
            &two,
            &[("x-b", Some("1234567"))],
            Ok(&[("x-a", "1"), ("x-b", "1234567")]),
        );
        check(
            &two,
            &[("x-b", Some("12345678"))],
            Err("Total metadata too large; max 10"),
        );
        check(
            &[],
            &[("other", Some("a long value"))],
            Ok(&[("other", "a long value")]),
        );
    }

    #[test]
    fn removing_is_always_allowed() {
        let three = [("x-a", "1"), ("x-b", "2"), ("x-c", "3"), ("x-d", "4")];
        check(&three, &[("x-d", None)], Ok(&three[..3]));
    }
}
