//! Asks the running process.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;

use super::command::Command;
use crate::net::UnixStream;

/// Why there is no answer. The text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("there is no socket at {}: is Pilotfish running, and is that its [admin] socket?", .0.display())]
    NoSocket(PathBuf),
    #[error("nobody listens at {}: Pilotfish is not running", .0.display())]
    NotRunning(PathBuf),
    #[error(
        "no permission to connect to {}: only root, the user Pilotfish runs as and members of \
         [admin] allow_groups may",
        .0.display()
    )]
    Denied(PathBuf),
    #[error("cannot connect to {}: {source}", socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error("{} did not answer within {} s", socket.display(), TIMEOUT.as_secs())]
    Timeout { socket: PathBuf },
    #[error("{} does not answer as Pilotfish does: {why}", socket.display())]
    Nonsense { socket: PathBuf, why: String },
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

/// For connect, question and answer together.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What is read of an answer.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Status code and body of the answer to `command`.
///
/// # Errors
/// When there is no answer; a refusal is an answer.
pub async fn ask(socket: &Path, command: &Command) -> Result<(u16, Bytes), ClientError> {
    request(socket, command.method(), &command.path()).await
}

/// [`ask`] for a caller without a runtime.
///
/// # Errors
/// As [`ask`].
pub fn ask_blocking(socket: &Path, command: &Command) -> Result<(u16, Bytes), ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ClientError::Runtime)?;
    runtime.block_on(ask(socket, command))
}

/// Gets any path.
///
/// # Errors
/// As [`ask`].
pub async fn get(socket: &Path, path: &str) -> Result<(u16, Bytes), ClientError> {
    request(socket, Method::GET, path).await
}

async fn request(socket: &Path, method: Method, path: &str) -> Result<(u16, Bytes), ClientError> {
    let answer = tokio::time::timeout(TIMEOUT, exchange(socket, method, path)).await;
    answer.unwrap_or_else(|_| {
        Err(ClientError::Timeout {
            socket: socket.to_owned(),
        })
    })
}

async fn exchange(socket: &Path, method: Method, path: &str) -> Result<(u16, Bytes), ClientError> {
    let nonsense = |why: String| ClientError::Nonsense {
        socket: socket.to_owned(),
        why,
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "pilotfish")
        .body(Empty::<Bytes>::new())
        .map_err(|error| nonsense(error.to_string()))?;
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|error| no_connection(socket, error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| nonsense(error.to_string()))?;
    let answer = async move {
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| nonsense(error.to_string()))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER);
        let body = body.collect().await;
        let body = body.map_err(|error| nonsense(error.to_string()))?;
        Ok((status, body.to_bytes()))
    };
    // The connection ends when `answer` has dropped its sender; its own error is the sender's too.
    let (answer, _) = tokio::join!(answer, connection);
    answer
}

fn no_connection(socket: &Path, source: io::Error) -> ClientError {
    let socket = socket.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => ClientError::NoSocket(socket),
        io::ErrorKind::ConnectionRefused => ClientError::NotRunning(socket),
        io::ErrorKind::PermissionDenied => ClientError::Denied(socket),
        _ => ClientError::Connect { socket, source },
    }
}
