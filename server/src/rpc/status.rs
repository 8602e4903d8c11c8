//! The one file that turns failures into statuses.
//!
//! Every error carries `google.rpc.ErrorInfo` (domain `larder`, a reason of the
//! catalogue, `temporary`), and what its row of the catalogue names beside it.

use std::collections::HashMap;
use std::time::Duration;

use buffa::{DecodeError, Message, MessageField};
use connectrpc::{ConnectError, ErrorCode, ErrorDetail};
use larder_api::errors::{Code, Reason};
use larder_api::google_rpc as wire;
use larder_api::protobuf;
use larder_api::wire::{ERROR_DOMAIN, MAX_STATUS_MESSAGE_BYTES};
use larder_transport::rpc;

use crate::failure::{Detail, Failure};
use crate::layers::admit::overloaded;
use crate::layers::strict::{NO_MESSAGE, RECEIVING_FULL};

const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The failure as connectrpc sends it in the caller's protocol.
pub(crate) fn connect_error(failure: &Failure) -> ConnectError {
    let mut error = ConnectError::new(error_code(failure.code), message(failure));
    for (name, value) in details(failure) {
        error = error.with_detail(value.into_connect(name));
    }
    if let (Some(delay), true) = (failure.retry_after, pushes_back(failure.reason)) {
        let mut trailers = http::HeaderMap::new();
        trailers.insert(PUSHBACK, http::HeaderValue::from(millis(delay)));
        error = error.with_trailers(trailers);
    }
    error
}

/// The failure as the typed lane sends it; with it, what its trailers say of when
/// to come back.
pub(crate) fn grpc_status(failure: &Failure) -> (rpc::Status, Option<(&'static str, String)>) {
    let message = message(failure);
    let details = status(failure).encode_to_vec();
    let pushback = failure
        .retry_after
        .filter(|_| pushes_back(failure.reason))
        .map(|delay| (PUSHBACK, millis(delay).to_string()));
    let status = rpc::Status {
        code: rpc::Code(failure.code.number()),
        message: message.into(),
        details: details.into(),
    };
    (status, pushback)
}

/// A request that is no message of its method's.
pub(crate) fn not_decoded(error: &DecodeError) -> Failure {
    let message = match error {
        DecodeError::ElementMemoryLimitExceeded => "the message is too costly to decode".to_owned(),
        error => format!("failed to decode proto request: {error}"),
    };
    Failure::new(Reason::MalformedRequest, message)
}

/// The failure as it stands inside a message, for one item of a batch.
pub(crate) fn status(failure: &Failure) -> wire::Status {
    wire::Status {
        code: i32::from(failure.code.number()),
        message: message(failure),
        details: details(failure)
            .into_iter()
            .map(|(name, value)| value.into_any(name))
            .collect(),
        ..Default::default()
    }
}

/// A failure that connectrpc found by itself, before any handler: it knows a
/// code and a message, the catalogue adds the reason.
pub(crate) fn from_protocol_layer(code: ErrorCode, message: &str) -> Failure {
    // Of ours, said by what it uses.
    if message == RECEIVING_FULL {
        return overloaded(message);
    }
    let reason = match code {
        ErrorCode::ResourceExhausted => Reason::MessageTooLarge,
        ErrorCode::Unimplemented if message.contains("compression") => Reason::EncodingUnsupported,
        ErrorCode::Unimplemented if message.contains("text mode") => Reason::EncodingUnsupported,
        ErrorCode::Unimplemented if message.contains("message") => Reason::MalformedRequest,
        ErrorCode::Unimplemented => Reason::MethodNotFound,
        ErrorCode::DeadlineExceeded => Reason::NotStarted,
        ErrorCode::Canceled => Reason::Cancelled,
        ErrorCode::NotFound => Reason::ServiceNotFound,
        // Body cut short, unknown flags, bytes that are no message: the
        // caller's doing, though some layers call it an internal error.
        _ => Reason::MalformedRequest,
    };
    let empty = [
        "request body is empty",
        "server streaming request requires a message",
    ];
    if empty.iter().any(|known| message.starts_with(known)) {
        return Failure::new(reason, NO_MESSAGE);
    }
    // Its advice is for those who program with it, not for those who call.
    let message = if message.contains("with_") {
        "the message is too costly to decode"
    } else {
        message
    };
    Failure::new(reason, message)
}

/// Cuts a message at a character boundary, so that a long key in it cannot
/// push the trailers past a client's header limit.
fn message(failure: &Failure) -> String {
    let text = &failure.message;
    if text.len() <= MAX_STATUS_MESSAGE_BYTES {
        return text.clone();
    }
    let cut = text.floor_char_boundary(MAX_STATUS_MESSAGE_BYTES);
    format!("{}…", &text[..cut])
}

fn pushes_back(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::RateLimited | Reason::ConcurrencyLimited | Reason::Overloaded
    )
}

fn millis(delay: Duration) -> u64 {
    u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)
}

