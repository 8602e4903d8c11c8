//! RFC 9113, section 6: frame definitions. A payload is read where it stands;
//! nothing is copied.
//!
//! What is checked here needs the frame alone: length, stream 0 or not, padding,
//! values out of range. What needs the stream or the connection is checked in
//! `connection`.

use super::format::{FrameHead, Kind, flag};
use super::settings::SettingsPayload;
use crate::error_codes::{ErrorCode, Fault};

/// Section 6.3: deprecated; read for its checks alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Priority {
    /// The stream that this one depends on.
    pub dependency: u32,
    /// The E bit.
    pub exclusive: bool,
    /// One less than the weight.
    pub weight: u8,
}

/// One frame, borrowed from the read buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Section 6.1.
    Data {
        /// The content, without padding.
        data: &'a [u8],
        /// `END_STREAM`.
        end_stream: bool,
    },
    /// Section 6.2.
    Headers {
        /// The field block fragment, without padding and priority.
        fragment: &'a [u8],
        /// `END_STREAM`.
        end_stream: bool,
        /// `END_HEADERS`.
        end_headers: bool,
        /// The priority fields, if any.
        priority: Option<Priority>,
    },
    /// Section 6.3.
    Priority(Priority),
    /// Section 6.4.
    Reset(ErrorCode),
    /// Section 6.5.
    Settings(SettingsPayload<'a>),
    /// Section 6.5.3.
    SettingsAck,
    /// Section 6.7.
    Ping([u8; 8]),
    /// Section 6.7.
    PingAck([u8; 8]),
    /// Section 6.8.
    GoAway {
        /// The last stream that the peer may have acted on.
        last_stream: u32,
        /// Why.
        code: ErrorCode,
    },
    /// Section 6.9. Never 0.
    WindowUpdate(u32),
    /// Section 6.10.
    Continuation {
        /// The field block fragment.
        fragment: &'a [u8],
        /// `END_HEADERS`.
        end_headers: bool,
    },
    /// Section 4.1: a type that this end does not know.
    Unknown,
}

impl<'a> Frame<'a> {
    /// Reads a payload.
    ///
    /// # Errors
    /// What section 6 has the receiver make of a payload of wrong size, stream
    /// or value.
    ///
    /// `payload` holds `head.length` bytes.
    #[inline]
    pub fn parse(head: FrameHead, payload: &'a [u8]) -> Result<Self, Fault> {
        match head.kind {
            Kind::DATA => data(head, payload),
            Kind::HEADERS => headers(head, payload),
            Kind::PRIORITY => priority(head, payload).map(Self::Priority),
            Kind::RST_STREAM => reset(head, payload),
            Kind::SETTINGS => settings(head, payload),
            Kind::PUSH_PROMISE => Err(Fault::protocol("a client cannot push")),
            Kind::PING => ping(head, payload),
            Kind::GOAWAY => goaway(head, payload),
            Kind::WINDOW_UPDATE => window_update(head, payload),
            Kind::CONTINUATION => {
                of_stream(head, "CONTINUATION on stream 0")?;
                Ok(Self::Continuation {
                    fragment: payload,
                    end_headers: head.has(flag::END_HEADERS),
                })
            }
            _ => Ok(Self::Unknown),
        }
    }
}

#[inline]
const fn of_stream(head: FrameHead, why: &'static str) -> Result<(), Fault> {
    if head.stream == 0 {
        Err(Fault::protocol(why))
    } else {
        Ok(())
    }
}

const fn of_connection(head: FrameHead, why: &'static str) -> Result<(), Fault> {
    if head.stream == 0 {
        Ok(())
    } else {
        Err(Fault::protocol(why))
    }
}

/// Takes the padding off (section 6.1): a pad length, and as many bytes at the end.
#[inline]
fn unpadded(head: FrameHead, payload: &[u8]) -> Result<&[u8], Fault> {
    if !head.has(flag::PADDED) {
        return Ok(payload);
    }
    let (&pad, rest) = payload
        .split_first()
        .ok_or(Fault::frame_size("a padded frame without a pad length"))?;
    rest.len()
        .checked_sub(usize::from(pad))
        .map(|length| &rest[..length])
        .ok_or(Fault::protocol("padding as long as the payload or longer"))
}

#[inline]
fn data(head: FrameHead, payload: &[u8]) -> Result<Frame<'_>, Fault> {
    of_stream(head, "DATA on stream 0")?;
    Ok(Frame::Data {
        data: unpadded(head, payload)?,
        end_stream: head.has(flag::END_STREAM),
    })
}

