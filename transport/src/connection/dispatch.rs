//! RFC 9113, section 6: what each frame does.

use super::send::End;
use super::streams::Ending;
use super::{Application, Connection};
use crate::abuse::Abuse;
use crate::error_codes::{ErrorCode, Fault};
use crate::frame::{Frame, FrameHead, SettingsPayload, flag, write_ping, write_settings_ack};

const fn end_of(end_stream: bool) -> End {
    if end_stream { End::Stream } else { End::Open }
}

impl<A: Application> Connection<A> {
    #[inline]
    pub(super) fn on_frame(&mut self, head: FrameHead, frame: Frame<'_>) -> Result<(), Fault> {
        let id = head.stream;
        match frame {
            Frame::Data { data, end_stream } => self.on_data(head, data, end_of(end_stream)),
            Frame::Headers {
                fragment,
                end_stream,
                end_headers,
                ..
            } => self.on_headers(id, fragment, end_of(end_stream), end_headers),
            Frame::Continuation {
                fragment,
                end_headers,
            } => self.on_continuation(fragment, end_headers),
            Frame::Reset(_) => self.on_reset(id),
            Frame::WindowUpdate(increment) => self.core.on_window_update(id, increment),
            Frame::Settings(settings) => self.on_settings(settings),
            Frame::SettingsAck => {
                self.moments.settings_acked();
                Ok(())
            }
            Frame::Ping(data) => {
                self.core.spend(Abuse::Pings)?;
                write_ping(&mut self.core.out, flag::ACK, data);
                Ok(())
            }
            Frame::PingAck(data) => {
                self.on_ping_ack(data);
                Ok(())
            }
            Frame::Priority(_) => self.core.spend(Abuse::Priorities),
            Frame::GoAway { .. } => {
                self.client_leaves();
                Ok(())
            }
            Frame::Unknown => self.core.spend(Abuse::UnknownFrames),
        }
    }

    /// Section 6.1.
    #[inline]
    fn on_data(&mut self, head: FrameHead, data: &[u8], end: End) -> Result<(), Fault> {
        let id = head.stream;
        if data.is_empty() && end == End::Open {
            self.core.spend(Abuse::EmptyData)?;
        }
        let Some(key) = self.core.take_data(id, head.length)? else {
            return Ok(());
        };
        let length = u32::try_from(data.len()).unwrap_or(head.length);
        if head.length > length {
            // Padding is read by nobody.
            self.core.consumed(key, head.length - length);
        }
        if let Some(stream) = self.core.streams.at(key) {
            let left = match stream.promised {
                Some(promised) => promised.checked_sub(u64::from(length)).map(Some),
                None => Some(None),
            };
            // Section 8.1.1.
            let unkept = match left {
                Some(left) => end == End::Stream && left.is_some_and(|left| left > 0),
                None => true,
            };
            if unkept {
                self.core.connection_consumed(length);
                let why = "content of another length than content-length says";
                return Err(Fault::Stream(id, ErrorCode::PROTOCOL_ERROR, why));
            }
            stream.promised = left.flatten();
            if end == End::Stream {
                stream.remote_open = false;
                self.core.proven = true;
            }
        }
        self.app.data(&mut self.core, key, data, end);
        Ok(())
    }

    /// Section 6.4.
    fn on_reset(&mut self, id: u32) -> Result<(), Fault> {
        if self.core.is_idle(id) {
            return Err(Fault::protocol("RST_STREAM on an idle stream"));
        }
        self.core.spend(Abuse::ClientResets)?;
        match self.core.streams.find(id) {
            Some(key) => {
                self.core.close(key, Ending::ClientReset);
                self.app.gone(&mut self.core, key);
            }
            None => {
                self.core.streams.reset_after(id, Ending::ClientReset);
            }
        }
        Ok(())
    }

    /// Section 6.5.
    fn on_settings(&mut self, settings: SettingsPayload<'_>) -> Result<(), Fault> {
        self.core.spend(Abuse::Settings)?;
        let before = self.core.peer;
        for (id, value) in settings.iter() {
            self.core.peer.apply(id, value)?;
            // Each one counts, also if a later one takes it back.
            let limit = self.core.peer.header_table_bytes;
            self.core.encoder.set_table_limit(limit);
        }
        let after = self.core.peer;
        self.core
            .change_windows(before.initial_window_bytes, after.initial_window_bytes)?;
        write_settings_ack(&mut self.core.out);
        Ok(())
    }
}
