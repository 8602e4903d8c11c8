//! The one place where statuses of the wire become [`Error`]s.

use std::error::Error as StdError;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use buffa::Message;
use connectrpc::ConnectError;
use larder_api::errors::Code;
use larder_api::google_rpc::{BadRequest, ErrorInfo, QuotaFailure, RetryInfo, Status};
use larder_api::wire;

use crate::connector::ConnectFailure;
use crate::error::{Error, FieldViolation, Inner, Origin, Pushback, QuotaViolation, Repeat};

/// When the server wants the next try, milliseconds; negative for never.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Most violations kept of one error; a server sends as many as it likes.
const MAX_VIOLATIONS: usize = 100;

/// The error of a call that failed.
pub(crate) fn from_call(error: &ConnectError, repeat: Repeat) -> Error {
    if let Some(failure) = connect_failure(error) {
        return Error::from_inner(Inner {
            origin: Origin::Connect,
            ..blank(Code::Unavailable, failure.to_string(), repeat)
        })
        .with_shared_source(error);
    }
    let message = error.message.clone().unwrap_or_default();
    let mut inner = blank(Code::from_number(error.code.grpc_code()), message, repeat);
    for detail in &error.details {
        let encoded = detail.value.as_deref().unwrap_or_default();
        if let Ok(value) = STANDARD_NO_PAD
            .decode(encoded)
            .or_else(|_| STANDARD.decode(encoded))
        {
            read_detail(&mut inner, &detail.type_url, &value);
        }
    }
    let pushback = error
        .trailers()
        .get(PUSHBACK)
        .or_else(|| error.response_headers().get(PUSHBACK));
    if let Some(value) = pushback {
        // A value that is no number means "do not retry", by the gRPC
        // specification of retries (gRFC A6).
        let delay_ms = value
            .to_str()
            .ok()
            .and_then(|text| text.parse::<u64>().ok());
        match delay_ms {
            Some(delay_ms) => inner.retry_after = Some(Duration::from_millis(delay_ms)),
            None => inner.pushback = Pushback::Never,
        }
    }
    Error::from_inner(inner).with_shared_source(error)
}

/// The error of one item of a batch, or of one part of a load.
pub(crate) fn from_status(status: &Status, repeat: Repeat) -> Error {
    // A negative number is as unknown as one beyond the table.
    let code = u32::try_from(status.code).map_or(Code::Unknown, Code::from_number);
    let mut inner = blank(code, status.message.clone(), repeat);
    for detail in &status.details {
        read_detail(&mut inner, &detail.type_url, &detail.value);
    }
    Error::from_inner(inner)
}

fn blank(code: Code, message: String, repeat: Repeat) -> Inner {
    Inner {
        code,
        reason_name: None,
        message,
        retry_after: None,
        pushback: Pushback::Silent,
        field_violations: Vec::new(),
        quota_violations: Vec::new(),
        origin: Origin::Call,
        repeat,
        source: None,
    }
}

/// Takes what it understands of one detail; what it does not is left out, for
/// an error about an error helps nobody.
fn read_detail(inner: &mut Inner, type_url: &str, value: &[u8]) {
    match type_url.rsplit('/').next().unwrap_or(type_url) {
        "google.rpc.ErrorInfo" => {
            if let Ok(info) = ErrorInfo::decode_from_slice(value)
                && info.domain == wire::ERROR_DOMAIN
                && !info.reason.is_empty()
            {
                inner.reason_name = Some(info.reason);
            }
        }
        "google.rpc.RetryInfo" => {
            if let Ok(info) = RetryInfo::decode_from_slice(value) {
                let delay = info.retry_delay.into_option();
                inner.retry_after = delay
                    .and_then(|delay| Duration::try_from(delay).ok())
                    .or(inner.retry_after);
            }
        }
        "google.rpc.BadRequest" => {
            if let Ok(bad) = BadRequest::decode_from_slice(value) {
                let found = bad.field_violations.into_iter().take(MAX_VIOLATIONS);
                inner.field_violations = found
                    .map(|violation| FieldViolation {
                        field: violation.field,
                        description: violation.description,
                    })
                    .collect();
            }
        }
        "google.rpc.QuotaFailure" => {
            if let Ok(failure) = QuotaFailure::decode_from_slice(value) {
                let found = failure.violations.into_iter().take(MAX_VIOLATIONS);
                inner.quota_violations = found
                    .map(|violation| QuotaViolation {
                        subject: violation.subject,
                        description: violation.description,
                    })
                    .collect();
            }
        }
        _ => {}
    }
}

