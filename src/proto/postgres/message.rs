//! Messages of the frontend/backend protocol, version 3 (PostgreSQL documentation, "Message Formats").

use bytes::{BufMut, Bytes, BytesMut};

/// `NEGOTIATE_SSL_CODE`: "may we speak TLS?"
pub const SSL_REQUEST: u32 = 80_877_103;
/// `NEGOTIATE_GSS_CODE`: the same for Kerberos.
pub const GSSENC_REQUEST: u32 = 80_877_104;
/// `CANCEL_REQUEST_CODE`: not a session, but a request to cancel another one's query.
pub const CANCEL_REQUEST: u32 = 80_877_102;
/// The server takes no longer first packet (`MAX_STARTUP_PACKET_LENGTH`).
pub const LONGEST_STARTUP: usize = 10_000;
/// `SSLRequest` as it is sent.
pub const SSL_REQUEST_PACKET: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// SQLSTATEs that we say ourselves (documentation, "PostgreSQL Error Codes").
pub mod state {
    pub const PROTOCOL_VIOLATION: &str = "08P01";
    pub const CONNECTION_FAILURE: &str = "08006";
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    pub const ADMIN_SHUTDOWN: &str = "57P01";
    pub const CANNOT_CONNECT_NOW: &str = "57P03";
    pub const IDLE_SESSION_TIMEOUT: &str = "57P05";
}

/// An `ErrorResponse` of severity FATAL: the connection ends after it.
pub fn fatal(sqlstate: &str, message: &str) -> Bytes {
    let fields: [(u8, &str); 4] = [
        (b'S', "FATAL"),
        (b'V', "FATAL"),
        (b'C', sqlstate),
        (b'M', message),
    ];
    let mut body = BytesMut::new();
    for (field, text) in fields {
        body.put_u8(field);
        // A NUL would end the text early.
        body.extend(text.bytes().filter(|&b| b != 0));
        body.put_u8(0);
    }
    body.put_u8(0);
    frame(b'E', &body)
}

/// One typed message.
pub fn frame(kind: u8, body: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(body.len() + 5);
    message.put_u8(kind);
    message.put_u32(u32::try_from(body.len() + 4).unwrap_or(u32::MAX));
    message.put_slice(body);
    message.freeze()
}

/// What an `ErrorResponse` or `NoticeResponse` says, as far as it concerns us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Complaint {
    pub sqlstate: String,
    pub message: String,
    /// FATAL or PANIC: the server ends the connection after it.
    pub fatal: bool,
}

impl std::fmt::Display for Complaint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.sqlstate)
    }
}

/// Reads the body of an `ErrorResponse`. What is missing or cut off stays empty.
pub fn complaint(body: &[u8]) -> Complaint {
    let mut found = Complaint::default();
    let mut severity = None;
    for (kind, text) in fields(body) {
        match kind {
            // `V` is never translated, and there since 9.6.
            b'V' => severity = Some(text),
            b'S' => severity = severity.or(Some(text)),
            b'C' => found.sqlstate = brief(text, 5),
            b'M' => found.message = brief(text, 200),
            _ => {}
        }
    }
    found.fatal = severity.is_some_and(|s| s == b"FATAL" || s == b"PANIC");
    found
}

fn fields(body: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    body.split(|&b| b == 0)
        .map_while(|field| field.split_first().map(|(kind, text)| (*kind, text)))
}

/// Printable, and not for ever.
fn brief(text: &[u8], most: usize) -> String {
    let text = String::from_utf8_lossy(text);
    let kept = text.chars().filter(|c| !c.is_control()).take(most);
    kept.collect()
}

/// SQLSTATEs that a server answers with which is not, or not yet, a primary to be used.
pub fn is_not_serving(sqlstate: &str) -> bool {
    // admin_shutdown, crash_shutdown, cannot_connect_now
    matches!(sqlstate, "57P01" | "57P02" | "57P03")
}

/// Texts that end with a NUL each, up to an empty one or the end.
pub fn texts(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|&b| b == 0).take_while(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_say_can_be_read() {
        let said = fatal(state::CANNOT_CONNECT_NOW, "no primary\0 here");
        assert_eq!(said[0], b'E');
        let length = u32::from_be_bytes(said[1..5].try_into().unwrap());
        assert_eq!(length as usize + 1, said.len());
        let read = complaint(&said[5..]);
        assert_eq!(read.to_string(), "no primary here (57P03)");
        assert!(read.fatal);
    }

    #[test]
    fn errors_of_servers() {
        let cut = complaint(b"SFATAL\0VFATAL\0C57P");
        assert!(cut.fatal && cut.sqlstate == "57P");
        // Translated, from a server of our time.
        assert!(complaint(b"SSCHWERWIEGEND\0VFATAL\0").fatal);
        assert!(!complaint(b"SERROR\0C25006\0Mno\0\0FATAL\0").fatal);
        assert_eq!(complaint(b""), Complaint::default());
    }

    #[test]
    fn the_request_for_tls_is_what_it_says() {
        assert_eq!(SSL_REQUEST_PACKET[4..], SSL_REQUEST.to_be_bytes());
    }
}
