//! RFC 9113, sections 4.3, 6.2 and 6.10: field sections, in `HEADERS` and
//! `CONTINUATION` frames.

use std::sync::Arc;

use super::block_cache::{Found, Known, Validity};
use super::flow_control::ReceiveWindow;
use super::send::End;
use super::streams::{Ending, StreamKey};
use super::{Application, Connection};
use crate::abuse::Abuse;
use crate::error_codes::{ErrorCode, Fault};
use crate::frame::write_reset;
use crate::hpack::{Decoded, HpackError};
use crate::message::{Head, HeadFault, VARYING_FIELDS, check_trailers};
use crate::stats::Counter;

/// A header block whose last frame has not come.
pub(super) struct PartialBlock {
    pub(super) stream: u32,
    end: End,
    pub(super) fragments: Vec<u8>,
    continuations: u32,
}

impl<A: Application> Connection<A> {
    /// Section 6.2.
    #[inline]
    pub(super) fn on_headers(
        &mut self,
        stream: u32,
        fragment: &[u8],
        end: End,
        end_headers: bool,
    ) -> Result<(), Fault> {
        if stream.is_multiple_of(2) {
            return Err(Fault::protocol("a client's stream with an even identifier"));
        }
        if end_headers {
            return self.on_block(stream, fragment, end);
        }
        self.moments.block_began(self.core.now);
        self.partial = Some(PartialBlock {
            stream,
            end,
            fragments: fragment.to_vec(),
            continuations: 0,
        });
        Ok(())
    }

    /// Section 6.10. That it continues a block of the same stream was checked
    /// for every frame, but for one without any block.
    pub(super) fn on_continuation(
        &mut self,
        fragment: &[u8],
        end_headers: bool,
    ) -> Result<(), Fault> {
        let Some(partial) = &mut self.partial else {
            return Err(Fault::protocol("CONTINUATION without a header block"));
        };
        partial.continuations += 1;
        partial.fragments.extend_from_slice(fragment);
        let limits = &self.core.limits;
        if partial.continuations > limits.max_continuations
            || partial.fragments.len() > limits.max_header_block_bytes
        {
            let code = ErrorCode::ENHANCE_YOUR_CALM;
            self.core.count(Counter::Continuations);
            return Err(Fault::Connection(code, "continuations"));
        }
        if !end_headers {
            return Ok(());
        }
        self.moments.block_ended();
        match self.partial.take() {
            Some(block) => self.on_block(block.stream, &block.fragments, block.end),
            None => Ok(()),
        }
    }

    /// A whole block: a request's head, its trailers, or something that must not
    /// be. It is decoded in any case, to keep the compression state.
    #[inline]
    fn on_block(&mut self, id: u32, block: &[u8], end: End) -> Result<(), Fault> {
        if id <= self.core.streams.last_id() {
            return self.on_trailers(id, block, end);
        }
        self.core.streams.used(id);
        if let Some((head, route)) = self.cache.same(block, self.decoder.generation()) {
            return self.on_request(id, head, route, end);
        }
        let mut head = self.core.take_head();
        // A head that is taken has no other owner.
        let Some(fresh) = Arc::get_mut(&mut head) else {
            return Err(Fault::Connection(
                ErrorCode::INTERNAL_ERROR,
                "a head in use",
            ));
        };
        let most = self.core.limits.max_header_list_bytes as usize;
        match self.cache.find(block, &mut self.decoder, fresh, most) {
            Some(Found::Same(known, route)) => {
                self.core.recycle(head);
                return self.on_request(id, known, route, end);
            }
            Some(Found::Like(known, changes)) => {
                let checked = fresh.check_like(&known.head, changes);
                let route = self.app.reroute(&known.route, fresh, changes);
                return match checked {
                    Ok(()) => self.on_request(id, head, route, end),
                    Err(why) => self.malformed(id, why),
                };
            }
            None => {}
        }
        let generation = self.decoder.generation();
        let decoded = self
            .decoder
            .decode(block, &mut fresh.fields, most)
            .map_err(compression)?;
        if fresh.fields.is_empty() && !decoded.oversize {
            self.core.spend(Abuse::EmptyHeaders)?;
        }
        if !self.phase.accepts(id) {
            return self.refuse(id, Abuse::StrayFrames);
        }
        if decoded.oversize {
            // RFC 6585, section 5.
            self.core.count(Counter::HeaderList);
            self.core.spend(Abuse::ServerResets)?;
            let key = self.open(id, end, None);
            let max = self.core.limits.max_header_list_bytes;
            self.app
                .unreadable(&mut self.core, key, HeadFault::TooLarge { max });
            return Ok(());
        }
        if let Err(why) = fresh.check() {
            return self.malformed(id, why);
        }
        if fresh.method() == b"CONNECT" {
            return self.answer_status(id, 405, end);
        }
        let route = self.app.route(&head);
        if self.cache.wants(block) {
            let validity = match decoded {
                Decoded {
                    repeatable: false, ..
                } => Validity::Never,
                Decoded { dynamic: true, .. } => Validity::Generation(generation),
                _ => Validity::Always,
            };
            let varies = |name: &[u8]| VARYING_FIELDS.iter().any(|it| it.as_bytes() == name);
            let pattern = self.decoder.pattern(block, &head.fields, decoded, varies);
            if validity != Validity::Never || pattern.is_some() {
                self.cache.keep(Known {
                    block: block.to_vec(),
                    validity,
                    pattern,
                    head: Arc::clone(&head),
                    route: route.clone(),
                });
            }
        }
        self.on_request(id, head, route, end)
    }

