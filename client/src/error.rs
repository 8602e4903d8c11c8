//! What a failed call says.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use larder_api::errors::{Code, Reason, Retry};

/// Why a call failed, and what may be done about it.
///
/// `Display` is one line; [`source`](StdError::source) has the cause, if the
/// failure happened on the way.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
pub(crate) struct Inner {
    pub(crate) code: Code,
    pub(crate) reason_name: Option<String>,
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) pushback: Pushback,
    pub(crate) field_violations: Vec<FieldViolation>,
    pub(crate) quota_violations: Vec<QuotaViolation>,
    pub(crate) origin: Origin,
    pub(crate) repeat: Repeat,
    /// Attempts that a server may have seen.
    pub(crate) attempts: u32,
    pub(crate) earlier: Earlier,
    pub(crate) source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// A field of the request that the server refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path of the field, such as `requests[3].key`.
    pub field: String,
    /// What is wrong with it, and what the limit is.
    pub description: String,
}

/// A quota that stood in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaViolation {
    /// Whose quota it is.
    pub subject: String,
    /// What was exceeded.
    pub description: String,
}

/// How far a call came before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The caller's own words are wrong; nothing was sent.
    Configuration,
    /// No connection could be made; nothing was sent.
    Connect,
    /// There was a connection, but the call did not leave, or the server says
    /// that it did not take it: nothing was done.
    Unsent,
    /// The call was under way: a server answered, the connection broke, or
    /// the client's clock ran out.
    Call,
    /// A server answered what the contract does not allow.
    Protocol,
}

/// Whether the same call may be made twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It only reads: it has no effect.
    Read,
    /// It carries a request id of its caller: its effect happens once.
    Once,
    /// It carries a request id that was made for this call: its attempts have their effect once.
    /// Called again it would have another.
    OnceEach,
    /// It writes what it says, however often: but a repeat may undo what
    /// somebody else wrote in between. The contract lets a service config repeat
    /// it (`idempotency_level`); whether its caller may, only the caller knows.
    Same,
    /// Each time has its effect.
    Effect,
}

/// What the attempts before the last one may have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Earlier {
    NoEffect,
    /// The last one's end says nothing of that of the call.
    MayHaveApplied,
}

/// What the server said about trying again, beside the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushback {
    Silent,
    Never,
}

impl Error {
    /// The status code: what kind of failure it is.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The reason, if the server gave one that this client knows.
    pub fn reason(&self) -> Option<Reason> {
        self.reason_name().and_then(Reason::from_name)
    }

    /// The reason as the server wrote it, also one that this client does not
    /// know.
    pub fn reason_name(&self) -> Option<&str> {
        self.0.reason_name.as_deref()
    }

    /// What went wrong, in words; for people and logs.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// How long to wait before another try, if the server said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The fields that the server refused.
    pub fn field_violations(&self) -> &[FieldViolation] {
        &self.0.field_violations
    }

    /// The quotas that stood in the way.
    pub fn quota_violations(&self) -> &[QuotaViolation] {
        &self.0.quota_violations
    }

    /// True if no connection could be made. Nothing was sent.
    pub fn is_connect(&self) -> bool {
        self.0.origin == Origin::Connect && self.0.attempts == 0
    }

    /// How often the call was sent so that a server may have seen it: 0 if it
    /// never left, more than 1 if it was tried again.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// True if the caller's own configuration or arguments are wrong. Nothing
    /// was sent.
    pub fn is_configuration(&self) -> bool {
        self.0.origin == Origin::Configuration
    }

    /// True if the very same call may be made again without asking anybody,
    /// after [`retry_after`](Self::retry_after) if that is set.
    pub fn is_retryable(&self) -> bool {
        if self.0.pushback == Pushback::Never {
            return false;
        }
        let safe = matches!(self.0.repeat, Repeat::Read | Repeat::Once);
        if self.0.earlier == Earlier::MayHaveApplied && !safe {
            return false;
        }
        match (self.reason(), self.0.origin) {
            (_, Origin::Configuration | Origin::Protocol) => false,
            (_, Origin::Connect | Origin::Unsent) => true,
            (Some(reason), _) => match reason.spec().retry {
                Retry::Yes | Retry::AfterDelay => true,
                Retry::IfSafe => safe,
                Retry::No => false,
            },
            (None, _) => safe && self.0.code == Code::Unavailable,
        }
    }

