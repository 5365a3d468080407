//! Tokens: who, until when, under a MAC. Nothing is stored.
//!
//! ```text
//! "AUTH_tk" base64url( format u8 = 1 | expires u64 | generation u64 | account bytes u16
//!                      | account | user | HMAC-SHA256 of all before )
//! ```
//!
//! Numbers are big-endian; times are in Unix seconds. Expiries are rounded so that a user who asks
//! again gets the same token for half of its lifetime.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use namespace::User;
use parking_lot::Mutex;
use sha2::Sha256;

use crate::identity::Identity;

const PREFIX: &str = "AUTH_tk";
const FORMAT: u8 = 1;
const MAC_BYTES: usize = 32;
const HEAD_BYTES: usize = 1 + 8 + 8 + 2;
/// What no token of ours reaches: names of users are bounded by the namespace.
const TOKEN_CHARS_MAX: usize = 4096;

/// What a token says, once its MAC is known to be ours.
pub(crate) struct Claim {
    pub(crate) account: String,
    pub(crate) user: String,
    pub(crate) generation: u64,
    pub(crate) expires: u64,
    /// Who that was when last looked up.
    identity: Mutex<Option<Arc<Identity>>>,
}

impl Claim {
    /// The identity of `user`, who is the one that the claim names.
    pub(crate) fn identity(&self, user: Arc<User>) -> Arc<Identity> {
        let mut cached = self.identity.lock();
        if let Some(identity) = &*cached
            && identity.is_of(&user)
        {
            return identity.clone();
        }
        let identity = Arc::new(Identity::new(user));
        *cached = Some(identity.clone());
        identity
    }
}

/// Makes and reads tokens.
pub(crate) struct Tokens {
    key: Hmac<Sha256>,
    /// Half of a token's longest life, in seconds.
    half_life: u64,
    cached_max: usize,
    /// Tokens whose MAC was right. Whether they still count is asked each time.
    verified: Mutex<HashMap<Box<str>, Arc<Claim>>>,
}

impl Tokens {
    pub(crate) fn new(secret: &[u8; 32], lifetime_s: u64, cached_max: usize) -> Self {
        Self {
            key: Hmac::new_from_slice(secret).expect("HMAC takes keys of any length"),
            half_life: (lifetime_s / 2).max(1),
            cached_max: cached_max.max(1),
            verified: Mutex::default(),
        }
    }

    /// A token for `user`, and when it expires.
    pub(crate) fn mint(&self, user: &User, now: u64) -> (String, u64) {
        let expires = (now / self.half_life + 2) * self.half_life;
        let account_bytes = u16::try_from(user.account.len()).unwrap_or(u16::MAX);
        let mut bytes = Vec::with_capacity(128);
        bytes.push(FORMAT);
        bytes.extend(expires.to_be_bytes());
        bytes.extend(user.generation.to_be_bytes());
        bytes.extend(account_bytes.to_be_bytes());
        bytes.extend(user.account.as_bytes());
        bytes.extend(user.name.as_bytes());
        let mac = self.key.clone().chain_update(&bytes).finalize();
        bytes.extend(mac.into_bytes());
        (format!("{PREFIX}{}", BASE64.encode(bytes)), expires)
    }

    /// What a token says, if we made it and it has not expired. Whether its user still is who it
    /// was then, the caller asks.
    pub(crate) fn read(&self, token: &str, now: u64) -> Option<Arc<Claim>> {
        let known = self.verified.lock().get(token).cloned();
        let claim = match known {
            Some(claim) => claim,
            None => self.verify(token)?,
        };
        (now < claim.expires).then_some(claim)
    }

    fn verify(&self, token: &str) -> Option<Arc<Claim>> {
        let encoded = token.strip_prefix(PREFIX)?;
        if encoded.len() > TOKEN_CHARS_MAX {
            return None;
        }
        let bytes = BASE64.decode(encoded).ok()?;
        let (signed, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC_BYTES)?)?;
        let right = self.key.clone().chain_update(signed).verify_slice(mac);
        right.ok()?;
        let claim = Arc::new(parse(signed)?);
        let mut verified = self.verified.lock();
        if verified.len() >= self.cached_max {
            // Rare, and each is verified again in a microsecond.
            verified.clear();
        }
        verified.insert(token.into(), claim.clone());
        Some(claim)
    }
}

