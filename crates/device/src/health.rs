//! Whether a device may still be written to.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use base::DeviceId;
use parking_lot::Mutex;
use tracing::error;

use crate::Error;

/// The state of a device. Goes one way only, until the process starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Healthy,
    /// The file system takes no writes (`EROFS`).
    ReadOnly,
    /// A sync or a write failed.
    Failed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "healthy",
            Self::ReadOnly => "read-only",
            Self::Failed => "failed",
        })
    }
}

/// The health of one device, shared by its log and its store. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    device: DeviceId,
    now: Arc<Mutex<Now>>,
    /// When the write of the log began that is under way, by the monotonic clock.
    log_write: Arc<Mutex<Option<Duration>>>,
}

/// A disk that works has a write of the log, a few blocks, within a second or two also under load.
const LOG_WRITE_TIME_MAX: Duration = Duration::from_secs(10);

struct Now {
    state: State,
    reason: Arc<str>,
}

impl Health {
    pub fn new(device: DeviceId) -> Self {
        let now = Now {
            state: State::Healthy,
            reason: "".into(),
        };
        Self {
            device,
            now: Arc::new(Mutex::new(now)),
            log_write: Arc::default(),
        }
    }

    /// The log begins to write, or has ended.
    pub(crate) fn log_writes(&self, since: Option<Duration>) {
        *self.log_write.lock() = since;
    }

    /// Whether the disk keeps the log waiting for longer than any does that works. It may yet go on.
    pub fn hangs(&self, now: Duration) -> bool {
        let since = *self.log_write.lock();
        since.is_some_and(|since| now.saturating_sub(since) >= LOG_WRITE_TIME_MAX)
    }

    pub fn state(&self) -> State {
        self.now.lock().state
    }

    /// Why the device is not healthy; empty while it is.
    pub fn reason(&self) -> Arc<str> {
        self.now.lock().reason.clone()
    }

    /// Takes the device out of service because `what` failed with `error`, and says so in the log
    /// once. A later call changes nothing, unless it makes a read-only device a failed one.
    pub fn fail(&self, what: &str, error: &io::Error) {
        let state = match error.kind() {
            io::ErrorKind::ReadOnlyFilesystem => State::ReadOnly,
            _ => State::Failed,
        };
        let mut now = self.now.lock();
        if state <= now.state {
            return;
        }
        *now = Now {
            state,
            reason: format!("{what}: {error}").into(),
        };
        error!(device = %self.device, %state, reason = %now.reason, "device out of service");
    }

    /// What a failed write means: no space is the caller's problem, anything else takes the device
    /// out of service. Not for a failed sync, which is always final: see [`Health::fail`].
    pub fn write_failed(&self, what: &str, error: &io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full,
            _ => {
                self.fail(what, error);
                self.check_write().expect_err("the device has just failed")
            }
        }
    }

    /// Does what others wait for. If it panics, that is a bug of ours, and nobody knows what of it
    /// has happened: so the device fails, and those who wait are to be given the error.
    ///
    /// # Errors
    /// [`Error::Failed`] after a panic.
    pub fn guard<R>(&self, what: &str, act: impl FnOnce() -> R) -> Result<R, Error> {
        // Whatever the panic left half changed is not written any more.
        catch_unwind(AssertUnwindSafe(act)).map_err(|_| {
            self.fail(what, &io::Error::other("internal error"));
            self.check_write().expect_err("the device has just failed")
        })
    }

    /// # Errors
    /// [`Error::ReadOnly`] or [`Error::Failed`] if the device is out of service.
    pub fn check_write(&self) -> Result<(), Error> {
        let now = self.now.lock();
        match now.state {
            State::Healthy => Ok(()),
            State::ReadOnly => Err(Error::ReadOnly(now.reason.clone())),
            State::Failed => Err(Error::Failed(now.reason.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_the_one_that_is_told() {
        let health = Health::new(DeviceId(1));
        health.check_write().unwrap();
        health.fail("syncing segment 3", &io::Error::other("EIO"));
        health.fail("syncing segment 4", &io::Error::other("EIO"));
        assert_eq!(health.state(), State::Failed);
        assert_eq!(&*health.reason(), "syncing segment 3: EIO");
        assert!(matches!(health.check_write(), Err(Error::Failed(_))));
    }

    #[test]
    fn a_panic_is_a_failure() {
        let health = Health::new(DeviceId(1));
        assert_eq!(health.guard("adding", || 1 + 1).unwrap(), 2);
        let failed = health.guard("syncing", || panic!("a bug"));
        assert!(matches!(failed, Err::<(), _>(Error::Failed(_))));
        assert_eq!(&*health.reason(), "syncing: internal error");
    }

    #[test]
    fn health_never_gets_better() {
        let read_only = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
        let health = Health::new(DeviceId(1));
        health.fail("a", &read_only);
        assert_eq!(health.state(), State::ReadOnly);
        health.fail("b", &io::Error::other("EIO"));
        assert_eq!(health.state(), State::Failed);
        health.fail("c", &read_only);
        assert_eq!(health.state(), State::Failed);
    }

    #[test]
    fn a_full_disk_is_no_reason_to_leave_service() {
        let health = Health::new(DeviceId(1));
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(matches!(health.write_failed("a", &full), Error::Full));
        assert_eq!(health.state(), State::Healthy);
    }
}
