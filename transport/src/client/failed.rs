//! Why a call has no answer, told apart by what the caller may do about it
//! (gRFC A6, "Transparent retries"; gRPC over HTTP/2, "Errors").

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::error_codes::ErrorCode;

/// Why a call ended without a status of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failed {
    /// No byte of the call left: it may be made again wherever, however often.
    NotSent(NotSent),
    /// It left, and the server says that it did not process it: `REFUSED_STREAM`,
    /// or a `GOAWAY` below its stream (RFC 9113, section 8.7). It may be made again
    /// once.
    Refused,
    /// The connection ended under it: nobody knows what the server did.
    Lost(Closed),
    /// The server reset its stream.
    Reset(ErrorCode),
    /// Its deadline passed.
    Deadline {
        /// True if it had left: the server may have processed it.
        sent: bool,
    },
    /// The server sent a message larger than this end takes.
    TooLarge {
        /// What its prefix says, bytes; of a compressed one that is too large when it is
        /// whole, what it says of that.
        bytes: usize,
        /// [`Config::max_message_bytes`](super::Config::max_message_bytes).
        max: usize,
    },
    /// The server's answer is none of gRPC's, and how.
    Protocol(&'static str),
    /// The answer is of HTTP alone, from a proxy perhaps: it has another status than
    /// 200, or another content type than gRPC's. gRPC's
    /// http-grpc-status-mapping.md says what it comes to.
    Http {
        /// `:status`.
        status: u16,
        /// `content-type`, as far as it is text; empty if there is none.
        content_type: Box<str>,
    },
}

/// Why a call did not leave.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotSent {
    /// The connection has ended, or ended while the call waited for a stream.
    Closed(Closed),
    /// The connection takes no more calls, and ends with those under way.
    Closing,
    /// As many calls wait as may.
    Full {
        /// [`Config::max_waiting_calls`](super::Config::max_waiting_calls).
        max: usize,
    },
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Closed {
    /// This end had it end, after the last call.
    Drained,
    /// This end dropped it with its calls, as the end of a runtime does.
    Dropped,
    /// The server said that it goes away (RFC 9113, section 6.8).
    GoAway {
        /// Why.
        code: ErrorCode,
        /// For people. gRFC A8: `too_many_pings` asks for a longer interval.
        debug: Arc<str>,
    },
    /// The socket failed, or the server closed it without a word.
    Io {
        /// What kind of failure; `UnexpectedEof` if it was closed.
        kind: io::ErrorKind,
        /// For people.
        message: Arc<str>,
    },
    /// The server said nothing for too long, and what was waited for.
    Silent(&'static str),
    /// The server broke the protocol (RFC 9113, section 5.4.1).
    Fault(ErrorCode, &'static str),
}

impl Closed {
    pub(super) fn io(error: &io::Error) -> Self {
        Self::Io {
            kind: error.kind(),
            message: error.to_string().into(),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(why) => write!(f, "the call was not sent: {why}"),
            Self::Refused => f.write_str("the server did not take the call"),
            Self::Lost(why) => write!(f, "the connection was lost under the call: {why}"),
            Self::Reset(code) => write!(f, "the server reset the call: {code:?}"),
            Self::Deadline { sent: true } => f.write_str("the deadline passed"),
            Self::Deadline { sent: false } => {
                f.write_str("the deadline passed before the call could be sent")
            }
            Self::TooLarge { bytes, max } => {
                write!(f, "an answer of {bytes} bytes; at most {max} are taken")
            }
            Self::Protocol(why) => write!(f, "the server's answer is no answer of gRPC: {why}"),
            Self::Http {
                status,
                content_type,
            } => write!(
                f,
                "the answer is no answer of gRPC: HTTP status {status}, content type {content_type:?}"
            ),
        }
    }
}

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(why) => why.fmt(f),
            Self::Closing => f.write_str("the connection takes no more calls"),
            Self::Full { max } => write!(f, "{max} calls wait for a stream already"),
        }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drained => f.write_str("the connection was closed"),
            Self::Dropped => f.write_str("the connection was dropped"),
            Self::GoAway { code, debug } if debug.is_empty() => {
                write!(f, "the server went away: {code:?}")
            }
            Self::GoAway { code, debug } => {
                write!(f, "the server went away: {code:?}, {debug}")
            }
            Self::Io { kind, .. } if *kind == io::ErrorKind::UnexpectedEof => {
                f.write_str("the server closed the connection")
            }
            Self::Io { message, .. } => f.write_str(message),
            Self::Silent(what) => write!(f, "the server sent no {what} in time"),
            Self::Fault(code, why) => write!(f, "the server broke the protocol: {code:?}, {why}"),
        }
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotSent(NotSent::Closed(why)) | Self::Lost(why) => Some(why),
            _ => None,
        }
    }
}

impl std::error::Error for Closed {}
