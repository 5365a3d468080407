//! The rows of a running cluster, for who saves them.

use base::ShardId;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode};
use namespace::backup::{Export, encode_rows};

use super::{Admin, Refusal, System, parse, refuse};
use crate::api::{self, BackupRows, BackupScope, BackupView, ReadBackup};

impl<S: System> Admin<S> {
    pub(super) fn backup_scope(&self) -> BackupScope {
        BackupScope {
            cluster: format!("{:032x}", self.shared.system.cluster_id()),
            shards: self.shared.namespace.shard_count(),
        }
    }

    pub(super) async fn open_backup(&self, shard: ShardId) -> Result<BackupView, Refusal> {
        let view = self.shared.namespace.open_backup(shard).await?;
        tracing::info!(%shard, position = view.position, "saving a shard");
        Ok(BackupView {
            device: view.device.to_string(),
            number: view.number,
            position: view.position,
        })
    }

    pub(super) async fn read_backup(
        &self,
        shard: ShardId,
        request: &Request<Bytes>,
    ) -> Result<BackupRows, Refusal> {
        let ReadBackup { view, after } = parse(request.body())?;
        let (Some(device), Ok(after)) = (api::device_id(&view.device), STANDARD.decode(&after))
        else {
            return refuse(StatusCode::BAD_REQUEST, "this is no view of a shard");
        };
        let view = Export {
            device,
            position: view.position,
            number: view.number,
        };
        let namespace = &self.shared.namespace;
        let page = namespace.read_backup(shard, &view, after.into()).await?;
        Ok(BackupRows {
            rows: STANDARD.encode(encode_rows(&page.rows)),
            next: page.next.map(|last| STANDARD.encode(last)),
        })
    }
}
