//! What a request's path names.

/// A path, decoded once as a whole and cut at its first slashes. Object names keep every slash and
/// dot that they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    Healthcheck,
    Info,
    /// An auth endpoint, which may name the account.
    Auth(Option<&'a str>),
    Api(Path<'a>),
}

/// An account, a container in it, an object in that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path<'a> {
    pub(crate) account: &'a str,
    pub(crate) place: Place<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    Account,
    Container(&'a str),
    Object(&'a str, &'a str),
}

/// Why a path names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadPath {
    /// 404
    Nothing,
    /// 412 "Bad URL": a version and nothing else.
    VersionOnly,
    /// 400
    UnknownVersion,
}

impl<'a> Path<'a> {
    pub(crate) fn container(&self) -> Option<&'a str> {
        match self.place {
            Place::Account => None,
            Place::Container(container) | Place::Object(container, _) => Some(container),
        }
    }
}

impl<'a> Target<'a> {
    pub(crate) fn parse(path: &'a str) -> Result<Self, BadPath> {
        match path {
            "/healthcheck" => return Ok(Self::Healthcheck),
            "/info" => return Ok(Self::Info),
            "/auth/v1.0" | "/auth/auth" => return Ok(Self::Auth(None)),
            _ => {}
        }
        let path = path.strip_prefix('/').unwrap_or(path);
        if let Some(account) = path
            .strip_prefix("auth/v1/")
            .and_then(|rest| rest.strip_suffix("/auth"))
            .filter(|account| !account.is_empty() && !account.contains('/'))
        {
            return Ok(Self::Auth(Some(account)));
        }
        let (version, rest) = path.split_once('/').unwrap_or((path, ""));
        match (version, rest) {
            ("", _) => Err(BadPath::Nothing),
            (_, "") => Err(BadPath::VersionOnly),
            ("v1" | "v1.0", rest) => parse_api(rest).map(Self::Api).ok_or(BadPath::Nothing),
            _ => Err(BadPath::UnknownVersion),
        }
    }
}

/// `account[/[container[/[object]]]]`
fn parse_api(path: &str) -> Option<Path<'_>> {
    let (account, rest) = path.split_once('/').unwrap_or((path, ""));
    let place = match rest.split_once('/') {
        None if rest.is_empty() => Place::Account,
        None => Place::Container(rest),
        Some(("", _)) => return None,
        Some((container, "")) => Place::Container(container),
        Some((container, object)) => Place::Object(container, object),
    };
    (!account.is_empty()).then_some(Path { account, place })
}

/// `[/]container/object`, as headers name the other end of a copy.
pub(crate) fn container_and_object(value: &str) -> Option<(&str, &str)> {
    let value = value.strip_prefix('/').unwrap_or(value);
    let (container, object) = value.split_once('/')?;
    (!container.is_empty() && !object.is_empty()).then_some((container, object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn api<'a>(account: &'a str, place: Place<'a>) -> Result<Target<'a>, BadPath> {
        Ok(Target::Api(Path { account, place }))
    }

    #[test]
    fn paths() {
        use Place::{Account, Container, Object};
        for (path, expected) in [
            ("/", Err(BadPath::Nothing)),
            ("", Err(BadPath::Nothing)),
            ("//v1/a", Err(BadPath::Nothing)),
            ("/v1", Err(BadPath::VersionOnly)),
            ("/v1/", Err(BadPath::VersionOnly)),
            ("/v2/a", Err(BadPath::UnknownVersion)),
            ("/v1//c", Err(BadPath::Nothing)),
            ("/v1/a//o", Err(BadPath::Nothing)),
            ("/v1/a//", Err(BadPath::Nothing)),
            ("/v1/a", api("a", Account)),
            ("/v1.0/a/", api("a", Account)),
            ("/v1/a/c", api("a", Container("c"))),
            ("/v1/a/c/", api("a", Container("c"))),
            ("/v1/a/c/o", api("a", Object("c", "o"))),
            ("/v1/a/c//", api("a", Object("c", "/"))),
            ("/v1/a/c/../x//y/", api("a", Object("c", "../x//y/"))),
            ("/healthcheck", Ok(Target::Healthcheck)),
            ("/info", Ok(Target::Info)),
            ("/auth/v1.0", Ok(Target::Auth(None))),
            ("/auth/v1/test/auth", Ok(Target::Auth(Some("test")))),
            ("/auth/v1//auth", Err(BadPath::UnknownVersion)),
        ] {
            assert_eq!(Target::parse(path), expected, "{path}");
        }
    }

    #[test]
    fn ends_of_a_copy() {
        assert_eq!(container_and_object("/c/o/p"), Some(("c", "o/p")));
        assert_eq!(container_and_object("c/o"), Some(("c", "o")));
        for bad in ["", "/", "c", "c/", "/c/", "//o", "//c/o"] {
            assert_eq!(container_and_object(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn anything_parses_or_not(path in "[/va.1c%]*") {
            let _ = Target::parse(&path);
        }
    }
}
