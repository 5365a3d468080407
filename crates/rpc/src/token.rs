//! Join tokens: one word that lets one node in, once.
//!
//! The word has all that a new node needs besides an address: what to say (id and secret) and whom
//! to say it to (the authority's fingerprint). The issuer keeps only a [`TokenRecord`], from which
//! nobody can make the token again; that a token is used once is for the issuer to keep, by removing the
//! record in the same commit that adds the node.
//!
//! The word: `martlet1` and base32 (a to z, 2 to 7; no case) of 84 bytes: id (8), expiry in seconds since
//! 1970 (8), secret (32), fingerprint (32), CRC-32C of these 80 (4); numbers little-endian.

use std::fmt;
use std::str::FromStr;

use base::Timestamp;
use base::env::Entropy;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::authority::Fingerprint;

/// Says what the word is, and its version.
const PREFIX: &str = "martlet1";
const BODY_BYTES: usize = 80;
const TOKEN_BYTES: usize = BODY_BYTES + 4;
const WORD_CHARS: usize = PREFIX.len() + (TOKEN_BYTES * 8).div_ceil(5);

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// What a joiner proves that it was invited with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret([u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Lets one node in, once. Printed, it is a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    pub id: u64,
    pub secret: Secret,
    /// Whole seconds.
    pub expires: Timestamp,
    /// Of the cluster that the token is for.
    pub authority: Fingerprint,
}

/// What the issuer remembers of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    pub id: u64,
    /// SHA-256: the secret is random and long, so that is enough.
    pub secret_hash: [u8; 32],
    pub expires: Timestamp,
}

/// A joiner may not enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("the join token expired at {0}")]
    Expired(Timestamp),
    #[error("the join token's secret is wrong")]
    Secret,
}

impl JoinToken {
    /// A token that is good until `expires`, by the issuer's clock.
    pub fn new(entropy: &dyn Entropy, expires: Timestamp, authority: Fingerprint) -> Self {
        let mut secret = [0; 32];
        entropy.fill(&mut secret);
        Self {
            id: entropy.u64(),
            secret: Secret(secret),
            expires: Timestamp::from_secs(expires.secs()),
            authority,
        }
    }

    pub fn record(&self) -> TokenRecord {
        TokenRecord {
            id: self.id,
            secret_hash: self.secret.hash(),
            expires: self.expires,
        }
    }
}

impl TokenRecord {
    /// Whether who shows `secret` at `now` may enter.
    ///
    /// # Errors
    /// [`Denied`] says why not.
    pub fn check(&self, secret: &Secret, now: Timestamp) -> Result<(), Denied> {
        if !bool::from(secret.hash().ct_eq(&self.secret_hash)) {
            return Err(Denied::Secret);
        }
        if now >= self.expires {
            return Err(Denied::Expired(self.expires));
        }
        Ok(())
    }
}

impl Secret {
    fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(TOKEN_BYTES);
        bytes.extend(self.id.to_le_bytes());
        bytes.extend(self.expires.secs().to_le_bytes());
        bytes.extend(self.secret.0);
        bytes.extend(self.authority.0);
        bytes.extend(base::checksum::crc32c(&bytes).to_le_bytes());
        f.write_str(PREFIX)?;
        f.write_str(&base32(&bytes))
    }
}

/// A word is not a join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoToken {
    #[error("not a join token: it does not begin with `{PREFIX}`")]
    Prefix,
    #[error(
        "a join token has {WORD_CHARS} characters, this has {0}: was it cut when it was copied?"
    )]
    Length(usize),
    #[error("character {0} cannot be in a join token")]
    Character(usize),
    #[error("the join token is misspelt: its checksum is wrong")]
    Checksum,
}

impl FromStr for JoinToken {
    type Err = NoToken;