fn connect_failure<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a ConnectFailure> {
    let mut link = Some(error);
    while let Some(error) = link {
        if let Some(failure) = error.downcast_ref::<ConnectFailure>() {
            return Some(failure);
        }
        link = error.source();
    }
    None
}

impl Error {
    /// Keeps the cause of a failure on the way; an answer has none.
    fn with_shared_source(mut self, error: &ConnectError) -> Self {
        self.set_source(error.source_arc());
        self
    }
}

#[cfg(test)]
mod tests {
    use connectrpc::{ErrorCode, ErrorDetail};
    use larder_api::errors::{Reason, Retry};
    use larder_api::google_rpc::{bad_request, quota_failure};
    use larder_api::protobuf;

    use super::*;

    fn info(reason: &str, domain: &str) -> ErrorDetail {
        let info = ErrorInfo {
            reason: reason.into(),
            domain: domain.into(),
            ..ErrorInfo::default()
        };
        ErrorDetail::from_message("google.rpc.ErrorInfo", &info)
    }

    fn answer(reason: Reason) -> ConnectError {
        let number = u32::from(reason.spec().code.number());
        ConnectError::new(ErrorCode::from_grpc_code(number).unwrap(), "message")
            .with_detail(info(reason.name(), "larder"))
    }

    #[test]
    fn every_reason_of_the_catalogue_is_understood() {
        for &reason in Reason::ALL {
            let retry = reason.spec().retry;
            for (repeat, safe) in [
                (Repeat::Read, true),
                (Repeat::Once, true),
                (Repeat::Effect, false),
            ] {
                let error = from_call(&answer(reason), repeat);
                assert_eq!(error.reason(), Some(reason));
                assert_eq!(error.reason_name(), Some(reason.name()));
                assert_eq!(error.code(), reason.spec().code);
                let retryable = match retry {
                    Retry::Yes | Retry::AfterDelay => true,
                    Retry::IfSafe => safe,
                    Retry::No => false,
                };
                assert_eq!(error.is_retryable(), retryable, "{reason:?} {repeat:?}");
            }
            let applied = from_call(&answer(reason), Repeat::Effect).may_have_applied();
            let doubtful =
                retry == Retry::IfSafe || matches!(reason, Reason::Internal | Reason::Cancelled);
            assert_eq!(applied, doubtful, "{reason:?}");
            assert!(!from_call(&answer(reason), Repeat::Read).may_have_applied());
        }
    }

    #[test]
    fn codes_without_a_reason() {
        use ErrorCode as E;
        // code, retryable for a read, may have applied for a write
        let table = [
            (E::Canceled, false, true),
            (E::Unknown, false, true),
            (E::InvalidArgument, false, false),
            (E::DeadlineExceeded, false, true),
            (E::NotFound, false, false),
            (E::AlreadyExists, false, false),
            (E::PermissionDenied, false, false),
            (E::ResourceExhausted, false, true),
            (E::FailedPrecondition, false, false),
            (E::Aborted, false, false),
            (E::OutOfRange, false, false),
            (E::Unimplemented, false, false),
            (E::Internal, false, true),
            (E::Unavailable, true, true),
            (E::DataLoss, false, true),
            (E::Unauthenticated, false, false),
        ];
        for (code, retryable, applied) in table {
            let wire = ConnectError::new(code, "x");
            assert_eq!(
                from_call(&wire, Repeat::Read).is_retryable(),
                retryable,
                "{code:?}"
            );
            assert!(!from_call(&wire, Repeat::Effect).is_retryable(), "{code:?}");
            assert_eq!(
                from_call(&wire, Repeat::Effect).may_have_applied(),
                applied,
                "{code:?}"
            );
        }
    }

