//! Headers that are kept with an account, a container or an object.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Header names in lower case, complete (`x-object-meta-colour`, `content-disposition`,
/// `x-container-read`), with their values as they came. What they mean is the front door's, but for
/// the quotas, which the namespace enforces. Their values are decimal digits; what is not counts as
/// no quota:
///
/// - of a container `x-container-meta-quota-bytes` and `x-container-meta-quota-count`,
/// - of an account `x-account-quota-bytes` and `x-account-quota-count`; and while there is one policy
///   only, the same names with `-policy-` and its name after them mean the same (the least binds).
pub type Metadata = BTreeMap<String, Bytes>;

/// A merge into existing metadata: a value sets, `None` removes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataChange(pub BTreeMap<String, Option<Bytes>>);

/// Bounds on the headers that start with `prefix`, names counted without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataLimits {
    pub prefix: &'static str,
    pub count_max: usize,
    /// Sum of all names and values.
    pub bytes_max: usize,
}
