//! Questions about rows whatever they mean: one row, some counters, a page of a table.
//!
//! Rows are a format that stays readable for ever, so they may as well travel as they are. What needs
//! several rows of one moment, or would send more than it looks for, is a query of its own beside the
//! code that asks it.

use bytes::Bytes;
use futures_util::future::try_join_all;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shard::{Execution, Query, Shard, View};

use crate::{Error, Namespace, container, patience, row, scan};

/// The most that a page holds, but for its last row: an answer takes one message.
const PAGE_ROWS_MAX: usize = 1000;
const PAGE_BYTES_MAX: usize = 1 << 20;

/// The row of a key.
#[derive(Serialize, Deserialize)]
pub(crate) struct Get {
    pub(crate) key: Bytes,
}

impl Query for Get {
    const NAME: &'static str = "row.get";

    type Output = Option<Bytes>;
    type Error = Error;

    fn answer(&self, view: &View) -> Result<Option<Bytes>, Execution<Error>> {
        Ok(view.get(&self.key)?)
    }
}

/// The values of counters that only a bug can make negative.
#[derive(Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) keys: Vec<Bytes>,
}

impl Query for Counts {
    const NAME: &'static str = "row.counts";

    type Output = Vec<u64>;
    type Error = Error;

    fn answer(&self, view: &View) -> Result<Vec<u64>, Execution<Error>> {
        let counts = self.keys.iter().map(|key| container::count(view, key));
        Ok(counts.collect::<Result<_, Error>>()?)
    }
}

/// The first rows from a key on, below another.
#[derive(Serialize, Deserialize)]
pub(crate) struct GetPage {
    pub(crate) from: Bytes,
    pub(crate) to: Bytes,
}

/// Rows in the order of their keys.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) rows: Vec<(Bytes, Bytes)>,
    /// Where the next page begins; `None` after the last one.
    pub(crate) next: Option<Bytes>,
}

impl Query for GetPage {
    const NAME: &'static str = "row.page";

    type Output = Page;
    type Error = Error;

    fn answer(&self, view: &View) -> Result<Page, Execution<Error>> {
        let (mut rows, mut next, mut bytes) = (Vec::new(), None, 0);
        scan::rows(view, &self.from, &self.to, |key, value| {
            let copy = Bytes::copy_from_slice;
            rows.push((copy(key), copy(value)));
            bytes += key.len() + value.len();
            let more = scan::while_below(rows.len(), PAGE_ROWS_MAX);
            if more.is_break() || bytes >= PAGE_BYTES_MAX {
                next = Some(scan::behind(key));
                return Ok(std::ops::ControlFlow::Break(()));
            }
            Ok(more)
        })?;
        Ok(Page { rows, next })
    }
}

/// A row, decoded.
pub(crate) async fn get<T: DeserializeOwned>(
    shard: &Shard,
    key: Bytes,
) -> Result<Option<T>, Error> {
    let row = patience::query(shard, Get { key }).await?;
    row.map(|row| row::decode_owned(&row)).transpose()
}

/// The first rows from `from` on, below `to`.
pub(crate) async fn page(shard: &Shard, from: Bytes, to: Bytes) -> Result<Page, Error> {
    patience::query(shard, GetPage { from, to }).await
}

impl Namespace {
    /// The sums of counters over all shards, which may have changed between one and the next.
    pub(crate) async fn sums<const N: usize>(&self, keys: &[Bytes; N]) -> Result<[u64; N], Error> {
        let shards = self.shard_ids().map(|shard| {
            let keys = keys.to_vec();
            self.query(shard, Counts { keys })
        });
        let mut sums = [0; N];
        for counts in try_join_all(shards).await? {
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        Ok(sums)
    }
}
