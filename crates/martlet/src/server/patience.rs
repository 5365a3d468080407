//! Waiting for the server before us: one that was killed keeps its addresses and directories until
//! the kernel is done with it.

use std::io;
use std::time::Duration;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Five seconds in all: a process that lives longer means to.
const PAUSES_MAX: u32 = 50;

/// How often one start may still try again.
pub(super) struct Patience {
    pauses_left: u32,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self {
            pauses_left: PAUSES_MAX,
        }
    }

    /// What `attempt` gives, once nobody else has what it wants.
    pub(super) async fn get<T>(
        &mut self,
        mut attempt: impl FnMut() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        loop {
            match attempt() {
                Err(error) if is_taken(&error) && self.pauses_left > 0 => {
                    if self.pauses_left == PAUSES_MAX {
                        let seconds = (PAUSE * PAUSES_MAX).as_secs();
                        let error = format!("{error:#}");
                        tracing::warn!(error, seconds, "waiting for another process to end");
                    }
                    self.pauses_left -= 1;
                    tokio::time::sleep(PAUSE).await;
                }
                other => return other,
            }
        }
    }
}

fn is_taken(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let address = cause.downcast_ref::<io::Error>();
        let address = address.is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse);
        let directory = cause.downcast_ref::<device::Error>();
        address || matches!(directory, Some(device::Error::Locked))
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn taken() -> anyhow::Result<u32> {
        Err(io::Error::from(io::ErrorKind::AddrInUse)).context("cannot listen")
    }

    fn locked() -> anyhow::Result<u32> {
        Err(device::Error::Locked).context("opening a directory")
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_let_go_is_taken() {
        let mut patience = Patience::new();
        for refuse in [taken, locked] {
            let mut tries = 0;
            let got = patience.get(|| {
                tries += 1;
                if tries < 4 { refuse() } else { Ok(tries) }
            });
            assert_eq!(got.await.unwrap(), 4);
        }
        assert_eq!(patience.pauses_left, PAUSES_MAX - 6);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let mut patience = Patience::new();
        let start = tokio::time::Instant::now();
        assert!(is_taken(&patience.get(taken).await.unwrap_err()));
        assert_eq!(start.elapsed(), Duration::from_secs(5));
        // It is one for the whole start.
        assert!(is_taken(&patience.get(locked).await.unwrap_err()));
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test]
    async fn what_will_not_pass_is_not_waited_for() {
        let mut patience = Patience::new();
        let denied = || Err::<(), _>(io::Error::from(io::ErrorKind::PermissionDenied).into());
        patience.get(denied).await.unwrap_err();
        assert_eq!(patience.pauses_left, PAUSES_MAX);
    }
}