    fn from_str(word: &str) -> Result<Self, NoToken> {
        let word = word.trim().to_ascii_lowercase();
        let text = word.strip_prefix(PREFIX).ok_or(NoToken::Prefix)?;
        let length = word.chars().count();
        if length != WORD_CHARS {
            return Err(NoToken::Length(length));
        }
        let bytes = from_base32(text).map_err(|at| NoToken::Character(PREFIX.len() + at + 1))?;
        let bytes: [u8; TOKEN_BYTES] = bytes.try_into().map_err(|_| NoToken::Checksum)?;
        let (body, checksum) = bytes.split_at(BODY_BYTES);
        if base::checksum::crc32c(body).to_le_bytes() != checksum {
            return Err(NoToken::Checksum);
        }
        let token = Self {
            id: u64::from_le_bytes(field(body, 0)),
            expires: Timestamp::from_secs(u64::from_le_bytes(field(body, 8))),
            secret: Secret(field(body, 16)),
            authority: Fingerprint(field(body, 48)),
        };
        Ok(token)
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

fn base32(bytes: &[u8]) -> String {
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    let letter = |from: usize| {
        let index = (from..from + 5).fold(0, |value, at| value << 1 | bit(at));
        char::from(ALPHABET[usize::from(index)])
    };
    (0..bytes.len() * 8).step_by(5).map(letter).collect()
}

/// What [`base32`] made `text` from, or the place of the first letter that it never makes.
fn from_base32(text: &str) -> Result<Vec<u8>, usize> {
    let mut bytes = Vec::with_capacity(TOKEN_BYTES);
    let (mut bits, mut have) = (0_u16, 0);
    for (at, letter) in text.chars().enumerate() {
        let value = ALPHABET
            .iter()
            .position(|known| char::from(*known) == letter);
        bits = bits << 5 | u16::try_from(value.ok_or(at)?).map_err(|_| at)?;
        have += 5;
        if have >= 8 {
            have -= 8;
            bytes.push((bits >> have & 0xff) as u8);
            bits &= (1 << have) - 1;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::env::Env;
    use proptest::prelude::*;

    fn token() -> JoinToken {
        let expires = Timestamp::from_secs(1_795_000_000);
        JoinToken::new(&*Env::real().entropy, expires, Fingerprint([7; 32]))
    }

    #[track_caller]
    fn check(word: &str, expected: Result<JoinToken, NoToken>) {
        assert_eq!(word.parse::<JoinToken>(), expected);
    }

    #[test]
    fn a_token_survives_print_and_paste() {
        let token = token();
        let word = token.to_string();
        assert_eq!(word.len(), WORD_CHARS);
        assert!(word.bytes().all(|b| b.is_ascii_alphanumeric()), "{word}");
        check(&word, Ok(token.clone()));
        check(&format!("  {}\n", word.to_uppercase()), Ok(token));
    }

    #[test]
    fn golden() {
        let token = JoinToken {
            id: 0x0102_0304_0506_0708,
            secret: Secret(std::array::from_fn(|i| u8::try_from(i).unwrap())),
            expires: Timestamp::from_secs(1_795_000_000),
            authority: Fingerprint([0xab; 32]),
        };
        let word = token.to_string();
        assert_eq!(word, include_str!("../tests/golden/token-1.txt").trim());
        check(&word, Ok(token));
    }

    #[test]
    fn what_is_no_token_says_why() {
        let word = token().to_string();
        check("", Err(NoToken::Prefix));
        check("hunter2", Err(NoToken::Prefix));
        check(&word[..50], Err(NoToken::Length(50)));
        check(&format!("{word}x"), Err(NoToken::Length(WORD_CHARS + 1)));
        check(
            &format!("{}!{}", &word[..20], &word[21..]),
            Err(NoToken::Character(21)),
        );
        let other = if &word[30..31] == "a" { "b" } else { "a" };
        let misspelt = format!("{}{other}{}", &word[..30], &word[31..]);
        check(&misspelt, Err(NoToken::Checksum));
    }

    #[test]
    fn the_issuer_admits_the_secret_until_it_expires() {
        let token = token();
        let record = token.record();
        let late = token.expires;
        let early = Timestamp::from_ticks(late.ticks() - 1);
        assert_eq!(record.check(&token.secret, early), Ok(()));
        assert_eq!(
            record.check(&token.secret, late),
            Err(Denied::Expired(late))
        );
        assert_eq!(record.check(&Secret([1; 32]), early), Err(Denied::Secret));
        let kept = format!("{record:?}{token:?}");
        assert!(!kept.contains(&format!("{:?}", token.secret.0)), "{kept}");
    }

    proptest! {
        #[test]
        fn any_bytes_survive_base32(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(from_base32(&base32(&bytes)), Ok(bytes));
        }

        #[test]
        fn any_text_is_a_token_or_an_error(text in ".{0,200}") {
            let _ = text.parse::<JoinToken>();
            let _ = format!("{PREFIX}{text}").parse::<JoinToken>();
        }
    }
}