/// A detail message, not yet in the form of a protocol.
enum Value {
    Info(wire::ErrorInfo),
    Retry(wire::RetryInfo),
    Bad(wire::BadRequest),
    Quota(wire::QuotaFailure),
    Precondition(wire::PreconditionFailure),
}

impl Value {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Info(m) => m.encode_to_vec(),
            Self::Retry(m) => m.encode_to_vec(),
            Self::Bad(m) => m.encode_to_vec(),
            Self::Quota(m) => m.encode_to_vec(),
            Self::Precondition(m) => m.encode_to_vec(),
        }
    }

    fn into_any(self, name: &str) -> protobuf::Any {
        protobuf::Any {
            type_url: format!("type.googleapis.com/{name}"),
            value: self.encode().into(),
            ..Default::default()
        }
    }

    /// Connect's JSON form, with what the detail says in words beside its
    /// bytes: people read it with curl.
    fn into_connect(self, name: &str) -> ErrorDetail {
        fn build<M: Message + serde::Serialize>(name: &str, message: &M) -> ErrorDetail {
            ErrorDetail {
                debug: serde_json::to_value(message).ok(),
                ..ErrorDetail::from_message(name, message)
            }
        }
        match self {
            Self::Info(m) => build(name, &m),
            Self::Retry(m) => build(name, &m),
            Self::Bad(m) => build(name, &m),
            Self::Quota(m) => build(name, &m),
            Self::Precondition(m) => build(name, &m),
        }
    }
}

fn details(failure: &Failure) -> Vec<(&'static str, Value)> {
    let mut list = vec![(
        "google.rpc.ErrorInfo",
        Value::Info(error_info(failure.reason)),
    )];
    list.extend(failure.detail.as_ref().map(detail));
    list.extend(
        failure
            .retry_after
            .map(|delay| ("google.rpc.RetryInfo", Value::Retry(retry_info(delay)))),
    );
    list
}

fn error_info(reason: Reason) -> wire::ErrorInfo {
    let temporary = reason.is_temporary().to_string();
    wire::ErrorInfo {
        reason: reason.name().into(),
        domain: ERROR_DOMAIN.into(),
        metadata: HashMap::from([("temporary".to_owned(), temporary)])
            .into_iter()
            .collect(),
        ..Default::default()
    }
}

fn retry_info(delay: Duration) -> wire::RetryInfo {
    let delay = protobuf::Duration::from_millis(i64::try_from(millis(delay)).unwrap_or(i64::MAX));
    wire::RetryInfo {
        retry_delay: MessageField::some(delay),
        ..Default::default()
    }
}

fn detail(detail: &Detail) -> (&'static str, Value) {
    match detail {
        Detail::Field { field, description } => (
            "google.rpc.BadRequest",
            Value::Bad(wire::BadRequest {
                field_violations: vec![wire::bad_request::FieldViolation {
                    field: field.as_ref().into(),
                    description: description.clone(),
                    ..Default::default()
                }],
                ..Default::default()
            }),
        ),
        Detail::Quota {
            subject,
            description,
        } => (
            "google.rpc.QuotaFailure",
            Value::Quota(wire::QuotaFailure {
                violations: vec![wire::quota_failure::Violation {
                    subject: subject.clone(),
                    description: description.clone(),
                    ..Default::default()
                }],
                ..Default::default()
            }),
        ),
        Detail::Precondition {
            subject,
            description,
        } => (
            "google.rpc.PreconditionFailure",
            Value::Precondition(wire::PreconditionFailure {
                violations: vec![wire::precondition_failure::Violation {
                    r#type: "ETAG".into(),
                    subject: subject.clone(),
                    description: description.clone(),
                    ..Default::default()
                }],
                ..Default::default()
            }),
        ),
    }
}

const fn error_code(code: Code) -> ErrorCode {
    match code {
        Code::Cancelled => ErrorCode::Canceled,
        Code::InvalidArgument => ErrorCode::InvalidArgument,
        Code::DeadlineExceeded => ErrorCode::DeadlineExceeded,
        Code::NotFound => ErrorCode::NotFound,
        Code::AlreadyExists => ErrorCode::AlreadyExists,
        Code::PermissionDenied => ErrorCode::PermissionDenied,
        Code::ResourceExhausted => ErrorCode::ResourceExhausted,
        Code::FailedPrecondition => ErrorCode::FailedPrecondition,
        Code::Aborted => ErrorCode::Aborted,
        Code::OutOfRange => ErrorCode::OutOfRange,
        Code::Unimplemented => ErrorCode::Unimplemented,
        Code::Internal => ErrorCode::Internal,
        Code::Unavailable => ErrorCode::Unavailable,
        Code::DataLoss => ErrorCode::DataLoss,
        Code::Unauthenticated => ErrorCode::Unauthenticated,
        Code::Ok | Code::Unknown => ErrorCode::Unknown,
    }
}

#[cfg(test)]
mod tests;
