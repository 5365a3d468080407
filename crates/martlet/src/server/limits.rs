//! The process's own limits.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are not connections: files, LMDB, listeners, the runtime.
const OWN: u64 = 512;

/// Raises the number of files that may be open as far as the system lets us, and warns if that is
/// not enough for `connections_max`.
pub(super) fn raise_open_files(connections_max: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files");
            limit.current
        }
    };
    let wanted = connections_max as u64 + OWN;
    if let Some(current) = current.filter(|current| *current < wanted) {
        tracing::warn!(
            current,
            wanted,
            "too few files may be open for so many connections: raise LimitNOFILE (systemd) or ulimit -n"
        );
    }
}
