//! What `ConformanceService` answers, in no protocol's terms: the suite sends
//! with each request how it is to be answered.

use std::collections::VecDeque;
use std::time::Duration;

use buffa::Message as _;
use buffa_types::google::protobuf::Any;

use crate::wire::conformance_payload::{ConnectGetInfo, RequestInfo};
use crate::wire::unary_response_definition::Response;
use crate::wire::{
    Code, ConformancePayload, Error, Header, StreamResponseDefinition, UnaryResponseDefinition, any,
};

/// What goes before and after the messages.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    pub(crate) headers: Vec<Header>,
    pub(crate) trailers: Vec<Header>,
}

/// An error to answer with.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) details: Vec<Any>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            code: error.code.as_known().unwrap_or(Code::CODE_UNKNOWN),
            message: error.message.unwrap_or_default(),
            details: error.details,
        }
    }
}

impl Failure {
    /// The same, told with it what was asked.
    fn with(mut self, info: &RequestInfo) -> Self {
        self.details.push(any::<RequestInfo>(info.encode_to_vec()));
        self
    }
}

/// The answer to a unary call or a client stream.
#[derive(Debug)]
pub(crate) struct UnaryAnswer {
    pub(crate) metadata: Metadata,
    /// To wait before anything is sent.
    pub(crate) delay: Duration,
    pub(crate) outcome: Result<ConformancePayload, Failure>,
}

/// Builds the answer that a definition asks for.
pub(crate) fn unary(definition: Option<UnaryResponseDefinition>, info: RequestInfo) -> UnaryAnswer {
    let definition = definition.unwrap_or_default();
    let outcome = match definition.response {
        Some(Response::Error(error)) => Err(Failure::from(*error).with(&info)),
        Some(Response::ResponseData(data)) => Ok(payload(data, Some(info))),
        None => Ok(payload(Vec::new(), Some(info))),
    };
    UnaryAnswer {
        metadata: Metadata {
            headers: definition.response_headers,
            trailers: definition.response_trailers,
        },
        delay: Duration::from_millis(definition.response_delay_ms.into()),
        outcome,
    }
}

/// The answer to a server stream, or to a bidirectional stream after its last
/// request.
#[derive(Debug)]
pub(crate) struct StreamAnswer {
    pub(crate) metadata: Metadata,
    /// To wait before each message.
    pub(crate) delay: Duration,
    pub(crate) payloads: VecDeque<ConformancePayload>,
    pub(crate) end: Result<(), Failure>,
}

/// Builds the answer that a definition asks for: the first message, or else the
/// error, tells what was asked.
pub(crate) fn stream(
    definition: Option<StreamResponseDefinition>,
    info: RequestInfo,
) -> StreamAnswer {
    let definition = definition.unwrap_or_default();
    let failure = definition.error.into_option().map(Failure::from);
    let end = match failure {
        Some(failure) if definition.response_data.is_empty() => Err(failure.with(&info)),
        Some(failure) => Err(failure),
        None => Ok(()),
    };
    let mut info = Some(info);
    StreamAnswer {
        metadata: Metadata {
            headers: definition.response_headers,
            trailers: definition.response_trailers,
        },
        delay: Duration::from_millis(definition.response_delay_ms.into()),
        payloads: definition
            .response_data
            .into_iter()
            .map(|data| payload(data, info.take()))
            .collect(),
        end,
    }
}

/// The answer to a bidirectional stream whose messages take turns: one message
/// for each request, as long as there are any.
#[derive(Debug)]
pub(crate) struct Turns {
    /// To wait before each message.
    pub(crate) delay: Duration,
    data: VecDeque<Vec<u8>>,
    end: Option<Failure>,
    /// Of the call, for the first message, or else for the error.
    info: Option<RequestInfo>,
}

impl Turns {
    /// Takes the messages and the error of a definition; `info` is of the call,
    /// without its requests.
    pub(crate) fn new(definition: Option<StreamResponseDefinition>, info: RequestInfo) -> Self {
        let definition = definition.unwrap_or_default();
        Self {
            delay: Duration::from_millis(definition.response_delay_ms.into()),
            data: definition.response_data.into(),
            end: definition.error.into_option().map(Failure::from),
            info: Some(info),
        }
    }

    /// True if there is no further message.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.data.is_empty()
    }

    /// The message after `requests`; the first tells of the call, too.
    pub(crate) fn next(&mut self, requests: Vec<Any>) -> Option<ConformancePayload> {
        let data = self.data.pop_front()?;
        let info = match self.info.take() {
            Some(info) => Some(RequestInfo { requests, ..info }),
            None if requests.is_empty() => None,
            None => Some(RequestInfo {
                requests,
                ..RequestInfo::default()
            }),
        };
        Some(payload(data, info))
    }

    /// The error at the end, if there is to be one.
    pub(crate) fn end(&mut self, requests: Vec<Any>) -> Option<Failure> {
        let failure = self.end.take()?;
        Some(match self.info.take() {
            Some(info) => failure.with(&RequestInfo { requests, ..info }),
            None => failure,
        })
    }
}

fn payload(data: Vec<u8>, info: Option<RequestInfo>) -> ConformancePayload {
    ConformancePayload {
        data,
        request_info: info.into(),
        ..ConformancePayload::default()
    }
}

/// Tells what a call's head said.
pub(crate) fn request_info<'a>(
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    timeout: Option<Duration>,
    query: Option<&str>,
    requests: Vec<Any>,
) -> RequestInfo {
    let fields = fields.map(|(name, value)| (name, String::from_utf8_lossy(value).into_owned()));
    let parameters = query.map(|query| ConnectGetInfo {
        query_params: grouped(query_parameters(query)),
        ..ConnectGetInfo::default()
    });
    RequestInfo {
        request_headers: grouped(fields),
        timeout_ms: timeout.map(|left| i64::try_from(left.as_millis()).unwrap_or(i64::MAX)),
        requests,
        connect_get_info: parameters.into(),
        ..RequestInfo::default()
    }
}

/// The values of each name together, in the order in which they came.
fn grouped<N: AsRef<str>>(fields: impl Iterator<Item = (N, String)>) -> Vec<Header> {
    let mut headers: Vec<Header> = Vec::new();
    for (name, value) in fields {
        let name = name.as_ref();
        match headers.iter_mut().find(|header| header.name == name) {
            Some(header) => header.value.push(value),
            None => headers.push(Header {
                name: name.to_owned(),
                value: vec![value],
                ..Header::default()
            }),
        }
    }
    headers
}

/// The parameters of `application/x-www-form-urlencoded`, as Connect sends them.
fn query_parameters(query: &str) -> impl Iterator<Item = (String, String)> {
    let decoded = |text: &str| {
        percent_encoding::percent_decode_str(&text.replace('+', " "))
            .decode_utf8_lossy()
            .into_owned()
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(move |pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        })
}
