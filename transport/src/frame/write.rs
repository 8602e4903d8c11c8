//! RFC 9113, section 6: the frames that a server writes.

use super::format::{FrameHead, Kind, flag};
use super::settings::SettingId;
use crate::error_codes::ErrorCode;

/// Begins a frame whose length is not known yet. Returns its place, for
/// [`end_frame`].
#[inline]
pub fn begin_frame(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; FrameHead::BYTES]);
    start
}

/// Ends the frame that began at `start`: everything after its head is payload.
///
/// The payload must be shorter than 2^24 bytes.
#[inline]
pub fn end_frame(out: &mut [u8], start: usize, kind: Kind, flags: u8, stream: u32) {
    let payload = out.len() - start - FrameHead::BYTES;
    debug_assert!(payload < 1 << 24, "the caller splits what is longer");
    let head = FrameHead {
        length: u32::try_from(payload).unwrap_or(u32::MAX),
        kind,
        flags,
        stream,
    };
    out[start..start + FrameHead::BYTES].copy_from_slice(&head.bytes());
}

/// Ends the `DATA` frames, of at most `most` bytes each, that hold everything after the
/// place of one head at `start`. Returns how many they are beside the first.
///
/// The later ones are moved up to make place for their heads, the last one first: each
/// byte is moved once at the most.
pub fn end_data_frames(out: &mut Vec<u8>, start: usize, most: usize, stream: u32) -> u64 {
    let from = start + FrameHead::BYTES;
    let length = out.len() - from;
    let more = length.saturating_sub(1) / most;
    out.resize(out.len() + more * FrameHead::BYTES, 0);
    let mut write_head = |index: usize| {
        let payload = most.min(length - index * most);
        let place = start + index * (most + FrameHead::BYTES);
        let old = from + index * most;
        out.copy_within(old..old + payload, place + FrameHead::BYTES);
        end_frame(
            &mut out[..place + FrameHead::BYTES + payload],
            place,
            Kind::DATA,
            0,
            stream,
        );
    };
    (0..=more).rev().for_each(&mut write_head);
    more as u64
}

/// Writes a frame of a few bytes at once, seven at the most.
#[inline]
pub fn write_short<const PAYLOAD: usize>(
    out: &mut Vec<u8>,
    kind: Kind,
    flags: u8,
    stream: u32,
    payload: [u8; PAYLOAD],
) {
    let head = FrameHead {
        length: u32::try_from(PAYLOAD).unwrap_or(u32::MAX),
        kind,
        flags,
        stream,
    };
    let mut frame = [0; 16];
    let (before, rest) = frame.split_at_mut(FrameHead::BYTES);
    before.copy_from_slice(&head.bytes());
    rest[..PAYLOAD].copy_from_slice(&payload);
    out.extend_from_slice(&frame[..FrameHead::BYTES + PAYLOAD]);
}

fn write_frame(out: &mut Vec<u8>, kind: Kind, flags: u8, stream: u32, payload: &[&[u8]]) {
    let start = begin_frame(out);
    for part in payload {
        out.extend_from_slice(part);
    }
    end_frame(out, start, kind, flags, stream);
}

/// Section 6.4.
pub fn write_reset(out: &mut Vec<u8>, stream: u32, code: ErrorCode) {
    let code = code.0.to_be_bytes();
    write_frame(out, Kind::RST_STREAM, 0, stream, &[&code]);
}

/// Section 6.5.
pub fn write_settings(out: &mut Vec<u8>, settings: &[(SettingId, u32)]) {
    let start = begin_frame(out);
    for (id, value) in settings {
        out.extend_from_slice(&id.0.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
    end_frame(out, start, Kind::SETTINGS, 0, 0);
}

/// Section 6.5.3.
pub fn write_settings_ack(out: &mut Vec<u8>) {
    write_frame(out, Kind::SETTINGS, flag::ACK, 0, &[]);
}

/// Section 6.7. `flags` is 0 or [`flag::ACK`].
pub fn write_ping(out: &mut Vec<u8>, flags: u8, data: [u8; 8]) {
    write_frame(out, Kind::PING, flags, 0, &[&data]);
}

/// Section 6.8. `debug` is for people.
pub fn write_goaway(out: &mut Vec<u8>, last_stream: u32, code: ErrorCode, debug: &str) {
    let (last, code) = (last_stream.to_be_bytes(), code.0.to_be_bytes());
    write_frame(out, Kind::GOAWAY, 0, 0, &[&last, &code, debug.as_bytes()]);
}

/// Section 6.9.
pub fn write_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    let increment = increment.to_be_bytes();
    write_frame(out, Kind::WINDOW_UPDATE, 0, stream, &[&increment]);
}
