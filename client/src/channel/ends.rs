//! What the end of an attempt means for the channel: its status code, and whether a server may have
//! seen it.

use larder_api::errors::Code;
use larder_transport::client::{Failed, Response};

use super::retry::{AttemptEnd, Pushback};
use crate::status;

/// When the server wants the next try, milliseconds; negative for never (gRFC A6).
const PUSHBACK: &[u8] = b"grpc-retry-pushback-ms";

/// How an attempt ended, for retries and hedging.
pub(crate) fn end_of(result: &Result<Response, Failed>) -> AttemptEnd {
    match result {
        Ok(response) => match code_of(response) {
            Code::Ok => AttemptEnd::Ok,
            code => AttemptEnd::Failed(code, pushback(response)),
        },
        Err(Failed::NotSent(_)) => AttemptEnd::NotSent,
        Err(Failed::Refused) => AttemptEnd::Refused,
        Err(failed) => AttemptEnd::Failed(status::code_of_failure(failed), Pushback::None),
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
