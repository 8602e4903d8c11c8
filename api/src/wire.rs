//! Names and limits of the wire: each limit once, with its unit.

use std::time::Duration;

/// Metadata that asks for a dry run: `1` or `true`; `0` and `false` mean off.
/// The reply to a dry run carries `dry-run: 1`.
pub const DRY_RUN: &str = "dry-run";

/// Metadata in which a client's library says how often it has sent a call before
/// (gRFC A6).
pub const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";

/// Trailer of `rpc.Cache/Dump`: how many entries were left out because their
/// keys are no UTF-8.
pub const SKIPPED: &str = "larder-skipped";

/// Domain of every `google.rpc.ErrorInfo`.
pub const ERROR_DOMAIN: &str = "larder";

/// What a dry run of a load may remember of its entries, bytes: 150,000 keys of 20
/// bytes. Counts as received, [`MAX_RECEIVING_BYTES`].
pub const MAX_REHEARSAL_BYTES: usize = 32 << 20;

/// Largest request message, bytes, before and after decompression. Leaves room
/// for a value of 3 MiB as base64 in JSON, which grows it by a third.
pub const MAX_MESSAGE_BYTES: usize = 5 << 20;

/// Largest metadata of a request, bytes.
pub const MAX_METADATA_BYTES: u32 = 16 << 10;

/// Longest percent-decoded `grpc-message` that the server sends, bytes.
pub const MAX_STATUS_MESSAGE_BYTES: usize = 1 << 10;

/// Most streams of one HTTP/2 connection at a time.
pub const MAX_STREAMS_PER_CONNECTION: u32 = 1000;

/// Most calls that a server carries out at a time; one more is refused.
pub const MAX_CALLS_IN_FLIGHT: usize = 10_000;

/// Most calls at a time whose caller is not known yet, or need not be: they may
/// not take the places of those that are. Also bounds those who watch health.
pub const MAX_STRANGERS_IN_FLIGHT: usize = 1_000;

/// Most calls of one account at a time, among those of all: calls that wait, and
/// streams.
pub const MAX_CALLS_PER_ACCOUNT: u32 = 5_000;

/// Most streams of one account at a time among its calls: dumps and loads.
pub const MAX_STREAMS_PER_ACCOUNT: u32 = 1_000;

/// How long a unary call may take whose caller gives no time.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);

/// How long any call may take, whatever time its caller gives. A connection that
/// lives on is sent away sooner, by its age.
pub const MAX_DEADLINE: Duration = Duration::from_secs(3600);

/// Longest time for a whole unary request to arrive, whatever deadline its
/// caller gives; a stream has begun when its first message is read.
pub const RECEIVE_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest time from a connection's start to its first request.
pub const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of request bodies that a server receives at a time, of all calls
/// together; a call that would take it over is refused. The bytes of a stream
/// that has begun do not count: they are read one message at a time.
pub const MAX_RECEIVING_BYTES: usize = 512 << 20;

/// Most bytes of replies at a time that have not left, because their callers do
/// not read, of all calls together; one more is refused. Replies under
/// [`SMALL_REPLY_BYTES`] are not counted, nor are the parts of a stream, of which
/// a call holds one.
pub const MAX_REPLYING_BYTES: usize = 1 << 30;

/// See [`MAX_REPLYING_BYTES`].
pub const SMALL_REPLY_BYTES: usize = 64 << 10;

/// HTTP/2 receive window of a stream, bytes.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// HTTP/2 receive window of a connection, bytes.
pub const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Longest call to an Accounts server: the talk's two seconds.
pub const ACCOUNTS_TIMEOUT: Duration = Duration::from_secs(2);

// A full value must fit its message in every encoding, and a stream's window
// must not exceed its connection's.
const _: () = assert!(MAX_MESSAGE_BYTES > (3 << 20) / 3 * 4 + (64 << 10));
const _: () = assert!(STREAM_WINDOW_BYTES <= CONNECTION_WINDOW_BYTES);
