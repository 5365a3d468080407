//! What is under way: one job about each thing, few altogether, and a pause after each.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{DeviceId, GroupId, ShardId};

use super::{End, Job};

/// Jobs about shards at a time. Each waits for others most of the time.
const SHARDS_MAX: usize = 16;

/// Groups that are filled at a time: one copies while another lists.
const FILLS_MAX: usize = 2;

/// Before something that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// An election that was asked for may end otherwise; it is not asked for again at once.
const TRANSFER_PAUSE: Duration = Duration::from_secs(5);

/// What a job is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Replica(DeviceId, ShardId),
    Shard(ShardId),
    Member(GroupId, DeviceId),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    Running,
    /// Nothing before then.
    Pause(Duration),
}

#[derive(Default)]
pub(super) struct Jobs {
    slots: BTreeMap<Subject, Slot>,
}

impl Jobs {
    /// Notes that a job is under way, if there is nothing against it.
    pub(super) fn start(&mut self, job: &Job, now: Duration) -> bool {
        self.slots.retain(|_, slot| match slot {
            Slot::Running => true,
            Slot::Pause(until) => now < *until,
        });
        let subject = subject(job);
        let is_fill = |subject: &Subject| matches!(subject, Subject::Member(..));
        let running = self
            .slots
            .iter()
            .filter(|(other, slot)| **slot == Slot::Running && is_fill(other) == is_fill(&subject));
        let max = match is_fill(&subject) {
            true => FILLS_MAX,
            false => SHARDS_MAX,
        };
        let can = running.count() < max && !self.slots.contains_key(&subject);
        if can {
            self.slots.insert(subject, Slot::Running);
        }
        can
    }

    /// Whether something about a shard is under way.
    pub(super) fn is_about(&self, shard: ShardId) -> bool {
        self.slots.get(&Subject::Shard(shard)) == Some(&Slot::Running)
    }

    pub(super) fn ended(&mut self, job: &Job, end: End, now: Duration) {
        let pause = match (job, end) {
            (Job::Transfer { .. }, End::Well) => TRANSFER_PAUSE,
            (_, End::Well) => Duration::ZERO,
            (_, End::Failed) => RETRY,
        };
        self.slots.insert(subject(job), Slot::Pause(now + pause));
    }
}

fn subject(job: &Job) -> Subject {
    match job {
        Job::Destroy { device, shard } => Subject::Replica(*device, *shard),
        Job::Reshape { shard, .. } | Job::Transfer { shard, .. } => Subject::Shard(*shard),
        Job::Fill { filled, .. } => Subject::Member(filled.group, filled.device),
    }
}
