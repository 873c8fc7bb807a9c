//! The beginning of a connection.

pub mod hello;
pub mod keys;
pub mod lane;
