//! The rows of the control shard that are this crate's, and what is done with them.
//!
//! Every change of the map is one of these procedures, planned under the latch of the map's row: so what
//! is decided is decided on the newest map, and the map's epoch counts all of them. A controller plans on the
//! map that it knows; its change is made only if that is still the newest one and no other controller has begun
//! since. Bytes are in docs/formats/control.md.

mod nodes;
mod policies;
mod reign;
mod row;
mod tokens;

use base::{DeviceId, NodeId, Timestamp};
use bytes::Bytes;
use map::Map;
use serde::{Deserialize, Serialize};
use shard::{Batch, Execution, Latch, Registry, View};

pub use nodes::{Drain, Found, Losses, Part, Remove, SetZone};
pub use policies::PutPolicy;
pub use reign::{Advance, ReadMap, Seize};
#[cfg(test)]
pub(crate) use row::MAP as MAP_ROW;
pub use row::authority;
pub(crate) use tokens::DEVICES_MAX;
pub use tokens::{AddToken, Establish, JoinRequest, ListTokens, RemoveToken, TokenState};
pub use tokens::{Join, Joined};

#[cfg(test)]
mod tests;

/// Why the control group refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    #[error("there is no {0}")]
    Unknown(Part),
    /// It holds something, and is expected back.
    #[error(
        "{part} still holds {groups} groups and {shards} shards: drain it first, or wait until it \
         is out"
    )]
    Holds {
        part: Part,
        groups: usize,
        shards: usize,
    },
    /// It is out, but what it has is nowhere else.
    #[error("{part} has the only copy of {groups} groups and {shards} shards: they would be lost")]
    OnlyCopy {
        part: Part,
        groups: usize,
        shards: usize,
    },
    #[error(
        "the last device that is not being drained cannot be drained, nor the last one be removed"
    )]
    Last,
    #[error("a zone's name has at most {} bytes", nodes::ZONE_BYTES_MAX)]
    ZoneTooLong,
    #[error("there is no policy {0:?}")]
    NoPolicy(String),
    /// What was written with it would not be what it says.
    #[error("there is a policy of this name: it is {0}, and stays that")]
    OtherPolicy(String),
    #[error("there are {there} devices that stay, and {needed} are needed")]
    TooFewDevices { needed: usize, there: usize },
    #[error(
        "a policy's name has 1 to {} letters, digits, `-` and `_`",
        policies::NAME_BYTES_MAX
    )]
    PolicyName,
    #[error("there are {} policies, and no more can be", policies::POLICIES_MAX)]
    TooManyPolicies,
    /// Removed, forgotten after its expiry, or never there.
    #[error("the join token is not known: it was removed or expired, or never created")]
    NoToken,
    #[error("the join token was used already, by node {0}")]
    TokenUsed(NodeId),
    #[error("the join token expired at {0}")]
    TokenExpired(Timestamp),
    #[error("the join token's secret is wrong")]
    WrongSecret,
    #[error("there are {0} join tokens: remove some, or wait until they expire")]
    TooManyTokens(usize),
    #[error("device {0} belongs to the cluster already")]
    DeviceKnown(DeviceId),
    #[error(
        "a node joins with 1 to {} devices and 1 to {} addresses",
        tokens::DEVICES_MAX,
        tokens::ADDRESSES_MAX
    )]
    BadRequest,
    #[error("the cluster has no authority yet: its first node has not begun to listen")]
    NoAuthority,
    /// The map has changed since: plan again.
    #[error("planned on another map than that of epoch {0}")]
    Overtaken(map::Epoch),
    #[error("another controller has begun")]
    Deposed,
    #[error("row damaged: {0}")]
    Damaged(String),
}

type Planned<T> = Result<(Batch, T), Execution<Refusal>>;

fn refuse<T>(refusal: Refusal) -> Result<T, Execution<Refusal>> {
    Err(Execution::Refused(refusal))
}

/// Whoever changes the map has it to himself.
fn map_latch() -> Vec<Latch> {
    vec![Latch::Exclusive(Bytes::from_static(row::MAP))]
}

/// A change of the map: what comes of it is written if it is another.
fn change_map(
    view: &View,
    change: impl FnOnce(&Map) -> Result<Map, Refusal>,
) -> Result<(Batch, Map), Execution<Refusal>> {
    let before = row::map(view)?;
    let after = change(&before).map_err(Execution::Refused)?;
    let mut batch = Batch::new();
    if after != before {
        put_map(&mut batch, &after);
    }
    Ok((batch, after))
}

fn put_map(batch: &mut Batch, map: &Map) {
    batch.put(row::MAP, Bytes::from(map.encode()));
    // A cluster that is full must still be able to move things.
    batch.frees_space();
}

/// Adds to what other nodes may call on the shards that this one leads.
#[must_use]
pub fn registry(registry: Registry) -> Registry {
    registry
        .procedure::<Found>()
        .procedure::<Drain>()
        .procedure::<Remove>()
        .procedure::<SetZone>()
        .procedure::<PutPolicy>()
        .procedure::<Advance>()
        .procedure::<Seize>()
        .procedure::<AddToken>()
        .procedure::<RemoveToken>()
        .procedure::<Join>()
        .query::<ReadMap>()
        .query::<ListTokens>()
}
