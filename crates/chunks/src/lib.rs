//! Placement of chunks on groups of devices.