    /// Section 8.1.1: an answer may come before the reset. Nothing more is taken from
    /// the client.
    #[cold]
    fn malformed(&mut self, id: u32, why: &'static str) -> Result<(), Fault> {
        if !self.phase.accepts(id) {
            return self.refuse(id, Abuse::StrayFrames);
        }
        let key = self.open(id, End::Stream, None);
        self.app
            .unreadable(&mut self.core, key, HeadFault::Malformed(why));
        Err(Fault::Stream(id, ErrorCode::PROTOCOL_ERROR, why))
    }

    #[inline]
    fn on_request(
        &mut self,
        id: u32,
        head: Arc<Head>,
        route: A::Route,
        end: End,
    ) -> Result<(), Fault> {
        if !self.phase.accepts(id) {
            return self.refuse(id, Abuse::StrayFrames);
        }
        if self.core.streams.len() >= self.core.limits.max_concurrent_streams as usize {
            self.core.count(Counter::StreamsRefused);
            return self.refuse(id, Abuse::RefusedStreams);
        }
        if end == End::Stream {
            self.core.proven = true;
        }
        let promised = head.content_length();
        if end == End::Stream && promised.is_some_and(|length| length > 0) {
            let why = "a content-length without content";
            return Err(Fault::Stream(id, ErrorCode::PROTOCOL_ERROR, why));
        }
        let key = self.open(id, end, promised);
        self.app.request(&mut self.core, key, head, route, end);
        Ok(())
    }

    #[inline]
    fn open(&mut self, id: u32, end: End, promised: Option<u64>) -> StreamKey {
        let window = self.core.limits.stream_window_bytes;
        self.core.streams.open(
            id,
            end == End::Open,
            i64::from(self.core.peer.initial_window_bytes),
            ReceiveWindow::new(window),
            promised,
        )
    }

    /// Section 5.1.2: safe to send again (section 8.7).
    fn refuse(&mut self, id: u32, budget: Abuse) -> Result<(), Fault> {
        self.core.spend(budget)?;
        write_reset(&mut self.core.out, id, ErrorCode::REFUSED_STREAM);
        self.core.streams.remember(id, Ending::ServerReset);
        Ok(())
    }

    /// Answers a request that the application does not get to see.
    fn answer_status(&mut self, id: u32, status: u16, end: End) -> Result<(), Fault> {
        self.core.spend(Abuse::ServerResets)?;
        let key = self.open(id, end, None);
        self.core
            .send_headers(key, End::Stream, |block| block.status(status));
        Ok(())
    }

    /// A block for a stream that exists (section 8.1), or did.
    fn on_trailers(&mut self, id: u32, block: &[u8], end: End) -> Result<(), Fault> {
        let most = self.core.limits.max_header_list_bytes as usize;
        let decoded = self
            .decoder
            .decode(block, &mut self.trailers, most)
            .map_err(compression)?;
        if self.trailers.is_empty() && !decoded.oversize {
            self.core.spend(Abuse::EmptyHeaders)?;
        }
        let Some(key) = self.core.streams.find(id) else {
            return self.closed_headers(id);
        };
        let protocol = |why| Err(Fault::Stream(id, ErrorCode::PROTOCOL_ERROR, why));
        let Some(stream) = self.core.streams.at(key) else {
            return Ok(());
        };
        if !stream.remote_open {
            let why = "HEADERS after the stream's end";
            return Err(Fault::Stream(id, ErrorCode::STREAM_CLOSED, why));
        }
        if end == End::Open {
            return protocol("trailers that do not end the stream");
        }
        if stream.promised.is_some_and(|left| left > 0) {
            return protocol("less content than content-length says");
        }
        if decoded.oversize {
            return protocol("trailers over SETTINGS_MAX_HEADER_LIST_SIZE");
        }
        stream.remote_open = false;
        self.core.proven = true;
        if let Err(why) = check_trailers(&self.trailers) {
            return protocol(why);
        }
        self.app.trailers(&mut self.core, key, &self.trailers);
        Ok(())
    }

    /// Sections 5.1, "closed", and 5.1.1.
    fn closed_headers(&mut self, id: u32) -> Result<(), Fault> {
        let code = ErrorCode::STREAM_CLOSED;
        let why = "HEADERS on a closed stream";
        match self.core.streams.ending(id) {
            Some(Ending::Ended) => Err(Fault::Connection(code, why)),
            Some(Ending::ClientReset) => Err(Fault::Stream(id, code, why)),
            Some(Ending::ServerReset) => self.core.spend(Abuse::StrayFrames),
            None => Err(Fault::protocol("a stream below one that was used")),
        }
    }
}

#[cold]
fn compression(error: HpackError) -> Fault {
    let why = match error {
        HpackError::Truncated => "a header block that ends too early",
        HpackError::IntegerTooLarge => "an integer too large in a header block",
        HpackError::Huffman => "a wrong Huffman code in a header block",
        HpackError::Index => "an index that stands for no header",
        HpackError::TableSize => "a wrong dynamic table size update",
        HpackError::Bomb => {
            return Fault::Connection(ErrorCode::ENHANCE_YOUR_CALM, "header_list");
        }
    };
    Fault::Connection(ErrorCode::COMPRESSION_ERROR, why)
}
