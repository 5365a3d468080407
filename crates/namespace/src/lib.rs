//! Accounts, containers, objects, users: what the protocols share.
//!
//! A container's rows (its own, its objects, their small bodies, its garbage) lie in one shard, so
//! that a write of an object is one commit in one shard together with all counters. What an account
//! knows of its containers is spread over the shards and summed up when it is asked for.
//!
//! Each change is a [`shard::Procedure`]: planned purely, under latches, against a snapshot. Where
//! one operation needs several shards, the order of its steps is written at its function, with the
//! reason why a crash between any two of them does no harm.
//!
//! **Invariant:** an object and its line in a listing are one row, so they cannot disagree.
//! **Invariant:** every chunk on a device is referred to by an object, a pending upload or the
//! garbage queue, or belongs to an upload that goes on, or is a crash leftover that the scrubber
//! finds by asking [`Namespace::owns`].
//!
//! **Invariant:** what is asked of a shard is a [`shard::Query`] or a [`shard::Procedure`], so that it does
//! not matter where the shard is; only [`check`] looks at views.
//!
//! Small PUT: one query to look the container up, one procedure. GET of a small object: one query.

mod account;
mod background;
pub mod backup;
mod body;
mod cache;
pub mod check;
mod config;
mod container;
mod error;
mod expiry;
mod garbage;
mod hash;
mod heal;
mod key;
mod listing;
mod manifest;
mod map_row;
mod metadata;
mod metrics;
mod object;
mod owner;
mod patience;
mod pending;
mod pin;
mod placement;
mod quota;
mod reader;
pub mod rebuild;
mod registry;
mod renew;
pub mod restore;
mod row;
mod rows;
mod scan;
mod sweep;
#[cfg(test)]
mod tests;
mod users;
mod write;

pub use account::{Account, ContainerEntry, Usage};
pub use background::Background;
pub use body::{Stored, Upload};
pub use config::Config;
pub use container::{Container, Created, Held, PolicyChoice};
pub use error::{Error, Missing};
pub use key::{ACCOUNT_NAME_BYTES_MAX, CONTAINER_NAME_BYTES_MAX, OBJECT_NAME_BYTES_MAX};
pub use listing::{Entry, ListQuery, Subdirs};
pub use map::{NamedPolicy, Policies, Policy};
pub use metadata::{Metadata, MetadataChange, MetadataLimits};
pub use metrics::{Backlog, Metrics, Totals};
pub use object::{
    AccountQuota, Condition, Expired, Fetch, Found, Object, ObjectEntry, PostObject, PutObject,
    Written,
};
pub use owner::Owns;
pub use reader::BodyReader;
pub use registry::registry;
pub use users::{Role, User, Users};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::env::Env;
use base::{ShardId, Timestamp};
use chunks::{Chunks, Devices};
use map::Current;
use shard::{Procedure, Query, Shard, Shards};

use crate::body::Uploads;
use crate::cache::{Cache, Life};
use crate::pin::Pins;

/// The namespace of the cluster. Cheap to clone.
#[derive(Clone)]
pub struct Namespace {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    shards: Arc<Shards>,
    chunks: Chunks,
    config: Config,
    users: Users,
    accounts: Cache<Option<Arc<Account>>>,
    uploads: Uploads,
    pins: Pins,
    metrics: Metrics,
    /// The latest time that was asked for, in ticks.
    newest: AtomicU64,
}

impl Namespace {
    /// How containers can keep their bodies, as far as this node knows.
    pub fn policies(&self) -> Policies {
        self.inner.chunks.map().load().policies.clone()
    }

    /// The place of the policy of this name. One that was added a moment ago through another node is waited for.
    pub async fn find_policy(&self, name: &str) -> Option<u16> {
        /// As long as a map takes to reach every node that is up.
        const LOOKS_MAX: usize = 20;
        const LOOK: Duration = Duration::from_millis(50);
        let chunks = &self.inner.chunks;
        for _ in 0..LOOKS_MAX {
            let map = chunks.map().get();
            match map.policies.find(name) {
                None if map.nodes.len() > 1 => {}
                found => return found,
            }
            chunks.map_wanted().notify_one();
            tokio::time::sleep(LOOK).await;
        }
        None
    }

    /// Opens the namespace on these shards, and on those of the devices that are in the map. Nothing runs
    /// in the background before [`Namespace::start`].
    pub fn open(
        env: Env,
        shards: Arc<Shards>,
        map: Current,
        devices: Arc<dyn Devices>,
        config: Config,
    ) -> Self {
        let chunks = Chunks::new(env.clone(), map, devices, &config.chunks);
        let life = match config.is_shared {
            true => Life::Short(env.clock.clone()),
            false => Life::Endless,
        };
        let inner = Inner {
            users: Users::new(env.clone(), shards.clone(), life.clone()),
            accounts: Cache::new(life),
            uploads: Uploads::new(config.node),
            pins: Pins::default(),
            metrics: Metrics::default(),
            newest: AtomicU64::default(),
            env,
            shards,
            chunks,
            config,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    pub fn users(&self) -> &Users {
        &self.inner.users
    }

    pub fn chunks(&self) -> &Chunks {
        &self.inner.chunks
    }

    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// The wall clock, but never earlier than it has been: what has expired stays expired.
    pub(crate) fn now(&self) -> Timestamp {
        let now = self.inner.env.clock.now().ticks();
        let before = self.inner.newest.fetch_max(now, Ordering::Relaxed);
        Timestamp::from_ticks(now.max(before))
    }

    fn shard(&self, id: ShardId) -> &Shard {
        self.inner.shards.get(id)
    }

    fn shard_ids(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.inner.shards.count()).map(ShardId)
    }

    fn account_shard_id(&self, account: &str) -> ShardId {
        let count = self.inner.shards.count();
        placement::of_account(account, count)
    }

    fn account_shard(&self, account: &str) -> &Shard {
        self.shard(self.account_shard_id(account))
    }

    fn container_shard(&self, account: &str, container: &str) -> ShardId {
        let count = self.inner.shards.count();
        placement::of_container(account, container, count)
    }

    async fn execute<P>(&self, shard: ShardId, procedure: P) -> Result<P::Output, Error>
    where
        P: Procedure<Error = Error>,
    {
        patience::execute(self.shard(shard), procedure).await
    }

    async fn query<Q>(&self, shard: ShardId, query: Q) -> Result<Q::Output, Error>
    where
        Q: Query<Error = Error>,
    {
        patience::query(self.shard(shard), query).await
    }
}