    #[test]
    fn details_and_pushback() {
        let bad = BadRequest {
            field_violations: vec![bad_request::FieldViolation {
                field: "key".into(),
                description: "2,000 bytes; at most 1,024".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let quota = QuotaFailure {
            violations: vec![quota_failure::Violation {
                subject: "accounts/team".into(),
                description: "10 keys".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let retry = RetryInfo {
            retry_delay: protobuf::Duration::from(Duration::from_millis(70)).into(),
            ..Default::default()
        };
        let mut wire = ConnectError::resource_exhausted("slow down")
            .with_detail(info("RATE_LIMITED", "larder"))
            .with_detail(ErrorDetail::from_message(
                "type.googleapis.com/google.rpc.BadRequest",
                &bad,
            ))
            .with_detail(ErrorDetail::from_message("google.rpc.QuotaFailure", &quota))
            .with_detail(ErrorDetail::from_message("google.rpc.RetryInfo", &retry));
        let error = from_call(&wire, Repeat::Effect);
        assert_eq!(error.field_violations()[0].field, "key");
        assert_eq!(error.quota_violations()[0].subject, "accounts/team");
        assert_eq!(error.retry_after(), Some(Duration::from_millis(70)));
        assert!(error.is_retryable());
        assert_eq!(
            error.to_string(),
            "slow down (RESOURCE_EXHAUSTED, RATE_LIMITED)"
        );

        // (pushback, retryable, delay)
        for (value, retryable, delay_ms) in [("90", true, 90), ("-1", false, 70), ("x", false, 70)]
        {
            wire.trailers_mut().insert(PUSHBACK, value.parse().unwrap());
            let error = from_call(&wire, Repeat::Effect);
            assert_eq!(error.is_retryable(), retryable, "{value}");
            assert_eq!(error.retry_after(), Some(Duration::from_millis(delay_ms)));
        }
    }

    #[test]
    fn strange_details_do_no_harm() {
        let wire = ConnectError::internal("x")
            .with_detail(info("MAYBE_APPLIED", "elsewhere.example"))
            .with_detail(ErrorDetail {
                type_url: "google.rpc.RetryInfo".into(),
                value: Some("//////".into()),
                debug: None,
            })
            .with_detail(ErrorDetail {
                type_url: "google.rpc.ErrorInfo".into(),
                value: Some("no base64!".into()),
                debug: None,
            });
        let error = from_call(&wire, Repeat::Read);
        assert_eq!(error.reason_name(), None);
        assert_eq!(error.retry_after(), None);

        let unknown = ConnectError::unavailable("x").with_detail(info("FROM_THE_FUTURE", "larder"));
        let error = from_call(&unknown, Repeat::Read);
        assert_eq!(error.reason(), None);
        assert_eq!(error.reason_name(), Some("FROM_THE_FUTURE"));
        assert!(error.is_retryable());
    }

    #[test]
    fn items_of_a_batch() {
        let info = ErrorInfo {
            reason: "KEY_QUOTA_EXCEEDED".into(),
            domain: "larder".into(),
            ..Default::default()
        };
        let status = Status {
            code: 8,
            message: "full".into(),
            details: vec![protobuf::Any {
                type_url: "type.googleapis.com/google.rpc.ErrorInfo".into(),
                value: info.encode_to_vec().into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let error = from_status(&status, Repeat::Effect);
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert_eq!(error.reason(), Some(Reason::KeyQuotaExceeded));
        let negative = Status {
            code: -1,
            ..Default::default()
        };
        assert_eq!(from_status(&negative, Repeat::Effect).code(), Code::Unknown);
    }
}
