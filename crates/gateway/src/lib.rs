//! What the front doors share.
