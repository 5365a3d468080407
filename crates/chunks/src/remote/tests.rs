//! Nodes in one process that call each other over real sockets.

mod calls;
mod cluster;
mod world;
