//! How data is kept, and the names under which users choose it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Map;

/// How the data of a container is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Policy {
    /// So many whole copies, each on another device; fewer, as long as there are fewer devices.
    Replicated { copies: u8 },
    /// Each chunk is cut into `data` fragments, from which `parity` others are computed; each is on another device.
    /// Any `data` of them are enough.
    Coded { data: u8, parity: u8 },
}

/// The most fragments of a chunk that hold its bytes. More would be too small.
pub const DATA_MAX: u8 = 16;
/// The most fragments that are computed.
pub const PARITY_MAX: u8 = 8;

impl Policy {
    /// On how many devices a chunk is to lie.
    pub fn width(self) -> usize {
        match self {
            Self::Replicated { copies } => usize::from(copies),
            Self::Coded { data, parity } => usize::from(data) + usize::from(parity),
        }
    }

    /// How many of these devices are enough to read a chunk.
    pub fn needed(self) -> usize {
        match self {
            Self::Replicated { .. } => 1,
            Self::Coded { data, .. } => usize::from(data),
        }
    }
}

/// `replicated:3` or `ec:4+2`.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replicated { copies } => write!(f, "replicated:{copies}"),
            Self::Coded { data, parity } => write!(f, "ec:{data}+{parity}"),
        }
    }
}

/// A text that is no policy, or one that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no policy: it is `ec:K+M`, with K from 2 to {DATA_MAX} and M from 1 to {PARITY_MAX}, or `{standard}`", standard = Map::POLICY)]
pub struct NoPolicy(pub String);

impl FromStr for Policy {
    type Err = NoPolicy;

    fn from_str(text: &str) -> Result<Self, NoPolicy> {
        let no_policy = || NoPolicy(text.to_owned());
        if text == Map::POLICY.to_string() {
            return Ok(Map::POLICY);
        }
        let coded = text.strip_prefix("ec:").and_then(|rest| {
            let (data, parity) = rest.split_once('+')?;
            let (data, parity) = (data.parse().ok()?, parity.parse().ok()?);
            let is_possible = (2..=DATA_MAX).contains(&data) && (1..=PARITY_MAX).contains(&parity);
            is_possible.then_some(Self::Coded { data, parity })
        });
        coded.ok_or_else(no_policy)
    }
}

/// A policy as users know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedPolicy {
    pub name: String,
    pub policy: Policy,
}

/// The policies that containers can have. They are known by their place here, so none is ever taken away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    pub list: Vec<NamedPolicy>,
    /// The place of the one that a container gets if nothing else is said.
    pub default: u16,
}

/// Whole copies of everything.
impl Default for Policies {
    fn default() -> Self {
        let standard = NamedPolicy {
            name: "default".to_owned(),
            policy: Map::POLICY,
        };
        Self {
            list: vec![standard],
            default: 0,
        }
    }
}

impl Policies {
    /// The policy at a place. One that this map does not know yet is taken for the standard one: that is never less safe.
    pub fn at(&self, place: u16) -> Policy {
        let named = self.list.get(usize::from(place));
        named.map_or(Map::POLICY, |named| named.policy)
    }

    /// The name of the policy at a place; the first one's, if this map does not know it yet.
    pub fn name(&self, place: u16) -> String {
        let named = self.list.get(usize::from(place)).or(self.list.first());
        named.map(|named| named.name.clone()).unwrap_or_default()
    }

    /// The place of the policy with this name, in any case of its letters.
    pub fn find(&self, name: &str) -> Option<u16> {
        let mut names = self.list.iter().map(|named| &named.name);
        let place = names.position(|one| one.eq_ignore_ascii_case(name))?;
        u16::try_from(place).ok()
    }

    /// The kinds for which there are to be groups, each once; the standard one first.
    pub fn kinds(&self) -> Vec<Policy> {
        let mut kinds = vec![Map::POLICY];
        for named in &self.list {
            if !kinds.contains(&named.policy) {
                kinds.push(named.policy);
            }
        }
        kinds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_as_it_is_written() {
        for text in ["replicated:3", "ec:2+1", "ec:4+2", "ec:16+8"] {
            let policy: Policy = text.parse().unwrap();
            assert_eq!(policy.to_string(), text);
        }
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        for text in [
            "",
            "ec",
            "ec:",
            "ec:4",
            "ec:1+1",
            "ec:4+0",
            "ec:17+1",
            "ec:4+9",
            "ec:256+2",
            "ec:4+2+1",
            "replicated:2",
            "EC:4+2",
        ] {
            assert!(text.parse::<Policy>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_kind_with_two_names_is_one_kind() {
        let mut policies = Policies::default();
        for (name, policy) in [
            ("cold", "ec:4+2"),
            ("gold", "replicated:3"),
            ("ice", "ec:4+2"),
        ] {
            policies.list.push(NamedPolicy {
                name: name.to_owned(),
                policy: policy.parse().unwrap(),
            });
        }
        let coded = Policy::Coded { data: 4, parity: 2 };
        assert_eq!(policies.kinds(), [Map::POLICY, coded]);
        assert_eq!(
            (policies.find("COLD"), policies.find("warm")),
            (Some(1), None)
        );
        assert_eq!((policies.at(3), policies.at(4)), (coded, Map::POLICY));
    }
}
