//! Nodes, devices, groups, policies: pure values.
