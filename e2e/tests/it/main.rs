//! The short forms of what `cargo xtask` runs long. See `docs/proof.md`.

mod crash;
