//! The ACL of an account: `X-Account-Access-Control`, a JSON object of three lists.

use std::collections::BTreeMap;

use serde_json::Value;

/// What an account's ACL grants, from most to least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    Admin,
    ReadWrite,
    ReadOnly,
}

const GRANTS: [(&str, Grant); 3] = [
    ("admin", Grant::Admin),
    ("read-write", Grant::ReadWrite),
    ("read-only", Grant::ReadOnly),
];

type Lists = BTreeMap<String, Vec<String>>;

/// What a stored ACL grants to whoever is in these groups.
pub(crate) fn grant<'a>(
    stored: &[u8],
    groups: impl Iterator<Item = &'a str> + Clone,
) -> Option<Grant> {
    // What is stored was clean; if it is not now, it grants nothing.
    let lists: Lists = serde_json::from_slice(stored).ok()?;
    let found = GRANTS.iter().find(|(name, _)| {
        let mut members = lists.get(*name).into_iter().flatten();
        members.any(|member| groups.clone().any(|group| group == member))
    });
    found.map(|(_, grant)| *grant)
}

/// Brings an ACL into the form that is stored: compact, keys sorted, ASCII. `None` if it grants
/// nothing; an error says what is wrong.
pub(crate) fn clean(text: &str) -> Result<Option<String>, String> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let Ok(Value::Object(given)) = serde_json::from_str(text) else {
        return Err("X-Account-Access-Control must be a JSON object".to_owned());
    };
    let mut lists = Lists::new();
    for (name, members) in given {
        if !GRANTS.iter().any(|(known, _)| *known == name) {
            return Err(format!(
                "X-Account-Access-Control has an unknown key {name:?}"
            ));
        }
        let members: Vec<String> = serde_json::from_value(members)
            .map_err(|_| format!("X-Account-Access-Control: {name:?} must be a list of strings"))?;
        lists.insert(name, members);
    }
    if lists.is_empty() {
        return Ok(None);
    }
    let json = serde_json::to_string(&lists).map_err(|error| error.to_string())?;
    Ok(Some(crate::json::ascii(&json)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cleaning() {
        for (given, expected) in [
            ("", None),
            ("{}", None),
            (
                r#"{"read-only": ["b"], "admin": ["a", "é"]}"#,
                Some(r#"{"admin":["a","\u00e9"],"read-only":["b"]}"#),
            ),
        ] {
            assert_eq!(clean(given).unwrap().as_deref(), expected, "{given}");
        }
        for bad in [
            "x",
            "[]",
            "1",
            r#"{"other":[]}"#,
            r#"{"admin":"a"}"#,
            r#"{"admin":[1]}"#,
        ] {
            assert!(clean(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_greatest_grant_counts() {
        let stored = br#"{"admin":["a"],"read-only":["a","b"],"read-write":["c"]}"#;
        let of = |group| grant(stored, std::iter::once(group));
        assert_eq!(of("a"), Some(Grant::Admin));
        assert_eq!(of("b"), Some(Grant::ReadOnly));
        assert_eq!(of("c"), Some(Grant::ReadWrite));
        assert_eq!(of("d"), None);
        assert_eq!(grant(b"broken", std::iter::once("a")), None);
    }

    proptest! {
        #[test]
        fn anything_is_clean_or_not(text in ".*") {
            let _ = clean(&text);
        }
    }
}
