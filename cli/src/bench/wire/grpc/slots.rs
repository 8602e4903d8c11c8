//! The calls under way, by slot and by stream.

use larder_client::Code;

use super::super::super::mix::Operation;
use super::super::super::stats::{ErrorKind, Outcome};
use super::super::api::Calls;
use super::super::message;
use super::meanings::Meaning;

/// Largest answer that is taken, bytes: more than any value.
const MAX_ANSWER_BYTES: usize = (1 << 30) + (1 << 20);

/// Places in the table of streams for each slot: streams end in almost the order
/// in which they began, so that few meet the place of another.
const PLACES_PER_SLOT: usize = 4;

/// One call.
pub(super) struct Slot {
    /// Its stream; 0 if there is no call.
    pub(super) stream: u32,
    pub(super) operation: Operation,
    key_bytes: usize,
    /// What may still be sent on the stream, bytes.
    pub(super) window: i64,
    /// The part of the request that the windows held up.
    pub(super) unsent: Option<Unsent>,
    /// It stands in the queue of those that wait for a window.
    pub(super) is_blocked: bool,
    /// Of the answer so far.
    pub(super) http_status: u16,
    answer: Answer,
}

/// A request that was not sent as a whole.
pub(super) struct Unsent {
    /// All but the value.
    pub(super) head: Vec<u8>,
    /// Bytes of head and value that are sent.
    pub(super) sent: usize,
}

/// The message of an answer.
enum Answer {
    /// Bytes of it, perhaps none: the rest comes in later frames.
    Part(Vec<u8>),
    /// It came.
    Whole(Result<Outcome, ErrorKind>),
}

impl Slot {
    const fn new() -> Self {
        Self {
            stream: 0,
            operation: Operation::Get,
            key_bytes: 0,
            window: 0,
            unsent: None,
            is_blocked: false,
            http_status: 0,
            answer: Answer::Part(Vec::new()),
        }
    }

    /// Takes in a part of the answer; most often it is all of it.
    pub(super) fn receive(&mut self, calls: &Calls, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let (operation, key_bytes) = (self.operation, self.key_bytes);
        let whole = match &mut self.answer {
            Answer::Whole(_) => Some(Err(internal("MORE_THAN_ONE_MESSAGE"))),
            Answer::Part(part) if part.is_empty() => {
                let whole = message_of(calls, operation, key_bytes, data);
                if whole.is_none() {
                    part.extend_from_slice(data);
                }
                whole
            }
            Answer::Part(part) => {
                part.extend_from_slice(data);
                message_of(calls, operation, key_bytes, part)
            }
        };
        if let Some(whole) = whole {
            self.answer = Answer::Whole(whole);
        }
    }

    /// What the call comes to, once the peer has ended it.
    pub(super) fn result(
        &mut self,
        meaning: &Meaning,
        not_found_is_miss: bool,
    ) -> Result<Outcome, ErrorKind> {
        let answer = std::mem::replace(&mut self.answer, Answer::Part(Vec::new()));
        match (meaning.grpc_status, answer) {
            (Some(0), Answer::Whole(result)) => result,
            (Some(0), Answer::Part(_)) => Err(internal("NO_MESSAGE")),
            (Some(status), _) => match Code::from_number(status) {
                Code::NotFound if not_found_is_miss => Ok(Outcome::Miss),
                code => Err((code.name(), meaning.reason.clone())),
            },
            (None, _) if self.http_status == 200 => Err(internal("NO_STATUS")),
            (None, _) => Err((
                code_of_http(self.http_status).name(),
                Some(format!("HTTP_{}", self.http_status)),
            )),
        }
    }
}

/// Reads a message, if all of it is there.
fn message_of(
    calls: &Calls,
    operation: Operation,
    key_bytes: usize,
    data: &[u8],
) -> Option<Result<Outcome, ErrorKind>> {
    let [compressed, length @ ..] = *data.first_chunk::<{ message::PREFIX_BYTES }>()?;
    if compressed != 0 {
        return Some(Err(internal("COMPRESSED")));
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_ANSWER_BYTES {
        return Some(Err(internal("ANSWER_TOO_LARGE")));
    }
    let rest = &data[message::PREFIX_BYTES..];
    match rest.len().cmp(&length) {
        std::cmp::Ordering::Less => None,
        std::cmp::Ordering::Equal => Some(message::outcome(calls, operation, key_bytes, rest)),
        std::cmp::Ordering::Greater => Some(Err(internal("MORE_THAN_ONE_MESSAGE"))),
    }
}

fn internal(reason: &str) -> ErrorKind {
    (Code::Internal.name(), Some(reason.to_owned()))
}

/// The code of gRPC for an answer of plain HTTP ("HTTP to gRPC Status Code
/// Mapping").
const fn code_of_http(status: u16) -> Code {
    match status {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// All calls of a connection.
pub(super) struct Slots {
    slots: Vec<Slot>,
    open: usize,
    /// The slot of a stream, at the stream's place: right if the slot says so
    /// too.
    places: Vec<usize>,
}

impl Slots {
    pub(super) fn new(count: usize) -> Self {
        Self {
            slots: (0..count).map(|_| Slot::new()).collect(),
            open: 0,
            places: vec![0; (count * PLACES_PER_SLOT).next_power_of_two()],
        }
    }

    /// Calls under way.
    pub(super) const fn open(&self) -> usize {
        self.open
    }

    pub(super) fn at(&mut self, slot: usize) -> &mut Slot {
        &mut self.slots[slot]
    }

    pub(super) fn begin(
        &mut self,
        slot: usize,
        stream: u32,
        operation: Operation,
        key_bytes: usize,
        window: i64,
    ) {
        let place = self.place(stream);
        self.places[place] = slot;
        self.open += 1;
        let call = &mut self.slots[slot];
        call.stream = stream;
        call.operation = operation;
        call.key_bytes = key_bytes;
        call.window = window;
    }

    pub(super) fn free(&mut self, slot: usize) {
        let call = &mut self.slots[slot];
        call.stream = 0;
        call.unsent = None;
        call.is_blocked = false;
        call.http_status = 0;
        call.answer = Answer::Part(Vec::new());
        self.open -= 1;
    }

    /// The slot of a stream, if its call is still under way.
    pub(super) fn find(&self, stream: u32) -> Option<usize> {
        let slot = self.places[self.place(stream)];
        if self
            .slots
            .get(slot)
            .is_some_and(|call| call.stream == stream)
        {
            return Some(slot);
        }
        self.slots.iter().position(|call| call.stream == stream)
    }

    /// The slots of the streams above that number.
    pub(super) fn above(&self, stream: u32) -> Vec<usize> {
        let each = self.slots.iter().enumerate();
        each.filter(|(_, call)| call.stream > stream)
            .map(|(slot, _)| slot)
            .collect()
    }

    /// Adds to the window of every stream.
    pub(super) fn widen(&mut self, bytes: i64) {
        let open = self.slots.iter_mut().filter(|call| call.stream != 0);
        open.for_each(|call| call.window += bytes);
    }

    fn place(&self, stream: u32) -> usize {
        (stream >> 1) as usize & (self.places.len() - 1)
    }
}
