//! What the config says about the admin socket: valid values, checked once.

use std::path::{Path, PathBuf};

/// Where the admin socket is when the config does not say.
pub const DEFAULT_SOCKET: &str = "/run/pilotfish/admin.sock";

/// `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSpec {
    pub socket: PathBuf,
    /// Permission bits of the socket.
    pub mode: u32,
    /// Their members may connect, besides root and the socket's owner.
    pub allow_groups: Vec<String>,
}

impl AdminSpec {
    pub fn default_socket() -> &'static Path {
        Path::new(DEFAULT_SOCKET)
    }
}
