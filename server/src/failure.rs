//! Why a call fails, in the server's own terms. `rpc::status` turns it into
//! what goes over the wire; nothing else does.

use std::borrow::Cow;
use std::time::Duration;

use larder_api::errors::{Code, Reason};
use larder_model::{NameError, StoreError, TtlError};

/// A failed call: a row of the catalogue, and what this occurrence adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    /// The row's, but for the talk's quotas.
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) detail: Option<Detail>,
    /// `RetryInfo`, and for refused calls `grpc-retry-pushback-ms`.
    pub(crate) retry_after: Option<Duration>,
}

/// What stands beside `ErrorInfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Detail {
    /// `BadRequest` with one violation.
    Field {
        field: Cow<'static, str>,
        description: String,
    },
    /// `QuotaFailure` with one violation.
    Quota {
        subject: String,
        description: String,
    },
    /// `PreconditionFailure` with one violation.
    Precondition {
        subject: String,
        description: String,
    },
}

impl Failure {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            code: reason.spec().code,
            message: message.into(),
            detail: None,
            retry_after: None,
        }
    }

    /// A bad field: the message and the violation both name it.
    pub(crate) fn field(
        reason: Reason,
        field: impl Into<Cow<'static, str>>,
        description: impl Into<String>,
    ) -> Self {
        let (field, description) = (field.into(), description.into());
        Self {
            detail: Some(Detail::Field {
                field: field.clone(),
                description: description.clone(),
            }),
            ..Self::new(reason, format!("{field} {description}"))
        }
    }

    pub(crate) fn with_detail(self, detail: Detail) -> Self {
        Self {
            detail: Some(detail),
            ..self
        }
    }

    pub(crate) fn retry_after(self, delay: Duration) -> Self {
        Self {
            retry_after: Some(delay),
            ..self
        }
    }

    /// The same failure of one item of a list: `field` becomes
    /// `requests[3].field`.
    pub(crate) fn within(mut self, list: &str, index: usize) -> Self {
        if let Some(Detail::Field { field, description }) = &mut self.detail {
            *field = format!("{list}[{index}].{field}").into();
            self.message = format!("{field} {description}");
        }
        self
    }

    /// A key that cannot be.
    pub(crate) fn key(field: impl Into<Cow<'static, str>>, error: NameError) -> Self {
        let reason = match error {
            NameError::Empty => Reason::KeyEmpty,
            NameError::TooLong { .. } | NameError::BadCharacter => Reason::KeyTooLong,
        };
        Self::field(reason, field, error.to_string())
    }

    /// A namespace that cannot be.
    pub(crate) fn namespace(error: NameError) -> Self {
        Self::field(Reason::NamespaceInvalid, "namespace", error.to_string())
    }

    /// A time to live that cannot be.
    pub(crate) fn ttl(field: &'static str, error: TtlError) -> Self {
        Self::field(Reason::TtlOutOfRange, field, error.to_string())
    }
}

/// Which contract a failure is told in: they differ over quotas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contract {
    /// `rpc.Cache`: FAILED_PRECONDITION, in the talk's words.
    Talk,
    /// `larder.cache.v1`.
    V1,
}

/// How long to stay away when memory is full: until some of it has expired or
/// been evicted by others.
const MEMORY_FULL_DELAY: Duration = Duration::from_secs(1);

/// A store's refusal, told to `account` in a contract's words.
pub(crate) fn store_failure(error: &StoreError, account: &str, contract: Contract) -> Failure {
    match error {
        StoreError::KeyQuota { limit } => quota(
            Reason::KeyQuotaExceeded,
            account,
            contract,
            format!("Account {account} exceeds max key limit {limit}"),
        ),
        StoreError::ByteQuota { limit } => quota(
            Reason::ByteQuotaExceeded,
            account,
            contract,
            format!("Account {account} exceeds max byte limit {limit}"),
        ),
        StoreError::MemoryFull { .. } => {
            Failure::new(Reason::MemoryFull, error.to_string()).retry_after(MEMORY_FULL_DELAY)
        }
        StoreError::NotANumber => Failure::new(Reason::NotANumber, error.to_string()),
        StoreError::Overflow => Failure::new(Reason::Overflow, error.to_string()),
        StoreError::CursorExpired => Failure::new(
            Reason::ResumeTokenExpired,
            "the point to resume from is gone; start again",
        ),
        StoreError::Unavailable(_) => Failure::new(Reason::StoreUnavailable, error.to_string())
            .retry_after(Duration::from_secs(1)),
    }
}

fn quota(reason: Reason, account: &str, contract: Contract, description: String) -> Failure {
    let code = match contract {
        Contract::Talk => Code::FailedPrecondition,
        Contract::V1 => reason.spec().code,
    };
    Failure {
        code,
        ..Failure::new(reason, description.clone()).with_detail(Detail::Quota {
            subject: format!("accounts/{account}"),
            description,
        })
    }
}
