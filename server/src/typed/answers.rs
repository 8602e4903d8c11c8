//! How the messages of an answer are written: as they are, or compressed, if the server
//! is set to that and the caller offers to read it (gRPC's `compression.md`).

use buffa::{Message, MessageView, SizeCache, ViewEncode};
use larder_transport::gzip;
use larder_transport::rpc::Reply;

use crate::rpc::reply::ReplyTo;

/// What an answer says before a message that is compressed.
const ENCODING: (&[u8], &[u8]) = (b"grpc-encoding", gzip::NAME.as_bytes());

/// Which messages of an answer are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answers {
    /// Those of so many bytes and more. There are none of `usize::MAX`.
    above: usize,
}

impl Answers {
    /// As the server is set, to a caller who offers to read it.
    pub(super) fn of(above: Option<usize>, offers_gzip: bool) -> Self {
        Self {
            above: above.filter(|_| offers_gzip).unwrap_or(usize::MAX),
        }
    }

    /// True if none is compressed.
    #[inline]
    pub(super) const fn are_plain(self) -> bool {
        self.above == usize::MAX
    }

    /// Sends the one message of an answer.
    #[inline]
    pub(super) fn send(self, message: &impl Message, reply: &mut Reply<'_>) {
        if self.are_plain() {
            return reply.message(|out| message.encode(out));
        }
        let mut sizes = SizeCache::new();
        if (message.compute_size(&mut sizes) as usize) < self.above {
            return reply.message(|out| message.write_to(&mut sizes, out));
        }
        self.send_encoded(&message.encode_to_vec(), reply);
    }

    /// Sends the one message of an answer.
    #[cold]
    fn send_encoded(self, message: &[u8], reply: &mut Reply<'_>) {
        match self.compressed(message) {
            Some(compressed) => {
                reply.metadata(ENCODING.0, ENCODING.1);
                reply.compressed(&compressed);
            }
            None => reply.message(|out| out.extend_from_slice(message)),
        }
    }

    fn compressed(self, message: &[u8]) -> Option<Vec<u8>> {
        let is_large = message.len() >= self.above;
        is_large.then(|| gzip::compress(message)).flatten()
    }

    /// Says before the first message of a stream that some may be compressed.
    pub(super) fn begin(self, reply: &mut Reply<'_>) {
        if !self.are_plain() {
            reply.metadata(ENCODING.0, ENCODING.1);
        }
    }

    /// Sends a message of a stream that [`Self::begin`] began.
    pub(super) fn send_next(self, message: &[u8], reply: &mut Reply<'_>) {
        match self.compressed(message) {
            Some(compressed) => reply.compressed(&compressed),
            None => reply.message(|out| out.extend_from_slice(message)),
        }
    }
}

/// Encodes a reply straight into the output of its connection: but one that is to be
/// compressed is kept, as a store may hold its lock meanwhile.
pub(super) struct Straight<'r, 'c> {
    pub(super) reply: &'r mut Reply<'c>,
    pub(super) answers: Answers,
    /// What is to be compressed: see [`Kept::send`].
    pub(super) kept: &'r mut Kept,
}

/// A message that was not sent yet; none, if it is empty.
#[derive(Default)]
pub(super) struct Kept(Vec<u8>);

impl Kept {
    /// Sends it. False if there is none.
    #[inline]
    pub(super) fn send(&self, answers: Answers, reply: &mut Reply<'_>) -> bool {
        let is_here = !self.0.is_empty();
        if is_here {
            answers.send_encoded(&self.0, reply);
        }
        is_here
    }
}

impl<M> ReplyTo<M> for Straight<'_, '_> {
    fn put<'v, V>(self, message: &V)
    where
        V: ViewEncode<'v> + MessageView<'v, Owned = M>,
    {
        if self.answers.are_plain() {
            return self.reply.message(|out| message.encode(out));
        }
        let mut sizes = SizeCache::new();
        if (message.compute_size(&mut sizes) as usize) < self.answers.above {
            return self.reply.message(|out| message.write_to(&mut sizes, out));
        }
        message.write_to(&mut sizes, &mut self.kept.0);
    }
}
