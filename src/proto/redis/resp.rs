//! RESP2 replies, bounded before they are decoded.
//!
//! redis-protocol's decoders recurse into arrays and take any length a peer claims, so a hostile
//! server could exhaust stack or memory. [`frame_len`] walks a reply without recursion first and lets
//! only complete, modest ones through.

use bytes::{Bytes, BytesMut};
use redis_protocol::resp2::decode::decode_bytes_mut;
pub use redis_protocol::resp2::types::BytesFrame as Frame;

/// The largest reply to any question we ask. SENTINEL REPLICAS takes about 700 bytes a replica.
const MAX_BYTES: usize = 1 << 20;
/// Arrays within arrays: ROLE and SENTINEL REPLICAS have two levels.
const MAX_DEPTH: usize = 6;
/// Elements of all arrays of one reply.
const MAX_ELEMENTS: u64 = 65_536;

/// Why a peer's words are not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    #[error("not a RESP reply: begins with byte {0:#04x}")]
    Type(u8),
    #[error("not a RESP reply: bad length")]
    Length,
    #[error("a reply of more than {MAX_BYTES} bytes")]
    TooLong,
    #[error("a reply nested deeper than {MAX_DEPTH}")]
    TooDeep,
    #[error("a reply of more than {MAX_ELEMENTS} elements")]
    TooMany,
    #[error("a reply that does not decode")]
    Decode,
    #[error("an answer to something else")]
    Unexpected,
}

/// The length of the first reply in `buf`; `None` when it is not complete yet.
///
/// # Errors
/// When it can never become one that is worth reading.
pub fn frame_len(buf: &[u8]) -> Result<Option<usize>, Nonsense> {
    let mut open: [u64; MAX_DEPTH] = [0; MAX_DEPTH];
    let (mut depth, mut at, mut elements) = (0, 0, 0_u64);
    loop {
        if at > MAX_BYTES {
            return Err(Nonsense::TooLong);
        }
        let Some((kind, number, next)) = head(buf, at)? else {
            return Ok(None);
        };
        at = next;
        match (kind, number) {
            (b'$', Some(length)) => {
                at = bulk_end(buf, at, length)?;
                if at > buf.len() {
                    return Ok(None);
                }
            }
            (b'*', Some(count)) if count > 0 => {
                elements = elements.saturating_add(count);
                if elements > MAX_ELEMENTS {
                    return Err(Nonsense::TooMany);
                }
                *open.get_mut(depth).ok_or(Nonsense::TooDeep)? = count;
                depth += 1;
                continue;
            }
            _ => {}
        }
        // One element is complete; it may have been the last of the arrays around it.
        while depth > 0 {
            open[depth - 1] -= 1;
            if open[depth - 1] > 0 {
                break;
            }
            depth -= 1;
        }
        if depth == 0 {
            return Ok(Some(at));
        }
    }
}

/// Type, length (for bulk strings and arrays; `None` is null) and where the line ends.
type Head = (u8, Option<u64>, usize);

fn head(buf: &[u8], at: usize) -> Result<Option<Head>, Nonsense> {
    let Some(&kind) = buf.get(at) else {
        return Ok(None);
    };
    if !matches!(kind, b'+' | b'-' | b':' | b'$' | b'*') {
        return Err(Nonsense::Type(kind));
    }
    let line = &buf[at + 1..];
    let Some(end) = line.iter().position(|&b| b == b'\r') else {
        return if line.len() > MAX_BYTES {
            Err(Nonsense::TooLong)
        } else {
            Ok(None)
        };
    };
    match line.get(end + 1) {
        None => return Ok(None),
        Some(b'\n') => {}
        Some(_) => return Err(Nonsense::Length),
    }
    let number = match kind {
        b'$' | b'*' => length(&line[..end])?,
        b':' => {
            let text = std::str::from_utf8(&line[..end]).map_err(|_| Nonsense::Length)?;
            text.parse::<i64>().map_err(|_| Nonsense::Length)?;
            None
        }
        _ => None,
    };
    Ok(Some((kind, number, at + 1 + end + 2)))
}

fn length(digits: &[u8]) -> Result<Option<u64>, Nonsense> {
    if digits == b"-1" {
        return Ok(None);
    }
    let plain = !digits.is_empty() && digits.len() <= 19 && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits)
        .ok()
        .filter(|_| plain)
        .ok_or(Nonsense::Length)?;
    text.parse().map(Some).map_err(|_| Nonsense::Length)
}

fn bulk_end(buf: &[u8], at: usize, length: u64) -> Result<usize, Nonsense> {
    let length = usize::try_from(length).map_err(|_| Nonsense::TooLong)?;
    if length > MAX_BYTES {
        return Err(Nonsense::TooLong);
    }
    let end = at + length;
    match (buf.get(end), buf.get(end + 1)) {
        (Some(b'\r') | None, Some(b'\n') | None) => Ok(end + 2),
        _ => Err(Nonsense::Length),
    }
}

