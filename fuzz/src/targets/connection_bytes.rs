//! A connection that gets any bytes, in any pieces, at any time. The first inputs
//! are what real clients sent.

use std::time::Duration;

use larder_transport::frame::PREFACE;

use crate::harness::{Peer, Session, small_limits};
use crate::random::Random;

/// What the client sends. The pieces and the times follow from its length, so that
/// a byte can change alone.
pub(crate) fn run(data: &[u8]) {
    let mut random = Random::new(data.len() as u64);
    let mut session = Session::new(small_limits(), Peer::new(None));
    if !data.starts_with(&PREFACE[..4]) && !data.is_empty() {
        session.send(PREFACE);
    }
    session.send(data);
    let most = [usize::MAX, 4000, 100, 8][random.below(4)];
    let patience = [0, 0, 20, 30_000][random.below(4)];
    let mut left = data.len() + PREFACE.len();
    while left > 0 && session.is_open() {
        let piece = 1 + random.below(most.min(left));
        left -= piece;
        session.deliver(piece);
        if patience > 0 && random.one_in(4) {
            let by = u64::try_from(random.below(patience)).unwrap_or(0);
            session.advance(Duration::from_millis(by));
        }
        match random.below(8) {
            0 => session.gate.open(),
            1 => session.gate.wake(),
            2 => session.take(random.below(64)),
            3 | 4 => session.take(usize::MAX),
            _ => {}
        }
    }
    session.peer.answers.clear();
    session.gate.open();
    for _ in 0..4 {
        session.deliver(usize::MAX);
        session.take(usize::MAX);
    }
    session.advance(Duration::from_secs(61));
    session.take(usize::MAX);
    session.lost();
}
