//! Walks over rows that may fail on the way.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use shard::{Scan, View};

use crate::Error;

/// Visits the rows from `from` on, below `to`, until `visit` breaks or fails.
pub(crate) fn rows(
    view: &View,
    from: &[u8],
    to: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Error>,
) -> Result<(), Error> {
    if from >= to {
        return Ok(());
    }
    let mut outcome = Ok(());
    let mut each = |key: &[u8], value: &[u8]| match visit(key, value) {
        Ok(ControlFlow::Continue(())) => Scan::Next,
        Ok(ControlFlow::Break(())) => Scan::Stop,
        Err(error) => {
            outcome = Err(error);
            Scan::Stop
        }
    };
    view.scan(Bound::Included(from), Bound::Excluded(to), &mut each)?;
    outcome
}

/// The first key behind this one.
pub(crate) fn behind(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

/// Goes on while there is room.
pub(crate) fn while_below(count: usize, max: usize) -> ControlFlow<()> {
    if count < max {
        ControlFlow::Continue(())
    } else {
        ControlFlow::Break(())
    }
}
