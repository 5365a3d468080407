//! Where rows come from: a running server, by its admin socket.

use admin::api::{BackupRows, BackupScope, BackupView, ReadBackup};
use anyhow::{Context as _, anyhow};
use base::ShardId;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use namespace::backup::{Exported, decode_rows};

use crate::client::{Client, Refusal};

/// What gives the rows of a cluster.
pub(super) trait Source {
    fn scope(&self) -> anyhow::Result<Scope>;
    /// Opens a view of a shard.
    ///
    /// # Errors
    /// [`Lost`] if it may work a moment later.
    fn open(&self, shard: ShardId) -> anyhow::Result<BackupView>;
    /// The rows of a view behind `after`.
    ///
    /// # Errors
    /// [`Lost`] if the view is open no more.
    fn read(&self, shard: ShardId, view: &BackupView, after: &str) -> anyhow::Result<Page>;
}

/// What there is to be saved.
pub(super) struct Scope {
    pub(super) cluster: u128,
    pub(super) shards: u16,
}

/// Some rows.
pub(super) struct Page {
    pub(super) rows: Vec<(Bytes, Exported)>,
    /// Nothing if these are the last.
    pub(super) next: Option<String>,
}

/// The shard is to be begun anew.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Lost(pub(super) anyhow::Error);

impl Source for Client {
    fn scope(&self) -> anyhow::Result<Scope> {
        let scope: BackupScope = self.post("/admin/backup", &())?;
        let cluster = u128::from_str_radix(&scope.cluster, 16);
        Ok(Scope {
            cluster: cluster.context("the cluster's id is no number")?,
            shards: scope.shards,
        })
    }

    fn open(&self, shard: ShardId) -> anyhow::Result<BackupView> {
        let opened = self.post(&format!("/admin/backup/{}", shard.0), &());
        opened.map_err(or_lost)
    }

    fn read(&self, shard: ShardId, view: &BackupView, after: &str) -> anyhow::Result<Page> {
        let read = ReadBackup {
            view: view.clone(),
            after: after.to_owned(),
        };
        let rows = self.post(&format!("/admin/backup/{}/rows", shard.0), &read);
        let BackupRows { rows, next } = rows.map_err(or_lost)?;
        let rows = STANDARD.decode(rows);
        let rows = rows.context("the server's answer is not what was expected")?;
        Ok(Page {
            rows: decode_rows(rows.into()).map_err(|error| anyhow!("a piece is {error}"))?,
            next,
        })
    }
}

fn or_lost(error: anyhow::Error) -> anyhow::Error {
    const UNAVAILABLE: u16 = 503;
    let refusal = error.downcast_ref::<Refusal>();
    match refusal.is_some_and(|refusal| refusal.status == UNAVAILABLE) {
        true => Lost(error).into(),
        false => error,
    }
}
