//! Container ACLs: `X-Container-Read` and `X-Container-Write`.

use std::borrow::Cow;

use gateway::percent;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    Read,
    Write,
}

/// An ACL as it is stored: clean, elements separated by commas.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acl<'a>(pub(crate) &'a str);

impl<'a> Acl<'a> {
    fn elements(self) -> impl Iterator<Item = &'a str> {
        self.0.split(',').filter(|element| !element.is_empty())
    }

    /// Whether it names one of these groups.
    pub(crate) fn names<'b>(self, groups: impl Iterator<Item = &'b str>) -> bool {
        let mut groups = groups;
        groups.any(|group| {
            let mut elements = self.elements();
            elements.any(|element| element == group || decoded(element) == group)
        })
    }

    /// Whether whoever comes from this page may have objects. The last element that fits decides.
    pub(crate) fn admits_referrer(self, referrer: Option<&str>) -> bool {
        let host = referrer.map_or("unknown", host);
        let hosts = self
            .elements()
            .filter_map(|element| element.strip_prefix(".r:"));
        hosts.fold(false, |admitted, given| match given.strip_prefix('-') {
            Some(denied) => admitted && !fits(denied, host),
            None => admitted || fits(given, host),
        })
    }

    /// Whether those whom a referrer admits may also list.
    pub(crate) fn lists_for_referrers(self) -> bool {
        self.elements().any(|element| element == ".rlistings")
    }
}

/// What is not percent-encoded stands for itself, so that an ACL never means more than it says.
fn decoded(element: &str) -> Cow<'_, str> {
    percent::decode_utf8(element).unwrap_or(Cow::Borrowed(element))
}

/// The host of a URL, without port and user; `unknown` where there is none.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    let host = authority.rsplit('@').next().unwrap_or("");
    let host = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or(""),
    };
    if host.is_empty() { "unknown" } else { host }
}

/// `*` fits all, `.domain` all hosts below, anything else only itself.
fn fits(given: &str, host: &str) -> bool {
    let same = |one: &str, other: &str| one.eq_ignore_ascii_case(other);
    match given.strip_prefix('.') {
        _ if given == "*" => true,
        Some(_) => host
            .len()
            .checked_sub(given.len())
            .and_then(|at| host.get(at..))
            .is_some_and(|end| same(end, given)),
        None => same(given, host),
    }
}

/// Brings an ACL into the form that is stored, or says what is wrong with it.
pub(crate) fn clean(right: Right, text: &str) -> Result<String, String> {
    let elements = text.split(',').map(str::trim).filter(|e| !e.is_empty());
    let clean = elements.map(|element| clean_element(right, element));
    Ok(clean.collect::<Result<Vec<_>, _>>()?.join(","))
}

fn clean_element(right: Right, element: &str) -> Result<String, String> {
    let Some((kind, value)) = element.split_once(':') else {
        return Ok(element.to_owned());
    };
    let (kind, value) = (kind.trim(), value.trim());
    if !kind.starts_with('.') {
        return Ok(format!("{kind}:{value}"));
    }
    if !matches!(kind, ".r" | ".ref" | ".referer" | ".referrer") {
        return Err(format!("Unknown designator {kind:?} in ACL: {element:?}"));
    }
    if right == Right::Write {
        return Err(format!("Referrers not allowed in write ACL: {element:?}"));
    }
    let (sign, host) = match value.strip_prefix('-') {
        Some(host) => ("-", host.trim()),
        None => ("", value),
    };
    let host = match host.strip_prefix('*') {
        Some(domain) if !domain.is_empty() => domain.trim(),
        _ => host,
    };
    if host.is_empty() || host == "." {
        return Err(format!(
            "No host/domain value after referrer designation in ACL: {element:?}"
        ));
    }
    Ok(format!(".r:{sign}{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cleaning() {
        let read = |text| clean(Right::Read, text);
        for (given, expected) in [
            ("", ""),
            (" a , b:c ,, ", "a,b:c"),
            ("a : b", "a:b"),
            (".r:*, .rlistings", ".r:*,.rlistings"),
            (".ref:*,.referer:x,.referrer : y", ".r:*,.r:x,.r:y"),
            (".r:*.example.com", ".r:.example.com"),
            (".r: - *.example.com", ".r:-.example.com"),
            (".r:-x", ".r:-x"),
        ] {
            assert_eq!(read(given).as_deref(), Ok(expected), "{given}");
        }
        for bad in [".r:", ".r:-", ".r:.", ".x:y", ".r: - ", ".:*"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(clean(Right::Write, ".r:*").is_err());
        assert_eq!(clean(Right::Write, "a:b").as_deref(), Ok("a:b"));
    }

    #[test]
    fn groups_match_literally_or_decoded() {
        let groups = ["test", "test:tester", "a b"];
        let names = |acl| Acl(acl).names(groups.into_iter());
        assert!(names("x,test:tester") && names("test") && names("a%20b"));
        assert!(!names("") && !names("test:*") && !names("tes") && !names("*"));
    }

    #[test]
    fn referrers_are_judged_from_left_to_right() {
        for (acl, referrer, expected) in [
            (".r:*", None, true),
            (".r:*", Some("http://a.example.com/x"), true),
            (".r:.example.com", Some("http://a.example.com/x"), true),
            (".r:.example.com", Some("http://example.com/x"), false),
            (".r:example.com", Some("http://EXAMPLE.com:80/x"), true),
            (".r:*,.r:-.example.com", Some("http://a.example.com"), false),
            (".r:-.example.com,.r:*", Some("http://a.example.com"), true),
            (".r:unknown", None, true),
            (".r:example.com", None, false),
            (".r:example.com", Some("example.com"), false),
            (".r:evil.com", Some("http://good.com@evil.com/"), true),
            ("a,b:c", Some("http://a/"), false),
        ] {
            let admitted = Acl(acl).admits_referrer(referrer);
            assert_eq!(admitted, expected, "{acl} {referrer:?}");
        }
    }

    proptest! {
        #[test]
        fn a_clean_acl_stays_as_it_is(text in "[-.r*a:, x]*") {
            if let Ok(once) = clean(Right::Read, &text) {
                prop_assert_eq!(clean(Right::Read, &once), Ok(once.clone()));
            }
        }

        #[test]
        fn anything_is_judged(acl in ".*", referrer in ".*") {
            Acl(&acl).admits_referrer(Some(&referrer));
            Acl(&acl).names(std::iter::once("x"));
        }
    }
}
