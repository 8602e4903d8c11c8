//! A look ahead: what input holds that was not read as frames yet.

use std::cell::Cell;

use super::{Application, Connection};
use crate::frame::{FrameHead, Kind, flag};

/// Frames that one look passes, so that looking costs no more than reading does, whatever a peer
/// sends.
const MAX_FRAMES: usize = 64;

/// The contents that requests in `input` end with, of which most have no other. Nothing is
/// promised of them: their frames were not looked at, and may yet turn out to be wrong.
#[derive(Debug)]
pub struct Coming<'i, 'a> {
    input: &'i [u8],
    at: &'a Cell<usize>,
    /// Frames that it may still pass.
    frames: usize,
}

impl<'i> Iterator for Coming<'i, '_> {
    type Item = &'i [u8];

    fn next(&mut self) -> Option<&'i [u8]> {
        while self.frames > 0 {
            self.frames -= 1;
            let rest = self.input.get(self.at.get()..)?;
            let head = FrameHead::parse(rest)?;
            let bytes = FrameHead::BYTES + head.length as usize;
            let payload = rest.get(FrameHead::BYTES..bytes)?;
            self.at.set(self.at.get() + bytes);
            let is_whole = head.has(flag::END_STREAM) && !head.has(flag::PADDED);
            if head.kind == Kind::DATA && is_whole {
                return Some(payload);
            }
        }
        None
    }
}

impl<A: Application> Connection<A> {
    /// Tells the application what comes after `from`, and returns up to where it has looked: there
    /// it is told again. The end of everything if it did not look.
    #[inline]
    pub(super) fn look_ahead(&mut self, input: &[u8], from: usize) -> usize {
        let at = Cell::new(from);
        self.app.expect(Coming {
            input,
            at: &at,
            frames: MAX_FRAMES,
        });
        match at.get() {
            at if at == from => usize::MAX,
            at => at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: Kind, flags: u8, payload: &[u8]) -> Vec<u8> {
        let head = FrameHead {
            length: u32::try_from(payload.len()).unwrap(),
            kind,
            flags,
            stream: 1,
        };
        [&head.bytes()[..], payload].concat()
    }

    #[test]
    fn it_finds_the_ends_of_requests_and_stops_where_no_whole_frame_is() {
        let end = flag::END_STREAM;
        let frames = [
            frame(Kind::HEADERS, flag::END_HEADERS, b"head"),
            frame(Kind::DATA, end, b"first"),
            frame(Kind::DATA, 0, b"part"),
            frame(Kind::DATA, end, b""),
            frame(Kind::DATA, end | flag::PADDED, b"\0padded"),
            frame(Kind::HEADERS, end, b"head"),
            frame(Kind(0xfe), end, b"unknown"),
            frame(Kind::DATA, end, b"last"),
        ]
        .concat();
        let check = |cut: usize, expected: &[&[u8]]| {
            let (input, at) = (&frames[..frames.len() - cut], Cell::new(0));
            let coming = Coming {
                input,
                at: &at,
                frames: MAX_FRAMES,
            };
            assert_eq!(coming.collect::<Vec<_>>(), expected, "without {cut} bytes");
            assert!(at.get() <= input.len());
        };
        check(0, &[b"first", b"", b"last"]);
        check(1, &[b"first", b""]);
        check(frames.len() - 3, &[]);
        check(frames.len(), &[]);
    }

    #[test]
    fn one_look_passes_so_many_frames_and_no_more() {
        let frames = frame(Kind::DATA, 0, b"p").repeat(10 * MAX_FRAMES);
        let at = Cell::new(0);
        let mut coming = Coming {
            input: &frames,
            at: &at,
            frames: MAX_FRAMES,
        };
        assert_eq!(coming.next(), None);
        assert_eq!(at.get(), MAX_FRAMES * (FrameHead::BYTES + 1));
        assert_eq!(coming.next(), None);
        assert_eq!(at.get(), MAX_FRAMES * (FrameHead::BYTES + 1));
    }
}
