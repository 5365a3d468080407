//! One directory on one disk: identity, log, chunk store, checksums, scrub, compaction.
//!
//! **Invariant:** `device` never talks to the network: a directory is all that its tests need.
//! **Invariant:** bytes whose checksum is wrong are never returned as data.
//! **Invariant:** a sync that failed is never tried again; the device leaves service instead.

mod aligned;
mod config;
mod device;
mod error;
#[cfg(test)]
mod golden;
mod health;
mod identity;
pub mod lmdb;
mod log;
mod metrics;
mod store;

pub use config::Config;
pub use device::{Device, Offline};
pub use error::Error;
pub use health::{Health, State};
pub use identity::Identity;
pub use lmdb::{Access, Lmdb, open as open_lmdb};
pub use log::{Kind, Log, LogConfig, LogMetrics, Purpose, Record, Room};
pub use metrics::Metrics;
pub use store::{
    BadRecord, CHUNK_BYTES_MAX, FRAME_BYTES, Finding, FoundRecord, Fragment, Label,
    OWNER_BYTES_MAX, Owner, READ_BYTES_MAX, Referenced, Store, Usage,
};
