//! Asks the running process.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request, Response};
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
    #[error("{} did not answer within {} s", socket.display(), patience.as_secs())]
    Timeout { socket: PathBuf, patience: Duration },
    #[error("{} does not answer as Pilotfish does: {why}", socket.display())]
    Nonsense { socket: PathBuf, why: String },
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

/// What is read of an answer.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Status code and body of the answer to `command`.
///
/// # Errors
/// When there is no answer; a refusal is an answer.
pub async fn ask(socket: &Path, command: &Command) -> Result<(u16, Bytes), ClientError> {
    let path = command.path();
    let asking = Asking::new(command.method(), &path, command.body());
    request(socket, asking, command.patience()).await
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
    let patience = Command::Status.patience();
    request(socket, Asking::new(Method::GET, path, Vec::new()), patience).await
}

/// Sends `command` and hands the answer's lines to `each` as they come, until it says `false` or the
/// process ends. An answer that is no success is returned whole, with its status code.
///
/// # Errors
/// When there is no answer. It may take for ever to end.
pub fn read_lines(
    socket: &Path,
    command: &Command,
    each: impl FnMut(&str) -> bool,
) -> Result<(u16, String), ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ClientError::Runtime)?;
    runtime.block_on(async {
        let path = command.path();
        let asked = Asking::new(command.method(), &path, command.body());
        exchange(socket, asked, async |response| follow(response, each).await).await
    })
}

async fn follow(
    response: Response<Incoming>,
    mut each: impl FnMut(&str) -> bool,
) -> Result<(u16, String), String> {
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        while let Some(end) = rest
            .iter()
            .position(|&b| b == b'\n')
            .filter(|_| status == 200)
        {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if !each(String::from_utf8_lossy(&line).trim_end()) {
                return Ok((status, String::new()));
            }
        }
        if rest.len() > MAX_ANSWER {
            return Err("a line without an end".to_owned());
        }
    }
    Ok((status, String::from_utf8_lossy(&rest).into_owned()))
}

/// A request before it is one.
struct Asking<'a> {
    method: Method,
    path: &'a str,
    body: Vec<u8>,
}

impl<'a> Asking<'a> {
    fn new(method: Method, path: &'a str, body: Vec<u8>) -> Self {
        Self { method, path, body }
    }
}

async fn request(
    socket: &Path,
    asking: Asking<'_>,
    patience: Duration,
) -> Result<(u16, Bytes), ClientError> {
    let whole = async |response: Response<Incoming>| {
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER);
        let body = body.collect().await.map_err(|error| error.to_string())?;
        Ok((status, body.to_bytes()))
    };
    let answer = tokio::time::timeout(patience, exchange(socket, asking, whole)).await;
    answer.unwrap_or_else(|_| {
        Err(ClientError::Timeout {
            socket: socket.to_owned(),
            patience,
        })
    })
}

/// Sends a request and lets `read` have the answer.
async fn exchange<T>(
    socket: &Path,
    asking: Asking<'_>,
    read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, String>,
) -> Result<T, ClientError> {
    let nonsense = |why: String| ClientError::Nonsense {
        socket: socket.to_owned(),
        why,
    };
    let request = Request::builder()
        .method(asking.method)
        .uri(asking.path)
        .header(HOST, "pilotfish")
        .body(Full::new(Bytes::from(asking.body)))
        .map_err(|error| nonsense(error.to_string()))?;
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|error| no_connection(socket, error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| nonsense(error.to_string()))?;
    let answer = async move {
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| nonsense(error.to_string()))?;
        read(response).await.map_err(nonsense)
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
