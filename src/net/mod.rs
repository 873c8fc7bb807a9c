//! Sockets: the only module that names `tokio::net`.

pub mod dial;
pub mod fds;
pub mod inherit;
pub mod listen;
pub mod local;
pub mod notify;
pub mod pass;
pub mod resolve;
pub mod stream;
pub mod tls;
pub mod verify;

pub use stream::Stream;
pub use tokio::net::UnixStream;
