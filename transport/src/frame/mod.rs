//! RFC 9113, sections 4 and 6: frames.
//!
//! | file | section |
//! |---|---|
//! | `format.rs` | 4.1 frame format, 4.2 frame size |
//! | `definitions.rs` | 6 frame definitions: what a payload may be, read in place |
//! | `settings.rs` | 6.5.1 settings format, 6.5.2 defined settings |
//! | `write.rs` | the frames that a server sends |

mod definitions;
mod format;
mod settings;
mod write;

pub use definitions::{Frame, Priority};
pub use format::{FrameHead, Kind, flag};
pub use settings::{PeerSettings, SettingId, SettingsPayload};
pub use write::{
    begin_frame, end_data_frames, end_frame, write_goaway, write_ping, write_reset, write_settings,
    write_settings_ack, write_short, write_window_update,
};

/// Section 3.4: what a client sends first.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Section 4.2: the largest payload that every peer takes, in bytes.
pub const MIN_MAX_FRAME_BYTES: u32 = 16_384;
/// Section 4.2: the largest payload that a peer can be told to take, in bytes.
pub const MAX_MAX_FRAME_BYTES: u32 = (1 << 24) - 1;
/// Section 6.9.1: the largest flow-control window, in bytes.
pub const MAX_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// Section 6.9.2: a new window's size before any settings, in bytes.
pub const INITIAL_WINDOW_BYTES: u32 = 65_535;

#[cfg(test)]
mod tests;
