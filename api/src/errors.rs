//! The catalogue of errors: every error that larder sends carries a
//! `google.rpc.ErrorInfo` with one of these reasons, in every protocol.
//!
//! `docs/errors.md` is [`markdown`] of this table; a test fails when they
//! differ.

use std::fmt::{self, Write as _};

/// Status codes of gRPC, with their numbers on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// Done.
    Ok = 0,
    /// The caller gave up.
    Cancelled = 1,
    /// No better code is known.
    Unknown = 2,
    /// The request is wrong, whatever the state of the server.
    InvalidArgument = 3,
    /// The caller's time was up.
    DeadlineExceeded = 4,
    /// What was asked for is not there.
    NotFound = 5,
    /// What was to be made is there already.
    AlreadyExists = 6,
    /// The caller is known and may not.
    PermissionDenied = 7,
    /// A quota, rate or size is used up.
    ResourceExhausted = 8,
    /// The state of the server rules it out.
    FailedPrecondition = 9,
    /// Somebody else was quicker.
    Aborted = 10,
    /// Past the end of something.
    OutOfRange = 11,
    /// Not offered here.
    Unimplemented = 12,
    /// A fault of the server.
    Internal = 13,
    /// Not now.
    Unavailable = 14,
    /// Data is damaged.
    DataLoss = 15,
    /// The caller is not known.
    Unauthenticated = 16,
}

impl Code {
    /// Every code, by number.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The code of a number on the wire; numbers beyond the table are
    /// [`Code::Unknown`], as the gRPC documentation asks.
    pub fn from_number(number: u32) -> Self {
        usize::try_from(number)
            .ok()
            .and_then(|index| Self::ALL.get(index).copied())
            .unwrap_or(Self::Unknown)
    }

    /// The number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The status of HTTP that Connect's unary calls, and JSON, have beside it
    /// (Connect protocol, "Error codes"). gRPC, gRPC-Web and streams have 200.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::Cancelled => 499,
            Self::InvalidArgument | Self::FailedPrecondition | Self::OutOfRange => 400,
            Self::Unauthenticated => 401,
            Self::PermissionDenied => 403,
            Self::NotFound => 404,
            Self::AlreadyExists | Self::Aborted => 409,
            Self::ResourceExhausted => 429,
            Self::Unimplemented => 501,
            Self::Unavailable => 503,
            Self::DeadlineExceeded => 504,
            Self::Unknown | Self::Internal | Self::DataLoss => 500,
        }
    }

    /// The name as documentation and logs spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a client may do without asking anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Try the same call again: it was not carried out.
    Yes,
    /// Try again once the delay in `RetryInfo` has passed.
    AfterDelay,
    /// Try again if the method has no effect, or a request id: the call may
    /// have been carried out.
    IfSafe,
    /// The same call will fail again.
    No,
}

/// A row of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// `ErrorInfo.reason`.
    pub name: &'static str,
    /// The status code, in both contracts unless `when` says otherwise.
    pub code: Code,
    /// What a client may do; also decides `ErrorInfo.metadata["temporary"]`.
    pub retry: Retry,
    /// Message types beside `ErrorInfo`, without the package.
    pub details: &'static [&'static str],
    /// When it occurs.
    pub when: &'static str,
}

macro_rules! reasons {
    ($($variant:ident $name:literal $code:ident $retry:ident [$($detail:literal),*] $when:literal;)*) => {
        /// Why a call failed: `ErrorInfo.reason`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $(#[doc = $when] $variant,)*
        }

        impl Reason {
            /// Every reason, in the order of the catalogue.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its row in the catalogue.
            pub const fn spec(self) -> Spec {
                match self {
                    $(Self::$variant => Spec {
                        name: $name,
                        code: Code::$code,
                        retry: Retry::$retry,
                        details: &[$($detail),*],
                        when: $when,
                    },)*
                }
            }
        }
    };
}

