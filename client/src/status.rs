//! The one place where statuses of the wire, and what there is in place of one, become
//! [`Error`]s.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use buffa::Message;
use larder_api::errors::Code;
use larder_api::google_rpc::{BadRequest, ErrorInfo, QuotaFailure, RetryInfo, Status};
use larder_api::wire;
use larder_transport::client::{Failed, Trailers};
use larder_transport::error_codes::ErrorCode;
use percent_encoding::percent_decode;

use crate::call::Lost;
use crate::channel::Unreached;
use crate::error::{
    Earlier, Error, FieldViolation, Inner, Origin, Pushback, QuotaViolation, Repeat,
};

/// When the server wants the next try, milliseconds; negative for never.
const PUSHBACK: &[u8] = b"grpc-retry-pushback-ms";

/// Most violations kept of one error; a server sends as many as it likes.
const MAX_VIOLATIONS: usize = 100;

/// The error of a call that the server ended with another status than OK (gRPC over HTTP/2,
/// "Responses").
pub(crate) fn from_trailers(trailers: &Trailers, repeat: Repeat) -> Error {
    let fields = &trailers.fields;
    let message = fields.value(b"grpc-message").unwrap_or_default();
    let message = percent_decode(message).decode_utf8_lossy();
    let code = Code::from_number(trailers.code.0.into());
    let mut inner = blank(code, message.into_owned(), repeat);
    if let Some(status) = fields.value(b"grpc-status-details-bin").and_then(details) {
        for detail in &status.details {
            read_detail(&mut inner, &detail.type_url, &detail.value);
        }
    }
    if let Some(value) = fields.value(PUSHBACK) {
        // A value that is no number means "do not retry", by the gRPC
        // specification of retries (gRFC A6).
        let delay_ms = std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse::<u64>().ok());
        match delay_ms {
            Some(delay_ms) => inner.retry_after = Some(Duration::from_millis(delay_ms)),
            None => inner.pushback = Pushback::Never,
        }
    }
    Error::from_inner(inner)
}

fn details(encoded: &[u8]) -> Option<Status> {
    let bytes = STANDARD_NO_PAD
        .decode(encoded)
        .or_else(|_| STANDARD.decode(encoded));
    Status::decode_from_slice(&bytes.ok()?).ok()
}

/// The error of a call that ended without a status of the server.
pub(crate) fn from_lost(lost: Lost, repeat: Repeat) -> Error {
    let code = code_of(&lost);
    match lost {
        Lost::Unreached(unreached) => {
            let mut error = Error::from_inner(Inner {
                origin: Origin::Connect,
                ..blank(code, unreached.to_string(), repeat)
            });
            error.set_source(Some(Arc::new(unreached)));
            error
        }
        Lost::Call(failed) => {
            let mut error = Error::from_inner(Inner {
                origin: match failed {
                    Failed::NotSent(_) | Failed::Refused | Failed::Deadline { sent: false } => {
                        Origin::Unsent
                    }
                    _ => Origin::Call,
                },
                ..blank(code, failed.to_string(), repeat)
            });
            error.set_source(Some(Arc::new(failed)));
            error
        }
    }
}

/// The code of a call that ended without a status of the server.
pub(crate) fn code_of(lost: &Lost) -> Code {
    match lost {
        Lost::Unreached(Unreached::TimedOut(_)) => Code::DeadlineExceeded,
        Lost::Unreached(_) => Code::Unavailable,
        Lost::Call(failed) => code_of_failure(failed),
    }
}

/// The code of an attempt that ended without a status of the server.
pub(crate) fn code_of_failure(failed: &Failed) -> Code {
    match failed {
        Failed::NotSent(_) | Failed::Refused | Failed::Lost(_) => Code::Unavailable,
        Failed::Deadline { .. } => Code::DeadlineExceeded,
        Failed::TooLarge { .. } => Code::ResourceExhausted,
        Failed::Reset(code) => of_reset(*code),
        Failed::Http { status, .. } => of_http(*status),
        _ => Code::Internal,
    }
}

