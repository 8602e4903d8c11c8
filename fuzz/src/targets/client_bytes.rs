//! A connection in the client's role whose server sends any bytes, in any pieces, at any
//! time. The first inputs are what a server of this crate sent.

use std::io::ErrorKind;
use std::time::Duration;

use larder_transport::frame::{Kind, write_settings};

use crate::features::note;
use crate::harness::{Caller, Far, Near, on_a_stopped_clock};
use crate::random::Random;

/// Calls of one input.
const MAX_CALLS: usize = 40;

/// What the server sends. The pieces, the times and the calls follow from its length, so
/// that a byte can change alone.
pub(crate) fn run(data: &[u8]) {
    on_a_stopped_clock(converse(data));
}

async fn converse(data: &[u8]) {
    let mut random = Random::new(data.len() as u64);
    let mut sent = Vec::new();
    if data.get(3).is_some_and(|&kind| kind != Kind::SETTINGS.0) {
        write_settings(&mut sent, &[]);
    }
    sent.extend_from_slice(data);
    let mut client = Client {
        near: Near::default(),
        far: Far::new(None),
    };
    client
        .near
        .pipe
        .make_room([usize::MAX, 4096][random.below(2)]);
    for _ in 0..4 {
        client.call(&mut random);
    }
    client.near.run();
    let most = [usize::MAX, 4000, 100, 8][random.below(4)];
    let patience = [0, 0, 20, 12_000][random.below(4)];
    let mut rest = sent.as_slice();
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(1 + random.below(most.min(rest.len())));
        rest = later;
        client.near.deliver(piece);
        client.far.read(&client.near.pipe.take());
        client.act(&mut random);
        if patience > 0 && random.one_in(4) {
            let by = u64::try_from(random.below(patience)).unwrap_or(0);
            client.near.advance(Duration::from_millis(by)).await;
        }
    }
    client.end(random.below(7)).await;
}

struct Client {
    near: Near,
    far: Far,
}

impl Client {
    fn call(&mut self, random: &mut Random) {
        let within = [None, None, Some(5), Some(3000)][random.below(4)];
        let within = within.map(Duration::from_millis);
        let length = [0, 3, 3, 3, 20_000, 40_000][random.below(6)];
        if random.one_in(2) {
            self.near.unary(&vec![b'.'; length], within);
        } else {
            self.near.stream(within);
            if let Some(caller) = self.near.callers.last_mut() {
                caller.reads = !random.one_in(4);
                caller.send(vec![b'.'; length]);
            }
        }
    }

    /// Somebody does something.
    fn act(&mut self, random: &mut Random) {
        let count = self.near.callers.len();
        let place = random.below(count);
        let caller = &mut self.near.callers[place];
        match random.below(16) {
            0 | 1 if count < MAX_CALLS => self.call(random),
            2 => caller.give_up(),
            3 => caller.cut(),
            4 => caller.finish(),
            5 => caller.send(vec![b'.'; random.below(20_000)]),
            6 => caller.read_on(),
            7 | 8 => self.near.pipe.make_room(1 << random.below(16)),
            9 if random.one_in(16) => self.near.drain(),
            _ => {}
        }
        self.near.run();
    }

    /// However the connection ends, every call does.
    async fn end(mut self, how: usize) {
        note(("end", how));
        match how {
            0 => self.near.pipe.end(None),
            1 => self.near.pipe.end(Some(ErrorKind::ConnectionReset)),
            2 => self.near.drop_driver(),
            3 => {
                self.near.pipe.break_off();
                self.near.pipe.end(None);
            }
            4 => self.near.drain(),
            5 => self.near.let_go(),
            // Its server never says anything again: that is found out while anybody waits.
            _ => {}
        }
        self.near.run();
        self.far.read(&self.near.pipe.take());
        for _ in 0..8 {
            self.near.callers.iter_mut().for_each(Caller::read_on);
            self.near.advance(Duration::from_secs(6)).await;
        }
        self.near.expect_ends();
        // With nobody left who waits, it may stay open.
        self.near.let_go();
        self.near.run();
        self.near.advance(Duration::from_secs(2)).await;
        self.near.finish();
    }
}