/// Takes the first reply out of `buf`; `None` when it is not complete yet.
///
/// # Errors
/// When the peer talks nonsense; the connection is of no use then.
pub fn take_frame(buf: &mut BytesMut) -> Result<Option<Frame>, Nonsense> {
    let Some(length) = frame_len(buf)? else {
        return Ok(None);
    };
    let mut frame = buf.split_to(length);
    match decode_bytes_mut(&mut frame) {
        Ok(Some((decoded, used, _))) if used == length => Ok(Some(decoded)),
        _ => Err(Nonsense::Decode),
    }
}

/// A command as servers read it: an array of bulk strings.
pub fn command(parts: &[&[u8]]) -> Bytes {
    let mut out = BytesMut::new();
    let line = |out: &mut BytesMut, kind: char, n: usize| {
        out.extend_from_slice(format!("{kind}{n}\r\n").as_bytes());
    };
    line(&mut out, '*', parts.len());
    for part in parts {
        line(&mut out, '$', part.len());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
    out.freeze()
}

/// A reply's text, if it is one.
pub fn text(frame: &Frame) -> Option<&str> {
    match frame {
        Frame::BulkString(bytes) | Frame::SimpleString(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

/// A reply's number, if it is one or reads as one.
pub fn number(frame: &Frame) -> Option<u64> {
    match frame {
        Frame::Integer(n) => u64::try_from(*n).ok(),
        other => text(other)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_of_whole_and_half_replies() {
        type Case = (&'static [u8], Result<Option<usize>, Nonsense>);
        let cases: [Case; 20] = [
            (b"", Ok(None)),
            (b"+OK\r\n", Ok(Some(5))),
            (b"+OK\r", Ok(None)),
            (b"+OK\r\n+MORE", Ok(Some(5))),
            (b"-ERR no\r\n", Ok(Some(9))),
            (b":12\r\n", Ok(Some(5))),
            (b":x\r\n", Err(Nonsense::Length)),
            (b"$3\r\nabc\r\n", Ok(Some(9))),
            (b"$3\r\nabc", Ok(None)),
            (b"$3\r\nabcde", Err(Nonsense::Length)),
            (b"$-1\r\n", Ok(Some(5))),
            (b"$-2\r\n", Err(Nonsense::Length)),
            (b"*-1\r\n", Ok(Some(5))),
            (b"*0\r\n", Ok(Some(4))),
            (b"*2\r\n:1\r\n*1\r\n:2\r\n", Ok(Some(16))),
            (b"*2\r\n:1\r\n", Ok(None)),
            (b"HTTP/1.1 400 Bad Request\r\n", Err(Nonsense::Type(b'H'))),
            (b"$99999999999\r\n", Err(Nonsense::TooLong)),
            (b"*99999999\r\n", Err(Nonsense::TooMany)),
            (
                b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
                Err(Nonsense::TooDeep),
            ),
        ];
        for (bytes, expected) in cases {
            assert_eq!(frame_len(bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_flood_without_an_end_is_refused() {
        let line = [b"+".as_slice(), &vec![b'x'; MAX_BYTES + 2]].concat();
        assert_eq!(frame_len(&line), Err(Nonsense::TooLong));
        let many = [b"*60000\r\n".as_slice(), b"$100\r\n".as_slice()].concat();
        assert_eq!(frame_len(&many), Ok(None));
        let nested = b"*1\r\n".repeat(1_000_000);
        assert_eq!(frame_len(&nested), Err(Nonsense::TooDeep));
    }

    fn reply() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop_oneof![
            "[a-z ]{0,20}".prop_map(|s| format!("+{s}\r\n").into_bytes()),
            any::<i64>().prop_map(|n| format!(":{n}\r\n").into_bytes()),
            proptest::collection::vec(any::<u8>(), 0..40)
                .prop_map(|b| { [format!("${}\r\n", b.len()).as_bytes(), &b, b"\r\n"].concat() }),
            Just(b"$-1\r\n".to_vec()),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            proptest::collection::vec(inner, 0..4)
                .prop_map(|v| [format!("*{}\r\n", v.len()).into_bytes(), v.concat()].concat())
        })
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(replies in proptest::collection::vec(reply(), 1..5), cuts in proptest::collection::vec(1_usize..30, 1..40)) {
            let whole = replies.concat();
            let mut expected = BytesMut::from(&whole[..]);
            let mut all = Vec::new();
            while let Some(frame) = take_frame(&mut expected).unwrap() {
                all.push(frame);
            }
            prop_assert_eq!(all.len(), replies.len());

            let (mut buf, mut got, mut rest, mut cut) = (BytesMut::new(), Vec::new(), &whole[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cut.next().unwrap()).min(rest.len()));
                buf.extend_from_slice(now);
                rest = later;
                while let Some(frame) = take_frame(&mut buf).unwrap() {
                    got.push(frame);
                }
            }
            prop_assert_eq!(got, all);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = take_frame(&mut BytesMut::from(&bytes[..]));
        }

        #[test]
        fn garbage_that_looks_like_resp_never_panics(text in "[*$:+\\-0-9\r\na]{0,80}") {
            let _ = take_frame(&mut BytesMut::from(text.as_bytes()));
        }
    }
}
