//! What the controller does: it takes the reign, reads the map, and makes changes.

use base::Timestamp;
use bytes::Bytes;
use map::{Epoch, Map, Step};
use serde::{Deserialize, Serialize};
use shard::{Batch, Execution, Latch, Procedure, Query, View};

use super::row::{self, ReignRow};
use super::{Planned, Refusal, map_latch, put_map, refuse};
use crate::report::Reign;

/// Makes a reign the present one; changes of earlier ones are refused from now on. Gives the map.
#[derive(Serialize, Deserialize)]
pub struct Seize {
    pub reign: Reign,
}

impl Procedure for Seize {
    const NAME: &'static str = "control.seize";

    type Output = Map;
    type Error = Refusal;

    fn latches(&self) -> Vec<Latch> {
        map_latch()
    }

    fn plan(&self, _: Timestamp, view: &View) -> Planned<Map> {
        let mut batch = Batch::new();
        batch.put(row::REIGN, row::encode(&ReignRow { reign: self.reign }));
        // It takes the place of another row.
        batch.frees_space();
        Ok((batch, row::map(view)?))
    }
}

/// A change of the map by the controller of a reign. Gives the new map.
#[derive(Serialize, Deserialize)]
pub struct Advance {
    pub reign: Reign,
    /// The map that the steps were planned on.
    pub from: Epoch,
    pub steps: Vec<Step>,
}

impl Procedure for Advance {
    const NAME: &'static str = "control.advance";

    type Output = Map;
    type Error = Refusal;

    fn latches(&self) -> Vec<Latch> {
        map_latch()
    }

    fn plan(&self, _: Timestamp, view: &View) -> Planned<Map> {
        let reign = row::get::<ReignRow>(view, row::REIGN)?;
        if reign.is_none_or(|row| row.reign != self.reign) {
            return refuse(Refusal::Deposed);
        }
        let before = row::map(view)?;
        if before.epoch != self.from {
            return refuse(Refusal::Overtaken(before.epoch));
        }
        let after = before.after(&self.steps);
        let mut batch = Batch::new();
        put_map(&mut batch, &after);
        Ok((batch, after))
    }
}

/// The map, if it is newer than `known`: encoded, so that asking costs nothing when nothing has changed.
#[derive(Serialize, Deserialize)]
pub struct ReadMap {
    pub known: Epoch,
}

impl Query for ReadMap {
    const NAME: &'static str = "control.read_map";

    type Output = Option<Bytes>;
    type Error = Refusal;

    fn answer(&self, view: &View) -> Result<Option<Bytes>, Execution<Refusal>> {
        let Some(row) = view.get(row::MAP)? else {
            return Ok(None);
        };
        match Map::epoch_of(&row) {
            Ok(epoch) => Ok((epoch > self.known).then_some(row)),
            Err(bad) => refuse(Refusal::Damaged(bad.to_string())),
        }
    }
}
