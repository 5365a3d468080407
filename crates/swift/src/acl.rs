//! Access control lists: what owners write in them, and what they grant.
//!
//! A container has one list of who may read and one of who may write: groups, users as
//! `account:user`, and for reading referrers (`.r:*`, `.r:.example.com`, `.r:-bad.example.com`) and
//! `.rlistings`. An account has one JSON document. All of this is Swift's language; nothing in it
//! is a pattern but the referrers.

use std::collections::BTreeMap;

use crate::json;

/// Which of a container's two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
    Read,
    Write,
}

/// Brings a container's list into the form in which it is stored and shown.
///
/// # Errors
/// A sentence for the client.
pub(crate) fn clean(list: List, raw: &str) -> Result<String, String> {
    let items = raw
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty());
    let clean: Result<Vec<String>, String> = items.map(|item| clean_item(list, item)).collect();
    Ok(clean?.join(","))
}

fn clean_item(list: List, item: &str) -> Result<String, String> {
    let Some((kind, host)) = item.split_once(':').map(|(a, b)| (a.trim(), b.trim())) else {
        return Ok(item.to_owned());
    };
    match kind {
        ".r" | ".ref" | ".referer" | ".referrer" => {}
        other if other.starts_with('.') => {
            return Err(format!("Unknown designator {other} in ACL: {item}"));
        }
        _ => return Ok(item.to_owned()),
    }
    if list == List::Write {
        return Err(format!("Referrers not allowed in write ACL: {item}"));
    }
    let (minus, host) = match host.strip_prefix('-') {
        Some(host) => ("-", host.trim()),
        None => ("", host),
    };
    let host = match host.strip_prefix('*') {
        Some(domain) if !domain.is_empty() => domain.trim(),
        _ => host,
    };
    if host.is_empty() || host == "." {
        return Err(format!(
            "No host or domain after the referrer designation in ACL: {item}"
        ));
    }
    Ok(format!(".r:{minus}{host}"))
}

/// What a container's list grants to those who are not owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    Nothing,
    /// Reading objects, for the page that the request was sent from.
    Objects,
    /// All that the list is about.
    Everything,
}

/// What `acl` (cleaned) grants to a member of `groups` whose request has this `Referer`.
pub(crate) fn grant(acl: &str, groups: &[impl AsRef<str>], referrer: Option<&str>) -> Grant {
    let mut listed = false;
    let mut listings = false;
    let host = referrer_host(referrer);
    let mut referred = false;
    for item in acl.split(',').filter(|item| !item.is_empty()) {
        if let Some(pattern) = item.strip_prefix(".r:") {
            referred = judge(pattern, &host, referred);
        } else {
            let item = gateway::percent::decode(item);
            listings |= *item == *b".rlistings";
            listed |= groups
                .iter()
                .any(|group| group.as_ref().as_bytes() == &*item);
        }
    }
    match (listed, referred, listings) {
        (true, ..) | (_, true, true) => Grant::Everything,
        (_, true, false) => Grant::Objects,
        (_, false, _) => Grant::Nothing,
    }
}

/// What is so far decided of `host`, `referred`, after one more pattern: the last that fits holds.
fn judge(pattern: &str, host: &str, referred: bool) -> bool {
    let (grants, pattern) = match pattern.strip_prefix('-') {
        Some(pattern) => (false, pattern),
        None => (true, pattern),
    };
    let fits = (pattern == "*" && grants)
        || pattern.eq_ignore_ascii_case(host)
        || (pattern.starts_with('.') && host.ends_with(&pattern.to_ascii_lowercase()));
    if fits { grants } else { referred }
}

/// The host that a `Referer` names, in lower case; `unknown` if there is none.
fn referrer_host(referrer: Option<&str>) -> String {
    let uri = referrer.and_then(|referrer| referrer.trim().parse::<http::Uri>().ok());
    let host = uri.as_ref().and_then(http::Uri::host);
    host.unwrap_or("unknown").to_ascii_lowercase()
}

/// What an account's list grants, from little to much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Access {
    Nothing,
    /// GET and HEAD of everything.
    ReadOnly,
    /// All but changing the account itself.
    ReadWrite,
    /// What an owner may.
    Admin,
}

/// An account's list: group → access.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AccountAcl(BTreeMap<String, Vec<String>>);

const KEYS: [(&str, Access); 3] = [
    ("admin", Access::Admin),
    ("read-write", Access::ReadWrite),
    ("read-only", Access::ReadOnly),
];

