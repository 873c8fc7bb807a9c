//! Clients of all kinds.
