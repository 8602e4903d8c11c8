//! Every row of the catalogue, in every protocol.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use super::*;
use crate::edge::tests::read;

/// The protocols, by the content type of a request; with it, whether HTTP tells
/// the status too.
const PROTOCOLS: [(&str, bool); 7] = [
    ("application/grpc", false),
    ("application/grpc-web", false),
    ("application/grpc-web+proto", false),
    ("application/proto", true),
    ("application/json", true),
    ("application/connect+proto", false),
    ("application/connect+json", false),
];

#[tokio::test]
async fn every_reason_is_told_in_every_protocol() {
    for (kind, tells_http) in PROTOCOLS {
        let head = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
        for reason in Reason::ALL {
            let spec = reason.spec();
            let failure = Failure::new(*reason, "why").retry_after(Duration::from_millis(5));
            let response = connect_error(&failure).into_http_response(&head);
            let http = response.status().as_u16();
            let expected = if tells_http {
                spec.code.http_status()
            } else {
                200
            };
            assert_eq!(http, expected, "{} in {kind}", spec.name);
            let told = read(response).await;
            assert_eq!(told, (spec.code, Some(*reason)), "{kind}");
        }
    }
}

#[test]
fn every_reason_is_told_on_the_typed_lane() {
    for reason in Reason::ALL {
        let failure = Failure::new(*reason, "why").retry_after(Duration::from_millis(5));
        let (told, pushback) = grpc_status(&failure);
        assert_eq!(told.code.0, reason.spec().code.number());
        assert_eq!(pushback.is_some(), pushes_back(*reason));
        let status = wire::Status::decode_from_slice(&told.details).expect("a status");
        assert_eq!(status.message, "why");
        let info = wire::ErrorInfo::decode_from_slice(&status.details[0].value).expect("ErrorInfo");
        assert_eq!(info.reason, reason.name());
        let temporary = info.metadata.get("temporary").map(String::as_str);
        assert_eq!(temporary, Some(&*reason.is_temporary().to_string()));
    }
}

#[test]
fn the_details_of_an_item_are_json_that_others_can_read() {
    larder_api::register_details();
    let failure = Failure::field(Reason::KeyEmpty, "keys[3]", "must not be empty");
    let json = serde_json::to_value(status(&failure)).expect("JSON");
    let info = &json["details"][0];
    assert_eq!(info["@type"], "type.googleapis.com/google.rpc.ErrorInfo");
    assert_eq!(info["reason"], "KEY_EMPTY");
    let violation = &json["details"][1]["fieldViolations"][0];
    assert_eq!(violation["field"], "keys[3]");
}