fn parse(signed: &[u8]) -> Option<Claim> {
    let (head, names) = signed.split_at_checked(HEAD_BYTES)?;
    if head[0] != FORMAT {
        return None;
    }
    let number = |at: usize| u64::from_be_bytes(head[at..at + 8].try_into().expect("8 bytes"));
    let account_bytes = u16::from_be_bytes([head[17], head[18]]);
    let (account, user) = names.split_at_checked(account_bytes.into())?;
    Some(Claim {
        account: String::from_utf8(account.to_vec()).ok()?,
        user: String::from_utf8(user.to_vec()).ok()?,
        expires: number(1),
        generation: number(9),
        identity: Mutex::new(None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use namespace::Role;
    use proptest::prelude::*;

    fn tokens() -> Tokens {
        Tokens::new(&[7; 32], 100, 3)
    }

    fn user(name: &str) -> User {
        User {
            account: "test".to_owned(),
            name: name.to_owned(),
            role: Role::Owner,
            groups: vec![],
            generation: 5,
        }
    }

    #[test]
    fn a_token_says_who_until_when() {
        let tokens = tokens();
        let (token, expires) = tokens.mint(&user("tester"), 1020);
        assert_eq!(expires, 1100);
        for now in [1020, 1099] {
            let claim = tokens.read(&token, now).unwrap();
            assert_eq!(
                (claim.account.as_str(), claim.user.as_str()),
                ("test", "tester")
            );
            assert_eq!((claim.generation, claim.expires), (5, 1100));
        }
        assert!(tokens.read(&token, 1100).is_none());
    }

    #[test]
    fn a_token_is_the_same_for_half_its_life() {
        let tokens = tokens();
        let of = |now| tokens.mint(&user("tester"), now).0;
        assert_eq!(of(1000), of(1049));
        assert_ne!(of(1049), of(1050));
    }

    #[test]
    fn a_changed_token_is_no_token() {
        let tokens = tokens();
        let (token, _) = tokens.mint(&user("tester"), 1000);
        assert!(tokens.read(&token, 1000).is_some());
        for at in PREFIX.len()..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last character holds bits that say nothing; those must be zero.
            assert!(tokens.read(&changed, 1000).is_none(), "at {at}");
        }
        let other = Tokens::new(&[8; 32], 100, 3);
        assert!(other.read(&token, 1000).is_none());
    }

    #[test]
    fn the_cache_is_bounded() {
        let tokens = tokens();
        for n in 0..20 {
            let (token, _) = tokens.mint(&user(&n.to_string()), 1000);
            assert!(tokens.read(&token, 1000).is_some());
            assert!(tokens.verified.lock().len() <= 3);
        }
    }

    #[test]
    fn an_identity_is_made_anew_when_the_user_changes() {
        let tokens = tokens();
        let (token, _) = tokens.mint(&user("tester"), 1000);
        let claim = tokens.read(&token, 1000).unwrap();
        let first = claim.identity(Arc::new(user("tester")));
        assert!(Arc::ptr_eq(
            &first,
            &claim.identity(Arc::new(user("tester")))
        ));
        let mut changed = user("tester");
        changed.groups.push("service".to_owned());
        let second = claim.identity(Arc::new(changed));
        assert!(second.groups().any(|group| group == "service"));
    }

    proptest! {
        #[test]
        fn anything_is_a_token_or_not(token in "(AUTH_tk)?[A-Za-z0-9_-]*") {
            prop_assert!(tokens().read(&token, 0).is_none());
        }

        #[test]
        fn anything_signed_parses_or_not(signed: Vec<u8>) {
            parse(&signed);
        }
    }
}
