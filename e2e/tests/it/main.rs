//! The short forms of what `cargo xtask` runs long. See `docs/proof.md`.

mod abuse;
mod backup;
mod clients;
mod cluster;
mod crash;
mod damage;
mod strangers;
