//! One directory on one disk: identity, log, chunk store, checksums, scrub, compaction.
