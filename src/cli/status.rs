//! stub
pub fn status(_: &super::StatusArgs) -> super::ExitCode { super::ExitCode::Failed }
