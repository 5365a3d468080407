//! The policies that containers can have.

use base::Timestamp;
use map::{Epoch, Map, NamedPolicy, Policy};
use serde::{Deserialize, Serialize};
use shard::{Latch, Procedure, View};

use super::{Planned, Refusal, change_map, map_latch};
use crate::status::staying;

/// Each kind has groups of its own on all devices, and every node keeps all names.
pub(super) const POLICIES_MAX: usize = 16;

/// Of a policy's name, which is a header's value and part of others' names.
pub(super) const NAME_BYTES_MAX: usize = 64;

/// Adds a policy, or makes one that is there the default. Gives the epoch of the map that has it.
#[derive(Serialize, Deserialize)]
pub struct PutPolicy {
    pub name: String,
    /// What it is to be, if it may be new.
    pub policy: Option<Policy>,
    pub is_default: bool,
}

impl Procedure for PutPolicy {
    const NAME: &'static str = "control.put_policy";

    type Output = Epoch;
    type Error = Refusal;

    fn latches(&self) -> Vec<Latch> {
        map_latch()
    }

    fn plan(&self, _: Timestamp, view: &View) -> Planned<Epoch> {
        let (batch, map) = change_map(view, |map| self.put(map))?;
        Ok((batch, map.epoch))
    }
}

impl PutPolicy {
    fn put(&self, map: &Map) -> Result<Map, Refusal> {
        let mut after = map.clone();
        let place = match (map.policies.find(&self.name), self.policy) {
            (Some(place), None) => place,
            (Some(place), Some(policy)) if map.policies.at(place) == policy => place,
            (Some(place), Some(_)) => {
                return Err(Refusal::OtherPolicy(map.policies.at(place).to_string()));
            }
            (None, None) => return Err(Refusal::NoPolicy(self.name.clone())),
            (None, Some(policy)) => self.add(&mut after, policy)?,
        };
        if self.is_default {
            after.policies.default = place;
        }
        if after != *map {
            after.epoch = map.epoch.next();
        }
        Ok(after)
    }

    fn add(&self, map: &mut Map, policy: Policy) -> Result<u16, Refusal> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if !(1..=NAME_BYTES_MAX).contains(&self.name.len()) || !self.name.bytes().all(is_word) {
            return Err(Refusal::PolicyName);
        }
        let (needed, there) = (policy.width(), staying(map));
        if policy != Map::POLICY && there < needed {
            return Err(Refusal::TooFewDevices { needed, there });
        }
        let list = &mut map.policies.list;
        if list.len() >= POLICIES_MAX {
            return Err(Refusal::TooManyPolicies);
        }
        let place = u16::try_from(list.len()).expect("there are few");
        list.push(NamedPolicy {
            name: self.name.clone(),
            policy,
        });
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::whole_map;

    fn put(map: &Map, name: &str, policy: Option<&str>) -> Result<Map, Refusal> {
        let put = PutPolicy {
            name: name.to_owned(),
            policy: policy.map(|policy| policy.parse().unwrap()),
            is_default: policy.is_none(),
        };
        put.put(map)
    }

    #[test]
    fn a_policy_is_added_once_and_can_become_the_default() {
        let map = whole_map();
        let after = put(&map, "cold", Some("ec:2+1")).unwrap();
        assert_eq!(after.epoch, map.epoch.next());
        assert_eq!(after.policies.find("Cold"), Some(1));
        assert_eq!(put(&after, "COLD", Some("ec:2+1")).unwrap(), after);
        let default = put(&after, "cold", None).unwrap();
        assert_eq!(default.policies.default, 1);
        assert_eq!(put(&default, "default", None).unwrap().policies.default, 0);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut map = put(&whole_map(), "cold", Some("ec:2+1")).unwrap();
        let other = put(&map, "cold", Some("replicated:3"));
        assert_eq!(other, Err(Refusal::OtherPolicy("ec:2+1".into())));
        assert_eq!(
            put(&map, "warm", None),
            Err(Refusal::NoPolicy("warm".into()))
        );
        let few = Refusal::TooFewDevices {
            needed: 6,
            there: 3,
        };
        assert_eq!(put(&map, "wide", Some("ec:4+2")), Err(few));
        for name in ["", "a b", "ü", "a,b", &"x".repeat(65)] {
            let refused = put(&map, name, Some("replicated:3"));
            assert_eq!(refused, Err(Refusal::PolicyName), "{name}");
        }
        for number in 2..POLICIES_MAX {
            map = put(&map, &format!("p{number}"), Some("replicated:3")).unwrap();
        }
        let full = put(&map, "more", Some("replicated:3"));
        assert_eq!(full, Err(Refusal::TooManyPolicies));
    }
}
