//! What the leader of a shard does to make its membership what the map says.

use std::collections::{BTreeMap, BTreeSet};

use base::DeviceId;
use map::Map;
use shard::{Led, ReplicaId};

use super::Job;

/// The next job for a shard, if there is one to do now.
pub(super) fn next(map: &Map, led: &Led) -> Option<Job> {
    let replicas = map.shards.get(&led.shard)?;
    if !led.is_settled {
        return None;
    }
    let shard = led.shard;
    let set = |devices: &[DeviceId]| devices.iter().copied().collect::<BTreeSet<_>>();
    let (voters, joining) = (set(&replicas.voters), set(&replicas.joining));
    let present: BTreeSet<_> = led.voters.keys().copied().collect();
    let learning: BTreeSet<_> = led.learners.keys().copied().collect();

    let new: BTreeSet<_> = voters.difference(&present).copied().collect();
    if voters == present {
        if joining == learning {
            return lead(map, led, replicas.voters.first().copied()?);
        }
        return Some(reshape(led, &voters, &joining));
    }
    let can_vote = |id: &DeviceId| led.ready.contains(id) || map.is_out(*id);
    if !new.iter().all(can_vote) {
        // They must catch up before they vote: else nothing could be committed meanwhile. One that is out by now never
        // does; when it votes, the plan replaces it.
        let learners = joining.union(&new).copied().collect();
        return (learners != learning).then(|| reshape(led, &present, &learners));
    }
    let up = voters.iter().filter(|id| map.is_up(**id)).count();
    if up <= voters.len() / 2 {
        return None;
    }
    // A leader that is to go hands over first, if there is somebody who votes before and after.
    let mut heirs = replicas
        .voters
        .iter()
        .filter(|id| present.contains(id) && map.is_up(**id));
    match (voters.contains(&led.leader), heirs.next()) {
        (false, Some(heir)) => Some(Job::Transfer { shard, to: *heir }),
        (true, _) | (false, None) => Some(reshape(led, &voters, &joining)),
    }
}

/// Who is to lead, leads.
fn lead(map: &Map, led: &Led, first: DeviceId) -> Option<Job> {
    let shard = led.shard;
    // While it is waited for, nothing is written.
    let can = first != led.leader && map.is_up(first) && led.ready.contains(&first);
    can.then_some(Job::Transfer { shard, to: first })
}

fn reshape(led: &Led, voters: &BTreeSet<DeviceId>, learners: &BTreeSet<DeviceId>) -> Job {
    let known: BTreeMap<DeviceId, ReplicaId> = led
        .learners
        .iter()
        .chain(&led.voters)
        .map(|(device, replica)| (*device, *replica))
        .collect();
    let numbered = |devices: &BTreeSet<DeviceId>| {
        let each = devices.iter().map(|id| (*id, known.get(id).copied()));
        each.collect()
    };
    Job::Reshape {
        shard: led.shard,
        term: led.term,
        voters: numbered(voters),
        learners: numbered(learners),
    }
}
