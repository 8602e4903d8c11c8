//! RFC 9113, section 4.1: frame format.
//!
//! ```text
//! Length (24), Type (8), Flags (8), Reserved (1), Stream Identifier (31), Payload
//! ```

/// A frame's type (section 6). Unknown ones are kept: section 4.1 has them
/// ignored and discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(pub u8);

impl Kind {
    /// Section 6.1.
    pub const DATA: Self = Self(0x0);
    /// Section 6.2.
    pub const HEADERS: Self = Self(0x1);
    /// Section 6.3.
    pub const PRIORITY: Self = Self(0x2);
    /// Section 6.4.
    pub const RST_STREAM: Self = Self(0x3);
    /// Section 6.5.
    pub const SETTINGS: Self = Self(0x4);
    /// Section 6.6.
    pub const PUSH_PROMISE: Self = Self(0x5);
    /// Section 6.7.
    pub const PING: Self = Self(0x6);
    /// Section 6.8.
    pub const GOAWAY: Self = Self(0x7);
    /// Section 6.9.
    pub const WINDOW_UPDATE: Self = Self(0x8);
    /// Section 6.10.
    pub const CONTINUATION: Self = Self(0x9);
}

/// Flags. Those that a frame's type does not define are ignored.
pub mod flag {
    /// `SETTINGS` and `PING`: an acknowledgement.
    pub const ACK: u8 = 0x1;
    /// `DATA` and `HEADERS`: the stream's last frame, continuations apart.
    pub const END_STREAM: u8 = 0x1;
    /// `HEADERS` and `CONTINUATION`: the block's last frame.
    pub const END_HEADERS: u8 = 0x4;
    /// `DATA` and `HEADERS`: the payload begins with a pad length.
    pub const PADDED: u8 = 0x8;
    /// `HEADERS`: the payload has priority fields.
    pub const PRIORITY: u8 = 0x20;
}

/// The nine bytes before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Payload bytes, the head not counted. 24 bits.
    pub length: u32,
    /// The type.
    pub kind: Kind,
    /// The flags.
    pub flags: u8,
    /// The stream; 0 is the connection. 31 bits: the reserved bit is ignored.
    pub stream: u32,
}

impl FrameHead {
    /// Bytes of a head.
    pub const BYTES: usize = 9;

    /// Reads a head; `None` if there are fewer than nine bytes.
    #[inline]
    #[must_use]
    pub fn parse(input: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = *input.first_chunk::<9>()?;
        Some(Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind: Kind(kind),
            flags,
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        })
    }

    /// The head as it stands on the wire.
    #[inline]
    #[must_use]
    pub fn bytes(self) -> [u8; Self::BYTES] {
        let [_, a, b, c] = self.length.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [a, b, c, self.kind.0, self.flags, s0 & 0x7f, s1, s2, s3]
    }

    /// True if all the bits of `flag` are set.
    #[inline]
    #[must_use]
    pub const fn has(self, flag: u8) -> bool {
        self.flags & flag == flag
    }
}
