//! Has copies mended that are bad or missing.
//!
//! What a device of this node has found to be bad, by a read or the scrubber, is for [`chunks::Chunks::mend`]. What a full
//! member of a group lacks shows when the members' lists are compared: each group once a day, and again after one of its
//! members was away, since it may have come back with less than it had. A copy is made again only if something
//! refers to the chunk that is not garbage: what is being deleted is missing here and there, and does not come back.
//!
//! Costs a list of ids of one group and member per round, and a query for each copy that is missing.

use std::collections::BTreeMap;
use std::time::Duration;

use base::GroupId;
use chunks::Missing;

use crate::{Namespace, Owns};

/// The pause between two rounds, if the last one found nothing.
pub(crate) const HEAL_EVERY: Duration = Duration::from_secs(10);

/// Each group is compared so often, whatever happens.
const COMPARE_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Younger chunks may be on their way to some members.
const AGE_MIN: Duration = Duration::from_secs(60);

/// What a node knows of the groups that it compares.
#[derive(Default)]
pub(crate) struct Healer {
    /// When each was compared and nothing was to be done, by the monotonic clock.
    compared: BTreeMap<GroupId, Duration>,
    /// When each was looked at last, whatever came of it: one that cannot be compared holds up no other.
    tried: BTreeMap<GroupId, Duration>,
}

impl Healer {
    /// Compares the group that needs it most; says whether something was to be done.
    pub(crate) async fn round(&mut self, namespace: &Namespace) -> bool {
        let chunks = namespace.chunks();
        chunks.mend();
        self.forget_those_away(namespace);
        let now = namespace.inner.env.clock.monotonic();
        let mut due = chunks.to_compare();
        due.retain(|group| {
            let last = self.compared.get(group);
            last.is_none_or(|last| now.saturating_sub(*last) >= COMPARE_EVERY)
        });
        let Some(group) = due
            .into_iter()
            .min_by_key(|group| self.tried.get(group).copied())
        else {
            return false;
        };
        self.tried.insert(group, now);
        match compare(namespace, group).await {
            Ok(0) => {
                self.compared.insert(group, now);
                false
            }
            Ok(mended) => {
                tracing::info!(%group, mended, "copies were missing");
                true
            }
            Err(error) => {
                tracing::debug!(%group, %error, "not compared");
                false
            }
        }
    }

    /// A group is compared anew when all its members are back.
    fn forget_those_away(&mut self, namespace: &Namespace) {
        let map = namespace.chunks().map().load();
        self.compared.retain(|group, _| {
            let group = map.groups.get(group);
            group.is_some_and(|group| group.devices().all(|id| map.is_up(id)))
        });
        self.tried.retain(|group, _| map.groups.contains_key(group));
    }
}

/// How many missing copies were there to be made, up to as many as are made in one go.
async fn compare(namespace: &Namespace, group: GroupId) -> Result<usize, chunks::Error> {
    let chunks = namespace.chunks();
    let (mut after, mut mended) = (None, 0);
    loop {
        let part = chunks.compare(group, after).await?;
        for missing in part.missing {
            if is_wanted(namespace, &missing).await? {
                chunks.mend_missing(missing.chunk, missing.on);
                mended += 1;
            }
        }
        after = part.next;
        // What is found is mended before more is looked for: that is a bounded queue.
        if after.is_none() || mended > 0 {
            chunks.settle_repairs().await;
            return Ok(mended);
        }
    }
}

/// Whether a chunk is part of something that is not garbage.
async fn is_wanted(namespace: &Namespace, missing: &Missing) -> Result<bool, chunks::Error> {
    let now = namespace.inner.env.clock.now().millis();
    let age = now.saturating_sub(missing.chunk.unix_ms());
    if u128::from(age) < AGE_MIN.as_millis() {
        return Ok(false);
    }
    let chunks = namespace.chunks();
    let owner = chunks.owner(missing.chunk, missing.source).await?;
    Ok(namespace.owns(&owner, missing.chunk).await == Owns::Yes)
}
