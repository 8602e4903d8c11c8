//! What the end of an attempt means for the channel: its status code, and whether a server may have
//! seen it.

use larder_api::errors::Code;
use larder_transport::client::{Failed, Response};
use larder_transport::error_codes::ErrorCode;

use super::retry::{AttemptEnd, Pushback};

/// When the server wants the next try, milliseconds; negative for never (gRFC A6).
const PUSHBACK: &[u8] = b"grpc-retry-pushback-ms";

/// RFC 9113, section 7: the transport has no need of it.
const INADEQUATE_SECURITY: ErrorCode = ErrorCode(0xc);

/// How an attempt ended, for retries and hedging.
pub(crate) fn end_of(result: &Result<Response, Failed>) -> AttemptEnd {
    match result {
        Ok(response) => match code_of(response) {
            Code::Ok => AttemptEnd::Ok,
            code => AttemptEnd::Failed(code, pushback(response)),
        },
        Err(Failed::NotSent(_)) => AttemptEnd::NotSent,
        Err(Failed::Refused) => AttemptEnd::Refused,
        Err(failed) => AttemptEnd::Failed(code_of_failure(failed), Pushback::None),
    }
}

/// Whether the end speaks well of the server, for outlier ejection. An answer that is the caller's
/// own fault does.
pub(crate) fn speaks_well(end: AttemptEnd) -> bool {
    match end {
        AttemptEnd::Ok => true,
        AttemptEnd::NotSent | AttemptEnd::Refused => false,
        AttemptEnd::Failed(code, _) => !matches!(
            code,
            Code::Unavailable
                | Code::Internal
                | Code::Unknown
                | Code::DeadlineExceeded
                | Code::DataLoss
        ),
    }
}

/// The server's status.
pub(crate) fn code_of(response: &Response) -> Code {
    Code::from_number(response.trailers.code.0.into())
}

/// The status that a failure of the connection comes to: gRPC over HTTP/2, "Errors", and
/// `http-grpc-status-mapping.md`.
pub(crate) fn code_of_failure(failed: &Failed) -> Code {
    match failed {
        Failed::NotSent(_) | Failed::Refused | Failed::Lost(_) => Code::Unavailable,
        Failed::Reset(code) => match *code {
            ErrorCode::REFUSED_STREAM => Code::Unavailable,
            ErrorCode::CANCEL => Code::Cancelled,
            ErrorCode::ENHANCE_YOUR_CALM => Code::ResourceExhausted,
            INADEQUATE_SECURITY => Code::PermissionDenied,
            _ => Code::Internal,
        },
        Failed::Deadline { .. } => Code::DeadlineExceeded,
        Failed::TooLarge { .. } => Code::ResourceExhausted,
        Failed::Http { status, .. } => match status {
            400 => Code::Internal,
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::Unimplemented,
            429 | 502..=504 => Code::Unavailable,
            _ => Code::Unknown,
        },
        Failed::Protocol(_) => Code::Internal,
        _ => Code::Unknown,
    }
}

fn pushback(response: &Response) -> Pushback {
    let trailer = response.trailers.fields.value(PUSHBACK);
    match trailer.or_else(|| response.headers.value(PUSHBACK)) {
        None => Pushback::None,
        Some(value) => match std::str::from_utf8(value) {
            Ok(text) => Pushback::parse(text),
            Err(_) => Pushback::Never,
        },
    }
}
