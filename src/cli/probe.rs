//! stub
pub fn probe(_: crate::config::Loaded) -> super::ExitCode { super::ExitCode::Failed }
