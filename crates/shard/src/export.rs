//! Reading a whole shard as of one moment, piece by piece, wherever it is: for backups.
//!
//! A view is opened by one call and stays open between the calls that read it, on the node that opened it. It keeps
//! pages of the tree from being used again, so it is closed when nobody has read from it for a while, and a shard has
//! few at a time. Each piece is asked for by the last key of the one before: a call whose answer was lost is repeated.
//!
//! A piece is some 256 KiB in memory on each node that it passes.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::DeviceId;
use base::env::Env;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::tree::Row;
use crate::{Error, View};

/// Names of the calls: see [`crate::Procedure::NAME`].
pub(crate) const OPEN: &str = "export.open";
pub(crate) const READ: &str = "export.read";

/// A second one may be begun while one that was given up is still open.
const OPEN_MAX: usize = 2;
/// Who is not dead asks for the next piece sooner. A view that was not read from for this long is closed within
/// twice the time.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// A piece ends with the row that reaches this: it takes one message.
const PIECE_BYTES: usize = 256 << 10;
/// Another one is open for somebody else.
const BUSY: Error = Error::Unavailable {
    retry_in: Duration::from_secs(5),
};

/// A view of a shard that is open somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// Where it is open.
    pub device: DeviceId,
    /// The last entry of the shard's log that is in it.
    pub position: u64,
    /// Which one: drawn at random.
    pub number: u64,
}

/// Some rows of a shard, in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    pub rows: Vec<(Bytes, Exported)>,
    pub is_last: bool,
}

/// What is stored under a key, as a value of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exported {
    Row(Bytes),
    Counter(i64),
}

/// The rows behind a key, which may be empty.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Read {
    pub(crate) number: u64,
    pub(crate) after: Bytes,
}

/// The views of one shard that are open here.
#[derive(Default)]
pub(crate) struct Exports {
    open: Mutex<HashMap<u64, Arc<Open>>>,
}

struct Open {
    view: Mutex<View>,
    was_read: AtomicBool,
}

impl Exports {
    /// Keeps a view open, as long as somebody reads it.
    pub(crate) fn open(
        self: &Arc<Self>,
        env: &Env,
        device: DeviceId,
        view: View,
    ) -> Result<Export, Error> {
        let export = Export {
            device,
            position: view.position(),
            number: env.entropy.u64(),
        };
        let mut open = self.open.lock();
        if open.len() >= OPEN_MAX {
            return Err(BUSY);
        }
        let one = Open {
            view: Mutex::new(view),
            was_read: AtomicBool::new(false),
        };
        open.insert(export.number, Arc::new(one));
        drop(open);
        self.close_when_idle(export.number);
        Ok(export)
    }

    fn close_when_idle(self: &Arc<Self>, number: u64) {
        // Who ends the shard does not wait for this.
        let exports = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(IDLE_MAX).await;
                let Some(exports) = exports.upgrade() else {
                    return;
                };
                let mut open = exports.open.lock();
                let is_read = |one: &Arc<Open>| one.was_read.swap(false, Ordering::Relaxed);
                if !open.get(&number).is_some_and(is_read) {
                    open.remove(&number);
                    return;
                }
            }
        });
    }

    /// The next piece. The view is closed with the last one.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the view is not open here any more; [`Error::Damaged`] if a row is.
    pub(crate) async fn read(&self, read: Read) -> Result<Piece, Error> {
        let one = self.open.lock().get(&read.number).cloned();
        let Some(one) = one else {
            return Err(BUSY);
        };
        one.was_read.store(true, Ordering::Relaxed);
        let Read { number, after } = read;
        let read = tokio::task::spawn_blocking(move || piece(&one.view.lock(), &after)).await;
        let read = read.expect("reading rows does not panic")?;
        if read.is_last {
            self.open.lock().remove(&number);
        }
        Ok(read)
    }
}

fn piece(view: &View, after: &[u8]) -> Result<Piece, Error> {
    let mut piece = Piece {
        rows: Vec::new(),
        is_last: true,
    };
    let (mut bytes, mut wrong) = (0, None);
    view.visit_behind(after, &mut |key, row| {
        if bytes >= PIECE_BYTES {
            piece.is_last = false;
            return ControlFlow::Break(());
        }
        let row = match row {
            Ok(Row::Value(value)) => Exported::Row(Bytes::copy_from_slice(value)),
            Ok(Row::Counter(sum)) => Exported::Counter(sum),
            // What is damaged here must not be spread.
            Err(error) => {
                wrong = Some(error);
                return ControlFlow::Break(());
            }
        };
        let value_bytes = match &row {
            Exported::Row(value) => value.len(),
            Exported::Counter(_) => size_of::<i64>(),
        };
        bytes += key.len() + value_bytes;
        piece.rows.push((Bytes::copy_from_slice(key), row));
        ControlFlow::Continue(())
    })?;
    match wrong {
        Some(error) => Err(error),
        None => Ok(piece),
    }
}
