//! RFC 9113, section 6.5: settings.

use super::{INITIAL_WINDOW_BYTES, MAX_MAX_FRAME_BYTES, MAX_WINDOW_BYTES, MIN_MAX_FRAME_BYTES};
use crate::error_codes::{ErrorCode, Fault};

/// Section 6.5.2: the settings' identifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettingId(pub u16);

impl SettingId {
    /// Bytes of the dynamic table that the sender's decoder keeps.
    pub const HEADER_TABLE_SIZE: Self = Self(0x1);
    /// Whether the sender takes pushes.
    pub const ENABLE_PUSH: Self = Self(0x2);
    /// Streams that the sender lets the other end have open.
    pub const MAX_CONCURRENT_STREAMS: Self = Self(0x3);
    /// Bytes of a new stream's window.
    pub const INITIAL_WINDOW_SIZE: Self = Self(0x4);
    /// Bytes of the largest payload that the sender takes.
    pub const MAX_FRAME_SIZE: Self = Self(0x5);
    /// Bytes of the largest field section that the sender takes.
    pub const MAX_HEADER_LIST_SIZE: Self = Self(0x6);
}

/// Section 6.5.1: identifier and value, six bytes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettingsPayload<'a>(pub(super) &'a [[u8; 6]]);

impl SettingsPayload<'_> {
    /// The settings in their order: a later one counts.
    pub fn iter(&self) -> impl Iterator<Item = (SettingId, u32)> {
        self.0.iter().map(|&[i0, i1, v0, v1, v2, v3]| {
            let id = SettingId(u16::from_be_bytes([i0, i1]));
            (id, u32::from_be_bytes([v0, v1, v2, v3]))
        })
    }
}

/// What the peer has set, as far as both roles act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerSettings {
    /// `SETTINGS_HEADER_TABLE_SIZE`, bytes; at first 4,096.
    pub header_table_bytes: u32,
    /// `SETTINGS_INITIAL_WINDOW_SIZE`, bytes; at first 65,535.
    pub initial_window_bytes: u32,
    /// `SETTINGS_MAX_FRAME_SIZE`, bytes; at first 16,384.
    pub max_frame_bytes: u32,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self {
            header_table_bytes: 4096,
            initial_window_bytes: INITIAL_WINDOW_BYTES,
            max_frame_bytes: MIN_MAX_FRAME_BYTES,
        }
    }
}

impl PeerSettings {
    /// Takes one setting over. Unknown ones are ignored, and those that bind
    /// only who pushes or sends requests.
    ///
    /// # Errors
    /// A value out of the range of section 6.5.2.
    pub fn apply(&mut self, id: SettingId, value: u32) -> Result<(), Fault> {
        match id {
            SettingId::HEADER_TABLE_SIZE => self.header_table_bytes = value,
            SettingId::ENABLE_PUSH if value > 1 => {
                return Err(Fault::protocol("ENABLE_PUSH is neither 0 nor 1"));
            }
            SettingId::INITIAL_WINDOW_SIZE if value > MAX_WINDOW_BYTES => {
                let why = "an initial window over 2^31-1";
                return Err(Fault::Connection(ErrorCode::FLOW_CONTROL_ERROR, why));
            }
            SettingId::INITIAL_WINDOW_SIZE => self.initial_window_bytes = value,
            SettingId::MAX_FRAME_SIZE
                if !(MIN_MAX_FRAME_BYTES..=MAX_MAX_FRAME_BYTES).contains(&value) =>
            {
                return Err(Fault::protocol("a frame size out of range"));
            }
            SettingId::MAX_FRAME_SIZE => self.max_frame_bytes = value,
            _ => {}
        }
        Ok(())
    }
}
