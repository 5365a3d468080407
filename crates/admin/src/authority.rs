//! Who may use the control API.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use namespace::{Namespace, Role};

/// The door through which a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Whoever could open it owns the data directory.
    Socket,
    Tcp,
}

/// What the credentials of a request are good for.
#[derive(Debug)]
pub(crate) enum Verdict {
    Granted,
    /// None, or wrong ones.
    Unknown,
    /// Right ones, of somebody who is no reseller.
    Denied,
}

/// Judges a request. Asks the namespace only if there is something to verify.
pub(crate) async fn judge(
    door: Door,
    authorization: Option<&HeaderValue>,
    namespace: &Namespace,
) -> Result<Verdict, namespace::Error> {
    if door == Door::Socket {
        return Ok(Verdict::Granted);
    }
    let Some(basic) = authorization.and_then(Basic::of) else {
        return Ok(Verdict::Unknown);
    };
    let users = namespace.users();
    let user = users.verify(&basic.account, &basic.name, &basic.password);
    Ok(match user.await?.map(|user| user.role) {
        None => Verdict::Unknown,
        Some(Role::Reseller) => Verdict::Granted,
        Some(Role::Owner | Role::Member) => Verdict::Denied,
    })
}

/// Credentials as HTTP's Basic scheme carries them. A user is named `account:user`, so the password
/// begins behind the second colon.
struct Basic {
    account: String,
    name: String,
    password: String,
}

impl Basic {
    fn of(header: &HeaderValue) -> Option<Self> {
        let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = STANDARD.decode(encoded.trim()).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let mut parts = text.splitn(3, ':').map(str::to_owned);
        Some(Self {
            account: parts.next()?,
            name: parts.next()?,
            password: parts.next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(header: &str) -> Option<(String, String, String)> {
        let basic = Basic::of(&HeaderValue::from_str(header).unwrap())?;
        Some((basic.account, basic.name, basic.password))
    }

    #[test]
    fn a_password_may_have_colons_and_a_user_may_not() {
        let encoded = STANDARD.encode("main:admin:se:cret");
        let own = |text: &str| text.to_owned();
        let expected = Some((own("main"), own("admin"), own("se:cret")));
        assert_eq!(parse(&format!("Basic {encoded}")), expected);
        assert_eq!(parse(&format!("bAsIc  {encoded}")), expected);
    }

    #[test]
    fn anything_else_is_no_credentials() {
        let two = STANDARD.encode("main:admin");
        let bytes = STANDARD.encode(b"a:b:\xff");
        for header in [
            "",
            "Basic",
            "Basic !!!",
            "Bearer bWFpbjphZG1pbjpwdw==",
            &format!("Basic {two}"),
            &format!("Basic {bytes}"),
        ] {
            assert_eq!(parse(header), None, "{header}");
        }
    }
}