impl AccountAcl {
    /// # Errors
    /// A sentence for the client.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let document: serde_json::Value = serde_json::from_str(text)
            .map_err(|_| format!("X-Account-Access-Control is not valid JSON: {text}"))?;
        let serde_json::Value::Object(fields) = document else {
            return Err("X-Account-Access-Control must be a JSON object".to_owned());
        };
        let mut lists = BTreeMap::new();
        for (key, value) in fields {
            if !KEYS.iter().any(|(known, _)| *known == key) {
                return Err(format!("X-Account-Access-Control: unknown key '{key}'"));
            }
            let list: Vec<String> = serde_json::from_value(value).map_err(|_| {
                format!("X-Account-Access-Control: '{key}' must be a list of strings")
            })?;
            lists.insert(key, list);
        }
        Ok(Self(lists))
    }

    /// As stored and shown: compact, keys in order, ASCII alone. `None` if it grants nothing.
    pub(crate) fn canonical(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| json::ascii(&self.0))
    }

    /// What it grants to a member of `groups`.
    pub(crate) fn access(&self, groups: &[impl AsRef<str>]) -> Access {
        let grants = |key: &str| {
            let listed = self.0.get(key).map_or(&[][..], Vec::as_slice);
            listed
                .iter()
                .any(|item| groups.iter().any(|group| group.as_ref() == item))
        };
        let granted = KEYS.iter().find(|(key, _)| grants(key));
        granted.map_or(Access::Nothing, |(_, access)| *access)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_are_cleaned() {
        for (raw, clean_form) in [
            ("", Some("")),
            (" a , b:c ,, ", Some("a,b:c")),
            (".r:*", Some(".r:*")),
            (
                " .ref : *.example.com ,.rlistings",
                Some(".r:.example.com,.rlistings"),
            ),
            (".referrer:-bad.example.com", Some(".r:-bad.example.com")),
            (".referer: - *.bad.com", Some(".r:-.bad.com")),
            (".r:", None),
            (".r:-", None),
            (".r:*.", None),
            (".x:y", None),
        ] {
            assert_eq!(clean(List::Read, raw).ok().as_deref(), clean_form, "{raw}");
        }
        assert!(clean(List::Write, ".r:*").is_err());
        assert_eq!(clean(List::Write, "a:b, c").unwrap(), "a:b,c");
    }

    #[test]
    fn groups_match_to_the_letter() {
        let granted = |acl, group| grant(acl, &[group], None);
        assert_eq!(granted("test:tester3", "test:tester3"), Grant::Everything);
        assert_eq!(granted("test", "test:tester3"), Grant::Nothing);
        assert_eq!(granted("a%20b", "a b"), Grant::Everything);
        assert_eq!(granted("*", "test"), Grant::Nothing);
        assert_eq!(granted("", ""), Grant::Nothing);
    }

    #[test]
    fn the_last_referrer_that_fits_decides() {
        let granted = |acl, referrer| grant(acl, &[] as &[&str], referrer);
        let page = Some("http://WWW.Example.com:81/page");
        assert_eq!(granted(".r:*", None), Grant::Objects);
        assert_eq!(granted(".r:*,.rlistings", None), Grant::Everything);
        assert_eq!(granted(".rlistings", None), Grant::Nothing);
        assert_eq!(granted(".r:.example.com", page), Grant::Objects);
        assert_eq!(granted(".r:example.com", page), Grant::Nothing);
        assert_eq!(granted(".r:*,.r:-.example.com", page), Grant::Nothing);
        assert_eq!(granted(".r:-.example.com,.r:*", page), Grant::Objects);
        assert_eq!(granted(".r:*,.r:-unknown", None), Grant::Nothing);
        assert_eq!(granted(".r:www.example.com", page), Grant::Objects);
        assert_eq!(
            granted(".r:.example.com", Some("not a url")),
            Grant::Nothing
        );
    }

    #[test]
    fn account_lists() {
        let acl = AccountAcl::parse(r#"{"read-only": ["b", "é"], "admin": ["a", "b"]}"#).unwrap();
        let canonical = r#"{"admin":["a","b"],"read-only":["b","\u00e9"]}"#;
        assert_eq!(acl.canonical().as_deref(), Some(canonical));
        assert_eq!(acl.access(&["b"]), Access::Admin);
        assert_eq!(acl.access(&["x", "é"]), Access::ReadOnly);
        assert_eq!(acl.access(&["x"]), Access::Nothing);
        for empty in ["", "{}", " "] {
            assert_eq!(AccountAcl::parse(empty).unwrap().canonical(), None);
        }
        for bad in [
            "invalid",
            "[]",
            r#"{"x":[]}"#,
            r#"{"admin":"a"}"#,
            r#"{"admin":[1]}"#,
        ] {
            assert!(AccountAcl::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged(raw in ".*", referrer in ".*") {
            if let Ok(once) = clean(List::Read, &raw) {
                prop_assert_eq!(clean(List::Read, &once), Ok(once.clone()));
                grant(&once, &["a"], Some(&referrer));
            }
            let _ = AccountAcl::parse(&raw);
        }
    }
}