    /// False only if the call certainly had no effect.
    pub fn may_have_applied(&self) -> bool {
        if self.0.repeat == Repeat::Read {
            return false;
        }
        if self.0.earlier == Earlier::MayHaveApplied {
            return true;
        }
        match (self.reason(), self.0.origin) {
            (_, Origin::Configuration | Origin::Connect | Origin::Unsent) => false,
            (_, Origin::Protocol) => true,
            (Some(Reason::Internal | Reason::Cancelled), _) => true,
            (Some(reason), _) => reason.spec().retry == Retry::IfSafe,
            (None, _) => matches!(
                self.0.code,
                Code::Ok
                    | Code::Cancelled
                    | Code::Unknown
                    | Code::DeadlineExceeded
                    | Code::ResourceExhausted
                    | Code::Internal
                    | Code::Unavailable
                    | Code::DataLoss
            ),
        }
    }

    /// True if a stream that only reads may be taken up again where it broke.
    pub(crate) fn breaks_stream(&self) -> bool {
        self.is_retryable()
            || (self.reason_name().is_none()
                && self.0.pushback == Pushback::Silent
                && self.0.origin == Origin::Call
                && matches!(
                    self.0.code,
                    Code::Unavailable
                        | Code::Internal
                        | Code::Unknown
                        | Code::Cancelled
                        | Code::DeadlineExceeded
                ))
    }

    pub(crate) fn from_inner(inner: Inner) -> Self {
        Self(Box::new(inner))
    }

    pub(crate) fn configuration(message: impl Into<String>) -> Self {
        Self::local(Code::InvalidArgument, Origin::Configuration, message)
    }

    /// What is asked for does not go with how the client is set up.
    pub(crate) fn precondition(message: impl Into<String>) -> Self {
        Self::local(Code::FailedPrecondition, Origin::Configuration, message)
    }

    /// One of the last of several calls that were made for one: those before had their effect.
    pub(crate) fn after_others(self, others: usize) -> Self {
        if others == 0 {
            return self;
        }
        let others = u32::try_from(others).unwrap_or(u32::MAX);
        let attempts = self.0.attempts.saturating_add(others);
        self.after(attempts, Earlier::MayHaveApplied)
    }

    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::local(Code::Internal, Origin::Protocol, message)
    }

    /// The client's own clock ran out while it waited for `what`.
    pub(crate) fn stalled(what: &str, waited: Duration, repeat: Repeat) -> Self {
        let mut error = Self::local(
            Code::DeadlineExceeded,
            Origin::Call,
            format!("no {what} within {waited:?}"),
        );
        error.0.repeat = repeat;
        error
    }

    /// Notes what was done for the call before it ended so.
    pub(crate) fn after(mut self, attempts: u32, earlier: Earlier) -> Self {
        self.0.attempts = attempts;
        self.0.earlier = earlier;
        self
    }

    pub(crate) fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    pub(crate) fn set_source(&mut self, source: Option<Arc<dyn StdError + Send + Sync>>) {
        self.0.source = source;
    }

    fn local(code: Code, origin: Origin, message: impl Into<String>) -> Self {
        Self::from_inner(Inner {
            code,
            reason_name: None,
            message: message.into(),
            retry_after: None,
            pushback: Pushback::Silent,
            field_violations: Vec::new(),
            quota_violations: Vec::new(),
            origin,
            repeat: Repeat::Effect,
            attempts: 0,
            earlier: Earlier::NoEffect,
            source: None,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.origin, self.reason_name()) {
            (Origin::Configuration | Origin::Connect, _) => f.write_str(&self.0.message),
            (_, Some(reason)) => write!(f, "{} ({}, {reason})", self.0.message, self.0.code),
            (_, None) => write!(f, "{} ({})", self.0.message, self.0.code),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("code", &self.0.code)
            .field("reason", &self.0.reason_name)
            .field("message", &self.0.message)
            .field("retry_after", &self.0.retry_after)
            .field("field_violations", &self.0.field_violations)
            .field("quota_violations", &self.0.quota_violations)
            .field("origin", &self.0.origin)
            .finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}
