//! Metadata in requests: what is taken, what is refused.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use namespace::{Metadata, MetadataChange, MetadataLimits};

use crate::account_acl;
use crate::acl::{self, Right};
use crate::authorise::Standing;
use crate::config::{META_BYTES_MAX, META_COUNT_MAX, META_NAME_BYTES_MAX, META_VALUE_BYTES_MAX};
use crate::quota;
use crate::respond::Refusal;

/// What the headers of an account or a container begin with.
pub(crate) struct Kind {
    /// User metadata.
    pub(crate) prefix: &'static str,
    /// All of them.
    all: &'static str,
    /// The order to remove one.
    remove: &'static str,
}

pub(crate) const ACCOUNT: Kind = Kind {
    prefix: "x-account-meta-",
    all: "x-account-",
    remove: "x-remove-account-",
};
pub(crate) const CONTAINER: Kind = Kind {
    prefix: "x-container-meta-",
    all: "x-container-",
    remove: "x-remove-container-",
};
pub(crate) const OBJECT_PREFIX: &str = "x-object-meta-";

impl Kind {
    pub(crate) fn limits(&self) -> MetadataLimits {
        MetadataLimits {
            prefix: self.prefix.into(),
            count_max: META_COUNT_MAX,
            bytes_max: META_BYTES_MAX,
        }
    }
}

/// Headers besides user metadata that are kept with an object and shown with it.
const OBJECT_KEEPS: [&str; 7] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    "x-object-manifest",
    "x-robots-tag",
];

/// Whether a header belongs to what is kept with an object.
pub(crate) fn is_kept_with_object(name: &str) -> bool {
    name.starts_with(OBJECT_PREFIX) || OBJECT_KEEPS.contains(&name)
}

/// Headers besides user metadata that are kept with a container.
const CONTAINER_KEEPS: [&str; 4] = [
    "x-container-read",
    "x-container-write",
    "x-container-sync-key",
    "x-container-sync-to",
];

/// Headers that only owners see and set.
const OWNERS_ONLY: [&str; 9] = [
    "x-account-access-control",
    "x-account-meta-temp-url-key",
    "x-account-meta-temp-url-key-2",
    "x-container-meta-temp-url-key",
    "x-container-meta-temp-url-key-2",
    "x-container-read",
    "x-container-sync-key",
    "x-container-sync-to",
    "x-container-write",
];

/// Metadata as headers of an answer.
pub(crate) fn show(metadata: &Metadata, standing: Standing, to: &mut HeaderMap) {
    for (name, value) in metadata {
        if !standing.is_owner() && OWNERS_ONLY.contains(&name.as_str()) {
            continue;
        }
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_maybe_shared(value.clone());
        // What is stored was a header once.
        if let (Ok(name), Ok(value)) = (name, value) {
            to.insert(name, value);
        }
    }
}

/// What a PUT or POST of a container changes.
pub(crate) fn container_change(
    headers: &HeaderMap,
    standing: Standing,
) -> Result<MetadataChange, Refusal> {
    check(headers, CONTAINER.prefix)?;
    let mut change = change(headers, &CONTAINER, &CONTAINER_KEEPS, standing)?;
    for (name, right) in [
        ("x-container-read", Right::Read),
        ("x-container-write", Right::Write),
    ] {
        if let Some(Some(value)) = change.get_mut(name) {
            let text = std::str::from_utf8(value).unwrap_or_default();
            *value = acl::clean(right, text).map_err(Refusal::bad)?.into();
        }
    }
    quota::check_container(&change)?;
    Ok(MetadataChange(change))
}

/// What a PUT or POST of an account changes.
pub(crate) fn account_change(
    headers: &HeaderMap,
    standing: Standing,
) -> Result<MetadataChange, Refusal> {
    check(headers, ACCOUNT.prefix)?;
    let mut change = change(headers, &ACCOUNT, &["x-account-access-control"], standing)?;
    if let Some(acl @ Some(_)) = change.get_mut("x-account-access-control") {
        let text = acl
            .as_deref()
            .and_then(|value| std::str::from_utf8(value).ok());
        let clean = account_acl::clean(text.unwrap_or("x")).map_err(Refusal::bad)?;
        *acl = clean.map(Bytes::from);
    }
    quota::change_account(headers, standing, &mut change)?;
    Ok(MetadataChange(change))
}

pub(crate) type Change = BTreeMap<String, Option<Bytes>>;

fn change(
    headers: &HeaderMap,
    kind: &Kind,
    keeps: &[&str],
    standing: Standing,
) -> Result<Change, Refusal> {
    let mut change = Change::new();
    // Removals first: where a header is set and removed at once, it is set.
    for name in headers.keys() {
        let Some(rest) = name.as_str().strip_prefix(kind.remove) else {
            continue;
        };
        let removed = format!("{}{rest}", kind.all);
        if is_taken(&removed, kind, keeps, standing) {
            change.insert(removed, None);
        }
    }
    for (name, value) in headers {
        if is_taken(name.as_str(), kind, keeps, standing) {
            let value = value.as_bytes();
            if std::str::from_utf8(value).is_err() {
                return Err(Refusal::bad("Metadata must be valid UTF-8"));
            }
            let value = (!value.is_empty()).then(|| Bytes::copy_from_slice(value));
            change.insert(name.as_str().to_owned(), value);
        }
    }
    Ok(change)
}

