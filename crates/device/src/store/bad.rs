//! Records that cannot be read or are wrong: told once each, and remembered for whoever asks.

use std::collections::BTreeMap;

use base::{ChunkId, DeviceId};
use parking_lot::Mutex;
use tracing::error;

use super::record::Place;
use crate::Metrics;

/// A disk with more than this is not helped by a longer list.
const LIST_MAX: usize = 1000;

/// A record that cannot be read or is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    pub chunk: ChunkId,
    pub segment: u64,
    pub offset: u64,
    pub what: String,
}

#[derive(Default)]
pub(crate) struct BadList {
    records: Mutex<BTreeMap<ChunkId, BadRecord>>,
}

impl BadList {
    /// Reports a record; says so in the log the first time.
    pub(crate) fn report(
        &self,
        device: DeviceId,
        metrics: &Metrics,
        chunk: ChunkId,
        place: &Place,
        what: &str,
    ) {
        let mut records = self.records.lock();
        if records.contains_key(&chunk) || records.len() >= LIST_MAX {
            return;
        }
        let (segment, offset) = (place.segment, place.offset);
        let what = what.to_owned();
        error!(%device, %chunk, segment, offset, what, "bad record");
        let record = BadRecord {
            chunk,
            segment,
            offset,
            what,
        };
        records.insert(chunk, record);
        metrics
            .bad_records
            .set(i64::try_from(records.len()).unwrap_or(i64::MAX));
    }

    /// The chunk is gone, or good after all.
    pub(crate) fn clear(&self, metrics: &Metrics, chunk: ChunkId) {
        let mut records = self.records.lock();
        if records.remove(&chunk).is_some() {
            metrics
                .bad_records
                .set(i64::try_from(records.len()).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn list(&self) -> Vec<BadRecord> {
        self.records.lock().values().cloned().collect()
    }
}
