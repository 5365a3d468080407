//! Who has a say.

use std::collections::{BTreeMap, BTreeSet};

use base::DeviceId;

use crate::ReplicaId;

/// The replicas of a group, and on which device each is.
///
/// While voters change there are two sets of them, and whatever needs a majority needs one of each. Learners
/// receive the log and have no say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    voters: BTreeSet<ReplicaId>,
    /// The voters before, as long as their agreement is still needed.
    outgoing: BTreeSet<ReplicaId>,
    /// All of them: voters, outgoing ones and learners.
    devices: BTreeMap<ReplicaId, DeviceId>,
}

impl Membership {
    /// One voter alone.
    pub fn alone(replica: ReplicaId, device: DeviceId) -> Self {
        Self::new([(replica, device)], [])
    }

    /// Who votes and who learns, where nothing is changing. A replica that is named as both votes.
    pub fn new(
        voters: impl IntoIterator<Item = (ReplicaId, DeviceId)>,
        learners: impl IntoIterator<Item = (ReplicaId, DeviceId)>,
    ) -> Self {
        let mut devices: BTreeMap<_, _> = voters.into_iter().collect();
        let voters = devices.keys().copied().collect();
        devices.extend(learners);
        Self {
            voters,
            outgoing: BTreeSet::new(),
            devices,
        }
    }

    /// As it was written down. `None` if a voter is on no device, which is no membership.
    pub fn from_parts(
        voters: BTreeSet<ReplicaId>,
        outgoing: BTreeSet<ReplicaId>,
        devices: BTreeMap<ReplicaId, DeviceId>,
    ) -> Option<Self> {
        let mut all = voters.iter().chain(&outgoing);
        all.all(|replica| devices.contains_key(replica))
            .then_some(Self {
                voters,
                outgoing,
                devices,
            })
    }

    pub fn voters(&self) -> &BTreeSet<ReplicaId> {
        &self.voters
    }

    pub fn outgoing(&self) -> &BTreeSet<ReplicaId> {
        &self.outgoing
    }

    pub fn learners(&self) -> impl Iterator<Item = ReplicaId> {
        let all = self.devices.keys().copied();
        all.filter(|replica| !self.is_voter(*replica))
    }

    /// All of them, each with its device.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (ReplicaId, DeviceId)> {
        self.devices
            .iter()
            .map(|(replica, device)| (*replica, *device))
    }

    pub fn device(&self, replica: ReplicaId) -> Option<DeviceId> {
        self.devices.get(&replica).copied()
    }

    pub fn is_member(&self, replica: ReplicaId) -> bool {
        self.devices.contains_key(&replica)
    }

    /// Whether it has a say, in whichever set.
    pub fn is_voter(&self, replica: ReplicaId) -> bool {
        self.voters.contains(&replica) || self.outgoing.contains(&replica)
    }

    /// Whether the voters are being changed.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether only one has a say.
    pub fn is_alone(&self) -> bool {
        self.voters.len() == 1 && self.outgoing.is_empty()
    }

    /// The step from this membership to `wanted`: both sets of voters if they differ.
    pub(crate) fn towards(&self, wanted: &Self) -> Self {
        let mut next = wanted.clone();
        if self.voters != wanted.voters {
            next.outgoing.clone_from(&self.voters);
            for replica in &self.voters {
                next.devices.insert(*replica, self.devices[replica]);
            }
        }
        next
    }

    /// The membership after the change: without those who only had a say before it. Which of them go
    /// on as learners is for the next change to say.
    pub(crate) fn settled(&self) -> Self {
        let gone =
            |replica: &ReplicaId| self.outgoing.contains(replica) && !self.voters.contains(replica);
        let devices = self.devices.iter().filter(|(replica, _)| !gone(replica));
        Self {
            voters: self.voters.clone(),
            outgoing: BTreeSet::new(),
            devices: devices.map(|(r, d)| (*r, *d)).collect(),
        }
    }

    /// Whether those for whom `agrees` holds are a majority of each set of voters.
    pub(crate) fn has_quorum(&self, agrees: impl Fn(ReplicaId) -> bool) -> bool {
        let majority = |set: &BTreeSet<ReplicaId>| {
            let count = set.iter().filter(|replica| agrees(**replica)).count();
            count > set.len() / 2
        };
        majority(&self.voters) && (self.outgoing.is_empty() || majority(&self.outgoing))
    }

    /// The highest value that a majority of each set of voters has reached.
    pub(crate) fn reached(&self, value: impl Fn(ReplicaId) -> u64) -> u64 {
        let of = |set: &BTreeSet<ReplicaId>| {
            let mut values: Vec<_> = set.iter().map(|replica| value(*replica)).collect();
            values.sort_unstable();
            // With 3 voters the second lowest: it and the highest are a majority.
            values.get((values.len().max(1) - 1) / 2).copied()
        };
        let reached = of(&self.voters).unwrap_or_default();
        match self.outgoing.is_empty() {
            true => reached,
            false => reached.min(of(&self.outgoing).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(replicas: &[u64]) -> Vec<(ReplicaId, DeviceId)> {
        let member = |replica: &u64| (ReplicaId(*replica), DeviceId((*replica).into()));
        replicas.iter().map(member).collect()
    }

    #[test]
    fn a_majority_is_more_than_half_of_each_set() {
        #[track_caller]
        fn check(voters: &[u64], outgoing: &[u64], agree: &[u64], expected: bool) {
            let from = Membership::new(members(outgoing), []);
            let joint = match outgoing {
                [] => Membership::new(members(voters), []),
                _ => from.towards(&Membership::new(members(voters), [])),
            };
            let agrees = |replica: ReplicaId| agree.contains(&replica.0);
            assert_eq!(joint.has_quorum(agrees), expected);
            let reached = joint.reached(|replica| agrees(replica).into());
            assert_eq!(reached, u64::from(expected));
        }
        check(&[1], &[], &[1], true);
        check(&[1], &[], &[], false);
        check(&[1, 2], &[], &[1], false);
        check(&[1, 2, 3], &[], &[1, 3], true);
        check(&[1, 2, 3], &[], &[3], false);
        check(&[1, 2, 3, 4], &[], &[1, 2], false);
        check(&[2, 3, 4], &[1], &[2, 3], false);
        check(&[2, 3, 4], &[1], &[1, 2, 3], true);
        check(&[2, 3, 4], &[1], &[1, 2], false);
    }

    #[test]
    fn a_change_of_voters_goes_through_both_sets() {
        let before = Membership::new(members(&[1, 2, 3]), members(&[4]));
        let wanted = Membership::new(members(&[2, 3, 4]), []);
        let joint = before.towards(&wanted);
        assert!(joint.is_joint() && joint.is_member(ReplicaId(1)));
        assert_eq!(joint.settled(), wanted);
        let learner = Membership::new(members(&[1, 2, 3]), members(&[5]));
        assert_eq!(
            before.towards(&learner),
            learner,
            "nothing changes for voters"
        );
    }
}
