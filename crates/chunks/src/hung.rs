//! Devices that neither answer nor fail, here or on another node.
//!
//! A disk may keep a call for minutes, or for ever. Nobody waits for devices longer than
//! [`DEVICE_TIME_MAX`]. What takes longer goes on without its caller, and until it ends its device is
//! *hung*: it gets no new chunks, so that those of its uploads that hang now are the last, and what
//! else is asked of it is given up soon, so that who waits for it does not keep the buffers from those
//! whose devices work.
//!
//! What a hung device holds of ours is bounded: the pieces of writes are in the upload budget until it
//! lets go of them; of other calls one goes on, as a probe, and the rest are dropped.
//!
//! A call to another node ends by its deadline, whatever the device does. So that device is hung for another
//! [`PAUSE`], and is tried again then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::DeviceId;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::StorageError;

/// The longest that a request waits for devices. Disks that retry inside, and buses that are reset, take up
/// to that; few clients wait longer.
pub(crate) const DEVICE_TIME_MAX: Duration = Duration::from_secs(30);

/// The longest that a write waits when other devices could take the chunk: a disk under load syncs
/// within a second or two.
pub(crate) const TRY_TIME_MAX: Duration = Duration::from_secs(10);

/// The longest that a request waits for a device that is known to hang: enough for what the page cache has.
const HUNG_TIME_MAX: Duration = Duration::from_secs(1);

/// How long a device is hung after another node gave up waiting for it: what is tried then may cost
/// somebody [`TRY_TIME_MAX`] again.
const PAUSE: Duration = Duration::from_secs(30);

/// Which devices hang. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Hung {
    /// How many overdue calls each has.
    overdue: Arc<Mutex<BTreeMap<DeviceId, usize>>>,
}

/// A call of a device.
pub(crate) type Call<T> = BoxFuture<'static, Result<T, StorageError>>;

/// An overdue call, until it is dropped.
struct Overdue {
    hung: Hung,
    device: DeviceId,
}

impl Hung {
    pub(crate) fn is_hung(&self, device: DeviceId) -> bool {
        self.overdue.lock().contains_key(&device)
    }

    /// How many do.
    pub(crate) fn count(&self) -> usize {
        self.overdue.lock().len()
    }

    /// Waits for a call that leaves nothing behind when it is dropped.
    pub(crate) async fn wait<T: Send + 'static>(
        &self,
        device: DeviceId,
        mut call: Call<T>,
    ) -> Result<T, StorageError> {
        let time = match self.is_hung(device) {
            true => HUNG_TIME_MAX,
            false => DEVICE_TIME_MAX,
        };
        match answer_until(Instant::now() + time, &mut call).await {
            Some(answer) => answer,
            None => {
                if !self.is_hung(device) {
                    self.leave(device, call, || ());
                }
                Err(StorageError::Overdue)
            }
        }
    }

    /// Waits for a write, until it is overdue or its device `falls`. Then the write goes on; `ended` is called when it
    /// has ended, however that was.
    pub(crate) async fn wait_for_write<T: Send + 'static>(
        &self,
        device: DeviceId,
        until: Instant,
        falls: impl Future<Output = ()>,
        mut write: Call<T>,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<T, StorageError> {
        let left = tokio::select! {
            biased;
            left = answer_until(until, &mut write) => left,
            () = falls => {
                // Its own deadline ends it.
                tokio::spawn(async move {
                    drop(write.await);
                    ended();
                });
                return Err(StorageError::Unavailable("its node is down".into()));
            }
        };
        match left {
            Some(answer) => answer,
            None => {
                self.leave(device, write, ended);
                Err(StorageError::Overdue)
            }
        }
    }

    /// Lets an overdue call go on.
    fn leave<T: Send + 'static>(
        &self,
        device: DeviceId,
        call: Call<T>,
        ended: impl FnOnce() + Send + 'static,
    ) {
        let before = {
            let mut overdue = self.overdue.lock();
            let calls = overdue.entry(device).or_default();
            *calls += 1;
            *calls - 1
        };
        if before == 0 {
            tracing::error!(%device, "the device hangs: it gets no new chunks until it answers");
        }
        let overdue = Overdue {
            hung: self.clone(),
            device,
        };
        tokio::spawn(async move {
            if matches!(call.await, Err(StorageError::Overdue)) {
                tokio::time::sleep(PAUSE).await;
            }
            drop(overdue);
            ended();
        });
    }
}

/// A call's answer. If there is none, the call is still there to be waited for.
async fn answer_until<T: Send + 'static>(
    until: Instant,
    call: &mut Call<T>,
) -> Option<Result<T, StorageError>> {
    match tokio::time::timeout_at(until, &mut *call).await {
        // It is over, and the device still does not answer.
        Ok(Err(StorageError::Overdue)) => {
            *call = ready(Err(StorageError::Overdue)).boxed();
            None
        }
        Ok(answer) => Some(answer),
        Err(_) => None,
    }
}

impl Drop for Overdue {
    fn drop(&mut self) {
        let mut overdue = self.hung.overdue.lock();
        let calls = overdue.get_mut(&self.device).expect("it was counted");
        *calls -= 1;
        if *calls == 0 {
            overdue.remove(&self.device);
            tracing::info!(device = %self.device, "the device is taken to answer again");
        }
    }
}

#[cfg(test)]
mod tests;
