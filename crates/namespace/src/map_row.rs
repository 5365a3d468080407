//! The map, as a row of the control shard.

use base::{DeviceId, ShardId, Timestamp};
use bytes::Bytes;
use map::Map;
use serde::{Deserialize, Serialize};
use shard::{Batch, Execution, Latch, Procedure, Shards, View};

use crate::{Error, key};

/// Adds devices to the map, if they are not in it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Join {
    devices: Vec<DeviceId>,
}

impl Procedure for Join {
    const NAME: &'static str = "map.join";

    type Output = Map;
    type Error = Error;

    fn latches(&self) -> Vec<Latch> {
        vec![Latch::Exclusive(Bytes::from_static(key::MAP))]
    }

    fn plan(&self, _: Timestamp, view: &View) -> Result<(Batch, Map), Execution<Error>> {
        let before = match view.get(key::MAP)? {
            Some(bytes) => decode(&bytes)?,
            None => Map::default(),
        };
        let after = before.with_devices(self.devices.iter().copied());
        let mut batch = Batch::new();
        if after != before {
            batch.put(key::MAP, Bytes::from(after.encode()));
        }
        Ok((batch, after))
    }
}

/// Reads the map's row.
pub(crate) fn decode(row: &[u8]) -> Result<Map, Error> {
    Map::decode(row).map_err(|error| Error::Damaged(error.to_string()))
}

/// The map, with these devices in it.
pub(crate) async fn join(shards: &Shards, devices: Vec<DeviceId>) -> Result<Map, Error> {
    let control = shards.get(ShardId::CONTROL);
    Ok(control.execute(Join { devices }).await?)
}