reasons! {
    KeyQuotaExceeded "KEY_QUOTA_EXCEEDED" ResourceExhausted No ["QuotaFailure"]
        "The account is at its key limit. `FAILED_PRECONDITION` in `rpc.Cache`.";
    ByteQuotaExceeded "BYTE_QUOTA_EXCEEDED" ResourceExhausted No ["QuotaFailure"]
        "The account is at its byte limit. `FAILED_PRECONDITION` in `rpc.Cache`.";
    MemoryFull "MEMORY_FULL" ResourceExhausted No ["RetryInfo"]
        "The server is at its memory limit and nothing could be evicted.";
    NotANumber "NOT_A_NUMBER" FailedPrecondition No []
        "Increment of a value that is no decimal 64-bit number.";
    Overflow "OVERFLOW" OutOfRange No []
        "Increment past 64 bits.";
    KeyNotFound "KEY_NOT_FOUND" NotFound No []
        "`rpc.Cache/Get` of a key that is not there. `larder.cache.v1` answers `miss` instead.";
    RateLimited "RATE_LIMITED" ResourceExhausted AfterDelay ["RetryInfo"]
        "The account asks more often than its limit allows; `grpc-retry-pushback-ms` says when to come back.";
    Overloaded "OVERLOADED" Unavailable AfterDelay ["RetryInfo"]
        "The server has more calls than it can serve in time, or as many in flight as it accepts.";
    ConcurrencyLimited "CONCURRENCY_LIMITED" ResourceExhausted AfterDelay ["RetryInfo"]
        "The account has as many calls or streams in flight as one account may; `grpc-retry-pushback-ms` says when to come back.";
    AccountsUnavailable "ACCOUNTS_UNAVAILABLE" Unavailable Yes ["RetryInfo"]
        "The Accounts server cannot be asked, and no earlier answer is still good. Nothing was done.";
    StoreUnavailable "STORE_UNAVAILABLE" Unavailable IfSafe ["RetryInfo"]
        "A store outside the server cannot be reached, or the accounts database cannot be written: its disk may be full. What was asked for may have been done.";
    Draining "DRAINING" Unavailable Yes []
        "The server is shutting down; another one will answer.";
    NotStarted "NOT_STARTED" DeadlineExceeded Yes []
        "The deadline passed before the call had any effect.";
    MaybeApplied "MAYBE_APPLIED" DeadlineExceeded IfSafe []
        "The deadline passed while the call was carried out; it may have had its effect.";
    TokenMissing "TOKEN_MISSING" Unauthenticated No []
        "No token, no client certificate that stands for an account, and no anonymous account here.";
    TokenInvalid "TOKEN_INVALID" Unauthenticated No []
        "The credential, a token or a client certificate, is unknown, revoked, expired or malformed.";
    ScopeDenied "SCOPE_DENIED" PermissionDenied No []
        "The token does not give the right: action, namespace or key prefix.";
    HostDenied "HOST_DENIED" PermissionDenied No []
        "An anonymous call to a loopback server under a foreign host name (DNS rebinding), or from an origin that is not allowed.";
    KeyEmpty "KEY_EMPTY" InvalidArgument No ["BadRequest"]
        "A key has no bytes.";
    KeyTooLong "KEY_TOO_LONG" InvalidArgument No ["BadRequest"]
        "A key or prefix is longer than `max_key_bytes`.";
    ValueTooLarge "VALUE_TOO_LARGE" InvalidArgument No ["BadRequest"]
        "A value is larger than `max_value_bytes`.";
    BatchTooLarge "BATCH_TOO_LARGE" InvalidArgument No ["BadRequest"]
        "A batch or part of a load has more than `max_batch_keys` entries.";
    NamespaceInvalid "NAMESPACE_INVALID" InvalidArgument No ["BadRequest"]
        "A namespace is longer than 64 bytes or has other characters than `a-z 0-9 . _ -`.";
    TtlOutOfRange "TTL_OUT_OF_RANGE" InvalidArgument No ["BadRequest"]
        "A TTL or expiry is not positive, or is beyond 10 years.";
    FieldInvalid "FIELD_INVALID" InvalidArgument No ["BadRequest"]
        "Any other field is missing, contradicts another, or is out of its range; the violation names it.";
    PageTokenInvalid "PAGE_TOKEN_INVALID" InvalidArgument No ["BadRequest"]
        "A page token was not given out by this method.";
    ResumeTokenInvalid "RESUME_TOKEN_INVALID" InvalidArgument No ["BadRequest"]
        "A resume token was not given out by this method.";
    ResumeTokenExpired "RESUME_TOKEN_EXPIRED" OutOfRange No []
        "The point to resume from is gone; start again.";
    MetadataInvalid "METADATA_INVALID" InvalidArgument No ["BadRequest"]
        "`dry-run`, `grpc-timeout`, `connect-timeout-ms` or `authorization` cannot be understood, or a field is none that HTTP allows.";
    MetadataTooLarge "METADATA_TOO_LARGE" ResourceExhausted No []
        "The metadata of a request is larger than `max_metadata_bytes`.";
    MalformedRequest "MALFORMED_REQUEST" InvalidArgument No []
        "The request message cannot be decoded: framing, protobuf, JSON, compression, or text that is no UTF-8.";
    MessageTooLarge "MESSAGE_TOO_LARGE" ResourceExhausted No []
        "The request message is larger than `max_message_bytes`.";
    ServiceNotFound "SERVICE_NOT_FOUND" NotFound No []
        "`grpc.health.v1.Health` is asked about a service that this server does not have.";
    MethodNotFound "METHOD_NOT_FOUND" Unimplemented No []
        "No such service or method, or not by this HTTP method or content type.";
    EncodingUnsupported "ENCODING_UNSUPPORTED" Unimplemented No []
        "The request is compressed in a way, or framed in a form, that the server does not know.";
    RequestIdReused "REQUEST_ID_REUSED" InvalidArgument No ["BadRequest"]
        "A `request_id` was used before, for a request that asked for something else.";
    RequestInProgress "REQUEST_IN_PROGRESS" Unavailable Yes ["RetryInfo"]
        "The same request, by its `request_id`, is being carried out; ask again for its answer.";
    RetryUnsafe "RETRY_UNSAFE" Aborted No []
        "An increment, conditional write or creation without a `request_id` was sent before (`grpc-previous-rpc-attempts`): it may have had its effect, and was not carried out again.";
    AccountNotFound "ACCOUNT_NOT_FOUND" NotFound No []
        "The control plane knows no such account.";
    AccountExists "ACCOUNT_EXISTS" AlreadyExists No []
        "An account of this name exists.";
    AccountProtected "ACCOUNT_PROTECTED" FailedPrecondition No []
        "The account cannot be deleted, because the server needs it.";
    TokenNotFound "TOKEN_NOT_FOUND" NotFound No []
        "The control plane knows no such token.";
    TokenExists "TOKEN_EXISTS" AlreadyExists No []
        "The secret to import is a token already.";
    TooMany "TOO_MANY" ResourceExhausted No []
        "The control plane holds as many accounts, or the account as many tokens, as it may.";
    EtagMismatch "ETAG_MISMATCH" Aborted No ["PreconditionFailure"]
        "The account was changed since its etag was read.";
    Cancelled "CALL_CANCELLED" Cancelled No []
        "The caller gave up; it appears in logs only.";
    Internal "INTERNAL_FAULT" Internal No []
        "A fault of the server; the call's line in its log says more.";
}