#[inline]
fn headers(head: FrameHead, payload: &[u8]) -> Result<Frame<'_>, Fault> {
    of_stream(head, "HEADERS on stream 0")?;
    let mut fragment = unpadded(head, payload)?;
    let mut priority = None;
    if head.has(flag::PRIORITY) {
        let (fields, rest) = fragment
            .split_first_chunk()
            .ok_or(Fault::frame_size("HEADERS too short for its priority"))?;
        // To pass over the block would lose the compression state (RFC 9113,
        // section 4.3), so the connection ends, and not the stream alone.
        let lost = |_| Fault::protocol("HEADERS of a stream that depends on itself");
        priority = Some(read_priority(head.stream, *fields).map_err(lost)?);
        fragment = rest;
    }
    Ok(Frame::Headers {
        fragment,
        end_stream: head.has(flag::END_STREAM),
        end_headers: head.has(flag::END_HEADERS),
        priority,
    })
}

/// Section 5.3.1 of RFC 7540, which section 5.3.2 keeps: "a stream cannot
/// depend on itself".
fn read_priority(stream: u32, fields: [u8; 5]) -> Result<Priority, Fault> {
    let [d0, d1, d2, d3, weight] = fields;
    let dependency = u32::from_be_bytes([d0 & 0x7f, d1, d2, d3]);
    if dependency == stream {
        let why = "a stream that depends on itself";
        return Err(Fault::Stream(stream, ErrorCode::PROTOCOL_ERROR, why));
    }
    Ok(Priority {
        dependency,
        exclusive: d0 & 0x80 != 0,
        weight,
    })
}

fn priority(head: FrameHead, payload: &[u8]) -> Result<Priority, Fault> {
    of_stream(head, "PRIORITY on stream 0")?;
    let fields = payload.try_into().map_err(|_| {
        let why = "PRIORITY of a length other than 5";
        Fault::Stream(head.stream, ErrorCode::FRAME_SIZE_ERROR, why)
    })?;
    read_priority(head.stream, fields)
}

fn reset(head: FrameHead, payload: &[u8]) -> Result<Frame<'_>, Fault> {
    of_stream(head, "RST_STREAM on stream 0")?;
    let code = payload
        .try_into()
        .map_err(|_| Fault::frame_size("RST_STREAM of a length other than 4"))?;
    Ok(Frame::Reset(ErrorCode(u32::from_be_bytes(code))))
}

fn settings(head: FrameHead, payload: &[u8]) -> Result<Frame<'_>, Fault> {
    of_connection(head, "SETTINGS on a stream")?;
    if head.has(flag::ACK) {
        return if payload.is_empty() {
            Ok(Frame::SettingsAck)
        } else {
            Err(Fault::frame_size("an acknowledgement with settings"))
        };
    }
    let (settings, rest) = payload.as_chunks();
    if rest.is_empty() {
        Ok(Frame::Settings(SettingsPayload(settings)))
    } else {
        Err(Fault::frame_size("SETTINGS of a length not divisible by 6"))
    }
}

fn ping(head: FrameHead, payload: &[u8]) -> Result<Frame<'_>, Fault> {
    of_connection(head, "PING on a stream")?;
    let data = payload
        .try_into()
        .map_err(|_| Fault::frame_size("PING of a length other than 8"))?;
    Ok(if head.has(flag::ACK) {
        Frame::PingAck(data)
    } else {
        Frame::Ping(data)
    })
}

fn goaway(head: FrameHead, payload: &[u8]) -> Result<Frame<'_>, Fault> {
    of_connection(head, "GOAWAY on a stream")?;
    let [l0, l1, l2, l3, c0, c1, c2, c3] = *payload
        .first_chunk()
        .ok_or(Fault::frame_size("GOAWAY shorter than 8"))?;
    Ok(Frame::GoAway {
        last_stream: u32::from_be_bytes([l0 & 0x7f, l1, l2, l3]),
        code: ErrorCode(u32::from_be_bytes([c0, c1, c2, c3])),
    })
}

fn window_update(head: FrameHead, payload: &[u8]) -> Result<Frame<'_>, Fault> {
    let [a, b, c, d] = *<&[u8; 4]>::try_from(payload)
        .map_err(|_| Fault::frame_size("WINDOW_UPDATE of a length other than 4"))?;
    match u32::from_be_bytes([a & 0x7f, b, c, d]) {
        // Section 6.9: a stream error on a stream, a connection error on stream 0.
        0 if head.stream == 0 => Err(Fault::protocol("a window update of 0")),
        0 => {
            let why = "a window update of 0";
            Err(Fault::Stream(head.stream, ErrorCode::PROTOCOL_ERROR, why))
        }
        increment => Ok(Frame::WindowUpdate(increment)),
    }
}
