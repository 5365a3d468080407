//! Tests only: a simulated disk and clock, and models.
