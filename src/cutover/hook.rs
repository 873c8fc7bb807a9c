//! Operators' own commands: gates that may say no, and hooks around the change.
//!
//! What a hook is told stands in its environment, in names that begin with `PILOTFISH_`.

pub use crate::command::{Command, CommandError as HookError, Outcome, Status, run};