fn is_taken(name: &str, kind: &Kind, keeps: &[&str], standing: Standing) -> bool {
    let known = name.starts_with(kind.prefix) || keeps.contains(&name);
    known && (standing.is_owner() || !OWNERS_ONLY.contains(&name))
}

/// What a PUT or POST of an object keeps.
pub(crate) fn of_object(headers: &HeaderMap) -> Result<Metadata, Refusal> {
    check(headers, OBJECT_PREFIX)?;
    let kept = headers.iter().filter(|(name, value)| {
        let name = name.as_str();
        let is_meta = name.starts_with(OBJECT_PREFIX);
        is_meta || OBJECT_KEEPS.contains(&name) && !value.is_empty()
    });
    let metadata = kept.map(|(name, value)| {
        let value = Bytes::copy_from_slice(value.as_bytes());
        (name.as_str().to_owned(), value)
    });
    Ok(metadata.collect())
}

/// Checks a request's user metadata against the limits of `/info`.
fn check(headers: &HeaderMap, prefix: &str) -> Result<(), Refusal> {
    let (mut count, mut bytes) = (0, 0);
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix(prefix) else {
            continue;
        };
        check_one(name, value)?;
        if !value.is_empty() || prefix == OBJECT_PREFIX {
            count += 1;
            bytes += name.len() + value.len();
        }
    }
    if count > META_COUNT_MAX {
        let sentence = format!("Too many metadata items; max {META_COUNT_MAX}");
        return Err(Refusal::bad(sentence));
    }
    if bytes > META_BYTES_MAX {
        let sentence = format!("Total metadata too large; max {META_BYTES_MAX}");
        return Err(Refusal::bad(sentence));
    }
    Ok(())
}

fn check_one(name: &str, value: &HeaderValue) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(Refusal::bad("Metadata name cannot be empty"));
    }
    if name.len() > META_NAME_BYTES_MAX {
        let sentence = format!("Metadata name too long; max {META_NAME_BYTES_MAX}");
        return Err(Refusal::bad(sentence));
    }
    if value.len() > META_VALUE_BYTES_MAX {
        let sentence = format!("Metadata value longer than {META_VALUE_BYTES_MAX}: {name}");
        return Err(Refusal::bad(sentence));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(pairs: &[(&str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            (name, HeaderValue::from_str(value).unwrap())
        });
        pairs.collect()
    }

    fn changes(standing: Standing, pairs: &[(&str, &str)]) -> String {
        let Ok(change) = container_change(&head(pairs), standing) else {
            return "refused".to_owned();
        };
        let each = change.0.iter().map(|(name, value)| match value {
            Some(value) => format!("{name}={}", String::from_utf8_lossy(value)),
            None => format!("-{name}"),
        });
        each.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_a_container_takes() {
        use Standing::{Guest, Owner};
        for (standing, given, expected) in [
            (Owner, ("x-container-meta-a", "1"), "x-container-meta-a=1"),
            (Owner, ("x-container-meta-a", ""), "-x-container-meta-a"),
            (
                Owner,
                ("x-remove-container-meta-a", "x"),
                "-x-container-meta-a",
            ),
            (
                Owner,
                ("x-container-read", ".r:*, a"),
                "x-container-read=.r:*,a",
            ),
            (Owner, ("x-remove-container-read", "x"), "-x-container-read"),
            (Guest, ("x-container-read", "a"), ""),
            (Guest, ("x-remove-container-read", "a"), ""),
            (Guest, ("x-container-meta-temp-url-key", "a"), ""),
            (Owner, ("x-container-sysmeta-a", "a"), ""),
            (Owner, ("x-container-write", ".r:*"), "refused"),
            (Owner, ("x-container-meta-", "1"), "refused"),
            (Owner, ("x-container-meta-quota-bytes", "ten"), "refused"),
        ] {
            assert_eq!(changes(standing, &[given]), expected, "{given:?}");
        }
    }

    #[test]
    fn setting_wins_over_removing() {
        let both = [
            ("x-remove-container-meta-a", "x"),
            ("x-container-meta-a", "1"),
        ];
        assert_eq!(changes(Standing::Owner, &both), "x-container-meta-a=1");
    }

    #[test]
    fn limits() {
        let name = |n: usize| format!("x-object-meta-{}", "n".repeat(n));
        let ok = |name: &str, value: &str| of_object(&head(&[(name, value)])).is_ok();
        assert!(ok(&name(128), "") && !ok(&name(129), "") && !ok(&name(0), "x"));
        assert!(ok(&name(1), &"v".repeat(256)) && !ok(&name(1), &"v".repeat(257)));

        let many = |count: usize, value: &str| {
            let names: Vec<_> = (0..count)
                .map(|n| format!("x-object-meta-{n:04}"))
                .collect();
            let pairs: Vec<_> = names.iter().map(|name| (name.as_str(), value)).collect();
            of_object(&head(&pairs)).is_ok()
        };
        assert!(many(90, "") && !many(91, ""));
        assert!(many(16, &"v".repeat(252)) && !many(16, &"v".repeat(253)));
    }
}
