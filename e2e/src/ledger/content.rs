//! Bodies that can be told apart and made again from a few bytes of metadata.

use std::fmt;
use std::str::FromStr;

use md5::{Digest, Md5};

/// What an object's body is: it follows from these two numbers. Each upload has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    pub seed: u64,
    pub bytes: usize,
}

impl Content {
    /// The body itself.
    pub fn body(self) -> Vec<u8> {
        let mut body = vec![0; self.bytes];
        fastrand::Rng::with_seed(self.seed).fill(&mut body);
        body
    }

    /// Its type: telling, too.
    pub fn media_type(self) -> String {
        format!("application/x-{:x}", self.seed)
    }
}

/// The ETag of a body.
pub fn etag(body: &[u8]) -> String {
    let digest = Md5::digest(body);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.seed, self.bytes)
    }
}

impl FromStr for Content {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (seed, bytes) = text.split_once('.')?;
            let seed = u64::from_str_radix(seed, 16).ok()?;
            Some(Self {
                seed,
                bytes: bytes.parse().ok()?,
            })
        };
        parse().ok_or_else(|| format!("`{text}` is no content of ours"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_made_again_from_its_name() {
        let content = Content {
            seed: 0xfeed,
            bytes: 1000,
        };
        let again: Content = content.to_string().parse().unwrap();
        assert_eq!(again, content);
        assert_eq!(again.body(), content.body());
        assert_ne!(
            content.body(),
            Content {
                seed: 1,
                bytes: 1000
            }
            .body()
        );
        assert!("x.1".parse::<Content>().is_err());
    }

    #[test]
    fn etag_is_md5_in_hexadecimal() {
        assert_eq!(etag(b""), "d41d8cd98f00b204e9800998ecf8427e");
    }
}
