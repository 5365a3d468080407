//! Quotas as headers. The namespace enforces them; what they are called there it says itself.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::authorise::Standing;
use crate::config::POLICY;
use crate::metadata::Change;
use crate::respond::Refusal;

/// The header of old, which means the same as `x-account-quota-bytes`.
const LEGACY: &str = "x-account-meta-quota-bytes";

/// Takes account quotas from a request. Only resellers may set or remove them.
pub(crate) fn change_account(
    headers: &HeaderMap,
    standing: Standing,
    change: &mut Change,
) -> Result<(), Refusal> {
    if let Some(value) = change.remove(LEGACY) {
        change.insert("x-account-quota-bytes".to_owned(), value);
    }
    for what in ["bytes", "count"] {
        for of in [
            String::new(),
            format!("-policy-{}", POLICY.to_ascii_lowercase()),
        ] {
            let rest = format!("account-quota-{what}{of}");
            let name = format!("x-{rest}");
            if headers.contains_key(format!("x-remove-{rest}")) {
                change.insert(name.clone(), None);
            }
            if let Some(value) = headers.get(&name) {
                let value = Bytes::copy_from_slice(value.as_bytes());
                change.insert(name, (!value.is_empty()).then_some(value));
            }
        }
    }
    let mut quotas = change
        .iter()
        .filter(|(name, _)| name.starts_with("x-account-quota-"));
    if standing != Standing::Reseller && quotas.clone().next().is_some() {
        return Err(Refusal::new(StatusCode::FORBIDDEN));
    }
    match quotas.find(|(_, value)| !is_number(value.as_deref())) {
        Some(_) => Err(Refusal::bad("Invalid account quota")),
        None => Ok(()),
    }
}

/// Checks the quotas that a request sets for a container.
pub(crate) fn check_container(change: &Change) -> Result<(), Refusal> {
    for (name, sentence) in [
        ("x-container-meta-quota-bytes", "Invalid bytes quota."),
        ("x-container-meta-quota-count", "Invalid count quota."),
    ] {
        let value = change.get(name).and_then(Option::as_deref);
        if !is_number(value) {
            return Err(Refusal::bad(sentence));
        }
    }
    Ok(())
}

/// Digits that fit 64 bits, or nothing.
fn is_number(value: Option<&[u8]>) -> bool {
    let Some(value) = value else { return true };
    let digits = value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).unwrap_or_default();
    digits && text.parse::<u64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn changes(standing: Standing, name: &'static str, value: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(value).unwrap();
        headers.insert(HeaderName::from_static(name), value);
        let change = crate::metadata::account_change(&headers, standing).ok()?;
        let (name, value) = change.0.into_iter().next()?;
        let value = value.map_or("removed".into(), |v| String::from_utf8(v.into()).unwrap());
        Some(format!("{name} {value}"))
    }

    #[test]
    fn only_resellers_change_quotas() {
        for (name, value, expected) in [
            ("x-account-quota-bytes", "1", "x-account-quota-bytes 1"),
            ("x-account-quota-count", "", "x-account-quota-count removed"),
            (
                "x-remove-account-quota-count",
                "x",
                "x-account-quota-count removed",
            ),
            ("x-account-meta-quota-bytes", "1", "x-account-quota-bytes 1"),
            (
                "x-remove-account-meta-quota-bytes",
                "t",
                "x-account-quota-bytes removed",
            ),
            (
                "x-account-quota-bytes-policy-default",
                "5",
                "x-account-quota-bytes-policy-default 5",
            ),
        ] {
            let seen = changes(Standing::Reseller, name, value);
            assert_eq!(seen.as_deref(), Some(expected), "{name}");
            assert_eq!(changes(Standing::Owner, name, value), None, "{name}");
        }
        assert_eq!(
            changes(Standing::Reseller, "x-account-quota-bytes", "x"),
            None
        );
    }
}
