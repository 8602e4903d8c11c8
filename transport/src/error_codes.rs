//! RFC 9113, section 7: error codes, and what they are an error of.

use std::fmt;

/// An error code of `RST_STREAM` and `GOAWAY`. Unknown ones are kept as they
/// came: they "MUST NOT trigger any special behavior".
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    /// The connection or the stream ends without an error.
    pub const NO_ERROR: Self = Self(0x0);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    /// This end failed.
    pub const INTERNAL_ERROR: Self = Self(0x2);
    /// The peer broke flow control.
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    /// The settings were not acknowledged in time.
    pub const SETTINGS_TIMEOUT: Self = Self(0x4);
    /// A frame came for a half-closed stream.
    pub const STREAM_CLOSED: Self = Self(0x5);
    /// A frame had a wrong size.
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    /// The stream was not begun to be worked on: it is safe to send it again.
    pub const REFUSED_STREAM: Self = Self(0x7);
    /// The stream is not needed any more.
    pub const CANCEL: Self = Self(0x8);
    /// The compression state is lost.
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    /// The peer does too much of what costs it little.
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0x0 => "NO_ERROR",
            0x1 => "PROTOCOL_ERROR",
            0x2 => "INTERNAL_ERROR",
            0x3 => "FLOW_CONTROL_ERROR",
            0x4 => "SETTINGS_TIMEOUT",
            0x5 => "STREAM_CLOSED",
            0x6 => "FRAME_SIZE_ERROR",
            0x7 => "REFUSED_STREAM",
            0x8 => "CANCEL",
            0x9 => "COMPRESSION_ERROR",
            0xa => "CONNECT_ERROR",
            0xb => "ENHANCE_YOUR_CALM",
            0xc => "INADEQUATE_SECURITY",
            0xd => "HTTP_1_1_REQUIRED",
            other => return write!(f, "ErrorCode({other:#x})"),
        })
    }
}

/// What the peer did wrong, and how much ends with it (section 5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends: `GOAWAY` (section 5.4.1).
    Connection(ErrorCode, &'static str),
    /// One stream ends: `RST_STREAM` (section 5.4.2).
    Stream(u32, ErrorCode, &'static str),
}

impl Fault {
    /// A connection error `PROTOCOL_ERROR`.
    #[must_use]
    pub const fn protocol(why: &'static str) -> Self {
        Self::Connection(ErrorCode::PROTOCOL_ERROR, why)
    }

    /// A connection error `FRAME_SIZE_ERROR`.
    #[must_use]
    pub const fn frame_size(why: &'static str) -> Self {
        Self::Connection(ErrorCode::FRAME_SIZE_ERROR, why)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(code, why) => write!(f, "{why} ({code:?})"),
            Self::Stream(id, code, why) => write!(f, "stream {id}: {why} ({code:?})"),
        }
    }
}

impl std::error::Error for Fault {}
