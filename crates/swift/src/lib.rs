//! Swift API v1.
