//! A shard's state, as openraft drives it.

use std::sync::Arc;

use openraft::storage::RaftStateMachine;
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError, StoredMembership,
};

use parking_lot::Mutex;

use super::{Entry, LogId, Memo, NodeId, SnapshotData, SnapshotMeta, StorageError, Types};
use crate::Error;
use crate::core::Core;
use crate::host::Host;

/// Cheap to clone; all clones are one state.
#[derive(Clone)]
pub(crate) struct StateMachine {
    pub(crate) host: Arc<Host>,
    pub(crate) core: Arc<Core>,
    /// The last snapshot that openraft was told of.
    told: Arc<Mutex<Option<LogId>>>,
}

impl StateMachine {
    pub(crate) fn new(host: Arc<Host>, core: Arc<Core>) -> Self {
        Self {
            host,
            core,
            told: Arc::default(),
        }
    }

    /// Applies an entry; returns by how much the memtable grew.
    pub(crate) fn apply_to(core: &Core, entry: &Entry) -> Result<u64, Error> {
        let batches = match &entry.payload {
            EntryPayload::Normal(proposal) => proposal.batches(),
            _ => &[],
        };
        core.apply(batches, |memo: &mut Memo| {
            memo.applied = Some(entry.log_id);
            match &entry.payload {
                EntryPayload::Normal(proposal) => memo.time = memo.time.max(proposal.time()),
                EntryPayload::Membership(membership) => {
                    let made = Some(entry.log_id);
                    memo.membership = StoredMembership::new(made, membership.clone());
                }
                EntryPayload::Blank => {}
            }
        })
    }

    fn apply_one(&self, entry: &Entry) -> Result<(), Error> {
        let grown = Self::apply_to(&self.core, entry)?;
        self.host.grew(grown);
        if let EntryPayload::Normal(proposal) = &entry.payload
            && let Some(local) = proposal.local()
        {
            local.finish(&Ok(()));
        }
        Ok(())
    }

    /// The shard as the tree has it.
    fn snapshot(&self) -> Result<Snapshot<Types>, Error> {
        let (memo, data) = SnapshotData::of_tree(self.host.tree(), self.core.id())?;
        let applied = memo.applied.map(|applied| applied.to_string());
        Ok(Snapshot {
            meta: SnapshotMeta {
                last_log_id: memo.applied,
                last_membership: memo.membership,
                snapshot_id: applied.unwrap_or_default(),
            },
            snapshot: Box::new(data),
        })
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId>, super::StoredMembership), StorageError> {
        let memo = self.core.memo();
        Ok((memo.applied, memo.membership))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        let health = self.host.device().health();
        for entry in entries {
            let applied = health.guard("applying an entry", || self.apply_one(&entry));
            applied
                .map_err(|failed| StorageIOError::apply(entry.log_id, &failed))?
                .map_err(|error| StorageIOError::apply(entry.log_id, &error))?;
            answers.push(());
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotData>, StorageError> {
        let spool = self.host.spool(self.core.id());
        let spool = spool.map_err(|error| StorageIOError::write_snapshot(None, &error))?;
        Ok(Box::new(SnapshotData::Spool(spool)))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        mut snapshot: Box<SnapshotData>,
    ) -> Result<(), StorageError> {
        let memo = Memo {
            applied: meta.last_log_id,
            membership: meta.last_membership.clone(),
            time: 0,
        };
        let (host, core) = (self.host.clone(), self.core.clone());
        // Reads a file and writes the tree.
        let installed =
            tokio::task::spawn_blocking(move || host.install(&core, memo, &mut snapshot)).await;
        let installed = installed.map_err(|panic| StorageIOError::write_snapshot(None, &panic))?;
        installed.map_err(|error| StorageIOError::write_snapshot(None, &error).into())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let snapshot = self.snapshot();
        let snapshot = snapshot.map_err(|error| StorageIOError::read_state_machine(&error))?;
        Ok(snapshot.meta.last_log_id.is_some().then_some(snapshot))
    }
}

impl RaftSnapshotBuilder<Types> for StateMachine {
    /// A snapshot is what the tree holds. After a flush that is newer than the last one; if it is
    /// not, somebody wants a newer one, and so there is a flush first.
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let failed = |error| StorageIOError::<NodeId>::write_snapshot(None, &error);
        let in_tree = self.core.memo_in_tree().map_err(failed)?;
        if in_tree.applied <= *self.told.lock() {
            let host = self.host.clone();
            let flushed = tokio::task::spawn_blocking(move || host.flush()).await;
            match flushed.map_err(|panic| StorageIOError::write_snapshot(None, &panic))? {
                // Openraft stops the group if we fail, and what we have is as good a snapshot.
                Ok(()) | Err(device::Error::Full) => {}
                Err(error) => Err(StorageIOError::write_snapshot(None, &error))?,
            }
        }
        let snapshot = self.snapshot().map_err(failed)?;
        *self.told.lock() = snapshot.meta.last_log_id;
        Ok(snapshot)
    }
}
