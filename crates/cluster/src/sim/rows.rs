//! What clients ask of a shard, and how its rows are copied.

use std::ops::Bound;

use base::Timestamp;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shard::{Batch, Execution, Latch, Procedure, Query, Registry, Scan, View};

use super::disk::Rows;
use crate::control::{self, ReadMap};

/// Writes a register.
#[derive(Serialize, Deserialize)]
pub(super) struct Put {
    pub(super) key: u64,
    pub(super) value: u64,
}

/// Reads a register.
#[derive(Serialize, Deserialize)]
pub(super) struct Get {
    pub(super) key: u64,
}

fn row(key: u64) -> Bytes {
    [b"r", &key.to_be_bytes()[..]].concat().into()
}

impl Procedure for Put {
    const NAME: &'static str = "sim.put";

    type Output = ();
    type Error = ();

    fn latches(&self) -> Vec<Latch> {
        vec![Latch::Exclusive(row(self.key))]
    }

    fn plan(&self, _: Timestamp, _: &View) -> Result<(Batch, ()), Execution<()>> {
        let mut batch = Batch::new();
        batch.put(
            row(self.key),
            Bytes::from(self.value.to_be_bytes().to_vec()),
        );
        Ok((batch, ()))
    }
}

impl Query for Get {
    const NAME: &'static str = "sim.get";

    type Output = Option<u64>;
    type Error = ();

    fn answer(&self, view: &View) -> Result<Option<u64>, Execution<()>> {
        let found = view.get(&row(self.key))?;
        Ok(found.map(|value| u64::from_be_bytes(value[..].try_into().expect("8 bytes"))))
    }
}

/// Reads all rows.
#[derive(Serialize, Deserialize)]
pub(super) struct Dump {}

impl Query for Dump {
    const NAME: &'static str = "sim.dump";

    type Output = Rows;
    type Error = ();

    fn answer(&self, view: &View) -> Result<Rows, Execution<()>> {
        let mut rows = Vec::new();
        view.scan(Bound::Unbounded, Bound::Unbounded, &mut |key, value| {
            rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            Scan::Next
        })?;
        Ok(rows)
    }
}

/// Writes rows that [`Dump`] has read.
#[derive(Serialize, Deserialize)]
pub(super) struct Load {
    pub(super) rows: Rows,
}

impl Procedure for Load {
    const NAME: &'static str = "sim.load";

    type Output = ();
    type Error = ();

    fn latches(&self) -> Vec<Latch> {
        Vec::new()
    }

    fn plan(&self, _: Timestamp, _: &View) -> Result<(Batch, ()), Execution<()>> {
        let mut batch = Batch::new();
        for (key, value) in &self.rows {
            batch.put(key.clone(), value.clone());
        }
        Ok((batch, ()))
    }
}

/// Whether a call of this name changes nothing.
pub(super) fn is_query(name: &str) -> bool {
    [Get::NAME, ReadMap::NAME].contains(&name)
}

/// All that may be called.
pub(super) fn registry() -> Registry {
    let registry = control::registry(Registry::new());
    registry.procedure::<Put>().query::<Get>()
}