/// gRPC over HTTP/2, "Errors".
const fn of_reset(code: ErrorCode) -> Code {
    match code.0 {
        // NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT,
        // FRAME_SIZE_ERROR, COMPRESSION_ERROR and CONNECT_ERROR.
        0x0..=0x4 | 0x6 | 0x9 | 0xa => Code::Internal,
        // REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM and INADEQUATE_SECURITY.
        0x7 => Code::Unavailable,
        0x8 => Code::Cancelled,
        0xb => Code::ResourceExhausted,
        0xc => Code::PermissionDenied,
        _ => Code::Unknown,
    }
}

/// gRPC's http-grpc-status-mapping.md.
const fn of_http(status: u16) -> Code {
    match status {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    }
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
        attempts: 0,
        earlier: Earlier::NoEffect,
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

#[cfg(test)]
mod tests {
    use larder_api::errors::{Reason, Retry};
    use larder_api::google_rpc::{bad_request, quota_failure};
    use larder_api::protobuf;
    use larder_transport::client::{Closed, NotSent};
    use larder_transport::hpack::{Decoder, Fields, write_literal};

    use super::*;

    /// The end of a call, as a server writes it.
    #[derive(Default)]
    struct Wire {
        code: u8,
        message: String,
        details: Vec<protobuf::Any>,
        pushback: Option<&'static str>,
    }

    impl Wire {
        fn new(code: Code, message: &str) -> Self {
            Self {
                code: code.number(),
                message: message.into(),
                ..Self::default()
            }
        }

        fn detail(mut self, type_url: &str, message: &impl Message) -> Self {
            self.details.push(protobuf::Any {
                type_url: type_url.into(),
                value: message.encode_to_vec().into(),
                ..Default::default()
            });
            self
        }

        fn info(self, reason: &str, domain: &str) -> Self {
            let info = ErrorInfo {
                reason: reason.into(),
                domain: domain.into(),
                ..ErrorInfo::default()
            };
            self.detail("google.rpc.ErrorInfo", &info)
        }

        fn fields(&self) -> Vec<(&'static str, String)> {
            let status = Status {
                code: self.code.into(),
                details: self.details.clone(),
                ..Status::default()
            };
            let mut fields = vec![
                ("grpc-status", self.code.to_string()),
                ("grpc-message", self.message.clone()),
                (
                    "grpc-status-details-bin",
                    STANDARD_NO_PAD.encode(status.encode_to_vec()),
                ),
            ];
            fields.extend(
                self.pushback
                    .map(|it| ("grpc-retry-pushback-ms", it.into())),
            );
            fields
        }

        fn error(&self, repeat: Repeat) -> Error {
            from_fields(self.code, &self.fields(), repeat)
        }
    }

    fn from_fields(code: u8, list: &[(&str, String)], repeat: Repeat) -> Error {
        let mut block = Vec::new();
        for (name, value) in list {
            write_literal(&mut block, name.as_bytes(), value.as_bytes());
        }
        let mut fields = Fields::default();
        Decoder::new(0)
            .decode(&block, &mut fields, 1 << 20)
            .unwrap();
        let code = larder_transport::client::Code(code);
        from_trailers(&Trailers { code, fields }, repeat)
    }

    fn answer(reason: Reason) -> Wire {
        Wire::new(reason.spec().code, "message").info(reason.name(), "larder")
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
                let error = answer(reason).error(repeat);
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
            let applied = answer(reason).error(Repeat::Effect).may_have_applied();
            let doubtful =
                retry == Retry::IfSafe || matches!(reason, Reason::Internal | Reason::Cancelled);
            assert_eq!(applied, doubtful, "{reason:?}");
            assert!(!answer(reason).error(Repeat::Read).may_have_applied());
        }
    }

    #[test]
    fn codes_without_a_reason() {
        use Code as E;
        // code, retryable for a read, may have applied for a write
        let table = [
            (E::Cancelled, false, true),
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
            let wire = Wire::new(code, "x");
            assert_eq!(
                wire.error(Repeat::Read).is_retryable(),
                retryable,
                "{code:?}"
            );
            assert!(!wire.error(Repeat::Effect).is_retryable(), "{code:?}");
            assert_eq!(
                wire.error(Repeat::Effect).may_have_applied(),
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
        let mut wire = Wire::new(Code::ResourceExhausted, "slow%20down")
            .info("RATE_LIMITED", "larder")
            .detail("type.googleapis.com/google.rpc.BadRequest", &bad)
            .detail("google.rpc.QuotaFailure", &quota)
            .detail("google.rpc.RetryInfo", &retry);
        let error = wire.error(Repeat::Effect);
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
            wire.pushback = Some(value);
            let error = wire.error(Repeat::Effect);
            assert_eq!(error.is_retryable(), retryable, "{value}");
            assert_eq!(error.retry_after(), Some(Duration::from_millis(delay_ms)));
        }
    }

    #[test]
    fn strange_details_do_no_harm() {
        let mut wire = Wire::new(Code::Internal, "x").info("MAYBE_APPLIED", "elsewhere.example");
        wire.details.push(protobuf::Any {
            type_url: "google.rpc.RetryInfo".into(),
            value: vec![0xff; 5].into(),
            ..Default::default()
        });
        let error = wire.error(Repeat::Read);
        assert_eq!(error.reason_name(), None);
        assert_eq!(error.retry_after(), None);

        let mut fields = wire.fields();
        for nonsense in ["no base64!", "////", ""] {
            fields[2].1 = nonsense.into();
            assert_eq!(from_fields(13, &fields, Repeat::Read).reason_name(), None);
        }
        fields.remove(2);
        fields[1].1 = "100%25 %F0%9F%98%80 %zz %ff".into();
        let error = from_fields(13, &fields, Repeat::Read);
        assert_eq!(error.message(), "100% \u{1f600} %zz \u{fffd}");

        let unknown = Wire::new(Code::Unavailable, "x").info("FROM_THE_FUTURE", "larder");
        let error = unknown.error(Repeat::Read);
        assert_eq!(error.reason(), None);
        assert_eq!(error.reason_name(), Some("FROM_THE_FUTURE"));
        assert!(error.is_retryable());
    }

    #[test]
    fn what_there_is_in_place_of_a_status() {
        let http = |status| Failed::Http {
            status,
            content_type: "text/html".into(),
        };
        let lost = || Closed::Silent("settings");
        // failure, code, retryable with an effect, and for a read, may have applied
        let table = [
            (
                Failed::NotSent(NotSent::Closing),
                Code::Unavailable,
                true,
                true,
                false,
            ),
            (
                Failed::NotSent(NotSent::Closed(lost())),
                Code::Unavailable,
                true,
                true,
                false,
            ),
            (Failed::Refused, Code::Unavailable, true, true, false),
            (
                Failed::Deadline { sent: false },
                Code::DeadlineExceeded,
                true,
                true,
                false,
            ),
            (
                Failed::Deadline { sent: true },
                Code::DeadlineExceeded,
                false,
                false,
                true,
            ),
            (Failed::Lost(lost()), Code::Unavailable, false, true, true),
            (
                Failed::Reset(ErrorCode::CANCEL),
                Code::Cancelled,
                false,
                false,
                true,
            ),
            (
                Failed::Reset(ErrorCode::INTERNAL_ERROR),
                Code::Internal,
                false,
                false,
                true,
            ),
            (
                Failed::Reset(ErrorCode::ENHANCE_YOUR_CALM),
                Code::ResourceExhausted,
                false,
                false,
                true,
            ),
            (
                Failed::Reset(ErrorCode(99)),
                Code::Unknown,
                false,
                false,
                true,
            ),
            (
                Failed::TooLarge { bytes: 2, max: 1 },
                Code::ResourceExhausted,
                false,
                false,
                true,
            ),
            (Failed::Protocol("x"), Code::Internal, false, false, true),
            (http(400), Code::Internal, false, false, true),
            (http(401), Code::Unauthenticated, false, false, false),
            (http(404), Code::Unimplemented, false, false, false),
            (http(502), Code::Unavailable, false, true, true),
            (http(500), Code::Unknown, false, false, true),
        ];
        for (failed, code, effect, read, applied) in table {
            let error = |repeat| from_lost(Lost::Call(failed.clone()), repeat);
            assert_eq!(error(Repeat::Effect).code(), code, "{failed}");
            assert_eq!(error(Repeat::Effect).is_retryable(), effect, "{failed}");
            assert_eq!(error(Repeat::Read).is_retryable(), read, "{failed}");
            assert_eq!(
                error(Repeat::Effect).may_have_applied(),
                applied,
                "{failed}"
            );
        }
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
