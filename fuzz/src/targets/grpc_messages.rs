//! gRPC over HTTP/2, "Length-Prefixed-Message": however the content of a request
//! is cut into frames, its answer is the one that the content alone decides.

use larder_transport::connection::End;
use larder_transport::frame::{PREFACE, write_settings};

use crate::features::note;
use crate::harness::{
    Lane, Peer, Response, Session, data_frame, headers, headers_frame, small_limits,
};
use crate::random::Random;

/// As in the limits.
const MAX_MESSAGE_BYTES: usize = 32 * 1024;

/// The content of a request; before it, a byte that says how it ends, and how
/// often it is repeated.
pub(crate) fn run(data: &[u8]) {
    let Some((&how, part)) = data.split_first() else {
        return;
    };
    let mut content = part.to_vec();
    // Past a limit, without long inputs.
    content.resize(part.len() + 1000 * usize::from(how >> 3), b'.');
    let mut random = Random::new(data.len() as u64);
    let whole = answer(Lane::Typed, &content, &mut |left| left);
    check_typed(&whole, &content);
    let least = 1 + content.len() / 200;
    for most in [least + random.below(8), least + random.below(3000)] {
        let cut = answer(Lane::Typed, &content, &mut |left| {
            (1 + random.below(most)).min(left)
        });
        assert_eq!(cut, whole, "in pieces of at most {most}");
        let mirrored = answer(Lane::General, &content, &mut |left| {
            (1 + random.below(most)).min(left)
        });
        assert!(mirrored.ended && mirrored.content == content);
    }
}

fn check_typed(got: &Response, content: &[u8]) {
    let expected = match content.split_first_chunk::<5>() {
        None if content.is_empty() => 12,
        None => 13,
        Some((&[flag, a, b, c, d], message)) => {
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            if flag != 0 {
                13
            } else if length > MAX_MESSAGE_BYTES {
                8
            } else if length > message.len() {
                13
            } else if length < message.len() {
                12
            } else {
                0
            }
        }
    };
    note((expected, content.len().min(8)));
    assert_eq!(got.grpc_status, Some(expected), "{got:?}");
    let echoed: &[u8] = if expected == 0 { content } else { b"" };
    assert!(got.ended && got.content == echoed);
}

fn answer(lane: Lane, content: &[u8], piece: &mut dyn FnMut(usize) -> usize) -> Response {
    let mut session = Session::new(small_limits(), Peer::new(None));
    let mut bytes = PREFACE.to_vec();
    let window = larder_transport::frame::SettingId::INITIAL_WINDOW_SIZE;
    write_settings(&mut bytes, &[(window, 1 << 20)]);
    let method = if lane == Lane::Typed {
        "Echo"
    } else {
        "Mirror"
    };
    headers_frame(&mut bytes, 1, &headers(lane, method, &[]), End::Open);
    session.send(&bytes);
    let mut rest = content;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(piece(rest.len().min(16_384)));
        rest = later;
        let mut frame = Vec::new();
        data_frame(&mut frame, 1, now, End::Open);
        session.send(&frame);
        if now.len() % 3 != 0 {
            session.deliver(usize::MAX);
            session.take(usize::MAX);
        }
        // Refused by what there is: a client stops.
        if session.peer.response(1).is_over() {
            break;
        }
    }
    let mut last = Vec::new();
    data_frame(&mut last, 1, b"", End::Stream);
    session.send(&last);
    session.settle();
    assert_eq!(session.failure(), None);
    let response = session.peer.response(1).clone();
    session.lost();
    // Reset without an error after an early answer: an answer all the same.
    response.without_reset()
}