impl Reason {
    /// `ErrorInfo.reason`.
    pub const fn name(self) -> &'static str {
        self.spec().name
    }

    /// The reason of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.name() == name)
    }

    /// True when the same call may succeed later: `temporary` in the talk's
    /// structured errors.
    pub const fn is_temporary(self) -> bool {
        match self {
            Self::MemoryFull => true,
            _ => !matches!(self.spec().retry, Retry::No),
        }
    }
}

/// The catalogue as `docs/errors.md` shows it.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Errors\n\n\
         <!-- Generated from api/src/errors.rs by `cargo xtask gen`; do not edit. -->\n\n\
         Every error that larder sends, in every protocol, carries a `google.rpc.ErrorInfo` with\n\
         domain `larder`, one of these reasons, and the metadata `temporary`: `true` when the same\n\
         call may succeed later. In gRPC it stands in `grpc-status-details-bin`, in Connect and JSON\n\
         under `details`. The status of HTTP is that of unary Connect calls and of JSON; in gRPC,\n\
         gRPC-Web and streams it is 200, as these tell their status in trailers or at their end.\n\n\
         `grpc-retry-pushback-ms` (gRFC A6) goes with refusals that say when to come back. It is never\n\
         negative, which would say not to retry: clients count each such answer against the retries\n\
         of their channel, whatever its status, so that a caller over its quota, or who looks for what\n\
         is not there, would have no retries left when a server is away. What must not be retried has\n\
         a status that `clients/service-config.json` does not list; what may not be carried out twice\n\
         is refused if it is sent again (`RETRY_UNSAFE`).\n\n\
         | reason | status | HTTP | temporary | more detail | retry without asking | when |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for reason in Reason::ALL {
        let spec = reason.spec();
        let retry = match spec.retry {
            Retry::Yes => "yes",
            Retry::AfterDelay => "after the delay",
            Retry::IfSafe => "reads, and writes with a request id",
            Retry::No => "no",
        };
        let details = if spec.details.is_empty() {
            "–".into()
        } else {
            spec.details.join(", ")
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {details} | {retry} | {} |",
            spec.name,
            spec.code,
            // What HTTP has an answer of its own for.
            match reason {
                Reason::MethodNotFound => "404, 405 or 415".to_owned(),
                Reason::MetadataTooLarge => "431".to_owned(),
                _ => spec.code.http_status().to_string(),
            },
            reason.is_temporary(),
            spec.when
        );
    }
    page
}
